"""How files become documents of whole repositories; what these hold is shown in ``test_source_code.py`` and ``test_source_tables.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.kinds import LocalShop, Setting, found_in, open_kind
from data_prep.records import Dropped, Item, Kept
from data_prep.source_documents import Sketch, Span, grouped


def sketch(text: str | None, repository: str = "a/b", chars: int = 10, size_bytes: int = 3) -> Sketch:
    return Sketch(text.encode() if text else None, repository, chars, size_bytes)


def test_groups_by_hand() -> None:
    """Files of two tasks: a document ends at the limit, at another repository and at the end, and what is left out comes first."""
    first = [sketch("one"), sketch(None, size_bytes=5), sketch("two", chars=15), sketch("one")]
    second = [sketch("three", chars=1), sketch("four", chars=99), sketch("five", chars=1), sketch("six", "a/c", 1)]
    found = list(grouped([("x", first), ("y", second)], 25))
    assert [(group.fate, group.files) for group in found] == [
        ("left_out", (Span("x", 3, 5),)),
        ("duplicate", (Span("x", 11, 3),)),
        ("document", (Span("x", 0, 3), Span("x", 8, 3))),
        ("document", (Span("y", 0, 3),)),
        ("document", (Span("y", 3, 3),)),
        ("document", (Span("y", 6, 3),)),
        ("document", (Span("y", 9, 3),)),
    ]


def write_table(folder: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"content": f"number_{n % 50} = 'held {n % 50}'\n" * 5, "path": f"p{n % 3}/f{n}.py", "repository": f"a/r{n // 20}"}
        for n in range(90)
    ]
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "content": None}]))
    return path


def write_tree(folder: Path) -> Path:
    for n in range(60):
        path = folder / "tree" / f"p{n % 4}" / f"f{n}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"number_{n % 50} = 'held {n % 50}'\n" * 5)
    (folder / "tree" / "x.bin").write_bytes(b"\0")
    return folder / "tree"


@pytest.mark.parametrize("write", [write_table, write_tree])
def test_documents_are_made_by_pieces_that_hold_no_text(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are cut, and whoever builds their files."""
    path = write(tmp_path)
    made: list[list[Item]] = []
    for pieces_bytes, count, files, workers in ((4 << 20, 500, 64, 1), (1, 500, 7, 2), (4 << 20, 3, 1, 1), (2_000, 500, 3, 1)):
        monkeypatch.setattr("data_prep.source_documents.PIECE_BYTES", pieces_bytes)
        monkeypatch.setattr("data_prep.source_documents.PIECE_GROUPS", count)
        monkeypatch.setattr("data_prep.source_code.TASK_FILES", files)
        monkeypatch.setattr("data_prep.source_tables.STRETCH_BYTES", files * 200)
        keys = {"form": "repository", "max_document_chars": 600, "rules": {"preset": "none"}}
        opened = open_kind("source", {"kind": "source", "path": str(path), **keys}, "test", Setting(workers=workers))
        folder = tmp_path / f"shop-{len(made)}"
        folder.mkdir()
        pieces = list(opened.pieces(LocalShop(folder, workers)))
        assert len(pieces) >= (1 if pieces_bytes > 2_000 and count == 500 else 5)
        assert not any("held" in repr(piece.argument[1]) for piece in pieces)
        made.append([item for piece in pieces for item in found_in(piece)])  # type: ignore[misc]
        assert list(opened.items()) == made[-1]
    assert all(items == made[0] for items in made)
    dropped = [item.reason for item in made[0] if isinstance(item, Dropped)]
    assert dropped.count("exact_duplicate") == (40 if write is write_table else 10) and len(set(dropped)) == 2
    assert sum(isinstance(item, Kept) for item in made[0]) >= 8
