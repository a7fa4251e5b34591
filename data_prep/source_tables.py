"""Tables of source files, such as the shards of The Stack: a row is a file, or a repository with a list of files.

In: Parquet, JSON Lines, JSON and CSV, a folder that ``datasets`` saved, a Hub id. Out: what `data_prep.source_files` makes of each
file. The columns are found by the names in use (`data_prep.code_columns`).

Tables are cut into stretches of some megabytes, which other processes decode: row groups of Parquet are read there, lines of JSON parsed
there. Row groups that are too large for one process at a time, and the other formats, are decoded here, row after row.

Reasons besides those of files: ``no_content`` (null), ``empty_repository`` (a row without files), ``no_repository`` (with ``form:
repository``, a file whose row names none), and the faults ``wrong_type``, ``invalid_json``, ``invalid_utf8``.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_prep.code_columns import (
    COLUMNS,
    COMMIT_COLUMNS,
    FILES_COLUMN,
    REPOSITORY_COLUMNS,
    date_of,
    license_of,
    path_of,
    stars_of,
    text_of,
)
from data_prep.compressed import COMPRESSIONS, open_bytes
from data_prep.git import is_repository
from data_prep.json_lines import Lines, cut_lines, no_rows, read_rows, require_some
from data_prep.records import Dropped
from data_prep.remote_files import as_path, describe_input, is_remote
from data_prep.source_documents import drawn_order
from data_prep.source_files import Built, Choice, build_file, dropped_file, name_fault
from data_prep.source_trees import Tree, list_leaves, too_large
from data_prep.sources import (
    DATASETS_MARKS,
    HUB_ID,
    PARQUET_ERRORS,
    Row,
    Table,
    find_tables,
    is_table_name,
    parquet_error,
    parquet_rows,
    read_table,
    table_files,
)
from starchat.dialogue import Source
from starchat.errors import UserError

WILD = "*?["
STRETCH_BYTES = 4 << 20
STRETCH_ROWS = 512
"""How much a task holds, as far as rows and groups can be parted."""

GROUP_BYTES = 32 << 20
"""Row groups up to this size are decoded whole by one process."""


@dataclasses.dataclass(frozen=True, slots=True)
class Groups:
    """Row groups of a Parquet file, before which `number` rows stand."""

    path: str
    groups: tuple[int, ...]
    number: int


Stretch = Groups | Lines | tuple[Row | Dropped, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class TableTask:
    """A stretch of a table, and what is to become of it; `license` is that of rows which state none."""

    choice: Choice
    column: str
    license: str | None
    stretch: Stretch


def find_source_tables(path: str, split: str) -> tuple[Table, ...] | None:
    """Return the tables that a path names, or None where it names a folder or repository of source files, or nothing.

    A folder is one of tables if it holds nothing else: a single file of source makes it a tree, and so does one of plain ``.json``.
    """
    if is_remote(path):
        return find_tables(path, split)
    target = Path(path)
    if target.is_dir():
        return None if is_repository(target) else _folder_tables(path, split)
    if target.exists():
        return find_tables(path, split) if is_table_name(target) else None
    return find_tables(path, split) if any(sign in path for sign in WILD) or HUB_ID.fullmatch(path) else None


def _folder_tables(folder: str, split: str) -> tuple[Table, ...] | None:
    names = []
    for leaf in list_leaves(Tree(folder)):
        reason = None if leaf.fault is None else leaf.fault[0]
        path = Path(folder, leaf.path)
        if reason in (None, "symbolic_link") and path.is_file():
            names.append(path)
        elif reason not in ("hidden_file", "skipped_folder"):
            return None
    if any(path.name in DATASETS_MARKS for path in names) and all(p.suffix == ".arrow" or p.name in DATASETS_MARKS for p in names):
        return find_tables(folder, split)
    if not names or not all(is_table_name(path) and path.suffix != ".json" for path in names):
        return None
    return tuple(table for path in names for table in find_tables(str(path), split))


def require_columns(tables: Sequence[Table], column: str) -> None:
    """Raise `UserError` for a table of Parquet that has no such column."""
    for table in tables:
        if _is_parquet(table):
            _require_column(table.path, column)


def describe_tables(tables: Sequence[Table], workers: int) -> list[dict[str, Any]]:
    """Return what the result depends on."""
    files = sorted({file for table in tables for file in table_files(table)})
    try:
        with ThreadPoolExecutor(workers) as pool:  # digests are made without Python's lock
            return list(pool.map(describe_input, files))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; check the file and its permissions") from None


def _require_column(path: str, column: str) -> None:
    with open_bytes(as_path(path)) as file:
        names = _parquet(path, file).schema_arrow.names
    if column in names or FILES_COLUMN in names:
        return
    hint = f"name the one with the files' texts by the key column; it has {', '.join(names[:40])}"
    if "blob_id" in names:
        hint = "this table only names files; their texts lie at Software Heritage under blob_id: download them into that column first"
    raise UserError(f"{path}: no column {column!r}; {hint}")


def _is_parquet(table: Table) -> bool:
    return table.reader == "parquet" and Path(table.path).suffix not in COMPRESSIONS


def _parquet(path: str, file: Any) -> Any:
    import pyarrow.parquet

    if not file.seek(0, io.SEEK_END):
        raise no_rows(path)
    file.seek(0)
    try:
        return pyarrow.parquet.ParquetFile(file)
    except PARQUET_ERRORS as error:
        raise parquet_error(as_path(path), 0, error) from None


def stretches(tables: Iterable[Table], column: str) -> Iterator[Stretch]:
    """Yield tables in pieces that depend on the tables alone, in their order."""
    for table in tables:
        if _is_parquet(table):
            yield from _parquet_stretches(table.path, column)
        elif table.reader == "jsonl":
            yield from require_some(table.path, cut_lines(table.path, STRETCH_BYTES))
        else:
            yield from _row_stretches(read_table(table), column)


def _parquet_stretches(path: str, column: str) -> Iterator[Stretch]:
    """Yield row groups, small ones together; a large one as its rows."""
    with open_bytes(as_path(path)) as file:
        table = _parquet(path, file)
        if not table.metadata.num_rows:
            raise no_rows(path)
        columns = _present(table.schema_arrow.names, column)
        groups: list[int] = []
        size = number = waiting = 0
        for index in range(table.num_row_groups):
            group = table.metadata.row_group(index)
            held = _group_bytes(group, columns)
            if groups and (size + held > STRETCH_BYTES or held > GROUP_BYTES):
                yield Groups(path, tuple(groups), number - waiting)
                groups, size, waiting = [], 0, 0
            if held > GROUP_BYTES:
                yield from _row_stretches(parquet_rows(as_path(path), file, (index,), columns, number), column)
            else:
                groups.append(index)
                size, waiting = size + held, waiting + group.num_rows
            number += group.num_rows
        if groups:
            yield Groups(path, tuple(groups), number - waiting)


def _present(names: Sequence[str], column: str) -> list[str]:
    return [name for name in names if name == column or name in COLUMNS]


def _group_bytes(group: Any, columns: Sequence[str]) -> int:
    leaves = (group.column(index) for index in range(group.num_columns))
    return sum(leaf.total_uncompressed_size for leaf in leaves if leaf.path_in_schema.split(".")[0] in columns)


def _row_stretches(rows: Iterable[Row | Dropped], column: str) -> Iterator[tuple[Row | Dropped, ...]]:
    """Yield rows in groups, without the columns that are not read."""
    found: list[Row | Dropped] = []
    size = 0
    for row in rows:
        if isinstance(row, Row):
            value = {name: row.value[name] for name in _present(list(row.value), column)}
            row, size = Row(row.place, value), size + _size(value, column)
        found.append(row)
        if size >= STRETCH_BYTES or len(found) == STRETCH_ROWS:
            yield tuple(found)
            found, size = [], 0
    if found:
        yield tuple(found)


def _size(value: Mapping[str, Any], column: str) -> int:
    """Return about how many bytes the texts of a row have."""
    content, files = value.get(column), value.get(FILES_COLUMN)
    texts = [file.get(column) for file in files if isinstance(file, dict)] if isinstance(files, list) else []
    return sum(len(text) for text in (content, *texts) if isinstance(text, str | bytes))


def build_stretch(task: TableTask) -> list[Built]:
    """Return what became of each file of a stretch, in order."""
    return [built for row in _rows(task) for built in _of_row(row, task)]


def _rows(task: TableTask) -> Iterator[Row | Dropped]:
    stretch = task.stretch
    if isinstance(stretch, tuple):
        yield from stretch
    elif isinstance(stretch, Lines):
        yield from read_rows(stretch)
    else:
        path = as_path(stretch.path)
        with open_bytes(path) as file:
            columns = _present(_parquet(stretch.path, file).schema_arrow.names, task.column)
            yield from parquet_rows(path, file, stretch.groups, columns, stretch.number)


def _of_row(row: Row | Dropped, task: TableTask) -> Iterator[Built]:
    """Yield what became of the file, or of each of the files, in a row."""
    if isinstance(row, Dropped):
        yield _left_out(Source(row.place), row.reason, row.detail, fault=True)
        return
    value = row.value
    repository = text_of(value, REPOSITORY_COLUMNS) or task.choice.repository
    stars = task.choice.stars if (told := stars_of(value)) is None else told
    whole = Source(row.place, repository, path_of(value), text_of(value, COMMIT_COLUMNS), stars=stars, date=date_of(value))
    license = license_of(value) or task.license
    if task.column in value or FILES_COLUMN not in value:
        yield _of_file(whole, value, license, task)
        return
    files = value[FILES_COLUMN]
    if files is None or files == []:
        yield _left_out(whole, "empty_repository", "the row has no files")
    elif not isinstance(files, list):
        yield _left_out(whole, "wrong_type", f"column files is of type {type(files).__name__}; expected a list of files", fault=True)
    else:
        for source, file in _sources(whole, files, task.choice):
            yield _of_file(source, file, license, task)


def _sources(whole: Source, files: Sequence[Any], choice: Choice) -> list[tuple[Source, Any]]:
    """Return the files of a repository's row, each with its source: in the order of the row, or drawn, where they become documents."""
    found = []
    for number, file in enumerate(files, 1):
        path, date = (path_of(file), date_of(file)) if isinstance(file, dict) else (None, None)
        found.append((dataclasses.replace(whole, place=f"{whole.place}/{path or number}", path=path, date=date or whole.date), file))
    if choice.loose:
        found.sort(key=lambda pair: drawn_order(pair[0].repository, pair[0].path or "", choice.seed))
    return found


