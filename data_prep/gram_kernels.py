"""The loops over every byte of every record that decontamination needs, as plain Python that numba can compile.

In: UTF-8 as arrays of bytes. Out: hashes of words or of Python's tokens, the n-grams among them that an index holds, and text without
white space. Nothing here imports numba: `compiled` does, when it is called, and returns None where numba is not installed; then
`data_prep.gram_index` and `data_prep.verbatim` take their paths in numpy, which find the same. Tests hold the two together.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np

FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
"""FNV-1a with 64 bits (draft-eastlake-fnv): it takes byte after byte, so that a word is hashed while its end is looked for."""

SPREAD = 0x9E3779B97F4A7C15
"""An odd number near 2**64 times the golden ratio: its products have well-mixed high bits (Knuth, volume 3, section 6.4)."""

SEPARATOR, WORD_BYTE, WORD_PAIR, SINGLE_OF_3, SINGLE_OF_4, PERHAPS_SINGLE = range(6)
"""What a byte of UTF-8 begins: nothing, a letter of ASCII, a letter of two bytes, or a character that is a word by itself."""

_OFFSET, _PRIME, _SPREAD = np.uint64(FNV_OFFSET), np.uint64(FNV_PRIME), np.uint64(SPREAD)
_HALF, _THREE, _SEVEN, _ONE = np.uint64(32), np.uint64(3), np.uint64(7), np.uint8(1)
_LAST_BYTE, _BYTE = np.uint16(255), np.uint16(8)
_FOUR, _BIT, _PLACE_BITS = np.uint64(4), np.uint64(1), np.uint64(63)
_FIRST, _SECOND, _THIRD = np.uint64(26), np.uint64(32), np.uint64(38)
MAX_DIGITS = 3
_OTHER_NUMBER, _ANY_STRING = np.uint64(3), np.uint64(5)
_KEYWORD_SLOTS = np.uint64(1023)


@functools.cache
def compiled() -> Any:
    """Return the kernels as numba compiled them, kept on disk between runs; None where numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    numba = importlib.import_module("numba")
    kernels = (word_hashes, python_hashes, find_grams, find_blocks)
    return SimpleNamespace(**{kernel.__name__: numba.njit(kernel, cache=True, nogil=True) for kernel in kernels})


def word_hashes(data: Any, kinds: Any, lowered: Any, hashes: Any) -> int:
    """Write the hash of each word of `data`, in order, and return their number. `kinds` and `lowered` have an entry for each byte."""
    count, i, n = 0, 0, len(data)
    while i < n:
        kind = kinds[data[i]]
        if kind == SEPARATOR:
            i += 1
            continue
        h = _OFFSET
        if kind <= WORD_PAIR:
            while i < n:
                kind = kinds[data[i]]
                if kind == WORD_BYTE:
                    h = (h ^ np.uint64(lowered[data[i]])) * _PRIME
                    i += 1
                elif kind == WORD_PAIR and i + 1 < n:
                    h = (((h ^ np.uint64(data[i])) * _PRIME) ^ np.uint64(data[i + 1])) * _PRIME
                    i += 2
                elif kind == WORD_PAIR:
                    i += 1
                else:
                    break
        else:
            end = min(i + (4 if kind == SINGLE_OF_4 else 3), n)
            if kind == PERHAPS_SINGLE and i + 1 < n and data[i + 1] == 0x80:  # punctuation of CJK
                i = end
                continue
            while i < end:
                h = (h ^ np.uint64(data[i])) * _PRIME
                i += 1
        hashes[count] = (h ^ (h >> _HALF)) * _SPREAD
        count += 1
    return count


