"""Files of JSON Lines in stretches: cut by one process, which looks for the ends of lines alone, and parsed by whatever process.

In: the name of a file. Out: `Lines`, in an order and of a size that depend on the file alone. Of a plain file of a disk a stretch says
where it lies, and is read by who parses it. Compressed bytes can be read from the first one on only, and those of a store are fetched
once: such stretches are the bytes themselves.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

from data_prep.compressed import COMPRESSIONS, open_bytes
from data_prep.records import Dropped
from data_prep.remote_files import as_path, is_remote
from data_prep.sources import Row, numbered_lines, read_line
from starchat.errors import UserError

STRETCH_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Part = TypeVar("Part")


@dataclasses.dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines of a file, the first of which has the number `first`: as many bytes from `start` on, or `data` where that is given."""

    path: str
    first: int
    start: int
    size_bytes: int
    data: bytes | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The file that is read by who parses the lines, if there is one (`data_prep.kinds.Piece`)."""
        return () if self.data is not None else (self.path,)


def cut_lines(path: str, size_bytes: int) -> Iterator[Lines]:
    """Yield the lines of a file, of `size_bytes` and to the end of a line in a stretch. A stretch of white space alone is left out."""
    target = as_path(path)
    is_place = not is_remote(path) and target.suffix not in COMPRESSIONS
    first, start = 1, 0
    with open_bytes(target) as file:
        while data := file.read(size_bytes):
            data += file.readline()
            held = data.removeprefix(BYTE_ORDER_MARK) if first == 1 else data
            if held and not held.isspace():
                yield Lines(path, first, start, len(data), None if is_place else data)
            first += data.count(b"\n")
            start += len(data)


def require_some(path: str, found: Iterable[Part]) -> Iterator[Part]:
    """Yield what was found in a file; raise `UserError` if that is nothing."""
    empty = True
    for part in found:
        empty = False
        yield part
    if empty:
        raise no_rows(path)


def no_rows(path: str) -> UserError:
    """Return what to raise for a file without rows."""
    return UserError(f"{path}: holds no rows; remove it from the spec, or check how it was written")


def bytes_of(lines: Lines) -> bytes:
    """Return the bytes of a stretch; raise `UserError` if they are no longer all there."""
    if lines.data is not None:
        return lines.data
    with open_bytes(as_path(lines.path)) as file:
        file.seek(lines.start)
        data = file.read(lines.size_bytes)
    if len(data) < lines.size_bytes:
        raise UserError(f"{lines.path}: became shorter while it was read; give the same command again when nothing writes to the file")
    return data


def lines_of(lines: Lines) -> Iterator[tuple[str, bytes]]:
    """Yield the lines of a stretch that hold something, each with its place."""
    return numbered_lines(as_path(lines.path), io.BytesIO(bytes_of(lines)), lines.first)


def read_rows(lines: Lines) -> Iterator[Row | Dropped]:
    """Yield the rows of a stretch, and the faults among them."""
    return itertools.starmap(read_line, lines_of(lines))
