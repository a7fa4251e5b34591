"""Near-duplicates of files: ours against Daft, rensa and datasketch, whole commands, JSONL in and kept JSONL out.

    python benchmarks/near_duplicates.py --folder FOLDER --peer-python PEERS/bin/python --peers daft rensa datasketch --runs 5

The corpus is made in the folder if it is not there (`benchmarks/near_duplicate_corpus.py`: 318 MB, 5,000 damaged copies). All have two
processes or threads. Runs alternate, so that a busy machine slows all, and a ratio is the median of those of each round, by time and by
processor time. Then what was removed is looked at: how many of the damaged copies were found, of those that are at least 0.7 alike (one
of both is removed), and how many texts are lost: removed, though nothing that was kept is 0.7 alike. Both are counted twice, by the
peers' shingles (five words of ``\\w+`` in lower case, counted here from scratch) and by ours (`data_prep.shingles`).
"""

from __future__ import annotations

import argparse
import array
import contextlib
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import orjson
from near_duplicate_ours import BUFFER_BYTES, THRESHOLD, read_texts
from near_duplicate_peers import WORD, WORDS

if TYPE_CHECKING:
    from data_prep.shingles import Shingles

HERE = Path(__file__).parent
PR_SET_CHILD_SUBREAPER = 36
CANDIDATE_BANDS = (50, 5)
"""Pairs that are 0.7 alike share one of these bands with a probability of 0.9999."""


def main() -> int:
    """Measure, compare what was removed, and print; the exit status is 1 where a text was lost or the ratio to Daft is not reached."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--peer-python", default=sys.executable)
    arguments.add_argument("--peers", nargs="*", default=["daft"])
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--min-ratio", type=float, default=3.0)
    options = arguments.parse_args()
    if not (options.folder / "truth.json").exists():
        subprocess.run([sys.executable, HERE / "near_duplicate_corpus.py", options.folder], check=True)
    sides = ["ours", *options.peers]
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        outputs = {side: Path(scratch) / f"{side}.jsonl" for side in sides}
        commands = {side: [options.peer_python, HERE / "near_duplicate_peers.py", side, options.folder, outputs[side]] for side in sides}
        commands["ours"] = [sys.executable, HERE / "near_duplicate_ours.py", options.folder, outputs["ours"], options.workers]
        timed(commands["ours"])  # compiles, once for each version of the code
        runs: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for turn in range(options.runs):
            for side in sides if turn % 2 == 0 else sides[::-1]:
                runs[side].append(timed(commands[side]))
        megabytes = sum(path.stat().st_size for path in options.folder.glob("part-*.jsonl")) / 1e6
        ratios = print_times(runs, megabytes)
        lost = print_quality(options.folder, outputs)
    return 0 if lost == 0 and ratios.get("daft", options.min_ratio) >= options.min_ratio else 1


def timed(command: Sequence[object]) -> tuple[float, float]:
    """Return the seconds that a command takes, and the seconds of processors that it and all its descendants take."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # processes that outlive it are waited for here
    before, begin = processor_s(), time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    return seconds, processor_s() - before


