"""What near-duplicates are told by: the shingles of a text, and short sketches of them.

In: texts. Out: of each text the 64-bit hashes of its shingles, ascending and each once, and the hashes of its bands.

A shingle is some consecutive units, five by rule. A unit is a word with the operators behind it, up to the next word, white space aside
and ASCII letters in lower case; operators in front of the first word belong to the first unit. So code that differs in operators alone
differs. Which characters are of words, `character_classes` says. A text of fewer units than a shingle has is one shingle, and so are
operators alone; white space alone has none.

A sketch is MinHash (Broder, "On the resemblance and containment of documents", 1997), cut into bands of rows: two texts share a band
with the probability ``similarity ** rows``. It finds candidates; `data_prep.near_duplicates` then compares their shingles.

The loops are compiled by numba where it is installed (`data_prep.shingle_kernels`), and numpy's where it is not
(`data_prep.shingle_arrays`): the same results, more slowly.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import types
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]

SPACE, OPERATOR, WORD, SINGLE = range(4)
"""Classes of characters: between units, part of a unit without beginning one, part of a word, a word of its own."""

FACTORS = np.array([0x9FB21C651E98DF25, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F], np.uint64)
"""Odd factors of hashes: of the characters in a unit, of the units in a shingle, of a shingle's number of units."""

_SINGLE_RANGES = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),  # Thai, Lao, Myanmar, Khmer
    *((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x303B), (0x3100, 0x312F), (0x31A0, 0x31BF)),  # radicals, signs, bopomofo
    *((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1B000, 0x1B16F)),  # kana
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),  # Han
)
"""Scripts written without spaces between words."""

_SYMBOLS = (0x1F000, 0x1FAFF)
"""Pictographs, of which Unicode 3.2 knows none."""

_INVISIBLE_SPACES = (0x85, 0x200B, 0xFEFF)


@dataclasses.dataclass(frozen=True, slots=True)
class Shingles:
    """The shingles of several texts: those of text `i` are ``hashes[bounds[i] : bounds[i + 1]]``, ascending, each once."""

    hashes: Hashes
    bounds: Numbers


@functools.cache
def character_classes() -> NDArray[np.uint8]:
    """Return the class of every code point, `SPACE` to `SINGLE`.

    ASCII letters, digits and ``_`` are words, its white space is space, the rest operators. Beyond ASCII the categories of Unicode 3.2
    decide, which every Python has, so that no answer hangs on its version: punctuation and symbols are operators, separators are space,
    all else is words, and characters of scripts written without spaces are words by themselves.

    >>> [int(character_classes()[ord(c)]) for c in " +aä。中"]
    [0, 1, 2, 2, 1, 3]
    """
    classes = np.full(0x110000, WORD, np.uint8)
    for first, last in _SINGLE_RANGES:
        classes[first : last + 1] = SINGLE
    by_category = {"P": OPERATOR, "S": OPERATOR, "Z": SPACE}
    category = unicodedata.ucd_3_2_0.category
    for code in (*range(0x80, 0xD800), *range(0xF900, 0x10000), *range(0x1D000, 0x1D800)):
        kind = by_category.get(category(chr(code))[0])
        if kind is not None:
            classes[code] = kind
    classes[_SYMBOLS[0] : _SYMBOLS[1] + 1] = OPERATOR
    classes[list(_INVISIBLE_SPACES)] = SPACE
    for code in range(0x80):
        char = chr(code)
        classes[code] = WORD if char.isalnum() or char == "_" else SPACE if char.isspace() else OPERATOR
    return classes


@functools.cache
def kernels(subject: str = "shingle") -> types.ModuleType:
    """Return the module whose functions do the loops of a subject: compiled ones where numba is installed."""
    return importlib.import_module(f"data_prep.{subject}_{'kernels' if importlib.util.find_spec('numba') else 'arrays'}")


def shingles_of(texts: Sequence[str], words_per_shingle: int = 5) -> Shingles:
    """Return the shingles of texts.

    >>> found = shingles_of(["for i in range(9):", "for  I in range( 9 ) :", "for i in range(9)", " "])
    >>> found.bounds.tolist(), found.hashes[0] == found.hashes[1], found.hashes[0] == found.hashes[2]
    ([0, 1, 2, 3, 3], np.True_, np.False_)
    """
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    data = np.frombuffer(b"".join(encoded), np.uint8)
    hashes, counts = kernels().hash_shingles(data, bounds, character_classes(), words_per_shingle, FACTORS)
    return Shingles(*kernels().sort_unique(hashes, counts))


@functools.cache
def multipliers(permutations: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the odd factors and the summands of MinHash's permutations of 32-bit numbers."""
    state = np.arange(1, 2 * permutations + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**64)
    with np.errstate(over="ignore"):  # SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    drawn = (state >> np.uint64(32)).astype(np.uint32)
    return drawn[:permutations] | np.uint32(1), drawn[permutations:]


def band_hashes(shingles: Shingles, bands: int, rows: int, seed: int = 0) -> Hashes:
    """Return a 64-bit hash of each band of each text, ``(bands, texts)``; those of a text without shingles mean nothing."""
    factors, summands = multipliers(bands * rows, seed)
    found: Hashes = kernels().sketch(shingles.hashes, shingles.bounds, factors, summands, rows, FACTORS[1])
    return found


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """Return how likely two texts share a band.

    >>> round(candidate_probability(0.8, 25, 10), 3)
    0.942
    """
    return 1.0 - (1.0 - similarity**rows) ** bands
