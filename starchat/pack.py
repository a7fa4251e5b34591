"""Rows to packed rows: best fit, decreasing. Nothing is cut and nothing is lost.

In: row lengths. Out: `Groups` of row numbers, each at most `capacity` tokens. How rows of one group are kept from seeing
each other is `starchat.collate`'s part: positions start again at 0 with every row. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence, Sized

import numpy as np
import numpy.typing as npt

from starchat.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Groups of row numbers, flat: group n is ``rows[offsets[n]:offsets[n + 1]]``. As many small lists would cost more than packing."""

    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> npt.NDArray[np.int64]:
        return self.rows[self.offsets[number] : self.offsets[number + 1]]

    def tolist(self) -> list[list[int]]:
        """Return the row numbers of each group."""
        rows, offsets = self.rows.tolist(), self.offsets.tolist()
        return [rows[start:stop] for start, stop in itertools.pairwise(offsets)]


def pack(lengths: Sequence[int] | npt.NDArray[np.int64], capacity: int) -> Groups:
    """Return groups of row numbers by best-fit decreasing, in the order in which groups were opened.

    Each row goes into the fullest group that has room. A group that takes a row of some length stays the fullest that has room
    for another of that length, until it has none. So the rows of one length are given out at once: groups with the same room,
    the least room first, each take as many as they hold. One step serves all groups of one room, and not one row.

    >>> pack([5, 3, 2, 4], 7).tolist()
    [[0, 2], [3, 1]]
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    _require_fit(sizes, capacity)
    rows = _stable_order(capacity - sizes)  # the longest first, of equal length the earlier first
    group_of = _assign(sizes, capacity)
    return Groups(rows[_stable_order(group_of)], np.cumsum([0, *np.bincount(group_of)]))


def two_by_two(count: int) -> Groups:
    """Return groups of two rows that follow each other: what is trained where rows are the two answers of a pair.

    >>> two_by_two(4).tolist()
    [[0, 1], [2, 3]]
    """
    return Groups(np.arange(count), np.arange(0, count + 1, 2))


def one_by_one(count: int) -> Groups:
    """Return `count` groups of one row each: what is trained where rows are not packed.

    >>> one_by_one(2).tolist()
    [[0], [1]]
    """
    return Groups(np.arange(count), np.arange(count + 1))


def fill(lengths: Sequence[int], groups: Sized, capacity: int) -> float:
    """Return the share of token places that hold a token.

    >>> fill([5, 3, 2, 4], pack([5, 3, 2, 4], 7), 7)
    1.0
    """
    return sum(lengths) / (len(groups) * capacity) if len(groups) else 1.0


def _require_fit(sizes: npt.NDArray[np.int64], capacity: int) -> None:
    wrong = np.flatnonzero((sizes <= 0) | (sizes > capacity))
    if wrong.size:
        row = int(wrong[0])
        raise UserError(f"row {row} has {sizes[row]} tokens; packing needs 1 to {capacity}: raise max_length_tokens")


def _assign(sizes: npt.NDArray[np.int64], capacity: int) -> npt.NDArray[np.int64]:
    """Return the group of each row, rows by decreasing length.

    Open groups lie in one stack for each room, the newest on top; which rooms have a group are the bits of one integer, so
    the best fit costs one shift and one bit scan.
    """
    stacks: list[list[int]] = [[] for _ in range(capacity + 1)]
    occupied = opened = 0
    takers: list[int] = []  # groups in the order in which they take rows,
    taken: list[int] = []  # and how many
    counts = np.bincount(sizes, minlength=1)
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            fitting = occupied >> length
            room = length + (fitting & -fitting).bit_length() - 1 if fitting else capacity
            each = room // length
            asked = (left + each - 1) // each
            if fitting:
                groups = stacks[room][: -asked - 1 : -1]
                del stacks[room][-asked:]
                occupied ^= (not stacks[room]) << room
            else:
                groups = list(range(opened, opened + asked))
                opened += asked
            last = min(each, left - each * (len(groups) - 1))  # where rows run out, the last group takes fewer
            takers += groups
            taken += [*[each] * (len(groups) - 1), last]
            left -= each * (len(groups) - 1) + last
            for taking, whose in ((each, groups[:-1]), (last, groups[-1:])):
                if whose:
                    stacks[room - taking * length] += whose
                    occupied |= 1 << (room - taking * length)
    return np.repeat(np.array(takers, dtype=np.int64), np.array(taken, dtype=np.int64))


def _stable_order(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return ``argsort(keys, kind="stable")`` of numbers from 0, by 16-bit digits: these numpy sorts by counting, four times as fast."""
    order = np.arange(len(keys))
    for shift in range(0, int(keys.max(initial=0)).bit_length(), 16):
        order = order[np.argsort((keys[order] >> shift).astype(np.uint16), kind="stable")]
    return order
