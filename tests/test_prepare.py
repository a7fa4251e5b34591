"""The prepare stage end to end: conservation, faults, determinism, and nothing half-written. For splits and weights see test_mixture."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.prepare import prepare
from data_prep.prepared import dropped_files
from preparing import assert_conserved, chat, digests, records, run, write_rows, write_spec
from runs import mounted_disk
from starchat.dialogue import from_row
from starchat.errors import UserError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_smallest_spec() -> None:
    manifest = run({"path": write_rows("chats.jsonl", [chat("one"), chat("two"), chat("one"), chat(" ", "")])})
    assert_conserved(manifest)
    counts = manifest["counts"]
    assert (counts["read"], counts["kept"], counts["dropped"]) == (4, 2, {"duplicate": 1, "empty_dialogue": 1})
    assert counts["sources"][0]["format"] == "messages"
    assert manifest["folder"] == "dataset"
    assert manifest["inputs"] == [
        {
            "path": "chats.jsonl",
            "bytes": os.path.getsize("chats.jsonl"),
            "sha256": hashlib.sha256(Path("chats.jsonl").read_bytes()).hexdigest(),
        }
    ]
    assert manifest["stage"] == "prepare"
    assert [row.source.place for row in records()] == ["chats.jsonl:1", "chats.jsonl:2"]


def test_datasets_loads_the_folder_with_its_splits(tmp_path: Path) -> None:
    rows = [chat(f"question {n}") for n in range(40)]
    rows[0]["messages"][1]["tool_calls"] = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    rows[1]["messages"][1]["weight"] = 1
    manifest = run({"path": write_rows("chats.jsonl", rows)}, test_fraction=0.3)
    loaded = datasets.load_dataset("./dataset", cache_dir=str(tmp_path / "cache"))
    assert {split: len(loaded[split]) for split in loaded} == manifest["counts"]["splits"]
    assert min(manifest["counts"]["splits"].values()) > 0
    everything = [from_row(row) for split in loaded for row in loaded[split]]
    assert {row.id for row in everything} == {row.id for row in records()}
    assert sum(len(turn.tool_calls) for row in everything for turn in row.turns) == 1


def test_every_format_in_one_mixture() -> None:
    tree = {"message_id": "1", "text": "oasst", "role": "prompter", "replies": [{"message_id": "2", "text": "x", "role": "assistant"}]}
    sources = [
        write_rows("a.jsonl", [chat("messages")]),
        write_rows("b.jsonl", [{"conversations": [{"from": "human", "value": "sharegpt"}, {"from": "gpt", "value": "x"}]}]),
        write_rows("c.jsonl", [{"instruction": "alpaca", "input": "", "output": "x"}]),
        write_rows("d.jsonl", [{"instruction": "dolly", "context": "", "response": "x", "category": "qa"}]),
        write_rows("e.jsonl", [{"message_tree_id": "1", "prompt": tree}]),
        write_rows("f.jsonl", [{"prompt": "prompt_completion", "completion": "x"}]),
    ]
    manifest = run(*({"path": path} for path in sources))
    assert_conserved(manifest)
    formats = [source["format"] for source in manifest["counts"]["sources"]]
    assert [row.turns[0].content for row in records(split="train")] + [row.turns[0].content for row in records(split="test")] == formats


def test_the_same_input_gives_the_same_bytes_and_is_not_made_twice() -> None:
    path = write_rows("chats.jsonl", [chat(f"question {n}") for n in range(50)] + [{"messages": []}])
    assert not run({"path": path, "weight": 1.5})["skipped"]
    before = digests("dataset")
    times = {name: os.stat(name).st_mtime_ns for name in before}
    assert run({"path": path, "weight": 1.5})["skipped"]
    assert {name: os.stat(name).st_mtime_ns for name in before} == times
    for file in sorted(Path("dataset").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    assert not run({"path": path, "weight": 1.5})["skipped"]
    assert digests("dataset") == before


def test_another_dataset_in_the_output_is_not_touched() -> None:
    path = write_rows("chats.jsonl", [chat("one")])
    run({"path": path})
    before = digests("dataset")
    with pytest.raises(UserError, match="dataset: holds another prepare result; choose another output or pass --overwrite"):
        run({"path": path}, seed=1)
    write_rows("chats.jsonl", [chat("two")])
    with pytest.raises(UserError, match="holds another prepare result"):
        run({"path": path})
    assert digests("dataset") == before
    run({"path": path}, overwrite=True)
    assert records()[0].turns[0].content == "two"


def test_a_folder_of_other_files_is_refused_even_with_overwrite() -> None:
    Path("dataset").mkdir()
    Path("dataset/thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="dataset: holds other files; choose another output"):
        run({"path": write_rows("chats.jsonl", [chat("one")])}, overwrite=True)
    assert Path("dataset/thesis.txt").read_text() == "years of work"


BAD = [chat("<|im_start|>a"), {"messages": [{"role": "bot", "content": "x"}]}, {"messages": [{"role": "bot", "content": "y"}]}]


def test_faults_stop_the_run_and_are_listed_with_count_place_and_remedy() -> None:
    path = write_rows("chats.jsonl", [chat("one"), *BAD])
    with pytest.raises(UserError) as error:
        run({"path": path})
    lines = str(error.value).splitlines()
    expected = "chats.jsonl:3: role 'bot'; expected system, user, assistant or tool; map it with roles: {bot: assistant} (unknown_role: 2)"
    assert lines[0] == expected
    assert lines[1].startswith("chats.jsonl:2: user turn 1 holds the control token <|im_start|>")
    assert lines[2].startswith("3 of 4 units are malformed; max_bad_fraction admits 0; nothing was written")
    assert lines[2].endswith("max_bad_fraction=0.75")
    assert sorted(os.listdir()) == ["chats.jsonl", "spec.yaml"]


def test_one_fault_is_told_as_one() -> None:
    told = "1 of 2 units is malformed; .* correct it, or set it aside with max_bad_fraction=0.5$"
    with pytest.raises(UserError, match=told):
        run({"path": write_rows("chats.jsonl", [chat("one"), BAD[1]])})


def test_faults_within_the_admitted_fraction_are_set_aside() -> None:
    manifest = run({"path": write_rows("chats.jsonl", [chat("one"), *BAD])}, max_bad_fraction=0.75)
    assert_conserved(manifest)
    assert manifest["counts"]["dropped"] == {"forged_control_token": 1, "unknown_role": 2}
    raw = [row["raw"] for row in pq.read_table("dataset/dropped/unknown_role.parquet").to_pylist()]
    assert raw == [json.dumps(row) for row in BAD[1:]]


def test_the_fraction_that_the_message_names_is_accepted() -> None:
    path = write_rows("chats.jsonl", [chat(f"question {n}") for n in range(21)] + [{"messages": n} for n in range(29)])
    with pytest.raises(UserError) as error:
        run({"path": path})
    assert str(error.value).endswith("max_bad_fraction=0.58")
    assert run({"path": path}, max_bad_fraction=0.58)["counts"]["kept"] == 21  # 0.58 * 50 is a little below 29


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(UserError, match="no record is left; dropped: empty_dialogue: 1"):
        run({"path": write_rows("chats.jsonl", [{"messages": [{"role": "user", "content": ""}]}])})
    assert not Path("dataset").exists()


def test_all_faults_of_a_spec_at_once() -> None:
    path = write_rows("chats.jsonl", [chat("one")])
    with pytest.raises(UserError) as error:
        run({"path": path, "licence": "MIT"}, {"path": path, "kind": "dialogue"}, {"path": path, "weight": 0}, {"path": "gone.jsonl"})
    lines = str(error.value).splitlines()
    assert lines[0] == "spec.yaml: sources[0]: unknown key 'licence'; did you mean 'license'?"
    assert lines[1] == "spec.yaml: sources[1]: kind: 'dialogue'; did you mean 'dialogues'?"
    assert lines[2].startswith("spec.yaml: sources[2]: weight: 0; expected a number above 0")
    assert lines[3].startswith("gone.jsonl: no such file or folder")


def test_faults_of_every_part_are_told_in_the_order_of_the_file() -> None:
    path = write_rows("chats.jsonl", [chat("one")])
    text = f"""
