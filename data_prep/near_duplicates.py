"""Near-duplicates: which documents resemble an earlier one that is kept.

In: shards of documents, each a text and a rank; a lower rank is preferred, then an earlier place. Out: the documents to remove, each
with its kept twin and their similarity, the share of the shingles of both together that both have (Jaccard's), counted exactly. A document
is removed if and only if it shares a band of its sketch (`data_prep.shingles`) with an earlier kept one and they are at least as similar as
the threshold. So whatever is removed resembles what is kept, and no chain of lookalikes takes away what resembles only its middle. Which
those are hangs on nothing but the texts and their order: not on the number of shards, workers or tasks.

Four steps of pure tasks (`data_prep.duplicate_tasks`), for processes of this machine, Ray or Slurm (`data_prep.engines`). In the folder
each has its own: ``sign/``, ``link/``, ``deal/``, ``resolve/``, of which nothing is made twice. A store of objects cannot be the folder:
the last step reads single shingles here and there in all files of the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.duplicate_tasks import (
    FEW_HASHES,
    HAND,
    LINKS,
    REMOVAL,
    REMOVED,
    SHARD,
    SLICE_DOCUMENTS,
    Reader,
    deal,
    link,
    resolve,
    sign,
    signed_shards,
)
from data_prep.engines import Engine, run_tasks_on
from data_prep.pool import start_server
from data_prep.remote_files import is_remote, local_path
from data_prep.shingles import candidate_probability
from data_prep.tasks import Task
from starchat.errors import UserError


@dataclasses.dataclass(frozen=True)
class NearDuplicateRules:
    """What counts as a near-duplicate: a similarity of at least `threshold`.

    `recall` is the least share of the pairs exactly at the threshold that share a band and are compared; of more similar ones it is more.
    Sketches have up to `permutations` values, which `seed` draws. By rule they are cut into 36 bands of 7 rows. The 25 bands of 10 that
    the published data sets used are a recall of 0.5 here; for terabytes, for they let through a fiftieth of the pairs that are 0.3 alike.
    """

    threshold: float = 0.7
    recall: float = 0.95
    permutations: int = 256
    words_per_shingle: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, all of it at once."""
        faults = []
        for name, least, most, usual in (("threshold", 0.05, 1, 0.7), ("recall", 0.01, 0.9999, 0.95)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                faults.append(f"{name}: {value!r}; expected a number from {least} to {most}; {usual} is usual")
        for name, least, most, usual in (("permutations", 1, 4096, 256), ("words_per_shingle", 1, 64, 5), ("seed", 0, 2**64 - 1, 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                faults.append(f"{name}: {value!r}; expected a whole number from {least} to {most}; {usual} is usual")
        if not faults and candidate_probability(self.threshold, *self.bands_and_rows()) < self.recall:
            faults.append(f"permutations: {self.permutations}; too few for threshold {self.threshold} and recall {self.recall}; take more")
        if faults:
            raise UserError("\n".join(f"near_duplicates: {fault}" for fault in faults))

    def bands_and_rows(self) -> tuple[int, int]:
        """Return the most rows, which let the fewest pairs through that are not alike, with which bands reach the recall.

        >>> NearDuplicateRules().bands_and_rows(), NearDuplicateRules(recall=0.5).bands_and_rows()
        ((36, 7), (25, 10))
        """
        for rows in range(self.permutations, 1, -1):
            if candidate_probability(self.threshold, self.permutations // rows, rows) >= self.recall:
                return self.permutations // rows, rows
        return self.permutations, 1


@dataclasses.dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A document to remove, its kept twin and their similarity; documents are numbered from 0 over all shards in order."""

    document: int
    twin: int
    similarity: float


def find_near_duplicates(
    engine: Engine, shards: Sequence[Any], read: Reader, folder: str | Path, rules: NearDuplicateRules, digest: str
) -> list[NearDuplicate]:
    """Return the documents to remove, by their number. `read`, a function of a module, yields text and rank of each document of a shard.

    `digest` is that of what is in the shards: what lies in the folder for another one is made anew.
    """
    if is_remote(folder):
        raise UserError(f"{folder}: near-duplicates are found by random access; expected a folder on a disk that all workers share")
    root = local_path(folder).absolute()
    if engine.kind == "pool":
        start_server(["data_prep.loaded_kernels", "data_prep.tasks"], 2)

    def step(name: str, tasks: list[Task]) -> list[Any]:
        return run_tasks_on(engine, tasks, root / name, digest)

    bands, rows = rules.bands_and_rows()
    arguments = (read, rules.words_per_shingle, bands, rows, rules.seed)
    counts = step("sign", [Task(SHARD.format(n), sign, (shard, *arguments)) for n, shard in enumerate(shards)])
    signed = signed_shards(root / "sign", counts)
    slices = -(-signed.documents // SLICE_DOCUMENTS)
    at_once = max(1, FEW_HASHES // max(1, signed.documents))
    groups = [(range(bands)[first : first + at_once], number) for first in range(0, bands, at_once) for number in range(slices)]
    step("link", [Task(f"bands-{n:05d}", link, (signed, group, number, slices)) for n, (group, number) in enumerate(groups)])
    links = tuple(root / "link" / f"bands-{n:05d}" / LINKS for n in range(len(groups)))
    (hands,) = step("deal", [Task("hands", deal, (signed, links, bands))])
    dealt = [root / "deal" / "hands" / HAND.format(n) for n in range(hands)]
    step("resolve", [Task(f"hand-{n:05d}", resolve, (signed, hand, rules.threshold)) for n, hand in enumerate(dealt)])
    removed = [np.load(root / "resolve" / f"hand-{n:05d}" / REMOVED) for n in range(hands)]
    together = np.sort(np.concatenate([np.zeros(0, REMOVAL), *removed]), order="document")
    return [NearDuplicate(*row) for row in together.tolist()]
