"""How dialogues are cut into pieces of work; what becomes of their rows is shown in ``test_formats.py`` and ``test_prepare.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.kinds import LocalShop, Setting, found_in, open_kind
from preparing import chat


@pytest.mark.parametrize("is_sound", [True, False], ids=["rows", "faults"])
def test_large_rows_come_in_small_pieces(is_sound: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds a shard of pieces: 4,096 rows of a megabyte were 4 GB."""
    monkeypatch.setattr("data_prep.dialogues.BATCH_CHARACTERS", 10_000)
    rows = [json.dumps(chat(f"Number {number}?", "x" * (9_000 if number % 50 == 0 else 10))) for number in range(200)]
    if not is_sound:
        rows = [rows[1], *(row[:-1] for row in rows)]
    (tmp_path / "chats.jsonl").write_text("\n".join(rows), encoding="utf-8")
    opened = open_kind("dialogues", {"kind": "dialogues", "path": str(tmp_path / "chats.jsonl")}, "test", Setting(workers=1))
    pieces = list(opened.pieces(LocalShop(tmp_path, 1)))
    assert len(pieces) >= 4
    assert sum(len(found_in(piece)) for piece in pieces) == len(rows)
    assert max(len(piece.argument[2]) for piece in pieces) < 100
