"""Source files as records: the ``kind: source`` builder of the prepare stage.

In: a folder, a git clone or a bare repository, of any language; tables of files (`data_prep.source_tables`); or ``installed``, which
`data_prep.installed` reads. Out: documents (each a file, or with ``form: repository`` as many files of one repository as fit), or
dialogues of documented functions.

A unit is a file. A documented function is a unit of its own in the dialogue view, where a file without one is a unit too; with
``form: repository`` a document is a unit, and so is every file that is left out. What is left out is named, but its text is not kept.
Text that was seen before, byte for byte, is dropped; near-duplicates are not looked for here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_prep import installed
from data_prep.documents import Family
from data_prep.git import repository_name
from data_prep.json_lines import Lines
from data_prep.kinds import Opened, Piece, Setting, Shop, preset_rules, spec_and_rules
from data_prep.languages import languages
from data_prep.license_files import TreeLicenses, licenses_of_tree
from data_prep.license_texts import is_expression
from data_prep.records import Claim, Found, encodable
from data_prep.remote_files import describe_input
from data_prep.source_documents import document_pieces, ordered
from data_prep.source_files import Built, Choice, FileTask, Job, build_files
from data_prep.source_rules import PRESETS, SourceRules
from data_prep.source_tables import TableTask, build_stretch, describe_tables, find_source_tables, require_columns, stretches
from data_prep.source_trees import Leaf, Tree, list_leaves, open_tree
from data_prep.sources import Table
from starchat.config import closest, to_mapping
from starchat.errors import UserError

DEFAULT_PRESET = "starcoder2"
TASK_BYTES = 2_000_000
TASK_FILES = 64
"""How much a task holds at most: sizes are not known of files in a commit."""


@dataclasses.dataclass(frozen=True)
class SourceSpec:
    """Source files below `path`, a folder or a git repository, of which the files of `ref` (HEAD) are read; or in tables.

    Tables are files, a pattern of such, a folder that holds nothing else, one that ``datasets`` saved, or a Hub id (`hub_split`). A file's
    text is in their `column`; `repository`, `license` and `stars` are those of rows that do not tell theirs. With ``form: repository``
    those rows of one repository make a document that stand together.

    `rules` names a preset (``starcoder2``, ``starcoder``, ``none``) and what differs from it (`data_prep.source_rules.SourceRules`);
    `without` leaves out files by pattern.
    `license` (SPDX) is what the root of the repository is under, where its own files do not say it; with ``licenses: permissive``
    what has another licence than a permissive one, or none that is known, is dropped. `metadata` says what stands in front of a
    document: the path (with StarCoder2's tokens also the repository, without which it has none), ``all``, nothing, or what the models
    were trained with, drawn for each: StarCoder each of three in a fifth of the files, StarCoder2 both or nothing. In the dialogue
    view `answer_docs` says whether the answer holds the documentation that was asked with.
    """

    path: str
    kind: Literal["source"] = "source"
    view: Literal["document", "dialogue"] = "document"
    license: str | None = None
    repository: str | None = None
    stars: int | None = None
    ref: str | None = None
    form: Literal["file", "repository"] = "file"
    max_document_chars: int = 200_000
    metadata: Literal["path", "all", "published", "none"] = "path"
    rules: dict[str, Any] = dataclasses.field(default_factory=dict)
    licenses: Literal["any", "permissive"] = "any"
    answer_docs: Literal["keep", "remove"] = "keep"
    without: tuple[str, ...] = ()
    column: str = "content"
    hub_split: str = "train"


def open_kind(mapping: Mapping[str, Any], place: str, setting: Setting) -> Opened:
    """Return source files that are ready to be read (`data_prep.kinds`)."""
    if mapping.get("path") == installed.INSTALLED:
        return installed.open_installed(mapping, place, setting)
    spec, rules = spec_and_rules(SourceSpec, mapping, place, functools.partial(preset_rules, SourceRules, PRESETS, DEFAULT_PRESET))
    _check(spec, rules, place)
    family = setting.family if spec.view == "document" else None
    if family is not None and spec.form == "repository":
        family.require(family.repository, family.file)
        if spec.metadata == "none" and family.name == "starcoder":
            raise UserError(
                f"{place}: metadata: none with form: repository; StarCoder's tokens part files by their paths alone; take metadata: path"
            )
    resolved = {**to_mapping(spec), "rules": to_mapping(rules)}
    tables = find_source_tables(spec.path, spec.hub_split)
    _check_keys(mapping, tables is None, place)
    if tables is not None:
        choice = _choice(spec, rules, None, spec.repository, family, setting)
        require_columns(tables, spec.column)
        return Opened(
            *(spec.path, "tables", resolved, lambda: describe_tables(tables, setting.workers)),
            *(lambda shop: table_pieces(spec, tables, choice, shop), setting.workers),
        )
    tree = open_tree(spec.path, spec.ref)
    # A file that comes to a folder later is no input, and not read. A commit stays what it is.
    leaves: Callable[[], list[Leaf]] = functools.partial(_leaves, tree)
    if tree.commit is None:
        leaves = functools.cache(leaves)
    if tree.commit is None and next(list_leaves(tree), None) is None:
        raise UserError(f"{spec.path}: the folder is empty; give a folder of source files, or a git repository")
    name = repository_name(spec.path) if tree.commit else Path(spec.path).resolve().name
    repository = spec.repository or encodable(name) or "repository"
    choice = _choice(spec, rules, encodable(spec.path.rstrip("/")), repository, family, setting)
    return Opened(
        *(spec.path, "source", resolved, lambda: _inputs(spec, tree, leaves)),
        *(lambda shop: tree_pieces(spec, tree, leaves(), choice, shop), setting.workers),
    )


def _check(spec: SourceSpec, rules: SourceRules, place: str) -> None:
    faults = [f"rules.languages: {name!r}; {closest(name, languages())}" for name in rules.languages or () if name not in languages()]
    if rules.languages is not None and not rules.languages:
        faults.append("rules.languages: is empty; name some, or leave the key out for all")
    for key in ("min_file_bytes", "max_file_bytes", "max_function_lines"):
        if (value := getattr(rules, key)) is not None and value < 1:
            faults.append(f"rules.{key}: {value}; expected a number from 1, or null, which is off")
    if spec.license is not None and not is_expression(spec.license):
        faults.append(f"license: {spec.license!r}; expected an SPDX expression, such as MIT or Apache-2.0 OR MIT")
    if spec.max_document_chars < 1:
        faults.append(f"max_document_chars: {spec.max_document_chars}; expected a number from 1")
    if spec.stars is not None and spec.stars < 0:
        faults.append(f"stars: {spec.stars}; expected a number from 0")
    if spec.view == "dialogue" and spec.form == "repository":
        faults.append("form: repository is a form of documents; leave it out with view: dialogue")
    if faults:
        raise UserError("\n".join(f"{place}: {fault}" for fault in faults))


def _check_keys(mapping: Mapping[str, Any], is_tree: bool, place: str) -> None:
    """Raise `UserError` for a key that says nothing of such an input."""
    keys, what = (("column", "hub_split"), "tables") if is_tree else (("ref",), "git repositories")
    if (key := next((key for key in keys if key in mapping), None)) is not None:
        raise UserError(f"{place}: {key}: {mapping[key]!r}: is about {what}, and {mapping['path']} names none; leave it out")


def _leaves(tree: Tree) -> list[Leaf]:
    return list(list_leaves(tree))


def _inputs(spec: SourceSpec, tree: Tree, leaves: Callable[[], Sequence[Leaf]]) -> list[dict[str, Any]]:
    """Return what the result depends on: the commit, or every file that could be read."""
    if tree.commit is not None:
        return [{"path": spec.path, "commit": tree.commit}]
    return [_described(spec.path, leaf) for leaf in leaves() if leaf.fault is None]


def _described(root: str, leaf: Leaf) -> dict[str, Any]:
    path = f"{root.rstrip('/')}/{leaf.path}"
    try:
        return describe_input(path, encodable(path))
    except OSError as error:
        return {"path": encodable(path), "unreadable": str(error.strerror)}


def tree_pieces(spec: SourceSpec, tree: Tree, leaves: Sequence[Leaf], choice: Choice, shop: Shop) -> Iterator[Piece]:
    """Yield the pieces of a tree, in an order that depends on names only."""
    if not leaves:
        raise UserError(f"{spec.path}: holds no files; give a folder of source files, or another ref")
    licenses = licenses_of_tree(tree, leaves, spec.license)
    if spec.form == "repository":
        tasks = _tasks(ordered(leaves, choice), licenses, tree, choice)
        yield from document_pieces(shop, build_files, tasks, choice, spec.max_document_chars)
        return
    yield from (Piece(found_in_files, task) for task in _tasks(leaves, licenses, tree, choice))


def table_pieces(spec: SourceSpec, tables: Iterable[Table], choice: Choice, shop: Shop) -> Iterator[Piece]:
    """Yield the pieces of tables, in their order."""
    tasks = (TableTask(choice, spec.column, spec.license, stretch) for stretch in stretches(tables, spec.column))
    if spec.form == "repository":
        yield from document_pieces(shop, build_stretch, tasks, choice, spec.max_document_chars)
        return
    yield from (Piece(found_in_stretch, task, task.stretch.reads if isinstance(task.stretch, Lines) else ()) for task in tasks)


def found_in_files(task: FileTask) -> list[Found]:
    """Return what is in some files of a tree."""
    return _claimed(build_files(task))


def found_in_stretch(task: TableTask) -> list[Found]:
    """Return what is in a stretch of a table."""
    return _claimed(build_stretch(task))


def _claimed(files: Iterable[Built]) -> list[Found]:
    """Return the items of files, those of one text for its first file alone."""
    found: list[Found] = []
    for built in files:
        if built.digest is None:
            found += built.items
        else:
            found.append(Claim(built.digest, built.items, built.duplicate, by_rank=True))
    return found


def _tasks(leaves: Iterable[Leaf], licenses: TreeLicenses, tree: Tree, choice: Choice) -> Iterator[FileTask]:
    """Yield the work in pieces of some files each, cut by their sizes and number alone."""
    jobs: list[Job] = []
    size = 0
    for leaf in leaves:
        jobs.append(Job(leaf, *licenses.of(leaf.path)))
        size += leaf.bytes or 0
        if size >= TASK_BYTES or len(jobs) == TASK_FILES:
            yield FileTask(tree, choice, tuple(jobs))
            jobs, size = [], 0
    if jobs:
        yield FileTask(tree, choice, tuple(jobs))


def _choice(
    spec: SourceSpec, rules: SourceRules, place: str | None, repository: str | None, family: Family | None, setting: Setting
) -> Choice:
    return Choice(
        place=place,
        repository=repository,
        family=family,
        seed=setting.seed,
        stars=spec.stars,
        metadata=spec.metadata,
        rules=rules,
        permissive_only=spec.licenses == "permissive",
        keep_docs=spec.answer_docs == "keep",
        loose=spec.form == "repository",
        without=spec.without,
    )
