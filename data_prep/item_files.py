"""Items between two passes: files of JSON lines, each line a kept record with its repairs, or a dropped unit.

Written where a pass needs all items before the next can begin (near-duplicates). Order is kept; a file is whole or absent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from data_prep.records import Dropped, Item, Kept, encodable
from starchat.dialogue import from_row, to_row

Numbered = tuple[int, Item]
"""An item and the index of the spec's source that gave it."""


def write_items(path: Path, items: Iterable[Numbered]) -> None:
    """Write items to a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            for number, item in items:
                file.write(orjson.dumps(_value(number, item), option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_items(path: Path) -> Iterator[Numbered]:
    """Yield the items of a file."""
    with open(path, "rb") as file:
        for line in file:
            value = orjson.loads(line)
            if "row" in value:
                yield value["source"], Kept(from_row(value["row"]), tuple(value["repairs"]))
            else:
                yield value["source"], Dropped(**value["dropped"])


def _value(number: int, item: Item) -> dict[str, Any]:
    if isinstance(item, Kept):
        return {"source": number, "row": to_row(item.record), "repairs": item.repairs}
    texts = {name: encodable(getattr(item, name)) for name in ("reason", "place", "detail", "raw")}
    return {"source": number, "dropped": {**texts, "fault": item.fault}}
