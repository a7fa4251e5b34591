"""Notebooks made by hand, for the tests of their builder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PYTHON = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}


def text(source: str | list[str], **keys: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source, **keys}


def code(source: str | list[str], *outputs: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": 1, "metadata": {}, "source": source, "outputs": list(outputs), **keys}


def stream(written: str | list[str], name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": written}


def result(**data: Any) -> dict[str, Any]:
    """A result by the short names of its kinds: plain, markdown, latex, html, png."""
    kinds = {"png": "image/png", "js": "application/javascript", "widget": "application/vnd.jupyter.widget-view+json"}
    return {
        "output_type": "execute_result",
        "execution_count": 1,
        "metadata": {},
        "data": {kinds.get(k, f"text/{k}"): v for k, v in data.items()},
    }


def error(*traceback: str, name: str = "ValueError", value: str = "no") -> dict[str, Any]:
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": list(traceback)}


def book(*cells: Any, metadata: Any = PYTHON, **keys: Any) -> dict[str, Any]:
    return {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": list(cells), **keys}


def old_book(*cells: Any, **keys: Any) -> dict[str, Any]:
    """A notebook of nbformat 3 with its cells in two worksheets."""
    half = len(cells) // 2
    sheets = [{"metadata": {}, "cells": list(part)} for part in (cells[:half], cells[half:])]
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": sheets, **keys}


def old_code(source: str | list[str], *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "language": "python", "collapsed": False, "metadata": {}, "input": source, "outputs": list(outputs)}


LESSON = book(
    code("import math"),
    text("# Roots\n\nTake the root of `x < 3`."),
    code("math.sqrt(2)", result(plain="1.4142135623730951")),
    text("And of a negative number:"),
    code("math.sqrt(-1)", error("\x1b[0;31mTraceback\x1b[0m (most recent call last)", "ValueError: math domain error")),
    text("That is all."),
)
"""A notebook with what others lose: imports in front, a result, a traceback, text at the end."""


def write_notebook(path: Path, notebook: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook if isinstance(notebook, str) else json.dumps(notebook), encoding="utf-8")
    return path


def commit_all(folder: Path, message: str = "all") -> str:
    """Make a repository of a folder, commit what is in it and return the commit's id."""
    settings = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*settings, "commit", "-q", "-m", message, "--allow-empty"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)
    return subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def spelled(parts: Sequence[Any]) -> str:
    return "".join(part.marker + part.text for part in parts)
