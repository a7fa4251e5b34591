"""Requests against finished datasets and runs: what they touch, the dataset without it, and its receipt."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.inspect import inspect
from data_prep.opt_out import open_opt_outs
from data_prep.prepare import prepare
from data_prep.unlearn import RECEIPT, find_touched, render_touched, write_without
from starchat.cli import main
from starchat.errors import UserError
from starchat.rows import dataset_digest, read_records
from tests.repositories import commit, new

NAMES = ("Ada/engine", "ada/notes", "Bob/engine")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three repositories, one of them weighed twice."""
    folder = tmp_path_factory.mktemp("unlearn")
    sources = []
    for number, name in enumerate(NAMES):
        clone = new(folder / str(number))
        commit(
            clone, "Begin", {f"{letter}.py": f"def {letter}{number}():\n    return {number}\n" * 4 for letter in "abcd"} | {"empty.py": ""}
        )
        sources.append({"kind": "source", "path": str(clone), "repository": name, "view": "document", "weight": 2 if number == 1 else 1})
    spec = folder / "spec.yaml"
    spec.write_text(json.dumps({"sources": sources, "output": str(folder / "dataset"), "test_fraction": 0.2}), encoding="utf-8")
    prepare(spec, progress=False)
    return folder / "dataset"


def asked(folder: Path, *names: str) -> Path:
    """Write a list of requests."""
    path = folder / "asked.txt"
    path.write_text("\n".join(names), encoding="utf-8")
    return path


def run_on(folder: Path, digest: str, name: str, model: str = "nano", base: bytes = b"nano") -> Path:
    """Write what a finished run says of its dataset and its base model, and weights of its own."""
    run = folder / name
    (run / "model").mkdir(parents=True)
    (run / "model" / "model.safetensors").write_bytes(name.encode())
    (run / "manifest.json").write_text(json.dumps({"stage": "train", "digest": "x"}), encoding="utf-8")
    files = [["config.json", "c"], ["model.safetensors", hashlib.sha256(base).hexdigest()]]
    (run / "begun.json").write_text(json.dumps({"dataset": digest, "recipe": {"model": model}, "base": files}), encoding="utf-8")
    return run


def test_rows_datasets_and_runs_are_named(dataset: Path, tmp_path: Path) -> None:
    """An account reaches its repositories and every copy of their rows; runs are told apart by the digest of their dataset."""
    runs = [run_on(tmp_path, dataset_digest(str(dataset)), "same"), run_on(tmp_path, "other", "other")]
    report = find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "ADA"))]}, "x"), [dataset, *runs])
    rows = report["datasets"][0]["rows"]
    assert {row["repository"] for row in rows} == {"Ada/engine", "ada/notes"}
    assert len({row["id"] for row in rows}) == 8
    assert len(rows) > 8
    assert [run["state"] for run in report["runs"]] == ["touched", "unknown"]
    assert f"unknown; give the dataset of {runs[1]}" in render_touched(report)
    report = find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "carol"))]}, "x"), [dataset, runs[0]])
    assert (report["datasets"][0]["rows"], report["runs"][0]["state"]) == ([], "not touched")
    assert "train it again" not in render_touched(report)


def test_runs_that_went_on_from_a_touched_run_are_touched(dataset: Path, tmp_path: Path) -> None:
    """By the address in the recipe, by the files of the base if it has moved, by a merge, and through runs between."""
    spared = tmp_path / "spared"
    opt_outs = open_opt_outs({"lists": [str(asked(tmp_path, "ada"))]}, "x")
    write_without(find_touched(opt_outs, [dataset]), spared)
    clean = dataset_digest(str(spared))
    first = run_on(tmp_path, dataset_digest(str(dataset)), "first")
    second = run_on(tmp_path, clean, "second", str(first / "model"), b"?")
    third = run_on(tmp_path, clean, "third", str(tmp_path / "moved"), b"second")
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / "manifest.json").write_text(json.dumps({"stage": "merge", "digest": "x", "from": {"run": str(first)}}), encoding="utf-8")
    fourth, other = run_on(tmp_path, clean, "fourth", str(merged), b"?"), run_on(tmp_path, clean, "other")
    runs = [first, second, third, fourth, other]
    report = find_touched(opt_outs, [dataset, spared, *runs])
    assert [run["state"] for run in report["runs"]] == ["touched"] * 4 + ["not touched"]
    assert report["runs"][2]["from"] == [str(second), str(first)]
    assert f"{third}: touched (it went on from {second}, {first}); train it again" in render_touched(report)
    report = find_touched(opt_outs, [spared, *runs])
    assert [run["state"] for run in report["runs"]] == ["unknown"] * 4 + ["not touched"]
    assert report["runs"][1]["unknown"] == [str(first)]


def test_runs_of_which_nothing_is_known_are_no_success(dataset: Path, tmp_path: Path) -> None:
    """Without the dataset of a run, nobody can say that no request touches it."""
    run = run_on(tmp_path, "other", "other")
    assert main(["optout", str(asked(tmp_path, "ada")), str(run)]) == 1
    assert main(["optout", str(asked(tmp_path, "ada")), str(dataset), str(run)]) == 1


