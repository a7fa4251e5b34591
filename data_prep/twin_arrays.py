"""The loops of `data_prep.twin_kernels` with numpy and Python alone, for where numba is not installed: the same results, more slowly.

In and out: numpy arrays, as there, where each function is described.
"""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np

from data_prep.shingles import Hashes, Numbers


def resolve(hashes: Hashes, starts: Numbers, mids: Numbers, ends: Numbers, buckets: Numbers, threshold: float) -> tuple[Numbers, Any]:
    """Return for each text the kept one that it is removed for, or -1, and their similarity."""
    twins, similarities = np.full(starts.size, -1, np.int64), np.zeros(starts.size)
    kept_in: dict[int, list[int]] = {}
    sets = [hashes[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    places = np.stack((starts, mids, ends), axis=1)
    for text, column in enumerate(buckets.T.tolist()):
        for kept in sorted({kept for bucket in column for kept in kept_in.get(bucket, ())}):
            found = similarity(sets[text], sets[kept], threshold)
            nearer = found >= threshold and found > similarities[text]
            if nearer and _parts_alike(hashes, places[text], places[kept], threshold):
                twins[text], similarities[text] = kept, found
        if twins[text] < 0:
            for bucket in column:
                kept_in.setdefault(bucket, []).append(text)
    return twins, similarities


def resolve_by_prefixes(
    hashes: Hashes, starts: Numbers, mids: Numbers, ends: Numbers, buckets: Numbers, threshold: float
) -> tuple[Numbers, Any]:
    """Return what `resolve` does, which compares texts only where one of the rarest shingles of each is the same."""
    twins, similarities = np.full(starts.size, -1, np.int64), np.zeros(starts.size)
    values, counts = np.unique(hashes, return_counts=True)
    sets = [hashes[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    places = np.stack((starts, mids, ends), axis=1)
    reach = reaches(max((each.size for each in sets), default=0), threshold)
    kept_of: dict[int, list[tuple[int, int, int]]] = {}
    for text, shingles in enumerate(sets):
        size = shingles.size
        least = bisect.bisect_left(range(size), True, key=lambda other: reach[other] >= other + size)
        how_many = counts[np.searchsorted(values, shingles)]
        order = np.lexsort((shingles, how_many))
        rooms = [(int(shingles[place]), reach[size - at] - size) for at, place in enumerate(order.tolist()) if how_many[place] > 1]
        prefix = [(shingle, room) for shingle, room in rooms if room >= least]
        found = {
            kept
            for shingle, room in prefix
            for kept, kept_size, kept_room in kept_of.get(shingle, ())
            if kept_size <= room and size <= kept_room
        }
        for kept in sorted(found):
            alike = similarity(shingles, sets[kept], threshold)
            nearer = alike >= threshold and alike > similarities[text] and (buckets[:, text] == buckets[:, kept]).any()
            if nearer and _parts_alike(hashes, places[text], places[kept], threshold):
                twins[text], similarities[text] = kept, alike
        if twins[text] < 0:
            for shingle, room in prefix:
                kept_of.setdefault(shingle, []).append((text, size, room))
    return twins, similarities


def _parts_alike(hashes: Hashes, one: Numbers, other: Numbers, threshold: float) -> bool:
    """Return whether the first parts of two texts reach the threshold, and the second ones; where both have none, nothing differs."""
    both = [np.split(hashes[start:end], [mid - start]) for start, mid, end in (one.tolist(), other.tolist())]
    return all((not a.size and not b.size) or similarity(a, b, threshold) >= threshold for a, b in zip(*both, strict=True))


def reaches(most: int, threshold: float) -> list[int]:
    """Return for 0 to `most` shared shingles how many two texts may have together, each counted by itself, to reach the threshold."""
    reach = [0]
    for shared in range(1, most + 1):
        total = int(shared * (1.0 + threshold) / threshold) + 2
        while shared / (total - shared) < threshold:
            total -= 1
        reach.append(total)
    return reach


def similarity(one: Hashes, other: Hashes, threshold: float) -> float:
    """Return the Jaccard similarity of two ascending sets; 0 if their sizes alone put it below the threshold."""
    total, most = one.size + other.size, min(one.size, other.size)
    if most / (total - most) < threshold:
        return 0.0
    shared = int(np.intersect1d(one, other, assume_unique=True).size)
    return shared / (total - shared)
