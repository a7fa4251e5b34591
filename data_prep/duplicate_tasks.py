"""The four steps of `data_prep.near_duplicates` as tasks, for a process pool, Ray or Slurm.

In: shards, a reader and rules as there, an engine (`data_prep.engines`) and a folder on a disk that all workers share. Out: the same
documents to remove. In the folder each step has its own: ``sign/``, ``link/``, ``deal/``, ``resolve/``, of which nothing is made twice.
A store of objects cannot be the folder: the last step reads single shingles here and there in all files of the first.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.engines import Engine, run_tasks_on
from data_prep.near_duplicates import (
    FEW_HASHES,
    REMOVAL,
    SLICE_DOCUMENTS,
    LinkTask,
    NearDuplicate,
    NearDuplicateRules,
    Reader,
    ResolveTask,
    Signed,
    SignTask,
    deal,
    link,
    resolve,
    sign,
)
from data_prep.pool import start_server
from data_prep.remote_files import is_remote, local_path
from data_prep.tasks import Task
from starchat.errors import UserError

HANDS = 64
"""Hands that the last step deals out at least. One number everywhere: what a task reads must not hang on how many workers there are."""


def find_near_duplicates_on(
    engine: Engine, shards: Sequence[Any], read: Reader, folder: str | Path, rules: NearDuplicateRules, digest: str
) -> list[NearDuplicate]:
    """Return the documents to remove, by their number. `digest` is that of what is in the shards."""
    if is_remote(folder):
        raise UserError(f"{folder}: near-duplicates are found by random access; expected a folder on a disk that all workers share")
    root = local_path(folder).absolute()
    if engine.kind == "pool":
        start_server(["data_prep.loaded_kernels", "data_prep.duplicate_tasks"], 2)

    def step(name: str, tasks: list[Task]) -> list[Any]:
        return run_tasks_on(engine, tasks, root / name, digest)

    counts = step("sign", [Task(f"shard-{n:05d}", sign_shard, (shard, read, rules)) for n, shard in enumerate(shards)])
    signed = Signed(tuple(root / "sign" / f"shard-{n:05d}" / "signed" for n in range(len(shards))), tuple(counts))
    bands = rules.bands_and_rows()[0]
    slices = -(-signed.documents // SLICE_DOCUMENTS)
    at_once = max(1, FEW_HASHES // max(1, signed.documents))
    groups = [(range(bands)[first : first + at_once], number) for first in range(0, bands, at_once) for number in range(slices)]
    names = step("link", [Task(f"bands-{n:05d}", link_bands, (signed, group, part, slices)) for n, (group, part) in enumerate(groups)])
    links = tuple(root / "link" / f"bands-{n:05d}" / name for n, name in enumerate(names))
    (hands,) = step("deal", [Task("hands", deal_hands, (signed, links, bands))])
    dealt = [root / "deal" / "hands" / name for name in hands]
    names = step("resolve", [Task(f"hand-{n:05d}", resolve_hand, (signed, hand, rules)) for n, hand in enumerate(dealt)])
    removed = [np.load(root / "resolve" / f"hand-{n:05d}" / name) for n, name in enumerate(names)]
    together = np.sort(np.concatenate([np.zeros(0, REMOVAL), *removed]), order="document")
    return [NearDuplicate(*row) for row in together.tolist()]


def sign_shard(folder: Path, shard: Any, read: Reader, rules: NearDuplicateRules) -> int:
    """Do the first step for a shard; return the number of its documents."""
    return sign(SignTask(shard, read, folder / "signed", rules, *rules.bands_and_rows()))


def link_bands(folder: Path, signed: Signed, bands: range, number: int, slices: int) -> str:
    """Do the second step for some bands and a slice; return the name of the file."""
    return link(LinkTask(signed, bands, number, slices, folder)).name


def deal_hands(folder: Path, signed: Signed, links: Sequence[Path], bands: int) -> list[str]:
    """Do the third step; return the names of the files."""
    return [place.name for place in deal(signed, links, bands, folder, HANDS // 4)]


def resolve_hand(folder: Path, signed: Signed, hand: Path, rules: NearDuplicateRules) -> str:
    """Do the fourth step for a hand; return the name of the file."""
    copy = folder / hand.name
    shutil.copyfile(hand, copy)
    name = resolve(ResolveTask(signed, copy, rules)).name
    copy.unlink()
    return name
