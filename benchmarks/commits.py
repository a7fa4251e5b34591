"""Commits of one repository: this builder, PyDriller doing the same job, and ``git log -p`` doing none of it; interleaved.

    pip install pydriller
    python benchmarks/commits.py PATH/TO/CLONE --rounds 3

Each is a whole process, its start included. PyDriller's version keeps what ours keeps: modified files of commits that are no merges, the
window of lines around the change with the same draws, the subject, rendered with StarCoder's tokens; it is run in the default way, and
with its ``num_workers`` at the number of cores (threads: two processes on one clone quarrel over its configuration). ``git log -p``
writes every diff to nowhere. Printed: seconds, ratios of medians, and what each kept: files, characters, and for ours the peak of
resident memory of its main process in kilobytes.
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

kept = characters = 0
for commit in Repository(sys.argv[1], only_no_merge=True, num_workers=int(sys.argv[2])).traverse_commits():
    for file in commit.modified_files:
        if file.change_type not in (ModificationType.MODIFY, ModificationType.RENAME):
            continue
        old, new = file.source_code_before, file.source_code
        if old is None or new is None or old == new:
            continue
        before, after = window(old, new, commit.hash, file.new_path)
        subject = commit.msg.split("\\n")[0]
        kept += 1
        characters += len(f"<commit_before>{before}<commit_msg>{subject}<commit_after>{after}")
print(kept, characters)
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
        programs |= {f"pydriller, {cores} workers": [PYDRILLER, options.repository, str(cores)]} if cores > 1 else {}
    seconds: dict[str, list[float]] = {}
    printed: dict[str, str] = {}
    for number in range(options.rounds):
        took, _ = timed(["git", "-C", options.repository, "log", "-p", "HEAD"])
        seconds.setdefault("git log -p", []).append(took)
        for name, (program, *rest) in programs.items():
            if number and name.startswith("pydriller") and min(seconds[name]) > 60:
                continue  # of what takes minutes one measurement is enough
            took, printed[name] = timed([sys.executable, "-c", program, *rest])
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
