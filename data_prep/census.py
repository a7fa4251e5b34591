"""What a dataset is made of: counts by language, licence, kind and length, and whom it is made of, while its rows go by.

In: the kept records, one by one. Out: plain values for the manifest and the card, and the lines of ``attribution.jsonl``. Memory grows with
the number of languages, licences and repositories, not with that of the rows.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from data_prep.languages import language_of
from data_prep.license_policy import Attribution, license_class
from data_prep.opt_out import is_in_reach
from data_prep.record_texts import language_called, texts_of
from starchat.dialogue import Record
from starchat.fences import blocks_of

NOT_STATED = "not stated"
NO_CODE = "no code"


@dataclasses.dataclass
class Census:
    """Counts of kept records. `lengths` counts them by powers of two: the key is the smallest one that is above the characters.

    `out_of_reach` counts those that no opt-out can take out (`data_prep.opt_out.is_in_reach`).
    """

    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    languages: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    licenses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    lengths: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    attribution: Attribution = dataclasses.field(default_factory=Attribution)
    out_of_reach: int = 0

    def add(self, record: Record) -> None:
        """Count a record."""
        source = record.source
        self.kinds[record.kind] += 1
        self.languages[main_language(record) or NO_CODE] += 1
        self.licenses[record.license or NOT_STATED] += 1
        self.lengths[1 << sum(map(len, texts_of(record))).bit_length()] += 1
        self.attribution.add(source.repository, record.license, source.url)
        self.out_of_reach += not is_in_reach(source)

    def merge(self, other: Census) -> None:
        """Add the counts of other records."""
        for name in ("kinds", "languages", "licenses", "lengths"):
            getattr(self, name).update(getattr(other, name))
        self.attribution.merge(other.attribution)
        self.out_of_reach += other.out_of_reach

    def reach(self) -> dict[str, int]:
        """Return how many records there are, and how many of them no opt-out can take out."""
        return {"records": self.kinds.total(), "out_of_reach": self.out_of_reach}

    def to_json(self) -> dict[str, Any]:
        """Return the counts, the largest first; of licences also their classes."""
        classes: collections.Counter[str] = collections.Counter()
        for license, records in self.licenses.items():
            classes[license_class(None if license == NOT_STATED else license)] += records
        named = {"kinds": self.kinds, "languages": self.languages, "licenses": self.licenses, "license_classes": classes}
        counted = {name: dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))) for name, counts in named.items()}
        return {**counted, "characters_below": {str(bound): count for bound, count in sorted(self.lengths.items())}}


def census_of(records: Iterable[Record]) -> Census:
    """Return the counts of records."""
    census = Census()
    for record in records:
        census.add(record)
    return census


def main_language(record: Record) -> str | None:
    """Return the language of a record: that of its file, else of the first block whose fence names one; None for neither.

    >>> from starchat.dialogue import Source, Turn
    >>> main_language(Record(Source("x"), (Turn("user", "q"), Turn("assistant", "```output\\n1\\n```\\n```py\\nx\\n```"))))
    'Python'
    """
    if record.source.path and (found := language_of(record.source.path)):
        return found
    for turn in record.turns:
        if turn.role == "assistant":
            for block in blocks_of(turn.content):
                if found := language_called(block.language):
                    return found
    return None


def shares(counts: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    """Return the largest counts, and what is left of them as one.

    >>> shares({"a": 5, "b": 3, "c": 1, "d": 1}, 3)
    [('a', 5), ('b', 3), ('2 others', 2)]
    """
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    if len(ordered) <= most:
        return ordered
    rest = ordered[most - 1 :]
    return [*ordered[: most - 1], (f"{len(rest)} others", sum(count for _, count in rest))]
