"""The loops of `data_prep.shingles`, compiled by numba; `data_prep.shingle_arrays` does the same in numpy.

In and out: numpy arrays. Compiled code is kept beside this file, or in the user's cache folder where that may not be written; where
neither may be, each process compiles anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

SPACE, OPERATOR, WORD = 0, 1, 2
"""As `data_prep.shingles` has them. Nothing is imported from there: numba keeps compiled code as long as this file is unchanged."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled at its first call, which runs without Python's lock."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for the cache may be written
        return numba.njit(nogil=True)(function)


ANY = 0x80
"""From here on bytes are of characters beyond ASCII."""

MANY = 1000
"""So many hashes with the same first bits are next to always the same one; if not, insertion would take long."""


@compiled
def mix(value: Any) -> Any:
    """Return 64 bits spread over 64 bits, as MurmurHash3 (Appleby) ends."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@compiled
def _beyond_ascii(data: Any, at: Any) -> Any:
    """Return the code point whose UTF-8 begins here, and its length in bytes."""
    lead = np.uint64(data[at])
    width = np.uint64(2 if lead < 0xE0 else 3 if lead < 0xF0 else 4)
    code = lead & (np.uint64(0x7F) >> width)
    for step in range(np.uint64(1), width):
        code = (code << np.uint64(6)) | (np.uint64(data[at + step]) & np.uint64(0x3F))
    return code, width


@compiled
def _hash_units(data: Any, first: int, end: int, classes: Any, steps: Any, factor: Any, units: Any) -> Any:
    """Write a raw hash of each unit of one text, which is UTF-8, and return how many there are.

    `steps` has, for each ASCII character, the factor and the summand that its hash is taken on with, and whether it is of a word.
    Without a branch that hangs on the character, a byte of ASCII takes six cycles; with such, twice as many.
    """
    unit, count, joined, has_word = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
    at, stop = np.uint64(first), np.uint64(end)
    while at < stop:
        while at < stop and data[at] < ANY:
            code = data[at]
            at += np.uint64(1)
            word = steps[code, 2]
            begins = word & has_word & ~joined
            units[count] = unit
            count += begins
            unit = unit * (steps[code, 0] & (begins - np.uint64(1))) + steps[code, 1]
            has_word |= word
            joined = word
        if at == stop:
            break
        point, width = _beyond_ascii(data, at)
        at += width
        kind = classes[point]
        if kind == SPACE:
            joined = np.uint64(0)
            continue
        word, joins = np.uint64(kind != OPERATOR), np.uint64(kind == WORD)
        begins = word & has_word & ~(joined & joins)
        units[count] = unit
        count += begins
        unit = unit * (factor & (begins - np.uint64(1))) + point + np.uint64(1)
        has_word |= word
        joined = joins
    if unit:
        units[count] = unit
        count += np.uint64(1)
    return np.int64(count)


@compiled
def _steps(classes: Any, factor: Any) -> Any:
    steps = np.zeros((ANY, 3), np.uint64)
    steps[:, 0] = factor
    for code in range(ANY):
        if classes[code] == SPACE:
            steps[code, 0] = 1
        else:
            steps[code, 1] = code + 33 if 65 <= code <= 90 else code + 1
            steps[code, 2] = classes[code] != OPERATOR
    return steps


@compiled
def hash_shingles(data: Any, bounds: Any, classes: Any, size: int, factors: Any) -> Any:
    """Return the hashes of the shingles of each text, in order, and how many each text has.

    `data` is the texts as UTF-8, text `i` at ``bounds[i] : bounds[i + 1]``; `factors` are `data_prep.shingles.FACTORS`.
    """
    texts = bounds.size - 1
    steps = _steps(classes, factors[0])
    hashes = np.empty((data.size + texts) // 2 + 1, np.uint64)  # a unit takes two bytes at least, but for the last of a text
    counts = np.zeros(texts, np.int64)
    filled = 0
    for text in range(texts):
        units = hashes[filled:]
        count = _hash_units(data, bounds[text], bounds[text + 1], classes, steps, factors[0], units)
        if count == 0:
            continue
        for number in range(count):
            units[number] = mix(units[number])
        found, length = max(count - size + 1, 1), min(count, size)
        for number in range(found):  # in place: what is read lies ahead of what is written
            shingle = np.uint64(length) * factors[2]
            for step in range(length):
                shingle = shingle * factors[1] + units[number + step]
            units[number] = mix(shingle)
        counts[text] = found
        filled += found
    return hashes[:filled], counts


@compiled
def _scatter(hashes: Any, first: int, end: int, shift: int, places: Any, target: Any) -> Any:
    """Copy hashes so that their highest bits ascend, and return how many have the same at most; `places` is room for counting."""
    places[:] = 0
    for position in range(first, end):
        places[hashes[position] >> np.uint64(shift)] += 1
    total, most = 0, 0
    for value in range(places.size):  # from how many there are to where they begin
        count = places[value]
        places[value] = total
        total += count
        most = max(most, count)
    for position in range(first, end):
        bucket = hashes[position] >> np.uint64(shift)
        target[places[bucket]] = hashes[position]
        places[bucket] += 1
    return most


@compiled
def sort_unique(hashes: Any, counts: Any) -> Any:
    """Return the hashes of each text ascending, each once, and the bounds of the texts; the first argument is changed.

    Hashes are spread evenly: of `n`, about one has the same first ``log2(n)`` bits as another, but for those that repeat.
    """
    bounds = np.zeros(counts.size + 1, np.int64)
    scratch = np.empty(counts.max() if counts.size else 0, np.uint64)
    first, filled = 0, 0
    for text in range(counts.size):
        count, bits = counts[text], 1
        while (1 << bits) < count:
            bits += 1
        if _scatter(hashes, first, first + count, 64 - bits, np.empty(1 << bits, np.int64), scratch) > MANY:
            scratch[:count].sort()
        for position in range(1, count):
            value, place = scratch[position], position
            while place > 0 and scratch[place - 1] > value:
                scratch[place] = scratch[place - 1]
                place -= 1
            scratch[place] = value
        for position in range(count):
            if position == 0 or scratch[position] != scratch[position - 1]:
                hashes[filled] = scratch[position]
                filled += 1
        first += count
        bounds[text + 1] = filled
    return hashes[:filled].copy(), bounds


@compiled
def sketch(hashes: Any, bounds: Any, factors: Any, summands: Any, rows: int, unit_factor: Any) -> Any:
    """Return the hash of each band of each text, ``(bands, texts)``: of `rows` minima over its shingles under permutations of 32 bits."""
    bands, texts = factors.size // rows, bounds.size - 1
    found = np.zeros((bands, texts), np.uint64)
    minima, values = np.empty(factors.size, np.uint32), np.empty(8, np.uint32)
    for text in range(texts):
        minima[:] = np.uint32(0xFFFFFFFF)
        last = bounds[text + 1] - 1
        for position in range(bounds[text], bounds[text + 1], 8):  # eight at a time: minima are loaded and stored less often
            for place in range(8):
                values[place] = np.uint32(hashes[min(position + place, last)] >> np.uint64(32))
            a, b, c, d = values[0], values[1], values[2], values[3]
            e, f, g, h = values[4], values[5], values[6], values[7]
            for number in range(factors.size):
                factor, summand = factors[number], summands[number]
                ab = min(np.uint32(factor * a + summand), np.uint32(factor * b + summand))
                cd = min(np.uint32(factor * c + summand), np.uint32(factor * d + summand))
                ef = min(np.uint32(factor * e + summand), np.uint32(factor * f + summand))
                gh = min(np.uint32(factor * g + summand), np.uint32(factor * h + summand))
                minima[number] = min(minima[number], min(min(ab, cd), min(ef, gh)))
        for band in range(bands):
            together = np.uint64(0)
            for number in range(band * rows, (band + 1) * rows):
                together = mix(together * unit_factor + np.uint64(minima[number]))
            found[band, text] = together
    return found
