"""Files of JSON Lines in stretches give the rows of the whole file, wherever they are cut; what is plain is not held by who cuts it."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

import pull_rows
from data_prep.json_lines import cut_lines, read_rows, require_some
from data_prep.kinds import LocalShop, Setting, found_in, open_kind
from data_prep.records import Dropped
from data_prep.sources import Row, Table, read_table
from preparing import chat
from starchat.errors import UserError

HOSTILE = (
    b'\xef\xbb\xbf{"a": 1}\n\n \t\r\n{"a": "\xc3\xa9\xe2\x80\xa8"}\r\n\xef\xbb\xbf\nno json\n[1]\n\xff\n'
    + b"\n" * 60
    + b'{"a": "'
    + b"x" * 90
    + b'"}'
)


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n \n"])
@pytest.mark.parametrize("size", [1, 2, 7, 30, 100, 10_000])
def test_stretches_hold_the_rows_of_the_file(size: int, end: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(HOSTILE + end) if name.endswith(".gz") else HOSTILE + end)
    whole = list(read_table(Table(str(path), "jsonl")))
    assert [type(row) for row in whole] == [Row, Row, *[Dropped] * 4, Row]
    stretches = list(cut_lines(str(path), size))
    assert [row for lines in stretches for row in read_rows(lines)] == whole
    assert [lines.reads for lines in stretches] == [(str(path),) if name == "t.jsonl" else ()] * len(stretches)
    assert all(any(read_rows(lines)) for lines in stretches), "none is of white space alone"
    assert size > 1 or len(stretches) == len(whole)


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n\n"])
def test_a_file_without_rows(data: bytes, tmp_path: Path) -> None:
    path = str(tmp_path / "t.jsonl")
    Path(path).write_bytes(data)
    assert list(cut_lines(path, 1)) == []
    with pytest.raises(UserError, match=r"t\.jsonl: holds no rows; remove it from the spec"):
        list(require_some(path, cut_lines(path, 1)))


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n' * 10)
    (*_, last) = cut_lines(str(path), 20)
    path.write_text('{"a": 1}\n' * 9)
    with pytest.raises(UserError, match=r"t\.jsonl: became shorter while it was read"):
        list(read_rows(last))


def test_who_cuts_a_plain_file_holds_no_more_than_a_stretch(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("wb") as file:
        for number in range(60):
            file.write(json.dumps({"a": "x" * 999_000, "b": number}).encode() + b"\n")
    tracemalloc.start()
    try:
        stretches = list(cut_lines(str(path), 1 << 20))
        assert sum(lines.size_bytes for lines in stretches) == path.stat().st_size > 59_000_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


TABLES = {
    "dialogues": ({}, "data_prep.dialogues.STRETCH_BYTES", chat("Which?")),
    "commits": (
        {"rules": {"preset": "none"}},
        "data_prep.commitpack.STRETCH_BYTES",
        {"old_contents": "a = 1\n", "new_contents": "a = 2\n", "message": "Count on", "commit": "0", "repos": "a/b", "new_file": "a.py"},
    ),
    "notebooks": (
        {"rules": {"preset": "none"}},
        "data_prep.notebook_inputs.BATCH_BYTES",
        {"content": json.dumps({"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "source": "1", "outputs": []}]})},
    ),
    "source": ({"rules": {"preset": "none"}}, "data_prep.source_tables.STRETCH_BYTES", {"content": "a = 1\n", "path": "a.py"}),
    "pulls": ({"view": "dialogue", "rules": {"preset": "none"}}, "data_prep.pull_reading.BATCH_BYTES", pull_rows.pull_row()),
    "issues": (
        {"format": "bigcode", "rules": {"preset": "none"}},
        "data_prep.issues.CHUNK_BYTES",
        {"repo": "a/b", "issue_id": 1, "issue_number": 1, "events": [{"action": "opened", "author": "c", "text": "Why is it so?"}]},
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_kinds_parse_plain_lines_where_their_pieces_are_built(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece says where its lines lie, and names the file; it holds none of its text. A line that is none has its place."""
    keys, name, row = TABLES[kind]
    monkeypatch.setattr(name, 200)
    if kind == "notebooks":
        monkeypatch.setattr("data_prep.notebook_inputs.LINES_BYTES", 200)
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({**row, "mark": "held"}) + "\n" for _ in range(9)) + "no json\n")
    opened = open_kind(kind, {"kind": kind, "path": str(path), **keys}, "test", Setting(workers=1))
    pieces = list(opened.pieces(LocalShop(tmp_path, 1)))
    assert len(pieces) >= 3
    assert all(piece.reads == (str(path),) for piece in pieces)
    assert not any("held" in repr(piece) for piece in pieces)
    items = [found for piece in pieces for found in found_in(piece)]
    assert len(items) == 10
    assert isinstance(items[-1], Dropped) and (items[-1].place, items[-1].reason) == (f"{path}:10", "invalid_json")
