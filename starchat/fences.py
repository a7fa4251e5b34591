"""Code blocks in Markdown."""

from __future__ import annotations

import re

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[\w+#.-]*)[ \t]*\n(?P<body>.*?)^(?P=fence)`*[ \t]*$", re.MULTILINE | re.DOTALL)
_TICKS = re.compile(r"`{3,}")


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a Markdown text as (language, body) pairs, in order.

    >>> code_blocks("Use:\\n```python\\nprint(1)\\n```\\n```output\\n1\\n```")
    [('python', 'print(1)\\n'), ('output', '1\\n')]
    """
    return [(match["language"].lower(), match["body"]) for match in FENCE.finditer(text)]


def fenced(code: str, language: str = "") -> str:
    """Return code as a fenced block, its fence longer than any run of backticks in the code; an end of line is added where there is none.

    >>> fenced("print(1)", "python")
    '```python\\nprint(1)\\n```'
    >>> code_blocks(fenced("```\\nnested\\n```\\n"))
    [('', '```\\nnested\\n```\\n')]
    """
    ticks = "`" * max([3, *(len(run) + 1 for run in _TICKS.findall(code))])
    return f"{ticks}{language}\n{code}{'' if code.endswith(chr(10)) or not code else chr(10)}{ticks}"
