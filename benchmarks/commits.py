"""Commits of one repository: this builder, PyDriller doing the same job, and ``git log -p`` doing none of it; interleaved.

    pip install pydriller
    python benchmarks/commits.py PATH/TO/CLONE --rounds 3

Each is a whole process, its start included. PyDriller's version keeps what ours keeps: modified files of commits that are no merges, the
window of lines around the change with the same draws, the subject, rendered with StarCoder's tokens; it is run in the default way, and
with one process a core over ranges of commits. ``git log -p`` writes every diff to nowhere. Printed: seconds, units a second, ratios
of medians, and the peak of resident memory of our main process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent

OURS = """
import sys
from data_prep.kinds import Setting, open_kind
from data_prep.records import Kept
keys = {"path": sys.argv[1], "form": "window", "rules": {"preset": "none"}}
kept = characters = 0
for item in open_kind("commits", keys, "benchmark", Setting()).items():
    if isinstance(item, Kept):
        kept += 1
        characters += sum(len(part.text) for part in item.record.parts)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(kept, characters, peak)
"""

PYDRILLER = """
import sys
from concurrent.futures import ProcessPoolExecutor
from pydriller import ModificationType, Repository
from data_prep.commit_rules import draws

def window(old, new, commit, path):
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    same = next((n for n, (a, b) in enumerate(zip(before, after)) if a != b), min(len(before), len(after)))
    most = min(len(before), len(after)) - same
    tail = next((n for n in range(most) if before[-1 - n] != after[-1 - n]), most)
    drawn = draws(0, commit, path)
    start = max(0, same - int(drawn.before * 33))
    less = max(0, tail - int(drawn.after * 33))
    return "".join(before[start : len(before) - less]), "".join(after[start : len(after) - less])

def walk(path, hashes=None):
    kept = characters = 0
    keys = {"only_commits": hashes} if hashes else {}
    for commit in Repository(path, only_no_merge=True, **keys).traverse_commits():
        for file in commit.modified_files:
            if file.change_type not in (ModificationType.MODIFY, ModificationType.RENAME):
                continue
            old, new = file.source_code_before, file.source_code
            if old is None or new is None or old == new:
                continue
            before, after = window(old, new, commit.hash, file.new_path)
            subject = commit.msg.split("\\n")[0]
            kept += 1
            characters += len(f"{before}{subject}{after}")
    return kept, characters

if __name__ == "__main__":
    import os, subprocess
    cores = int(sys.argv[2])
    if cores == 1:
        print(*walk(sys.argv[1]))
    else:
        listed = subprocess.run(["git", "-C", sys.argv[1], "rev-list", "HEAD"], capture_output=True, text=True, check=True).stdout.split()
        parts = [listed[n::cores] for n in range(cores)]
        with ProcessPoolExecutor(cores) as pool:
            done = list(pool.map(walk, [sys.argv[1]] * cores, parts))
        print(sum(kept for kept, _ in done), sum(characters for _, characters in done))
"""


def main() -> None:
    """Run all in turns and print what each took."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("repository")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--without-pydriller", action="store_true")
    options = arguments.parse_args()
    cores = len(os.sched_getaffinity(0))
    programs = {"ours": [OURS, options.repository]}
    if not options.without_pydriller:
        programs |= {"pydriller": [PYDRILLER, options.repository, "1"]}
        programs |= {f"pydriller, {cores} processes": [PYDRILLER, options.repository, str(cores)]} if cores > 1 else {}
    seconds: dict[str, list[float]] = {}
    printed: dict[str, str] = {}
    for number in range(options.rounds):
        took, _ = timed(["git", "-C", options.repository, "log", "-p", "HEAD"])
        seconds.setdefault("git log -p", []).append(took)
        for name, (program, *rest) in programs.items():
            if number and name.startswith("pydriller") and min(seconds[name]) > 60:
                continue  # of what takes minutes one measurement is enough
            path = Path("/tmp") / f"benchmark-{os.getpid()}-{name.split(',')[0]}.py"
            path.write_text(program)
            took, printed[name] = timed([sys.executable, str(path), *rest])
            path.unlink()
            seconds.setdefault(name, []).append(took)
        print(f"round {number + 1}: " + ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items()), file=sys.stderr)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    report = {"repository": Path(options.repository).name, "cores": cores, "seconds": seconds, "kept_characters_memory": printed}
    report |= {f"{name} / ours": round(median[name] / median["ours"], 2) for name in median if name != "ours"}
    print(json.dumps(report, indent=2))


def timed(command: list[str]) -> tuple[float, str]:
    """Return how long a command took, and what it printed unless that is a diff."""
    wants_output = command[0] != "git"
    begin = time.monotonic()
    output = subprocess.PIPE if wants_output else subprocess.DEVNULL
    done = subprocess.run(command, stdout=output, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return time.monotonic() - begin, (done.stdout or "").strip()


if __name__ == "__main__":
    main()
