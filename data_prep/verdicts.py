"""Verdicts: what becomes of each item, as far as only all of them together tell.

In: the lines of all shards (`data_prep.item_files`). Out: for each what it was dropped for, or how often it is written, and the entries of
each file of the dataset. Judged in this order, each time among what is left:

==========================  ==========================================================================================
claims                      of those in a source on one key, the preferred or first one that the mixture writes something of has it; the
                            others that are written are what they are otherwise
near-duplicates             as `data_prep.near_duplicates` found them among what the mixture writes: ``near_duplicate``, or ``duplicate``
                            if nothing differs
copies                      the same content as an earlier record that is written: ``duplicate``
mixture                     not in the share that the source's weight keeps: ``mixture_weight``
==========================  ==========================================================================================

So nothing goes for a twin that is not written. Texts stay on the disk: a line takes the bytes of `LINE`, 12 more, and 24 for a twin that
it has; a text that claims takes two lines. Everything goes by the order of the input.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.item_files import CLAIM, LINE, read_judged
from data_prep.near_duplicates import NearDuplicate

OWN, DUPLICATE, NEAR, MIXTURE, CLAIMED = range(5)
"""What a line's verdict goes back to: its own line, an earlier record, a twin, the mixture, or a claim of which a twin is kept."""

REASONS = {DUPLICATE: "duplicate", NEAR: "near_duplicate", MIXTURE: "mixture_weight"}

ENTRY = np.dtype(
    [
        ("shard", "<u4"),
        ("offset", "<u8"),
        ("length", "<u8"),
        ("crc32", "<u4"),
        ("source", "<u4"),
        ("size", "<u8"),
        ("copies", "<u2"),
        ("verdict", "u1"),
        ("similarity", "<f8"),
        ("twin", "<u8", 2),
    ]
)
"""A line that goes to a file of the dataset: where it is, whose it is, how often it is written, or what it was dropped for."""

TWIN = np.dtype([("line", "<i8"), ("twin", "<i8"), ("similarity", "<f8")])
"""A line, the line that is kept in its stead, and how alike they are."""

