"""Tasks as an array of Slurm jobs: written to a folder, submitted, waited for, and submitted again where a job died.

In: tasks, and a run whose folder all nodes share (or an address in a store). In the run's own folder: ``array.pickle``, the tasks in
stretches, of which each index does one; ``job.json``, the number of the array that was submitted last; ``failed/NAME.json``, why a task
failed; ``logs/``. Whether a task is done is told by its own result alone. A driver that is started again joins an array that still runs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep import remote_files
from data_prep.remote_files import is_remote, join, local_path
from data_prep.tasks import MAKING, Run, Task, find_done, task_digest, write_beside
from starchat.errors import UserError

PLAN, JOB = "array.pickle", "job.json"

INDICES = 100
"""Indices of an array unless the engine's `workers` says otherwise; Slurm admits 1,001 as it comes (``MaxArraySize``)."""

SUBMISSIONS = 3
"""How often an index is submitted that ends without having done its tasks or said why they failed."""

FIRST_POLL_S, LAST_POLL_S = 0.5, 15.0

HELD = ("JobHeldAdmin", "JobHeldUser", "launch failed requeued held", "DependencyNeverSatisfied", "BadConstraints")
"""Reasons for which an array waits for ever unless somebody lets it go."""


def find_array(tasks: Sequence[Task], left: Sequence[Task], run: Run, join_in: bool) -> Run | None:
    """Return the run of an array that was written for these tasks and has those that are left; raise `UserError` if another is at work."""
    digests = {task.name: task_digest(task, run) for task in tasks}
    for making in _makings(run.folder):
        plan, job = join(run.folder, making, PLAN), join(run.folder, making, JOB)
        found = remote_files.read_all([plan, job])
        if plan not in found:
            continue
        planned = json.loads(found[plan].split(b"\n", 1)[0])
        same = planned.items() <= digests.items() and {task.name for task in left} <= planned.keys()
        if same and join_in:
            return dataclasses.replace(run, making=making)
        if job in found and not _is_over(str(number := json.loads(found[job]))):
            raise UserError(f"{run.folder}: Slurm job {number} is at work there; wait until it has ended, or end it: scancel {number}")
    return None


def _makings(folder: str) -> list[str]:
    """Return the names of the folders in which runs make or made things."""
    if is_remote(folder):
        return sorted({path.split("/", 1)[0] for path in remote_files.sizes_bytes(folder) if path.startswith(MAKING)})
    return sorted(path.name for path in local_path(folder).glob(f"{MAKING}*"))


def read_stretch(making: str, index: int) -> tuple[list[Task], Run]:
    """Return the tasks of one index of the array that is written in a run's own folder."""
    plan = join(making, PLAN)
    found = remote_files.read_all([plan])
    if plan not in found:
        raise UserError(f"{plan}: no such file; the run that wrote this array is over; submit the one that the present run told")
    stretches, run = pickle.loads(found[plan].split(b"\n", 1)[1])
    return stretches[index], run


def write_failure(name: str, run: Run, cause: str) -> None:
    """Note why a task failed, where the driver looks for it."""
    write_beside(join(run.folder, run.making, "failed", f"{name}.json"), json.dumps(cause).encode())


def run_array(
    tasks: Sequence[Task], run: Run, indices: int | None, options: Sequence[str], submit: bool
) -> Iterator[tuple[str, Any, str | None]]:
    """Yield the name of each task with its value, or with why it failed, in the order in which they end."""
    stretches = _plan(tasks, run, indices or INDICES)
    left = {task.name: task for task in tasks}
    failures: dict[str, str] = {}
    place = join(run.folder, run.making, JOB)
    text = remote_files.read_all([place]).get(place)
    job = None if text is None or _is_over(str(json.loads(text))) else str(json.loads(text))
    if job is None and not submit:
        raise UserError(_by_hand(left, run, stretches, options))
    for _ in range(SUBMISSIONS):
        if job is None:
            remote_files.remove(join(run.folder, run.making, "failed"))
            job = _submit(_command(run, _unfinished(stretches, left), options))
            write_beside(place, json.dumps(job).encode())
        for name, value in _wait(job, left, run):
            yield name, value, None
        failures = _failures(left, run)
        died = {name: _last_words(job, index, run) for index, stretch in enumerate(stretches) for name in stretch if name in left}
        job = None
        if left.keys() <= failures.keys():
            break
    for name in left:
        yield name, None, failures.get(name) or died[name]


