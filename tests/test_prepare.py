"""The prepare stage end to end: conservation, splits, weights, faults, determinism, and nothing half-written."""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.prepare import prepare
from data_prep.shards import DatasetWriter
from starchat.dialogue import Record, Source, Turn, from_row, to_row
from starchat.errors import UserError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chat(question: str, answer: str = "An answer.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_rows(name: str, rows: list[Any]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def write_spec(*sources: dict[str, Any], **keys: Any) -> Path:
    path = Path("spec.yaml")
    path.write_text(yaml.safe_dump({"sources": [{"kind": "dialogues", **s} for s in sources], "output": "dataset", **keys}))
    return path


def run(*sources: dict[str, Any], overwrite: bool = False, **keys: Any) -> dict[str, Any]:
    return prepare(write_spec(*sources, **keys), overwrite=overwrite, progress=False)


def records(folder: str = "dataset", split: str = "") -> list[Record]:
    files = sorted(Path(folder).glob(f"{split or '*'}-*.parquet"))
    return [from_row(row) for file in files for row in pq.read_table(file).to_pylist()]


def assert_conserved(manifest: dict[str, Any]) -> None:
    counts = manifest["counts"]
    for part in (counts, *counts["sources"]):
        assert part["read"] == part["kept"] + sum(part["dropped"].values())
    assert counts["read"] == sum(source["read"] for source in counts["sources"])
    rows = records(manifest["folder"])
    assert counts["written"] == len(rows) == sum(counts["splits"].values())
    assert counts["kept"] == len({row.id for row in rows}) == counts["written"] - counts["copies"]
    found = {p.stem: pq.read_metadata(p).num_rows for p in Path(manifest["folder"], "dropped").glob("*.parquet")}
    assert found == counts["dropped"]


def digests(folder: str) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


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


def test_duplicates_across_sources_the_first_one_wins() -> None:
    manifest = run(
        {"path": write_rows("a.jsonl", [chat("one")]), "license": "MIT"}, {"path": write_rows("b.jsonl", [chat("one"), chat("two")])}
    )
    assert [source["dropped"] for source in manifest["counts"]["sources"]] == [{}, {"duplicate": 1}]
    assert {row.turns[0].content: row.license for row in records()} == {"one": "MIT", "two": None}
    (dropped,) = pq.read_table("dataset/dropped/duplicate.parquet").to_pylist()
    assert dropped["place"] == "b.jsonl:1"
    assert dropped["source"] == 1
    assert records()[0].id in dropped["detail"]


@pytest.mark.parametrize(("weight", "low", "high"), [(1, 1.0, 1.0), (2, 2.0, 2.0), (2.5, 2.4, 2.6), (0.5, 0.4, 0.6)])
def test_weights_are_true_and_leave_test_rows_alone(weight: float, low: float, high: float) -> None:
    path = write_rows("chats.jsonl", [chat(f"question {n}") for n in range(1_000)])
    manifest = run({"path": path, "weight": weight}, test_fraction=0.2)
    assert_conserved(manifest)
    train, test = records(split="train"), records(split="test")
    of_train = 1_000 - len(test)
    assert low <= len(train) / of_train <= high
    assert {row.copy for row in test} == {0}
    copies = collections.defaultdict(list)
    for row in train:
        copies[row.id].append(row.copy)
    assert all(found == list(range(len(found))) for found in copies.values())
    assert {len(found) for found in copies.values()} <= {int(weight), int(weight) + 1} - {0}
    assert manifest["counts"]["dropped"].get("mixture_weight", 0) == of_train - len(copies)


def test_nothing_moves_between_the_splits_when_data_is_added() -> None:
    few = [chat(f"question {n}") for n in range(200)]
    run({"path": write_rows("chats.jsonl", few)}, test_fraction=0.3)
    before = {row.id: row.split for row in records()}
    more = [chat(f"question {n}", "Another answer.") for n in range(400)]
    run({"path": write_rows("chats.jsonl", [*reversed(more), *few])}, test_fraction=0.3, overwrite=True)
    after = records()
    assert {row.id: row.split for row in after if row.id in before} == before
    by_question: dict[str, set[str]] = collections.defaultdict(set)
    for row in after:
        by_question[row.turns[0].content].add(row.split)
    assert all(len(splits) == 1 for splits in by_question.values())


def test_the_seed_moves_the_split() -> None:
    path = write_rows("chats.jsonl", [chat(f"question {n}") for n in range(100)])
    run({"path": path}, test_fraction=0.5)
    first = {row.id for row in records(split="test")}
    run({"path": path}, test_fraction=0.5, seed=1, overwrite=True)
    assert first != {row.id for row in records(split="test")}


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_one_split_alone(fraction: float, tmp_path: Path) -> None:
    run({"path": write_rows("chats.jsonl", [chat("one"), chat("two")])}, test_fraction=fraction)
    loaded = datasets.load_dataset("./dataset", cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["test" if fraction else "train"]


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


def test_faults_within_the_admitted_fraction_are_set_aside() -> None:
    manifest = run({"path": write_rows("chats.jsonl", [chat("one"), *BAD])}, max_bad_fraction=0.75)
    assert_conserved(manifest)
    assert manifest["counts"]["dropped"] == {"forged_control_token": 1, "unknown_role": 2}
    raw = [row["raw"] for row in pq.read_table("dataset/dropped/unknown_role.parquet").to_pylist()]
    assert raw == [json.dumps(row) for row in BAD[1:]]


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


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sources": []}, "sources is empty"),
        ({"test_fraction": 1.5}, r"test_fraction: 1.5; expected a number from 0 to 1"),
        ({"max_bad_fraction": -1}, "max_bad_fraction: -1"),
        ({"outptu": "x"}, "unknown key 'outptu'; did you mean 'output'?"),
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


def test_shards_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.shards.MAX_GROUP_BYTES", 1_000)
    rows = [to_row(Record(Source(f"f:{n}"), (Turn("user", f"{n}"), Turn("assistant", "x" * 300)))) for n in range(50)]
    with DatasetWriter(tmp_path, max_shard_bytes=2_000) as writer:
        for row in rows:
            writer.keep(row, 300)
    files = sorted(tmp_path.glob("train-*.parquet"))
    assert [file.name for file in files[:2]] == ["train-00000.parquet", "train-00001.parquet"]
    assert [pq.read_metadata(file).num_rows for file in files] == [8] * 6 + [2]
    assert [from_row(row) for file in files for row in pq.read_table(file).to_pylist()] == [from_row(row) for row in rows]


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
        manifest = run({"path": "chats.jsonl", "weight": weight}, max_bad_fraction=1.0, test_fraction=1.0)
        assert_conserved(manifest)
        assert manifest["counts"]["read"] == 1 + sum(bool(line.strip()) for line in lines)


def test_a_builder_that_loses_a_row_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: an item is read and then neither kept nor dropped."""
    monkeypatch.setattr("data_prep.shards.DatasetWriter.keep", lambda *_: None)
    with pytest.raises(AssertionError):
        assert_conserved(run({"path": write_rows("chats.jsonl", [chat("one")])}))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("count", [1_500, 4_500], ids=["at the end", "on the way"])
def test_a_full_disk_leaves_nothing_half_written(count: int, small_disk: Path) -> None:
    rows = [chat(f"{n}" + "".join(hashlib.sha512(f"{n} {part}".encode()).hexdigest() for part in range(4))) for n in range(count)]
    with pytest.raises(OSError) as error:
        run({"path": write_rows("chats.jsonl", rows)}, output=str(small_disk / "dataset"))
    assert error.value.errno == errno.ENOSPC
    assert os.listdir(small_disk) == []


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
