"""The one exception that a user sees, and how it is shown."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

NO_TELEMETRY = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "DO_NOT_TRACK": "1",
}

LIBRARIES = r"(torch|transformers|trl|peft|accelerate|deepspeed)\b"
"""They warn of names in each other that are to change, which is nothing for a user to do."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Something that the user must change. Printed without a traceback; exit status 2.

    The message says what is wrong, with its value and place; what was expected; and what to do:
    ``chats.jsonl:412: role 'bot'; expected system, user, assistant or tool; map it with roles: {bot: assistant}``
    """


class Faults:
    """What `UserError`s say, kept until all work that can be tried has been, to be raised as one."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def get(self, work: Callable[..., T], *arguments: Any) -> T | None:
        """Return what work returns, or None if it raises a `UserError`."""
        try:
            return work(*arguments)
        except UserError as error:
            self._found.append(str(error))
        return None

    def add(self, message: str) -> None:
        """Keep a message."""
        self._found.append(message)

    def tell(self) -> None:
        """Raise one `UserError` of all that was found, if anything was."""
        if self._found:
            raise UserError("\n".join(self._found))


class Preempted(Exception):
    """Work that was told to leave the machine, and saved what it had. Exit status `PREEMPTED`: not finished, run again."""


PREEMPTED = 128 + 15
"""What a shell says of a program that SIGTERM ended; a queue that sees it may start the program again."""


def counted(count: int, noun: str) -> str:
    """Return a number with what it counts, for a message.

    >>> counted(1, "task"), counted(1200, "task")
    ('1 task', '1,200 tasks')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def guarded(work: Callable[[], int]) -> int:
    """Return the exit status of `work`; what the user must change is printed as one message, without a traceback."""
    os.environ.update({key: value for key, value in NO_TELEMETRY.items() if key not in os.environ})
    warnings.filterwarnings("ignore", category=FutureWarning, module=LIBRARIES)
    try:
        return work()
    except UserError as error:
        print(f"starchat: {error}", file=sys.stderr)
    except Preempted as stop:
        print(f"starchat: {stop}", file=sys.stderr)
        return PREEMPTED
    except BrokenPipeError:  # whoever read standard output, such as head, has left; Python would fail again when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            raise
        place = error.filename2 or error.filename if error.errno in DISK_FULL else error.filename  # it is what is copied to that is full
        where = f"{place}: " if place else ""
        remedy = "free some space, or choose an output elsewhere" if error.errno in DISK_FULL else "check the path and its permissions"
        told = [os.strerror(error.errno), remedy, "what was there before is untouched", *getattr(error, "__notes__", ())]
        print(f"starchat: {where}{'; '.join(told)}", file=sys.stderr)
    except KeyboardInterrupt as interrupt:
        print(f"starchat: {interrupt if interrupt.args else 'interrupted'}", file=sys.stderr)
        return 130
    return 2
