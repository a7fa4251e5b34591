"""Tasks for the tests of where tasks run: functions of a module, as any process can find them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from starchat.errors import UserError


def write_squares(folder: Path, first: int, count: int, seconds: float = 0.0, log: str = "") -> dict[str, Any]:
    """Write some numbers and return their sum; note in a log of its own that the task was begun."""
    if log:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{first}\n")
    time.sleep(seconds)
    squares = [number * number for number in range(first, first + count)]
    (folder / "inner").mkdir()
    (folder / "squares.txt").write_text("".join(f"{square}\n" for square in squares), encoding="utf-8")
    (folder / "inner" / "count").write_bytes(bytes([count]) * 1000)
    return {"sum": sum(squares), "first": first}


def die_once(folder: Path, number: int, mark: str) -> int:
    """Kill the process that does this task, the first time."""
    (folder / "half").write_text("half", encoding="utf-8")
    if not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(folder: Path, number: int) -> int:
    """Kill the process that does this task, each time."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(folder: Path, number: int) -> int:
    """Say that something is not right, as a user reads it."""
    raise UserError(f"part {number}: is not right; expected another; change it")


def stumble(folder: Path, number: int) -> float:
    """Fail as nobody foresaw."""
    return number / 0


def add_up(folder: Path, places: tuple[str, ...]) -> int:
    """Read what other tasks wrote, wherever it lies."""
    from data_prep.remote_files import at_hand, open_to_read

    total = 0
    for place in places:
        with at_hand(place) as found:
            total += sum(map(int, (found / "squares.txt").read_text(encoding="utf-8").split()))
        with open_to_read(f"{place}/inner/count") as file:
            assert len(file.read()) == 1000
    return total


def slow_double(ordered: tuple[int, str]) -> int:
    """Double a number; the first process that meets 3 is killed."""
    number, mark = ordered
    time.sleep(0.05)
    if number == 3 and not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def double_in_children(folder: Path, mark: str) -> list[int]:
    """Have processes of this task's own do the work, one of which is killed."""
    from data_prep.pool import run_tasks

    doubled = list(run_tasks(slow_double, [(number, mark) for number in range(8)], 2))
    (folder / "doubled").write_text(str(doubled), encoding="utf-8")
    return doubled
