"""Raw rows, each with its place, from whatever a spec's ``path`` names.

In: a file, a glob, a folder of files, a folder that ``datasets`` saved, or a Hub id. Out: `Row`, or a `Dropped`
fault for a line that is no JSON object in UTF-8. Which format the rows have is not looked at here.
JSONL, CSV and Parquet are streamed; a JSON file is held in memory.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from data_prep.compressed import COMPRESSIONS, open_bytes
from data_prep.outputs import manifest_of
from data_prep.records import Dropped, encodable
from data_prep.remote_files import as_path, is_remote, matches
from starchat.errors import UserError

EXTENSIONS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
DATASETS_MARKS = ("dataset_dict.json", "dataset_info.json", "state.json")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PARQUET_ROWS, PARQUET_BYTES = 512, 8 << 20
"""How much of a Parquet file is decoded at a time, at most."""

PARQUET_ERRORS = (ValueError, KeyError, OverflowError, NotImplementedError, OSError)
"""What pyarrow raises for a file that is damaged, or for a value that it cannot give: its own errors are kinds of these."""

MAX_RAW_CHARACTERS = 20_000
MAX_DEPTH = 300  # deeper values exhaust Python's stack where they are walked; an OASST tree has two levels a message


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A JSON object and where it was read: ``file:line`` for JSONL, ``file:row`` for the others, counted from 1."""

    place: str
    value: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """One thing that rows are read from. `split` matters for `reader` ``datasets`` and ``hub`` only."""

    path: str
    reader: str
    split: str = "train"


def find_tables(path: str, split: str = "train") -> tuple[Table, ...]:
    """Return what `path` names, in sorted order; raise `UserError` where it names nothing that can be read."""
    tables = _named_tables(path, split)
    for table in tables:
        if encodable(table.path) != table.path:
            raise UserError(f"{encodable(table.path)}: the file's name is not UTF-8; rename it")
    return tables


def _named_tables(path: str, split: str) -> tuple[Table, ...]:
    target = as_path(path)
    if target.is_dir():
        return _folder_tables(target, split)
    if target.exists():
        return (Table(path, _reader(target)),)
    if any(sign in path for sign in "*?["):
        found = matches(path)
        if not found:
            raise UserError(f"{path}: no file matches; check the pattern (it is relative to the current folder, {Path.cwd()})")
        return tuple(Table(name, _reader(Path(name))) for name in found)
    if HUB_ID.fullmatch(path) and not is_table_name(target):
        return (Table(path, "hub", split),)
    if is_remote(path):
        raise UserError(f"{path}: nothing is there; check the address, and whose account is used")
    raise UserError(f"{path}: no such file or folder; paths are relative to the current folder, {Path.cwd()}")


def table_files(table: Table) -> list[Path]:
    """Return the files on disk behind a table; none for a Hub id."""
    if table.reader == "hub":
        return []
    path = as_path(table.path)
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def read_table(table: Table) -> Iterator[Row | Dropped]:
    """Yield every row of a table; raise `UserError` for a file that cannot be read or has no rows."""
    readers = {"jsonl": _read_jsonl, "json": _read_json, "csv": _read_csv, "parquet": _read_parquet}
    empty = True
    if table.reader in readers:
        rows = readers[table.reader](as_path(table.path))
    else:
        rows = _read_datasets(table)
    for row in rows:
        empty = False
        yield row
    if empty:
        raise UserError(f"{table.path}: holds no rows; remove it from the spec, or check how it was written")


