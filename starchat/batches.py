"""Consecutive groups of a stream: what ``itertools.batched`` is from Python 3.12 on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield consecutive groups of `size` items, the last perhaps smaller.

    >>> list(batched("abcde", 2))
    [('a', 'b'), ('c', 'd'), ('e',)]
    """
    iterator = iter(items)
    while group := tuple(itertools.islice(iterator, size)):
        yield group
