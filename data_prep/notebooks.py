"""Jupyter notebooks as documents or dialogues: the ``kind: notebooks`` builder of the prepare stage.

In: what a `NotebooksSpec` names. Out: one `Kept` or `Dropped` for each unit: a notebook, or a folder that is not entered, or a line of a
table that holds none. Inputs: `data_prep.notebook_inputs`; what is read and repaired: `data_prep.nbformats`, `data_prep.cell_outputs`.

A document is a chain of text, code and output (``form: structured``) or a script (``form: script``), as StarCoder read both. Of a
dialogue, text cells are what the user asks, and the code behind them, each cell with its output, is the answer; code before the first
text belongs to the first answer. Dropped, besides what the readers and `data_prep.notebook_rules` refuse:

==========================  ==========================================================================================
``empty_file``              nothing is in the file
``lfs_pointer``             the file names content that Git LFS keeps elsewhere
``too_large``               above `max_file_bytes`
``unreadable``              the system, or the repository, does not give its content
``unknown_language``        form script: nothing says the language, and the code does not parse as Python
``no_line_comments``        form script: the language has no mark for a comment line, or its mark is not known
==========================  ==========================================================================================

Repairs of its own: ``kaggle_template`` (the comments that every new notebook of Kaggle begins with), ``magics`` (form script: see
`data_prep.magics`), ``language_guessed`` (Python, since all of the code parses).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from data_prep.documents import Cell, Family, render_notebook, render_script
from data_prep.drafts import RowProblem
from data_prep.git import Oversize, read_blobs
from data_prep.kinds import Opened, Piece, Setting, Shop, preset_rules, spec_and_rules
from data_prep.languages import LINE_COMMENTS, fence_label, languages
from data_prep.magics import cell_language, guess_python, language_named, without_magics
from data_prep.nbformats import Notebook, notebook_of, read_notebook
from data_prep.notebook_inputs import Batch, Unit, files_of, find_notebooks, undescribed, units_of
from data_prep.notebook_rules import PRESETS, NotebookRules, require_worth
from data_prep.records import Dropped, Found, Item, Read
from data_prep.remote_files import STAMP, describe_input, stamp_of
from data_prep.sources import as_text
from data_prep.views import dialogue_item, document_item
from starchat.config import closest, to_mapping
from starchat.dialogue import Turn
from starchat.errors import UserError
from starchat.fences import fenced

_KAGGLE = re.compile(
    r"^#[ \t]*(?:This Python 3 environment comes with many helpful analytics libraries|It is defined by the kaggle/python"
    r"|For example, (?:here's several helpful packages to load|running this \(by clicking run or pressing Shift\+Enter\))"
    r"|Input data files are available in the|Any results you write to the current directory are saved"
    r"|You can write up to \d+GB to the current directory|You can also write temporary files to /kaggle/temp/)[^\n]*(?:\n|\Z)",
    re.MULTILINE,
)
_LFS = b"version https://git-lfs.github.com/spec/"


@dataclasses.dataclass(frozen=True)
class NotebooksSpec:
    """Notebooks from `path`: a file, folder, pattern, git repository (`ref` of it) or table (its `column`).

    `rules` names a preset (``starcoder2`` if none) and what differs from it (`NotebookRules`). `license` is the SPDX licence of all
    notebooks; without it the files of the folder or repository say it (`data_prep.license_files`), or a table's row. `form` is about
    documents. `max_output_characters` is StarCoder's; None is no limit.
    """

    path: str
    kind: Literal["notebooks"] = "notebooks"
    view: Literal["document", "dialogue"] = "document"
    form: Literal["structured", "script"] = "structured"
    license: str | None = None
    repository: str | None = None
    column: str = "content"
    ref: str = "HEAD"
    max_output_characters: int | None = 1000
    max_file_bytes: int | None = 100_000_000
    rules: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    """A batch and what is to become of it; `family` is None for dialogues."""

    batch: Batch
    spec: NotebooksSpec
    rules: NotebookRules
    family: Family | None


def open_kind(mapping: Mapping[str, Any], place: str, setting: Setting) -> Opened:
    """Return notebooks that are ready to be read (`data_prep.kinds`)."""
    spec, rules = spec_and_rules(NotebooksSpec, mapping, place, functools.partial(preset_rules, NotebookRules, PRESETS, "starcoder2"))
    _require_keys(spec, rules, mapping, place)
    family = None
    if spec.view == "document":
        family = setting.family
        (render_script if spec.form == "script" else render_notebook)((), family)  # an absent token is an error before any work
    inputs = find_notebooks(spec.path, spec.repository, spec.column, spec.ref, setting.workers)

    def pieces(_: Shop) -> Iterator[Piece]:
        for batch in inputs.batches():
            yield Piece(build_batch, _Task(batch, spec, rules, family), tuple(file for found in batch for file in files_of(found)))

    resolved = {**to_mapping(spec), "rules": to_mapping(rules)}
    tells = inputs.kind == "notebooks"
    return Opened(spec.path, inputs.kind, resolved, inputs.described, pieces, setting.workers, tells, inputs.known)


def _require_keys(spec: NotebooksSpec, rules: NotebookRules, mapping: Mapping[str, Any], place: str) -> None:
    if spec.view == "dialogue" and "form" in mapping:
        raise UserError(f"{place}: form: is about documents; take view: document, or leave it out")
    if (unknown := next((name for name in rules.languages or () if name not in languages()), None)) is not None:
        raise UserError(f"{place}: rules.languages: {unknown!r} is no language of the table; {closest(unknown, languages())}")
    for key in ("max_output_characters", "max_file_bytes"):
        if (value := getattr(spec, key)) is not None and value < 1:
            raise UserError(f"{place}: {key}: {value}; expected a number from 1, or null for no limit")


def build_batch(task: _Task) -> list[Found]:
    """Return the items of a batch, one for each unit of it, each file's behind what was read for it."""
    spec = task.spec
    blobs: Iterator[Any] = iter(())
    if oids := [unit.oid for unit in task.batch if isinstance(unit, Unit) and unit.oid is not None]:
        blobs = read_blobs(spec.path, oids, spec.max_file_bytes)
    items: list[Found] = []
    for unit in units_of(task.batch, spec.column):
        if isinstance(unit, Dropped):
            items.append(unit)
            continue
        content: Any = None
        try:
            content = _content(unit, spec, blobs, items)
            items.append(_item(content, unit, task))
        except RowProblem as problem:
            items.append(Dropped(problem.reason, unit.source.place, problem.detail, _raw(content), problem.fault))
    return items


