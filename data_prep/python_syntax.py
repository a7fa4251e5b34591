"""Whether Python parses, and how: the one place that asks ``ast``, quiet about doubtful escapes in somebody else's code.

Whole files are taken as they are; of pieces, as answers hold them, indentation and an interpreter's prompts are taken off first.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings

_PROMPT = re.compile(r"[ \t]*+(?:>>>|\.\.\.)(?: |$)")
_SESSION = re.compile(r"^[ \t]*+>>> ?\S", re.MULTILINE)


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


def snippet_fault(text: str) -> str | None:
    """Return why a piece of Python, which may be indented or a session with an interpreter, does not parse, or None.

    >>> snippet_fault("    return x + 1\\n"), snippet_fault(">>> if x:\\n...     y\\n...\\n12 apples"), snippet_fault(">>> x = (1")
    (None, None, "line 1: '(' was never closed")
    """
    session = typed_in(text) if text.lstrip().startswith(">>>") else None
    return syntax_fault(textwrap.dedent(text) if session is None else session)


def typed_in(text: str) -> str | None:
    """Return what was typed in sessions with an interpreter within a text, on the lines where it stands; None if there is none.

    >>> typed_in("So:\\n>>> def f(x):\\n...     return x\\n>>> f(1)\\n1\\n")
    '\\ndef f(x):\\n    return x\\nf(1)\\n\\n'
    """
    if ">>>" not in text or not _SESSION.search(text):
        return None
    found = ((line, _PROMPT.match(line)) for line in text.split("\n"))
    return "\n".join(line[prompt.end() :] if prompt else "" for line, prompt in found)
