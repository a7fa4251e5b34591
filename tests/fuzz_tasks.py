"""Damaged folders of results, and what must hold of each.

    python tests/fuzz_tasks.py --count 10000 --seed 0

A run's results are made, then damaged as crashes, full disks and people damage them: files cut, lengthened, gone, added, or folders in
their place; ``done.json`` changed anywhere; results moved, and half-made things left about. The tasks run again must leave just what was
there before. A file changed within its length is not found: that would take reading all of it, and no crash does it.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from pathlib import Path

from data_prep.tasks import DONE, Task, begin_run, end_run, find_done, job_digest, run_task
from fuzzing import run_mutants
from task_work import write_squares

TASKS = [Task(f"part-{number}", write_squares, (number, 2)) for number in range(3)]
DIGEST = job_digest({"fuzz": 1}, [])


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file beneath a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(folder: Path, rng: random.Random, resized: set[Path]) -> str:
    """Damage a folder of results in one way and return which. A file is resized once: cut and lengthened it might have its length again."""
    place = folder / rng.choice(TASKS).name
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not place.is_dir() or not files:
        return "nothing left to damage"
    path = rng.choice(files)
    act = rng.choice(["cut", "longer", "gone", "added", "folder", "mark", "swap", "remove", "file", "litter", "empty"])
    if act in ("cut", "longer") and path not in resized:
        resized.add(path)
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data))] if act == "cut" and data else data + b"x")
    elif act in ("gone", "folder"):
        path.unlink()
        if act == "folder":
            path.mkdir()
    elif act == "added":
        (place / f"stray-{rng.randrange(99)}").write_bytes(b"stray" * rng.randrange(3))
    elif act == "mark" and (place / DONE).is_file():
        data = bytearray((place / DONE).read_bytes() or b" ")
        data[rng.randrange(len(data))] = rng.randrange(256)
        (place / DONE).write_bytes(data)
    elif act == "swap" and (other := folder / rng.choice(TASKS).name).is_dir() and other != place:
        shutil.rmtree(place)
        shutil.copytree(other, place)
    elif act in ("remove", "file"):
        shutil.rmtree(place)
        if act == "file":
            place.write_text("a file")
    elif act == "litter":
        (folder / f".making-{rng.randrange(99)}" / "part-0-1").mkdir(parents=True, exist_ok=True)
    elif act == "empty" and (place / DONE).exists():
        (place / DONE).unlink() if (place / DONE).is_file() else (place / DONE).rmdir()
        (place / DONE).touch()
    return act


def fuzz_one(rng: random.Random, folder: Path) -> list[str]:
    """Make results, damage them, make them again; raise unless they are what they were. Return the damages."""
    root = folder / "run"
    run = begin_run(str(root), DIGEST)
    values = [run_task(task, run) for task in TASKS]
    end_run(run)
    before = contents(root)
    resized: set[Path] = set()
    acts = [damage(root, rng, resized) for _ in range(rng.randint(1, 4))]
    run = begin_run(str(root), DIGEST)
    found = find_done(TASKS, run)
    whole = {path: data for path, data in contents(root).items() if path.split("/", 1)[0] in found}
    assert whole.items() <= before.items(), f"{acts}: damaged, and taken for done"
    assert [run_task(task, run) for task in TASKS] == values, acts
    end_run(run)
    assert contents(root) == before, acts
    assert sorted(path.name for path in root.iterdir()) == [task.name for task in TASKS], acts
    return acts


def main() -> int:
    """Run the damages and print how many there were of each."""

    def one(rng: random.Random) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            return fuzz_one(rng, Path(folder))

    return run_mutants(__doc__, one)


if __name__ == "__main__":
    sys.exit(main())
