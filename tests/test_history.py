"""The history of a row: its source, its repairs, the steps, and what was dropped beside it or because of it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.history import history_of, render_history
from data_prep.prepare import prepare
from starchat.cli import main
from starchat.errors import UserError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two tables, with a repaired row, a duplicate of it, and one that a filter took."""
    folder = tmp_path_factory.mktemp("history")
    turns = [{"role": "user", "content": "q\0"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "left"}]
    refusal = [{"role": "user", "content": "r"}, {"role": "assistant", "content": "As an AI, no."}]
    other = [{"role": "user", "content": "o"}, {"role": "assistant", "content": "p"}]
    for name, rows in (("one", [turns, refusal]), ("two", [other, turns, other])):
        text = "\n".join(json.dumps({"messages": row}) for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    sources = [{"kind": "dialogues", "path": str(folder / f"{name}.jsonl"), "license": "MIT"} for name in ("one", "two")]
    spec = {"sources": sources, "output": str(folder / "dataset"), "curate": {"filters": {"preset": "dialogues"}}, "test_fraction": 0}
    (folder / "spec.yaml").write_text(json.dumps(spec), encoding="utf-8")
    prepare(folder / "spec.yaml", progress=False)
    return folder / "dataset"


def row_of(dataset: Path, content: str) -> str:
    """Return the id of the row that begins with a question."""
    rows = pq.read_table(dataset / "train-00000.parquet").to_pylist()
    return str(next(row["id"] for row in rows if row["messages"][0]["content"] == content))


def test_the_whole_history_of_a_row(dataset: Path) -> None:
    """Where it came from, what was repaired, which steps it met, and its siblings: of its file, and duplicates from elsewhere."""
    report = history_of(dataset, row_of(dataset, "q")[:8])
    assert report["repairs"] == ["nul", "ends_with_user"]
    assert report["from"]["path"].endswith("one.jsonl")
    assert report["license_class"] == "permissive"
    assert report["steps"]["filters"]["refusals"] == "drop"
    found = [(sibling["reason"], sibling["place"].rpartition("/")[2]) for sibling in report["siblings"]]
    assert found == [("duplicate", "two.jsonl:2"), ("refusal", "one.jsonl:2")]
    text = render_history(report)
    for shown in ("one.jsonl:1", "MIT (permissive)", "nul, ends_with_user", "curated by   filters", "2 dropped siblings"):
        assert shown in text


def test_ids_that_name_no_row_or_several(dataset: Path) -> None:
    """Too short, unknown: each says what to do."""
    with pytest.raises(UserError, match="give at least 4 characters"):
        history_of(dataset, "a")
    with pytest.raises(UserError, match="no row begins so; starchat inspect shows ids"):
        history_of(dataset, "zzzz")


def test_the_command(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text for people, one JSON object for programs, and the rows that a filter would take."""
    assert main(["inspect", str(dataset), "--id", row_of(dataset, "o")]) == 0
    assert "two.jsonl:1" in capsys.readouterr().out
    assert main(["inspect", str(dataset), "--json", "--filter", "min_characters=3"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["taken"]) == (2, {"few_characters": 2})
    assert main(["inspect", str(dataset), "--filter", "min_characters=3"]) == 0
    assert "2 of 2 rows would be taken (100.0 %)" in capsys.readouterr().out
    assert main(["inspect", str(dataset), "--filter", "min_chars=3"]) == 2
