"""Shingles and sketches: against a plain reading of their definition, for hostile texts, and the same with and without numba."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from data_prep import shingle_arrays, shingle_kernels, shingles, twin_arrays, twin_kernels
from data_prep.shingles import FACTORS, OPERATOR, SINGLE, SPACE, WORD, band_hashes, character_classes, multipliers, shingles_of
from mutate import HOSTILE_TEXTS, mutated_text

ROOT = Path(__file__).parent.parent
CODE = (ROOT / "data_prep" / "pool.py").read_text(encoding="utf-8")
PIECES = (
    "a",
    "B",
    "b1",
    "_x",
    "+",
    "==",
    " ",
    "\n",
    "中",
    "国",
    "é",
    "Ä",
    "。",
    "ไ",
    "\ud800",
    "\U0001f389",
    "\u3000",
    "\0",
    "𝕏",
    "カ",
    "한글",
)


def units_of(text: str) -> list[str]:
    """The units of a text, read off their definition."""
    units: list[str] = []
    unit, has_word, previous = "", False, SPACE
    for char in text:
        kind = int(character_classes()[ord(char)])
        begins = kind == SINGLE or (kind == WORD and previous != WORD)
        if begins and has_word:
            units.append(unit)
            unit, has_word = "", False
        has_word |= begins
        if kind != SPACE:
            unit += char.lower() if char.isascii() else char
        previous = kind
    return [*units, unit] if unit else units


def shingles_by_definition(text: str, size: int) -> set[tuple[str, ...]]:
    """The shingles of a text as tuples of units."""
    units = units_of(text)
    return {tuple(units[start : start + size]) for start in range(max(len(units) - size, 0) + 1)} if units else set()


def sets_of(texts: list[str], size: int = 5) -> list[set[int]]:
    """The hashes of the shingles of texts."""
    found = shingles_of(texts, size)
    return [set(found.hashes[first:end].tolist()) for first, end in zip(found.bounds[:-1], found.bounds[1:], strict=True)]


def random_texts(seed: int, count: int = 60) -> list[str]:
    """Texts of all kinds of characters, code and damaged code."""
    rng = random.Random(seed)
    made = ["".join(rng.choices(PIECES, k=rng.randint(0, 60))) for _ in range(count)]
    return [*made, *HOSTILE_TEXTS, *(mutated_text(CODE[: rng.randint(0, 3000)], rng) for _ in range(5))]


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_shingles_are_what_the_definition_says(size):
    texts = random_texts(size)
    hash_of: dict[tuple[str, ...], int] = {}
    for text, hashes in zip(texts, sets_of(texts, size), strict=True):
        told = shingles_by_definition(text, size)
        assert len(told) == len(hashes), repr(text)
        for shingle in told:
            (alone,) = sets_of([" ".join(shingle)], size)
            assert alone <= hashes and hash_of.setdefault(shingle, alone.pop()) in hashes, (text, shingle)
    assert len(set(hash_of.values())) == len(hash_of), "different shingles have different hashes"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("if (a == b) return;", "if(A==B)\n\treturn ;", True),
        ("if (a == b) return;", "if (a != b) return;", False),
        ("a + b", "a - b", False),
        ("(a", "a(", False),
        ("+++", "++", False),
        ("+ +", "++", True),
        ("你好世界和平", "天气很好啊我", False),
        ("你好", "你 好", True),
        ("Ä", "ä", False),
        ("\ufeffa b", "a b", True),
        ("a b c", "ab c", False),
        ("\ud800", "\ud801", False),
        ("1 2 3 4", "1 2 3 5", False),
        ("", " \n\u3000", True),
        ("", "\0", False),
    ],
)
def test_texts_that_are_one_shingle(one, other, same):
    first, second = sets_of([one, other])
    assert (first == second) is same


def test_chinese_texts_are_read_character_by_character():
    assert [len(found) for found in sets_of(["我们今天去公园散步了", "ภาษาไทย", "한국어는 띄어 쓴다"])] == [6, 3, 1]


def test_hashes_are_a_contract():
    """Whoever changes these changes what data sets hold."""
    found = shingles_of(["def f(x): return x + 1  # 你好", "+", ""])
    assert [hex(value) for value in found.hashes.tolist()] == GOLDEN_SHINGLES
    assert [hex(value) for value in band_hashes(found, 2, 3, seed=7)[:, 0].tolist()] == GOLDEN_BANDS
    assert [part.tolist() for part in multipliers(2, 0)] == GOLDEN_MULTIPLIERS


GOLDEN_SHINGLES = ["0x64e4b1ce67c563df", "0xabb29ec51c34ba1c", "0xd1d59300a7ca3fe6", "0xdcf437a968f71efd", "0x8813faa423fb875d"]
GOLDEN_BANDS = ["0x3dd39cd6b9851756", "0x3914412b9ed903fc"]
GOLDEN_MULTIPLIERS = [[3793791033, 1853398635], [113532184, 4169906345]]


@pytest.mark.parametrize("seed", range(5))
def test_numpy_gives_what_numba_gives(seed):
    texts = [text for text in random_texts(100 + seed) if shingles_by_definition(text, 1)]
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    data, bounds = np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    results = []
    for loops in (shingle_kernels, shingle_arrays):
        hashes, counts = loops.hash_shingles(data, bounds, character_classes(), seed + 1, FACTORS)
        raw = hashes.copy()
        unique, places = loops.sort_unique(hashes, counts)
        bands = loops.sketch(unique, places, *multipliers(20, seed), 4, FACTORS[1])
        results.append((raw, counts, unique, places, bands))
    for compiled, plain in zip(*results, strict=True):
        assert compiled.dtype == plain.dtype
        np.testing.assert_array_equal(compiled, plain)


def test_a_sketch_estimates_similarity():
    rng = random.Random(5)
    shared = [f"w{rng.random()}" for _ in range(800)]
    one, other = ([*shared, *(f"w{rng.random()}" for _ in range(200))] for _ in range(2))
    found = shingles_of([" ".join(sorted(one)), " ".join(sorted(other))], 1)
    rows = band_hashes(found, 2000, 1)
    assert abs((rows[:, 0] == rows[:, 1]).mean() - 800 / 1200) < 0.03
    assert 0.08 < (band_hashes(found, 1000, 5)[:, :2].T[0] == band_hashes(found, 1000, 5)[:, 1]).mean() < 0.19


@pytest.mark.parametrize("loops", [shingle_kernels, shingle_arrays])
def test_sorting_is_right_and_not_quadratic(loops):
    rng = np.random.default_rng(1)
    cases = [
        np.zeros(0, np.uint64),
        rng.integers(0, 2**64, 1, np.uint64),
        rng.integers(0, 2**64, 5000, np.uint64),
        rng.integers(0, 9, 3000, np.uint64),
        np.tile(np.array([7, 3], np.uint64), 300_000),
        np.arange(200_000, 0, -1, dtype=np.uint64),
        np.full(200_000, 2**64 - 1, np.uint64),
    ]
    begin = time.process_time()
    values, bounds = loops.sort_unique(np.concatenate(cases), np.array([case.size for case in cases]))
    assert time.process_time() - begin < 20
    for case, first, end in zip(cases, bounds[:-1], bounds[1:], strict=True):
        np.testing.assert_array_equal(values[first:end], np.unique(case))


def test_classes_agree_with_this_pythons_unicode():
    """But for what Unicode has moved since 3.2, which is next to nothing."""
    classes, differ = character_classes(), []
    kinds = {"P": OPERATOR, "S": OPERATOR, "Z": SPACE}
    for code in (*range(0x80, 0xD800), *range(0xF900, 0x10000)):
        if unicodedata.ucd_3_2_0.category(chr(code)) != "Cn" and code not in (0x85, 0x200B, 0xFEFF):
            now = kinds.get(unicodedata.category(chr(code))[0], WORD)
            if now != (WORD if classes[code] == SINGLE else classes[code]):
                differ.append(code)
    assert len(differ) < 30, list(map(hex, differ))
    assert [chr(code) for code in range(128) if classes[code] == WORD] == sorted(c for c in map(chr, range(128)) if c.isalnum() or c == "_")


def test_one_text_of_100_megabytes_on_one_line():
    text = "x1 = f(y2); " * 8_400_000
    begin = time.process_time()
    found = shingles_of([text, "x" * 20_000_000])
    assert found.bounds.tolist() == [0, 3, 4]
    assert time.process_time() - begin < 10


def test_where_no_cache_may_be_written_kernels_still_run():
    program = (
        "from numba.core import caching\n"
        "caching.CompileResultCacheImpl._locator_classes = []\n"
        "from data_prep import shingle_kernels\n"
        "import numpy as np\n"
        "print(hex(shingle_kernels.mix(np.uint64(1))), type(shingle_kernels.mix._cache).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"{hex(shingle_arrays.mix(np.array([1], np.uint64))[0])} NullCache\n"


def test_without_numba_numpy_counts(monkeypatch):
    shingles.kernels.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert shingles.kernels() is shingle_arrays and shingles.kernels("twin") is twin_arrays
    shingles.kernels.cache_clear()
    monkeypatch.undo()
    assert shingles.kernels() is shingle_kernels and shingles.kernels("twin") is twin_kernels


def test_kernels_number_classes_as_shingles_does():
    assert (shingle_kernels.SPACE, shingle_kernels.OPERATOR, shingle_kernels.WORD) == (SPACE, OPERATOR, WORD)
