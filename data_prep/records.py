"""What a reader yields to the prepare stage: a `Record`, or a `Dropped` row with its reason.

Readers run in many processes, and some things only all of them together know: whether a text was seen before is said by a `Claim`, which
the prepare stage settles; what a process read by itself, by a `Read`.

Every raw row that is read yields at least one item, so read = kept + dropped holds by counting. A reader that
makes several records of one raw row (all paths of an OASST tree) counts the raw unit it names: see `Read`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from starchat.dialogue import SOURCE_KEYS, Part, Record, Source


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """A unit that did not become a record.

    `fault` marks malformed input (not JSON, unknown role, forged control token): such rows stop the run
    unless the spec's ``max_bad_fraction`` admits them. Otherwise it is known dirt, counted and set aside.
    `raw` is the row as JSON text, or what could be read of it.
    """

    reason: str
    place: str
    detail: str
    raw: str
    fault: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A record, and the repairs that were made on the way by name."""

    record: Record
    repairs: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Be sent between processes as plain tuples: what dataclasses do by themselves takes five times as long."""
        record = self.record
        if record.turns or record.rejected:
            return _kept, (None, (record, self.repairs))
        source = record.source
        whence = tuple(getattr(source, name) for name in SOURCE_KEYS)
        spelled = tuple(zip(*record.parts, strict=True))  # all markers, then all texts
        known = (record.tools, record.license, record.split, record.copy, None, record.placeholders)
        return _kept, ((whence, spelled, known, self.repairs), None)


def _kept(document: tuple[Any, ...] | None, dialogue: tuple[Any, ...] | None) -> Kept:
    if document is None:
        assert dialogue is not None
        return Kept(*dialogue)
    whence, spelled, known, repairs = document
    return Kept(Record(Source(*whence), (), tuple(map(Part._make, zip(*spelled, strict=True))), *known), repairs)


Item = Kept | Dropped


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """Items of a unit that claims a key of 16 bytes, and what the unit is `otherwise`: if another one of its source has the key.

    The first has it of those with something that is kept; with `by_rank` it is the one that a spec prefers among copies.
    """

    key: bytes
    items: tuple[Item, ...]
    otherwise: Dropped
    by_rank: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """A file that was read, as `data_prep.remote_files.describe_input` describes it."""

    described: dict[str, Any]


Found = Item | Claim | Read


def settled(found: Iterable[Found]) -> Iterator[Item]:
    """Yield the items of one source by themselves: each claim is the first's that made it."""
    claimed: set[bytes] = set()
    for one in found:
        if isinstance(one, Claim):
            if one.key in claimed:
                yield one.otherwise
            else:
                claimed.add(one.key)
                yield from one.items
        elif not isinstance(one, Read):
            yield one


def encodable(text: str) -> str:
    """Return a text that UTF-8 can hold: lone surrogates, such as those of file names in another encoding, are escaped.

    >>> encodable("caf\\udce9.py")
    'caf\\\\udce9.py'
    """
    return text.encode("utf-8", "backslashreplace").decode()
