"""Near-duplicates among tool calls made from templates, the worst case: most rows of a template resemble each other, but not enough.

    python benchmarks/templated_duplicates.py --rows 20000 100000 500000 --by-bands 20000

A row is one of a few templates, each some words, an argument, some words, and so on; arguments are drawn from 50, 1,000 or 50,000 values.
One row in a hundred is an earlier one with a word changed. Rows come from the seed and their number alone. Printed are, for each number
of rows, the time of the whole with all workers, and the time and the memory of the largest task of the fourth step, by itself in a
process; also as it is by bands alone, up to the number of rows that ``--by-bands`` gives, when it is looked at whether both remove the
same.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from data_prep import duplicate_tasks
from data_prep.engines import Engine
from data_prep.near_duplicates import NearDuplicate, NearDuplicateRules, find_near_duplicates
from data_prep.shingles import shingles_of

SHARD_ROWS = 25_000
VALUES = (50, 1_000, 50_000)
COPIED = 0.01
Template = list[tuple[str, int]]


def main() -> int:
    """Measure and print; the exit status is 1 where a planted copy was not found or the two ways differ."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000, 500_000])
    arguments.add_argument("--by-bands", type=int, default=20_000, help="up to so many rows, also by bands alone")
    arguments.add_argument("--templates", type=int, default=1)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--workers", type=int, default=2)
    options = arguments.parse_args()
    faults = 0
    for rows in options.rows:
        shards = [(options.seed, options.templates, first, min(first + SHARD_ROWS, rows)) for first in range(0, rows, SHARD_ROWS)]
        print(f"{rows:,} rows of {options.templates} templates; {likeness(shards[0])}")
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            engine, rules = Engine(workers=options.workers), NearDuplicateRules()
            removed = find_near_duplicates(engine, shards, templated_duplicates_rows(), folder, rules, "")
            seconds = time.perf_counter() - begin
            faults += not print_removed(rows, options.seed, removed, seconds)
            signed = duplicate_tasks.signed_shards(Path(folder, "sign"), list(map(length, shards)))
            hand = max(Path(folder, "deal").rglob("hand-*.npy"), key=lambda path: path.stat().st_size)
            task = (Path(folder), signed, hand, rules.threshold)
            found = [alone(task, duplicate_tasks.CROWDED)]
            if rows <= options.by_bands:
                found.append(alone(task, math.inf))
                faults += found[0] != found[1]
    return 1 if faults else 0


def templated_duplicates_rows() -> duplicate_tasks.Reader:
    """Return `rows_of` by the name that workers know."""
    import templated_duplicates

    return templated_duplicates.rows_of


def length(shard: tuple[int, int, int, int]) -> int:
    """Return the number of rows of a shard."""
    return shard[3] - shard[2]


def rows_of(shard: tuple[int, int, int, int]) -> Iterator[tuple[str, int]]:
    """Yield the texts of a shard, each with its rank; a shard is a seed, a number of templates, its first row and the row after it."""
    seed, templates, first, end = shard
    made = templates_of(seed, templates)
    for number in range(first, end):
        original = copied_row(seed, number)
        text = text_of(seed, made, number if original is None else original)
        if original is not None:
            words = text.split(" ")
            words[number % len(words)] = "changed"
            text = " ".join(words)
        yield text, 0


def templates_of(seed: int, count: int) -> list[Template]:
    """Return templates, each of words and the number of values of the argument behind them, several times."""
    rng = random.Random(f"templates:{seed}")
    opening = words_of(rng, 40)
    made = []
    for _ in range(count):
        fields = [(words_of(rng, rng.randint(9, 13)), VALUES[place % len(VALUES)]) for place in range(rng.randint(7, 9))]
        made.append([(f"{opening} {fields[0][0]}", fields[0][1]), *fields[1:]])
    return made


def words_of(rng: random.Random, count: int) -> str:
    """Return so many words, none of which is likely to come again."""
    return " ".join(f"w{rng.randrange(10**9)}" for _ in range(count))


def text_of(seed: int, templates: Sequence[Template], number: int) -> str:
    """Return the text of a row that is no copy."""
    rng = random.Random(f"{seed}:{number}")
    return " ".join(f"{words} {argument_of(rng, values)}," for words, values in rng.choice(templates))


def argument_of(rng: random.Random, values: int) -> str:
    """Return an argument: one word, or one to three where there are most values."""
    return " ".join(f"value{rng.randrange(values)}" for _ in range(rng.randint(1, 3) if values == VALUES[-1] else 1))


def copied_row(seed: int, number: int) -> int | None:
    """Return the number of the row that a row is a changed copy of, if it is one."""
    rng = random.Random(f"copy:{seed}:{number}")
    return rng.randrange(number) if number and rng.random() < COPIED else None


def likeness(shard: tuple[int, int, int, int]) -> str:
    """Return how alike pairs of rows of one template are, in words."""
    found = shingles_of([text for text, _ in rows_of((*shard[:2], 0, 400))])
    sets = [set(found.hashes[first:end].tolist()) for first, end in zip(found.bounds[:-1], found.bounds[1:], strict=True)]
    alike = [len(one & other) / len(one | other) for at, one in enumerate(sets) for other in sets[:at]]
    low, middle, high = np.quantile([each for each in alike if each > 0.1], [0.01, 0.5, 0.99])
    shingles = found.hashes.size / 400
    return f"98 % of the pairs of a template {low:.2f} to {high:.2f} alike, half {middle:.2f} or more; {shingles:.0f} shingles each"


def print_removed(rows: int, seed: int, removed: Sequence[NearDuplicate], seconds: float) -> bool:
    """Print what was found in how long; return whether enough of the planted copies were."""
    gone = {found.document for found in removed}
    copies = {number: original for number in range(rows) if (original := copied_row(seed, number)) is not None}
    found = sum(number in gone or original in gone for number, original in copies.items())
    print(f"  whole: {seconds:.1f} s; removed {len(gone):,}, of {len(copies):,} planted copies {found / max(1, len(copies)):.4f}")
    return found >= 0.95 * len(copies)


def alone(task: tuple[Path, duplicate_tasks.Signed, Path, float], crowded: float) -> bytes:
    """Print the time and memory of a task in a process of its own; return what it removes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds, before, after, found = pool.submit(resolved, task, crowded).result()
    documents = np.load(task[2]).size
    way = "by bands" if crowded == math.inf else "by rule"
    print(f"  {way}: {documents:,} rows in one task, {seconds:.1f} s of processor, {after - before:.0f} MB beside {before:.0f} MB")
    return found


def resolved(task: tuple[Path, duplicate_tasks.Signed, Path, float], crowded: float) -> tuple[float, float, float, bytes]:
    """Return a task's seconds of processor, the largest memory before and after it in MB, and what it removes; compiled before."""
    duplicate_tasks.load_kernels()
    duplicate_tasks.CROWDED = crowded
    before = most_megabytes()
    begin = time.process_time()
    duplicate_tasks.resolve(*task)
    seconds = time.process_time() - begin
    return seconds, before, most_megabytes(), np.load(task[0] / duplicate_tasks.REMOVED).tobytes()


def most_megabytes() -> float:
    """Return the largest memory of this process so far, in MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    sys.exit(main())
