"""Where tasks run: the same bytes from every engine, nothing lost to a kill, nothing done twice."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from data_prep.engines import DIED, Engine, cause_of, run_tasks_on
from data_prep.tasks import MAKING, Task, job_digest
from starchat.errors import UserError
from task_work import add_up, die, die_once, double_in_children, refuse, stumble, write_squares

ROOT = Path(__file__).parent.parent
DIGEST = job_digest({"a": 1}, [])


def squares(count: int, seconds: float = 0.0, log: str = "") -> list[Task]:
    return [Task(f"part-{number:02d}", write_squares, (number * 10, 10, seconds, log)) for number in range(count)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def start_driver(engine: str, folder: Path, tasks: str, **variables: str) -> subprocess.Popen[str]:
    """Start a process that runs the tasks that an expression names."""
    program = (
        "from test_task_engines import *\n"
        f"print(run_tasks_on({engine}, {tasks}, {str(folder)!r}, DIGEST))\n"
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **variables}
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_the_number_of_workers_changes_no_byte(tmp_path):
    tasks = squares(7)
    one = run_tasks_on(Engine(workers=1), tasks, tmp_path / "one", DIGEST)
    many = run_tasks_on(Engine(workers=3), tasks, tmp_path / "many", DIGEST)
    assert one == many == [{"first": n * 10, "sum": sum(k * k for k in range(n * 10, n * 10 + 10))} for n in range(7)]
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert len(contents(tmp_path / "one")) == 21
    places = tuple(str(tmp_path / "one" / task.name) for task in tasks)
    assert run_tasks_on(Engine(), [Task("sum", add_up, (places,))], tmp_path / "sum", DIGEST) == [sum(k * k for k in range(70))]
    assert run_tasks_on(Engine(), [], tmp_path / "none", DIGEST) == []


def test_a_killed_worker_costs_its_own_task_alone(tmp_path):
    log = str(tmp_path / "log")
    tasks = [*squares(4, 0.3, log), *(Task(f"dies-{n}", die_once, (n, str(tmp_path / f"died-{n}"))) for n in range(2))]
    assert run_tasks_on(Engine(workers=3), tasks, tmp_path / "run", DIGEST)[4:] == [0, 1]
    assert (tmp_path / "died-0").exists() and (tmp_path / "died-1").exists()
    assert sorted(Path(log).read_text().split()) == ["0", "10", "20", "30"], "what ran beside it was not begun anew"
    assert not list((tmp_path / "run").glob(f"{MAKING}*"))


def test_a_child_of_a_task_is_killed(tmp_path):
    tasks = [Task("children", double_in_children, (str(tmp_path / "mark"),)), *squares(2)]
    assert run_tasks_on(Engine(workers=2), tasks, tmp_path / "run", DIGEST)[0] == [2 * n for n in range(8)]
    assert (tmp_path / "mark").exists()


def test_failures_are_told_when_the_others_have_ended(tmp_path):
    bad = [Task("refuses", refuse, (3,)), *(Task(f"stumbles-{n}", stumble, (n,)) for n in range(2)), Task("dies", die, (1,))]
    with pytest.raises(UserError) as caught:
        run_tasks_on(Engine(workers=2), [*bad, *squares(4)], tmp_path / "run", DIGEST)
    where, told = tmp_path / "run", str(caught.value).split("\n")
    assert told[0] == f"{where}: task dies: {DIED}"
    assert told[1] == f"{where}: task refuses: part 3: is not right; expected another; change it"
    assert told[2].startswith(
        f"{where}: task stumbles-0 and 1 other: ZeroDivisionError: division by zero ({ROOT / 'tests' / 'task_work.py'}:"
    )
    assert told[3] == "4 of 8 tasks failed, the others are done; mend the cause and run again: only these are run"
    assert sorted(path.name for path in where.iterdir()) == [f"part-0{n}" for n in range(4)]


def test_one_that_failed_is_told_as_one(tmp_path):
    told = "1 of 2 tasks failed, the others are done; mend the cause and run again: only this one is run"
    with pytest.raises(UserError, match=rf"part 3: is not right; .*\n{told}$"):
        run_tasks_on(Engine(workers=2), [Task("refuses", refuse, (3,)), *squares(1)], tmp_path / "run", DIGEST)
    with pytest.raises(UserError, match=r"\n1 of 1 task failed; mend the cause and run again: only this one is run$"):
        run_tasks_on(Engine(workers=2), [Task("refuses", refuse, (3,))], tmp_path / "alone", DIGEST)


def test_the_first_error_is_raised_when_no_task_is_at_work_any_more(tmp_path):
    """Else they go on writing into what whoever catches the error takes away."""
    bad, *good = Task("refuses", refuse, (3,)), *squares(1, seconds=1.0)
    with pytest.raises(UserError, match="part 3: is not right") as caught:  # which keeps all that was under way
        run_tasks_on(Engine(workers=2, stop=True), [bad, *good], tmp_path / "run", DIGEST)
    assert (tmp_path / "run" / "part-00" / "done.json").is_file(), caught
    assert cause_of(ValueError("x" * 9999 + "\nsecond")) == "ValueError: " + "x" * 500
    assert cause_of(ValueError("bad"), 'File "a.py", line 3, in f\n  File "b.py", line 4, in g\n') == "ValueError: bad (b.py:4)"


def test_what_the_user_must_change(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="^--engine: 'pol'; did you mean 'pool'"):
        run_tasks_on(Engine("pol"), squares(1), tmp_path, DIGEST)
    with pytest.raises(UserError, match="^--workers: 0; expected a number from 1"):
        run_tasks_on(Engine(workers=0), squares(1), tmp_path, DIGEST)
    with pytest.raises(UserError, match="^--engine slurm: sbatch is not installed here; with --no-submit you submit by hand: sbatch"):
        monkeypatch.setenv("PATH", str(tmp_path))
        run_tasks_on(Engine("slurm"), squares(1), tmp_path / "slurm", DIGEST)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        UserError, match="^--engine ray: the package is not installed; pip install 'starchat\\[ray\\]', or take --engine pool$"
    ):
        run_tasks_on(Engine("ray"), squares(1), tmp_path / "ray", DIGEST)
    with pytest.raises(UserError, match="nosuch://x/y.*: Protocol not known.*expected a path, or an address"):
        run_tasks_on(Engine(), squares(1), "nosuch://x/y", DIGEST)


def test_a_killed_driver_leaves_no_worker_and_run_again_does_the_rest(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "run"
    driver = start_driver("Engine(workers=2)", folder, f"squares(8, 0.4, {str(log)!r})")
    wait_until(lambda: len(list(folder.glob("part-*"))) >= 2 and len(log.read_text().split()) >= 4)
    with pytest.raises(UserError, match="another process is at work in it"):
        run_tasks_on(Engine(workers=2), squares(8), folder, DIGEST)
    family = descendants(driver)
    assert len(family) >= 3
    driver.kill()
    driver.communicate()
    wait_until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family), 5)
    done = {path.name for path in folder.glob("part-*")}
    begun = log.read_text().split()
    assert 2 <= len(done) < 8
    assert list(folder.glob(f"{MAKING}*/part-*")), "half-made results lie about"
    values = run_tasks_on(Engine(workers=2), squares(8, 0.4, str(log)), folder, DIGEST)
    again = log.read_text().split()[len(begun) :]
    assert sorted(again) == sorted(str(n * 10) for n in range(8) if f"part-{n:02d}" not in done), "only what was not finished"
    assert values == run_tasks_on(Engine(workers=1), squares(8), tmp_path / "calm", DIGEST)
    assert outputs(folder) == outputs(tmp_path / "calm")


def outputs(folder: Path) -> dict[str, bytes]:
    """What tasks wrote themselves: their arguments, and so their digests, may differ."""
    return {name: data for name, data in contents(folder).items() if not name.endswith("/done.json")}


def test_killed_at_many_moments(tmp_path):
    """Worker or driver, again and again, until the run ends."""
    folder, log = tmp_path / "run", tmp_path / "log"
    for turn in range(40):
        driver = start_driver("Engine(workers=2)", folder, f"squares(12, 0.05, {str(log)!r})")
        before = len(list(folder.glob("part-*")))
        wait_until(lambda before=before, driver=driver: len(list(folder.glob("part-*"))) > before + 1 or driver.poll() is not None)
        if driver.poll() is None and turn % 2:
            for worker in descendants(driver)[-1:]:
                worker.kill()
            driver.wait(60)
        driver.kill()
        out, err = driver.communicate()
        if driver.returncode == 0:
            break
        assert driver.returncode == -signal.SIGKILL, err
    assert json.loads(out.replace("'", '"')) == run_tasks_on(Engine(workers=2), squares(12), tmp_path / "calm", DIGEST)
    assert outputs(folder) == outputs(tmp_path / "calm")


def test_an_array_submitted_by_hand(tmp_path):
    """The command is told; what its indices do is collected; failures are told and done again."""
    folder = tmp_path / "run"
    mark = tmp_path / "mended"
    tasks = [*squares(5), Task("later", later, (str(mark),))]
    engine = Engine("slurm", workers=3, submit=False, sbatch=("--partition=all",))
    with pytest.raises(UserError, match="6 tasks are left; submit them, and run") as caught:
        run_tasks_on(engine, tasks, folder, DIGEST)
    command = shlex.split(str(caught.value).split("\n")[-1])
    assert command[:2] == ["sbatch", "--parsable"] and "--array=0,1,2" in command and "--partition=all" in command
    work = next(part for part in command if part.startswith("--wrap=")).removeprefix("--wrap=")
    with pytest.raises(UserError, match="6 tasks are left"):
        run_tasks_on(engine, tasks, folder, DIGEST)
    statuses = [run_index(work, index) for index in range(3)]
    assert statuses == [0, 0, 1]
    with pytest.raises(UserError, match=r"task later: not mended\n.*: 1 task is left; submit it, and.*\n.*--array=2 "):
        run_tasks_on(engine, tasks, folder, DIGEST)
    mark.touch()
    assert run_index(work, 2) == 0
    assert run_tasks_on(engine, tasks, folder, DIGEST)[5] == "mended"
    assert not list(folder.glob(f"{MAKING}*"))
    assert run_index(work, 0) == 2, "the run is over"


def later(folder: Path, mark: str) -> str:
    """Refuse until a file is there."""
    if not os.path.exists(mark):
        raise UserError("not mended")
    return "mended"


def run_index(work: str, index: int) -> int:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "SLURM_ARRAY_TASK_ID": str(index)}
    inner = work.replace(f"PYTHONPATH={os.environ.get('PYTHONPATH')}", f"PYTHONPATH={environment['PYTHONPATH']}")
    return subprocess.run(["sh", "-c", inner], env=environment, cwd=ROOT, capture_output=True, check=False).returncode
