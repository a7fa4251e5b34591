"""Where tasks run: processes of this machine, a Ray cluster, or an array of Slurm jobs.

In: tasks (`data_prep.tasks`), a folder and the digest of what they all depend on. Out: their values in order, their files in the folder.
The bytes are the same wherever they run. A worker that is killed costs its own task, which is begun again. After a failed task the others
are still done; then one `UserError` names what failed. Run again, only what is not finished is done.

==========  ========================================================================================================
``pool``    processes of this machine (`data_prep.pool.run_apart`)
``here``    this process, one task behind the other; the first error is raised as it is
``ray``     plain Ray tasks, on the cluster of `address` or of ``RAY_ADDRESS``, or on one of this process
``slurm``   an array (`data_prep.slurm_array`), each index a stretch of the tasks: ``python -m data_prep.engines FOLDER INDEX``
==========  ========================================================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from data_prep import remote_files
from data_prep.pool import MAX_BREAKS, default_workers, run_apart, start_server
from data_prep.remote_files import is_remote, join, local_path
from data_prep.slurm_array import find_array, read_stretch, run_array, write_failure
from data_prep.stopping import keeping_sigterm
from data_prep.tasks import Run, Task, WorkKept, begin_run, code_digest, do_ordered, end_run, find_done
from starchat.config import closest
from starchat.errors import UserError, counted, guarded
from starchat.files import alone_in

MAX_FAILURES_SHOWN = 20
MAX_CAUSE_CHARACTERS = 500

DIED = f"its process died {MAX_BREAKS} times; it may need more memory than there is: take fewer (--workers)"

RAY_ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(MAX_BREAKS - 1)}
"""Ray as it comes reports its use to its makers, and begins a task that needs too much memory again for ever."""

RAY_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Has a cluster of one process listen on the loopback address alone, as seen with Ray 2.60; else whoever reaches its ports can run code."""