def test_what_stays_of_dropped_rows_and_of_the_report_on_benchmarks(dataset: Path, tmp_path: Path) -> None:
    """Texts go, from details and excerpts too; of which row a dropped one was a copy stays."""
    before = tmp_path / "before"
    shutil.copytree(dataset, before)
    record = next(read_records(str(before), "train"))
    table = pq.read_table(before / "dropped" / "empty_file.parquet")
    details = [f"0.91 alike: {record.id}", "whole: 'def has_close(numbers)'", *[""] * (len(table) - 2)]
    pq.write_table(table.set_column(1, table.schema.field(1), [details]), before / "dropped" / "empty_file.parquet")
    rows = find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "ada/notes"))]}, "x"), [before])["datasets"][0]["rows"]
    near = [{"place": place, "excerpt": "e"} for place in (rows[0]["place"], "elsewhere")]
    (before / "decontamination.json").write_text(json.dumps({"benchmarks": {"b": 1}, "nearest": near}), encoding="utf-8")
    write_without(find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "ada/notes"))]}, "x"), [before]), tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "dropped" / "empty_file.parquet")["detail"].to_pylist() == [
        record.id,
        "",
        *[""] * (len(table) - 2),
    ]
    report = json.loads((tmp_path / "out" / "decontamination.json").read_text(encoding="utf-8"))
    assert report == {"benchmarks": {"b": 1}, "nearest": near[1:]}


def test_the_dataset_without_them(dataset: Path, tmp_path: Path) -> None:
    """Everything else is as it was, counts hold, dropped rows have lost their text, and the receipt tells what went."""
    report = find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "ada/notes"))]}, "x"), [dataset])
    manifest = write_without(report, tmp_path / "out")
    before, after = inspect(dataset), inspect(tmp_path / "out")
    assert after["counts"]["kept"] == before["counts"]["kept"] - 4
    assert after["counts"]["dropped"]["opt_out"] == 4
    assert after["counts"]["read"] == after["counts"]["kept"] + sum(after["counts"]["dropped"].values())
    for counts in (after["counts"], *after["counts"]["sources"]):
        assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    assert sum(source["kept"] for source in after["counts"]["sources"]) == after["counts"]["kept"]
    assert [source["dropped"].get("opt_out", 0) for source in after["counts"]["sources"]] == [0, 4, 0]
    left = [record for split in ("train", "test") for record in read_records(str(tmp_path / "out"), split)]
    all_rows = [record for split in ("train", "test") for record in read_records(str(dataset), split)]
    assert left == [record for record in all_rows if record.source.repository != "ada/notes"]
    dropped = pq.read_table(tmp_path / "out" / "dropped" / "empty_file.parquet").to_pylist()
    assert {row["raw"] for row in dropped} == {""}
    receipt = json.loads((tmp_path / "out" / RECEIPT).read_text(encoding="utf-8"))
    assert receipt["digest"] == dataset_digest(str(dataset))
    assert receipt["digest_after"] == dataset_digest(str(tmp_path / "out"))
    assert {row["repository"] for row in receipt["rows"]} == {"ada/notes"}
    assert manifest["unlearned"]["rows"] == len(receipt["rows"])
    assert manifest["opt_out"]["records"] == after["counts"]["kept"]
    assert find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "ada/notes"))]}, "x"), [tmp_path / "out"])["datasets"][0]["rows"] == []


def test_it_is_not_done_twice_and_never_over_something_else(dataset: Path, tmp_path: Path) -> None:
    """The same request finds its dataset finished; another one is refused."""
    first = find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "ada/notes"))]}, "x"), [dataset])
    write_without(first, tmp_path / "out")
    assert write_without(first, tmp_path / "out")["skipped"]
    other = find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "bob"))]}, "x"), [dataset])
    with pytest.raises(UserError, match="--overwrite"):
        write_without(other, tmp_path / "out")
    assert not write_without(other, tmp_path / "out", overwrite=True)["skipped"]


def test_folders_that_are_neither(tmp_path: Path, dataset: Path) -> None:
    """A wrong folder is named."""
    opt_outs = open_opt_outs({"lists": [str(asked(tmp_path, "ada"))]}, "x")
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UserError, match="neither a finished dataset nor a finished run"):
            find_touched(opt_outs, [folder])
    with pytest.raises(UserError, match="2 datasets are named; give exactly one"):
        write_without(find_touched(opt_outs, [dataset, dataset]), tmp_path / "out")


def test_the_command(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text for people, one JSON object for programs."""
    requests = str(asked(tmp_path, "bob"))
    assert main(["optout", requests, str(dataset), "--output", str(tmp_path / "out")]) == 0
    assert "Bob/engine a.py (no licence stated)" in capsys.readouterr().out
    assert main(["optout", requests, str(dataset), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["datasets"][0]["rows"]) == 4
    assert main(["optout", str(tmp_path / "gone.txt"), str(dataset)]) == 2


def test_rows_that_no_request_can_find_are_told(tmp_path: Path) -> None:
    """A clone of a folder has no owner in its name: silence would look like an answer."""
    clone = new(tmp_path / "tool")
    commit(clone, "Begin", {"a.py": "def f(x):\n    return x\n" * 9})
    spec = tmp_path / "spec.yaml"
    source = {"kind": "source", "path": str(clone), "view": "document"}
    spec.write_text(json.dumps({"sources": [source], "output": str(tmp_path / "out"), "test_fraction": 0}), encoding="utf-8")
    prepare(spec, progress=False)
    report = find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "ada/tool"))]}, "x"), [tmp_path / "out"])
    assert report["datasets"][0]["ownerless"] == 1
    assert "1 rows tell no owner/repository" in render_touched(report)


def test_nothing_is_told_where_all_rows_name_their_owner(dataset: Path, tmp_path: Path) -> None:
    """Where every row can be found, nobody is alarmed."""
    report = find_touched(open_opt_outs({"lists": [str(asked(tmp_path, "carol"))]}, "x"), [dataset])
    assert report["datasets"][0]["ownerless"] == 0
    assert "tell no owner" not in render_touched(report)
