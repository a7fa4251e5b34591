"""Code in Markdown: the one place that tells fenced blocks, and code within a line, from prose.

Pure. Fences are CommonMark's (section 4.5): three and more backticks or tildes; its end is of the same sign, at least as long, with nothing
behind it and at most three columns further in. They may stand at any depth, as they do in lists, and their indentation is taken off the
code. Where fences of several lengths are mixed and one has no end, the others count. Time grows with the length of a text only.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_FENCE = re.compile(r"^([ \t]*+)(`{3,}+(?=[^`\n]*+$)|~{3,}+)[ \t]*+([\w+#.-]*)([^\n]*)$", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)(`++)[^`\n]+\1")
_TICKS = re.compile(r"`{3,}")
TAB_COLUMNS = 4
MAX_DEEPER = 3


class Block(NamedTuple):
    """A fenced block; `start` and `end` are of all its lines. One that nothing closes goes to the end of its text."""

    language: str
    body: str
    start: int
    end: int
    closed: bool = True


class _Fence(NamedTuple):
    start: int
    end: int
    indent: int
    columns: int
    ticks: str
    language: str
    bare: bool


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a Markdown text in order; of those without an end only the last, if no block follows it.

    >>> blocks_of("1. So:\\n   ~~~ py\\n   x\\n   ~~~\\n```\\ny")
    [Block(language='py', body='x\\n', start=7, end=28, closed=True), Block(language='', body='y', start=29, end=34, closed=False)]
    """
    if "```" not in text and "~~~" not in text:
        return []
    fences = [_fence(match) for match in _FENCE.finditer(text)]
    found: list[Block] = []
    opening, unclosed = None, None
    for fence, has_end in zip(fences, _have_ends(fences), strict=True):
        if opening is None:
            opening = fence if has_end else None
            unclosed = unclosed or (None if has_end else fence)
        elif _closes(fence, opening):
            found.append(Block(opening.language, _body(text, opening, fence.start), opening.start, fence.end))
            opening, unclosed = None, None
    if unclosed is not None:
        found.append(Block(unclosed.language, _body(text, unclosed, len(text)), unclosed.start, len(text), closed=False))
    return found


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a Markdown text as (language, body) pairs, in order; a fence that nothing closes opens none.

    >>> code_blocks("Use:\\n```python\\nprint(1)\\n```\\n```output\\n1\\n```")
    [('python', 'print(1)\\n'), ('output', '1\\n')]
    """
    return [(block.language, block.body) for block in blocks_of(text) if block.closed]


def code_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where code begins and ends in a Markdown text: fenced, up to the end where nothing closes it, or within a line.

    >>> list(code_spans("Set `x`:\\n```\\ny\\n```"))
    [(4, 7), (9, 18)]
    """
    position = 0
    for start, end in (*((block.start, block.end) for block in blocks_of(text)), (len(text), len(text))):
        yield from (match.span() for match in _INLINE.finditer(text, position, start))
        if start < end:
            yield start, end
        position = end


def without_code(text: str) -> str:
    """Return a Markdown text with two backticks in place of each piece of its code.

    >>> without_code("Set `x`:\\n~~~\\ny\\n~~~\\nThat is all.")
    'Set ``:\\n``\\nThat is all.'
    """
    pieces, position = list[str](), 0
    for start, end in code_spans(text):
        pieces += (text[position:start], "``")
        position = end
    return "".join((*pieces, text[position:]))


def fenced(code: str, language: str = "") -> str:
    """Return code as a fenced block, its fence longer than any run of backticks in the code; an end of line is added where there is none.

    >>> fenced("print(1)", "python")
    '```python\\nprint(1)\\n```'
    >>> code_blocks(fenced("```\\nnested\\n```\\n"))
    [('', '```\\nnested\\n```\\n')]
    """
    ticks = "`" * max([3, *(len(run) + 1 for run in _TICKS.findall(code))])
    return f"{ticks}{language}\n{code}{'' if code.endswith(chr(10)) or not code else chr(10)}{ticks}"


def _fence(match: re.Match[str]) -> _Fence:
    indent, ticks, language, more = match.groups()
    columns = len(indent.expandtabs(TAB_COLUMNS))
    return _Fence(match.start(), match.end(), len(indent), columns, ticks, language.lower(), not (language + more).strip())


def _closes(fence: _Fence, opening: _Fence) -> bool:
    return fence.bare and fence.ticks.startswith(opening.ticks) and fence.columns <= opening.columns + MAX_DEEPER


def _have_ends(fences: Sequence[_Fence]) -> list[bool]:
    """Return for each fence whether one behind it can close it.

    Of the ends behind a fence only those are kept that are longer than others, or less far in: sorted, both grow along the list.
    """
    ends: dict[str, list[tuple[int, int]]] = {"`": [], "~": []}
    found = []
    for fence in reversed(fences):
        best, length = ends[fence.ticks[0]], len(fence.ticks)
        place = bisect.bisect_left(best, (length, 0))
        found.append(place < len(best) and best[place][1] <= fence.columns + MAX_DEEPER)
        if fence.bare and not (place < len(best) and best[place][1] <= fence.columns):
            stop = place + (place < len(best) and best[place][0] == length)
            while place and best[place - 1][1] >= fence.columns:
                place -= 1
            best[place:stop] = [(length, fence.columns)]
    return found[::-1]


def _body(text: str, opening: _Fence, end: int) -> str:
    """Return what stands behind an opening fence, without as much white space before each line as the fence has."""
    body = text[opening.end + 1 : end]
    if not opening.indent:
        return body
    return "\n".join(line[min(opening.indent, len(line) - len(line.lstrip(" \t"))) :] for line in body.split("\n"))
