"""Whether Python parses, and how: the one place that asks ``ast``, quiet about doubtful escapes in somebody else's code."""

from __future__ import annotations

import ast
import warnings


def python_tree(text: str) -> ast.Module:
    """Return the syntax tree of Python; raise `ValueError` that says where it does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except SyntaxError as error:
            raise ValueError(f"line {error.lineno}: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None


def syntax_fault(text: str) -> str | None:
    """Return why Python does not parse, or None.

    >>> syntax_fault("x = (1")
    "line 1: '(' was never closed"
    """
    try:
        python_tree(text)
    except ValueError as error:
        return str(error)
    return None
