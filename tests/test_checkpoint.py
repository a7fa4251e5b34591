"""Checkpoints are whole or do not count; what they need is known before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from starchat import checkpoint
from starchat.checkpoint import (
    MARK,
    Launch,
    checkpoint_bytes,
    checkpoint_folders,
    disk_needed_bytes,
    keep_newest,
    mark_whole,
    newest_whole,
    require_room,
)
from starchat.errors import UserError

LAUNCH = Launch({"processes": 1}, 2, 7)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Whole checkpoints at 2, 10 and 9."""
    for step in (2, 10, 9):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "global_step").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(step))
        (folder / "global_step" / "rank_1.pt").write_bytes(os.urandom(100))
        mark_whole(folder, "a run", LAUNCH)
    (tmp_path / "checkpoint-best").mkdir()
    return tmp_path


def test_the_newest_is_that_of_the_greatest_step(run: Path) -> None:
    found, damaged = newest_whole(run, "a run")
    assert found is not None
    assert (found.step, found.launch, damaged) == (10, LAUNCH, [])


def test_a_checkpoint_of_another_run_does_not_count(run: Path) -> None:
    assert newest_whole(run, "another run") == (None, [])


def test_a_file_in_a_folder_of_the_checkpoint_is_watched_too(run: Path) -> None:
    (run / "checkpoint-10" / "global_step" / "rank_1.pt").unlink()
    found, damaged = newest_whole(run, "a run")
    assert found is not None
    assert found.step == 9
    assert damaged == [f"{run / 'checkpoint-10'}: global_step/rank_1.pt is missing"]


@pytest.mark.parametrize(("limit", "kept"), [(1, [10]), (2, [9, 10]), (5, [2, 9, 10]), (None, [2, 9, 10])])
def test_the_newest_are_kept(limit: int | None, kept: list[int], run: Path) -> None:
    keep_newest(run, limit)
    assert [p.name for p in checkpoint_folders(run)] == [f"checkpoint-{step}" for step in kept]
    assert (run / "checkpoint-best").is_dir(), "what bears another name is not ours"


def test_a_checkpoint_that_is_half_deleted_is_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        keep_newest(run, 2)
    assert not (run / "checkpoint-2" / MARK).exists()
    assert (run / "checkpoint-9" / MARK).exists()


def test_the_room_that_a_run_needs() -> None:
    """Adam in one process: 12 bytes a weight; three checkpoints while the third is written, and the result."""
    one = checkpoint_bytes(10**9, 10**9, 0)
    assert one == pytest.approx(12e9, rel=0.06)
    assert disk_needed_bytes(10**9, 10**9, 0, saves=9, limit=2) == 3 * one + 4 * 10**9
    assert disk_needed_bytes(10**9, 10**9, 0, saves=1, limit=2) == one + 4 * 10**9
    assert disk_needed_bytes(10**9, 10**9, 0, saves=9, limit=None) == 9 * one + 4 * 10**9
    assert checkpoint_bytes(10**9, 10**9, 3) < checkpoint_bytes(10**9, 10**9, 2)


def test_a_run_that_the_disk_cannot_hold_is_refused(run: Path) -> None:
    require_room(run, 1000)
    with pytest.raises(UserError, match=r"checkpoints and final weights need about 1000.0 TB, and .* are free; free some space, choose an"):
        require_room(run, 10**15)
