"""What the layer that runs tasks costs: over a bare process pool on one job, a task with nothing to do, a Ray task.

    python benchmarks/scaling.py job --rounds 5        # installed Python files, in shards: parse, hash shingles, write
    python benchmarks/scaling.py empty --rounds 5      # 32 tasks that do nothing, on the pool
    python benchmarks/scaling.py ray                   # Ray's start, then 32, 132 and 1,032 tasks that do nothing, on a cluster of its own
    python benchmarks/scaling.py resume --tasks 10000  # a run of which everything is done already

Rounds are interleaved; medians and the median of the ratios of neighbours are told.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import multiprocessing
import re
import statistics
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from data_prep.engines import Engine, run_tasks_on
from data_prep.tasks import Task, job_digest

DIGEST = job_digest("scaling", [])
WORD = re.compile(r"\w+")


def nothing(folder: Path, number: int) -> int:
    """Do nothing."""
    return number


def sketch(folder: Path, shard: str) -> int:
    """Write the smallest shingle hashes of each file of a shard that parses, and return how many do."""
    kept = 0
    with open(shard, encoding="utf-8") as source, open(folder / "sketches.jsonl", "w", encoding="utf-8") as target:
        for line in source:
            row = json.loads(line)
            try:
                ast.parse(row["text"])
            except (SyntaxError, ValueError):
                continue
            words = WORD.findall(row["text"].lower())
            hashes = {hashlib.blake2b(" ".join(words[i : i + 5]).encode(), digest_size=8).hexdigest() for i in range(len(words))}
            target.write(json.dumps({**row, "sketch": sorted(hashes)[:64]}) + "\n")
            kept += 1
    return kept


def bare(job: tuple[str, str]) -> int:
    """Do the same without the layer."""
    Path(job[0]).mkdir()
    return sketch(Path(job[0]), job[1])


def write_shards(folder: Path, shards: int, megabytes: float) -> list[str]:
    """Write the interpreter's own files as JSON lines, dealt out to shards."""
    lines: list[list[str]] = [[] for _ in range(shards)]
    size = 0
    for number, path in enumerate(sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))):
        text = path.read_bytes().decode("utf-8", "replace")
        size += len(text)
        if size > megabytes * 1e6:
            break
        lines[number % shards].append(json.dumps({"path": str(path), "text": text}))
    for number, each in enumerate(lines):
        (folder / f"shard-{number}.jsonl").write_text("\n".join(each) + "\n", encoding="utf-8")
    print(f"{sum(map(len, lines)):,} files, {size / 1e6:.1f} MB, {shards} shards")
    return [str(folder / f"shard-{number}.jsonl") for number in range(shards)]


def timed_bare(function: Any, jobs: list[Any], workers: int) -> float:
    """Return the seconds that a bare pool takes, with its start and end."""
    begin = time.perf_counter()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver")) as pool:
        list(pool.map(function, jobs))
    return time.perf_counter() - begin


def timed(engine: Engine, tasks: list[Task], folder: Path) -> float:
    """Return the seconds that the layer takes."""
    begin = time.perf_counter()
    run_tasks_on(engine, tasks, folder, DIGEST)
    return time.perf_counter() - begin


def tell(name: str, bare_s: list[float], layer_s: list[float]) -> None:
    """Print medians and ratios."""
    ratios = [layer / plain for plain, layer in zip(bare_s, layer_s, strict=True)]
    print(f"{name}: bare pool {statistics.median(bare_s):.3f} s, layer {statistics.median(layer_s):.3f} s, ", end="")
    print(f"ratio {statistics.median(ratios):.3f} ({', '.join(f'{ratio:.3f}' for ratio in sorted(ratios))})")


def compare(options: argparse.Namespace, root: Path) -> None:
    """Compare the layer with a bare pool, on the job or on nothing."""
    import scaling  # the functions, as other processes find them

    bare_s, layer_s = [], []
    shards = write_shards(root, options.shards, options.megabytes) if options.what == "job" else []
    for number in range(options.rounds):
        for layer in (False, True) if number % 2 else (True, False):
            place = root / f"{number}-{layer}"
            place.mkdir()
            jobs = [(str(place / str(i)), shard) for i, shard in enumerate(shards)]
            tasks = [Task(f"shard-{i}", scaling.sketch, (shard,)) for i, shard in enumerate(shards)]
            if options.what == "empty":
                tasks = [Task(f"task-{i}", scaling.nothing, (i,)) for i in range(options.tasks)]
            if layer:
                layer_s.append(timed(Engine(workers=options.workers), tasks, place))
            elif shards:
                bare_s.append(timed_bare(scaling.bare, jobs, options.workers))
            else:
                bare_s.append(timed_bare(abs, list(range(options.tasks)), options.workers))
    tell(f"{options.what}, {options.workers} workers", bare_s, layer_s)


def on_ray(options: argparse.Namespace, root: Path) -> None:
    """Measure Ray's tasks apart from its start."""
    import ray
    import scaling

    begin = time.perf_counter()
    ray.init(num_cpus=options.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    print(f"start {time.perf_counter() - begin:.2f} s")
    seconds = {}
    for count in (2, 32, 132, 1032):
        tasks = [Task(f"task-{i}", scaling.nothing, (i,)) for i in range(count)]
        seconds[count] = timed(Engine("ray"), tasks, root / str(count))
        print(f"{count:5} tasks: {seconds[count]:.3f} s, {1000 * seconds[count] / count:.1f} ms each")
    print(f"a further task: {(seconds[1032] - seconds[32]):.3f} ms")
    ray.shutdown()


def resume(options: argparse.Namespace, root: Path) -> None:
    """Measure a run of which everything is done."""
    import scaling

    tasks = [Task(f"task-{i}", scaling.nothing, (i,)) for i in range(options.tasks)]
    first, again = timed(Engine(workers=options.workers), tasks, root / "run"), timed(Engine(), tasks, root / "run")
    print(f"{options.tasks:,} tasks: {first:.2f} s, {1000 * first / options.tasks:.2f} ms each; again {again:.2f} s")


def main() -> int:
    """Measure what is asked for."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["job", "empty", "ray", "resume"])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--shards", type=int, default=8)
    arguments.add_argument("--tasks", type=int, default=32)
    arguments.add_argument("--megabytes", type=float, default=20)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        {"job": compare, "empty": compare, "ray": on_ray, "resume": resume}[options.what](options, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
