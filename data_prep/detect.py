"""Finding secrets and personal data in a text: the same finds whichever engine is installed.

In: a text. Out: spans in characters, sorted, without overlaps. What counts as a find is decided by ``re`` at single places
(`data_prep.secret_kinds`). An engine only says where to look, and must name every place where a row's gate begins: then the finds cannot
depend on it. Three engines are there; the first that is installed is taken.

==============  ================================================================================================
``hyperscan``   all gates at once, by the ends of their matches (``pip install hyperscan``)
``re2``         all gates as one pattern, begun again behind each beginning (``pip install google-re2``)
``plain``       the words that anchors begin with, by ``bytes.find``, and ``re`` for rows that have none
==============  ================================================================================================

Engines read one byte for each character, with ``?`` for what is not ASCII, so that offsets in both are the same.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from data_prep.secret_kinds import KINDS, SHAPES
from data_prep.secret_shapes import LEFT, Shape, Stretch
from starchat.config import closest
from starchat.errors import UserError

ENGINES = {"hyperscan": "hyperscan", "re2": "re2", "plain": None}
"""Engines in the order in which they are preferred, and the module that each needs."""


class Span(NamedTuple):
    """A find: where it begins and ends, in characters, and what it is."""

    start: int
    end: int
    kind: str


Place = tuple[int, int]
"""The number of a row, and where in the text its anchor may begin."""


@dataclasses.dataclass(frozen=True)
class Detector:
    """Finds of some kinds. Cheap to build, compare and pickle: patterns are compiled once in each process, at the first text.

    >>> Detector().find("mail ada@corp.io")
    [Span(start=5, end=16, kind='email')]
    """

    kinds: tuple[str, ...] = KINDS
    engine: str | None = None

    def __post_init__(self) -> None:
        """Raise `UserError` for kinds and engines that there are not."""
        faults = [f"kinds: {kind!r}; {closest(str(kind), KINDS)}" for kind in self.kinds if kind not in KINDS]
        if self.engine is not None and self.engine not in ENGINES:
            faults.append(f"engine: {self.engine!r}; {closest(self.engine, ENGINES)}")
        elif self.engine is not None and self.engine not in installed_engines():
            faults.append(
                f"engine: {self.engine!r} is not installed; expected one of {', '.join(installed_engines())}; install it or choose"
            )
        if faults:
            raise UserError("\n".join(faults))

    def find(self, text: str) -> list[Span]:
        """Return the finds in order; those that overlapped are one, from the first to the last of them."""
        places, rows = _engine(self.kinds, self.engine or installed_engines()[0])
        data, found, glued = text.encode("ascii", "replace"), set(), False
        for number, start in places(data):
            row = rows[number]
            if (match := row.pattern.match(text, start)) is not None and (stretch := row.shape.span(match)) is not None:
                if row.left is None or row.left.match(text, start):
                    found.add((*stretch, number))
                else:
                    glued = True
        if glued:
            found.update(_chained(text, places(data), rows))
        return settled(found, rows) if found else []


class Row(NamedTuple):
    """A row of the table, ready to match; of tokens, what they stand behind is `left`, by itself."""

    shape: Shape
    pattern: re.Pattern[str]
    left: re.Pattern[str] | None


MAX_JOINTS = 4
"""How many tokens that begin behind a token are tried as its end: what looks like another may stand within it."""


def _chained(text: str, places: Iterable[Place], rows: Sequence[Row]) -> Iterator[tuple[int, int, int]]:
    """Yield the tokens of a text that may stand side by side with nothing between: each ends where the next begins, and need not stand
    apart itself if it begins within or right behind one that does."""
    tokens: list[tuple[int, Stretch, int]] = []
    for start, number in sorted({(start, number) for number, start in places if rows[number].left is not None}, reverse=True):
        ends = [len(text), *(begin for begin, _, _ in tokens[: -MAX_JOINTS - 1 : -1] if begin > start)]
        matches = (rows[number].pattern.match(text, start, end) for end in ends)
        if found := [stretch for match in matches if match and (stretch := rows[number].shape.span(match))]:
            tokens.append((start, max(found, key=lambda stretch: stretch[1]), number))
    reach = -1
    for start, stretch, number in reversed(tokens):
        left = rows[number].left
        if start <= reach or (left is not None and left.match(text, start)):
            yield (*stretch, number)
            reach = max(reach, stretch[1])


def settled(found: Iterable[tuple[int, int, int]], rows: Sequence[Row]) -> list[Span]:
    """Return finds without overlaps: what overlaps is joined, and has the kind of the row that stands first in the table."""
    joined: list[list[int]] = []
    for start, end, number in sorted(found):
        if joined and start < joined[-1][1]:
            joined[-1][1:] = [max(end, joined[-1][1]), min(number, joined[-1][2])]
        else:
            joined.append([start, end, number])
    return [Span(start, end, rows[number].shape.kind) for start, end, number in joined]


@functools.cache
def installed_engines() -> tuple[str, ...]:
    """Return the engines that can be used, the preferred one first."""
    return tuple(name for name, module in ENGINES.items() if module is None or importlib.util.find_spec(module) is not None)


Places = Callable[[bytes], Iterable[Place]]


@functools.lru_cache(16)
def _engine(kinds: tuple[str, ...], name: str) -> tuple[Places, tuple[Row, ...]]:
    """Return an engine and the rows that its numbers mean."""
    rows = tuple(_row(shape) for shape in SHAPES if shape.kind in kinds)
    make = {"hyperscan": _hyperscan_places, "re2": _re2_places, "plain": _plain_places}[name]
    return make([row.shape for row in rows]), rows


def _row(shape: Shape) -> Row:
    if shape.guard != LEFT:
        return Row(shape, re.compile(shape.pattern, re.ASCII), None)
    return Row(shape, re.compile(dataclasses.replace(shape, guard="").pattern, re.ASCII), re.compile(LEFT, re.ASCII))


def _hyperscan_places(shapes: list[Shape]) -> Places:
    """Return places by hyperscan, which tells the ends of matches: anchors are looked for within reach before them."""
    if not shapes:
        return lambda data: ()
    hyperscan: Any = importlib.import_module("hyperscan")
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    gates = [shape.gate_pattern.encode() for shape in shapes]
    database.compile(expressions=gates, ids=list(range(len(gates))), elements=len(gates), flags=0)
    anchors = [re.compile(b"(?=" + shape.anchor.encode() + b")") for shape in shapes]

    def places(data: bytes) -> Iterator[Place]:
        ends: dict[int, list[int]] = {}

        def note(number: int, start: int, end: int, flags: int, context: Any) -> None:
            ends.setdefault(number, []).append(end)

        database.scan(data, match_event_handler=note)
        for number, where in ends.items():
            anchor, reach, done = anchors[number], shapes[number].reach, 0
            for end in sorted(set(where)):
                for match in anchor.finditer(data, max(done, end - reach), end):
                    yield number, match.start()
                    done = match.start() + 1

    return places


def _re2_places(shapes: list[Shape]) -> Places:
    """Return places by RE2, which tells where a match begins but not of which row: all that may begin with its first byte are tried."""
    if not shapes:
        return lambda data: ()
    re2: Any = importlib.import_module("re2")
    options = re2.Options()
    options.max_mem = 1 << 28
    options.encoding = re2.Options.Encoding.LATIN1
    gate = re2.compile("|".join(shape.gate_pattern for shape in shapes).encode(), options)
    firsts = [{ord(letter) for word in shape.words for letter in (word[0], word[0].upper())} for shape in shapes]
    begun = [tuple(number for number, first in enumerate(firsts) if not first or byte in first) for byte in range(256)]

    def places(data: bytes) -> Iterator[Place]:
        match = gate.search(data)
        while match is not None:
            start = match.start()
            yield from ((number, start) for number in begun[data[start]])
            match = gate.search(data, start + 1)

    return places


def _plain_places(shapes: list[Shape]) -> Places:
    """Return places by what Python has: each word once for all rows whose anchors begin with it."""
    words: dict[bytes, list[int]] = {}
    for number, shape in enumerate(shapes):
        for word in shape.words:
            words.setdefault(word.encode(), []).append(number)
    patterns = [(number, re.compile(b"(?=" + shape.anchor.encode() + b")")) for number, shape in enumerate(shapes) if not shape.words]

    def places(data: bytes) -> Iterator[Place]:
        small = data.lower()
        for word, numbers in words.items():
            start = small.find(word)
            while start >= 0:
                yield from ((number, start) for number in numbers)
                start = small.find(word, start + 1)
        for number, pattern in patterns:
            yield from ((number, match.start()) for match in pattern.finditer(data))

    return places
