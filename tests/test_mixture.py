"""Mixtures and splits: true weights, one place for each dialogue, and nothing that moves when data is added."""

from __future__ import annotations

import collections
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from preparing import assert_conserved, chat, digests, records, run, write_rows


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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


def test_what_the_weight_of_one_source_leaves_out_another_still_gives() -> None:
    path = write_rows("chats.jsonl", [chat(f"question {n}") for n in range(200)])
    manifest = run({"path": path, "weight": 0.25}, {"path": path}, test_fraction=0.0)
    assert_conserved(manifest)
    first, second = manifest["counts"]["sources"]
    assert manifest["counts"]["kept"] == 200
    assert second["dropped"] == {"duplicate": first["kept"]}
    assert first["dropped"] == {"mixture_weight": second["kept"]}
    kept = {row.id for row in records()}
    assert all(row["detail"].split()[-1] in kept for row in pq.read_table("dataset/dropped/duplicate.parquet").to_pylist())


def test_the_id_of_a_row_says_nothing_its_content_does() -> None:
    """ShareGPT has the same id for copies of a conversation and for different ones."""
    rows = [
        {"id": "a", "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "An answer."}]}
        for question in ("one", "one", "two")
    ]
    manifest = run({"path": write_rows("chats.jsonl", rows)})
    assert (manifest["counts"]["kept"], manifest["counts"]["dropped"]) == (2, {"duplicate": 1})


def test_the_order_in_which_files_were_made_does_not_matter() -> None:
    files = {name: [chat(f"{name} {n}") for n in range(30)] for name in ("a", "b", "c")}
    found = []
    for names in (("a", "b", "c"), ("c", "a", "b")):
        for name in names:
            Path(f"{name}.jsonl").unlink(missing_ok=True)
            write_rows(f"{name}.jsonl", files[name])
        run({"path": "*.jsonl", "weight": 1.5}, overwrite=True)
        found.append(digests("dataset"))
    assert found[0] == found[1]
