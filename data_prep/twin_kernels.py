"""The loops of `data_prep.near_duplicates`, compiled by numba; `data_prep.twin_arrays` does the same in Python.

In and out: numpy arrays. Both ways to find which texts resemble a kept one give the same result: `resolve` compares a text with all that
share a band with it, which takes time with the square of the texts where many share a band and are not alike; `resolve_by_prefixes`
compares it with those that share one of its rarest shingles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_prep.shingle_kernels import compiled

@compiled
def similarity(hashes: Any, a: int, a_end: int, b: int, b_end: int, threshold: float) -> float:
    """Return the Jaccard similarity of two sets, ascending in ``hashes[a:a_end]`` and ``hashes[b:b_end]``; 0 if below the threshold."""
    a_size, b_size = a_end - a, b_end - b
    total = a_size + b_size
    need: Any = max(int(threshold * total / (1.0 + threshold)) - 1, 0)  # how many they must share, or one or two fewer; now exactly:
    while need < total and need / (total - need) < threshold:
        need += 1
    a_spare, b_spare = a_size - need, b_size - need
    shared = 0
    while a < a_end and b < b_end and a_spare >= 0 and b_spare >= 0:
        if hashes[a] == hashes[b]:
            shared += 1
            a += 1
            b += 1
        elif hashes[a] < hashes[b]:
            a_spare -= 1
            a += 1
        else:
            b_spare -= 1
            b += 1
    return shared / (total - shared) if shared >= need else 0.0


@compiled
def resolve(hashes: Any, starts: Any, ends: Any, buckets: Any, threshold: float) -> Any:
    """Return for each text the kept one that it is removed for, or -1, and their similarity.

    Texts come in the order in which they are preferred; the shingles of each are ``hashes[start:end]``. `buckets`, ``(bands, texts)``,
    are numbers from 0, different in each band: texts share a band where they have the same number. A text is removed if an earlier kept
    one that shares a band is at least as similar as the threshold; of several it names the most similar, the earliest of those.
    """
    bands, texts = buckets.shape
    latest = np.full(buckets.max() + 1, -1, np.int64)
    before = np.empty((texts, bands), np.int64)
    seen = np.full(texts, -1, np.int64)
    twins = np.full(texts, -1, np.int64)
    similarities = np.zeros(texts, np.float64)
    for text in range(texts):
        twin, best = -1, threshold
        for band in range(bands):
            kept = latest[buckets[band, text]]
            while kept >= 0:
                if seen[kept] != text:
                    seen[kept] = text
                    found = similarity(hashes, starts[text], ends[text], starts[kept], ends[kept], best)
                    if found > best or (found == best and (twin < 0 or kept < twin)):
                        twin, best = kept, found
                kept = before[kept, band]
        if twin >= 0:
            twins[text] = twin
            similarities[text] = best
            continue
        for band in range(bands):
            before[text, band] = latest[buckets[band, text]]
            latest[buckets[band, text]] = text
    return twins, similarities


EXACT_COUNTS, STEPS_PER_DOUBLING = 16, 8
"""How shingles are told apart by how many texts have them: each number below the first, and so many steps to its double above."""

COMMON = 64
"""A shingle that so many texts have is kept in a list for each size of text, not in one."""

SIZES_PER_DOUBLING = 32
"""Sizes of texts within 2 % of each other are one."""

FACTOR = 0x9E3779B97F4A7C15
"""An odd factor that spreads what is multiplied by it, 2**64 divided by the golden ratio (Knuth, volume 3, section 6.4)."""


@compiled
def order_by_rarity(hashes: Any, starts: Any, ends: Any, counts: Any) -> Any:
    """Put the rarest shingles of each text first, in place; return a class of each: 1 of one text only, the higher the more common.

    Of one class those with the lower hash come first, so that the order is the same in all texts. `counts` is room to count in, all 0, its
    size a power of two: shingles that meet there count as more common than they are, which changes no result.
    """
    mask = np.uint64(counts.size - 1)
    classes = np.empty(hashes.size, np.uint8)
    places = np.empty(256, np.int64)
    scratch = np.empty((ends - starts).max() if starts.size else 0, np.uint64)
    for position in range(hashes.size):
        counts[hashes[position] & mask] += 1
    for text in range(starts.size):
        start, end = starts[text], ends[text]
        places[:] = 0
        for position in range(start, end):
            count = counts[hashes[position] & mask]
            if count >= EXACT_COUNTS:
                count = EXACT_COUNTS + int(STEPS_PER_DOUBLING * np.log2(count / EXACT_COUNTS))
            classes[position] = count
            places[count] += 1
            scratch[position - start] = hashes[position]
        total = start
        for value in range(places.size):
            count = places[value]
            places[value] = total
            total += count
        values = classes[start:end].copy()
        for position in range(end - start):
            value = values[position]
            hashes[places[value]] = scratch[position]
            classes[places[value]] = value
            places[value] += 1
    return classes


@compiled
def reaches(most: int, threshold: float) -> Any:
    """Return for 0 to `most` shared shingles how many two texts may have together, each counted by itself, to reach the threshold."""
    reach = np.zeros(most + 1, np.int64)
    for shared in range(1, most + 1):
        total = int(shared * (1.0 + threshold) / threshold) + 2
        while shared / (total - shared) < threshold:
            total -= 1
        reach[shared] = total
    return reach


@compiled
def _similarity(hashes: Any, classes: Any, a: int, a_end: int, b: int, b_end: int, threshold: float) -> float:
    """Return what `similarity` does of shingles in order of rarity: texts that are not alike are soon told by their rarest."""
    total = a_end - a + b_end - b
    need: Any = max(int(threshold * total / (1.0 + threshold)) - 1, 0)
    while need < total and need / (total - need) < threshold:
        need += 1
    a_spare, b_spare = a_end - a - need, b_end - b - need
    shared = 0
    while a < a_end and b < b_end and a_spare >= 0 and b_spare >= 0:
        if hashes[a] == hashes[b]:
            shared += 1
            a += 1
            b += 1
        elif classes[a] < classes[b] or (classes[a] == classes[b] and hashes[a] < hashes[b]):
            a_spare -= 1
            a += 1
        else:
            b_spare -= 1
            b += 1
    return shared / (total - shared) if shared >= need else 0.0


@compiled
def _share_a_band(buckets: Any, one: int, other: int) -> bool:
    for band in range(buckets.shape[0]):
        if buckets[band, one] == buckets[band, other]:
            return True
    return False


@compiled
def resolve_by_prefixes(hashes: Any, starts: Any, ends: Any, buckets: Any, threshold: float) -> Any:
    """Return what `resolve` does; `hashes` is put into another order.

    Shingles are taken in one order in all texts, the rarest first (Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins",
    2006; Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", 2007). Where the first shingle that two texts share is at place
    `i` of one of size `n` and at `j` of another of size `m`, they share ``n - i`` and ``m - j`` at most; if these let them reach the
    threshold, then ``n + m <= reach[n - i]`` and ``n + m <= reach[m - j]`` (the positional filter of Xiao et al., "Efficient similarity
    joins for near duplicate detection", 2008). So kept texts stand in lists by shingle, as far as their places allow any twin, with the
    size that a twin may have; and a text looks up its own rarest shingles only, in the lists of sizes that it may resemble.
    """
    sizes = ends - starts
    bits = 10
    while (1 << bits) < hashes.size:
        bits += 1
    classes = order_by_rarity(hashes, starts, ends, np.zeros(1 << bits, np.uint32))
    most = sizes.max()
    reach = reaches(most, threshold)
    size_class = (1 + SIZES_PER_DOUBLING * np.log2(np.maximum(np.arange(most + 1), 1))).astype(np.uint64)
    heads, shift = np.full(1 << bits, -1, np.int32), np.uint64(64 - bits)
    room_for = 1024
    listed, rooms, before = np.empty(room_for, np.int32), np.empty(room_for, np.int32), np.empty(room_for, np.int32)
    filled = 0
    seen = np.full(starts.size, -1, np.int32)
    twins, similarities = np.full(starts.size, -1, np.int64), np.zeros(starts.size, np.float64)
    for text in range(starts.size):
        size, start = sizes[text], starts[text]
        least = 1
        while reach[least] < least + size:
            least += 1
        twin, best = -1, threshold
        for place in range(size):
            room = min(reach[size - place] - size, most)
            if room < least:
                break
            if classes[start + place] < 2:
                continue
            first, last = size_class[least], size_class[room]
            if classes[start + place] < 32:
                first, last = np.uint64(0), np.uint64(0)
            for by_size in range(first, last + np.uint64(1)):
                entry = heads[((hashes[start + place] + np.uint64(by_size)) * np.uint64(FACTOR)) >> shift]
                while entry >= 0:
                    kept = listed[entry]
                    if rooms[entry] >= size and sizes[kept] <= room and seen[kept] != text:
                        seen[kept] = text
                        found = _similarity(hashes, classes, start, ends[text], starts[kept], ends[kept], best)
                        if (found > best or (found == best and (twin < 0 or kept < twin))) and _share_a_band(buckets, text, kept):
                            twin, best = kept, found
                    entry = before[entry]
        if twin >= 0:
            twins[text], similarities[text] = twin, best
            continue
        for place in range(size):
            room = reach[size - place] - size
            if room < least:
                break
            if classes[start + place] < 2:
                continue
            by_size = size_class[size] if classes[start + place] >= 32 else np.uint64(0)
            head = ((hashes[start + place] + by_size) * np.uint64(FACTOR)) >> shift
            if filled == room_for:
                listed, rooms, before = (np.append(listed, listed), np.append(rooms, rooms), np.append(before, before))
                room_for *= 2
            listed[filled], rooms[filled], before[filled] = text, room, heads[head]
            heads[head] = filled
            filled += 1
    return twins, similarities
