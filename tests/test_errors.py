"""What the user sees of a fault, and with which exit status."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from starchat.errors import NO_TELEMETRY, UserError, guarded


def raising(error: BaseException) -> int:
    return guarded(lambda: (_ for _ in ()).throw(error))


def test_the_status_of_work_is_returned() -> None:
    assert guarded(lambda: 1) == 1


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("a.yaml: no such file; give another"), 2, "starchat: a.yaml: no such file; give another\n"),
        (
            OSError(errno.ENOSPC, "x", "out/a"),
            2,
            "starchat: out/a: No space left on device; free some space, or choose an output elsewhere; "
            "what was there before is untouched\n",
        ),
        (
            PermissionError(errno.EACCES, "x", "out"),
            2,
            "starchat: out: Permission denied; check the path and its permissions; what was there before is untouched\n",
        ),
        (KeyboardInterrupt(), 130, "starchat: interrupted\n"),
        (KeyboardInterrupt("interrupted; on from x"), 130, "starchat: interrupted; on from x\n"),
    ],
)
def test_one_message_without_a_traceback(error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(error) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("no number"), ConnectionResetError(errno.ECONNRESET, "x")])
def test_what_is_no_fault_of_the_user_is_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error)):
        raising(error)


def test_telemetry_is_off_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_TELEMETRY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    seen: dict[str, str | None] = {}
    guarded(lambda: seen.update({name: os.environ.get(name) for name in NO_TELEMETRY}) or 0)
    assert seen == {**NO_TELEMETRY, "DO_NOT_TRACK": "0"}
    for name in NO_TELEMETRY:
        monkeypatch.delenv(name, raising=False)


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    program = "import sys; from starchat.errors import guarded; sys.exit(guarded(lambda: print('x' * 10_000_000) or 0))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == 141
