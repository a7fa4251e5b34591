"""Items between two passes: their texts in one file, and in another what all items together are judged by, a few bytes of each.

In a folder: ``items.jsonl``, each line a kept record with its repairs, or a dropped unit; ``lines.npy``, one `LINE` of each, in the same
order; ``claims.npy``, one `CLAIM` of each `data_prep.records.Claim`. A pass that judges reads the latter two, and one that writes asks
for single lines of the first. Who writes them makes them whole (`data_prep.tasks`); what a disk makes of them afterwards is found out by
checksums: `judged_digest`, and that of each line.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import orjson

from data_prep.arrays import save_array
from data_prep.records import Claim, Dropped, Kept, encodable
from data_prep.tasks import WorkKept
from starchat.dialogue import Record, Turn
from starchat.files import digest_bytes

ITEMS, LINES, CLAIMS = "items.jsonl", "lines.npy", "claims.npy"

LINE = np.dtype(
    [
        ("offset", "<u8"),
        ("length", "<u8"),
        ("crc32", "<u4"),
        ("id", "<u8", 2),
        ("size", "<u8"),
        ("rank", "<i8"),
        ("copies", "<u2"),
        ("reason", "<u2"),
        ("kept", "?"),
        ("test", "?"),
        ("fault", "?"),
    ]
)
"""A line: where it is, its checksum, the record's id, about how many bytes it takes, its rank among copies (the lower is preferred), how
often it is written and to which split; why it is dropped."""

CLAIM = np.dtype([("first", "<u8"), ("count", "<u8"), ("rank", "<i8"), ("key", "<u8", 2)])
"""A claim: the number of its first line, how many lines hold its items, its rank and its key. The line behind those is what it is
otherwise."""


_RANK, _KEPT = (list(LINE.names or ()).index(name) for name in ("rank", "kept"))


def judged_digest(folder: Path) -> str:
    """Return the digest of what the items of a folder are judged by."""
    return digest_bytes(b"".join((folder / name).read_bytes() for name in (LINES, CLAIMS)))


def read_judged(folder: Path, digest: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the lines and claims of a folder; raise `WorkKept` if they are not as they were written."""
    if judged_digest(folder) != digest:
        raise damaged(folder / LINES)
    return np.load(folder / LINES), np.load(folder / CLAIMS)


def read_line(file: BinaryIO, line: np.void) -> dict[str, Any]:
    """Return the value of a line of an open ``items.jsonl``; raise `WorkKept` if it is not as it was written."""
    file.seek(int(line["offset"]))
    data = file.read(int(line["length"]))
    if zlib.crc32(data) != line["crc32"]:
        raise damaged(Path(file.name))
    value: dict[str, Any] = orjson.loads(data)
    return value


def damaged(path: Path) -> WorkKept:
    """Return the error for a file that a task has finished and somebody else has changed."""
    return WorkKept(f"{path}: is not as it was written: another program or the disk changed it; remove {path.parent} and run again")


class ItemWriter:
    """Writes the items of a folder; a context manager that closes it. `reasons` are those of the dropped, which lines name by number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = open(folder / ITEMS, "wb")  # noqa: SIM115  # closed by __exit__
        self._lines: list[tuple[Any, ...]] = []
        self._claims: list[tuple[Any, ...]] = []
        self._offset = 0
        self.reasons: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            save_array(self._folder / LINES, np.array(self._lines, LINE))
            save_array(self._folder / CLAIMS, np.array(self._claims, CLAIM))

    def __len__(self) -> int:
        return len(self._lines)

    def keep(self, item: Kept, row: dict[str, Any], rank: int, copies: int, is_test: bool) -> None:
        """Add a kept item, of which `row` is the row of its record."""
        self._add({"row": row, "repairs": item.repairs}, _words(row["id"]), size_bytes(item.record), rank, copies, 0, True, is_test, False)

    def drop(self, item: Dropped) -> None:
        """Add a dropped item."""
        texts = {name: encodable(getattr(item, name)) for name in ("reason", "place", "detail", "raw")}
        reason = self.reasons.setdefault(texts["reason"], len(self.reasons))
        value = {"dropped": {**texts, "fault": item.fault}}
        self._add(value, (0, 0), len(item.raw), 0, 0, reason, False, False, item.fault)

    def claim(self, claim: Claim, first: int) -> None:
        """Add a claim, whose items were added from the line `first` on."""
        ranks = [line[_RANK] for line in self._lines[first : first + len(claim.items)] if line[_KEPT]]
        self._claims.append((first, len(claim.items), min(ranks, default=0) if claim.by_rank else 0, _words(claim.key.hex())))

    def _add(self, value: dict[str, Any], *judged: Any) -> None:
        line = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
        self._file.write(line)
        self._lines.append((self._offset, len(line), zlib.crc32(line), *judged))
        self._offset += len(line)


def _words(digest: str) -> tuple[int, int]:
    return int(digest[:16], 16), int(digest[16:], 16)


def identity(words: Any) -> str:
    """Return the record's id that two numbers of a `LINE` spell.

    >>> identity((1, 255))
    '000000000000000100000000000000ff'
    """
    return f"{int(words[0]):016x}{int(words[1]):016x}"


def size_bytes(record: Record) -> int:
    """Return about how many bytes a record takes in a table."""
    turns = (*record.turns, *([record.rejected] if record.rejected else []))
    return len(record.tools or "") + sum(map(_turn_bytes, turns)) + sum(len(part.text) for part in record.parts)


def _turn_bytes(turn: Turn) -> int:
    return len(turn.content) + sum(len(call.arguments) for call in turn.tool_calls)
