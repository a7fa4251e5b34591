"""Exact duplicates: what `starchat prepare` adds to reading for them, beside polars and a loop of xxh3.

    python benchmarks/exact_duplicates.py --folder CORPUS --rounds 5

The corpus is one of `benchmarks/near_duplicate_corpus.py`, read twice over, so that half of it are copies. Ours reads each line, makes the
record's id of its content (which every row has anyhow) and judges all lines as `data_prep.verdicts` does; what the ids and the judging
take is told by itself. Polars scans the same lines and keeps unique texts; the loop remembers the xxh3 of each text. One thread each,
each in a process of its own, in turns; all must keep the same number. Peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> int:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--peer-python", default=sys.executable, help="a Python that has polars, orjson and xxhash")
    arguments.add_argument("--side", choices=SIDES)
    options = arguments.parse_args()
    files = 2 * sorted(options.folder.glob("part-*.jsonl"))
    if options.side:
        print(json.dumps(SIDES[options.side](files)))
        return 0
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in list(SIDES) if number % 2 else reversed(SIDES):
            python = sys.executable if side == "ours" else options.peer_python
            command = [python, __file__, "--folder", str(options.folder), "--side", side]
            environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
            if done.returncode == 0:
                found[side].append(json.loads(done.stdout))
    kept = {runs[0]["kept"] for runs in found.values() if runs}
    print(f"{megabytes:.0f} MB, {kept} texts kept")
    for side, runs in found.items():
        if not runs:
            print(f"{side:>12}: not installed")
            continue
        seconds = statistics.median(run["seconds"] for run in runs)
        own = statistics.median(run["own"] for run in runs)
        told = f", of which for duplicates {own:.2f} s ({megabytes / own:.0f} MB/s)" if own else ""
        print(f"{side:>12}: {seconds:6.2f} s {megabytes / seconds:7.1f} MB/s, {runs[0]['peak'] / 1e6:.0f} MB{told}")
    return 0 if len(kept) == 1 else 1


def texts(files: list[Path]) -> Iterator[str]:
    """Yield the texts of a corpus."""
    import orjson

    for file in files:
        with open(file, "rb") as lines:
            for line in lines:
                yield orjson.loads(line)["text"]


def told(kept: int, begin: float, own: float = 0.0) -> dict[str, float]:
    """Return what a side says of itself."""
    import resource

    return {
        "kept": kept,
        "seconds": time.perf_counter() - begin,
        "own": own,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def run_ours(files: list[Path]) -> dict[str, float]:
    """Make the id of each record, and judge all of them."""
    import tempfile

    import numpy as np

    from data_prep.item_files import CLAIM, CLAIMS, LINE, LINES, _words, judged_digest
    from data_prep.verdicts import Verdicts
    from starchat.dialogue import Part, Record, Source

    source, lines, own, begin = Source("x"), [], 0.0, time.perf_counter()
    for text in texts(files):
        start = time.perf_counter()
        lines.append((0, 0, 0, _words(Record(source, (), (Part("", text),)).id), len(text), 0, 1, 0, True, False, False))
        own += time.perf_counter() - start
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        np.save(Path(name) / LINES, np.array(lines, LINE))
        np.save(Path(name) / CLAIMS, np.zeros(0, CLAIM))
        value = {"source": 0, "reasons": [], "reads": [], "lines": len(lines), "judged": judged_digest(Path(name))}
        verdicts = Verdicts([Path(name)], [value])
    verdicts.mark_copies()
    kept = verdicts.counts(0)["kept"]
    return told(kept, begin, own + time.perf_counter() - start)


def run_polars(files: list[Path]) -> dict[str, float]:
    """Keep unique texts by polars."""
    import polars

    begin = time.perf_counter()
    frame = polars.concat([polars.scan_ndjson(file) for file in files]).unique(subset="text", keep="first", maintain_order=True).collect()
    return told(frame.height, begin)


def run_xxh3(files: list[Path]) -> dict[str, float]:
    """Remember the xxh3 of each text."""
    import xxhash

    seen: set[bytes] = set()
    begin = time.perf_counter()
    for text in texts(files):
        seen.add(xxhash.xxh3_128_digest(text.encode()))
    return told(len(seen), begin)


SIDES: dict[str, Callable[[list[Path]], dict[str, float]]] = {"ours": run_ours, "polars": run_polars, "xxh3 loop": run_xxh3}


if __name__ == "__main__":
    sys.exit(main())