def _of_file(source: Source, value: Any, license: str | None, task: TableTask) -> Built:
    choice, column = task.choice, task.column
    if not isinstance(value, dict) or column not in value:
        what = "not there" if isinstance(value, dict) else f"in no object, but in {type(value).__name__}"
        return _left_out(source, "wrong_type", f"column {column} is {what}; name that of the files' texts with the key column", fault=True)
    content = value[column]
    if content is None:
        return _left_out(source, "no_content", f"column {column} is null")
    if not isinstance(content, str | bytes):
        detail = f"column {column} is of type {type(content).__name__}; expected the text of a file; name its column with the key column"
        return _left_out(source, "wrong_type", detail, fault=True)
    if choice.loose and source.repository is None:
        return _left_out(source, "no_repository", "form: repository, and the row names none; give one with the key repository")
    data = name_fault(source.path or "", choice) or _too_large(content, choice) or content
    return build_file(source, data, license_of(value) or license, False, choice)


def _too_large(content: str | bytes, choice: Choice) -> tuple[str, str] | None:
    most = choice.rules.max_file_bytes
    if most is None or 4 * len(content) <= most:
        return None
    size = len(content) if isinstance(content, bytes) or content.isascii() else len(content.encode("utf-8", "surrogatepass"))
    return too_large(size, most) if size > most else None


def _left_out(source: Source, reason: str, detail: str, fault: bool = False) -> Built:
    return Built(source, (dropped_file(source, reason, detail, fault=fault),))