test_fration: 0.5
curate:
  redacted: {{}}
  filters: {{prset: python}}
  licenses: {{allow: []}}
sources:
  - {{kind: dialogues, path: {path}, licence: MIT, weight: 0}}
  - 7
  - {{kind: source, path: ., licence: MIT, rules: {{languagess: [Python]}}}}
  - {{kind: pulls, path: {path}, veiw: document, rules: {{min_context_lines: -1}}}}
seed: one
max_bad_fraction: 2
"""
    Path("spec.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        prepare(Path("spec.yaml"), progress=False)
    assert str(error.value).splitlines() == [
        "spec.yaml: unknown key 'test_fration'; did you mean 'test_fraction'?",
        "spec.yaml: curate: unknown key 'redacted'; did you mean 'redact'?",
        "spec.yaml: curate.filters: unknown key 'prset'; did you mean 'preset'?",
        "spec.yaml: curate.licenses.allow: is empty, so that nothing would be kept; "
        "name classes (permissive, copyleft, none, unknown) or SPDX names",
        "spec.yaml: sources[0]: weight: 0; expected a number above 0, at most 1000; 2 writes each record twice",
        "spec.yaml: sources[0]: unknown key 'licence'; did you mean 'license'?",
        "spec.yaml: sources[1]: 7 is of type int; expected a mapping",
        "spec.yaml: sources[2]: unknown key 'licence'; did you mean 'license'?",
        "spec.yaml: sources[2]: rules: unknown key 'languagess'; did you mean 'languages'?",
        "spec.yaml: sources[3]: unknown key 'veiw'; did you mean 'view'?",
        "spec.yaml: sources[3]: rules.min_context_lines and max_context_lines: -1 and 10; expected numbers from 0 to 100, in order",
        "spec.yaml: seed: 'one' is of type str; expected a whole number",
        "spec.yaml: max_bad_fraction: 2.0; expected a number from 0 to 1",
        "spec.yaml: key 'output' is missing; it is required",
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sources": []}, "sources is empty"),
        ({"test_fraction": 1.5}, r"test_fraction: 1.5; expected a number from 0 to 1"),
        ({"max_bad_fraction": -1}, "max_bad_fraction: -1"),
        ({"seed": -1}, "seed: -1; expected a whole number from 0"),
        ({"outptu": "x"}, "unknown key 'outptu'; did you mean 'output'?"),
        ({"sources": [{"kind": "dialogues", "path": ""}]}, r"sources\[0\]: path: is empty; name a file, a folder or a pattern"),
        ({"sources": [{"kind": "source", "path": ""}]}, r"sources\[0\]: path: is empty"),
    ],
)
def test_bad_specs(keys: dict[str, Any], message: str) -> None:
    path = Path("spec.yaml")
    path.write_text(yaml.safe_dump({"sources": [{"kind": "dialogues", "path": "x.jsonl"}], "output": "dataset", **keys}))
    with pytest.raises(UserError, match=message):
        prepare(path, progress=False)


def test_overrides_and_a_missing_spec() -> None:
    spec = write_spec({"path": write_rows("chats.jsonl", [chat("one")])})
    assert prepare(spec, ["output=elsewhere", "seed=3"], progress=False)["spec"]["seed"] == 3
    assert Path("elsewhere/manifest.json").is_file()
    with pytest.raises(UserError, match=r"gone\.yaml: no such file"):
        prepare(Path("gone.yaml"))


def test_the_resolved_spec_in_the_manifest_can_be_run_again() -> None:
    first = run({"path": write_rows("chats.jsonl", [chat("one")]), "weight": 2})
    Path("again.yaml").write_text(yaml.safe_dump({**first["spec"], "output": "again"}))
    second = prepare(Path("again.yaml"), progress=False)
    assert second["digest"] == first["digest"]
    assert second["counts"] == first["counts"]


def test_our_own_dataset_can_be_a_source() -> None:
    run({"path": write_rows("chats.jsonl", [chat(f"question {n}") for n in range(20)])}, test_fraction=0.3)
    ids = {row.id for row in records()}
    manifest = prepare(write_spec({"path": "dataset"}, output="second"), progress=False)
    assert_conserved(manifest)
    assert {row.id for row in records("second")} == ids


def test_python_source_is_a_kind() -> None:
    Path("code").mkdir()
    Path("code/sums.py").write_text(
        '"""Sums of numbers, for a test that needs a file of some length."""\n\n\n' + "def add(a, b):\n    return a + b\n" * 5
    )
    Path("code/broken.py").write_text("def f(:\n" + "# filler\n" * 40)
    manifest = run({"kind": "source", "path": "code", "license": "MIT", "weight": 2}, test_fraction=0.0)
    assert_conserved(manifest)
    assert manifest["counts"]["kept"] == 1
    assert [(row.kind, row.copy) for row in records()] == [("document", 0), ("document", 1)]
    assert [entry["path"] for entry in manifest["inputs"]] == ["code/broken.py", "code/sums.py"]


def test_a_file_name_that_is_not_utf8_is_set_aside_or_refused() -> None:
    Path("code").mkdir()
    Path("code/a.py").write_text("# A file that is long enough to be kept.\n" + "value = 1\n" * 30)
    Path(os.fsdecode(b"code/b\xff.py")).write_text("# Another file that is long enough.\n" + "value = 2\n" * 30)
    manifest = run({"kind": "source", "path": "code"})
    assert_conserved(manifest)
    assert manifest["counts"]["dropped"] == {"not_utf8": 1}
    assert [entry["path"] for entry in manifest["inputs"]] == ["code/a.py", "code/b\\udcff.py"]
    os.rename(write_rows("chats.jsonl", [chat("one")]), os.fsdecode(b"chats\xff.jsonl"))
    with pytest.raises(UserError, match=r"chats\\udcff\.jsonl: the file's name is not UTF-8; rename it"):
        run({"path": "chats*.jsonl"}, output="second")


def test_large_calls_and_tools_count_for_the_size_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.tables.MAX_GROUP_BYTES", 1_000)
    rows = [chat(f"question {n}") for n in range(4)]
    for row in rows[:2]:
        row["tools"] = [{"type": "function", "function": {"name": "f", "description": "x" * 1_000}}]
    for row in rows[2:]:
        row["messages"][1]["tool_calls"] = [{"function": {"name": "f", "arguments": json.dumps("x" * 1_000)}}]
    run({"path": write_rows("chats.jsonl", rows)}, test_fraction=0.0)
    assert pq.read_metadata("dataset/train-00000.parquet").num_row_groups == 4


def test_files_are_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.verdicts.MAX_FILE_BYTES", 2_000)
    questions = [f"{n:02}" for n in range(50)]
    rows = [*(chat(question, "x" * 298) for question in questions), *(chat("y" * 100, "") for _ in range(20))]
    run({"path": write_rows("chats.jsonl", rows)}, test_fraction=0.0)
    files = sorted(Path("dataset").glob("train-*.parquet"))
    assert [file.name for file in files[:2]] == ["train-00000.parquet", "train-00001.parquet"]
    assert [pq.read_metadata(file).num_rows for file in files] == [7] * 7 + [1]
    assert [record.turns[0].content for record in records()] == questions
    gone = [path.name for path in dropped_files(Path("dataset"), "empty_answer")]
    assert gone == ["empty_answer.parquet", "empty_answer-00001.parquet"]


WORDS = st.sampled_from(["user", "assistant", "system", "tool", "bot", "hi", "", " ", "a\0", "\ud800", "<|end|>", "\ufdd0", "[1]"])
CONTENT = st.one_of(WORDS, st.none(), st.integers(), st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}), max_size=2))
TURNS = st.lists(st.fixed_dictionaries({"role": WORDS, "content": CONTENT}), max_size=5)
GOOD = st.builds(chat, st.text(max_size=3), st.text(min_size=1, max_size=3))
LINES = st.one_of(
    st.fixed_dictionaries({"messages": TURNS}).map(json.dumps).map(str.encode),
    GOOD.map(json.dumps).map(str.encode),
    st.binary(max_size=12).filter(lambda line: b"\n" not in line),
    st.sampled_from(
        [b"", b" ", b"[]", b"null", b"{}", b'{"messages": 3}', b'{"messages": "[]"}', b'{"a": ' + b"[" * 990 + b"]" * 990 + b"}"]
    ),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(LINES, max_size=12), st.sampled_from([0.5, 1, 2.5]))
def test_conservation_on_hostile_rows(lines: list[bytes], weight: float) -> None:
    first = json.dumps(chat("a sound row")).encode()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("chats.jsonl").write_bytes(b"\n".join([first, *lines]))
        # "a sound row" goes to the test split, so that something is left under any weight.
        manifest = run({"path": "chats.jsonl", "weight": weight}, max_bad_fraction=1.0, test_fraction=0.6)
        assert_conserved(manifest)
        assert manifest["counts"]["read"] == 1 + sum(bool(line.strip()) for line in lines)


def test_a_builder_that_loses_a_row_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: an item is read and then neither kept nor dropped."""
    monkeypatch.setattr("data_prep.tables.TableFile.write", lambda *_: None)
    with pytest.raises(AssertionError):
        assert_conserved(run({"path": write_rows("chats.jsonl", [chat("one")])}))


