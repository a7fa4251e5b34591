"""What of a record decontamination looks at: its texts, what they quote, and what in them may be Python.

Pure. In: a `Record`. Out: one text, and pieces of Python. Texts are looked at as they are, and so is what strings in them say: arguments of
tool calls, and files in JSON, hold several lines as one with escapes, in which nobody would be found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from data_prep.python_syntax import typed_in
from data_prep.record_texts import texts_of
from starchat.dialogue import Record
from starchat.fences import blocks_of

_QUOTED = re.compile(r'"((?:[^"\\]++|\\.)++)"?')
MIN_QUOTED_CHARACTERS = 31
"""Nothing shorter is looked for whole."""


def texts_and_python(record: Record) -> tuple[str, list[str]]:
    """Return a record's whole text and what it quotes, and those pieces of both that may be Python.

    Of documents that is each part, of what was said each block of code, and the whole where a block does not hold every function.
    """
    texts = texts_of(record)
    spoken = texts[: len(texts) - len(record.parts)]
    quoted = [quote for text in texts for quote in quoted_in(text)]
    pieces = texts[len(spoken) :] + [piece for text in spoken for piece in _pieces(text)] + quoted
    typed = [found for piece in pieces if (found := typed_in(piece)) is not None]
    return "\n".join((*texts, *quoted)), [piece for piece in (*pieces, *typed) if "def " in piece]


def quoted_in(text: str) -> list[str]:
    """Return what the longer strings with escapes in a text say, and strings within these; they are written as in JSON.

    >>> quoted_in('{"path": "a.py", "code": "def add(a, b):\\\\n    return a + b\\\\n"}')
    ['def add(a, b):\\n    return a + b\\n']
    """
    quotes = (quote for line in _lines_with("\\", text) for quote in _QUOTED.findall(line))
    said = [_said(quote) for quote in quotes if len(quote) >= MIN_QUOTED_CHARACTERS and "\\" in quote]
    return said + [inner for quote in said for inner in quoted_in(quote)]


def _lines_with(sign: str, text: str) -> Iterator[str]:
    place = text.find(sign)
    while place >= 0:
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        yield text[text.rfind("\n", 0, place) + 1 : end]
        place = text.find(sign, end)


def _said(quote: str) -> str:
    try:
        return str(json.loads(f'"{quote}"', strict=False))
    except ValueError:  # escapes of other languages
        return quote.replace("\\n", "\n").replace('\\"', '"')


def _pieces(text: str) -> list[str]:
    """Return the blocks of code in a text, and the text itself if functions stand elsewhere too."""
    if "def " not in text:
        return []
    bodies = [block.body for block in blocks_of(text)]
    return [*bodies, *([text] if sum(body.count("def ") for body in bodies) < text.count("def ") else [])]
