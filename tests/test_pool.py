"""Tasks on several processes: in order, drawn as they are needed, and done again when a worker is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.pool import AHEAD, run_tasks
from starchat.errors import UserError


def slow_double(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return 2 * number


def die_once(task: tuple[int, str]) -> int:
    number, mark = task
    if number == 5 and not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(task: tuple[int, str]) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def refuse(number: int) -> int:
    raise UserError(f"row {number} is not right")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_are_in_the_order_of_the_tasks(workers):
    assert list(run_tasks(slow_double, range(20), workers)) == [2 * n for n in range(20)]


def test_no_task_and_one_task():
    assert list(run_tasks(slow_double, [], 4)) == []
    assert list(run_tasks(slow_double, [4], 4)) == [8]


def test_tasks_are_drawn_as_results_leave():
    drawn = []

    def stream():
        for number in range(100):
            drawn.append(number)
            yield number

    results = run_tasks(slow_double, stream(), 2)
    assert next(results) == 0
    assert len(drawn) <= 2 * AHEAD + 1
    results.close()


def test_a_killed_worker_costs_nothing(tmp_path):
    tasks = [(number, str(tmp_path / "died")) for number in range(12)]
    assert list(run_tasks(die_once, tasks, 2)) == list(range(12))
    assert (tmp_path / "died").exists(), "a worker was killed"


def test_a_piece_that_kills_every_worker_is_named():
    with pytest.raises(UserError, match=r"died 3 times over one piece of the data \(\(7, 'huge'\)\)"):
        list(run_tasks(die, [(7, "huge"), (8, "x")], 2))


def test_an_error_of_a_task_is_the_callers():
    with pytest.raises(UserError, match="row 0 is not right"):
        list(run_tasks(refuse, range(9), 2))
    with pytest.raises(UserError, match="workers: 0"):
        list(run_tasks(refuse, range(9), 0))


def test_a_program_needs_no_guard(tmp_path):
    """Workers do not run the program that began it all again."""
    program = tmp_path / "program.py"
    program.write_text("from data_prep.pool import run_tasks\nprint('begun', list(run_tasks(abs, [-1, -2, -3], 2)))\n")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert done.stdout == "begun [1, 2, 3]\n"
