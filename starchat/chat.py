"""The terminal chat.

In: lines from standard input, a terminal or a pipe. Out: streamed replies on standard output. Ctrl-C stops a reply, not
the program. What the model writes cannot move the cursor, clear the screen or change colours: see `visible`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from starchat.config import closest, from_mapping, parse_yaml
from starchat.conversation import Conversation, answer, ask, edit, retry, undo
from starchat.dialogue import to_message
from starchat.errors import UserError
from starchat.sampling import Sampling

if TYPE_CHECKING:
    from starchat.generate import Assistant

HELP = """\
/system TEXT      set the system prompt for what follows; without TEXT show it; /system none removes it
/retry            have the last message answered again
/edit TEXT        replace your last message and have it answered
/undo             remove the last message and its reply
/set NAME VALUE   change how replies are sampled; /set alone shows all
/save FILE.jsonl  add the conversation to a file that starchat prepare reads
/help, /quit      this list; leave (also Ctrl-D)
End a line with \\ to go on in the next one. Begin with // for a message that begins with /. Ctrl-C stops a reply."""

COMMANDS = ("system", "retry", "edit", "undo", "set", "save", "help", "quit")

_PICTURES = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)} | {0x7F: 0x2421}
_DIRECTIONS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C], 0xFFFD)
_VISIBLE = _PICTURES | dict.fromkeys(range(0x80, 0xA0), 0xFFFD) | _DIRECTIONS


class _Interrupts:
    """What Ctrl-C does while the chat runs: at the prompt it gives up the line, during a reply it stops the reply (a second
    one drops it), and between the two it does nothing, so that at no moment it ends the program.
    """

    def __init__(self) -> None:
        self.reading = False
        self.stop: threading.Event | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.reading or (self.stop is not None and self.stop.is_set()):
            self.reading, self.stop = False, None
            raise KeyboardInterrupt
        if self.stop is not None:
            self.stop.set()

    @contextlib.contextmanager
    def at_prompt(self) -> Iterator[None]:
        """Ctrl-C raises KeyboardInterrupt in the block."""
        try:
            self.reading = True
            yield
        finally:
            self.reading = False

    @contextlib.contextmanager
    def in_reply(self) -> Iterator[threading.Event]:
        """Ctrl-C sets the event that is given; a second one raises KeyboardInterrupt in the block."""
        try:
            self.stop = threading.Event()
            yield self.stop
        finally:
            self.stop = None


@dataclasses.dataclass(frozen=True)
class _Session:
    conversation: Conversation
    sampling: Sampling
    interrupts: _Interrupts


class _CannotGoOn(UserError):
    """An error after which there is nothing to read on."""


def visible(text: str) -> str:
    """Return `text` with control characters, and those that turn the direction of text, made visible.

    >>> visible("\\x1b[2Jgone?\\r")
    '␛[2Jgone?␍'
    """
    return text.translate(_VISIBLE)


def run_chat(assistant: Assistant, sampling: Sampling, system: str = "") -> None:
    """Chat until /quit or the end of input. Errors are shown in one line and the chat goes on, but for input that is not UTF-8."""
    interrupts = _Interrupts()
    before = signal.signal(signal.SIGINT, interrupts)
    try:
        _tell(f"{assistant.name} · context {assistant.context_tokens:,} tokens · /help for commands")
        _exchange(assistant, _Session(Conversation(system), sampling, interrupts))
    finally:
        signal.signal(signal.SIGINT, before)


def _exchange(assistant: Assistant, session: _Session) -> None:
    """Read and answer until /quit or the end of input."""
    while True:
        try:
            with session.interrupts.at_prompt():
                text = _read_message()
            if text is None or text.strip() in ("/quit", "/exit"):
                return
            if text.strip():
                session = _respond(assistant, session, text)
        except _CannotGoOn as error:
            raise UserError(str(error)) from None
        except UserError as error:
            _tell(f"error: {error}")
        except KeyboardInterrupt:
            print()
            _tell("/quit or Ctrl-D leaves")


