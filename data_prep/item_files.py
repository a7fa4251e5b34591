"""Items between two passes: their texts in one file, and in another what all items together are judged by, a few bytes of each.

In a folder: ``items.jsonl``, each line a kept record with its repairs, or a dropped unit; ``lines.npy``, one `LINE` of each, in the same
order; ``claims.npy``, one `CLAIM` of each `data_prep.records.Claim`. A pass that judges reads the latter two, and one that writes asks
for single lines of the first. Who writes them makes them whole (`data_prep.tasks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson

from data_prep.arrays import save_array
from data_prep.records import Dropped, Item, Kept, encodable
from starchat.dialogue import Record, Turn, from_row, to_row

ITEMS, LINES, CLAIMS = "items.jsonl", "lines.npy", "claims.npy"

LINE = np.dtype(
    [
        ("offset", "<u8"),
        ("length", "<u8"),
        ("id", "<u8", 2),
        ("size", "<u8"),
        ("copies", "<u2"),
        ("reason", "<u2"),
        ("kept", "?"),
        ("test", "?"),
        ("fault", "?"),
    ]
)
"""A line: where it is, the record's id, about how many bytes it takes, how often it is written and to which split; why it is dropped."""

CLAIM = np.dtype([("first", "<u8"), ("count", "<u8"), ("key", "<u8", 2)])
"""A claim: the number of its first line, how many lines hold its items, and its key. The line behind those is what it is otherwise."""


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

    def keep(self, item: Kept, row: dict[str, Any], copies: int, is_test: bool) -> None:
        """Add a kept item, of which `row` is the row of its record."""
        self._add({"row": row, "repairs": item.repairs}, _words(row["id"]), size_bytes(item.record), copies, 0, True, is_test, False)

    def drop(self, item: Dropped) -> None:
        """Add a dropped item."""
        texts = {name: encodable(getattr(item, name)) for name in ("reason", "place", "detail", "raw")}
        reason = self.reasons.setdefault(texts["reason"], len(self.reasons))
        value = {"dropped": {**texts, "fault": item.fault}}
        self._add(value, (0, 0), len(item.raw), 0, reason, False, False, item.fault)

    def claim(self, key: bytes, first: int, count: int) -> None:
        """Add a claim on lines that were added."""
        self._claims.append((first, count, _words(key.hex())))

    def _add(self, value: dict[str, Any], *judged: Any) -> None:
        line = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
        self._file.write(line)
        self._lines.append((self._offset, len(line), *judged))
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


def write_items(folder: Path, items: Iterable[Item]) -> None:
    """Write items to a folder, each kept one to be written once to the train split."""
    with ItemWriter(folder) as writer:
        for item in items:
            if isinstance(item, Kept):
                writer.keep(item, to_row(item.record), 1, is_test=False)
            else:
                writer.drop(item)


def read_items(folder: Path) -> Iterator[Item]:
    """Yield the items of a folder."""
    with open(folder / ITEMS, "rb") as file:
        for line in file:
            yield item_of(orjson.loads(line))


def item_of(value: dict[str, Any]) -> Item:
    """Return the item that a line's value spells."""
    if "row" in value:
        return Kept(from_row(value["row"]), tuple(value["repairs"]))
    return Dropped(**value["dropped"])