RAY_TASKS_AHEAD = 1000
"""Tasks that the cluster is told of beforehand, so that a driver of millions stays small."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where tasks run. `workers`: how many at once (pool: all cores; Ray: all that the cluster has), for Slurm the indices of the array.

    `address` is a Ray cluster's, ``auto`` for the one that runs on this machine, or ``local``. `sbatch` are further options, such as
    ``--cpus-per-task=8``, which then is how many tasks an index does at once. Without `submit` the command is told, to submit by hand.
    With `stop` the first error of a task is raised as it is, and the others are not waited for.
    """

    kind: str = "pool"
    workers: int | None = None
    address: str | None = None
    sbatch: tuple[str, ...] = ()
    submit: bool = True
    stop: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a task ended: with a value, or because of something."""

    value: Any = None
    cause: str | None = None
    error: BaseException | None = None


Endings = Generator[tuple[str, Ended], None, None]


def run_tasks_on(
    engine: Engine,
    tasks: Iterable[Task],
    folder: str | Path,
    digest: str,
    progress: str | None = None,
    is_current: Callable[[Any], bool] = lambda value: True,
) -> list[Any]:
    """Return the value of each task, in order; raise `TasksFailed` that names each one that failed, when the others have ended.

    `digest` is that of everything all tasks depend on, but the code (`data_prep.tasks.job_digest`). Names of tasks name their folders.
    A stream of tasks is drawn as workers get free, where they are processes of this machine; with `stop` of the engine the first error is
    raised as it is. `progress` names a bar. A result is made again if its value is not current.
    """
    from tqdm import tqdm

    require_engine(engine)
    place = str(folder) if is_remote(folder) else str(local_path(folder).absolute())
    names: dict[str, None] = {}
    values, failed = dict[str, Any](), dict[str, str]()
    with (
        contextlib.nullcontext() if is_remote(place) else alone_in(Path(place)),
        tqdm(desc=progress, unit=" tasks", disable=progress is None, file=sys.stderr) as bar,
    ):
        stated = Run(place, digest, code_digest(), "")

        def left_of(some: Sequence[Task]) -> Iterator[Task]:
            """Yield the tasks that are not done."""
            found = find_done(some, stated)
            for task in some:
                _require_sound(task, names)
                names[task.name] = None
                if task.name in found and is_current(value := found[task.name]["value"]):
                    values[task.name] = value
                    bar.update()
                    continue
                if task.name in found:
                    remote_files.remove(join(place, task.name))
                yield task

        if isinstance(tasks, Sequence) or engine.kind not in ("pool", "here"):
            tasks = list(tasks)
            bar.total = len(tasks)
            left = list(left_of(tasks))
            run = find_array(tasks, left, stated, engine.kind == "slurm") or begin_run(place, digest)
            endings = ENGINES[engine.kind](engine, iter(left), run) if left else _nothing()
        else:
            run = find_array((), (), stated, join_in=False) or begin_run(place, digest)
            endings = ENGINES[engine.kind](engine, (task for one in tasks for task in left_of((one,))), run)
        with contextlib.closing(endings):  # whoever takes away what was made must not meet a task that still makes it
            for name, ended in endings:
                (values if ended.cause is None else failed)[name] = ended.value if ended.cause is None else ended.cause
                if engine.stop and ended.error is not None and not isinstance(ended.error, BrokenProcessPool):
                    raise ended.error
                bar.update()
        if engine.kind != "slurm" or not failed:
            end_run(run)
    if failed:
        raise TasksFailed(_failures(failed, len(names), place))
    return [values[name] for name in names]


class TasksFailed(WorkKept):
    """Some tasks failed, and the others are done: run again, only what failed is."""


def require_engine(engine: Engine) -> None:
    """Raise `UserError` for an engine that is none."""
    if engine.kind not in ENGINES:
        raise UserError(f"--engine: {engine.kind!r}; {closest(engine.kind, ENGINES)}")
    if engine.workers is not None and engine.workers < 1:
        raise UserError(f"--workers: {engine.workers}; expected a number from 1, the tasks that run at once")


def _require_sound(task: Task, names: Container[str]) -> None:
    assert task.name not in names, "each task has a name of its own"
    assert re.fullmatch(r"\w[\w.-]*", task.name), "a name is that of a folder"
    function = task.function
    assert function.__module__ != "__main__" and function.__qualname__.isidentifier(), f"{function} is not found by other processes"


def _failures(failed: dict[str, str], tasks: int, folder: str) -> str:
    """Return what to tell of failed tasks, those that failed alike together."""
    alike: dict[str, list[str]] = {}
    for name, cause in sorted(failed.items()):
        alike.setdefault(cause, []).append(name)
    lines = []
    for cause, names in list(alike.items())[:MAX_FAILURES_SHOWN]:
        others = f" and {counted(len(names) - 1, 'other')}" if names[1:] else ""
        lines.append(f"{folder}: task {names[0]}{others}: {cause}")
    if len(alike) > MAX_FAILURES_SHOWN:
        lines.append(f"and {counted(len(alike) - MAX_FAILURES_SHOWN, 'other cause')}")
    again = "only this one is run" if len(failed) == 1 else "only these are run"
    rest = ", the others are done" if len(failed) < tasks else ""
    lines.append(f"{len(failed):,} of {counted(tasks, 'task')} failed{rest}; mend the cause and run again: {again}")
    return "\n".join(lines)


def cause_of(error: BaseException, trace: str = "") -> str:
    """Return why a task failed, and where if nobody foresaw it."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, BrokenProcessPool):
        return DIED
    places = re.findall(r'File "([^"\n]+)", line (\d+), in', f"{error.__cause__ or ''}{trace}")
    where = f" ({places[-1][0]}:{places[-1][1]})" if places else ""
    said = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {said[:MAX_CAUSE_CHARACTERS]}{where}"


def _ended(future: Future[Any]) -> Ended:
    error = future.exception()
    return Ended(future.result()) if error is None else Ended(cause=cause_of(error), error=error)