def _raw(content: Any) -> str:
    return as_text(content.decode("utf-8", "backslashreplace") if isinstance(content, bytes) else content or "")


def _content(unit: Unit, spec: NotebooksSpec, blobs: Iterator[Any], found: list[Found]) -> Any:
    """Return the bytes of a notebook, or the JSON value of a table; raise `RowProblem` if they cannot be had. What is read is `found`."""
    most = spec.max_file_bytes
    content: Any
    if unit.file is not None:
        content = _file_content(unit.file, most, found)
    elif unit.oid is not None:
        content = next(blobs)
        if content is None:
            raise RowProblem("unreadable", f"object {unit.oid} is not in the repository; fetch it, if the clone is a partial one")
        if isinstance(content, Oversize):
            _require_size(content.bytes, most)
    else:
        content = unit.content
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
            _require_size(len(content), most)
    return content


def _file_content(path: str, most: int | None, found: list[Found]) -> bytes:
    read = undescribed(path)
    try:
        _, size, _ = stamp = stamp_of(path)
        if most is not None and size > most:
            read = describe_input(path, read["path"])
            _require_size(size, most)
        with open(path, "rb") as file:
            content = file.read()
        read = {**read, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), STAMP: stamp}
    except OSError as error:
        raise RowProblem("unreadable", str(error.strerror)) from None
    finally:
        found.append(Read(read))
    return content