def _plan(tasks: Sequence[Task], run: Run, indices: int) -> list[list[str]]:
    """Return the names of the tasks of each index; they are written for the indices to read, if they are not yet."""
    place = join(run.folder, run.making, PLAN)
    found = remote_files.read_all([place])
    if place in found:
        stretches = pickle.loads(found[place].split(b"\n", 1)[1])[0]
    else:
        count = min(indices, len(tasks))
        stretches = [list(tasks[i * len(tasks) // count : (i + 1) * len(tasks) // count]) for i in range(count)]
        head = json.dumps({task.name: task_digest(task, run) for task in tasks}).encode()
        write_beside(place, head + b"\n" + pickle.dumps((stretches, run)))
    return [[task.name for task in stretch] for stretch in stretches]


def _unfinished(stretches: Sequence[Sequence[str]], left: Iterable[str]) -> list[int]:
    names = set(left)
    return [index for index, stretch in enumerate(stretches) if not names.isdisjoint(stretch)]


def _command(run: Run, indices: Sequence[int], options: Sequence[str]) -> list[str]:
    """Return the command that submits an array."""
    making = join(run.folder, run.making)
    variables = ["env", f"PYTHONPATH={os.environ['PYTHONPATH']}"] if os.environ.get("PYTHONPATH") else []
    work = shlex.join([*variables, sys.executable, "-m", "data_prep.engines", making if is_remote(making) else os.path.abspath(making)])
    command = ["sbatch", "--parsable", "--job-name=starchat-tasks", f"--array={','.join(map(str, indices))}"]
    return [*command, f"--output={_logs(run)}/%A_%a.log", *options, f'--wrap=exec {work} "$SLURM_ARRAY_TASK_ID"']


def _logs(run: Run) -> Path:
    """Return the folder of the logs: the run's own, or the working folder where that is an address."""
    if is_remote(run.folder):
        return Path.cwd()
    folder = local_path(run.folder) / run.making / "logs"
    folder.mkdir(exist_ok=True)
    return folder.absolute()


def _submit(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        told = shlex.join(command)
        raise UserError(f"--engine slurm: sbatch is not installed here; with --no-submit you submit by hand: {told}") from None
    if done.returncode:
        raise UserError(f"sbatch: {done.stderr.strip()}; check the options of --sbatch; the command was: {shlex.join(command)}")
    return done.stdout.strip().split(";", 1)[0]


def _by_hand(unfinished: Iterable[str], run: Run, stretches: Sequence[Sequence[str]], options: Sequence[str]) -> str:
    """Return what to tell a user who submits arrays by hand."""
    names = list(unfinished)
    failed = [f"{run.folder}: task {name}: {cause}" for name, cause in sorted(_failures(names, run).items())]
    remote_files.remove(join(run.folder, run.making, "failed"))
    command = shlex.join(_command(run, _unfinished(stretches, names), options))
    what = "task is left; submit it" if len(names) == 1 else "tasks are left; submit them"
    left = f"{run.folder}: {len(names):,} {what}, and run this again when the array has ended:"
    return "\n".join([*failed, left, command])


def _wait(job: str, left: dict[str, Task], run: Run) -> Iterator[tuple[str, Any]]:
    """Yield tasks that are done, which leaves `left` without them, until the array has ended."""
    pause_s, over = FIRST_POLL_S, False
    while left and not over:
        time.sleep(pause_s)
        pause_s = min(LAST_POLL_S, pause_s * 1.3)
        over = _is_over(job)
        for name, done in find_done(list(left.values()), run).items():
            del left[name]
            yield name, done["value"]


def _is_over(job: str) -> bool:
    """Return whether an array has ended. A controller that does not answer is asked again later."""
    try:
        done = subprocess.run(["squeue", "--noheader", f"--jobs={job}", "--format=%T|%r"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return True
    if done.returncode:
        return "Invalid job id" in done.stderr
    jobs = [line.split("|", 1) for line in done.stdout.split("\n") if line]
    held = {reason for state, reason in jobs if state == "PENDING" and reason in HELD}
    if held and all(state == "PENDING" and reason in HELD for state, reason in jobs):
        reasons = ", ".join(sorted(held))
        raise UserError(f"Slurm job {job}: waits for ever ({reasons}); let it go: scontrol release {job}, or end it: scancel {job}")
    return not jobs


def _failures(names: Iterable[str], run: Run) -> dict[str, str]:
    """Return why tasks failed, as far as their jobs could say it."""
    places = {join(run.folder, run.making, "failed", f"{name}.json"): name for name in names}
    return {places[place]: json.loads(text) for place, text in remote_files.read_all(places).items()}


def _last_words(job: str, index: int, run: Run) -> str:
    log = _logs(run) / f"{job}_{index}.log"
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    said = next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
    return f"its Slurm job ended before it was done, {SUBMISSIONS} times; {log} ends with: {said[:500]}"
