"""Mutated corpora for near-duplicates, and what must hold of each.

    python tests/fuzz_near_duplicates.py --count 10000 --seed 0

A corpus is templates filled in, damaged copies, hostile and empty texts, cut into shards at random. What is removed must be what an
exhaustive search by the definition removes, whichever loops do the work.
"""

from __future__ import annotations

import collections
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep import duplicate_tasks, twin_arrays, twin_kernels
from data_prep.duplicate_tasks import Text
from data_prep.engines import Engine
from data_prep.near_duplicates import NearDuplicateRules, find_near_duplicates
from data_prep.shingles import band_hashes
from fuzzing import run_mutants
from mutate import HOSTILE_TEXTS, mutated_text

WORDS = [*"abcdefgh", "中文", "x1", "()", "+=", "é", "ไทย", "\ud800", "\u3000"]
Document = tuple[Text, int]


def read(shard: list[Document]) -> Iterator[Document]:
    """Yield the documents of a shard, which is a list of them."""
    yield from shard


def mutant(rng: random.Random) -> list[Document]:
    """Return texts and ranks of which many resemble each other, some by chains."""
    vocabulary = [rng.choice(WORDS) + str(rng.randrange(rng.choice([3, 300]))) for _ in range(40)]
    texts: list[str] = []
    for _ in range(rng.randint(0, 24)):
        act = rng.random()
        if texts and act < 0.6:
            words = rng.choice(texts).split(" ")
            for _ in range(rng.randint(0, 3)):
                words[rng.randrange(len(words))] = rng.choice(vocabulary)
            texts.append(" ".join(words))
        elif texts and act < 0.7:
            texts.append(mutated_text(rng.choice(texts), rng))
        elif act < 0.8:
            texts.append(rng.choice(HOSTILE_TEXTS))
        else:
            texts.append(" ".join(rng.choices(vocabulary, k=rng.randint(1, 60))))
    parted = rng.random() < 0.4
    given = [in_parts(rng, text) if parted and rng.random() < 0.9 else text for text in texts]
    return [(text, rng.randrange(-1, 2) if rng.random() < 0.3 else 0) for text in given]


def in_parts(rng: random.Random, text: str) -> tuple[str, str]:
    """Return a text in two parts, often cut after so many words that one that resembles it is cut there as well."""
    words = text.split(" ")
    at = len(words) // 2 if rng.random() < 0.7 else rng.randint(0, len(words))
    return " ".join(words[:at]), " ".join(words[at:])


def by_definition(documents: list[Document], rules: NearDuplicateRules) -> list[tuple[int, int, float]]:
    """Return what is to be removed, its twin and similarity, from all pairs."""
    found, mids = duplicate_tasks._shingles_of([text for text, _ in documents], rules.words_per_shingle)
    bands = band_hashes(found, *rules.bands_and_rows(), rules.seed)
    places = list(zip(found.bounds[:-1], mids, found.bounds[1:], strict=True))
    sets = [set(found.hashes[first:end].tolist()) for first, _, end in places]
    parts = [(set(found.hashes[first:mid].tolist()), set(found.hashes[mid:end].tolist())) for first, mid, end in places]
    kept: list[int] = []
    removed = []
    for document in sorted(range(len(documents)), key=lambda number: (documents[number][1], number)):
        alike = [
            (len(sets[document] & sets[other]) / len(sets[document] | sets[other]), -place, other)
            for place, other in enumerate(kept)
            if sets[document]
            and sets[other]
            and (bands[:, document] == bands[:, other]).any()
            and all(not (a or b) or len(a & b) / len(a | b) >= rules.threshold for a, b in zip(parts[document], parts[other], strict=True))
        ]
        best = max(alike, default=(0.0, 0, 0))
        if alike and best[0] >= rules.threshold:
            removed.append((document, best[2], best[0]))
        else:
            kept.append(document)
    return sorted(removed)


def outcome_of(rng: random.Random) -> collections.Counter[str]:
    """Return how many documents of a mutated corpus are kept and removed; raise where a law does not hold."""
    documents = mutant(rng)
    threshold, permutations = rng.choice([(0.3, 64), (0.5, 8), (0.7, 8), (0.7, 64), (0.7, 256), (1.0, 8)])
    rules = NearDuplicateRules(threshold, rng.choice([0.5, 0.95]), permutations, rng.choice([1, 2, 5]), rng.randrange(3))
    cuts = sorted(rng.choices(range(len(documents) + 1), k=rng.randrange(4)))
    shards = [documents[first:end] for first, end in zip([0, *cuts], [*cuts, len(documents)], strict=True)]
    loops = rng.choice([twin_kernels, twin_arrays])
    before = duplicate_tasks.kernels, duplicate_tasks.CROWDED
    duplicate_tasks.kernels, duplicate_tasks.CROWDED = (lambda subject: loops), rng.choice([0, 10**9])
    try:
        with tempfile.TemporaryDirectory() as folder:
            removed = find_near_duplicates(Engine("here"), shards, read, folder, rules, "")
            assert not [path for path in Path(folder).rglob(".*") if not path.name.endswith(".lock")], "no temporary file stays"
    finally:
        duplicate_tasks.kernels, duplicate_tasks.CROWDED = before
    assert [(found.document, found.twin, found.similarity) for found in removed] == by_definition(documents, rules)
    gone = {found.document for found in removed}
    assert all(found.twin not in gone and found.similarity >= rules.threshold for found in removed)
    return collections.Counter(read=len(documents), removed=len(gone), kept=len(documents) - len(gone))


def main() -> int:
    """Run the mutants and print what became of them."""
    np.seterr(divide="raise", invalid="raise")
    return run_mutants(__doc__, outcome_of)


if __name__ == "__main__":
    sys.exit(main())
