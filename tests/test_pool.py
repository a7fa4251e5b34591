"""Tasks on several processes: in order, drawn as they are needed, and done again when a worker is killed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep import pool
from data_prep.pool import AHEAD, run_apart, run_tasks
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


@pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="Linux tells the size of a pipe")
def test_workers_need_not_wait_for_each_others_results_to_be_read():
    with pool._new_pool(1) as found:
        assert fcntl.fcntl(found._result_queue._reader.fileno(), fcntl.F_GETPIPE_SZ) == pool.PIPE_BYTES


def test_a_program_needs_no_guard(tmp_path):
    """Workers do not run the program that began it all again."""
    program = tmp_path / "program.py"
    program.write_text("from data_prep.pool import run_tasks\nprint('begun', list(run_tasks(abs, [-1, -2, -3], 2)))\n")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert done.stdout == "begun [1, 2, 3]\n"


def variable(name: str) -> str | None:
    return os.environ.get(name)


def test_workers_take_no_modules_from_the_current_folder(tmp_path):
    for name in ("orjson.py", "data_prep.py"):
        (tmp_path / name).write_text("raise SystemExit('a file of the user was run')\n")
    (tmp_path / "inner").mkdir()
    program = tmp_path / "inner" / "program.py"
    program.write_text("from data_prep.pool import run_tasks\nprint(list(run_tasks(abs, [-1, -2, -3], workers=2)))\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "[1, 2, 3]\n", done.stderr


def test_workers_have_the_variables_of_this_moment(monkeypatch):
    assert list(run_tasks(variable, ["STARCHAT_NOW"] * 3, 2)) == [None] * 3
    monkeypatch.setenv("STARCHAT_NOW", "set")
    assert list(run_tasks(variable, ["STARCHAT_NOW"] * 3, 2)) == ["set"] * 3


def test_apart_a_killed_worker_takes_nothing_along(tmp_path):
    tasks = [(number, str(tmp_path / "died")) for number in range(12)]
    assert sorted((number, future.result()) for number, future in run_apart(die_once, tasks, 3)) == [(n, n) for n in range(12)]
    ended = dict(run_apart(die, [(7, "x"), (8, "x")], 2))
    assert [type(ended[number].exception()).__name__ for number in range(2)] == ["BrokenProcessPool"] * 2
    ended = dict(run_apart(refuse, range(3), 2))
    assert [str(ended[number].exception()) for number in range(3)] == [f"row {n} is not right" for n in range(3)]


def test_workers_end_with_the_process_that_was_killed(tmp_path):
    """Those that wait for a task, and those that are in the middle of one."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, time\nfrom test_pool import note_and_wait\nfrom data_prep.pool import run_tasks\n"
        f"run = run_tasks(note_and_wait, [({str(tmp_path)!r}, n) for n in range(3)], 3)\n"
        "next(run)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}{os.pathsep}{here}"}
    done = subprocess.run([sys.executable, program], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    workers = [int(path.name.removeprefix("worker-")) for path in tmp_path.glob("worker-*")]
    assert len(workers) == 3
    deadline = time.monotonic() + 10
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "workers outlive the process that they work for"
        time.sleep(0.05)


def note_and_wait(task: tuple[str, int]) -> int:
    folder, number = task
    (Path(folder) / f"worker-{os.getpid()}").touch()
    while len(list(Path(folder).glob("worker-*"))) < 3:
        time.sleep(0.01)
    time.sleep(60 if number == 2 else 0)
    return number


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


INTERRUPTED = {
    "in the server's imports": "start_server(['slow_module'], 2)\nprint('up', flush=True)\ntime.sleep(30)",
    "in tasks": "start_server([], 2)\nlist(run_apart(print_and_sleep, [30, 30], 2))",
}


@pytest.mark.parametrize("moment", INTERRUPTED)
def test_an_interrupt_is_told_once(moment: str, tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of a terminal; those that work end at once and say nothing."""
    text = "import time\n\n\ndef print_and_sleep(seconds):\n    print('up', flush=True)\n    time.sleep(seconds)\n"
    (tmp_path / "sleeping.py").write_text(text, encoding="utf-8")
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(2)\n", encoding="utf-8")
    begin = "import sys, time\nfrom data_prep.pool import run_apart, start_server\nfrom sleeping import print_and_sleep\n"
    body = INTERRUPTED[moment].replace("\n", "\n    ")
    program = f"{begin}try:\n    {body}\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent.parent}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", program]
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "up\n"
    time.sleep(0.5)
    os.killpg(driver.pid, signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert (driver.returncode, err) == (130, "")
