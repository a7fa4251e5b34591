"""Ctrl-C and SIGTERM: the workers end at once, what is done stays, and one line says so. So it does after any other sudden end.

SIGTERM is what ``kill``, Slurm, systemd and containers send. A second one changes nothing (``timeout`` sends it to the program and to its
group); a second Ctrl-C ends the wait for whatever is being put away.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from data_prep.tasks import DONE
from starchat.errors import Preempted, UserError

DEFAULTS: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""How a process heeds them by itself. A program that heeds one otherwise goes on doing so."""


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Have both signals raise `KeyboardInterrupt` in the block and end its workers; of SIGTERM it becomes `Preempted` behind it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN if each == signal.SIGTERM else DEFAULTS[each])
        heard.append(number)
        _end_workers()
        raise KeyboardInterrupt

    ours = [each for each, default in DEFAULTS.items() if signal.getsignal(each) is default]
    try:
        for each in ours:
            signal.signal(each, stop)
        yield
    except KeyboardInterrupt as interrupt:
        _end_workers()  # one that was being started has just begun
        if signal.SIGTERM in heard:
            raise Preempted(f"terminated{_behind(interrupt)}") from None
        raise KeyboardInterrupt(f"interrupted{_behind(interrupt)}") from None
    finally:
        for each in ours:
            signal.signal(each, DEFAULTS[each])


@contextlib.contextmanager
def telling_of(folder: Path) -> Iterator[None]:
    """Have whatever ends the block, but a `UserError`, say that the folder is gone on from, if anything in it is done."""

    def tell(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or isinstance(error, UserError) or not has_done(folder):
            return
        said = f"what is done is kept: the same command goes on from {folder}"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(said) from None
        error.add_note(said)

    with contextlib.ExitStack() as stack:
        stack.push(tell)
        yield


def has_done(folder: Path) -> bool:
    """Return whether any task in a folder is done."""
    return next(folder.rglob(DONE), None) is not None


@contextlib.contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Undo what the block sets for SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _behind(interrupt: KeyboardInterrupt) -> str:
    return f"; {interrupt}" if interrupt.args else ""


def _end_workers() -> None:
    for worker in multiprocessing.active_children():
        worker.terminate()
