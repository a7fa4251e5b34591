"""Where notebooks lie: files, folders, patterns, git repositories, columns of tables.

In: what a spec's ``path`` names. Out: `Inputs`, which the result depends on, and its notebooks in batches: an order and a cut that
depend on the input alone. Nothing is parsed here; files and blobs are read by the process that parses them.

A folder is walked in the order of names. Not entered, and each one item among the dropped: hidden folders (``.ipynb_checkpoints`` among
them) and folders that tools fill (`TOOL_FOLDERS`), ``skipped_folder``; links, ``symbolic_link``; hidden files, ``hidden_file``; what is no
file or cannot be read, ``unreadable``. A folder without a notebook is looked at for tables. Of a git repository, bare or a clone, the
notebooks of one commit are read, without its ``submodule``.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from data_prep.code_columns import LICENSE_COLUMNS, PATH_COLUMNS, REPOSITORY_COLUMNS, date_of, text_of
from data_prep.compressed import COMPRESSIONS
from data_prep.git import is_repository, read_tree, repository_name, resolve
from data_prep.json_lines import Lines, cut_lines, read_rows, require_some
from data_prep.records import Dropped, encodable
from data_prep.remote_files import describe_input, is_remote
from data_prep.source_trees import Leaf, Tree, list_leaves
from data_prep.sources import EXTENSIONS, Row, Table, as_text, find_tables, read_table, table_files
from starchat.batches import batched
from starchat.dialogue import Source
from starchat.errors import UserError

if TYPE_CHECKING:
    from data_prep.license_files import TreeLicenses

SUFFIX = ".ipynb"
TABLES = tuple(extension + packed for extension in EXTENSIONS for packed in ("", *COMPRESSIONS))
WILD = "*?["
TOOL_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages", "dist-packages", "venv"})

BATCH_BYTES = 8 << 20
LINES_BYTES = 4 << 20
BATCH_UNITS = 32
"""How much one task holds: enough that handing it over costs little, little enough that all cores have work."""

FILES_OF_A_THREAD = 64
"""Files that a thread takes the digests of before it asks for more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """A notebook that is to be read: from `file`, as blob `oid` of a repository, or as the `content` of a table."""

    source: Source
    license: str | None = None
    file: str | None = None
    oid: str | None = None
    content: Any = None


Batch = tuple[Unit | Lines | Dropped, ...]
"""Notebooks, or lines of JSONL with one in each."""


@dataclasses.dataclass(frozen=True, slots=True)
class Inputs:
    """Notebooks by the batch, what they depend on, and where they lie: ``notebooks``, ``tables`` or ``git``.

    What they depend on begins with what is `known` of it before they are read: the files that say their licence.
    """

    kind: str
    described: Callable[[], list[dict[str, Any]]]
    batches: Callable[[], Iterator[Batch]]
    known: tuple[dict[str, Any], ...] = ()


def find_notebooks(path: str, repository: str | None, column: str, ref: str, workers: int) -> Inputs:
    """Return the notebooks that a path names; raise `UserError` where it names none. Up to `workers` files are read at a time."""
    if is_remote(path):
        return _of_tables(find_tables(path), column)
    target = Path(path)
    if target.is_dir() and is_repository(target):
        return _of_git(path, repository, ref)
    if target.is_dir():
        found, known = _licensed(path, _walk(path, repository, lambda name: name.lower().endswith(SUFFIX)))
        if any(isinstance(item, Unit) for item in found) or not _holds_tables(target):
            return _of_files(path, found, workers, known)
    elif target.suffix.lower() == SUFFIX and target.is_file():
        return _of_files(path, [_unit(path, repository, target.name)], workers)
    elif any(sign in path for sign in WILD) and not target.exists():
        return _of_pattern(path, repository, column, workers)
    return _of_tables(find_tables(path), column)


