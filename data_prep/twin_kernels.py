"""The loops of `data_prep.near_duplicates`, compiled by numba; `data_prep.twin_arrays` does the same in Python.

In and out: numpy arrays. Both ways to find which texts resemble a kept one give the same result: `resolve` compares a text with all that
share a band with it, which takes time with the square of the texts where many share a band and are not alike; `resolve_by_prefixes`
compares it with those that share one of its rarest shingles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_prep.shingle_kernels import compiled

EXACT_COUNTS, STEPS_PER_DOUBLING = 16, 8
"""How shingles are told apart by how many texts have them: each number below the first, and so many steps to its double above."""

FINE = 40
"""Shingles of this class, 128 texts, and more common ones have a list for each size of text; others have one."""

SIZES_PER_DOUBLING = 32
"""Sizes of texts within 2 % of each other are one."""

FACTOR = 0x9E3779B97F4A7C15
"""An odd factor that spreads what is multiplied by it, 2**64 divided by the golden ratio (Knuth, volume 3, section 6.4)."""


@compiled
def _need(total: int, threshold: float) -> Any:
    """Return how many shingles two texts of so many together, each counted by itself, must share to reach the threshold."""
    need: Any = max(int(threshold * total / (1.0 + threshold)) - 1, 0)  # or one or two fewer; now exactly:
    while need < total and need / (total - need) < threshold:
        need += 1
    return need


@compiled
def similarity(hashes: Any, a: int, a_end: int, b: int, b_end: int, threshold: float) -> float:
    """Return the Jaccard similarity of two sets, ascending in ``hashes[a:a_end]`` and ``hashes[b:b_end]``; 0 if below the threshold."""
    a_size, b_size = a_end - a, b_end - b
    total = a_size + b_size
    need = _need(total, threshold)
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
    """Return what `similarity` does, of shingles in the order of rarity: texts that are not alike are soon told by their rarest."""
    total = a_end - a + b_end - b
    need = _need(total, threshold)
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
    for band in range(buckets.shape[0]):  # noqa: SIM110 - numba compiles no generators
        if buckets[band, one] == buckets[band, other]:
            return True
    return False


@compiled
def _list_of(shingle: Any, rarity: Any, size_class: Any, bits: int) -> Any:
    """Return the number of the list that a shingle is looked up in for a size of text; different ones may meet in one list."""
    if rarity < FINE:
        size_class = np.uint64(0)
    return ((shingle + size_class) * np.uint64(FACTOR)) >> np.uint64(64 - bits)


@compiled
def _size_classes(most: int) -> Any:
    """Return the class of each size of text from 0 to `most`."""
    return (1 + SIZES_PER_DOUBLING * np.log2(np.maximum(np.arange(most + 1), 1))).astype(np.uint64)


@compiled
def resolve_by_prefixes(hashes: Any, starts: Any, ends: Any, buckets: Any, threshold: float) -> Any:
    """Return what `resolve` does; `hashes` is put into another order. It must have fewer than 2**31.

    Shingles are taken in one order in all texts, the rarest first (Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins",
    2006; Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", 2007). Where the first shingle that two texts share is at place
    `i` of one of size `n` and at `j` of another of size `m`, they share ``n - i`` and ``m - j`` at most; if these let them reach the
    threshold, then ``n + m <= reach[n - i]`` and ``n + m <= reach[m - j]`` (the positional filter of Xiao et al., "Efficient similarity
    joins for near duplicate detection", 2008). So kept texts stand in lists by shingle, as far as their places allow any twin, with the
    largest size that a twin may have; and a text looks up its rarest shingles only, in the lists of the sizes that it may resemble.
    """
    bits = 10
    while (1 << bits) < hashes.size:
        bits += 1
    classes = order_by_rarity(hashes, starts, ends, np.zeros(1 << bits, np.uint32))
    sizes = ends - starts
    most = sizes.max()
    reach, size_classes = reaches(most, threshold), _size_classes(most)
    latest = np.full(1 << bits, -1, np.int32)
    entries, filled = np.empty((1024, 4), np.int32), 0  # kept text, its size, the largest size of a twin, the entry before
    seen = np.full(starts.size, -1, np.int32)
    twins, similarities = np.full(starts.size, -1, np.int64), np.zeros(starts.size, np.float64)
    for text in range(starts.size):
        start, size, twin, best, least = starts[text], sizes[text], -1, threshold, 1
        while reach[least] < least + size:
            least += 1
        prefix = 0
        while prefix < size and reach[size - prefix] - size >= least:
            prefix += 1
        for place in range(prefix):
            shingle, rarity, room = hashes[start + place], classes[start + place], min(reach[size - place] - size, most)
            if rarity == 1:
                continue
            for size_class in range(size_classes[least if rarity >= FINE else room], size_classes[room] + np.uint64(1)):
                entry = latest[_list_of(shingle, rarity, np.uint64(size_class), bits)]
                while entry >= 0:
                    kept, kept_size, kept_room, entry = entries[entry]
                    if kept_room >= size and kept_size <= room and seen[kept] != text:
                        seen[kept] = text
                        found = _similarity(hashes, classes, start, ends[text], starts[kept], ends[kept], best)
                        if (found > best or (found == best and (twin < 0 or kept < twin))) and _share_a_band(buckets, text, kept):
                            twin, best = kept, found
        if twin >= 0:
            twins[text], similarities[text] = twin, best
            continue
        while filled + prefix > entries.shape[0]:
            entries = np.concatenate((entries, np.empty_like(entries)))
        for place in range(prefix):
            if classes[start + place] > 1:
                number = _list_of(hashes[start + place], classes[start + place], size_classes[size], bits)
                entries[filled, 0], entries[filled, 1] = text, size
                entries[filled, 2], entries[filled, 3] = min(reach[size - place] - size, most), latest[number]
                latest[number] = filled
                filled += 1
    return twins, similarities
