"""The loops of `data_prep.shingles` and `data_prep.near_duplicates`, compiled by numba; `data_prep.shingle_arrays` does the same in numpy.

In and out: numpy arrays. Compiled code is kept beside this file, or in the user's cache folder where that may not be written; where
neither may be, each process compiles anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from data_prep.shingles import CHARACTER, LENGTH, OPERATOR, SINGLE, SPACE, UNIT, WORD


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled at its first call, which runs without Python's lock."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for the cache may be written
        return numba.njit(nogil=True)(function)


@_compiled
def mix(value: Any) -> Any:
    """Return 64 bits spread over 64 bits, as MurmurHash3 (Appleby) ends."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@_compiled
def _beyond_ascii(data: Any, at: int) -> Any:
    """Return the code point whose UTF-8 begins here, and its length in bytes."""
    lead = np.int64(data[at])
    width = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    code = lead & (0x7F >> width)
    for step in range(1, width):
        code = (code << 6) | (np.int64(data[at + step]) & 0x3F)
    return code, width


@_compiled
def hash_units(data: Any, first: int, end: int, classes: Any, units: Any) -> int:
    """Write the hashes of the units of one text, which is UTF-8, and return how many there are."""
    unit, count, at = np.uint64(0), 0, first
    some, has_word, joined = False, False, False
    while at < end:
        code = np.int64(data[at])
        at += 1
        if code >= 0x80:
            code, width = _beyond_ascii(data, at - 1)
            at += width - 1
        elif 65 <= code <= 90:
            code += 32
        kind = classes[code]
        if kind == SPACE:
            joined = False
            continue
        if kind != OPERATOR:
            if has_word and not (joined and kind == WORD):
                units[count] = mix(unit)
                count += 1
                unit = np.uint64(0)
            has_word = True
        joined = kind == WORD
        some = True
        unit = unit * CHARACTER + np.uint64(code + 1)
    if some:
        units[count] = mix(unit)
        count += 1
    return count


@_compiled
def hash_shingles(data: Any, bounds: Any, classes: Any, size: int) -> Any:
    """Return the hashes of the shingles of each text, in order, and how many each text has.

    `data` is the texts as UTF-8, text `i` at ``bounds[i] : bounds[i + 1]``.
    """
    texts = bounds.size - 1
    hashes = np.empty((data.size + texts) // 2 + 1, np.uint64)  # a unit takes two bytes at least, but for the last of a text
    counts = np.zeros(texts, np.int64)
    filled = 0
    for text in range(texts):
        units = hashes[filled:]
        count = hash_units(data, bounds[text], bounds[text + 1], classes, units)
        if count == 0:
            continue
        found = max(count - size + 1, 1)
        length = min(count, size)
        for number in range(found):  # in place: what is read lies ahead of what is written
            shingle = np.uint64(length) * LENGTH
            for step in range(length):
                shingle = shingle * UNIT + units[number + step]
            units[number] = mix(shingle)
        counts[text] = found
        filled += found
    return hashes[:filled], counts


@_compiled
def drop_repeats(hashes: Any, counts: Any) -> Any:
    """Return ascending hashes with each once in its text, and the bounds of the texts; the first argument is changed."""
    bounds = np.zeros(counts.size + 1, np.int64)
    read, filled = 0, 0
    for text in range(counts.size):
        for position in range(read, read + counts[text]):
            if position == read or hashes[position] != hashes[position - 1]:
                hashes[filled] = hashes[position]
                filled += 1
        read += counts[text]
        bounds[text + 1] = filled
    return hashes[:filled].copy(), bounds


@_compiled
def sketch(hashes: Any, bounds: Any, factors: Any, summands: Any, rows: int) -> Any:
    """Return the hash of each band of each text, ``(bands, texts)``: of `rows` minima over its shingles under permutations of 32 bits."""
    bands, texts = factors.size // rows, bounds.size - 1
    found = np.zeros((bands, texts), np.uint64)
    minima = np.empty(factors.size, np.uint32)
    for text in range(texts):
        minima[:] = np.uint32(0xFFFFFFFF)
        for position in range(bounds[text], bounds[text + 1]):
            value = np.uint32(hashes[position] >> np.uint64(32))
            for number in range(factors.size):
                minima[number] = min(minima[number], np.uint32(factors[number] * value + summands[number]))
        for band in range(bands):
            together = np.uint64(0)
            for number in range(band * rows, (band + 1) * rows):
                together = mix(together * UNIT + np.uint64(minima[number]))
            found[band, text] = together
    return found


@_compiled
def _root(parents: Any, member: int) -> int:
    while parents[member] != member:
        parents[member] = parents[parents[member]]
        member = parents[member]
    return member


@_compiled
def join_parts(parents: Any, links: Any) -> None:
    """Join what the links, ``(links, 2)``, say is connected; a root is the smallest number of its part."""
    for number in range(links.shape[0]):
        one, other = _root(parents, links[number, 0]), _root(parents, links[number, 1])
        if one < other:
            parents[other] = one
        else:
            parents[one] = other


@_compiled
def name_parts(parents: Any) -> None:
    """Change each entry to the root of its part."""
    for member in range(parents.size):
        parents[member] = parents[parents[member]]


@_compiled
def similarity(hashes: Any, a: int, a_end: int, b: int, b_end: int, threshold: float) -> float:
    """Return the Jaccard similarity of two sets, ascending in ``hashes[a:a_end]`` and ``hashes[b:b_end]``; 0 if below the threshold."""
    a_size, b_size = a_end - a, b_end - b
    total = a_size + b_size
    need = np.int64(threshold * total / (1.0 + threshold))  # how many they must share, made exact
    while need > 0 and (need - 1) / (total - need + 1) >= threshold:
        need -= 1
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


@_compiled
def resolve(hashes: Any, starts: Any, ends: Any, buckets: Any, threshold: float) -> Any:
    """Return for each text the kept one that it is removed for, or -1, and their similarity.

    Texts come in the order in which they are preferred; the shingles of each are ``hashes[start:end]``. `buckets`, ``(bands, texts)``, are numbers from 0, different in each band: texts
    share a band where they have the same number. A text is removed if an earlier kept one that shares a band is at least as similar
    as the threshold; of several it names the most similar, the earliest of those.
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
