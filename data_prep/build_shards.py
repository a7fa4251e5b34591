"""Shards: some pieces of a source, read, built and curated item by item, as one task of any engine.

In: the pieces of all sources (`data_prep.kinds`), in order. Out: of each shard a folder with its items (`data_prep.item_files`), what they
share with benchmarks (``matches.pickle``), and as its value what it read and the reasons that its lines name. What only all items together
show is judged later (`data_prep.verdicts`). A shard's result depends on the spec, the inputs and which pieces it has, on nothing else.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.curate import Curation, curate_item, opened
from data_prep.decontaminate import Match
from data_prep.item_files import ItemWriter, judged_digest
from data_prep.kinds import Piece, Setting
from data_prep.preferred import rank_of
from data_prep.records import Claim, Dropped, Found, Item, Read
from starchat.batches import batched
from starchat.dialogue import Record, first_user_text, to_row
from starchat.files import digest_bytes

MATCHES = "matches.pickle"

PIECES_OF_A_SHARD = {"pool": 2, "here": 2}
"""Pieces hold some megabytes at most. Few of them keep all cores of a machine at work to the end; more make fewer files."""

PIECES_ELSEWHERE = 16
"""How many a shard has where other machines work on it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What all shards of a run have in common; `curation` is how the steps are stated to other processes, None without steps."""

    setting: Setting
    test_fraction: float
    weights: tuple[float, ...]
    curation: str | None = None
    matcher_file: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """Pieces of one source, or the file that holds them, pickled; `reads` are the files that they read by themselves."""

    job: Job
    source: int
    number: int
    pieces: tuple[Piece, ...] | str
    reads: tuple[str, ...]

    def task_identity(self) -> Any:
        """Return what tells this shard from others of its run, whose digest covers all the rest."""
        return [self.source, self.number, *self.reads]


def cut_shards(job: Job, pieces: Iterable[tuple[int, Iterable[Piece]]], pieces_of_a_shard: int, folder: Path | None) -> Iterator[Shard]:
    """Yield the shards of sources, of each its index and pieces. With a folder, pieces are written there, for processes elsewhere."""
    number = 0
    for source, stream in pieces:
        for some in batched(stream, pieces_of_a_shard):
            reads = tuple(path for piece in some for path in piece.reads)
            if folder is None:
                yield Shard(job, source, number, some, reads)
            else:
                yield Shard(job, source, number, str(write_pickle(folder / f"shard-{number:06d}.pickle", some)), reads)
            number += 1


def write_pickle(target: Path, value: Any) -> Path:
    """Write what a process elsewhere reads, whole: one of an earlier run may be reading the same."""
    temporary = target.with_suffix(".new")
    temporary.write_bytes(pickle.dumps(value))
    os.replace(temporary, target)
    return target


def build_shard(folder: Path, shard: Shard) -> dict[str, Any]:
    """Write what is in a shard to an empty folder; return which source it is of, the reasons of its lines, what it read, and
    the digest of what its items are judged by."""
    job, reads = shard.job, list[dict[str, Any]]()
    curation = None if job.curation is None else opened(job.curation, job.setting, job.matcher_file)
    matches: list[tuple[int, str, Sequence[Match]]] = []
    with ItemWriter(folder) as writer:
        for found in _found(shard):
            if isinstance(found, Read):
                reads.append(found.described)
                continue
            first = len(writer)
            items = (*found.items, found.otherwise) if isinstance(found, Claim) else (found,)
            for item in items:
                shared = _add(item, curation, job, shard.source, writer)
                if shared is not None:
                    matches.append((len(writer) - 1, *shared))
            if isinstance(found, Claim):
                writer.claim(found, first)
    if matches:
        (folder / MATCHES).write_bytes(pickle.dumps(matches))
    return {"source": shard.source, "reasons": list(writer.reasons), "reads": reads, "lines": len(writer), "judged": judged_digest(folder)}


def _found(shard: Shard) -> Iterator[Found]:
    pieces = pickle.loads(Path(shard.pieces).read_bytes()) if isinstance(shard.pieces, str) else shard.pieces
    for piece in pieces:
        yield from piece.function(piece.argument)


def _add(item: Item, curation: Curation | None, job: Job, source: int, writer: ItemWriter) -> tuple[str, Sequence[Match]] | None:
    """Write an item as the steps leave it; return its place and what it shares with benchmarks, if it does."""
    shared: Sequence[Match] = ()
    if curation is not None:
        item, shared = curate_item(item, curation)
    if isinstance(item, Dropped):
        writer.drop(item)
        place = item.place
    else:
        row = to_row(item.record)
        prefer = () if curation is None or curation.duplicates is None else curation.duplicates.prefer
        copies, is_test = drawn(item.record, row["id"], job.setting.seed, job.test_fraction, job.weights[source])
        writer.keep(item, row, rank_of(item.record, prefer), copies, is_test)
        place = item.record.source.place
    return (place, shared) if shared else None


def drawn(record: Record, identity: str, seed: int, test_fraction: float, weight: float) -> tuple[int, bool]:
    """Return how often a record is written, on average `weight` times, and whether that is the test split, which has each once."""
    if _fraction(f"split:{seed}:{first_user_text(record.turns) or identity}") < test_fraction:
        return 1, True
    whole = int(weight)
    return whole + (_fraction(f"mixture:{seed}:{identity}") < weight - whole), False


def _fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int(digest_bytes(text.encode("utf-8", "surrogatepass"))[:13], 16) / 16**13
