"""Dialogue files as records: the ``kind: dialogues`` builder of the prepare stage.

In: what a `DialoguesSpec` names. Out: one `Kept` or `Dropped` for each unit: a row, or for OASST what
`data_prep.oasst` calls one.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any, Literal

from data_prep.clean import clean, sound_text
from data_prep.drafts import Draft, RowProblem
from data_prep.formats import FORMATS, READERS, detect, mistaken_format, rename_columns
from data_prep.json_lines import STRETCH_BYTES, Lines, cut_lines, read_rows, require_some
from data_prep.kinds import BATCH_CHARACTERS, Opened, Piece, Setting
from data_prep.oasst import Tree, read_trees, units_of
from data_prep.preferences import clean_pair
from data_prep.records import Dropped, Item, Kept, settled
from data_prep.remote_files import describe_input
from data_prep.sources import Row, Table, as_text, find_tables, read_table, table_files
from starchat.config import closest, from_mapping, to_mapping
from starchat.dialogue import ROLES, Record, Source
from starchat.errors import UserError

DETECTION_ROWS = 50
ROWS_OF_A_PIECE = 512

Batch = tuple[bytes, ...]
"""Rows, each pickled: they take a fraction of the memory that they take as values."""


@dataclasses.dataclass(frozen=True)
class DialoguesSpec:
    """Dialogues from `path`: a file, glob, folder, saved ``datasets`` folder or Hub id.

    Where the format is detected, a row that shows another one is malformed. `roles` maps role names of the file to ours,
    `columns` its column names to those of the format. `license` is the SPDX licence of all its records; without it a row's
    own ``license`` counts. `paths` is about OASST trees (see `data_prep.oasst`), `hub_split` about Hub ids and saved
    folders. `control_tokens` says what a text does that holds a control token: stop the run, stay as plain text, or be
    dropped. With `python_must_parse`, answers whose Python does not parse are dropped.
    """

    path: str
    kind: Literal["dialogues"] = "dialogues"
    format: Literal["auto", "messages", "sharegpt", "alpaca", "dolly", "oasst", "prompt_completion", "preference"] = "auto"
    license: str | None = None
    roles: dict[str, str] = dataclasses.field(default_factory=dict)
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    paths: Literal["best", "all"] = "best"
    hub_split: str = "train"
    control_tokens: Literal["stop", "keep", "drop"] = "stop"
    python_must_parse: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class DialogueTable:
    """A table and the format of its rows."""

    table: Table
    format: str


def open_kind(mapping: Mapping[str, Any], place: str, setting: Setting) -> Opened:
    """Return dialogues that are ready to be read (`data_prep.kinds`)."""
    spec = from_mapping(DialoguesSpec, mapping, place)
    tables = find_dialogues(spec)
    found = sorted({file for table in tables for file in table_files(table.table)})
    formats = ", ".join(sorted({table.format for table in tables}))
    return Opened(
        *(spec.path, formats, to_mapping(spec), lambda: [describe_input(file) for file in found]),
        *(lambda _: _pieces(spec, tables), setting.workers),
    )


def find_dialogues(spec: DialoguesSpec) -> tuple[DialogueTable, ...]:
    """Return the tables of a source, each with its format, named or detected from its first rows."""
    unknown = sorted(set(spec.roles.values()) - set(ROLES))
    if unknown:
        raise UserError(f"{spec.path}: roles: {unknown[0]!r} is no role of ours; {closest(unknown[0], ROLES)}")
    targets = list(spec.columns.values())
    if twice := next((name for name in targets if targets.count(name) > 1), None):
        raise UserError(f"{spec.path}: columns: two columns are mapped to {twice!r}; map one of them")
    return tuple(DialogueTable(table, _format(table, spec)) for table in find_tables(embedded_path(spec.path), spec.hub_split))


def embedded_path(path: str) -> str:
    """Return `path`, or for ``nano`` the folder of dialogues that come with the package."""
    return str(files("starchat") / "nano" / "dialogues" / "*.jsonl") if path == "nano" else path


def build_dialogues(spec: DialoguesSpec, tables: tuple[DialogueTable, ...]) -> Iterator[Item]:
    """Yield one item for each unit of the tables, in order, made by this process."""
    for piece in _pieces(spec, tables):
        yield from settled(piece.function(piece.argument))


def _pieces(spec: DialoguesSpec, tables: tuple[DialogueTable, ...]) -> Iterator[Piece]:
    for table in tables:
        path = table.table.path
        if table.format == "oasst":
            rows = (_renamed(row, spec.columns) for row in read_table(table.table))
            yield from (Piece(build_trees, (spec, batch)) for batch in _batches(read_trees(rows)))
        elif table.table.reader == "jsonl":
            for lines in require_some(path, cut_lines(path, STRETCH_BYTES)):
                yield Piece(build_rows, (spec, table.format, lines), lines.reads)
        else:
            yield from (Piece(build_rows, (spec, table.format, batch)) for batch in _batches(read_table(table.table)))


def _batches(rows: Iterable[Row | Tree | Dropped]) -> Iterator[Batch]:
    """Yield rows in groups of some megabytes: how large one is, is known when it is pickled, which is done once."""
    batch: list[bytes] = []
    size = 0
    for row in rows:
        batch.append(pickle.dumps(row, pickle.HIGHEST_PROTOCOL))
        size += len(batch[-1])
        if len(batch) == ROWS_OF_A_PIECE or size >= BATCH_CHARACTERS:
            yield tuple(batch)
            batch, size = [], 0
    if batch:
        yield tuple(batch)


def build_rows(task: tuple[DialoguesSpec, str, Lines | Batch]) -> Iterator[Item]:
    """Yield the item of each row of a table of some format."""
    spec, format, found = task
    for row in read_rows(found) if isinstance(found, Lines) else map(pickle.loads, found):
        named = _renamed(row, spec.columns)
        yield named if isinstance(named, Dropped) else _item(named, _draft(named, format, spec), spec)


def build_trees(task: tuple[DialoguesSpec, Batch]) -> Iterator[Item]:
    """Yield the items of OASST trees."""
    spec, found = task
    for tree in map(pickle.loads, found):
        if isinstance(tree, Dropped):
            yield tree
        else:
            yield from (_item(unit.row, unit.result, spec) for unit in units_of(tree, spec.paths, spec.roles))


def _format(table: Table, spec: DialoguesSpec) -> str:
    items = list(itertools.islice(read_table(table), DETECTION_ROWS))
    first = [row for row in items if isinstance(row, Row)]
    keys = sorted({str(key) for row in first for key in row.value})
    missing = sorted(set(spec.columns) - set(keys))
    if missing and first:
        raise UserError(f"{table.path}: columns: no column {missing[0]!r} in the first rows; {closest(missing[0], keys)}")
    if spec.format != "auto":
        return spec.format
    if not first and isinstance(bad := items[0], Dropped):
        raise UserError(f"{bad.place}: {bad.detail}; none of the file's first rows can be read")
    found = detect(rename_columns(row.value, spec.columns) for row in first)
    if found is None:
        raise UserError(
            f"{table.path}: format not recognised by its keys ({', '.join(keys)}); "
            f"name it with format: {' | '.join(FORMATS)}, or map its columns, as in columns: {{question: prompt, answer: completion}}"
        )
    return found


def _renamed(row: Row | Dropped, columns: Mapping[str, str]) -> Row | Dropped:
    return Row(row.place, rename_columns(row.value, columns)) if columns and isinstance(row, Row) else row


def _draft(row: Row, format: str, spec: DialoguesSpec) -> Draft | RowProblem:
    other = mistaken_format(row.value, format)
    if other is None or spec.format != "auto":
        try:
            return READERS[format](row.value, spec.roles)
        except RowProblem as problem:
            if other is None or problem.reason != "wrong_type":
                return problem
    how = "its first rows show it" if spec.format == "auto" else "the spec says so"
    detail = f"the row looks like format {other}; the file is read as {format} ({how}); keep rows of one format in a file"
    return RowProblem("wrong_type", detail, fault=True)


def _item(row: Row, draft: Draft | RowProblem, spec: DialoguesSpec) -> Item:
    if isinstance(draft, Draft):
        try:
            if draft.rejected:
                cleaned, rejected = clean_pair(draft, spec.control_tokens, spec.python_must_parse)
            else:
                cleaned, rejected = clean(draft, spec.control_tokens, spec.python_must_parse), None
        except RowProblem as problem:
            draft = problem
        else:
            own = row.value.get("license")
            repairs = list(cleaned.repairs)
            license = sound_text(spec.license or (own if isinstance(own, str) else ""), repairs) or None
            record = Record(Source(row.place), cleaned.turns, tools=cleaned.tools, license=license, rejected=rejected)
            return Kept(record, tuple(dict.fromkeys(repairs)))
    return Dropped(draft.reason, row.place, draft.detail, as_text(row.value), draft.fault)