@pytest.mark.parametrize("size", ["1900k", "256k"], ids=["at the end", "on the way"])
def test_a_full_disk_leaves_nothing_half_written(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is kept, if anything is, and not done again when there is room."""
    monkeypatch.setattr("data_prep.dialogues.STRETCH_BYTES", 300_000)
    rows = [chat(f"{n}" + "".join(hashlib.sha512(f"{n} {part}".encode()).hexdigest() for part in range(4))) for n in range(1_500)]
    with mounted_disk(tmp_path / "disk", size) as disk:
        output, work = str(disk / "dataset"), disk / ".dataset.work"
        with pytest.raises(OSError) as error:
            run({"path": write_rows("chats.jsonl", rows)}, output=output, workers=1)
        assert error.value.errno == errno.ENOSPC
        done = sorted(work.glob("shards/*/done.json"))
        assert len(done) == (2 if size == "1900k" else 0)
        assert os.listdir(disk) == [work.name] * bool(done)
        assert getattr(error.value, "__notes__", []) == [f"what is done is kept: the same command goes on from {work}"] * bool(done)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        manifest = run({"path": "chats.jsonl"}, output=output, workers=1)
        assert manifest["counts"]["written"] == 1_500
        assert os.listdir(disk) == ["dataset"]


def test_importing_the_stage_imports_nothing_heavy() -> None:
    heavy = ("torch", "datasets", "pyarrow", "matplotlib")
    program = f"import sys, data_prep.prepare, data_prep.inspect; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


REAL = {
    "code_alpaca_2k.json.gz": {"read": 2017, "kept": 2015, "dropped": {"empty_answer": 2}},
    "new_codealpaca.json.gz": {"read": 4535, "kept": 4535, "dropped": {}},
    "oasst-en-100-trees.jsonl.gz": {"read": 100, "kept": 100, "dropped": {}},
}


@pytest.mark.skipif("STARCHAT_REAL_DATA" not in os.environ, reason="STARCHAT_REAL_DATA names no folder of real dialogues")
@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str) -> None:
    manifest = run({"path": str(Path(os.environ["STARCHAT_REAL_DATA"]) / name)})
    assert_conserved(manifest)
    counts = {key: manifest["counts"][key] for key in ("read", "kept", "dropped")}
    print(name, json.dumps(manifest["counts"]))
    assert counts == REAL[name]
