"""Pure tasks on all cores, their results in the order of the tasks.

In: a function of a module and a stream of picklable tasks. Out: what the function returns for each, in order, whatever the number of
processes is, so that a dataset's bytes do not depend on it. Tasks are drawn as results leave: memory does not grow with their number.

A worker that is killed, or that the system ends for want of memory, costs nothing: the tasks that were under way are done again by
new workers. If this process is killed, its workers end too. Workers are forked from a small server process, never from this one, whose
threads a fork would tear apart; they do not import the program that began it all, which needs no guard for that.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import TypeVar

from starchat.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD = 3
"""Tasks under way or waiting, for each worker: enough that none idles while this process writes."""

PIPE_BYTES = 1 << 20
"""How much of its results the workers of a pool may have written before the others must wait for this process to read it. Linux gives 64
KB by itself, and up to this much to whoever asks; of results of about that size it saves a tenth of the time."""

MAX_BREAKS = 3
"""How often workers may die while one and the same task is the oldest one under way."""


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int | None = None) -> Iterator[Result]:
    """Yield ``function(task)`` of each task, in order. One worker, or one task, is done in this process.

    >>> list(run_tasks(abs, [-2, 3], workers=1))
    [2, 3]
    """
    workers = default_workers() if workers is None else workers
    if workers < 1:
        raise UserError(f"workers: {workers}; expected a number from 1, the processes that read and build")
    stream = iter(tasks)
    first = list(itertools.islice(stream, 2))
    if workers == 1 or len(first) < 2:
        yield from map(function, first)
        yield from map(function, stream)
        return
    waiting: collections.deque[Task] = collections.deque(first)
    breaks = 0
    while True:
        done = 0
        try:
            for result in _run(function, waiting, stream, workers):
                done += 1
                yield result
            return
        except BrokenProcessPool:
            breaks = 1 if done else breaks + 1
            if breaks == MAX_BREAKS:
                raise UserError(
                    f"a worker process died {breaks} times over one piece of the data ({str(waiting[0])[:200]}); "
                    "it may need more memory than there is: take fewer (--workers), or leave that piece out"
                ) from None


def run_apart(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int | None = None
) -> Iterator[tuple[int, Future[Result]]]:
    """Yield the number of each task, from 0, with its ended future, which holds the result or the error, as they end.

    Each worker is a pool of its own: one that dies takes nothing along but its own task, which is begun anew `MAX_BREAKS` times in all.
    """
    start_server([function.__module__], 2)
    waiting = enumerate(tasks)
    under_way: dict[Future[Result], tuple[int, Task, int, ProcessPoolExecutor]] = {}

    def begin(number: int, task: Task, turn: int, pool: ProcessPoolExecutor) -> None:
        with _no_main():
            try:
                future = pool.submit(function, task)
            except BrokenProcessPool:  # its worker died with nothing to do
                pool.shutdown()
                pool = _new_pool(1)
                future = pool.submit(function, task)
            under_way[future] = (number, task, turn, pool)

    try:
        for number, task in itertools.islice(waiting, default_workers() if workers is None else workers):
            begin(number, task, 1, _new_pool(1))
        while under_way:
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                number, task, turn, pool = under_way.pop(future)
                broken = isinstance(future.exception(), BrokenProcessPool)
                if broken:
                    pool.shutdown()
                    pool = _new_pool(1)
                if broken and turn < MAX_BREAKS:
                    begin(number, task, turn + 1, pool)
                    continue
                if (following := next(waiting, None)) is not None:
                    begin(*following, 1, pool)
                else:
                    pool.shutdown(wait=False)
                yield number, future
    finally:
        for _, _, _, pool in under_way.values():
            pool.shutdown(wait=True, cancel_futures=True)


def start_server(modules: Sequence[str], workers: int) -> None:
    """Start the process that workers are forked from, which imports what they need while this process looks at the inputs.

    Where there is one already it stays as it is, and workers import what it does not hold.
    """
    if workers > 1:
        multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))
        with _no_main(), _no_current_folder(), _no_interrupts():
            forkserver.ensure_running()


def _run(function: Callable[[Task], Result], waiting: collections.deque[Task], stream: Iterator[Task], workers: int) -> Iterator[Result]:
    """Yield the results of `waiting`, which keeps what has not been yielded, and of `stream` behind it."""
    start_server([function.__module__], workers)
    pool = _new_pool(workers)
    futures: collections.deque[Future[Result]] = collections.deque()
    try:
        with _no_main():
            futures.extend(pool.submit(function, task) for task in waiting)
        while waiting:
            while len(waiting) < AHEAD * workers and (task := next(stream, None)) is not None:
                waiting.append(task)
                with _no_main():
                    futures.append(pool.submit(function, task))
            result = futures[0].result()
            futures.popleft()
            waiting.popleft()
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _new_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool whose workers have the variables of this process as they are now, and not as they were when the server began."""
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(dict(os.environ),))
    with contextlib.suppress(AttributeError, OSError):  # a system, or a Python, that has it otherwise
        fcntl.fcntl(pool._result_queue._reader.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[attr-defined]
    return pool


def _begin_worker(variables: dict[str, str]) -> None:
    """Have a worker end with the process that it works for, and look for cycles of garbage seldom, never in what it is born with.

    A worker that waits for a task would never learn that nobody is left to give it one: it holds the other end of that pipe itself.

    Tasks make many small containers that live briefly, and next to no cycles: looking after each 700 of them, as is the rule, costs
    the workers of parsed JSON a fifth of their time.
    """
    os.environ.clear()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the process that it works for says what there is to say
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _no_current_folder() -> Iterator[None]:
    """Have a Python that is started look for modules where this one does, and not first in whatever folder is the current one."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Have a process that is started not heed Ctrl-C, which goes to all processes of a terminal: each would show a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Hide the main module while a process may be started: `multiprocessing` would have each worker run that program's file again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
