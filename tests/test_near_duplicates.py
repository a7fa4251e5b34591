"""Near-duplicates: what is removed is what the definition says, whatever the shards, workers and loops, and nothing is quadratic."""

from __future__ import annotations

import gc
import importlib
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fuzz_near_duplicates
from data_prep import duplicate_tasks, loaded_kernels, near_duplicates, shingle_arrays, shingles, twin_arrays
from data_prep.engines import Engine
from data_prep.near_duplicates import NearDuplicate, NearDuplicateRules, find_near_duplicates
from data_prep.shingles import candidate_probability
from fuzz_near_duplicates import by_definition, read
from starchat.errors import UserError

RULES = NearDuplicateRules()


def found_in(folder: Path, *shards: list[tuple[str, int]], rules: NearDuplicateRules = RULES, workers: int = 1) -> list[NearDuplicate]:
    """The near-duplicates of shards, in a folder of their own."""
    engine = Engine(workers=workers) if workers > 1 else Engine("here")
    return find_near_duplicates(engine, shards, read, folder / str(len(list(folder.iterdir()))), rules, "")


def plain(found: list[NearDuplicate]) -> list[tuple[int, int, float]]:
    """Near-duplicates as tuples."""
    return [(each.document, each.twin, each.similarity) for each in found]


def words(first: int, end: int) -> str:
    """A text of different words."""
    return " ".join(f"word{number}" for number in range(first, end))


def corpus(seed: int, count: int = 150) -> list[tuple[str, int]]:
    """Fuzzed documents, many more than in one mutant."""
    rng = random.Random(seed)
    documents: list[tuple[str, int]] = []
    while len(documents) < count:
        documents += fuzz_near_duplicates.mutant(rng)
    return documents


def test_a_chain_of_lookalikes_keeps_both_ends(tmp_path):
    """a resembles b and b resembles c, but a does not resemble c."""
    a, b, c = words(0, 204), words(20, 224), words(40, 244)
    rules = NearDuplicateRules(threshold=0.75, recall=0.9999)
    assert plain(found_in(tmp_path, [(a, 0), (b, 0), (c, 0)], rules=rules)) == [(1, 0, 180 / 220)]
    assert plain(found_in(tmp_path, [(b, 0), (a, 0), (c, 0)], rules=rules)) == [(1, 0, 180 / 220), (2, 0, 180 / 220)]


def test_the_preferred_copy_is_kept_and_the_nearest_is_named(tmp_path):
    far, near, text = words(0, 104), words(10, 110), words(8, 108)
    documents = [(text, 2), (far, 1), (near, 0), (text + " ", 1)]
    rules = NearDuplicateRules(threshold=0.5, recall=0.9999)
    assert plain(found_in(tmp_path, documents, rules=rules)) == by_definition(documents, rules)
    assert plain(found_in(tmp_path, [(text, 1), (text, 0), (text, 0)])) == [(0, 1, 1.0), (2, 1, 1.0)]


def test_of_equally_near_ones_the_first_is_named(tmp_path):
    rules = NearDuplicateRules(threshold=0.6, recall=0.9999)
    one, other, between = words(0, 104), words(40, 144), words(20, 124)
    assert plain(found_in(tmp_path, [(one, 0), (other, 0), (between, 0)], rules=rules)) == [(2, 0, 80 / 120)]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("我们今天去公园散步，天气很好。", "请把这份文件交给张经理审核。", False),
        ("我们今天去公园散步，天气很好。", "我们今天去公园散步， 天气很好。", True),
        ("a + b", "a - b", False),
        ("{}", "[]", False),
        ("{}", "{ }", True),
        ("", " ", False),
        ("x", "X", True),
        ("\ud800", "\ud800\n", True),
        (words(0, 300), words(0, 300).replace(" ", " + "), False),
    ],
)
def test_pairs(tmp_path, one, other, alike):
    assert plain(found_in(tmp_path, [(one, 0), (other, 0)])) == ([(1, 0, 1.0)] if alike else [])


