"""Code blocks in Markdown."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^(?P<ticks>`{3,})(?P<language>[\w+#.-]*)(?P<more>[^`\n]*)$", re.MULTILINE)
_TICKS = re.compile(r"`{3,}")


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a Markdown text as (language, body) pairs, in order; a fence that nothing closes opens none.

    >>> code_blocks("Use:\\n```python\\nprint(1)\\n```\\n```output\\n1\\n```")
    [('python', 'print(1)\\n'), ('output', '1\\n')]
    """
    fences = [(match, "" if (match["language"] + match["more"]).strip() else match["ticks"]) for match in _FENCE.finditer(text)]
    longest = [""]  # of the fences from each on that can close a block
    for _, closing in reversed(fences):
        longest.append(max(longest[-1], closing))
    found, opening = [], None
    for number, (match, closing) in enumerate(fences):
        if opening is None:
            opening = match if match["ticks"] <= longest[len(fences) - 1 - number] else None
        elif opening["ticks"] <= closing:
            found.append((opening["language"].lower(), text[opening.end() + 1 : match.start()]))
            opening = None
    return found


def fenced(code: str, language: str = "") -> str:
    """Return code as a fenced block, its fence longer than any run of backticks in the code; an end of line is added where there is none.

    >>> fenced("print(1)", "python")
    '```python\\nprint(1)\\n```'
    >>> code_blocks(fenced("```\\nnested\\n```\\n"))
    [('', '```\\nnested\\n```\\n')]
    """
    ticks = "`" * max([3, *(len(run) + 1 for run in _TICKS.findall(code))])
    return f"{ticks}{language}\n{code}{'' if code.endswith(chr(10)) or not code else chr(10)}{ticks}"