def _of_pattern(pattern: str, repository: str | None, column: str, workers: int) -> Inputs:
    """Return what matches a pattern: notebooks, or tables where there is none. Other files than these may match, as in a folder."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if any(sign in part for sign in WILD))
    wild = tuple(part if part == "**" else part.replace("**", "*") for part in parts[fixed:])
    root = str(Path(*parts[:fixed]))
    found = list(_walk(root, repository, lambda name: _fits(name.split("/"), wild), lambda name: _leads(name.split("/"), wild)))
    notebooks = [item for item in found if isinstance(item, Dropped) or (item.file or "").lower().endswith(SUFFIX)]
    if any(isinstance(item, Unit) for item in notebooks):
        return _of_files(pattern, notebooks, workers)
    files = [item.file for item in found if isinstance(item, Unit) and item.file is not None and item.file.endswith(TABLES)]
    tables = [table for file in files for table in find_tables(file)]
    if not tables:
        raise UserError(
            f"{pattern}: no file matches that is a notebook or a table; check the pattern (relative to the current folder, {Path.cwd()})"
        )
    return _of_tables(tuple(tables), column)


def _licensed(folder: str, found: Iterable[Unit | Dropped]) -> tuple[list[Unit | Dropped], tuple[dict[str, Any], ...]]:
    """Return what was found in a folder, each notebook with the licence that the folder's files say it has; and what these files are."""
    from data_prep.license_files import is_license_path, licenses_of_tree

    files = [item for item in _walk(folder, None, is_license_path) if isinstance(item, Unit)]
    known = tuple(_described(files))
    licenses = licenses_of_tree(Tree(folder), [Leaf(item.source.path or "") for item in files])
    licensed = [
        item if isinstance(item, Dropped) or not files else dataclasses.replace(item, license=licenses.of(item.source.path or "")[0])
        for item in found
    ]
    return licensed, known


def _fits(names: Sequence[str], wild: Sequence[str]) -> bool:
    """Return whether the names of folders and file fit a pattern, of which ``**`` stands for any number of folders."""
    if not wild or not names:
        return not names and all(part == "**" for part in wild)
    if wild[0] == "**":
        return _fits(names, wild[1:]) or _fits(names[1:], wild)
    return fnmatch.fnmatchcase(names[0], wild[0]) and _fits(names[1:], wild[1:])


def _leads(names: Sequence[str], wild: Sequence[str]) -> bool:
    """Return whether something may fit a pattern that lies in a folder of these names."""
    if wild[0] == "**":
        return True
    return len(wild) > 1 and fnmatch.fnmatchcase(names[0], wild[0]) and (len(names) == 1 or _leads(names[1:], wild[1:]))


def _of_files(path: str, found: list[Unit | Dropped], workers: int, known: tuple[dict[str, Any], ...] = ()) -> Inputs:
    units = [item for item in found if isinstance(item, Unit)]
    if not units:
        raise UserError(f"{path}: holds no notebooks; give a file that ends in {SUFFIX}, a folder or repository of such, or a table")

    def described() -> list[dict[str, Any]]:
        with ThreadPoolExecutor(workers) as pool:  # digests are made without Python's lock
            read = [one for some in pool.map(_described, batched(units, FILES_OF_A_THREAD)) for one in some]
        return [*known, *read]

    return Inputs("notebooks", described, lambda: _cut(found), known)


def _described(units: Sequence[Unit]) -> list[dict[str, Any]]:
    found = []
    for unit in units:
        assert unit.file is not None
        try:
            found.append(describe_input(unit.file, encodable(unit.file)))
        except OSError:
            found.append(undescribed(unit.file))
    return found


def undescribed(path: str) -> dict[str, Any]:
    """Return what manifests say of a file that cannot be read."""
    return {"path": encodable(path), "bytes": None, "sha256": None}


def _unit(path: str, repository: str | None, name: str) -> Unit:
    return Unit(Source(path, repository, name), file=path)


def _walk(
    root: str, repository: str | None, is_wanted: Callable[[str], bool], is_entered: Callable[[str], bool] = lambda name: True
) -> Iterator[Unit | Dropped]:
    """Yield the wanted files below a folder, by their names in it, and what of the folders that would be entered is not.

    Links are not followed, for they may lead in circles. Deep folders do not deepen the stack of calls.
    """
    prefix = f"{root.rstrip('/')}/" if root != "." else ""
    waiting = _children(root)
    if isinstance(waiting, Dropped):
        raise UserError(f"{root}: {waiting.detail}; check the path and its permissions")
    while waiting:
        entry = waiting.pop()
        path = entry.path if prefix else entry.path.removeprefix("./")
        name = path.removeprefix(prefix)
        if entry.is_symlink():
            if is_wanted(name) or (is_entered(name) and os.path.isdir(path)):  # a link to itself is no folder
                yield Dropped("symbolic_link", path, "links are not followed", "")
        elif entry.is_dir():
            if not is_entered(name):
                continue
            skipped = Dropped("skipped_folder", path, "hidden, or made by a tool", "")
            children = skipped if _is_skipped(entry.name) else _children(entry.path)
            if isinstance(children, Dropped):
                yield children
            else:
                waiting += children
        elif is_wanted(name):
            reason = "hidden_file" if entry.name.startswith(".") else "unreadable" if not entry.is_file() else None
            yield _unit(path, repository, name) if reason is None else Dropped(reason, path, "hidden, or no regular file", "")


