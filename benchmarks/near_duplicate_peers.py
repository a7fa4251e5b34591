"""Near-duplicates by other tools, whole commands for `benchmarks/near_duplicates.py`: JSONL in, kept JSONL out.

    PEER-PYTHON benchmarks/near_duplicate_peers.py daft CORPUS OUTPUT

Each takes the words of a text (``\\w+``, lower case) in shingles of five, 256 permutations, 25 bands of 10 rows, and keeps the first
document of each connected part, as its own documentation shows; where it leaves the bands to its user, they are joined with numpy.
Apart from the peer, only numpy and orjson are imported.
"""

from __future__ import annotations

import multiprocessing
import re
import sys
from pathlib import Path

import numpy as np
import orjson

BANDS, ROWS, PERMUTATIONS, WORDS = 25, 10, 256, 5
BUFFER_BYTES = 1 << 20
WORD = re.compile(r"\w+")


def main() -> None:
    """Run one peer on a corpus."""
    peer, corpus, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    {"daft": with_daft, "rensa": with_rensa, "datasketch": with_datasketch}[peer](corpus, output)


def with_daft(corpus: Path, output: Path) -> None:
    """Sketch with Daft's expression."""
    import daft
    from daft.functions import minhash

    frame = daft.read_json(f"{corpus}/part-*.jsonl")
    words = daft.col("text").lower().regexp_replace(r"\W+", " ")
    frame = frame.select("id", minhash(words, num_hashes=PERMUTATIONS, ngram_size=WORDS, hash_function="xxhash3_64").alias("sketch"))
    table = frame.to_arrow()
    numbers = table["id"].to_numpy()
    sketches = table["sketch"].combine_chunks().flatten().to_numpy().reshape(-1, PERMUTATIONS)
    by_id = np.empty_like(sketches)
    by_id[numbers] = sketches
    write_kept(corpus, output, all_but_first(by_id))


def with_rensa(corpus: Path, output: Path) -> None:
    """Sketch with rensa's R-MinHash on two processes."""
    with multiprocessing.Pool(2) as pool:
        write_kept(corpus, output, all_but_first(np.concatenate(pool.map(rensa_sketches, sorted(corpus.glob("part-*.jsonl")), 1))))


def rensa_sketches(path: Path) -> np.ndarray:
    """Return the sketches of a file."""
    from rensa import RMinHash

    found = []
    with open(path, "rb", BUFFER_BYTES) as file:
        for line in file:
            sketch = RMinHash(num_perm=PERMUTATIONS, seed=0)
            sketch.update(shingles(orjson.loads(line)["text"]))
            found.append(sketch.digest())
    return np.array(found, np.uint32)


def with_datasketch(corpus: Path, output: Path) -> None:
    """Sketch with datasketch's MinHash on two processes."""
    with multiprocessing.Pool(2) as pool:
        write_kept(corpus, output, all_but_first(np.concatenate(pool.map(datasketch_sketches, sorted(corpus.glob("part-*.jsonl")), 1))))


def datasketch_sketches(path: Path) -> np.ndarray:
    """Return the sketches of a file."""
    from datasketch import MinHash

    found = []
    with open(path, "rb", BUFFER_BYTES) as file:
        for line in file:
            sketch = MinHash(num_perm=PERMUTATIONS, seed=0)
            sketch.update_batch([shingle.encode() for shingle in set(shingles(orjson.loads(line)["text"]))])
            found.append(sketch.digest())
    return np.array(found).astype(np.uint32)


def shingles(text: str) -> list[str]:
    """Return the shingles of a text; one of few words is one shingle."""
    words = WORD.findall(text.lower())
    return [" ".join(words[start : start + WORDS]) for start in range(max(1, len(words) - WORDS + 1))]


def all_but_first(sketches: np.ndarray) -> set[int]:
    """Return the documents that are not the first of those that bands connect them with."""
    roots = np.arange(len(sketches))
    factors = np.random.default_rng(0).integers(1, 2**63, ROWS, dtype=np.uint64) | np.uint64(1)
    links = []
    for band in range(BANDS):
        hashes = (sketches[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64) * factors).sum(axis=1)
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
        links.append(np.stack((order[same], order[same + 1])))
    one, other = np.concatenate(links, axis=1)
    while (roots[one] != roots[other]).any():
        low, high = np.minimum(roots[one], roots[other]), np.maximum(roots[one], roots[other])
        np.minimum.at(roots, high, low)
        while (roots != roots[roots]).any():
            roots = roots[roots]
    return set(np.flatnonzero(roots != np.arange(len(sketches))).tolist())


def write_kept(corpus: Path, output: Path, removed: set[int]) -> None:
    """Copy the lines of what is kept."""
    number = 0
    with open(output, "wb", BUFFER_BYTES) as kept:
        for path in sorted(corpus.glob("part-*.jsonl")):
            with open(path, "rb", BUFFER_BYTES) as file:
                for line in file:
                    if number not in removed:
                        kept.write(line)
                    number += 1


if __name__ == "__main__":
    main()
