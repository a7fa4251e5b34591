"""Which texts resemble a kept one: the same by bands and by rare shingles, compiled and not, and not quadratic for templated texts."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from data_prep import duplicate_tasks, twin_arrays, twin_kernels
from data_prep.duplicate_tasks import are_crowded
from data_prep.shingles import band_hashes
from fuzz_near_duplicates import in_parts


def templated(seed: int, count: int, values: int) -> list[str]:
    """Texts of some templates whose arguments differ, of different lengths, some of them copies or changed copies."""
    rng = random.Random(seed)
    opening = " ".join(f"o{number}" for number in range(rng.randint(0, 30)))
    templates = [
        [" ".join(f"t{number}{place}{word}" for word in range(rng.randint(1, 12))) for place in range(rng.randint(1, 8))]
        for number in range(3)
    ]
    texts: list[str] = []
    for _ in range(count):
        if texts and rng.random() < 0.05:
            texts.append(rng.choice(texts))
        elif texts and rng.random() < 0.05:
            words = rng.choice(texts).split(" ")
            words[rng.randrange(len(words))] = "changed"
            texts.append(" ".join(words))
        else:
            fields = [f"{words} {'v' * rng.randint(1, 2)}{rng.randrange(values)}" for words in rng.choice(templates) if rng.random() < 0.9]
            texts.append(" ".join([opening, *fields]))
    return texts


def loops_input(texts: list[str], words: int = 5, bands: int = 36, rows: int = 7, parted: float = 0) -> tuple[np.ndarray, ...]:
    """What the loops are given for texts that are preferred in their order, some of them in two parts."""
    rng = random.Random(len(texts))
    given = [in_parts(rng, text) if rng.random() < parted else text for text in texts]
    found, mids = duplicate_tasks._shingles_of(given, words)
    buckets = duplicate_tasks._buckets(band_hashes(found, bands, rows), np.arange(len(texts)))
    return found.hashes, found.bounds[:-1], mids, found.bounds[1:], buckets


@pytest.mark.parametrize("seed", range(12))
def test_both_ways_and_both_loops_are_the_same(seed):
    threshold = (0.05, 0.3, 0.5, 0.7, 0.9, 1.0)[seed % 6]
    given = loops_input(templated(seed, 700, (4, 30, 1000)[seed % 3]), (1, 5)[seed // 6], 36, (7, 2)[seed % 2], (0, 0.95)[seed // 3 % 2])
    before = [each.copy() for each in given]
    told = twin_arrays.resolve(*given, threshold)
    for find in (twin_kernels.resolve, twin_kernels.resolve_by_prefixes, twin_arrays.resolve_by_prefixes):
        for found, right in zip(find(*given, threshold), told, strict=True):
            assert found.dtype == right.dtype
            np.testing.assert_array_equal(found, right)
    for each, was in zip(given, before, strict=True):
        np.testing.assert_array_equal(each, was)
    assert (told[0] >= 0).sum() > 10


@pytest.mark.parametrize("threshold", [0.05, 0.3, 1 / 3, 0.5, 0.7, 0.85, 0.9999, 1.0])
def test_how_far_shared_shingles_reach(threshold):
    reach = twin_kernels.reaches(300, threshold)
    assert reach.tolist() == twin_arrays.reaches(300, threshold)
    for shared in range(1, 301):
        assert shared / (reach[shared] - shared) >= threshold > shared / (reach[shared] + 1 - shared)


def test_codes_that_meet_change_nothing(monkeypatch):
    """Shingles of the same 24 lowest bits have one code, so that texts seem more alike than they are."""
    hashes, starts, _, ends, buckets = loops_input(templated(5, 500, 20))
    coarse = hashes & ~np.uint64(0xFFF000)
    sets = [np.unique(coarse[start:end]) for start, end in zip(starts, ends, strict=True)]
    bounds = np.cumsum([0, *(each.size for each in sets)])
    together = np.concatenate(sets)
    found = twin_kernels.resolve_by_prefixes(together, bounds[:-1], bounds[1:], bounds[1:], buckets, 0.6)
    told = twin_kernels.resolve(together, bounds[:-1], bounds[1:], bounds[1:], buckets, 0.6)
    np.testing.assert_array_equal(found, told)
    assert (told[0] >= 0).sum() > 10


def test_templated_texts_are_not_compared_with_each_other():
    rng = random.Random(1)
    fields = [" ".join(f"t{place}{word}" for word in range(10)) for place in range(8)]
    texts = [" ".join(f"{words} v{rng.randrange(10**6)}" for words in fields) for _ in range(20_000)]
    given = loops_input(texts)
    assert are_crowded(given[4], given[0].size)
    twin_kernels.resolve_by_prefixes(*loops_input(texts[:9]), 0.7)
    begin = time.process_time()
    twins, _ = twin_kernels.resolve_by_prefixes(*given, 0.7)
    assert time.process_time() - begin < 3
    assert (twins < 0).all()


def test_texts_that_share_few_bands_are_not_crowded():
    given = loops_input([" ".join(f"{number}x{word}" for word in range(20)) for number in range(2000)])
    assert not are_crowded(given[4], given[0].size)
