"""The curate step: what each step takes, in which order, nothing lost, and the same bytes with any number of workers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from data_prep.curate import CurateSpec, curate_item, open_curation
from data_prep.inspect import inspect
from data_prep.item_files import LINES, identity
from data_prep.kinds import Setting
from data_prep.prepare import prepare
from data_prep.records import Dropped, Kept
from fuzz_curate import read_items, write_items
from starchat.dialogue import Part, Record, Source, Turn
from starchat.errors import UserError
from tests.repositories import commit, new

ALL: dict[str, Any] = {
    "licenses": {"allow": ["permissive", "none"]},
    "filters": {"preset": "dialogues", "min_characters": 10},
}


def write_chats(path: Path, answers: list[str]) -> None:
    """Write one dialogue for each answer, as OpenAI's messages."""
    rows = [{"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": text}]} for n, text in enumerate(answers)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def spec_file(folder: Path, **keys: Any) -> Path:
    """Write a spec (JSON is YAML)."""
    path = folder / "spec.yaml"
    path.write_text(json.dumps({"output": str(folder / "out"), **keys}), encoding="utf-8")
    return path


def test_a_step_drops_with_its_reason_and_nothing_is_lost(tmp_path: Path) -> None:
    """Counts hold, what was dropped can be looked at, and the manifest states all rules."""
    write_chats(tmp_path / "chats.jsonl", ["A fine answer.", "As an AI, I refuse.", "```python\ndef f(:\n```", "x", "Another fine answer."])
    spec = spec_file(tmp_path, sources=[{"kind": "dialogues", "path": str(tmp_path / "chats.jsonl")}], curate=ALL, test_fraction=0)
    manifest = prepare(spec, progress=False)
    assert manifest["counts"]["read"] == 5
    assert manifest["counts"]["kept"] == 2
    assert manifest["counts"]["dropped"] == {"refusal": 1, "does_not_parse": 1, "few_characters": 1}
    assert manifest["spec"]["curate"]["filters"]["refusals"] == "drop"
    report = inspect(tmp_path / "out", reason="refusal")
    assert "As an AI" in report["dropped_samples"]["refusal"][0]["raw"]


def test_the_order_of_steps_is_that_of_the_spec_class() -> None:
    """A record that every step would take is taken by the first; what was asked to be taken out leaves no text behind."""
    record = Record(Source("x", "Ada/Engine"), (Turn("user", "q"), Turn("assistant", "As an AI, no")), license="GPL-3.0-only")
    setting = Setting(workers=1)
    rules: dict[str, Any] = {"licenses": {}, "filters": {"preset": "dialogues"}}
    steps = ["opt_out", "licenses", "filters", "decontaminate", "redact", "near_duplicates"]
    assert list(CurateSpec.__dataclass_fields__) == steps
    found = curate_item(Kept(record), open_curation(rules, "spec", setting))[0]
    assert isinstance(found, Dropped)
    assert (found.reason, "As an AI" in found.raw) == ("license_copyleft", True)
    found = curate_item(Kept(record), open_curation({"filters": rules["filters"]}, "spec", setting))[0]
    assert isinstance(found, Dropped)
    assert found.reason == "refusal"


def test_opt_outs_leave_no_text(tmp_path: Path) -> None:
    """The dropped rows of a request name it, and hold nothing of what was taken out."""
    (tmp_path / "list.txt").write_text("octo/engine\n", encoding="utf-8")
    clone = new(tmp_path / "clone")
    commit(clone, "Begin", {"a.py": "def add(a, b):\n    return a + b\n" * 5})
    sources = [
        {"kind": "source", "path": str(clone), "repository": name, "view": "document", "rules": {"preset": "none"}}
        for name in ("Octo/Engine", "Octo/Motor")
    ]
    spec = spec_file(tmp_path, sources=sources, curate={"opt_out": {"lists": [str(tmp_path / "list.txt")]}})
    manifest = prepare(spec, progress=False)
    rows = pq.read_table(tmp_path / "out" / "dropped" / "opt_out.parquet").to_pylist()
    assert [(row["raw"], row["detail"]) for row in rows] == [("", f"octo/engine, asked for in {tmp_path}/list.txt:1")]
    assert manifest["counts"]["dropped"]["opt_out"] == 1
    assert str(tmp_path / "list.txt") in [entry.get("path") for entry in manifest["inputs"]]


def test_a_changed_list_makes_a_new_dataset(tmp_path: Path) -> None:
    """The lists are inputs: what was prepared with another one is not taken for this one's."""
    write_chats(tmp_path / "chats.jsonl", ["A fine answer."])
    (tmp_path / "list.txt").write_text("ada\n", encoding="utf-8")
    steps = {"opt_out": {"lists": [str(tmp_path / "list.txt")]}}
    spec = spec_file(tmp_path, sources=[{"kind": "dialogues", "path": str(tmp_path / "chats.jsonl")}], curate=steps)
    prepare(spec, progress=False)
    assert prepare(spec, progress=False)["skipped"]
    (tmp_path / "list.txt").write_text("ada\nbob\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds another prepare result"):
        prepare(spec, progress=False)


