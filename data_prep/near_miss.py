"""What decontamination found, and what it nearly found: counts for each benchmark and problem, and the closest near misses.

In: the matches of records, in any order and from any number of workers. Out: one report as JSON and as a table for a terminal. Nothing in
it depends on the order in which records were added.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.decontaminate import Match, Unused

MAX_NEAREST = 200
"""Near misses that are listed one by one; all are counted."""


@dataclasses.dataclass
class NearMisses:
    """The report while records are read. `items` and `unused` are those of the matcher."""

    items: Mapping[str, int]
    unused: Sequence[Unused] = ()
    _dropped: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    _near: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    _records: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(collections.Counter))
    _matchers: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(collections.Counter))
    _nearest: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)

    def add(self, place: str, matches: Sequence[Match]) -> None:
        """Count the matches of one record, which lies at `place`."""
        contaminated = {(match.benchmark, match.item) for match in matches if match.contaminated}
        near = {(match.benchmark, match.item) for match in matches} - contaminated
        self._dropped.update(contaminated)
        self._near.update(near)
        for name in {benchmark for benchmark, _ in contaminated}:
            self._records[name]["contaminated"] += 1
        for name in {benchmark for benchmark, _ in near} - {benchmark for benchmark, _ in contaminated}:
            self._records[name]["near"] += 1
        for name, matcher in {(match.benchmark, match.matcher) for match in matches if match.contaminated}:
            self._matchers[name][matcher] += 1
        if not contaminated:
            self._nearest += [(-match.share, place, dataclasses.astuple(match)) for match in matches]
        if len(self._nearest) > 2 * MAX_NEAREST:
            self._nearest = heapq.nsmallest(MAX_NEAREST, self._nearest)

    def as_json(self) -> dict[str, Any]:
        """Return the report: of each benchmark its counts and problems, then what is nearest to being dropped, then what is not looked for.

        `items_seen` are problems of which at least one record has something, be it too little to be dropped for.
        """
        benchmarks = {name: self._benchmark(name) for name in sorted(self.items)}
        nearest = [
            {"place": place, **dict(zip((field.name for field in dataclasses.fields(Match)), match, strict=True))}
            for _, place, match in heapq.nsmallest(MAX_NEAREST, self._nearest)
        ]
        unused = [{**unused.owner._asdict(), "matcher": unused.matcher, "why": unused.why} for unused in self.unused]
        return {"benchmarks": benchmarks, "nearest": nearest, "not_looked_for": unused}

    def _benchmark(self, name: str) -> dict[str, Any]:
        dropped = {item: count for (benchmark, item), count in sorted(self._dropped.items()) if benchmark == name}
        near = {item: count for (benchmark, item), count in sorted(self._near.items()) if benchmark == name}
        return {
            "items": self.items[name],
            "items_seen": len(dropped.keys() | near.keys()),
            "items_contaminated": len(dropped),
            "records_contaminated": self._records[name]["contaminated"],
            "records_near": self._records[name]["near"],
            "by_matcher": dict(sorted(self._matchers[name].items())),
            "contaminated": dropped,
            "near": near,
        }

    def as_table(self) -> str:
        """Return the counts as lines for a terminal, and the nearest ten."""
        rows = [("benchmark", "problems", "seen", "contaminated", "records dropped", "records near")]
        report = self.as_json()
        for name, counts in report["benchmarks"].items():
            keys = ("items", "items_seen", "items_contaminated", "records_contaminated", "records_near")
            rows.append((name, *(f"{counts[key]:,}" for key in keys)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        for found in report["nearest"][:10]:
            what = f"{found['field']} of {found['item']} ({found['benchmark']})"
            lines.append(f"near: {found['share']:.0%} of the {what}, by {found['matcher']}, in {found['place']}")
        return "\n".join(lines)
