"""The outputs of a notebook's code cell as one text, or none.

In: a list of outputs as nbformat 3 and 4 have them. Out: what a reader of the notebook saw of them as text, in order: streams, results and
displays as plain text (Markdown or LaTeX where there is no plain one), tracebacks. Images, HTML, JavaScript and widgets are lost by name;
their base64 never enters a text. The keys: nbformat's ``v4.5.schema.json`` and ``v3.schema.json``.

==========================  ==========================================================================================
``lost_image_output``       an image without words of its own: nothing, or the repr of an object such as ``<Figure size ...>``
``lost_rich_output``        the same for HTML, JavaScript, widgets and other kinds of data
``unknown_output``          an ``output_type`` that no version of the format has
``lost_inline_data``        the base64 of a ``data:`` address: cut to ``[...]``, in cells as well
``lost_encoded_data``       1,024 or more base64 characters, on one line or wrapped: cut to ``[...]``, in cells as well
``long_output``             text beyond the stated number of characters: its end is cut; a traceback loses its beginning
==========================  ==========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from data_prep.drafts import RowProblem
from data_prep.terminal import as_shown

CUT = "[...]"
DATA, ERROR = "data", "error"

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

MIN_ENCODED_CHARACTERS = 1024
"""The length from which StarCoder2 took a run of base64 for encoded data (arXiv 2402.19173, section 2.1)."""

_INLINE = re.compile(r"(;base64,)[A-Za-z0-9+/=%_-]{40,}(?:\\?\n[A-Za-z0-9+/=]{40,})*(?:\\?\n[A-Za-z0-9+/]+={1,2})?")
_ENCODED = re.compile(
    rf"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{{{MIN_ENCODED_CHARACTERS},}}={{0,2}}"
    r"|^(?:[A-Za-z0-9+/]{60,80}\n){17,}(?:[A-Za-z0-9+/]{1,80}={0,2}$)?",  # wrapped, as in MIME
    re.MULTILINE,
)
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
    if not outputs:
        return None
    pieces: list[str] = []
    shown: list[str] = []  # since the last traceback
    before = ""  # the block that it ends with
    for output in outputs:
        if not isinstance(output, dict):
            raise wrong_type("an output", output, "an object")
        block, text = _block(output, old, repairs)
        if block == ERROR:
            pieces += (_fit("".join(shown), max_characters, repairs), _fit(text, max_characters, repairs, end=True))
            shown = []
        elif text:
            if shown and shown[-1][-1] != "\n" and (block != before or block == DATA):
                shown.append("\n")  # a stream goes on where it ended, as a progress bar does
            shown.append(text)
            before = block
    if shown:
        pieces.append(_fit("".join(shown), max_characters, repairs))
    return "\n".join(filter(None, pieces)) or None


def _fit(written: str, most: int | None, repairs: list[str], end: bool = False) -> str:
    """Return what is shown of a text without encoded data and blank lines around, within `most` characters: the last ones for `end`."""
    text = without_data(as_shown(written).strip("\n").rstrip(), repairs)
    if most is None or len(text) <= most:
        return text
    repairs.append("long_output")
    return CUT + text[len(text) - most :] if end else text[:most] + CUT


def joined(value: Any, what: str, old: bool = False) -> str:
    """Return a text that may be given as a list of its lines; raise `RowProblem` for anything else.

    Writers of nbformat 3 could leave the ends of lines away.

    >>> joined(["a\\n", "b"], "source"), joined(["a", "b"], "source", old=True)
    ('a\\nb', 'a\\nb')
    """
    if not isinstance(value, list):
        if isinstance(value, str):
            return value
        raise wrong_type(what, value, "a text, or a list of its lines")
    try:
        whole = "".join(value)
    except TypeError:
        raise wrong_type(f"a line of {what}", next(line for line in value if not isinstance(line, str)), "a text") from None
    return whole if not old or not value or value[0].endswith(("\n", "\r")) else "\n".join(value)


def wrong_type(what: str, value: Any, expected: str) -> RowProblem:
    """Return the fault for a value that is not what the format has in its place."""
    return RowProblem("wrong_type", f"{what} is of type {type(value).__name__}; expected {expected}; correct or remove the notebook", True)


def without_data(text: str, repairs: list[str]) -> str:
    """Return a text without the encoded data in it; append what was lost to `repairs`.

    >>> without_data("![a](data:image/png;base64," + "iVBO" * 20 + ") b", [])
    '![a](data:image/png;base64,[...]) b'
    """
    if ";base64," in text:
        text, count = _INLINE.subn(rf"\1{CUT}", text)
        repairs += ["lost_inline_data"] * bool(count)
    if len(text) >= MIN_ENCODED_CHARACTERS and _has_long_word(text):
        text, count = _ENCODED.subn(CUT, text)
        repairs += ["lost_encoded_data"] * bool(count)
    return text


def _has_long_word(text: str) -> bool:
    """Return whether a text has as many characters in a row without a space as the shortest run of encoded data has."""
    at, last = 0, len(text) - MIN_ENCODED_CHARACTERS
    while at <= last:
        if (space := text.rfind(" ", at, at + MIN_ENCODED_CHARACTERS)) < 0:
            return True
        at = space + 1
    return False


def _block(output: Mapping[str, Any], old: bool, repairs: list[str]) -> tuple[str, str]:
    """Return the block that an output is shown in, and its text as it was written."""
    kind = output.get("output_type")
    if kind == "stream":
        return f"stream {output.get('name', output.get('stream'))}", joined(output.get("text", ""), "the text of a stream", old)
    if kind in ("error", "pyerr"):
        return ERROR, _traceback(output)
    if kind in ("execute_result", "display_data", "pyout"):
        return DATA, _data_text(output, old, repairs)
    repairs.append("unknown_output")
    return "", ""


def _data_text(output: Mapping[str, Any], old: bool, repairs: list[str]) -> str:
    data = output.get("data")
    if data is None:
        data = {kind: output[key] for key in output if "/" in (kind := ALIASES.get(key, key))}
    if not isinstance(data, dict):
        raise wrong_type("the data of an output", data, "an object")
    mime = next(filter(data.get, PLAIN_KINDS), None)
    text = "" if mime is None else joined(data[mime], mime, old)
    bare = text.strip()
    if bare and _WIDGET not in data and not (bare[0] == "<" and bare[-1] == ">"):
        return text
    rich = [other for other in data if other not in PLAIN_KINDS]
    if bare and not _FIGURE.fullmatch(bare) and not (rich and (_WIDGET in data or _REPR.fullmatch(bare))):
        return text
    image = any(other.startswith("image/") for other in rich) or (bare and not rich)
    repairs += ["lost_image_output" if image else "lost_rich_output"] * bool(bare or rich)
    return ""


def _traceback(output: Mapping[str, Any]) -> str:
    """Return the traceback of an error, or the error alone where none was saved."""
    lines = joined(output.get("traceback") or [], "a traceback", old=True)
    error = (output.get("ename"), output.get("evalue"))
    return lines if lines.strip() else ": ".join(text for text in error if isinstance(text, str) and text)
