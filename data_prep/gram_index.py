"""Which needles share n-grams with a text: the index, and the two streams of tokens that it is asked about.

In: needles as texts. Out: for a text, the number of different n-grams that it has of each needle. One stream is of words, in lower case,
whatever stands between them; the other of those tokens of Python that renaming and formatting leave alone. Both are hashed to 64 bits:
among 10**12 n-grams of a corpus and 100,000 of the needles, 0.005 are expected to be taken for another.

With numba the loops are compiled; without it numpy and ``re`` find the same, slower.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import keyword
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from data_prep import gram_kernels
from data_prep.gram_kernels import PERHAPS_SINGLE, SINGLE_OF_3, SINGLE_OF_4, SPREAD, WORD_BYTE, WORD_PAIR

Stream = Literal["words", "python"]
MASK = (1 << 64) - 1
STRETCH = 4
MIN_BITS = 16
BITS_A_GRAM = 32
"""Slots of the first table for each n-gram: one n-gram of a text in 32 passes it without being in the index."""

WORD = re.compile("[0-9A-Za-z_\u00c0-\u07ff]+|[\u0800-\u1fff\u3040-\uffff\U00010000-\U0010ffff]")
"""A word: letters, digits and underscores of scripts with an alphabet. Of other scripts, such as CJK, each character is a word."""

_PYTHON = re.compile(
    rb"(?P<name>[A-Za-z_\x80-\xff][0-9A-Za-z_\x80-\xff]*)|(?P<space>[ \t\n\v\f\r\\]+)|#[^\n]*+"
    rb"|(?P<number>[0-9][0-9A-Za-z_.\x80-\xff]*+)"
    rb"|(?P<string>\"\"\"(?:[^\"\\]|\\.|\"(?!\"\"))*+(?:\"\"\"|\\?\Z)|'''(?:[^'\\]|\\.|'(?!''))*+(?:'''|\\?\Z)"
    rb"|\"(?:[^\"\\\n]|\\.)*+(?:\"|\\\Z)?|'(?:[^'\\\n]|\\.)*+(?:'|\\\Z)?)"
    rb"|->|(?P<operator>[-+*/%&|^~<>=!@])|(?P<dot>\.)|.",
    re.DOTALL,
)
_ALIKE = {b"0.": 3, b'""': 5}
"""The tokens of numbers other than short whole ones, and of strings."""

_KEYWORDS = tuple(sorted(keyword.kwlist))


class Shared(NamedTuple):
    """That a text has `grams` different n-grams of a needle; they lie in one stretch, which begins at its token number `place`."""

    needle: int
    grams: int
    place: int


@dataclasses.dataclass(frozen=True, eq=False)
class GramIndex:
    """The n-grams of many needles. `totals` has the number of different n-grams of each needle that the index holds."""

    stream: Stream
    size: int
    totals: tuple[int, ...]
    grams: Any
    starts: Any
    owners: Any
    bits: Any

    def shared(self, data: bytes, min_share: float, engine: str | None = None) -> list[Shared]:
        """Return the needles of which at least `min_share` of the n-grams occur in one stretch of a text in UTF-8.

        A stretch has `STRETCH` times the needle's tokens at most: what a long text has here and there is not added up. `engine` is
        ``numba``, ``numpy`` or None for the faster one.
        """
        if not len(self.grams) or len(data) < self.size:
            return []
        found, places = self._find(stream_hashes(data, self.stream, engine), engine)
        if not len(found):
            return []
        widths = self.starts[found + 1] - self.starts[found]
        shift = np.repeat(self.starts[found] - np.append(0, np.cumsum(widths)[:-1]), widths)
        needles = self.owners[np.arange(widths.sum()) + shift]
        counts = np.bincount(needles, minlength=len(self.totals))
        enough = np.flatnonzero(counts >= np.maximum(1, np.array(self.totals) * min_share))
        grams, spots = np.repeat(found, widths), np.repeat(places, widths)
        shared = []
        for needle in enough.tolist():
            mine = needles == needle
            count, place = _densest(grams[mine].tolist(), spots[mine].tolist(), self.totals[needle], self.size)
            if count >= self.totals[needle] * min_share:
                shared.append(Shared(needle, count, place))
        return shared

    def _find(self, hashes: Any, engine: str | None) -> tuple[Any, Any]:
        """Return the numbers of the n-grams that occur, and where."""
        shift = np.uint64(64 - (len(self.bits) * 8).bit_length() + 1)
        kernels = None if engine == "numpy" else gram_kernels.compiled()
        if kernels is not None:
            found, places = np.empty(len(hashes), np.int64), np.empty(len(hashes), np.int64)
            power = np.uint64(pow(SPREAD, self.size, 1 << 64))
            count = kernels.find_grams(hashes, power, self.size, self.grams, self.bits, shift, found, places)
            return found[:count], places[:count]
        grams = gram_hashes(hashes, self.size)
        slots = (grams * np.uint64(SPREAD)) >> shift
        places = np.flatnonzero((self.bits[slots >> np.uint64(3)] >> (slots & np.uint64(7)).astype(np.uint8)) & 1)
        found = np.searchsorted(self.grams, grams[places])
        right = self.grams[np.minimum(found, len(self.grams) - 1)] == grams[places]
        return found[right], places[right]


def _densest(grams: list[int], places: list[int], total: int, size: int) -> tuple[int, int]:
    """Return the largest number of different n-grams in one stretch of a text, and where the first such stretch begins.

    >>> _densest([7, 8, 7, 9], [0, 50, 52, 53], total=3, size=1)
    (3, 50)
    """
    stretch = STRETCH * (total + size)
    inside: collections.Counter[int] = collections.Counter()
    best, begin, first = 0, places[0], 0
    for gram, place in zip(grams, places, strict=True):
        inside[gram] += 1
        while places[first] <= place - stretch:
            inside[grams[first]] -= 1
            if not inside[grams[first]]:
                del inside[grams[first]]
            first += 1
        if len(inside) > best:
            best, begin = len(inside), places[first]
            if best == total:
                break
    return best, begin


def build_index(stream: Stream, size: int, needles: Sequence[Any]) -> GramIndex:
    """Return the index of needles, each given as the array of its n-grams that count."""
    unique = [np.unique(np.asarray(grams, np.uint64)) for grams in needles]
    lengths = [len(grams) for grams in unique]
    flat = np.concatenate([*unique, np.empty(0, np.uint64)])
    owner = np.repeat(np.arange(len(unique), dtype=np.int32), lengths)
    order = np.argsort(flat, kind="stable")
    grams, starts = np.unique(flat[order], return_index=True)
    exponent = max(MIN_BITS, (BITS_A_GRAM * len(grams)).bit_length())
    bits = np.zeros(1 << (exponent - 3), np.uint8)
    slots = (grams * np.uint64(SPREAD)) >> np.uint64(64 - exponent)
    np.bitwise_or.at(bits, slots >> np.uint64(3), np.uint8(1) << (slots & np.uint64(7)).astype(np.uint8))
    return GramIndex(stream, size, tuple(lengths), grams, np.append(starts, len(flat)), owner[order], bits)


def gram_hashes(hashes: Any, size: int) -> Any:
    """Return the hash of each run of `size` tokens: the polynomial in `SPREAD` whose coefficients are their hashes.

    >>> gram_hashes(np.array([1, 2, 3], np.uint64), 2).tolist() == [(SPREAD + 2) & MASK, (2 * SPREAD + 3) & MASK]
    True
    """
    count = max(0, len(hashes) - size + 1)
    grams = np.zeros(count, np.uint64)
    for k in range(size):
        grams = grams * np.uint64(SPREAD) + hashes[k : k + count]
    return grams


def stream_hashes(data: bytes, stream: Stream, engine: str | None = None) -> Any:
    """Return the hash of each token of a text in UTF-8."""
    kernels = None if engine == "numpy" else gram_kernels.compiled()
    if kernels is None:
        tokens = words_of(data.decode("utf-8", "surrogatepass")) if stream == "words" else python_tokens(data)
        return np.array([_hash(token) for token in tokens], np.uint64)
    array = np.frombuffer(data, np.uint8)
    hashes = np.empty(len(data) // 2 + 1 if stream == "words" else len(data), np.uint64)
    if stream == "words":
        count = kernels.word_hashes(array, *_word_tables(), hashes)
    else:
        count = kernels.python_hashes(array, *_python_tables(), hashes)
    return hashes[:count]


def words_of(text: str) -> list[bytes]:
    """Return the words of a text, those of ASCII in lower case.

    >>> words_of("def Add_1(x): # naïve 加法")
    [b'def', b'add_1', b'x', b'na\\xc3\\xafve', b'\\xe5\\x8a\\xa0', b'\\xe6\\xb3\\x95']
    """
    return [word.encode("utf-8", "surrogatepass").lower() for word in WORD.findall(text)]


def python_tokens(data: bytes) -> list[bytes]:
    """Return the tokens of Python that renaming and formatting leave alone: keywords, names of attributes, operators, numbers, strings.

    >>> python_tokens(b"if x.size > 1:  # or so\\n    return 'a' + 0x1F")
    [b'if', b'size', b'>', b'1', b'return', b'""', b'+', b'0.']
    """
    tokens, after_dot = [], False
    for match in _PYTHON.finditer(data):
        if match.lastgroup == "space":
            continue
        if match.lastgroup == "operator" or (match.lastgroup == "name" and (after_dot or match[0] in _keyword_bytes())):
            tokens.append(match[0])
        elif match.lastgroup == "number":
            tokens.append(match[0] if match[0].isdigit() and len(match[0]) <= gram_kernels.MAX_DIGITS else b"0.")
        elif match.lastgroup == "string":
            tokens.append(b'""')
        after_dot = match.lastgroup == "dot"
    return tokens


@functools.cache
def _keyword_bytes() -> frozenset[bytes]:
    return frozenset(word.encode() for word in _KEYWORDS)


def _fnv(token: bytes) -> int:
    h = gram_kernels.FNV_OFFSET
    for byte in token:
        h = ((h ^ byte) * gram_kernels.FNV_PRIME) & MASK
    return h


@functools.lru_cache(maxsize=1 << 18)
def _hash(token: bytes) -> int:
    if len(token) == 1 and token in b"-+*/%&|^~<>=!@":
        return (token[0] * SPREAD) & MASK
    if token in _ALIKE:
        return _ALIKE[token]
    h = _fnv(token)
    return ((h ^ (h >> 32)) * SPREAD) & MASK


@functools.cache
def _word_tables() -> tuple[Any, Any]:
    """Return what each byte begins, and its lower case."""
    kinds = np.zeros(256, np.uint8)
    for letter in b"0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        kinds[letter] = WORD_BYTE
    kinds[0xC3:0xE0], kinds[0xE0:0xE2], kinds[0xE3], kinds[0xE4:0xF0] = WORD_PAIR, SINGLE_OF_3, PERHAPS_SINGLE, SINGLE_OF_3
    kinds[0xF0:0xF5] = SINGLE_OF_4
    return kinds, np.frombuffer(bytes(range(256)).lower(), np.uint8)


@functools.cache
def _python_tables() -> tuple[Any, Any, Any]:
    """Return the kind of each byte, the hashes of the keywords, and a table of their last bits."""
    kinds = np.zeros(256, np.uint8)
    kinds[128:] = 1
    for number, members in ((1, b"_" + bytes(range(65, 91)) + bytes(range(97, 123))), (2, b"0123456789"), (3, b"-+*/%&|^~<>=!@")):
        kinds[np.frombuffer(members, np.uint8)] = number
    kinds[np.frombuffer(b" \t\n\v\f\r\\", np.uint8)] = 4
    keywords = np.array([_fnv(word.encode()) for word in _KEYWORDS], np.uint64)
    slots = np.zeros(1024, np.bool_)
    slots[keywords & np.uint64(1023)] = True
    return kinds, keywords, slots
