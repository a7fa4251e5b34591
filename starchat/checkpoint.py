"""Checkpoints that are whole or do not count, and the room that they need.

In: the folders ``<run>/checkpoint-<step>/`` that the trainer writes, every process its part. Out: in each, written last, a mark
``whole.json`` with size and SHA-256 of every other file. What has no mark was being written when the run was killed; what differs
from its mark was damaged since. Neither is ever gone on from, and an earlier whole one is deleted only when a later one is whole.
Imports no torch.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starchat.errors import UserError
from starchat.files import describe_file, read_object, write_json

MARK = "whole.json"
PREFIX = "checkpoint-"
READERS = 8
"""Files that are digested at a time: hashlib lets go of the interpreter's lock."""

WEIGHT_BYTES = 4
ADAM_BYTES = 8
"""Two moments in float32 of each trained weight; no optimizer that trains here keeps more."""

MASTER_BYTES = 4
"""DeepSpeed's own copy of each trained weight."""

SLACK = 1.05
"""Tokenizer, headers and states of generators; of a model of 40,000 weights more, of a real one next to nothing."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """How the processes shared the work. `groups` is the length of an epoch, empty groups included."""

    engine: Mapping[str, Any]
    sequences_per_update: int
    groups: int


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint. `logs` holds the sizes in bytes that the run's ``*.jsonl`` files had."""

    path: Path
    step: int
    launch: Launch
    logs: Mapping[str, int]


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint's folder.

    >>> step_of(Path("runs/x/checkpoint-20"))
    20
    """
    return int(folder.name.removeprefix(PREFIX))


def checkpoint_folders(run: Path) -> list[Path]:
    """Return the folders that are named as checkpoints, the oldest first."""
    return sorted((p for p in run.glob(f"{PREFIX}*") if p.is_dir() and p.name.removeprefix(PREFIX).isdecimal()), key=step_of)


def mark_whole(folder: Path, identity: str, launch: Launch) -> None:
    """Write the mark of a checkpoint of the run `identity`, after its files have reached the disk. Every process must have written."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MARK)
    with ThreadPoolExecutor(READERS) as pool:
        described = list(pool.map(lambda path: _on_disk(path, str(path.relative_to(folder))), files))
    logs = {path.name: path.stat().st_size for path in sorted(folder.parent.glob("*.jsonl"))}
    content = {"run": identity, "step": step_of(folder), "launch": dataclasses.asdict(launch), "logs": logs, "files": described}
    write_json(folder / MARK, content)


def _on_disk(path: Path, name: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return describe_file(path, name)


def read_checkpoint(folder: Path, identity: str) -> Checkpoint | None:
    """Return a whole checkpoint, or None if its writing never ended or it is of another run; raise `UserError` if it was damaged."""
    if not (folder / MARK).is_file():
        return None
    mark = read_object(folder / MARK, "the mark of a checkpoint", "the checkpoint was damaged")
    if mark.get("run") != identity:
        return None
    with ThreadPoolExecutor(READERS) as pool:
        faults = [fault for fault in pool.map(lambda wanted: _fault(folder, wanted), mark["files"]) if fault]
    if faults:
        raise UserError(f"{folder}: {'; '.join(faults[:3])}")
    return Checkpoint(folder, int(mark["step"]), Launch(**mark["launch"]), mark["logs"])


def _fault(folder: Path, wanted: Mapping[str, Any]) -> str | None:
    path = folder / wanted["path"]
    if not path.is_file():
        return f"{wanted['path']} is missing"
    if path.stat().st_size != wanted["bytes"]:
        return f"{wanted['path']} has {path.stat().st_size:,} bytes; {wanted['bytes']:,} were written"
    return None if describe_file(path)["sha256"] == wanted["sha256"] else f"{wanted['path']} holds other bytes than were written"


def newest_whole(run: Path, identity: str) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest whole checkpoint of a run, and what is wrong with those after it that were damaged."""
    damaged: list[str] = []
    for folder in reversed(checkpoint_folders(run)):
        try:
            found = read_checkpoint(folder, identity)
        except UserError as error:
            damaged.append(str(error))
            continue
        if found is not None:
            return found, damaged
    return None, damaged


def keep_newest(run: Path, limit: int | None) -> None:
    """Delete all checkpoints but the `limit` newest. Call it when the newest is whole."""
    for folder in checkpoint_folders(run)[: -limit if limit else 0]:
        remove_checkpoint(folder)


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, its mark first: half deleted, it is none."""
    (folder / MARK).unlink(missing_ok=True)
    shutil.rmtree(folder)


def checkpoint_bytes(weights: int, trained: int, zero_stage: int) -> int:
    """Return about how many bytes one checkpoint takes.

    `weights` are those that are saved: all of them, or those of an adapter. DeepSpeed writes its own copy of the trained weights beside
    the moments, and below ZeRO-3 the whole module once more.
    """
    plain = weights * WEIGHT_BYTES + trained * ADAM_BYTES
    deepspeed = trained * MASTER_BYTES + (weights * WEIGHT_BYTES if zero_stage < 3 else 0) if zero_stage else 0
    return int((plain + deepspeed) * SLACK)


def disk_needed_bytes(weights: int, trained: int, zero_stage: int, saves: int, limit: int | None) -> int:
    """Return about how many bytes a run's folder grows to: checkpoints at their most, and the final weights.

    `saves` is how often the run will save, `limit` how many checkpoints are kept: one more exists while it is written.
    """
    together = saves if limit is None else min(saves, limit + 1)
    return checkpoint_bytes(weights, trained, zero_stage) * together + weights * WEIGHT_BYTES


def planned_saves(strategy: str, save_steps: float, steps: int, epochs: int) -> int:
    """Return how often a run of so many steps saves by its plan; what SIGTERM adds is not planned.

    >>> planned_saves("steps", 500, 1200, 3), planned_saves("steps", 0.5, 1200, 3), planned_saves("epoch", 500, 1200, 3)
    (3, 2, 3)
    """
    if strategy == "epoch":
        return epochs
    if strategy != "steps":
        return 0
    every = save_steps if save_steps >= 1 else math.ceil(save_steps * steps)
    return max(1, math.ceil(steps / every))


def require_room(run: Path, needed: int) -> None:
    """Raise `UserError` if the disk of a run's folder has not so many bytes left beside the checkpoints that are there already."""
    held = sum(p.stat().st_size for folder in checkpoint_folders(run) for p in folder.rglob("*") if p.is_file())
    free = shutil.disk_usage(run).free
    if needed > free + held:
        raise UserError(
            f"{run}: checkpoints and final weights need about {in_units(needed)}, and {in_units(free + held)} are free; free some space, "
            "choose an output elsewhere, or lower trainer.save_total_limit"
        )


def in_units(size: int) -> str:
    """Return a number of bytes as people say it.

    >>> in_units(1_500_000), in_units(999), in_units(-3_000)
    ('1.5 MB', '999 bytes', '-3.0 kB')
    """
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if abs(size) >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"


def names(folders: Sequence[Path]) -> str:
    """Return the folders' names as a list in words."""
    return ", ".join(folder.name for folder in folders)