def _children(folder: str) -> list[os.DirEntry[str]] | Dropped:
    """Return what lies in a folder, the last name first."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        return Dropped("unreadable", folder, str(error.strerror), "")


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in TOOL_FOLDERS


def _of_git(path: str, repository: str | None, ref: str) -> Inputs:
    from data_prep.license_files import licenses_of_tree

    commit = resolve(path, ref)
    if commit is None:
        raise UserError(f"{path}: a repository without commits; give one that holds notebooks")
    name = repository or repository_name(path)
    tree = Tree(path, commit)
    found = list(_of_tree(path, name, commit, licenses_of_tree(tree, list_leaves(tree))))
    if not any(isinstance(item, Unit) for item in found):
        raise UserError(f"{path}: commit {commit[:12]} holds no notebooks; give a repository with files that end in {SUFFIX}")
    return Inputs("git", lambda: [{"path": path, "commit": commit}], lambda: _cut(found))


def _of_tree(path: str, repository: str, commit: str, licenses: TreeLicenses) -> Iterator[Unit | Dropped]:
    for entry in read_tree(path, commit):
        if not entry.path.lower().endswith(SUFFIX):
            continue
        place = f"{path}@{commit[:12]}:{entry.path}"
        if entry.mode in ("120000", "160000"):
            link = entry.mode == "120000"
            yield Dropped("symbolic_link" if link else "submodule", place, f"{'links' if link else 'submodules'} are not followed", "")
        elif any(map(_is_skipped, PurePosixPath(entry.path).parts[:-1])):
            yield Dropped("skipped_folder", place, "hidden, or made by a tool", "")
        elif PurePosixPath(entry.path).name.startswith("."):
            yield Dropped("hidden_file", place, "its name begins with a dot", "")
        else:
            yield Unit(Source(place, repository, entry.path, commit), licenses.of(entry.path)[0], oid=entry.oid)


def _holds_tables(folder: Path) -> bool:
    try:
        return bool(find_tables(str(folder)))
    except UserError:
        return False


def _of_tables(tables: tuple[Table, ...], column: str) -> Inputs:
    files = sorted({file for table in tables for file in table_files(table)})
    return Inputs("tables", lambda: [describe_input(file) for file in files], lambda: _cut(_rows(tables, column)))


def _rows(tables: tuple[Table, ...], column: str) -> Iterator[Unit | Lines | Dropped]:
    """Yield the rows of tables; those of JSONL in stretches, which are parsed elsewhere."""
    for table in tables:
        if table.reader == "jsonl":
            yield from require_some(table.path, cut_lines(table.path, LINES_BYTES))
        else:
            yield from (row if isinstance(row, Dropped) else _of_row(row, column) for row in read_table(table))


def files_of(found: Unit | Lines | Dropped) -> tuple[str, ...]:
    """Return the file that is read for a part of a batch, if there is one."""
    if isinstance(found, Lines):
        return found.reads
    return (found.file,) if isinstance(found, Unit) and found.file is not None else ()


def units_of(batch: Batch, column: str) -> Iterator[Unit | Dropped]:
    """Yield the notebooks of a batch, those of lines in their `column`, and why there is none in a line."""
    for found in batch:
        if isinstance(found, Lines):
            yield from (row if isinstance(row, Dropped) else _of_row(row, column) for row in read_rows(found))
        else:
            yield found


def _of_row(row: Row, column: str) -> Unit | Dropped:
    content = row.value.get(column)
    if not isinstance(content, str | dict):
        shown = f"of type {type(content).__name__}" if column in row.value else "not there"
        detail = f"column {column} is {shown}; expected a notebook as JSON text; name its column with the key column"
        return Dropped("wrong_type", row.place, detail, as_text(row.value), fault=True)
    repository, path, license = (text_of(row.value, names) for names in (REPOSITORY_COLUMNS, PATH_COLUMNS, LICENSE_COLUMNS))
    return Unit(Source(row.place, repository, path, date=date_of(row.value)), license, content=content)


def _cut(found: Iterable[Unit | Lines | Dropped]) -> Iterator[Batch]:
    """Yield batches of what was found: the next item begins a new one where it would be too much for the last."""
    batch: list[Unit | Lines | Dropped] = []
    size = 0
    for item in found:
        added = _size(item)
        if batch and (len(batch) == BATCH_UNITS or size + added > BATCH_BYTES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(item)
        size += added
    if batch:
        yield tuple(batch)


def _size(item: Unit | Lines | Dropped) -> int:
    """Return about how many bytes an item holds, or will when it is read; those of a blob are not known."""
    if isinstance(item, Lines):
        return item.size_bytes
    if isinstance(item, Dropped):
        return len(item.raw)
    if item.file is not None:
        try:
            return os.path.getsize(item.file)
        except OSError:
            return 0
    return len(item.content) if isinstance(item.content, str) else BATCH_BYTES // BATCH_UNITS
