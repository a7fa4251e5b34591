"""Notebooks of nbformat 3 and 4 as cells: text with its Markdown as it stands, code with its own output.

In: the bytes of an ``.ipynb`` file, or its JSON value. Out: a `Notebook`, or a `RowProblem` with the reason. What is read is what
nbformat's own reader and its upgrade from 3 to 4 make of a valid notebook (``v4/convert.py``, ``v4/rwbase.py``, ``v3/rwbase.py``); keys
that are absent mean nothing there, as in files of careless writers; values of a wrong type are faults. Outputs: `data_prep.cell_outputs`.

Cells keep their order, newlines, ``#`` and ``<...>``. Blank lines around a cell and space behind it are left out.

==========================  ==========================================================================================
``byte_order_mark``         repair: U+FEFF in front of the JSON is removed
``line_ends``               repair: CR and CR LF in a cell become LF
``no_nbformat``             repair: the version is not stated, and the keys are those of 3 or 4
``metadata_ignored``        repair: the notebook's metadata is no object; its language may be unknown then
``heading_cell``            repair: a heading cell of nbformat 3 becomes Markdown, as nbformat does it
``raw_cell``                repair: a raw cell is read as text
``unknown_cell``            repair: a cell of a kind that no version of the format has is left out
``empty_cell``              repair: a cell without text is left out
``lost_attachment``         repair: files attached to a text cell are lost
``invalid_json``            fault
``invalid_utf8``            fault
``wrong_type``              fault: something is not of the type that the format has for it
``unsupported_nbformat``    drop: nbformat 1 or 2, or one that is not known
==========================  ==========================================================================================
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from data_prep.cell_outputs import joined, output_text, without_data, wrong_type
from data_prep.documents import Cell
from data_prep.drafts import RowProblem

MAX_HEADING = 6
"""Markdown's deepest heading; more ``#`` would be text."""


@dataclasses.dataclass(frozen=True, slots=True)
class Notebook:
    """The cells of a notebook; `language` is what its metadata calls its language or kernel, if anything."""

    cells: tuple[Cell, ...]
    language: str | None = None
    repairs: tuple[str, ...] = ()


def read_notebook(data: bytes, max_output_characters: int | None = None) -> Notebook:
    """Return the notebook in the bytes of a file; raise `RowProblem` if there is none.

    >>> read_notebook(b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["x = 1"]}]}').cells
    (Cell(kind='code', source='x = 1', output=None),)
    """
    text = data.removeprefix(b"\xef\xbb\xbf")
    try:
        value = orjson.loads(text)  # however deep it is: cells are looked up, never walked
    except orjson.JSONDecodeError:
        value = _parsed(text)
    notebook = notebook_of(value, max_output_characters)
    return notebook if len(text) == len(data) else dataclasses.replace(notebook, repairs=("byte_order_mark", *notebook.repairs))


def _parsed(text: bytes) -> Any:
    """Return the JSON value of a text that orjson refuses: one with lone surrogates or NaN, which nbformat reads as well, or none."""
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as bad:
        detail = f"byte 0x{text[bad.start]:02x} at position {bad.start + 1} is not valid UTF-8; save the notebook as UTF-8"
        raise RowProblem("invalid_utf8", detail, fault=True) from None
    except (ValueError, RecursionError) as error:
        raise RowProblem("invalid_json", f"not valid JSON ({error}); open and save it in Jupyter, or remove it", fault=True) from None


def notebook_of(value: Any, max_output_characters: int | None = None) -> Notebook:
    """Return the notebook in a JSON value; raise `RowProblem` if there is none."""
    if not isinstance(value, dict):
        raise wrong_type("the notebook", value, "an object")
    repairs: list[str] = []
    version = _version(value, repairs)
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        repairs.append("metadata_ignored")
        metadata = {}
    language = _language(metadata)
    cells = []
    for number, cell in enumerate(_cells(value, version), 1):
        try:
            if not isinstance(cell, dict):
                raise wrong_type("a cell", cell, "an object")
            found = _cell(cell, version == 3, max_output_characters, repairs)
        except RowProblem as problem:
            raise RowProblem(problem.reason, f"cell {number}: {problem.detail}", problem.fault) from None
        if found is not None:
            cells.append(found)
            if language is None and version == 3 and isinstance(named := cell.get("language"), str):
                language = named
    return Notebook(tuple(cells), language, tuple(dict.fromkeys(repairs)))


def _version(value: Mapping[str, Any], repairs: list[str]) -> int:
    if "nbformat" not in value and (found := 4 if "cells" in value else 3 if "worksheets" in value else None):
        repairs.append("no_nbformat")
        return found
    version = value.get("nbformat", 1)  # the first version did not state itself
    if not isinstance(version, int) or isinstance(version, bool):
        raise wrong_type("nbformat", version, "a whole number")
    if version not in (3, 4):
        raise RowProblem("unsupported_nbformat", f"nbformat {version}; 3 and 4 are read; convert it with jupyter nbconvert --to notebook")
    return version


def _cells(value: Mapping[str, Any], version: int) -> Iterator[Any]:
    """Yield the cells of a notebook; the worksheets of nbformat 3 one behind the other."""
    sheets = [value] if version == 4 else value.get("worksheets", [])
    if not isinstance(sheets, list):
        raise wrong_type("worksheets", sheets, "a list")
    for sheet in sheets:
        if not isinstance(sheet, dict):
            raise wrong_type("a worksheet", sheet, "an object")
        cells = sheet.get("cells", [])
        if not isinstance(cells, list):
            raise wrong_type("cells", cells, "a list")
        yield from cells


def _cell(cell: Mapping[str, Any], old: bool, max_output_characters: int | None, repairs: list[str]) -> Cell | None:
    kind = cell.get("cell_type")
    if kind not in ("code", "markdown", "raw", "heading", "html"):
        repairs.append("unknown_cell")
        return None
    key = "input" if old and kind == "code" else "source"
    source = _source(joined(cell.get(key, ""), key, old), repairs)
    if kind == "code":
        output = output_text(cell.get("outputs", []), old, max_output_characters, repairs)
    elif cell.get("attachments"):
        repairs.append("lost_attachment")
    if not source:
        repairs.append("empty_cell")
        return None
    if kind == "code":
        return Cell("code", source, output)
    if kind == "heading":
        repairs.append("heading_cell")
        level = cell.get("level", 1)
        if not isinstance(level, int):
            raise wrong_type("level", level, "a whole number")
        source = "#" * min(max(level, 1), MAX_HEADING) + " " + " ".join(source.splitlines())
    if kind == "raw":
        repairs.append("raw_cell")
    return Cell("text", source)


def _source(source: str, repairs: list[str]) -> str:
    if "\r" in source:
        repairs.append("line_ends")
        source = source.replace("\r\n", "\n").replace("\r", "\n")
    return without_data(source.strip("\n").rstrip(), repairs)


def _language(metadata: Mapping[str, Any]) -> str | None:
    """Return the language of a notebook as its metadata names it: the kernel's word for it before the kernel's name."""
    for section, key in (("kernelspec", "language"), ("language_info", "name"), ("kernel_info", "language"), ("kernelspec", "name")):
        found = metadata.get(section)
        if isinstance(found, dict) and isinstance(name := found.get(key), str) and name.strip():
            return name
    return None
