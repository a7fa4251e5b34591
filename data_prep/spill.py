"""Rows by the thousand sorted into partitions on disk, so that what belongs together meets in memory of a fixed size.

A first pass over each input file writes one spill file: segments, in each the rows of every partition side by side. A second pass reads of
all spill files the stretch of one partition. Which partition a key is in, and how many there are, depends on the input alone.
"""

from __future__ import annotations

import array
import pickle
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

SEGMENT_BYTES = 32 << 20
PARTITION_BYTES = 8 << 20
MAX_PARTITIONS = 4096
"""Above 32 GB of lines partitions grow with the input: where each one begins is held in memory, for every segment."""


class Spilled(NamedTuple):
    """A spill file, and for each of its segments where each partition begins, and where the last one ends."""

    path: str
    segments: tuple[array.array[int], ...]

    def within(self, folder: Path) -> Spilled:
        """Return the same of a file that lies in a folder, wherever it was written."""
        return self._replace(path=str(folder / Path(self.path).name))


def count_partitions(size_bytes: int) -> int:
    """Return into how many partitions rows of this size in all are sorted.

    >>> count_partitions(0), count_partitions(100 << 20)
    (1, 13)
    """
    return min(MAX_PARTITIONS, size_bytes // PARTITION_BYTES + 1)


class SpillWriter:
    """A spill file that is being written: memory holds one segment at most."""

    def __init__(self, path: Path, partitions: int) -> None:
        self._path, self._partitions = path, partitions
        self._rows: list[list[Any]] = [[] for _ in range(partitions)]
        self._size = 0
        self._segments: list[array.array[int]] = []
        self._file: IO[bytes] | None = None

    def add(self, key: str, row: Any, size: int) -> None:
        """Add a row of some `size` in bytes to the partition of its key."""
        self._rows[zlib.crc32(key.encode("utf-8", "surrogatepass")) % self._partitions].append(row)
        self._size += size
        if self._size > SEGMENT_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._file is None:
            self._file = open(self._path, "wb")  # noqa: SIM115  # closed in `close`
        starts = array.array("Q")
        for rows in self._rows:
            starts.append(self._file.tell())
            if rows:
                pickle.dump(rows, self._file, pickle.HIGHEST_PROTOCOL)
        starts.append(self._file.tell())
        self._segments.append(starts)
        self._rows = [[] for _ in range(self._partitions)]
        self._size = 0

    def close(self) -> Spilled:
        """Return what was written; a file without rows is none."""
        if self._size or any(self._rows):
            self._flush()
        if self._file is not None:
            self._file.close()
        return Spilled(str(self._path), tuple(self._segments))


def stretches(spilled: Sequence[Spilled], partition: int) -> tuple[tuple[str, int, int], ...]:
    """Return where the rows of a partition are: file, first byte, number of bytes."""
    return tuple(
        (file.path, starts[partition], starts[partition + 1] - starts[partition])
        for file in spilled
        for starts in file.segments
        if starts[partition + 1] > starts[partition]
    )


def read_stretches(found: Sequence[tuple[str, int, int]]) -> Iterator[Any]:
    """Yield the rows of stretches, in order."""
    for path, start, size in found:
        with open(path, "rb") as file:
            file.seek(start)
            yield from pickle.loads(file.read(size))