@pytest.mark.parametrize("seed", range(4))
def test_what_is_removed_is_what_all_pairs_say(tmp_path, seed):
    documents = corpus(seed)
    rules = NearDuplicateRules((0.7, 0.4)[seed % 2], (0.5, 0.95)[seed // 2], 256, (5, 2)[seed % 2], seed)
    told = by_definition(documents, rules)
    assert len(told) > 20
    assert plain(found_in(tmp_path, documents, rules=rules)) == told


def test_shards_slices_batches_and_loops_change_nothing(tmp_path, monkeypatch):
    documents = corpus(9)
    told = by_definition(documents, RULES)
    for count in (1, 2, 7):
        shards = [documents[number * len(documents) // count : (number + 1) * len(documents) // count] for number in range(count)]
        assert plain(found_in(tmp_path, *shards, [])) == told
    monkeypatch.setattr(near_duplicates, "SLICE_DOCUMENTS", 40)
    monkeypatch.setattr(near_duplicates, "FEW_HASHES", 300)
    monkeypatch.setattr(duplicate_tasks, "HAND_BYTES", 100)
    monkeypatch.setattr(duplicate_tasks, "BATCH_CHARS", 500)
    assert plain(found_in(tmp_path, documents)) == told
    for module in (duplicate_tasks, shingles):
        monkeypatch.setattr(module, "kernels", lambda subject="shingle": {"shingle": shingle_arrays, "twin": twin_arrays}[subject])
    assert plain(found_in(tmp_path, documents)) == told
    monkeypatch.setattr(duplicate_tasks, "CROWDED", 0)
    assert plain(found_in(tmp_path, documents)) == told


def test_more_shards_than_files_may_be_open(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, limits[1]))
    try:
        found = found_in(tmp_path, *([("a b c", 0)] for _ in range(100)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert plain(found) == [(number, 0, 1.0) for number in range(1, 100)]


def test_workers_change_nothing(tmp_path):
    documents = corpus(10)
    shards = [documents[start::3] for start in range(3)]
    one, four = (found_in(tmp_path, *shards, workers=workers) for workers in (1, 4))
    assert one == four and len(one) > 20
    files = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.npy")} for folder in sorted(tmp_path.iterdir())]
    assert files[0] == files[1]


def test_loading_compiled_code_leaves_the_search_for_garbage_on():
    importlib.reload(loaded_kernels)
    assert gc.isenabled()


@pytest.mark.parametrize("number", range(60))
def test_fuzzed(number):
    fuzz_near_duplicates.outcome_of(random.Random(f"test:{number}"))


def test_a_million_empty_texts(tmp_path):
    begin = time.process_time()
    assert found_in(tmp_path, [("", 0)] * 1_000_000) == []
    assert time.process_time() - begin < 20


def test_many_alike_are_not_compared_with_each_other(tmp_path):
    begin = time.process_time()
    found = found_in(tmp_path, [("return None", 0)] * 300_000)
    assert len(found) == 299_999 and {each.twin for each in found} == {0}
    assert time.process_time() - begin < 30


def test_nothing_to_read(tmp_path):
    assert found_in(tmp_path) == []
    assert found_in(tmp_path, [], []) == []
    assert found_in(tmp_path, [("a b c", 0)]) == []


def fail(shard: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    yield shard[0]
    raise UserError("row 1 is not right")


def test_a_shard_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="row 1"):
        find_near_duplicates(Engine("here"), [[("a", 0)]], fail, tmp_path, RULES, "")
    assert not list(tmp_path.rglob("shard-*"))


def test_rules_that_cannot_be_meant_are_all_named():
    with pytest.raises(UserError) as error:
        NearDuplicateRules(threshold=70, recall=1, permutations=0, words_per_shingle=True, seed=-1)
    assert str(error.value).splitlines() == [
        "near_duplicates: threshold: 70; expected a number from 0.05 to 1; 0.7 is usual",
        "near_duplicates: recall: 1; expected a number from 0.01 to 0.9999; 0.95 is usual",
        "near_duplicates: permutations: 0; expected a whole number from 1 to 4096; 256 is usual",
        "near_duplicates: words_per_shingle: True; expected a whole number from 1 to 64; 5 is usual",
        f"near_duplicates: seed: -1; expected a whole number from 0 to {2**64 - 1}; 0 is usual",
    ]
    with pytest.raises(UserError, match=r"permutations: 8; too few for threshold 0\.3 and recall 0\.95; take more"):
        NearDuplicateRules(threshold=0.3, permutations=8)


def test_the_threshold_itself_is_alike(tmp_path):
    """7 of 10 shingles are shared."""
    one, other = "a b c d e f g h", "a b c d e f g x y"
    rules = NearDuplicateRules(threshold=0.7, recall=0.9999, words_per_shingle=1)
    assert plain(found_in(tmp_path, [(one, 0), (other, 0)], rules=rules)) == [(1, 0, 0.7)]
    assert found_in(tmp_path, [(one, 0), (other, 0)], rules=NearDuplicateRules(0.70001, 0.9999, 256, 1)) == []


def test_bands_reach_the_recall_with_the_most_rows():
    assert NearDuplicateRules(recall=0.5).bands_and_rows() == (25, 10)
    for threshold in (0.3, 0.5, 0.7, 0.9, 1.0):
        for permutations in (64, 200, 256):
            bands, rows = NearDuplicateRules(threshold, 0.9, permutations).bands_and_rows()
            assert bands * rows <= permutations
            assert candidate_probability(threshold, bands, rows) >= 0.9
            assert rows == permutations or candidate_probability(threshold, permutations // (rows + 1), rows + 1) < 0.9


def test_parts_are_joined_whatever_the_order_of_links():
    rng = np.random.default_rng(3)
    links = np.stack((np.arange(0, 999), np.arange(1, 1000)), axis=1)[rng.permutation(999)]
    links = links[(links[:, 1] % 100) != 0]
    parents = np.arange(1000)
    for some in np.array_split(links, 7):
        duplicate_tasks._join(parents, some)
    assert parents.tolist() == [number // 100 * 100 for number in range(1000)]