def python_hashes(data: Any, kinds: Any, keywords: Any, slots: Any, hashes: Any) -> int:
    """Write the hash of each token of Python that renaming and formatting leave alone, in order, and return their number.

    These are keywords, names of attributes, operators, numbers and that there is a string. Other names, comments, brackets and commas are
    passed over; numbers other than whole ones of few digits, which can be written in several ways, are all alike.
    `kinds`: 1 for what begins a name, 2 for digits, 3 for operators, 4 for white space and backslashes.
    """
    count, i, n, after_dot = 0, 0, len(data), False
    while i < n:
        c, kind = data[i], kinds[data[i]]
        if kind == 1:
            h = _OFFSET
            while i < n and (kinds[data[i]] == 1 or kinds[data[i]] == 2):
                h = (h ^ np.uint64(data[i])) * _PRIME
                i += 1
            known = after_dot
            if not known and slots[h & _KEYWORD_SLOTS]:
                for keyword in keywords:
                    known = known or keyword == h
            after_dot = False
            if known:
                hashes[count] = (h ^ (h >> _HALF)) * _SPREAD
                count += 1
            continue
        if kind == 4:
            i += 1
            continue
        after_dot = c == 46
        if kind == 2:
            h, begin, plain = _OFFSET, i, True
            while i < n and (kinds[data[i]] == 1 or kinds[data[i]] == 2 or data[i] == 46):
                plain = plain and kinds[data[i]] == 2
                h = (h ^ np.uint64(data[i])) * _PRIME
                i += 1
            hashes[count] = (h ^ (h >> _HALF)) * _SPREAD if plain and i - begin <= MAX_DIGITS else _OTHER_NUMBER
            count += 1
        elif c == 35:
            while i < n and data[i] != 10:
                i += 1
        elif c == 34 or c == 39:
            hashes[count] = _ANY_STRING
            count += 1
            if i + 2 < n and data[i + 1] == c and data[i + 2] == c:
                i += 3
                while i < n and not (data[i] == c and i + 2 < n and data[i + 1] == c and data[i + 2] == c):
                    i += 2 if data[i] == 92 else 1
                i += 3
            else:
                i += 1
                while i < n and data[i] != c and data[i] != 10:
                    i += 2 if data[i] == 92 else 1
                i += 1
        elif c == 45 and i + 1 < n and data[i + 1] == 62:  # the arrow before an annotation
            i += 2
        else:
            if kind == 3:
                hashes[count] = np.uint64(c) * _SPREAD
                count += 1
            i += 1
    return count


def find_grams(hashes: Any, power: Any, size: int, grams: Any, bits: Any, shift: Any, found: Any, places: Any) -> int:
    """Write which of the sorted `grams` occur in a stream of hashes, and at which token each begins; return how many.

    `power` is ``SPREAD ** size``; `bits` is a table that says of most hashes at once that they are none of `grams`.
    """
    count, h = 0, np.uint64(0)
    for i in range(len(hashes)):
        h = h * _SPREAD + hashes[i]
        if i >= size:
            h -= hashes[i - size] * power
        if i < size - 1:
            continue
        slot = (h * _SPREAD) >> shift
        if (bits[slot >> _THREE] >> np.uint8(slot & _SEVEN)) & _ONE == 0:
            continue
        low, high = 0, len(grams)
        while low < high:
            middle = (low + high) // 2
            if grams[middle] < h:
                low = middle + 1
            else:
                high = middle
        if low < len(grams) and grams[low] == h:
            found[count] = low
            places[count] = i - size + 1
            count += 1
    return count


def find_blocks(data: Any, signs: Any, table: Any, shift: Any, kept: Any, words: Any, found: Any) -> tuple[int, int]:
    """Write `data` without white space into `kept`, and which of its blocks of 16 may be in `table`.

    `signs` has what is written for a byte, and 256 more if it is no white space. `words` is `kept` seen as whole numbers of 8 bytes; for
    `table` see `data_prep.verbatim.block_slots`. Returns the bytes kept and the blocks found. Places are numbers without a sign, which need
    no look whether they count from the end, and nothing branches on the text.
    """
    length, count = np.uint64(0), np.uint64(0)
    for i in range(len(data)):
        sign = signs[data[i]]
        kept[length] = sign & _LAST_BYTE
        length += np.uint64(sign >> _BYTE)
    for block in range(length >> _FOUR):
        place = block << _BIT
        h = (words[place] * _SPREAD ^ words[place | _BIT]) * _SPREAD
        mask = _BIT << (h >> _FIRST & _PLACE_BITS) | _BIT << (h >> _SECOND & _PLACE_BITS) | _BIT << (h >> _THIRD & _PLACE_BITS)
        found[count] = block
        count += np.uint64(table[h >> shift] & mask == mask)
    return int(length), int(count)
