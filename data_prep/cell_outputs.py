"""The outputs of a notebook's code cell as one text, or none.

In: a list of outputs as nbformat 3 and 4 have them. Out: what a reader of the notebook saw of them as text, in order: streams, results and
displays as plain text (Markdown or LaTeX where there is no plain one), tracebacks. Images, HTML, JavaScript and widgets are lost by name;
their base64 never enters a text. The keys: nbformat's ``v4.5.schema.json`` and ``v3.schema.json``.

==========================  ==========================================================================================
``lost_image_output``       an image without words of its own: nothing, or the repr of an object such as ``<Figure size ...>``
``lost_rich_output``        the same for HTML, JavaScript, widgets and other kinds of data
``unknown_output``          an ``output_type`` that no version of the format has
``long_output``             text beyond the stated number of characters: its end is cut; a traceback loses its beginning
==========================  ==========================================================================================
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from data_prep.drafts import RowProblem
from data_prep.terminal import as_shown

CUT = "[...]"
ERROR, STREAM = "error", "stream"

PLAIN_KINDS = ("text/plain", "text/markdown", "text/latex")
"""Kinds of data that are text, the most readable first."""

ALIASES: Mapping[str, str] = {
    "text": "text/plain",
    "html": "text/html",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "latex": "text/latex",
    "json": "application/json",
    "javascript": "application/javascript",
    "pdf": "application/pdf",
}
"""What nbformat 3 calls the kinds of data, which stand among the other keys of an output there."""

_FIGURE = re.compile(r"<(?:matplotlib\.figure\.)?Figure\b[^\n]*>")
_REPR = re.compile(r"<[A-Za-z_][^\n]*>")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def output_text(outputs: Any, old: bool, max_characters: int | None, repairs: list[str]) -> str | None:
    """Return the outputs of a cell as text, None if nothing of them is; append what was lost to `repairs`.

    `old` is about nbformat 3. Raises `RowProblem` for what is no output.

    >>> output_text([{"output_type": "stream", "name": "stdout", "text": ["a\\n", "b\\n"]}], False, 1000, [])
    'a\\nb'
    """
    if not isinstance(outputs, list):
        raise wrong_type("outputs", outputs, "a list")
    blocks: list[tuple[str, list[str]]] = []
    for output in outputs:
        if not isinstance(output, dict):
            raise wrong_type("an output", output, "an object")
        block, text = _block(output, old, repairs)
        if text and blocks and block == blocks[-1][0] and block.startswith(STREAM):
            blocks[-1][1].append(text)  # a progress bar may go on in the next output
        elif text:
            blocks.append((block, [text]))
    pieces: list[str] = []
    for is_error, group in itertools.groupby(blocks, key=lambda block: block[0] == ERROR):
        shown = "\n".join(as_shown("".join(texts)).removesuffix("\n") for _, texts in group)
        pieces.append(_cut(shown, max_characters, repairs, end=is_error))
    return "\n".join(filter(None, pieces)) or None


def joined(value: Any, what: str, old: bool = False) -> str:
    """Return a text that may be given as a list of its lines; raise `RowProblem` for anything else.

    Writers of nbformat 3 could leave the ends of lines away.

    >>> joined(["a\\n", "b"], "source"), joined(["a", "b"], "source", old=True)
    ('a\\nb', 'a\\nb')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return ("\n" if old and value and not value[0].endswith(("\n", "\r")) else "").join(value)
    raise wrong_type(what, value, "a text, or a list of its lines")


def wrong_type(what: str, value: Any, expected: str) -> RowProblem:
    """Return the fault for a value that is not what the format has in its place."""
    return RowProblem("wrong_type", f"{what} is of type {type(value).__name__}; expected {expected}; correct or remove the notebook", True)


def _block(output: Mapping[str, Any], old: bool, repairs: list[str]) -> tuple[str, str]:
    """Return the block that an output is shown in, and its text as it was written."""
    kind = output.get("output_type")
    if kind == "stream":
        return f"{STREAM} {output.get('name', output.get('stream'))}", joined(output.get("text", ""), "the text of a stream", old)
    if kind in ("error", "pyerr"):
        return ERROR, _traceback(output)
    if kind in ("execute_result", "display_data", "pyout"):
        return "data", _data_text(output, old, repairs)
    repairs.append("unknown_output")
    return "", ""


def _data_text(output: Mapping[str, Any], old: bool, repairs: list[str]) -> str:
    data = output.get("data")
    if data is None:
        data = {kind: output[key] for key in output if "/" in (kind := ALIASES.get(key, key))}
    if not isinstance(data, dict):
        raise wrong_type("the data of an output", data, "an object")
    mime = next((mime for mime in PLAIN_KINDS if mime in data), None)
    text = "" if mime is None else joined(data[mime], mime, old)
    rich = [other for other in data if other not in PLAIN_KINDS]
    bare = text.strip()
    if not bare or _FIGURE.fullmatch(bare) or (rich and (_WIDGET in data or _REPR.fullmatch(bare))):
        image = any(other.startswith("image/") for other in rich) or (bare and not rich)
        repairs += ["lost_image_output" if image else "lost_rich_output"] * bool(bare or rich)
        return ""
    return text


def _traceback(output: Mapping[str, Any]) -> str:
    """Return the traceback of an error, or the error alone where none was saved."""
    lines = joined(output.get("traceback") or [], "a traceback", old=True)
    error = (output.get("ename"), output.get("evalue"))
    return lines if lines.strip() else ": ".join(text for text in error if isinstance(text, str) and text)


def _cut(text: str, most: int | None, repairs: list[str], end: bool = False) -> str:
    """Return a text without blank lines around it and within `most` characters, of which `end` keeps the last ones."""
    text = text.strip("\n").rstrip()
    if most is None or len(text) <= most:
        return text
    repairs.append("long_output")
    return CUT + text[len(text) - most :] if end else text[:most] + CUT