def test_all_faults_are_told_at_once() -> None:
    """A spec with three faulty steps is corrected once."""
    steps = {"opt_out": {"lists": []}, "licenses": {"allow": ["x"]}, "filters": {"preset": "x"}}
    with pytest.raises(UserError) as caught:
        open_curation(steps, "spec", Setting(workers=1))
    assert [line.split(":")[0] for line in str(caught.value).split("\n")] == [
        "spec.opt_out.lists",
        "spec.licenses.allow",
        "spec.filters.preset",
    ]
    with pytest.raises(UserError, match="unknown key 'licences'; did you mean 'licenses'"):
        open_curation({"licences": {}}, "spec", Setting(workers=1))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(CurateSpec)])
def test_a_step_with_nothing_behind_it_is_a_fault(name: str) -> None:
    """Whoever wrote the line wants the step."""
    told = rf"^spec: curate\.{name}: nothing stands behind it; write {name}: {{}} for the step as it is by rule, or take the line out$"
    with pytest.raises(UserError, match=told):
        open_curation(yaml.safe_load(f"{name}:\n"), "spec: curate", Setting(workers=1))


def test_a_fault_names_its_key_once() -> None:
    """Whatever the spec is called."""
    steps: dict[str, Any] = {"redact": {"dorp": []}, "near_duplicates": {"treshold": 0.7, "prefer": ["stars"]}}
    with pytest.raises(UserError) as caught:
        open_curation(steps, "my-secrets.yaml: curate", Setting(workers=1))
    assert str(caught.value).split("\n") == [
        "my-secrets.yaml: curate.redact: unknown key 'dorp'; did you mean 'drop'?",
        "my-secrets.yaml: curate.near_duplicates: unknown key 'treshold'; did you mean 'threshold'?",
    ]
    with pytest.raises(
        UserError, match=r"^spec: curate\.redact\.drop: .*\nspec: curate\.near_duplicates\.threshold: 7\.0; expected a number"
    ):
        open_curation({"redact": {"drop": ["x"]}, "near_duplicates": {"threshold": 7}}, "spec: curate", Setting(workers=1))


def test_same_bytes_with_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces depend on the input alone."""
    monkeypatch.setattr("data_prep.dialogues.STRETCH_BYTES", 1000)
    write_chats(tmp_path / "chats.jsonl", [f"Answer {n}." if n % 3 else "As an AI, no" for n in range(100)])
    spec = spec_file(tmp_path, sources=[{"kind": "dialogues", "path": str(tmp_path / "chats.jsonl")}], curate=ALL)
    made = []
    for workers in (1, 3):
        prepare(spec, [f"output={tmp_path}/out{workers}"], progress=False, workers=workers, pieces_of_a_shard=workers)
        made.append({path.name: path.read_bytes() for path in sorted((tmp_path / f"out{workers}").rglob("*.parquet"))})
    assert made[0] == made[1]
    assert len(made[0]) > 2


def test_items_survive_a_file(tmp_path: Path) -> None:
    """What is written between two passes is read as it was: dialogues, pairs, documents, dropped units with broken texts."""
    turns = (Turn("user", "q\u2028"), Turn("assistant", "a", train=False), Turn("assistant", "b"))
    items = [
        Kept(Record(Source("x", url="u"), turns, license="MIT"), ("nul", "nul")),
        Kept(Record(Source("x"), turns[:1] + turns[2:], rejected=Turn("assistant", "c"))),
        Kept(Record(Source("y", "r", "p", "c"), parts=(Part("<filename>", "a"), Part("", "\r\n\x00")))),
        Dropped("broken", "z:1", "detail", "raw\udce9", fault=True),
    ]
    write_items(tmp_path, items)
    assert list(read_items(tmp_path)) == [*items[:3], Dropped("broken", "z:1", "detail", "raw\\udce9", fault=True)]
    lines = np.load(tmp_path / LINES)
    assert [identity(words) for words in lines["id"][:3]] == [item.record.id for item in items if isinstance(item, Kept)]
    assert lines["kept"].tolist() == [True, True, True, False]


def test_units_dropped_before_lose_their_text_where_they_name_a_request(tmp_path: Path) -> None:
    """What a reader refused tells no source, only its words; the reason and the place stay."""
    (tmp_path / "list.txt").write_text("ada\nbob/engine\n", encoding="utf-8")
    curation = open_curation({"opt_out": {"lists": [str(tmp_path / "list.txt")]}}, "spec", Setting(workers=1))
    named = ['{"login": "Ada"}', "see https://github.com/Bob/Engine/pull/7", "Ada/notes", "by @ada:"]
    others = ["adage", "bob/engines", "bob", "engine"]
    for raw in named + others:
        found = curate_item(Dropped("broken", "x:1", "detail", raw), curation)[0]
        assert found == Dropped("broken", "x:1", "detail", "" if raw in named else raw)
