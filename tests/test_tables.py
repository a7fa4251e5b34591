"""Tables: copies of a row give the bytes that rows written one by one give, in the same groups."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_prep import tables
from data_prep.tables import TableFile, dropped_schema, record_schema
from starchat.dialogue import Part, Record, Source, Turn, to_row


def rows() -> list[dict[str, Any]]:
    """Rows with and without each nested part."""
    dialogue = Record(Source("a:1", "o/r", people=("x", "y")), (Turn("user", "q" * 50), Turn("assistant", "é")), license="MIT")
    pair = Record(Source("b:2", stars=3), (Turn("user", "q"), Turn("assistant", "good")), rejected=Turn("assistant", "bad"))
    document = Record(Source("c:3"), parts=(Part("<filename>", "a.py"), Part("", "x = 1\n")), placeholders=("<NAME>",))
    known = {"repairs": ["tabs"], "origin": 1, "split": "train", "copy": 0}
    return [{**to_row(record), **known} for record in (dialogue, pair, document)]


@pytest.mark.parametrize("seed", range(20))
def test_copies_are_what_single_rows_are(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a group is full in the middle of the copies of a row, by rows or by bytes."""
    draw = random.Random(seed)
    monkeypatch.setattr(tables, "MAX_GROUP_ROWS", draw.choice([1, 3, 7, 2000]))
    monkeypatch.setattr(tables, "MAX_GROUP_BYTES", draw.choice([1, 100, 1000, 1 << 20]))
    plan = [(draw.choice(rows()), draw.choice([0, 1, 30, 99, 5000]), draw.choice([0, 1, 1, 2, 9, 400])) for _ in range(12)]
    with TableFile(tmp_path / "copies", record_schema()) as together, TableFile(tmp_path / "singly", record_schema()) as singly:
        for row, size, copies in plan:
            together.write(row, size, copies)
            for copy in range(copies):
                singly.write({**row, "copy": copy}, size)
    assert (tmp_path / "copies").read_bytes() == (tmp_path / "singly").read_bytes()
    found = pq.read_table(tmp_path / "copies").column("copy").to_pylist()
    assert found == [copy for _, _, copies in plan for copy in range(copies)]


def test_a_table_without_copies_has_no_such_column(tmp_path: Path) -> None:
    row = {"place": "a:1", "detail": "d", "raw": "r", "source": 0}
    with TableFile(tmp_path / "dropped", dropped_schema()) as table:
        table.write(row, 1)
    assert pq.read_table(tmp_path / "dropped").to_pylist() == [row]