def as_text(value: Any) -> str:
    """Return a row as JSON text for the table of dropped rows, cut at a stated length.

    >>> as_text({"a": "é"})
    '{"a": "é"}'
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    cut = len(text) - MAX_RAW_CHARACTERS
    return text if cut <= 0 else f"{text[:MAX_RAW_CHARACTERS]} … ({cut} more characters)"


def parse_json(text: bytes) -> Any:
    """Return the JSON value; ``ValueError`` says why there is none.

    orjson refuses lone surrogates, which the standard library reads; NaN and Infinity are no JSON and refused by both.

    >>> parse_json(b'{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"\\u" not in text:
            raise ValueError(str(error)) from None
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return value


def _depth(value: Any) -> int:
    """Return how many levels of arrays and objects a JSON value has."""
    depth, level = 0, [value]
    while level := [inner for inner in level if isinstance(inner, dict | list)]:
        depth += 1
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def is_table_name(path: Path) -> bool:
    """Return whether a file is a table by its name.

    >>> is_table_name(Path("a.jsonl.zst")), is_table_name(Path("a.py"))
    (True, False)
    """
    bare = Path(path.stem) if path.suffix in COMPRESSIONS else path
    return bare.suffix in EXTENSIONS


def _reader(path: Path) -> str:
    if not is_table_name(path):
        known = ", ".join(EXTENSIONS)
        raise UserError(f"{path}: extension {path.suffix!r} is not known; expected one of {known}, each also with .gz or .zst")
    return EXTENSIONS[Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix]


def _folder_tables(folder: Path, split: str) -> tuple[Table, ...]:
    if any((folder / mark).is_file() for mark in DATASETS_MARKS):
        return (Table(str(folder), "datasets", split),)
    names = [p for p in sorted(folder.iterdir()) if p.is_file() and is_table_name(p) and not p.name.startswith(".")]
    if _is_prepared(folder):
        names = [p for p in names if p.suffix == ".parquet"]
    if not names:
        raise UserError(f"{folder}: no data file in this folder; expected {', '.join(EXTENSIONS)}, or a folder that datasets saved")
    return tuple(Table(str(p), _reader(p)) for p in names)


def _is_prepared(folder: Path) -> bool:
    """Return whether a folder is a dataset of ours; a ``manifest.json`` of anybody else is a file like any other."""
    try:
        manifest = manifest_of(str(folder))
    except UserError:
        return False
    return manifest is not None and manifest.get("stage") == "prepare"


def _read_jsonl(path: Path) -> Iterator[Row | Dropped]:
    with open_bytes(path) as file:
        yield from _json_lines(path, file)


def _json_lines(path: Path, lines: Iterable[bytes]) -> Iterator[Row | Dropped]:
    return (read_line(place, line) for place, line in numbered_lines(path, lines))


def numbered_lines(path: Path, lines: Iterable[bytes], first: int = 1) -> Iterator[tuple[str, bytes]]:
    """Yield the lines of JSONL that hold something, each with its place: what `read_line` takes, here or in another process.

    `first` is the number of the first line.
    """
    for number, line in enumerate(lines, first):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line and not line.isspace():
            yield f"{path}:{number}", line


def read_line(place: str, line: bytes) -> Row | Dropped:
    """Return the JSON object in a line of JSONL, or the fault that the line is."""
    try:
        value = parse_json(line.strip())
    except ValueError as error:
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as bad:
            return _bad_utf8(place, line, bad.start)
        detail = f"not valid JSON ({error}); expected one JSON object a line; correct or remove the line"
        return Dropped("invalid_json", place, detail, as_text(text), fault=True)
    return _object_row(place, value)


def _bad_utf8(place: str, line: bytes, start: int) -> Dropped:
    detail = f"byte 0x{line[start]:02x} at position {start + 1} is not valid UTF-8; convert the file to UTF-8, or correct the line"
    return Dropped("invalid_utf8", place, detail, as_text(line.decode("utf-8", "backslashreplace").strip()), fault=True)


def _object_row(place: str, value: Any) -> Row | Dropped:
    if isinstance(value, dict):
        return Row(place, value)
    detail = f"the row is of type {type(value).__name__}; expected a JSON object; correct or remove it"
    return Dropped("wrong_type", place, detail, as_text(value), fault=True)


def _read_json(path: Path) -> Iterator[Row | Dropped]:
    with open_bytes(path) as file:
        data = file.read().removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        return
    try:
        value = parse_json(data)
    except ValueError as error:
        lines = io.BytesIO(data)
        if isinstance(read_line(str(path), next(iter(lines))), Row):
            yield from _json_lines(path, io.BytesIO(data))  # JSON Lines under the name .json
            return
        raise UserError(f"{path}: not valid JSON ({error}); expected an array of objects, or JSON Lines") from None
    for number, row in enumerate(_json_rows(path, value), 1):
        yield _object_row(f"{path}:{number}", row)


def _json_rows(path: Path, value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        arrays = [v for v in value.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        is_dialogue = any("role" in array[0] or "from" in array[0] for array in arrays)
        if is_dialogue:
            return [value]
        if len(arrays) == 1:
            return list(arrays[0])
    found = f"an object with the keys {', '.join(list(value)[:10])}" if isinstance(value, dict) else type(value).__name__
    raise UserError(
        f"{path}: expected an array of objects, or an object that holds exactly one; found {found}; "
        "put the rows into one array, or name the files that hold rows by a pattern"
    )


def _read_csv(path: Path) -> Iterator[Row | Dropped]:
    csv.field_size_limit(sys.maxsize)  # the default of 131,072 characters refuses long answers
    with open_bytes(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.DictReader(text, restkey="\0rest", restval="\0missing", strict=True)
        try:
            _require_distinct(path, reader.fieldnames or ())
            for number, row in enumerate(reader, 1):
                yield _csv_row(f"{path}:{number}", row)
        except csv.Error as error:
            raise UserError(f"{path}: not valid CSV at line {reader.line_num} ({error}); check its quotes") from None
        finally:
            with contextlib.suppress(ValueError):
                text.detach()


def _require_distinct(path: Path, columns: Sequence[str]) -> None:
    """Raise `UserError` where two columns have one name: of these a row would hold the last only."""
    if twice := next((name for name in columns if name and columns.count(name) > 1), None):
        raise UserError(f"{path}: two columns are named {encodable(twice)!r}; rename or remove one")


def _csv_row(place: str, row: dict[str, Any]) -> Row | Dropped:
    if "\0rest" in row or "\0missing" in row.values():
        detail = "the row has more or fewer cells than the header; correct or remove it"
        return Dropped("wrong_type", place, detail, as_text([v for v in row.values() if v != "\0missing"]), fault=True)
    cells = "\n".join(f"{key}={cell}" for key, cell in row.items())
    data = cells.encode("utf-8", "surrogateescape")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as bad:
        return _bad_utf8(place, data, bad.start)
    return Row(place, row)


def _read_parquet(path: Path) -> Iterator[Row | Dropped]:
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(open_bytes(path))
        if path.suffix in COMPRESSIONS:  # Parquet is read from its end, so it must be unpacked first
            unpacked = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, unpacked)
            unpacked.seek(0)
            file = unpacked
        yield from _parquet_rows(path, file)


def _parquet_rows(path: Path, file: IO[bytes]) -> Iterator[Row]:
    if not file.seek(0, io.SEEK_END):
        return
    file.seek(0)
    yield from parquet_rows(path, file)


def parquet_rows(
    path: Path, file: IO[bytes], groups: Sequence[int] | None = None, columns: Sequence[str] | None = None, number: int = 0
) -> Iterator[Row]:
    """Yield the rows of a Parquet file, or of some of its row groups, before which `number` rows stand; of all columns, or of some.

    No more rows become values at a time than hold some megabytes on average; Arrow itself holds a page, of up to 1024 rows.
    """
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        _require_distinct(path, table.schema_arrow.names)
        held = [table.metadata.row_group(group) for group in (range(table.num_row_groups) if groups is None else groups)]
        row_bytes = sum(group.total_byte_size for group in held) // max(1, sum(group.num_rows for group in held))
        size = max(1, min(PARQUET_ROWS, PARQUET_BYTES // max(1, row_bytes)))
        for batch in table.iter_batches(batch_size=size, row_groups=groups, columns=columns):
            for value in batch.to_pylist(maps_as_pydicts="strict"):
                number += 1
                yield Row(f"{path}:{number}", value)
    except PARQUET_ERRORS as error:
        raise parquet_error(path, number, error) from None


def parquet_error(path: Path, number: int, error: BaseException) -> BaseException:
    """Return what to raise for one of `PARQUET_ERRORS` after a row: a `UserError`, or the error of the system that it is."""
    import pyarrow

    if isinstance(error, OSError):
        if error.errno is not None:
            return error
        return UserError(f"{path}: damaged Parquet after row {number} ({error}); copy or download the file again")
    if isinstance(error, pyarrow.ArrowInvalid | UnicodeDecodeError):
        return UserError(f"{path}: not a sound Parquet file after row {number} ({error}); copy or download the file again")
    return UserError(f"{path}: a value after row {number} cannot be read ({error}); convert or remove its column")


def _read_datasets(table: Table) -> Iterator[Row]:
    data = _load_hub(table) if table.reader == "hub" else _load_saved(table)
    for number, value in enumerate(data, 1):
        yield Row(f"{table.path}:{number}", dict(value))


def _load_saved(table: Table) -> Any:
    import datasets

    try:
        data = datasets.load_from_disk(table.path)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{table.path}: datasets cannot load this folder ({_first_line(error)}); save it again") from None
    if isinstance(data, datasets.DatasetDict):
        if table.split not in data:
            raise UserError(f"{table.path}: no split {table.split!r}; it has {', '.join(sorted(data))}; name one with hub_split")
        return data[table.split]
    return data


def _load_hub(table: Table) -> Any:
    import datasets

    try:
        return datasets.load_dataset(table.path, split=table.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"{table.path}: no such path, and as a Hub id it could not be loaded ({_first_line(error)}); "
            "check the name and split, or download the data and give its path"
        ) from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