def processor_s() -> float:
    """Return the seconds of processors that all descendants so far have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def print_times(runs: dict[str, list[tuple[float, float]]], megabytes: float) -> dict[str, float]:
    """Print the times of all sides; return the ratio of each to ours."""
    ratios = {}
    print(f"{megabytes:.0f} MB of JSONL, {len(runs['ours'])} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for side, times in runs.items():
        walls, processors = zip(*times, strict=True)
        middle = statistics.median(walls)
        ratios[side] = statistics.median(each[0] / ours[0] for each, ours in zip(times, runs["ours"], strict=True))
        by_processor = statistics.median(each[1] / ours[1] for each, ours in zip(times, runs["ours"], strict=True))
        print(
            f"{side:>12}: {middle:6.2f} s ({min(walls):.2f} to {max(walls):.2f}), {megabytes / middle:6.1f} MB/s, processors "
            f"{statistics.median(processors):6.2f} s; ratio {ratios[side]:.2f} by time, {by_processor:.2f} by processor time"
        )
    return ratios


def print_quality(corpus: Path, outputs: dict[str, Path]) -> int:
    """Print what each side found and lost; return how many texts ours lost by its own shingles."""
    from data_prep.shingles import shingles_of

    texts = [text for path in sorted(corpus.glob("part-*.jsonl")) for text, _ in read_texts(path)]
    truth: list[tuple[int, int]] = json.loads((corpus / "truth.json").read_text())
    kept = {side: kept_of(path, len(texts)) for side, path in outputs.items()}
    lost_by_ours = 0
    for name, shingles in (("word 5-grams", word_shingles(texts)), ("our shingles", shingles_of(texts))):
        alike = [(one, other) for one, other in truth if jaccard(shingles, one, other) >= THRESHOLD]
        print(f"by {name}: {len(alike):,} of {len(truth):,} damaged copies are at least {THRESHOLD} alike")
        buckets = buckets_of(shingles)
        for side, keep in kept.items():
            recall = sum(not (keep[one] and keep[other]) for one, other in alike) / len(alike)
            lost = sum(not has_kept_twin(shingles, buckets, keep, document) for document in np.flatnonzero(~keep).tolist())
            lost_by_ours += lost if side == "ours" and name == "our shingles" else 0
            print(f"{side:>12}: removed {(~keep).sum():,} of {len(texts):,}, found {recall:.4f} of the copies, lost {lost:,}")
    return lost_by_ours


def kept_of(path: Path, count: int) -> np.ndarray:
    """Return whether each document is in a side's output."""
    keep = np.zeros(count, bool)
    with open(path, "rb", BUFFER_BYTES) as file:
        keep[[orjson.loads(line)["id"] for line in file]] = True
    return keep


def word_shingles(texts: Sequence[str]) -> Shingles:
    """Return the shingles of five words that peers take; words are numbered as they come, and five numbers mixed into 64 bits."""
    from data_prep.shingles import Shingles

    numbers: dict[str, int] = {}
    found, bounds = [], [0]
    factors = np.random.default_rng(1).integers(1, 2**63, WORDS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    for text in texts:
        coded = array.array("Q", [numbers.setdefault(word, len(numbers) + 1) for word in WORD.findall(text.lower())])
        words = np.frombuffer(coded, np.uint64) if coded else np.zeros(1, np.uint64)
        count, length = max(1, words.size - WORDS + 1), min(words.size, WORDS)
        mixed = np.zeros(count, np.uint64)
        for place in range(length):
            mixed = (mixed ^ (mixed >> np.uint64(29))) * factors[place] + words[place : place + count]
        mixed = (mixed ^ (mixed >> np.uint64(31))) * factors[0]
        found.append(np.unique(mixed ^ (mixed >> np.uint64(30))))
        bounds.append(bounds[-1] + found[-1].size)
    return Shingles(np.concatenate(found), np.array(bounds, np.int64))


def jaccard(shingles: Shingles, one: int, other: int) -> float:
    """Return the exact similarity of two documents."""
    sets = [shingles.hashes[shingles.bounds[number] : shingles.bounds[number + 1]] for number in (one, other)]
    shared = np.intersect1d(*sets, assume_unique=True).size
    return shared / max(1, sets[0].size + sets[1].size - shared)


def buckets_of(shingles: Shingles) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return, of each band, the hash of each document, the documents by hash, and their hashes in that order."""
    from data_prep.shingles import band_hashes

    bands = band_hashes(shingles, *CANDIDATE_BANDS, seed=99)
    orders = [np.argsort(band, kind="stable") for band in bands]
    return [(band, order, band[order]) for band, order in zip(bands, orders, strict=True)]


def has_kept_twin(shingles: Shingles, buckets: list[tuple[np.ndarray, np.ndarray, np.ndarray]], keep: np.ndarray, document: int) -> bool:
    """Return whether something that is kept is alike."""
    near = [
        order[np.searchsorted(hashes, band[document]) : np.searchsorted(hashes, band[document], "right")] for band, order, hashes in buckets
    ]
    numbers, counts = np.unique(np.concatenate(near), return_counts=True)
    likely = numbers[np.argsort(-counts, kind="stable")]
    sizes = np.diff(shingles.bounds)
    low, high = np.minimum(sizes[likely], sizes[document]), np.maximum(sizes[likely], sizes[document])
    likely = likely[keep[likely] & (low >= THRESHOLD * high)]
    return any(jaccard(shingles, document, other) >= THRESHOLD for other in likely.tolist())


if __name__ == "__main__":
    sys.exit(main())
