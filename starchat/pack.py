"""Rows to packed rows: best fit, decreasing. Nothing is cut and nothing is lost.

In: row lengths. Out: groups of row numbers, each at most `capacity` tokens. How rows of one group are kept from seeing
each other is `starchat.collate`'s part: positions start again at 0 with every row. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from starchat.errors import UserError


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return groups of row numbers by best-fit decreasing, in the order in which groups were opened.

    Each row goes into the fullest group that has room. Groups by free tokens are kept as one stack for each amount, and
    which amounts have a group as the bits of one integer, so a row costs one shift and one bit scan.

    >>> pack([5, 3, 2, 4], 7)
    [[0, 2], [3, 1]]
    """
    groups: list[list[int]] = []
    by_free: list[list[int]] = [[] for _ in range(capacity + 1)]
    occupied = 0
    for row in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        length = lengths[row]
        if not 0 < length <= capacity:
            raise UserError(f"row {row} has {length} tokens; packing needs 1 to {capacity}: raise max_length_tokens")
        candidates = occupied >> length
        if candidates:
            free = length + (candidates & -candidates).bit_length() - 1
            group = by_free[free].pop()
            if not by_free[free]:
                occupied &= ~(1 << free)
        else:
            free, group = capacity, len(groups)
            groups.append([])
        groups[group].append(row)
        by_free[free - length].append(group)
        occupied |= 1 << (free - length)
    return groups


def fill(lengths: Sequence[int], groups: Sequence[Sequence[int]], capacity: int) -> float:
    """Return the share of token places that hold a token.

    >>> fill([5, 3, 2, 4], [[0, 2], [3, 1]], 7)
    1.0
    """
    return sum(lengths) / (len(groups) * capacity) if groups else 1.0
