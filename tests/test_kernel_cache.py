"""A lock that a killed process left in the cache of compiled kernels stops nobody; one that is held stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.utils.cpp_extension import get_default_build_root
from torch.utils.file_baton import FileBaton

from starchat.kernel_cache import STALE_S, cache_folder, free_left_locks

HOLD = """
import sys
from torch.utils.file_baton import FileBaton
baton = FileBaton(sys.argv[1])
baton.try_acquire()
print("held", flush=True)
input()
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (tmp_path / "py311_cpu" / "deepspeed_shm_comm").mkdir(parents=True)
    return tmp_path / "py311_cpu" / "deepspeed_shm_comm" / "lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds torch's own lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_stays_while_its_holder_lives_and_goes_when_it_was_killed(
    lock: Path, holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    free_left_locks()
    assert lock.exists()
    holder.kill()
    holder.wait()
    assert lock.exists()
    assert not FileBaton(str(lock)).try_acquire(), "the planted fault: torch would wait here for ever"
    free_left_locks()
    assert f"{lock}: a process that was killed left this lock; removed" in capsys.readouterr().err
    assert not lock.exists()


def test_on_several_machines_a_lock_must_be_old(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    lock.touch()
    free_left_locks()
    assert lock.exists()
    old = lock.stat().st_mtime - STALE_S - 1
    os.utime(lock, (old, old))
    monkeypatch.setenv("LOCAL_RANK", "1")
    free_left_locks()
    assert lock.exists(), "the first process of a machine does it"
    monkeypatch.setenv("LOCAL_RANK", "0")
    free_left_locks()
    assert not lock.exists()


def test_the_cache_is_where_torch_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    for home in ("", str(tmp_path)):
        monkeypatch.setenv("XDG_CACHE_HOME", home) if home else monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert str(cache_folder()) == get_default_build_root()
