"""How dialogues are cut into pieces of work; what becomes of their rows is shown in ``test_formats.py`` and ``test_prepare.py``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from data_prep.kinds import LocalShop, Setting, found_in, open_kind
from preparing import chat


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.jsonl.gz", "chats.json"])
def test_large_rows_come_in_small_pieces(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds a shard of pieces: 4,096 rows of a megabyte were 4 GB."""
    monkeypatch.setattr("data_prep.dialogues.BATCH_CHARACTERS", 10_000)
    monkeypatch.setattr("data_prep.dialogues.STRETCH_BYTES", 10_000)
    rows = [chat(f"Number {number}?", "x" * (9_000 if number % 50 == 0 else 10)) for number in range(200)]
    text = json.dumps(rows) if name == "chats.json" else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    opened = open_kind("dialogues", {"kind": "dialogues", "path": str(tmp_path / name)}, "test", Setting(workers=1))
    pieces = list(opened.pieces(LocalShop(tmp_path, 1)))
    assert len(pieces) >= 4
    sizes = [len(found_in(piece)) for piece in pieces]
    assert sum(sizes) == len(rows)
    assert max(sizes) <= 120
