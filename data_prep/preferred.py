"""Which of several copies is kept: by licence, stars and date, as a spec says.

Pure. In: a record and the order of preferences. Out: a rank, the smaller the better; among equals the earlier in the input is kept. And the
text by which a record is compared with others: its code without the names in front, or all of its texts.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import Any

from data_prep.license_policy import CLASSES, license_class
from data_prep.near_duplicates import NearDuplicateRules
from data_prep.record_texts import code_of, texts_of
from starchat.config import closest, from_mapping
from starchat.dialogue import Record, Source
from starchat.errors import UserError

PREFERENCES = ("license", "stars", "newest", "oldest")
_BITS = {"license": 2, "stars": 24, "newest": 33, "oldest": 33}
"""How many bits of a rank a preference takes; one date at most, so that a rank fits into 62."""


@dataclasses.dataclass(frozen=True)
class DuplicateRules(NearDuplicateRules):
    """What counts as a near-duplicate, and by what its best copy is told, the first preference first."""

    prefer: tuple[str, ...] = ("license", "stars", "newest")


def duplicate_rules(mapping: Mapping[str, Any], place: str) -> DuplicateRules:
    """Return the rules of a spec; raise `UserError` for what no rule can be."""
    try:
        rules = from_mapping(DuplicateRules, mapping, place)
    except UserError as error:
        raise UserError(re.sub("(?m)^near_duplicates: ", lambda _: f"{place}.", str(error))) from None
    for name in rules.prefer:
        if name not in PREFERENCES:
            raise UserError(f"{place}.prefer: {name!r}; {closest(name, PREFERENCES)}")
    if len(set(rules.prefer)) < len(rules.prefer) or {"newest", "oldest"} <= set(rules.prefer):
        raise UserError(f"{place}.prefer: {', '.join(rules.prefer)}; expected each at most once, and newest or oldest")
    return rules


def rank_of(record: Record, prefer: tuple[str, ...]) -> int:
    """Return the rank of a record: what is not known ranks behind everything known.

    >>> rank_of(Record(Source("x"), license="MIT"), ("license",)) < rank_of(Record(Source("x")), ("license",))
    True
    """
    rank = 0
    for name in prefer:
        bits = _BITS[name]
        rank = rank << bits | min(_value(record.source, record.license, name), (1 << bits) - 1)
    return rank


def _value(source: Source, license: str | None, name: str) -> int:
    most = (1 << _BITS[name]) - 1
    if name == "license":
        order = {"permissive": 0, "copyleft": 1, "unknown": 3, "none": 2}
        assert set(order) == set(CLASSES)
        return order[license_class(license)]
    if name == "stars":
        return most if source.stars is None else max(0, most - 1 - source.stars)
    seconds = _seconds(source.date)
    if seconds is None:
        return most
    return seconds if name == "oldest" else most - 1 - seconds


def _seconds(date: str | None) -> int | None:
    """Return the seconds since 1970 of a date, None for none or one that is not of this time."""
    if date is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    seconds = int(moment.timestamp())
    return seconds if 0 <= seconds < (1 << 33) - 1 else None


def compared_text(record: Record) -> str:
    """Return the text by which a record is compared with others: what is said, without the tools that many dialogues share."""
    files = [code.text for code in code_of(record) if code.whole] if record.parts else []
    return "\n".join(files or texts_of(dataclasses.replace(record, tools=None)))
