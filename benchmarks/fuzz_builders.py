"""Feed mutated inputs to a data builder, and hold what comes out to the laws.

    python benchmarks/fuzz_builders.py issues --count 10000 --seed 0

Each kind has ``tests/fuzz_<kind>.py``, and ``source`` a second one as ``source_tables``, with ``mutant(rng, folder) -> dict``: it writes
one damaged input into an empty folder and returns the mapping of its source. A builder may refuse a whole source with `UserError`;
otherwise every unit must come out kept or dropped with a reason, storable, with its document parsing to itself, and the same when read
again.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

from fuzzing import outcome_of


def main() -> int:
    """Run the mutants, print what became of them, and write the inputs of failures to a folder."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("kind")
    arguments.add_argument("--count", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--keep", type=Path, default=None, help="folder for inputs that failed")
    options = arguments.parse_args()
    module = importlib.import_module(f"fuzz_{options.kind}")
    outcomes: collections.Counter[str] = collections.Counter()
    failures, begin = 0, time.monotonic()
    root = Path(tempfile.mkdtemp(prefix=f"fuzz-{options.kind}-"))
    for number in range(options.count):
        folder = root / "input"
        folder.mkdir()
        try:
            outcomes.update(
                outcome_of(module.mutant(random.Random(f"{options.seed}:{number}"), folder), options.kind.partition("_")[0], number)
            )
        except Exception:  # noqa: BLE001  # any escape at all is the finding
            failures += 1
            print(f"--- mutant {number} of seed {options.seed}", traceback.format_exc(), sep="\n", file=sys.stderr)
            if options.keep:
                shutil.copytree(folder, options.keep / f"{options.kind}-{options.seed}-{number}", symlinks=True)
        shutil.rmtree(folder)
    root.rmdir()
    print(f"{options.kind}: {options.count:,} mutants, seed {options.seed}, {failures} failures, {time.monotonic() - begin:.0f} s")
    for outcome, count in outcomes.most_common():
        print(f"  {count:>8,}  {outcome}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
