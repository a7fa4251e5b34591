"""What must hold of whatever a data builder makes of a damaged input, and the command that makes mutants by the thousand."""

from __future__ import annotations

import argparse
import collections
import functools
import json
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterable

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


def run_mutants(description: str | None, one: Callable[[random.Random], Iterable[str]], at_once: int = 1) -> int:
    """Make as many mutants as the command line says, and print what became of them; the exit status is 1 if any broke a law.

    `one` makes and judges a mutant, or so many `at_once`, with the random numbers that it is given, and returns what became of its parts.
    """
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--count", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    outcomes: collections.Counter[str] = collections.Counter()
    failures, begin = 0, time.monotonic()
    for number in range(0, options.count, at_once):
        try:
            outcomes.update(one(random.Random(f"{options.seed}:{number}")))
        except Exception:  # noqa: BLE001  # any escape at all is the finding
            failures += 1
            print(f"--- mutant {number} of seed {options.seed}", traceback.format_exc(), sep="\n", file=sys.stderr)
    print(f"{options.count:,} mutants, seed {options.seed}, {failures} failures, {time.monotonic() - begin:.0f} s")
    for outcome, count in outcomes.most_common(30):
        print(f"  {count:>8,}  {outcome}")
    return 1 if failures else 0
