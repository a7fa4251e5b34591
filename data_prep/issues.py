"""Issues as records: the ``kind: issues`` builder of the prepare stage.

In: GHArchive's hours (``format: gharchive``), exports of GitHub's REST API (``rest``) or GraphQL API, of ``gh issue list --json`` and of
IETF working groups (``graphql``), or rows of BigCode's dataset of issues (``bigcode``). Out: one `Kept` or `Dropped` for each unit: a
thread, which for a pull request's conversation is dropped, and a line or row that cannot be read.

Of GHArchive and REST, whose threads lie in pieces, every file is read once and its pieces are sorted into partitions in a temporary
folder (``TMPDIR``); then each partition is built on its own. The other formats have a thread in a row. Rules: `data_prep.issue_rules`;
people: `data_prep.people`; views: `data_prep.issue_views`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_prep.compressed import COMPRESSIONS, open_bytes
from data_prep.documents import Family
from data_prep.drafts import RowProblem
from data_prep.github_events import Sighting, assembled, read_bigcode, sightings_of, sightings_of_row
from data_prep.issue_rules import PRESETS, IssueRules, Refused, ruled
from data_prep.issue_views import dialogue_of, document_of, thread_text
from data_prep.json_lines import Lines, bytes_of, cut_lines
from data_prep.kinds import Opened, Piece, Setting, Shop, pieces_of, preset_rules, spec_and_rules
from data_prep.records import Dropped, Item
from data_prep.remote_files import as_path, describe_input
from data_prep.sources import Row, Table, as_text, find_tables, parse_json, read_line, read_table, table_files
from data_prep.spill import Spilled, SpillWriter, count_partitions, read_stretches, stretches
from data_prep.threads import Comment, RawThread, issue_rows, read_thread
from starchat.config import to_mapping
from starchat.errors import UserError

CHUNK_BYTES = 4 << 20
CHUNK_ROWS = 256
HEAD_BYTES = 1 << 20
MAX_REMEMBERED = 100_000
PACKED = 8
"""How many times smaller a compressed file of events is."""

FORMATS = ("gharchive", "rest", "graphql", "bigcode")
JOINED = ("gharchive", "rest")
"""Formats whose threads lie in pieces."""


@dataclasses.dataclass(frozen=True)
class IssuesSpec:
    """Issues from `path`: a file, glob or folder. The format is told by the keys of the first row, or named.

    `repository` (``owner/name``) is that of rows which do not tell theirs, `license` (SPDX) that of all records. `rules` name a preset
    and what differs from it.
    """

    path: str
    kind: Literal["issues"] = "issues"
    view: Literal["document", "dialogue"] = "document"
    format: Literal["auto", "gharchive", "rest", "graphql", "bigcode"] = "auto"
    license: str | None = None
    repository: str | None = None
    rules: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of the input that one worker reads: a whole file, lines of one, or rows of a table; `first` counts from 1."""

    path: str
    format: str
    first: int = 1
    lines: Lines | None = None
    rows: tuple[Row, ...] | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The file that the worker reads, if there is one."""
        if self.rows is not None:
            return ()
        return (self.path,) if self.lines is None else self.lines.reads


@dataclasses.dataclass(frozen=True, slots=True)
class _Sort:
    """A piece whose threads are to be sorted into partitions."""

    piece: _Piece
    repository: str | None
    partitions: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    """What all tasks of a source share; `family` is None in the dialogue view."""

    spec: IssuesSpec
    rules: IssueRules
    family: Family | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Build:
    """Threads to build: of a piece, or of a partition."""

    job: _Job
    piece: _Piece | None = None
    partition: tuple[tuple[str, int, int], ...] = ()


def open_kind(mapping: Mapping[str, Any], place: str, setting: Setting) -> Opened:
    """Return issues that are ready to be read (`data_prep.kinds`)."""
    spec, rules = spec_and_rules(IssuesSpec, mapping, place, functools.partial(preset_rules, IssueRules, PRESETS, "starcoder"))
    _check_rules(rules, place)
    family = setting.family if spec.view == "document" else None
    if family is not None:
        family.require("<issue_start>", "<issue_comment>", "<issue_closed>")
    tables = find_tables(spec.path)
    if unfit := next((table for table in tables if table.reader in ("hub", "csv")), None):
        raise UserError(f"{place}: path: {unfit.path} is no file of issues; expected .json, .jsonl or .parquet, each also with .gz or .zst")
    format = spec.format if spec.format != "auto" else _detected(tables)
    if format == "gharchive" and (unfit := next((table for table in tables if table.reader in ("parquet", "datasets")), None)):
        raise UserError(
            f"{place}: path: {unfit.path} is a table; GHArchive's hours are read as they are: .json or .jsonl, with .gz or .zst"
        )
    files = sorted({file for table in tables for file in table_files(table)})
    resolved = {**to_mapping(spec), "rules": to_mapping(rules)}
    job = _Job(spec, rules, family)
    return Opened(
        *(spec.path, format, resolved, lambda: [describe_input(file) for file in files]),
        *(lambda shop: _cut(job, tables, format, shop), setting.workers),
    )


def _check_rules(rules: IssueRules, place: str) -> None:
    for key, value in to_mapping(rules).items():
        if key == "min_english" and value is not None and not 0 <= value <= 1:
            raise UserError(f"{place}: rules.{key}: {value}; expected a share from 0 to 1, or null, which is off")
        if isinstance(value, int) and value < 2 and key == "max_comment_lines":
            raise UserError(f"{place}: rules.{key}: {value}; expected at least 2, or null, which is off")
        if isinstance(value, int | float) and value < 0:
            raise UserError(f"{place}: rules.{key}: {value}; expected a number from 0, or null, which is off")


def format_of(row: Any) -> str | None:
    """Return the format of a JSON value by its keys, or None.

    >>> format_of({"type": "PushEvent", "payload": {}}), format_of([{"number": 1, "title": "a", "user": None}])
    ('gharchive', 'rest')
    """
    if isinstance(row, list):
        row = next((entry for entry in row if isinstance(entry, dict)), None)
    if not isinstance(row, dict):
        return None
    keys = row.keys()
    if "type" in keys and ("payload" in keys or "actor" in keys):
        return "gharchive"
    if isinstance(row.get("events"), list) and keys & {"issue_id", "issue_number", "repo"}:
        return "bigcode"
    if keys & {"created_at", "user", "issue_url", "html_url", "comments_url", "author_association", "items"}:
        return "rest"
    return "graphql" if keys & {"author", "createdAt", "authorAssociation", "data", "issues", "nodes", "edges", "title"} else None


def _detected(tables: Sequence[Table]) -> str:
    for table in tables:
        value = _first_value(table)
        if value is None:
            continue
        if (found := format_of(value)) is not None:
            return found
        shown = value[0] if isinstance(value, list) else value
        keys = ", ".join(sorted(map(str, shown))[:12]) if isinstance(shown, dict) else type(shown).__name__
        raise UserError(f"{table.path}: not recognised as issues by its keys ({keys}); name it with format: {' | '.join(FORMATS)}")
    raise UserError(f"{tables[0].path}: holds no rows; remove it from the spec, or check how it was written")


def _first_value(table: Table) -> Any:
    """Return the first value of a table that can be read: a row, or what a whole JSON file holds; None if there is none."""
    if table.reader in ("parquet", "datasets"):
        return next((row.value for row in read_table(table) if isinstance(row, Row)), None)
    with open_bytes(as_path(table.path)) as file:
        head = (file.read(HEAD_BYTES) + file.readline()).removeprefix(b"\xef\xbb\xbf")
        lines = head.split(b"\n")
        if table.reader == "json" and _json_or_none(lines[0]) is None:
            data = head + file.read()
            if (value := _json_or_none(data)) is not None:
                return value
            if data.strip() and not any(isinstance(_json_or_none(line), dict) for line in lines):
                raise _no_json(table.path)
        return next((value for value in map(_json_or_none, lines) if isinstance(value, dict | list) and value), None)


def _json_or_none(data: bytes) -> Any:
    try:
        return parse_json(data)
    except ValueError:
        return None


def _no_json(path: str) -> UserError:
    return UserError(
        f"{path}: not valid JSON; expected an array of issues, what the API gave, or JSON Lines; copy or export the file again"
    )


def _pieces(tables: Sequence[Table], format: str) -> Iterator[_Piece]:
    for table in tables:
        if table.reader in ("parquet", "datasets"):
            rows = (row for row in read_table(table) if isinstance(row, Row))  # tables have no lines that are none
            first = 1
            while chunk := tuple(itertools.islice(rows, CHUNK_ROWS)):
                yield _Piece(table.path, format, first, rows=chunk)
                first += len(chunk)
        elif table.reader == "json" or format == "gharchive":
            yield _Piece(table.path, format)
        else:
            yield from (_Piece(table.path, format, lines.first, lines) for lines in cut_lines(table.path, CHUNK_BYTES))


def _cut(job: _Job, tables: Sequence[Table], format: str, shop: Shop) -> Iterator[Piece]:
    """Yield the work: first what cannot be read, then the threads, partition by partition; or all in their order.

    What belongs to one thread may lie anywhere: such formats are sorted into files of the shop first.
    """
    pieces = _pieces(tables, format)
    if format not in JOINED:
        yield from (Piece(_build, _Build(job, piece), piece.reads) for piece in pieces)
        return
    files = {file for table in tables for file in table_files(table)}
    size = sum(file.stat().st_size * (PACKED if file.suffix in COMPRESSIONS else 1) for file in files)
    partitions = count_partitions(size)
    sorts = (_Sort(piece, job.spec.repository, partitions) for piece in pieces)
    spilled: list[Spilled] = []
    for folder, (dropped, written) in shop.run("sorted", _sort, sorts):
        yield from pieces_of(dropped)
        spilled.append(written.within(folder))
    yield from (Piece(_build, _Build(job, None, stretches(spilled, number))) for number in range(partitions))


def _sort(folder: Path, task: _Sort) -> tuple[list[Dropped], Spilled]:
    """Sort the threads of a piece into a spill file; return it, and what could not be read."""
    writer = SpillWriter(folder / "spilled", task.partitions)
    dropped: list[Dropped] = []
    known: set[str] = set()
    for found in _sighted_lines(task.piece, known) if task.piece.format == "gharchive" else _sighted_rows(task.piece, task.repository):
        if isinstance(found, Dropped):
            dropped.append(found)
            continue
        if len(known) > MAX_REMEMBERED:
            known.clear()
        for sighting in found:
            known.add(sighting.key)
            writer.add(sighting.key, tuple(sighting), 300 + len(sighting.text))
    return dropped, writer.close()


def _sighted_lines(piece: _Piece, known: Container[str]) -> Iterator[Dropped | Sequence[Sighting]]:
    with open_bytes(as_path(piece.path)) as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not (line := line.strip()):
                continue
            try:
                if found := sightings_of(line, piece.path, number, known):
                    yield found
            except RowProblem as problem:
                text = as_text(line.decode("utf-8", "backslashreplace"))
                yield Dropped(problem.reason, f"{piece.path}:{number}", problem.detail, text, problem.fault)
            except ValueError:
                bad = read_line(f"{piece.path}:{number}", line)
                assert isinstance(bad, Dropped), bad
                yield bad


def _sighted_rows(piece: _Piece, repository: str | None) -> Iterator[Dropped | Sequence[Sighting]]:
    for number, found in _threads(piece, repository):
        yield found if isinstance(found, Dropped) else sightings_of_row(found, piece.path, number)


def _threads(piece: _Piece, repository: str | None) -> Iterator[tuple[int, RawThread | Comment | Dropped]]:
    """Yield what the rows of a piece hold, each with its number: threads, comments that lie apart, and what cannot be read."""
    for number, value in _values(piece):
        whole = number == 0
        place = f"{piece.path}:{number}"
        if isinstance(value, Dropped):
            yield number, value
            continue
        for row, name, pull in [(value, repository, False)] if piece.format == "bigcode" else issue_rows(value, repository):
            if whole:
                number += 1  # of a whole JSON file the issues are counted, on however many pages they are
                place = f"{piece.path}:{number}"
            yield number, _thread(place, row, name, pull, piece.format)


def _thread(place: str, row: Any, repository: str | None, pull: bool, format: str) -> RawThread | Comment | Dropped:
    try:
        if not isinstance(row, dict):
            raise RowProblem("wrong_type", f"the row is of type {type(row).__name__}; expected an object; correct or remove it", True)
        found = read_bigcode(place, row) if format == "bigcode" else read_thread(place, row, repository)
    except RowProblem as problem:
        return Dropped(problem.reason, place, problem.detail, as_text(row), problem.fault)
    if isinstance(found, RawThread):
        found.pull = found.pull or pull
    elif format not in JOINED:
        detail = "a comment apart from its issue; name the source with format: rest"
        return Dropped("wrong_type", place, detail, as_text(row), fault=True)
    return found


def _values(piece: _Piece) -> Iterator[tuple[int, Any]]:
    """Yield the JSON values of a piece, each with its number, or the `Dropped` that a line is; a whole JSON file is one, with number 0."""
    if piece.rows is not None:
        yield from enumerate((row.value for row in piece.rows), piece.first)
        return
    if piece.lines is not None:
        data = bytes_of(piece.lines)
    else:
        with open_bytes(as_path(piece.path)) as file:
            data = file.read().removeprefix(b"\xef\xbb\xbf")
        value = _json_or_none(data) if data.strip() else []
        if value is not None:
            yield 0, value
            return
        if not any(isinstance(_json_or_none(line), dict) for line in data.split(b"\n")):
            raise _no_json(piece.path)
    for number, line in enumerate(data.split(b"\n"), piece.first):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if line and not line.isspace():
            row = read_line(f"{piece.path}:{number}", line)
            yield number, row if isinstance(row, Dropped) else row.value


def _build(task: _Build) -> list[Item]:
    """Return the items of a piece or a partition."""
    if task.piece is not None:
        items: list[Item] = []
        for _, found in _threads(task.piece, task.job.spec.repository):
            assert not isinstance(found, Comment), "only joined formats have any"
            items.append(found if isinstance(found, Dropped) else _item(found, task.job))
        return items
    groups: dict[str, list[Sighting]] = {}
    for sighting in map(Sighting._make, read_stretches(task.partition)):
        groups.setdefault(sighting.key, []).append(sighting)
    threads = [assembled(sightings) for _, sightings in sorted(groups.items())]
    threads.sort(key=lambda thread: (thread.repository or "", thread.number or 0))
    return [_item(thread, task.job) for thread in threads]


def _item(thread: RawThread, job: _Job) -> Item:
    if thread.repository is None:
        thread.repository = job.spec.repository
    clean = ruled(thread, job.rules)
    if isinstance(clean, Refused):
        return Dropped(clean.reason, thread.place, clean.detail, thread_text(thread))
    if job.family is not None:
        return document_of(thread, clean, job.family, job.spec.license)
    return dialogue_of(thread, clean, job.spec.license, job.rules.min_answer_characters)
