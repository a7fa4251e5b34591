"""Which needles occur in a text word for word, white space and the case of ASCII letters aside.

In: needles and texts in UTF-8. Out: for a text, the needles that it holds, and where. All white space of ASCII is taken out of both, so
that other indentation and other line ends hide nothing, and their letters of ASCII are made small, as bigcode-dataset does.

A needle that occurs anywhere covers a block of 16 bytes that begins at a multiple of 16 of the text: of each needle the blocks at 16
places in a row are kept in a table, of a text every sixteenth place is looked at, and only where a block is found are both compared.
That costs less than an automaton that takes every byte, and needs no library for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_prep import gram_kernels
from data_prep.gram_kernels import SPREAD

SPACE = b"\t\n\v\f\r "
BLOCK = 16
MIN_BYTES = 2 * BLOCK - 1
"""The shortest needle that covers a whole block wherever it lies."""

_LOWERED = bytes(range(256)).lower()
_KEPT = (np.frombuffer(_LOWERED, np.uint8) + 256 * ~np.isin(np.arange(256), list(SPACE))).astype(np.uint16)
"""Of each byte what stands for it, and above that 256 if it is no white space."""

BITS_A_BLOCK = 32
"""The table is small enough for a core's cache, and one block of code in 2,000 passes it without being in the index."""

MIN_BITS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class VerbatimIndex:
    """Needles as `bare` gives them. `anchors` has for a block the needles that hold it, each with the block's place in it.

    `table` says of most blocks at once that they are none of these (`block_slots`).
    """

    needles: tuple[bytes, ...]
    anchors: Mapping[bytes, tuple[tuple[int, int], ...]]
    table: Any

    def found(self, data: bytes, engine: str | None = None) -> dict[int, int]:
        """Return the needles that occur in a text, each with a place in the text without white space."""
        if not self.anchors or len(data) < MIN_BYTES:
            return {}
        text, blocks = self._blocks(data, engine)
        places: dict[int, int] = {}
        for block in blocks.tolist():
            begin = block * BLOCK
            for needle, offset in self.anchors.get(text[begin : begin + BLOCK], ()):
                if needle not in places and begin >= offset and text.startswith(self.needles[needle], begin - offset):
                    places[needle] = begin - offset
        return dict(sorted(places.items()))

    def _blocks(self, data: bytes, engine: str | None) -> tuple[bytes, Any]:
        """Return a text as `bare` gives it, and the numbers of its blocks that may be in `anchors`."""
        shift = np.uint64(64 - len(self.table).bit_length() + 1)
        kernels = None if engine == "numpy" else gram_kernels.compiled()
        if kernels is not None:
            kept = np.empty((len(data) // BLOCK + 1) * BLOCK, np.uint8)
            blocks = np.empty(len(data) // BLOCK + 1, np.int64)
            array = np.frombuffer(data, np.uint8)
            length, count = kernels.find_blocks(array, _KEPT, self.table, shift, kept, kept.view(np.uint64), blocks)
            return (kept[:length].tobytes() if count else b""), blocks[:count]
        text = bare(data)
        slots, masks = block_slots(text, shift)
        return text, np.flatnonzero(self.table[slots] & masks == masks)


def build_verbatim(needles: Sequence[bytes]) -> VerbatimIndex:
    """Return the index of needles as `bare` gives them, each of at least `MIN_BYTES`.

    >>> index = build_verbatim([bare(b"for row in rows: total = total + row.size * 2")])
    >>> index.found(b"if rows:\\n    for row in rows:\\n        total = total + row.size * 2\\n")
    {0: 7}
    """
    frequency: dict[bytes, int] = {}
    for needle in needles:
        assert len(needle) >= MIN_BYTES, needle
        for block in {needle[i : i + BLOCK] for i in range(len(needle) - BLOCK + 1)}:
            frequency[block] = frequency.get(block, 0) + 1
    anchors: dict[bytes, list[tuple[int, int]]] = {}
    for number, needle in enumerate(needles):
        first = _rarest(needle, frequency)
        for offset in range(first, first + BLOCK):
            anchors.setdefault(needle[offset : offset + BLOCK], []).append((number, offset))
    exponent = max(MIN_BITS, (BITS_A_BLOCK * len(anchors)).bit_length()) - 6
    table = np.zeros(1 << exponent, np.uint64)
    np.bitwise_or.at(table, *block_slots(b"".join(anchors), np.uint64(64 - exponent)))
    return VerbatimIndex(tuple(needles), {block: tuple(places) for block, places in anchors.items()}, table)


def bare(data: bytes) -> bytes:
    """Return a text without white space of ASCII, its letters of ASCII small.

    >>> bare(b"Return A\\tnd B.")
    b'returnandb.'
    """
    return data.translate(_LOWERED, SPACE)


def block_slots(data: bytes, shift: Any) -> tuple[Any, Any]:
    """Return for each block of a text its number in a table of ``2 ** (64 - shift)`` numbers of 64 bits, and three of these bits.

    All three are set if the block is in the table (Putze, Sanders, Singler, "Cache-, hash- and space-efficient Bloom filters", 2007).
    """
    words = np.frombuffer(data, np.uint64, count=len(data) // BLOCK * 2)
    hashes = ((words[::2] * np.uint64(SPREAD)) ^ words[1::2]) * np.uint64(SPREAD)
    masks = np.zeros(hashes.size, np.uint64)
    for first in (26, 32, 38):
        masks |= np.uint64(1) << (hashes >> np.uint64(first) & np.uint64(63))
    return hashes >> shift, masks


def _rarest(needle: bytes, frequency: Mapping[bytes, int]) -> int:
    """Return where in a needle the 16 blocks in a row begin that the fewest other needles have: few comparisons in vain."""
    shares = [frequency[needle[i : i + BLOCK]] for i in range(len(needle) - BLOCK + 1)]
    sums = np.convolve(shares, np.ones(BLOCK, np.int64), "valid")
    return int(np.argmin(sums))
