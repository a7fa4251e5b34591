"""What happens when someone sends, stops, retries, edits or undoes.

In: the conversation, kept on the server as it was written, and the controls. Out: what each part of the page shows next.
No layout here.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from demo.display import read_shown, show_line, show_message, show_reply
from starchat.config import from_mapping
from starchat.conversation import Conversation, answer, ask, edit, retry, undo
from starchat.dialogue import Turn
from starchat.errors import UserError
from starchat.generate import Assistant, Chunk, Sampling

SECONDS_BETWEEN_UPDATES = 0.05
MAX_MESSAGE_CHARACTERS = 100_000

Update = tuple[Any, ...]
"""What the page shows next: messages, conversation, input box, notice, status."""


class Replies:
    """The replies that are being written, one at most for each open page."""

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant
        self._running: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def send(self, request: gr.Request, text: str, talk: Conversation, system: str, *controls: object) -> Iterator[Update]:
        """Answer a new message."""
        if text.strip():
            yield from self._run(request, lambda now: ask(now, text), talk, system, controls, text)
        else:
            yield _update()

    def retry(self, request: gr.Request, talk: Conversation, system: str, *controls: object) -> Iterator[Update]:
        """Answer the last message again."""
        yield from self._run(request, retry, talk, system, controls, None)

    def edit(self, request: gr.Request, event: gr.EditData, talk: Conversation, system: str, *controls: object) -> Iterator[Update]:
        """Answer a changed message; what came behind it is dropped."""
        place, text = event.index, read_shown(str(event.value))
        yield from self._run(request, lambda now: edit(now, text, place), talk, system, controls, None)

    def choose(self, request: gr.Request, event: gr.SelectData, talk: Conversation, system: str, *controls: object) -> Iterator[Update]:
        """Answer an example that was clicked."""
        yield from self.send(request, str(event.value["text"]), talk, system, *controls)

    def undo(self, talk: Conversation) -> Update:
        """Take the last exchange back; its message returns to the input box."""
        try:
            shorter, said = undo(talk)
        except UserError as error:
            return _update(notice=f"{error}")
        return _update(shown(shorter), shorter, gr.update(value=said), "", "")

    def start_over(self) -> Update:
        """Begin a new conversation."""
        return _update([], Conversation(), gr.update(value=""), "", "")

    def stop(self, request: gr.Request) -> None:
        """End the reply that is being written for this page, if there is one."""
        event = self._running.get(request.session_hash or "")
        if event is not None:
            event.set()

    def _run(
        self,
        request: gr.Request,
        change: Callable[[Conversation], Conversation],
        talk: Conversation,
        system: str,
        controls: tuple[object, ...],
        typed: str | None,
    ) -> Iterator[Update]:
        """Answer the changed conversation; `typed` is what returns to the input box if that fails."""
        session, stop = request.session_hash or "", threading.Event()
        with self._lock:
            busy = self._running.setdefault(session, stop) is not stop
        if busy:
            yield _update(notice="a reply is still being written; stop it first")
            return
        try:
            sampling = read_controls(controls)
            changed = change(dataclasses.replace(talk, system=system))
            if len(changed.turns[-1].content) + len(system) > MAX_MESSAGE_CHARACTERS:
                raise UserError(f"message: over {MAX_MESSAGE_CHARACTERS:,} characters with the system prompt; shorten it")
            yield from self._reply(changed, sampling, stop)
        except UserError as error:
            yield _update(shown(talk), talk, _box(False, typed), f"{error}", "")
        finally:
            with self._lock:
                self._running.pop(session, None)

    def _reply(self, talk: Conversation, sampling: Sampling, stop: threading.Event) -> Iterator[Update]:
        fitted = self._assistant.fit(talk.prompt, sampling)
        note = _shortened(fitted.dropped, self._assistant.context_tokens)
        chunks = self._assistant.stream(fitted.turns, sampling, stop)
        yield _update(shown(talk), talk, _box(True), note, self._status(fitted.tokens, 0, 0.0, "reading the prompt"))
        text, shown_at = "", 0.0
        for chunk in chunks:
            text += chunk.text
            talked = answer(talk, text)
            if chunk.finish_reason is None and time.monotonic() - shown_at >= SECONDS_BETWEEN_UPDATES:
                yield _update(shown(talked), talked, _box(True, None), note, self._count(chunk, ""))
                shown_at = time.monotonic()
        yield _update(shown(talked), talked, _box(False, None), note, self._count(chunk, _ENDS[chunk.finish_reason or "stop"]))

    def _count(self, chunk: Chunk, end: str) -> str:
        return self._status(chunk.prompt_tokens + chunk.tokens, chunk.tokens, chunk.tokens_per_s, end)

    def _status(self, used: int, reply: int, rate: float, end: str) -> str:
        parts = [f"context {used:,} of {self._assistant.context_tokens:,} tokens"]
        parts += [f"reply {reply:,} tokens", f"{rate:.1f} tokens/s"] if reply else []
        return " · ".join([*parts, end] if end else parts)


_ENDS = {"stop": "", "length": "cut at the limit: raise “New tokens at most” or ask to go on", "cancelled": "stopped"}


def read_controls(controls: tuple[object, ...]) -> Sampling:
    """Return the sampling controls, in the order of `demo.page.sampling_controls`, checked like a configuration."""
    *numbers, seed = controls
    text = str(seed or "").strip()
    if text and not text.isdecimal():
        raise UserError(f"seed: {text!r}; expected a whole number, or nothing for a new one each time")
    names = ("temperature", "max_new_tokens", "top_p", "top_k", "repetition_penalty")
    return from_mapping(Sampling, dict(zip(names, numbers, strict=True)) | {"seed": int(text) if text else None}, "sampling")


def shown(talk: Conversation) -> list[dict[str, Any]]:
    """Return a conversation as the messages of the chat component."""
    return [_message(turn.role, _display(turn)) for turn in talk.turns]


def _display(turn: Turn) -> str:
    return show_message(turn.content) if turn.role == "user" else show_reply(turn.content)


def _message(role: str, text: str) -> dict[str, Any]:
    """Return a message as a dict of parts: a plain string would lose its indentation in the component."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _box(running: bool, text: str | None = "") -> Any:
    """Return the input box with its stop button while a reply runs, else its send button; None leaves what is typed."""
    value = {} if text is None else {"value": text}
    return gr.update(submit_btn=not running, stop_btn=running, **value)


def _update(
    messages: Any = None, talk: Conversation | None = None, box: Any = None, notice: str | None = None, status: str | None = None
) -> Update:
    """Return an update; None leaves a part as it is."""
    lines = [gr.skip() if text is None else show_line(text, kind) for text, kind in ((notice, "notice"), (status, "status"))]
    return (*(gr.skip() if part is None else part for part in (messages, talk, box)), *lines)


def _shortened(dropped: int, context_tokens: int) -> str:
    if not dropped:
        return ""
    what = "oldest exchange was" if dropped == 1 else f"oldest {dropped} exchanges were"
    return f"This conversation is longer than the model's context of {context_tokens:,} tokens: the {what} left out of the prompt."
