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

SHARED, FINE = 2 << 24, 40 << 24
"""From these codes on (`codes_by_rarity`) a shingle is of more than one text; of 128 or more, and has a list for each size of text."""

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
def _parts_alike(hashes: Any, a: int, a_mid: int, a_end: int, b: int, b_mid: int, b_end: int, threshold: float) -> bool:
    """Return whether the first parts of two texts reach the threshold, and the second ones; where both have none, nothing differs."""
    if a_mid == a_end and b_mid == b_end:
        return True  # then the first parts are all, and were compared
    first = (a == a_mid and b == b_mid) or similarity(hashes, a, a_mid, b, b_mid, threshold) >= threshold
    return first and similarity(hashes, a_mid, a_end, b_mid, b_end, threshold) >= threshold


@compiled
def resolve(hashes: Any, starts: Any, mids: Any, ends: Any, buckets: Any, threshold: float) -> Any:
    """Return for each text the kept one that it is removed for, or -1, and their similarity.

    Texts come in the order in which they are preferred; the shingles of each are ``hashes[start:end]``, those of its second part behind
    `mid`. `buckets`, ``(bands, texts)``, are numbers from 0, different in each band: texts share a band where they have the same number. A
    text is removed if an earlier kept one that shares a band is at least as similar as the threshold, and so are their parts; of several
    it names the most similar, the earliest of those.
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
                    nearer = found > best or (found == best and (twin < 0 or kept < twin))
                    if nearer and _parts_alike(
                        hashes, starts[text], mids[text], ends[text], starts[kept], mids[kept], ends[kept], threshold
                    ):
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
def codes_by_rarity(hashes: Any, starts: Any, ends: Any, counts: Any) -> Any:
    """Return 32 bits for each shingle, ascending in each text: a class, 1 of one text only, the more common the higher, and 24 of the hash.

    `counts` is room to count in, all 0, its size a power of two. Shingles that meet there count as more common than they are, and some
    that differ have one code. Both only let texts seem more alike than they are.
    """
    mask = np.uint64(counts.size - 1)
    codes = np.empty(hashes.size, np.uint32)
    for position in range(hashes.size):
        counts[hashes[position] & mask] += 1
    for position in range(hashes.size):
        rarity = np.uint64(counts[hashes[position] & mask])
        if rarity >= EXACT_COUNTS:
            rarity = np.uint64(EXACT_COUNTS + STEPS_PER_DOUBLING * np.log2(rarity / EXACT_COUNTS))
        codes[position] = (rarity << np.uint64(24)) | (hashes[position] & np.uint64(0xFFFFFF))
    for text in range(starts.size):
        codes[starts[text] : ends[text]].sort()
    return codes


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
def _may_reach(codes: Any, a: int, a_end: int, b: int, b_end: int, need: int) -> bool:
    """Return whether two texts share so many codes. Where they do not, their rarest tell; nothing branches on which code is less."""
    a_spare, b_spare = a_end - a - need, b_end - b - need
    while a < a_end and b < b_end and a_spare >= 0 and b_spare >= 0:
        one, other = codes[a], codes[b]
        a += one <= other
        b += other <= one
        a_spare -= one < other
        b_spare -= other < one
    return a_spare >= 0 and b_spare >= 0


@compiled
def _prefix(reach: Any, size: int) -> Any:
    """Return the least size of a twin, and how many of the rarest shingles are to be looked up."""
    least, prefix = 1, 0
    while reach[least] < least + size:
        least += 1
    while prefix < size and reach[size - prefix] - size >= least:
        prefix += 1
    return least, prefix


@compiled
def _list_of(code: Any, size_class: Any, lists: int) -> Any:
    """Return the number of the list that a code is looked up in for a class of sizes; several may meet in one list."""
    if code < FINE:
        size_class = np.uint64(0)
    return (((np.uint64(code) << np.uint64(16)) + size_class) * np.uint64(FACTOR)) >> np.uint64(64 - lists)


@compiled
def _empty_lists(codes: Any, starts: Any, ends: Any, reach: Any, size_classes: Any) -> Any:
    """Return where each list begins and ends, which is the same yet, and room for what all texts would put into them.

    An entry is a kept text, its size, the largest size of a twin, and the place of the shingle. Room that is never written takes no memory.
    """
    prefixes, total, bits = np.empty(starts.size, np.int64), 0, 4
    for text in range(starts.size):
        prefixes[text] = _prefix(reach, ends[text] - starts[text])[1]
        for place in range(starts[text], starts[text] + prefixes[text]):
            total += codes[place] >= SHARED
    while (1 << bits) < total:
        bits += 1
    lists = np.zeros((1 << bits, 2), np.int64)
    for text in range(starts.size):
        for place in range(starts[text], starts[text] + prefixes[text]):
            if codes[place] >= SHARED:
                lists[_list_of(codes[place], size_classes[ends[text] - starts[text]], bits), 1] += 1
    begin = 0
    for number in range(lists.shape[0]):
        count = lists[number, 1]
        lists[number] = begin
        begin += count
    return lists, np.empty((total, 4), np.int32), bits


@compiled
def resolve_by_prefixes(hashes: Any, starts: Any, mids: Any, ends: Any, buckets: Any, threshold: float) -> Any:
    """Return what `resolve` does. No text may have 2**31 shingles.

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
    codes = codes_by_rarity(hashes, starts, ends, np.zeros(1 << bits, np.uint32))
    sizes = ends - starts
    most = sizes.max()
    reach = reaches(most, threshold)
    size_classes = (1 + SIZES_PER_DOUBLING * np.log2(np.maximum(np.arange(most + 1), 1))).astype(np.uint64)
    lists, entries, bits = _empty_lists(codes, starts, ends, reach, size_classes)
    seen = np.full(starts.size, -1, np.int32)
    twins, similarities = np.full(starts.size, -1, np.int64), np.zeros(starts.size, np.float64)
    for text in range(starts.size):
        start, end, size, twin, best = starts[text], ends[text], sizes[text], -1, threshold
        least, prefix = _prefix(reach, size)
        for place in range(prefix):
            code, room = codes[start + place], min(reach[size - place] - size, most)
            if code < SHARED:
                continue
            for size_class in range(size_classes[least if code >= FINE else room], size_classes[room] + np.uint64(1)):
                number = _list_of(code, np.uint64(size_class), bits)
                for entry in range(lists[number, 0], lists[number, 1]):
                    kept = entries[entry, 0]
                    if entries[entry, 2] < size or entries[entry, 1] > room or seen[kept] == text:
                        continue
                    if codes[starts[kept] + entries[entry, 3]] != code:
                        continue
                    seen[kept] = text
                    need = _need(size + sizes[kept], best)
                    if not _may_reach(codes, start + place, end, starts[kept] + entries[entry, 3], ends[kept], need):
                        continue
                    found = similarity(hashes, start, end, starts[kept], ends[kept], best)
                    nearer = found > best or (found == best and (twin < 0 or kept < twin))
                    nearer = nearer and (buckets[:, text] == buckets[:, kept]).any()
                    if nearer and _parts_alike(hashes, start, mids[text], end, starts[kept], mids[kept], ends[kept], threshold):
                        twin, best = kept, found
        if twin >= 0:
            twins[text], similarities[text] = twin, best
            continue
        for place in range(prefix):
            code = codes[start + place]
            if code >= SHARED:
                number = _list_of(code, size_classes[size], bits)
                entry = lists[number, 1]
                entries[entry, 0], entries[entry, 1] = text, size
                entries[entry, 2], entries[entry, 3] = min(reach[size - place] - size, most), place
                lists[number, 1] = entry + 1
    return twins, similarities