def _on_pool(engine: Engine, tasks: Iterator[Task], run: Run) -> Endings:
    workers = default_workers() if engine.workers is None else engine.workers
    names: list[str] = []
    first = next(tasks, None)
    if first is None:
        return
    start_server([first.function.__module__], 2)

    def ordered() -> Iterator[tuple[Task, Run]]:
        for task in itertools.chain((first,), tasks):
            names.append(task.name)
            yield task, run

    for number, future in run_apart(do_ordered, ordered(), workers):
        yield names[number], _ended(future)


def _nothing() -> Endings:
    yield from ()


def _here(engine: Engine, tasks: Iterator[Task], run: Run) -> Endings:
    for task in tasks:
        yield task.name, Ended(do_ordered((task, run)))


def _on_ray(engine: Engine, tasks: Iterator[Task], run: Run) -> Endings:
    with _ray(engine) as ray:
        remote = ray.remote(num_cpus=1, max_retries=MAX_BREAKS - 1, retry_exceptions=[BrokenProcessPool])(do_ordered)
        waiting = iter(tasks)
        names: dict[Any, str] = {}
        while True:
            for task in waiting:
                names[remote.remote((task, run))] = task.name
                if len(names) >= (engine.workers or RAY_TASKS_AHEAD):
                    break
            if not names:
                return
            ray.wait(list(names))
            for reference in ray.wait(list(names), num_returns=len(names), timeout=0)[0]:
                try:
                    ended = Ended(ray.get(reference))
                except ray.exceptions.RayTaskError as error:
                    ended = Ended(cause=cause_of(error.cause, str(error)))
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError):
                    ended = Ended(cause=DIED)
                except ray.exceptions.RayError as error:
                    ended = Ended(cause=cause_of(error))
                yield names.pop(reference), ended


@contextlib.contextmanager
def _ray(engine: Engine) -> Iterator[Any]:
    """Give Ray, connected; what was not connected before is let go of."""
    address = engine.address or os.environ.get("RAY_ADDRESS") or "local"
    for name, value in {**RAY_ALWAYS, **(RAY_ALONE if address == "local" else {})}.items():
        os.environ.setdefault(name, value)
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise UserError("--engine ray: the package is not installed; pip install 'starchat[ray]', or take --engine pool") from None
    if ray.is_initialized():
        yield ray
        return
    own = {"num_cpus": engine.workers or default_workers(), "include_dashboard": False} if address == "local" else {}
    try:
        with keeping_sigterm():  # Ray would end this process without a word, and with status 15
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError) as error:
        remedy = "expected a running Ray cluster, or local; begin one with ray start --head"
        named = "--address" if engine.address or address == "local" else "RAY_ADDRESS"
        raise UserError(f"{named}: {address!r}: {str(error).split(chr(10), 1)[0]}; {remedy}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _on_slurm(engine: Engine, tasks: Iterator[Task], run: Run) -> Endings:
    left = list(tasks)
    for name, value, cause in run_array(left, run, engine.workers, engine.sbatch, engine.submit):
        yield name, Ended(value, cause)


ENGINES: dict[str, Callable[[Engine, Iterator[Task], Run], Endings]] = {
    "pool": _on_pool,
    "here": _here,
    "ray": _on_ray,
    "slurm": _on_slurm,
}


def main(arguments: Sequence[str]) -> int:
    """Do the stretch of tasks of one index of an array; return 0 if all of them are done, 1 otherwise."""
    making, index = arguments
    tasks, run = read_stretch(making, int(index))
    workers = int(os.environ.get("SLURM_CPUS_PER_TASK") or 1)
    failures = 0
    for number, future in run_apart(do_ordered, [(task, run) for task in tasks], workers):
        if (cause := _ended(future).cause) is not None:
            failures += 1
            write_failure(tasks[number].name, run, cause)
            print(f"task {tasks[number].name}: {cause}", file=sys.stderr, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
