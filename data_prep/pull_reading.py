"""Rows of exports as pull requests, in batches for all cores.

In: files of JSON or JSON Lines, each also compressed. Out: `Batch`, which a worker makes pull requests of (`pulls_of`). Where every row is
a whole pull request, a batch is a stretch of rows. Where several rows tell of one (events, payloads, objects that stand apart), rows
are sorted by pull request into partitions on disk first, and a batch is a partition.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.compressed import COMPRESSIONS, open_bytes
from data_prep.drafts import RowProblem
from data_prep.pool import run_tasks
from data_prep.pull_shapes import WHOLE, RawPull, Shape, concerns_pull, key_of, read_pull, shape_of
from data_prep.records import Dropped
from data_prep.sources import Row, as_text, find_tables, parse_json, read_table, table_files
from data_prep.spill import Spilled, SpillWriter, count_partitions, read_stretches, stretches
from data_prep.threads import issue_rows
from starchat.errors import UserError

BATCH_BYTES = 1 << 20
BATCH_ROWS = 256
DETECTION_ROWS = 50
UNPACKED = 8
"""How many times larger JSON is about when it is unpacked: the number of partitions goes by that."""

FORMATS: Mapping[str, tuple[Shape, ...]] = {
    "events": ("event",),
    "webhooks": ("webhook",),
    "rest": ("pull", "issue", "review", "line", "comment", "file"),
    "graphql": ("graphql",),
}
KEPT_ADDRESSES = frozenset(("html_url", "pull_request_url", "issue_url", "url"))


class Entry(NamedTuple):
    """A row as it was read: a line of JSON Lines, or a value; `repository` is what its file says above it."""

    place: str
    value: Any
    repository: str | None


class Told(NamedTuple):
    """A pull request that was read."""

    pull: RawPull


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Rows of whole pull requests, or stretches of spilled rows of which several belong together; and what was dropped before."""

    format: str
    repository: str | None
    entries: tuple[Entry, ...] = ()
    found: tuple[tuple[str, int, int], ...] = ()
    dropped: tuple[Dropped, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class SpillTask:
    """A file whose rows are to be sorted into partitions."""

    file: Path
    number: int
    format: str
    repository: str | None
    partitions: int
    folder: Path


def find_files(path: str) -> list[Path]:
    """Return the files that a spec's path names; raise `UserError` where it names none of JSON or JSON Lines."""
    tables = find_tables(path)
    for table in tables:
        if table.reader not in ("json", "jsonl"):
            raise UserError(f"{table.path}: pull requests are read from JSON or JSON Lines; convert it, or name the files by a pattern")
    return [file for table in tables for file in table_files(table)]


def read_batches(
    files: Sequence[Path], format: str, repository: str | None, folder: Path, workers: int, max_rows: int | None
) -> Iterator[Batch]:
    """Yield the batches of files, in an order and of a size that do not depend on the number of workers; `folder` holds the spill."""
    if not _are_apart(files, format):
        yield from _whole_batches(files, format, repository, max_rows or BATCH_ROWS)
        return
    size = sum(file.stat().st_size * (UNPACKED if file.suffix in COMPRESSIONS else 1) for file in files)
    partitions = count_partitions(size)
    tasks = [SpillTask(file, number, format, repository, partitions, folder) for number, file in enumerate(files)]
    spilled: list[Spilled] = []
    for written, dropped in run_tasks(spill_file, tasks, workers):
        spilled.append(written)
        if dropped:
            yield Batch(format, repository, dropped=tuple(dropped))
    for partition in range(partitions):
        if found := stretches(spilled, partition):
            yield Batch(format, repository, found=found)
