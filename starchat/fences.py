"""Code blocks in Markdown."""

from __future__ import annotations

import re

FENCE = re.compile(r"^```(\w*)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a Markdown text as (language, body) pairs, in order.

    >>> code_blocks("Use:\\n```python\\nprint(1)\\n```\\n```output\\n1\\n```")
    [('python', 'print(1)\\n'), ('output', '1\\n')]
    """
    return [(match[1].lower(), match[2]) for match in FENCE.finditer(text)]
