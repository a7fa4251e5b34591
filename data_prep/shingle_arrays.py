"""The loops of `data_prep.shingle_kernels` with numpy and Python alone, for where numba is not installed: the same results, more slowly.

In and out: numpy arrays, as there, where each function is described.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_prep.shingles import OPERATOR, SPACE, WORD, Hashes, Numbers

CHUNK = 4096
"""So many shingles are permuted at once."""


def mix(value: Hashes) -> Hashes:
    """Return 64 bits spread over 64 bits, as MurmurHash3 (Appleby) ends."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


def hash_shingles(data: Any, bounds: Numbers, classes: Any, size: int, factors: Hashes) -> tuple[Hashes, Numbers]:
    """Return the hashes of the shingles of each text, in order, and how many each text has."""
    hashes, counts = [np.zeros(0, np.uint64)], np.zeros(bounds.size - 1, np.int64)
    for text, (first, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        units = _hash_units(data[first:end].tobytes().decode("utf-8", "surrogatepass"), classes, factors[0])
        if not units.size:
            continue
        length = min(units.size, size)
        counts[text] = units.size - length + 1
        shingles = np.full(counts[text], length, np.uint64) * factors[2]
        for step in range(length):
            shingles = shingles * factors[1] + units[step : step + counts[text]]
        hashes.append(mix(shingles))
    return np.concatenate(hashes), counts


def _hash_units(text: str, classes: Any, factor: Any) -> Hashes:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    kinds = classes[codes]
    words = kinds == WORD
    begins = (kinds != OPERATOR) & (kinds != SPACE)
    begins[1:] &= ~(words[1:] & words[:-1])
    told = kinds != SPACE
    numbers = np.maximum(np.cumsum(begins)[told] - 1, 0)  # of the unit that each character is in
    if not numbers.size:
        return np.zeros(0, np.uint64)
    codes = codes[told].astype(np.uint64)
    values = codes + np.where((codes >= 65) & (codes <= 90), np.uint64(33), np.uint64(1))
    firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
    lengths = np.diff(firsts, append=numbers.size)
    behind = np.repeat(firsts + lengths - 1, lengths) - np.arange(numbers.size)
    powers = np.full(lengths.max(), factor, np.uint64)
    powers[0] = 1
    np.multiply.accumulate(powers, out=powers)
    return mix(np.add.reduceat(values * powers[behind], firsts))


def sort_unique(hashes: Hashes, counts: Numbers) -> tuple[Hashes, Numbers]:
    """Return the hashes of each text ascending, each once, and the bounds of the texts."""
    ends = np.cumsum(counts)
    found = [np.unique(hashes[first:end]) for first, end in zip((ends - counts).tolist(), ends.tolist(), strict=True)]
    bounds = np.cumsum([0, *(each.size for each in found)], dtype=np.int64)
    return np.concatenate([np.zeros(0, np.uint64), *found]), bounds


def sketch(hashes: Hashes, bounds: Numbers, factors: Any, summands: Any, rows: int, unit_factor: Any) -> Hashes:
    """Return the hash of each band of each text, ``(bands, texts)``."""
    minima = np.full((factors.size, bounds.size - 1), 0xFFFFFFFF, np.uint32)
    values = (hashes >> np.uint64(32)).astype(np.uint32)
    for text, (first, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        for begin in range(first, end, CHUNK):
            permuted = factors[:, None] * values[None, begin : min(begin + CHUNK, end)] + summands[:, None]
            np.minimum(minima[:, text], permuted.min(axis=1), out=minima[:, text])
    together = np.zeros((factors.size // rows, bounds.size - 1), np.uint64)
    for row in range(rows):
        together = mix(together * unit_factor + minima[row::rows].astype(np.uint64))
    return together
