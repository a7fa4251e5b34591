"""What must hold of whatever a data builder makes of a damaged input."""

from __future__ import annotations

import collections
import functools
import json

from data_prep.kinds import Setting, open_kind
from data_prep.records import Dropped, Item, Kept
from starchat.dialogue import from_row, to_row
from starchat.errors import UserError


def outcome_of(mapping: dict, kind: str, number: int) -> collections.Counter[str]:
    """Return what became of a source's units; raise where a law does not hold."""
    setting = setting_of(mapping.pop("tokenizer", "nano"))
    try:
        opened = open_kind(kind, mapping, "fuzz", setting)
        items = list(opened.items())
    except UserError as error:
        assert str(error).strip(), "an error says something"
        return collections.Counter(["refused whole"])
    for item in items:
        require_sound(item)
    if number % 10 == 0:
        assert [identity(item) for item in opened.items()] == [identity(item) for item in items], "read again, the same comes out"
    return collections.Counter("kept" if isinstance(item, Kept) else f"dropped: {item.reason}" for item in items)


@functools.cache
def setting_of(tokenizer: str) -> Setting:
    """Return the setting with a tokenizer, which is read once."""
    return Setting(tokenizer=tokenizer, workers=1)


def require_sound(item: Item) -> None:
    """Raise unless an item can be stored and read back, and says why if it was dropped."""
    if isinstance(item, Dropped):
        assert item.reason.isidentifier() and item.place, item
        return
    row = to_row(item.record)
    assert from_row(json.loads(json.dumps(row).encode())) == item.record
    json.dumps(row, ensure_ascii=False).encode("utf-8")
    assert ("\0" not in json.dumps(row) and item.record.turns) or item.record.parts, "a record holds something"
    assert all(name.replace("-", "_").replace(":", "_").isidentifier() for name in item.repairs), item.repairs


def identity(item: Item) -> str:
    """Return what tells an item from others."""
    return item.record.id if isinstance(item, Kept) else f"{item.reason} {item.place} {item.raw}"
