"""What a terminal would show of a program's output: no colours, progress bars in their last state.

Pure text to text. Followed are carriage return, backspace, cursor up and the erasing of a line, which is what progress bars use; other
escape sequences (ECMA-48; XTerm's operating system commands) are removed.
"""

from __future__ import annotations

import re

_MOVES = re.compile(r"(\n|\r|\x08+|\x1b\[\d{0,3}[AK])")
_UP = re.compile(r"\x1b\[\d{0,3}A")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])?")


def as_shown(text: str) -> str:
    """Return what a terminal shows once all of an output has been written to it.

    >>> as_shown("\\x1b[31mred\\x1b[0m\\n 10%|#  |\\r100%|###|\\ndone")
    'red\\n100%|###|\\ndone'
    """
    if not ("\x1b" in text or "\r" in text or "\b" in text):
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if "\x1b" in text and _UP.search(text):
        text = _follow(text)
    elif "\r" in text or "\b" in text:
        text = "\n".join(_follow(row) if "\r" in row or "\b" in row else row for row in text.split("\n"))
    return plain(text)


def plain(text: str) -> str:
    """Return a text without escape sequences.

    >>> plain("\\x1b[0;31mNameError\\x1b[0m: x")
    'NameError: x'
    """
    return _ESCAPES.sub("", text) if "\x1b" in text else text


def _follow(text: str) -> str:
    """Return a text with the moves of its cursor made. Rows are lists, so that a move costs what it writes; a row is never padded."""
    rows: list[list[str]] = [[]]
    line = column = 0
    for number, piece in enumerate(_MOVES.split(text)):
        if number % 2 == 0:
            piece = plain(piece)
            rows[line][column : column + len(piece)] = piece
            column += len(piece)
        elif piece == "\n":
            line, column = line + 1, 0
            if line == len(rows):
                rows.append([])
        elif piece == "\r":
            column = 0
        elif piece[0] == "\b":
            column = max(0, column - len(piece))
        elif piece[-1] == "A":
            line = max(0, line - int(piece[2:-1] or 1))
            column = min(column, len(rows[line]))
        elif piece[2:-1] == "2":  # the whole row: what is written next begins it, as after the carriage return that comes with it
            rows[line], column = [], 0
        else:  # from the cursor to the end; nobody erases the beginning
            del rows[line][column:]
    return "\n".join(map("".join, rows))