MAX_FILE_BYTES = 64 << 20
"""About how many bytes of text a file of the dataset has, before it is packed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Portion:
    """The lines of one file of the dataset, of a `split`, or dropped for a `reason`."""

    name: str
    split: str | None
    reason: str | None
    entries: np.ndarray[Any, Any]


class Verdicts:
    """The lines of all shards in their order, and what becomes of each. `values` are those of `data_prep.build_shards.build_shard`."""

    def __init__(self, folders: Sequence[Path], values: Sequence[dict[str, Any]]) -> None:
        counts = [value["lines"] for value in values]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.lines = np.zeros(self.starts[-1], LINE)
        claims = []
        for folder, value, start in zip(folders, values, self.starts, strict=False):
            self.lines[start : start + value["lines"]], own = read_judged(folder, value["judged"])
            claims.append(own)
        self.shards = np.repeat(np.arange(len(folders), dtype=np.uint32), counts)
        self.sources = np.repeat(np.array([value["source"] for value in values], np.uint32), counts)
        self.names = sorted({*REASONS.values(), *(reason for value in values for reason in value["reasons"])})
        self.reasons = self._global_reasons(values)
        self.alive = np.ones(len(self.lines), bool)
        self.verdicts = np.zeros(len(self.lines), np.uint8)
        self.twins = np.zeros(0, TWIN)
        self._settle(claims)

    def _global_reasons(self, values: Sequence[dict[str, Any]]) -> np.ndarray[Any, Any]:
        """Return the reasons of all lines as numbers of `names`; each shard has numbers of its own."""
        codes = {name: code for code, name in enumerate(self.names)}
        found = np.zeros(len(self.lines), np.uint16)
        for value, start, end in zip(values, self.starts, self.starts[1:], strict=False):
            own = np.array([*(codes[name] for name in value["reasons"]), 0], np.uint16)
            found[start:end] = own[self.lines["reason"][start:end]]
        return found

    def _settle(self, claims: Sequence[np.ndarray[Any, Any]]) -> None:
        """Give each key to one of those that claim it."""
        found = np.concatenate([np.zeros(0, CLAIM), *claims])
        first = found["first"].astype(np.int64) + np.repeat(self.starts[: len(claims)], [len(some) for some in claims])
        behind = first + found["count"].astype(np.int64)
        written = np.concatenate([[0], np.cumsum(self.lines["kept"] & (self.lines["copies"] > 0))])
        takes_part = written[behind] > written[first]
        self.alive[behind[~takes_part]] = False
        found, first, behind = found[takes_part], first[takes_part], behind[takes_part]
        source = self.sources[first]
        order = np.lexsort((first, found["rank"], found["key"][:, 1], found["key"][:, 0], source))
        same = (found["key"][order][1:] == found["key"][order][:-1]).all(axis=1) & (source[order][1:] == source[order][:-1])
        begins = np.flatnonzero(np.concatenate([[True], ~same])) if len(order) else order
        winner = np.repeat(order[begins], np.diff(np.append(begins, len(order))))
        loses = order != winner
        self.alive[behind[order[~loses]]] = False
        losers, winners = order[loses], winner[loses]
        for begin, end in zip(first[losers].tolist(), behind[losers].tolist(), strict=True):
            self.alive[begin:end] = False
        self.verdicts[behind[losers]] = CLAIMED
        kept = np.flatnonzero(np.diff(written))  # the lines of which something is written
        self._link(behind[losers], kept[written[first[winners]]])

    def _link(self, lines: np.ndarray[Any, Any], twins: np.ndarray[Any, Any], similarities: Any = 1.0) -> None:
        """Note the twins of lines."""
        found = np.zeros(len(lines), TWIN)
        found["line"], found["twin"], found["similarity"] = lines, twins, similarities
        self.twins = np.sort(np.concatenate([self.twins, found]), order="line")

    def compared(self, which: slice = slice(None)) -> np.ndarray[Any, Any]:
        """Return which lines are compared with each other: those that the mixture writes."""
        found: np.ndarray[Any, Any] = self._kept(which) & (self.lines["copies"][which] > 0)
        return found

    def mark_near(self, found: Sequence[NearDuplicate]) -> None:
        """Take note of near-duplicates among the lines that are compared, by their places there."""
        documents = np.flatnonzero(self.compared())
        gone = documents[np.array([one.document for one in found], np.int64)]
        twins = documents[np.array([one.twin for one in found], np.int64)]
        self._link(gone, twins, [one.similarity for one in found])
        self.verdicts[gone], self.reasons[gone] = NEAR, self._code(NEAR)
        same = (self.lines["id"][gone] == self.lines["id"][twins]).all(axis=1)
        self.reasons[gone[same]] = self._code(DUPLICATE)

    def mark_copies(self) -> None:
        """Drop what an earlier line has that is written, and what the mixture leaves out."""
        left = np.flatnonzero(self._kept())
        ids, copies = self.lines["id"][left], self.lines["copies"][left]
        order = np.lexsort((left, ids[:, 1], ids[:, 0]))
        ordered = ids[order]
        begins = np.flatnonzero(np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])) if len(left) else left
        nowhere = len(self.lines)
        place = np.where(copies[order] > 0, left[order], nowhere)
        first = np.repeat(np.minimum.reduceat(place, begins), np.diff(np.append(begins, len(left)))) if len(left) else place
        again = left[order][left[order] > first]
        absent = left[order][first == nowhere]
        unwritten = left[order][(left[order] < first) & (first < nowhere)]
        for verdict, which in ((DUPLICATE, again), (MIXTURE, absent), (MIXTURE, unwritten)):
            self.verdicts[which], self.reasons[which] = verdict, self._code(verdict)

    def _code(self, verdict: int) -> int:
        return self.names.index(REASONS[verdict])

    def _kept(self, which: slice = slice(None)) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self.alive[which] & self.lines["kept"][which] & (self.verdicts[which] == OWN)
        return found

    def _of(self, source: int) -> slice:
        """Return where the lines of a source are: shards are cut source by source."""
        return slice(*np.searchsorted(self.sources, (source, source + 1)).tolist())

    def counts(self, source: int) -> dict[str, Any]:
        """Return what the manifest says of a source, but for its repairs."""
        own = self._of(source)
        lines, alive = self.lines[own], self.alive[own]
        kept = self._kept(own)
        by_reason = np.bincount(self.reasons[own][alive & ~kept], minlength=len(self.names))
        copies = lines["copies"][kept]
        test = lines["test"][kept]
        return {
            "read": int(alive.sum()),
            "kept": int(kept.sum()),
            "dropped": {name: int(count) for name, count in zip(self.names, by_reason, strict=True) if count},
            "written": int(copies.sum(dtype=np.int64)),
            "splits": {"train": int(copies[~test].sum(dtype=np.int64)), "test": int(copies[test].sum(dtype=np.int64))},
        }

    def faults(self, source: int) -> collections.Counter[str]:
        """Return how many units of a source are malformed, by reason."""
        own = self._of(source)
        found = self.reasons[own][self.alive[own] & self.lines["fault"][own]]
        return collections.Counter({self.names[code]: int(count) for code, count in enumerate(np.bincount(found)) if count})

    def first_fault(self, source: int, reason: str) -> np.void:
        """Return the entry of the first malformed unit of a source and reason."""
        own = self._of(source)
        wanted = self.alive[own] & self.lines["fault"][own] & (self.reasons[own] == self.names.index(reason))
        found: np.void = self._entries(np.flatnonzero(wanted)[:1] + own.start)[0]
        return found

    def portions(self, max_file_bytes: int | None = None) -> Iterator[Portion]:
        """Yield what each file of the dataset holds: the splits, and the dropped by reason."""
        most = MAX_FILE_BYTES if max_file_bytes is None else max_file_bytes
        kept = self._kept()
        for split, chosen in (("train", kept & ~self.lines["test"]), ("test", kept & self.lines["test"])):
            for number, which in enumerate(self._cut(np.flatnonzero(chosen), most)):
                yield Portion(f"{split}-{number:05d}.parquet", split, None, self._entries(which))
        gone = self.alive & ~kept
        for code, reason in enumerate(self.names):
            for number, which in enumerate(self._cut(np.flatnonzero(gone & (self.reasons == code)), most)):
                yield Portion(f"{reason}{f'-{number:05d}' * bool(number)}.parquet", None, reason, self._entries(which))

    def _cut(self, which: np.ndarray[Any, Any], most: int) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the numbers of lines in groups; the one with which a group reaches the size ends it."""
        sizes = np.cumsum(self.lines["size"][which] * np.maximum(self.lines["copies"][which], 1), dtype=np.int64)
        start = 0
        while start < len(which):
            before = int(sizes[start - 1]) if start else 0
            end = min(int(np.searchsorted(sizes, before + most)) + 1, len(which))
            yield which[start:end]
            start = end

    def _entries(self, which: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        entries = np.zeros(len(which), ENTRY)
        lines = self.lines[which]
        for name in ("offset", "length", "crc32", "size", "copies"):
            entries[name] = lines[name]
        entries["shard"], entries["source"] = self.shards[which], self.sources[which]
        entries["verdict"], entries["twin"] = self.verdicts[which], lines["id"]
        has_twin = np.isin(which, self.twins["line"])
        linked = self.twins[np.searchsorted(self.twins["line"], which[has_twin])]
        entries["similarity"][has_twin], entries["twin"][has_twin] = linked["similarity"], self.lines["id"][linked["twin"]]
        return entries
