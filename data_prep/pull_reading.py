"""Rows of exports as pull requests, in batches for all cores.

In: files of JSON or JSON Lines, each also compressed. Out: `Batch`, which a worker makes pull requests of (`pulls_of`). Where every row is
a whole pull request, a batch is a stretch of rows. Where several rows tell of one (events, payloads, objects that stand apart), rows
are sorted by pull request into partitions on disk first, and a batch is a partition.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.compressed import COMPRESSIONS, open_bytes
from data_prep.drafts import RowProblem
from data_prep.json_lines import Lines, cut_lines, lines_of
from data_prep.kinds import Shop
from data_prep.pull_objects import read_time
from data_prep.pull_shapes import ADDRESSES, WHOLE, RawPull, Shape, concerns_pull, key_of, read_pull, shape_of
from data_prep.records import Dropped
from data_prep.remote_files import as_path
from data_prep.sources import as_text, find_tables, parse_json, read_line
from data_prep.spill import Spilled, SpillWriter, count_partitions, read_stretches, stretches
from data_prep.threads import issue_rows
from starchat.errors import UserError

BATCH_BYTES = 1 << 20
BATCH_ROWS = 256
DETECTION_ROWS = 50
UNPACKED = 8
"""How many times larger JSON is about when it is unpacked: the number of partitions goes by that."""

FORMATS: Mapping[str, tuple[Shape, ...]] = {
    "gharchive": ("event",),
    "webhooks": ("webhook",),
    "rest": ("pull", "issue", "review", "line", "comment", "file"),
    "graphql": ("graphql",),
}
MARKS = (b'"PullRequest', b'"IssueCommentEvent"')
"""What a line of GHArchive must hold to be of interest. Within a text the quotes would be escaped."""


class Entry(NamedTuple):
    """A row as it was read: a line of JSON Lines, or a value; `repository` is what its file says above it."""

    place: str
    value: Any
    repository: str | None = None


class Spilt(NamedTuple):
    """A row that is sorted by pull request, and where it stood."""

    key: tuple[str, int]
    order: tuple[int, int]
    place: str
    shape: Shape
    row: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Rows of whole pull requests, or stretches of spilled rows of which several belong together; and what was dropped before."""

    format: str
    repository: str | None
    entries: tuple[Entry, ...] | Lines = ()
    found: tuple[tuple[str, int, int], ...] = ()
    dropped: tuple[Dropped, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The file that is read by who makes the pull requests, if there is one (`data_prep.kinds.Piece`)."""
        return self.entries.reads if isinstance(self.entries, Lines) else ()


@dataclasses.dataclass(frozen=True, slots=True)
class SpillTask:
    """A file whose rows are to be sorted into partitions."""

    file: Path
    number: int
    format: str
    repository: str | None
    partitions: int


def find_files(path: str) -> list[Path]:
    """Return the files that a spec's path names; raise `UserError` where it names none of JSON or JSON Lines."""
    tables = find_tables(path)
    for table in tables:
        if table.reader == "hub":
            raise UserError(f"{path}: no such file or folder; paths are relative to the current folder, {Path.cwd()}")
        if table.reader not in ("json", "jsonl"):
            raise UserError(f"{table.path}: pull requests are read from JSON or JSON Lines; convert it, or name the files by a pattern")
    return [as_path(table.path) for table in tables]


def find_shapes(files: Sequence[Path], format: str) -> tuple[Shape, ...]:
    """Return the shapes of the first rows of each file; raise `UserError` where no file has a row of a pull request."""
    firsts = [shape for file in files for shape in itertools.islice(_first_rows(file, format), DETECTION_ROWS)]
    if not firsts:
        raise UserError(f"{files[0]}: no row of a pull request is in it, nor in any file beside it; check the path and the export")
    return tuple(sorted({shape for shape in firsts if shape is not None}))


def open_batches(
    files: Sequence[Path], shapes: Collection[Shape], format: str, repository: str | None, shop: Shop, max_rows: int
) -> Callable[[], Iterator[Batch]]:
    """Return what yields the batches of files, in an order and of a size that depend on the files alone; `shop` holds the spill."""
    if set(shapes) <= set(WHOLE):
        return lambda: _whole_batches(files, format, repository, max_rows)
    size = sum(file.stat().st_size * (UNPACKED if file.suffix in COMPRESSIONS else 1) for file in files)
    partitions = count_partitions(size)
    tasks = (SpillTask(file, number, format, repository, partitions) for number, file in enumerate(files))
    spilled: list[Spilled] = []
    unread: list[Dropped] = []
    for folder, (written, dropped) in shop.run("sorted", spill_file, tasks):
        spilled.append(written.within(folder))
        unread += dropped
    return lambda: iter(
        [
            Batch(format, repository, dropped=tuple(unread)),
            *(Batch(format, repository, found=stretches(spilled, partition)) for partition in range(partitions)),
        ]
    )


def _first_rows(file: Path, format: str) -> Iterator[Shape | None]:
    for entry in _entries(file):
        for found in _rows(entry, format):
            yield found.shape if isinstance(found, Shaped) else None


def _whole_batches(files: Sequence[Path], format: str, repository: str | None, max_rows: int) -> Iterator[Batch]:
    for file in files:
        if _is_lines(file):
            yield from (Batch(format, repository, lines) for lines in cut_lines(str(file), BATCH_BYTES * max_rows // BATCH_ROWS))
            continue
        entries: list[Entry] = []
        size = 0
        for entry in _entries(file):
            entries.append(entry)
            size += len(entry.value) if isinstance(entry.value, bytes) else BATCH_BYTES // BATCH_ROWS
            if size >= BATCH_BYTES or len(entries) >= max_rows:
                yield Batch(format, repository, tuple(entries))
                entries, size = [], 0
        if entries:
            yield Batch(format, repository, tuple(entries))


def _entries(file: Path) -> Iterator[Entry]:
    """Yield the lines of a file of JSON Lines, also under the name ``.json``, or the rows of a JSON value."""
    with open_bytes(file) as stream:
        head = [stream.readline().removeprefix(b"\xef\xbb\xbf")]
        while head[-1] and sum(not line.isspace() for line in head) < 2:
            head.append(stream.readline())
        if _is_lines(file) or sum(line[:1] == b"{" for line in head) == 2:
            yield from _lines(file, itertools.chain(head, stream))
            return
        data = b"".join((*head, stream.read()))
    if not data.strip():
        return
    try:
        value = parse_json(data)
    except ValueError as error:
        lines = data.split(b"\n")
        if sum(line[:1] == b"{" for line in lines) < 2:  # with indents or without, a single value begins on one line only
            raise UserError(f"{file}: not valid JSON ({error}); expected what GitHub's API gave, an array of it, or JSON Lines") from None
        yield from _lines(file, lines)
        return
    for number, (row, repository, pull) in enumerate(_flat(value, None), 1):
        yield Entry(f"{file}:{number}", {**row, "isPullRequest": True} if pull and isinstance(row, dict) else row, repository)


def _is_lines(file: Path) -> bool:
    return bool({".jsonl", ".ndjson"} & set(file.suffixes))


def _lines(file: Path, lines: Iterable[bytes]) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        if line and not line.isspace():
            yield Entry(f"{file}:{number}", line)


def _flat(value: Any, repository: str | None) -> Iterator[tuple[Any, str | None, bool]]:
    """Yield the rows of a JSON value, each with its repository and whether it stands among pull requests."""
    waiting = [(value, repository)]
    while waiting:
        value, repository = waiting.pop()
        if isinstance(value, list):
            waiting += [(entry, repository) for entry in reversed(value)]
        elif isinstance(value, dict) and shape_of(value) is None:
            yield from issue_rows(value, repository)
        else:
            yield value, repository, False


class Shaped(NamedTuple):
    """A row of a pull request, and what it is of it."""

    shape: Shape
    row: Mapping[str, Any]
    repository: str | None


def _rows(entry: Entry, format: str) -> Iterator[Shaped | Dropped]:
    """Yield the rows of an entry that are about pull requests; what cannot be read, or is of another format, is dropped."""
    value = entry.value
    if isinstance(value, bytes):
        try:
            value = parse_json(value.strip())
        except ValueError:
            bad = read_line(entry.place, entry.value)
            assert isinstance(bad, Dropped), bad
            yield bad
            return
    for row, repository, pull in _flat(value, entry.repository):
        shape = shape_of(row) if isinstance(row, dict) else None
        if shape is None and isinstance(row, dict) and "number" in row and "title" in row:
            if not pull and not row.get("isPullRequest"):
                continue  # an issue
            shape = "graphql"
        if shape is None or (format != "auto" and shape not in FORMATS[format]):
            found = f"looks like {shape!r}" if shape else f"is of type {type(row).__name__}, with no keys of one"
            if shape is None and isinstance(row, dict) and "filename" in row:
                found = "is a file that does not say whose: add pull_number to it, or put it among the files of its pull request"
            expected = "a row of a pull request" if format == "auto" else f"a row of a pull request of format {format}"
            detail = f"the row {found}; expected {expected}; correct or remove it"
            yield Dropped("wrong_type", entry.place, detail, as_text(row), fault=True)
        elif concerns_pull(row, shape):
            yield Shaped(shape, row, repository)


def spill_file(folder: Path, task: SpillTask) -> tuple[Spilled, list[Dropped]]:
    """Sort the rows of a file by pull request; return where they are, and what could not be read."""
    writer = SpillWriter(folder / "spilled", task.partitions)
    dropped: list[Dropped] = []
    events = next(_first_rows(task.file, task.format), None) == "event"
    for count, entry in enumerate(_entries(task.file)):
        if events and isinstance(entry.value, bytes) and _is_other_event(entry.value):
            continue
        for found in _rows(entry, task.format):
            if isinstance(found, Dropped):
                dropped.append(found)
                continue
            key = key_of(found.row, found.shape, found.repository or task.repository)
            if key is None:
                detail = "the row does not say which pull request it is about; expected number, or the address of one; correct or remove it"
                dropped.append(Dropped("no_number", entry.place, detail, as_text(found.row), fault=True))
                continue
            name = f"{key[0].lower()}#{key[1]}"
            size = len(entry.value) if isinstance(entry.value, bytes) else BATCH_BYTES // BATCH_ROWS
            writer.add(name, Spilt(key, (task.number, count), entry.place, found.shape, slim(found.row)), size)
    return writer.close(), dropped


def _is_other_event(line: bytes) -> bool:
    if any(mark in line for mark in MARKS):
        return b'"IssueCommentEvent"' in line and b'"pull_request"' not in line
    return b'Event"' in line and line.startswith(b"{") and line.rstrip().endswith(b"}")


def slim(value: Any) -> Any:
    """Return a row without the addresses that payloads repeat for every object, and that no reader looks at.

    >>> slim({"user": {"login": "a", "gists_url": "https://..."}, "issue_url": "https://..."})
    {'user': {'login': 'a'}, 'issue_url': 'https://...'}
    """
    if isinstance(value, dict):
        kept = ((key, inner) for key, inner in value.items() if key in ADDRESSES or not (key.endswith("_url") or key == "_links"))
        return {key: slim(inner) if isinstance(inner, dict | list) else inner for key, inner in kept}
    return [slim(inner) for inner in value] if isinstance(value, list) else value


def pulls_of(batch: Batch) -> Iterator[RawPull | Dropped]:
    """Yield the pull requests of a batch, in the order in which they are first told of."""
    yield from batch.dropped
    entries = itertools.starmap(Entry, lines_of(batch.entries)) if isinstance(batch.entries, Lines) else batch.entries
    for entry in entries:
        for found in _rows(entry, batch.format):
            yield found if isinstance(found, Dropped) else _whole(found, entry.place, batch.repository)
    groups: dict[tuple[str, int], list[Spilt]] = {}
    for row in read_stretches(batch.found):
        groups.setdefault((row.key[0].lower(), row.key[1]), []).append(row)
    for rows in sorted(groups.values(), key=lambda rows: rows[0].order):
        yield _joined(rows)


def _whole(found: Shaped, place: str, repository: str | None) -> RawPull | Dropped:
    if found.shape not in WHOLE:
        detail = (
            f"the row is a {found.shape} of a pull request, the file's first rows are whole pull requests; keep rows of one sort in a file"
        )
        return Dropped("wrong_type", place, detail, as_text(found.row), fault=True)
    try:
        return read_pull([(found.shape, found.row)], place, found.repository or repository)
    except RowProblem as problem:
        return Dropped(problem.reason, place, problem.detail, as_text(found.row), problem.fault)


def _joined(rows: Sequence[Spilt]) -> RawPull | Dropped:
    """Return the pull request of its rows. Events go by time: of the files of one day the tenth hour comes before the second by name."""
    first = rows[0]
    rows = sorted(rows, key=lambda row: read_time(row.row.get("created_at")) if row.shape == "event" else "")
    try:
        return read_pull([(row.shape, row.row) for row in rows], first.place, first.key[0] or None)
    except RowProblem as problem:
        shown = as_text([row.row for row in rows])
        return Dropped(problem.reason, first.place, f"{first.key[0]}#{first.key[1]}: {problem.detail}", shown, problem.fault)
