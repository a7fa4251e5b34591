"""The other processes of a launch learn from the first whether there is anything to do, and never wait for one that is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.distributed import DistNetworkError, TCPStore

from starchat import lead
from starchat.errors import UserError
from starchat.lead import first_decides, noticing_the_lost
from starchat.rows import wait_for


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The store of a launch of two processes."""
    made = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(made.port))):
        monkeypatch.setenv(name, value)
    return made


def never() -> dict[str, Any]:
    raise AssertionError("decided in another process than the first")


def test_rows_that_are_never_seen_here(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="encoded: written by the first process and not seen here; give an output on a disk that all"):
        wait_for(tmp_path / "encoded", limit_s=0.2, poll_s=0.05)


def test_one_process_decides_by_itself() -> None:
    assert first_decides(lambda: {"checkpoint": None}) == {"checkpoint": None}


def test_the_others_get_what_the_first_decided(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    assert first_decides(lambda: {"checkpoint": "checkpoint-8"}) == {"checkpoint": "checkpoint-8"}
    monkeypatch.setenv("RANK", "1")
    assert first_decides(never) == {"checkpoint": "checkpoint-8"}
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not store.check(["starchat/begin/1"]), "a launch that an elastic agent starts again decides again"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("runs/x: holds other files"), "the first process could not begin: runs/x: holds other files"),
        (MemoryError(), "the first process could not begin: it ended with an error of its own"),
    ],
)
def test_the_others_end_when_the_first_could_not_begin(
    error: Exception, expected: str, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> dict[str, Any]:
        raise error

    monkeypatch.setenv("RANK", "0")
    with pytest.raises(type(error)):
        first_decides(fail)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match=expected):
        first_decides(never)


def test_the_others_end_when_the_first_machine_is_gone(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lead, "SILENT_S", 1)
    monkeypatch.setenv("MASTER_PORT", "9")
    with pytest.raises(UserError, match="the first process is gone .*; its own messages say why"):
        first_decides(never)


GONE = {
    "Read error [10.0.0.2]:68: Connection reset by peer": RuntimeError(
        "[/src/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.2]:68: Connection reset by peer"
    ),
    "Failed to recv, got 0 bytes.": DistNetworkError("Failed to recv, got 0 bytes."),
}


@pytest.mark.parametrize("said", GONE)
def test_a_process_that_is_gone_is_one_message(said: str) -> None:
    with pytest.raises(UserError) as caught, noticing_the_lost():
        raise GONE[said]
    assert str(caught.value).startswith(f"another process of this launch is gone ({said}); its own messages say why; give the same command")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="^out of memory$"), noticing_the_lost():
        raise RuntimeError("out of memory")