def _require_size(size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise RowProblem("too_large", f"{size} bytes; at most {most} are read")


def _item(content: Any, unit: Unit, task: _Task) -> Item:
    """Return the item of a notebook; raise `RowProblem` if it is dropped."""
    spec, family = task.spec, task.family
    if isinstance(content, bytes):
        if not content or content.isspace():
            raise RowProblem("empty_file", f"{len(content)} bytes")
        if content.startswith(_LFS):
            raise RowProblem("lfs_pointer", "the notebook is kept by Git LFS; fetch it with git lfs pull")
        notebook = read_notebook(content, spec.max_output_characters)
    else:
        notebook = notebook_of(content, spec.max_output_characters)
    repairs = list(notebook.repairs)
    cells: Sequence[Cell] = notebook.cells
    if any(map(_may_hold_template, cells)):
        cells = [cell for cell in (_without_template(cell, repairs) for cell in cells) if cell.source]
    language = _language(notebook, cells, repairs)
    require_worth(cells, language, task.rules)
    license = spec.license or unit.license
    if family is None:
        return dialogue_item(turns_of(cells, language), unit.source, license, repairs, _raw(content))
    if spec.form == "structured":
        return document_item(render_notebook(cells, family), unit.source, license, repairs)
    comment = LINE_COMMENTS.get(language or "")
    if language is None or comment is None:
        reason = "unknown_language" if language is None else "no_line_comments"
        raise RowProblem(reason, f"the metadata names {notebook.language or 'none'}; build form: structured for such notebooks")
    script = [_as_script(cell, language, comment, repairs) for cell in cells]
    return document_item(render_script(script, family, comment), unit.source, license, repairs)


def _language(notebook: Notebook, cells: Sequence[Cell], repairs: list[str]) -> str | None:
    if notebook.language is not None:
        return language_named(notebook.language)
    if not guess_python(cells):
        return None
    repairs.append("language_guessed")
    return "Python"


def _may_hold_template(cell: Cell) -> bool:
    kind, source, _ = cell
    return kind == "code" and "# " in source and ("kaggle" in source or "Shift+Enter" in source)


def _without_template(cell: Cell, repairs: list[str]) -> Cell:
    if not _may_hold_template(cell):
        return cell
    source, count = _KAGGLE.subn("", cell.source)
    if not count:
        return cell
    repairs.append("kaggle_template")
    return Cell("code", source.strip("\n").rstrip(), cell.output)


def _as_script(cell: Cell, language: str, comment: str, repairs: list[str]) -> Cell:
    if cell.kind == "text" or (source := without_magics(cell.source, language, comment)) == cell.source:
        return cell
    repairs.append("magics")
    return Cell("code", source, cell.output)


def turns_of(cells: Sequence[Cell], language: str | None) -> list[Turn]:
    """Return a notebook as a dialogue; raise `RowProblem` if no text has code behind it.

    >>> [turn.content for turn in turns_of([Cell("text", "Add."), Cell("code", "1 + 1", "2")], "Python")]
    ['Add.', '```python\\n1 + 1\\n```\\n```output\\n2\\n```']
    """
    turns: list[Turn] = []
    leading: list[str] = []
    for kind, run in itertools.groupby(cells, key=lambda cell: cell.kind):
        if kind == "text":
            turns.append(Turn("user", "\n\n".join(cell.source for cell in run)))
            continue
        leading += [_answer(cell, language) for cell in run]
        if turns:
            turns.append(Turn("assistant", "\n\n".join(leading)))
            leading = []
    if len(turns) < 2:
        raise RowProblem("few_pairs", "no text with code behind it, which is what a dialogue is made of")
    return turns


def _answer(cell: Cell, language: str | None) -> str:
    block = fenced(cell.source, fence_label(cell_language(cell.source, language)))
    return block if cell.output is None else f"{block}\n{fenced(cell.output, 'output')}"
