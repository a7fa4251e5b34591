"""What each step of `starchat prepare` takes on one core: source files in a table like The Stack's, with all steps of curation.

    python benchmarks/stages.py --megabytes 100
    python benchmarks/stages.py --megabytes 100 --terabytes 6 --dollars 0.05

All work is done in this process, and the processor time within each step is told, in megabytes of the files' text a second; then what so
many terabytes take at that rate, on one core and on 1,000, and what that costs at a price of a core hour. The table has the source files
of this machine (`near_duplicate_corpus`), each content once, in row groups of about 8 MB.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

from near_duplicate_corpus import GROUPS, MAX_BYTES, MIN_BYTES, SUFFIXES

STEPS = (
    ("opt_out", "data_prep.opt_out.OptOuts.match"),
    ("licenses", "data_prep.curate.license_fault"),
    ("filters", "data_prep.curate.filter_fault"),
    ("decontaminate", "data_prep.decontaminate.Matcher.match"),
    ("redact", "data_prep.curate.redacted_record"),
    ("near: sketches", "data_prep.near_duplicates.sign"),
    ("near: links", "data_prep.near_duplicates.link"),
    ("near: hands", "data_prep.near_duplicates.deal"),
    ("near: verification", "data_prep.near_duplicates.resolve"),
    ("judging", "data_prep.dataset.Verdicts"),
    ("writing tables", "data_prep.dataset.write_portion"),
)
"""The steps, and the functions that do them: none calls another of them."""

READING = "data_prep.dataset.build_shard"
PROBLEM = {"task_id": "x/0", "prompt": "def count_long_words(text, length):\n    '''Count the words of a text that are longer.'''\n"}


def main() -> int:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=float, default=100)
    arguments.add_argument("--terabytes", type=float, default=6)
    arguments.add_argument("--dollars", type=float, default=0.05, help="of a core hour")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        size = write_table(Path("files.parquet"), options.megabytes * 1e6)
        taken, counts = run()
    megabytes = size / 1e6
    print(f"{megabytes:.0f} MB of text, read {counts['read']:,} = kept {counts['kept']:,} + dropped {sum(counts['dropped'].values()):,}")
    for step, seconds in taken.items():
        print(f"{step:>20} {seconds:8.2f} s {megabytes / seconds:10.1f} MB/s {100 * seconds / sum(taken.values()):5.1f} %")
    whole = megabytes / sum(taken.values())
    hours = options.terabytes * 1e6 / whole / 3600
    print(f"{'together':>20} {sum(taken.values()):8.2f} s {whole:10.1f} MB/s on one core")
    print(f"{options.terabytes:g} TB: {hours:,.0f} core hours, {hours / 1000:.1f} h on 1,000 cores, {hours * options.dollars:,.0f} dollars")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    return 0


def run() -> tuple[dict[str, float], dict[str, Any]]:
    """Return the processor seconds of each step, and the counts of the dataset."""
    from data_prep.engines import Engine
    from data_prep.prepare import prepare

    Path("problems.jsonl").write_text(json.dumps(PROBLEM) + "\n", encoding="utf-8")
    Path("opted-out.txt").write_text("somebody/something\n", encoding="utf-8")
    source = {"kind": "source", "path": "files.parquet", "view": "document", "metadata": "path", "rules": {"preset": "none"}}
    curate = {
        "opt_out": {"lists": ["opted-out.txt"]},
        "licenses": {"allow": ["permissive", "none", "unknown"]},
        "filters": {"preset": "starcoder2"},
        "decontaminate": {"benchmarks": [{"name": "mine", "problems": "problems.jsonl"}]},
        "redact": {},
        "near_duplicates": {},
    }
    Path("spec.yaml").write_text(json.dumps({"sources": [source], "curate": curate, "output": "out"}), encoding="utf-8")
    taken: collections.Counter[str] = collections.Counter()
    with contextlib.ExitStack() as stack:
        for step, place in (*STEPS, ("reading", READING)):
            stack.enter_context(timed(step, place, taken))
        manifest = prepare(Path("spec.yaml"), progress=False, workers=1, engine=Engine("here", 1))
    inner = sum(taken[step] for step in ("opt_out", "licenses", "filters", "decontaminate", "redact"))
    return {"read, build, write": taken["reading"] - inner, **{step: taken[step] for step, _ in STEPS}}, manifest["counts"]


@contextlib.contextmanager
def timed(step: str, place: str, taken: collections.Counter[str]) -> Iterator[None]:
    """Add up the processor time within a function, which keeps its name for those who ask for it."""
    module, _, name = place.rpartition(".")
    holder, _, kind = module.rpartition(".")
    target: Any = sys.modules.get(module) or __import__(module, fromlist=["x"]) if kind.islower() else getattr(load(holder), kind)
    real: Callable[..., Any] = getattr(target, name)

    def measured(*arguments: Any, **keys: Any) -> Any:
        begin = time.process_time()
        try:
            return real(*arguments, **keys)
        finally:
            taken[step] += time.process_time() - begin

    for attribute in ("__module__", "__name__", "__qualname__"):
        setattr(measured, attribute, getattr(real, attribute))
    with mock.patch.object(target, name, measured):
        yield


def load(name: str) -> Any:
    """Return a module by its name."""
    return __import__(name, fromlist=["x"])


def write_table(path: Path, most_bytes: float) -> int:
    """Write source files of this machine to a table, each content once, and return the size of their texts."""
    import glob

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    seen: set[int] = set()
    size = 0
    for share, folders in GROUPS:
        group = 0
        for file in (file for pattern in folders for folder in sorted(glob.glob(pattern)) for file in sorted(Path(folder).rglob("*"))):
            if group >= share * most_bytes:
                break
            if file.suffix not in SUFFIXES or not file.is_file() or not MIN_BYTES <= file.stat().st_size <= MAX_BYTES:
                continue
            text = file.read_text(encoding="utf-8", errors="replace")
            if hash(text) not in seen:
                seen.add(hash(text))
                rows.append({"content": text, "path": str(file).lstrip("/"), "repository_name": "this/machine"})
                group += len(text.encode("utf-8", "surrogatepass"))
        size += group
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1_000)
    return size


if __name__ == "__main__":
    sys.exit(main())
