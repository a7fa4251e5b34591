from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starchat.chat import run_chat, visible
from starchat.errors import UserError
from starchat.generate import Assistant, Chunk, Sampling, load_assistant

SHORT = Sampling(max_new_tokens=8, temperature=0)


@pytest.fixture(scope="module")
def assistant(tiny_model: Path) -> Assistant:
    return load_assistant(str(tiny_model))


class Recorded(Assistant):
    """The real assistant, remembering what it was asked."""

    asked: list[list[str]]

    def stream(self, turns, sampling, stop=None) -> Iterator[Chunk]:  # type: ignore[no-untyped-def]
        self.asked.append([f"{turn.role}: {turn.content}" for turn in turns])
        return super().stream(turns, sampling, stop)


def chat(monkeypatch: pytest.MonkeyPatch, assistant: Assistant, text: str, system: str = "") -> list[list[str]]:
    """Run a chat on `text` as a pipe gives it; return the prompts that the model got."""
    recorded = Recorded(assistant.model, assistant.tokens, assistant.name)
    recorded.asked = []
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    run_chat(recorded, SHORT, system)
    return recorded.asked


def test_pipe_streams_the_reply_and_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assistant: Assistant
) -> None:
    from starchat.dialogue import Turn

    asked = chat(monkeypatch, assistant, "Why?\n")
    out = capsys.readouterr().out
    assert asked == [["user: Why?"]]
    assert visible(assistant.reply([Turn("user", "Why?")], SHORT).text) in out
    assert re.search(r"8 tokens · [\d.]+ tokens/s · context \d+ of 1,024 · cut at the limit", out)


def test_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assistant: Assistant, tmp_path: Path) -> None:
    saved = tmp_path / "chat.jsonl"
    lines = [
        "one \\",
        "two",
        "/system Be brief.",
        "/retry",
        "/edit three",
        "/undo",
        "//slash",
        f"/save {saved}",
        f"/save {saved}",
        "/quit",
        "never",
    ]
    asked = chat(monkeypatch, assistant, "\n".join(lines), system="First.")
    assert asked == [
        ["system: First.", "user: one \ntwo"],
        ["system: Be brief.", "user: one \ntwo"],
        ["system: Be brief.", "user: three"],
        ["system: Be brief.", "user: /slash"],
    ]
    rows = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2
    assert [message["role"] for message in rows[0]["messages"]] == ["system", "user", "assistant"]
    assert rows[0]["messages"][1]["content"] == "/slash"
    assert "removed: three" in capsys.readouterr().out


def test_set_changes_sampling(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assistant: Assistant) -> None:
    chat(monkeypatch, assistant, "/set max_new_tokens 3\n/set seed 4\n/set seed none\nWhy?\n")
    out = capsys.readouterr().out
    assert "max_new_tokens 3 · temperature 0" in out
    assert "seed 4" in out
    assert re.search(r"^3 tokens ·", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("/retry", "conversation: empty, there is nothing to try again"),
        ("/undo", "conversation: empty, there is nothing to undo"),
        ("/edit", "/edit: nothing behind it"),
        ("/edit x", "conversation: empty, there is nothing to edit"),
        ("/save", "/save: nothing behind it"),
        ("/save x.jsonl", "/save: the conversation is empty"),
        ("/set temprature 1", "unknown key 'temprature'; did you mean 'temperature'?"),
        ("/set temperature hot", "temperature: 'hot' is of type str; expected a number"),
        ("/set top_p 7", "top_p: 7.0; expected a number above 0, at most 1"),
        ("/set top_p [", "/set top_p: not valid YAML"),
        ("/quitt", "/quitt: no such command; did you mean 'quit'?"),
        ("x" * 3000, "message: 3,003 tokens with the system prompt"),
    ],
)
def test_errors_are_one_line_and_the_chat_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assistant: Assistant, line: str, error: str
) -> None:
    chat(monkeypatch, assistant, f"{line}\n/help\n")
    out = capsys.readouterr().out
    [shown] = [row for row in out.splitlines() if row.startswith("error: ")]
    assert error in shown
    assert "/save FILE.jsonl" in out


def test_input_that_is_not_utf8_is_one_line(monkeypatch: pytest.MonkeyPatch, assistant: Assistant) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n"), encoding="utf-8"))
    with pytest.raises(UserError, match="standard input: not UTF-8 at byte"):
        run_chat(assistant, SHORT)


def test_save_to_a_folder_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assistant: Assistant, tmp_path: Path
) -> None:
    chat(monkeypatch, assistant, f"Why?\n/save {tmp_path}\n")
    assert f"error: /save {tmp_path}: Is a directory" in capsys.readouterr().out


def test_a_long_conversation_is_shortened_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assistant: Assistant
) -> None:
    asked = chat(monkeypatch, assistant, "\n".join(c * 400 for c in "abc") + "\n", system="Be brief.")
    assert "the oldest 1 exchange(s) were left out of the prompt" in capsys.readouterr().out
    assert [turn[:9] for turn in asked[2]] == ["system: B", "user: bbb", asked[2][2][:9], "user: ccc"]


def test_hostile_output_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assistant: Assistant
) -> None:
    class Hostile(Assistant):
        def stream(self, turns, sampling, stop=None) -> Iterator[Chunk]:  # type: ignore[no-untyped-def]
            yield Chunk("\x1b", 1, 1, 1.0)
            yield Chunk("]0;owned\x07\x9b2J\u202egnp.exe\rgone", 2, 1, 1.0, "stop")

    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n/undo\n"))
    run_chat(Hostile(assistant.model, assistant.tokens, "hostile"), SHORT)
    assert "␛]0;owned␇\ufffd2J\ufffdgnp.exe␍gone\n" in capsys.readouterr().out


@given(st.text())
def test_visible_text_holds_no_control_character(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)


def test_terminal_ctrl_c_stops_the_reply_and_not_the_chat(tiny_model: Path) -> None:
    program = (
        "from starchat.chat import run_chat; from starchat.generate import *; import sys; "
        "run_chat(load_assistant(sys.argv[1]), Sampling(max_new_tokens=900, temperature=1.0, seed=1))"
    )
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tiny_model)],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that the terminal turns Ctrl-C into a signal
    )
    os.close(slave)
    screen = ""

    def until(pattern: str, again: bytes = b"") -> None:
        """Wait for a text, and type `again` each time that nothing happens."""
        nonlocal screen
        deadline = time.monotonic() + 60
        while not re.search(pattern, screen):
            assert time.monotonic() < deadline, f"{pattern!r} did not come; the screen was {screen[-500:]!r}"
            os.write(master, again)
            if select.select([master], [], [], 0.5)[0]:
                screen += os.read(master, 4096).decode("utf-8", "replace")

    try:
        until(r"/help for commands[\s\S]*> ")
        os.write(master, b"Why?\n")
        until(r"Why\?\r\n[\s\S]{20}")
        os.write(master, b"\x03")
        until(r"tokens/s · context .* · stopped")
        os.write(master, b"\x03")  # before or after the prompt stands
        until(r"stopped[\s\S]*> ")
        until("/quit or Ctrl-D leaves", again=b"\x03")  # one that comes while the prompt is being drawn does nothing
        until(r"/save FILE\.jsonl", again=b"/help\n")  # a Ctrl-C that comes late takes a line with it
        deadline = time.monotonic() + 60
        with contextlib.suppress(OSError):  # the terminal is gone with the process
            while process.poll() is None and time.monotonic() < deadline:
                os.write(master, b"/quit\n")
                if select.select([master], [], [], 0.5)[0]:
                    os.read(master, 4096)  # a terminal that nobody reads stops those who write to it
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
