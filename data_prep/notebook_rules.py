"""Which notebooks are worth learning from: thresholds on cells, text, language and size, each with its reason.

Two published presets:

``starcoder``   bigcode-dataset, ``preprocessing/jupyter-structured``: Python by the metadata, and text with code behind it
``starcoder2``  the-stack-v2, ``kaggle/convert_notebooks_to_scripts.py`` and ``utils/processing_utils.py``: cells, characters, syntax

Differences from what was published, each on purpose: Python is the language itself, where ``"py"`` anywhere in the metadata was enough;
5,000,000 characters are those of cells and outputs, not of JSON with its images; code is parsed once its magics are comments. A share of
text cells of at least 0.3 is written down there as well (after arXiv 2201.12901), and switched off.

==========================  ==========================================================================================
``no_cells``                no cell holds anything
``no_code``                 fewer than `min_code_cells` code cells
``few_cells``               fewer than `min_cells` cells
``few_pairs``               fewer than `min_pairs` times text with code behind it
``little_text``             the share of text cells is under `min_text_fraction`
``too_short``               fewer than `min_characters` characters in the cells
``too_long``                more than `max_characters` in cells and outputs
``other_language``          a language that `languages` does not list
``generated_notebook``      its first cells say that a program wrote it
``does_not_parse``          Python that does not parse, unless the cell's output shows that error: there it is the lesson
==========================  ==========================================================================================
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from data_prep.documents import Cell
from data_prep.drafts import RowProblem
from data_prep.magics import without_magics
from data_prep.python_syntax import syntax_fault


@dataclasses.dataclass(frozen=True)
class NotebookRules:
    """Thresholds; None or false is off. A cell counts if it holds something."""

    preset: Literal["starcoder", "starcoder2", "none"]
    languages: tuple[str, ...] | None = None
    min_cells: int | None = None
    min_code_cells: int | None = None
    min_pairs: int | None = None
    min_text_fraction: float | None = None
    min_characters: int | None = None
    max_characters: int | None = None
    drop_generated: bool = False
    python_must_parse: bool = False


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "starcoder": {"languages": ("Python",), "min_pairs": 1},
    "starcoder2": {
        "min_cells": 4,
        "min_code_cells": 1,
        "min_characters": 101,
        "max_characters": 5_000_000,
        "drop_generated": True,
        "python_must_parse": True,
    },
    "none": {},
}

_GENERATED = re.compile(
    r"\b(?i:auto(?:matically)?[- ]generated)\b|Greetings from the Kaggle bot|\b(?:DO NOT|Do not|do not) (?:EDIT|edit|MODIFY|modify) this\b"
)
_GENERATED_CELLS = 3
_SYNTAX_ERRORS = ("SyntaxError:", "IndentationError:", "TabError:")


def require_worth(cells: Sequence[Cell], language: str | None, rules: NotebookRules) -> None:
    """Raise `RowProblem` if the rules drop a notebook of these cells.

    >>> require_worth([Cell("code", "x = 1")], "Python", NotebookRules("none", min_cells=2))
    Traceback (most recent call last):
    data_prep.drafts.RowProblem: 1 cells; at least 2 are kept
    """
    if not cells:
        raise RowProblem("no_cells", "no cell holds anything")
    code = [cell for cell in cells if cell.kind == "code"]
    if len(code) < (rules.min_code_cells or 0):
        raise RowProblem("no_code", f"{len(code)} code cells; at least {rules.min_code_cells} are kept")
    if len(cells) < (rules.min_cells or 0):
        raise RowProblem("few_cells", f"{len(cells)} cells; at least {rules.min_cells} are kept")
    if rules.min_pairs:
        pairs = sum(before.kind == "text" and cell.kind == "code" for before, cell in itertools.pairwise(cells))
        if pairs < rules.min_pairs:
            raise RowProblem("few_pairs", f"{pairs} times text with code behind it; at least {rules.min_pairs} are kept")
    text_fraction = 1 - len(code) / len(cells)
    if text_fraction < (rules.min_text_fraction or 0):
        raise RowProblem("little_text", f"{text_fraction:.3f} of the cells are text; at least {rules.min_text_fraction} are kept")
    if rules.min_characters or rules.max_characters is not None:
        _require_size(cells, rules)
    if rules.languages is not None and language not in rules.languages:
        raise RowProblem("other_language", f"{language or 'not known'}; kept are {', '.join(rules.languages)}")
    if rules.drop_generated and (sign := next(filter(None, (_GENERATED.search(cell.source) for cell in cells[:_GENERATED_CELLS])), None)):
        raise RowProblem("generated_notebook", sign[0])
    if rules.python_must_parse and language == "Python":
        _require_python(cells)


def _require_size(cells: Sequence[Cell], rules: NotebookRules) -> None:
    characters = sum(len(cell.source) for cell in cells)
    if characters < (rules.min_characters or 0):
        raise RowProblem("too_short", f"{characters} characters; at least {rules.min_characters} are kept")
    characters += sum(len(cell.output) for cell in cells if cell.kind == "code" and cell.output is not None)
    if rules.max_characters is not None and characters > rules.max_characters:
        raise RowProblem("too_long", f"{characters} characters; at most {rules.max_characters} are kept")


def _require_python(cells: Sequence[Cell]) -> None:
    for number, cell in enumerate(cells, 1):
        if cell.kind == "code" and (fault := syntax_fault(without_magics(cell.source, "Python", "#"))) is not None:
            shown = (cell.output or "").rpartition("\n")[2]
            if not shown.startswith(_SYNTAX_ERRORS):
                raise RowProblem("does_not_parse", f"cell {number}, {fault}")