def _respond(assistant: Assistant, session: _Session, text: str) -> _Session:
    """Return the session after one message or command."""
    if text.startswith("//") or not text.startswith("/"):
        return _reply(assistant, session, ask(session.conversation, text.removeprefix("/") if text.startswith("//") else text))
    command, _, rest = text[1:].strip().partition(" ")
    rest = rest.strip()
    if command == "retry":
        return _reply(assistant, session, retry(session.conversation))
    if command == "edit":
        if not rest:
            raise UserError("/edit: nothing behind it; expected the text that replaces your last message")
        return _reply(assistant, session, edit(session.conversation, rest))
    if command == "undo":
        shorter, said = undo(session.conversation)
        _tell(f"removed: {visible(said)}")
        return dataclasses.replace(session, conversation=shorter)
    if command == "system":
        return _set_system(session, rest)
    if command == "set":
        return _set_sampling(session, rest)
    if command == "save":
        _save(session.conversation, rest)
    elif command == "help":
        _tell(HELP)
    else:
        raise UserError(f"/{command}: no such command; {closest(command, COMMANDS)} Begin with // to send it as a message")
    return session


def _reply(assistant: Assistant, session: _Session, conversation: Conversation) -> _Session:
    """Stream the reply to `conversation`; return the session with what was written of it."""
    fitted = assistant.fit(conversation.prompt, session.sampling)
    if fitted.dropped:
        _tell(f"the conversation is longer than the context: the oldest {fitted.dropped} exchange(s) were left out of the prompt")
    pieces: list[str] = []
    with session.interrupts.in_reply() as stop:
        for chunk in assistant.stream(fitted.turns, session.sampling, stop):
            pieces.append(chunk.text)
            print(visible(chunk.text), end="", flush=True)
    print(flush=True)
    ends = {"stop": "", "length": " · cut at the limit", "cancelled": " · stopped"}
    used = chunk.prompt_tokens + chunk.tokens
    end = ends[chunk.finish_reason or "stop"]
    _tell(f"{chunk.tokens:,} tokens · {chunk.tokens_per_s:.1f} tokens/s · context {used:,} of {assistant.context_tokens:,}{end}")
    return dataclasses.replace(session, conversation=answer(conversation, "".join(pieces)))


def _set_system(session: _Session, text: str) -> _Session:
    if text:
        system = "" if text == "none" else text
        session = dataclasses.replace(session, conversation=dataclasses.replace(session.conversation, system=system))
    _tell(f"system prompt: {visible(session.conversation.system) or '(none)'}")
    return session


def _set_sampling(session: _Session, text: str) -> _Session:
    if text:
        name, _, value = text.partition(" ")
        parsed = parse_yaml(f"value: {value if value.strip() != 'none' else 'null'}", f"/set {name}")["value"]
        values = dataclasses.asdict(session.sampling) | {name: parsed}
        session = dataclasses.replace(session, sampling=from_mapping(Sampling, values, "/set"))
    _tell(" · ".join(f"{k} {'none' if v is None else v}" for k, v in dataclasses.asdict(session.sampling).items()))
    return session


def _save(conversation: Conversation, name: str) -> None:
    if not name:
        raise UserError("/save: nothing behind it; expected a file name, such as chat.jsonl")
    if not conversation.turns:
        raise UserError("/save: the conversation is empty; say something first")
    line = json.dumps({"messages": [to_message(turn) for turn in conversation.prompt]}, ensure_ascii=False)
    try:
        with open(name, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise UserError(f"/save {name}: {error.strerror}; choose another file") from None
    _tell(f"added to {name}")


def _read_message() -> str | None:
    """Return the next message, lines that end with a backslash joined, or None at the end of input."""
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401 - gives input() line editing and history
    lines: list[str] = []
    while True:
        try:
            line = input((". " if lines else "> ") if terminal else "")
        except EOFError:
            return "\n".join(lines) if lines else None
        except UnicodeDecodeError as error:
            raise _CannotGoOn(f"standard input: not UTF-8 at byte {error.start}; send UTF-8 text") from None
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])


def _tell(text: str) -> None:
    """Print what the program says, as opposed to the model: dimmed where a terminal shows it."""
    dim = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\x1b[2m{text}\x1b[0m" if dim else text, flush=True)
