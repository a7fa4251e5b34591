"""How dialogues are cut into pieces of work; what becomes of their rows is shown in ``test_formats.py`` and ``test_prepare.py``."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from data_prep.kinds import LocalShop, Setting, found_in, open_kind
from data_prep.oasst import Tree
from data_prep.records import Dropped, Kept
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


def oasst_messages(tree: int) -> list[dict[str, Any]]:
    """Return the messages of a tree: a question, two answers of which the second is better, one of them answered."""
    rows = [("q", None, "prompter", None), ("a", "q", "assistant", 1), ("b", "q", "assistant", 0), ("c", "b", "prompter", 0)]
    return [
        {"message_id": f"{name}{tree}", "parent_id": parent and f"{parent}{tree}", "role": role, "text": f"{name} of {tree}", "rank": rank}
        for name, parent, role, rank in rows
    ]


@pytest.mark.parametrize("shape", ["trees", "threads", "messages"])
def test_trees_are_built_by_pieces(shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they are cut, and whichever process reads their rows."""
    trees = [oasst_messages(tree) for tree in range(9)]
    rows: list[dict[str, Any]] = [row for messages in zip(*trees, strict=True) for row in messages]
    if shape == "trees":
        rows = [{"message_tree_id": root["message_id"], "prompt": {**root, "replies": replies[:2]}} for root, *replies in trees]
    elif shape == "threads":
        rows = [{"thread_id": root["message_id"], "thread": [root, answer]} for root, _, answer, _ in trees]
    lost = {"message_id": "lost", "parent_id": "nowhere", "role": "assistant", "text": "An answer to nothing"}
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, [*rows, lost])), encoding="utf-8")
    opened = open_kind("dialogues", {"kind": "dialogues", "path": str(tmp_path / "t.jsonl")}, "test", Setting(workers=2))
    made = []
    for count in (512, 3, 1):
        monkeypatch.setattr("data_prep.dialogues.ROWS_OF_A_PIECE", count)
        pieces = list(opened.pieces(LocalShop(tmp_path, 1)))
        assert len(pieces) == -(-10 // count)
        assert all(isinstance(pickle.loads(found), Tree | Dropped) for piece in pieces for found in piece.argument[1])
        made.append([found for piece in pieces for found in found_in(piece)])
        assert list(opened.items()) == made[-1]
    assert made[0] == made[1] == made[2]
    *kept, last = made[0]
    assert isinstance(last, Dropped) and last.reason == "oasst_orphan"
    assert [[turn.content for turn in item.record.turns] for item in kept if isinstance(item, Kept)] == [
        [f"q of {tree}", f"b of {tree}"] for tree in range(9)
    ]
