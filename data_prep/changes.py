"""What changed between two contents of a file: the span of lines, a window around it, a unified diff, and back.

In: two contents, as bytes or text. Pure. The span is found by comparing from both ends, so the cost of a small change to a large file
is that of reading it; lines are compared with each other only inside the span.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

MAX_COMPARED = 4_000_000
"""Above this product of line counts difflib is not asked: the span becomes one hunk. What makes it quadratic below this are lines that
occur again and again; its heuristic, which begins no match with such a line, stays on for that."""

CONTEXT_LINES = 3
NO_LINE_END = "\\ No newline at end of file\n"
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


class Span(NamedTuple):
    """Positions, at line ends, between which two contents differ: ``old[start:old_end]`` became ``new[start:new_end]``."""

    start: int
    old_end: int
    new_end: int


def changed_span(old: bytes, new: bytes) -> Span:
    """Return the smallest span of whole lines outside of which two contents are equal.

    >>> changed_span(b"a\\nb\\nc\\n", b"a\\nX\\nY\\nc\\n")
    Span(start=2, old_end=4, new_end=6)
    """
    same = _common(old, new)
    start = old.rfind(b"\n", 0, same) + 1
    shared = _common_end(old, new, min(len(old), len(new)) - start)
    old_end, new_end = len(old) - shared, len(new) - shared
    if not (_begins_line(old, old_end, start) and _begins_line(new, new_end, start)):
        line_end = old.find(b"\n", old_end)
        shared = 0 if line_end < 0 else len(old) - line_end - 1
        old_end, new_end = len(old) - shared, len(new) - shared
    return Span(start, old_end, new_end)


def _begins_line(content: bytes, place: int, start: int) -> bool:
    return place == start or content[place - 1 : place] == b"\n"


def _common(a: bytes, b: bytes) -> int:
    """Return how many bytes two contents share at their beginning, by halving: slices are compared at the speed of memory."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:  # a[:low] == b[:low], a[:high] != b[:high]
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _common_end(a: bytes, b: bytes, most: int) -> int:
    low, high = 0, most
    if a[len(a) - high :] == b[len(b) - high :]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[len(a) - middle : len(a) - low] == b[len(b) - middle : len(b) - low]:
            low = middle
        else:
            high = middle
    return low


def widened(old: bytes, span: Span, lines_before: int, lines_after: int) -> tuple[int, int]:
    """Return where a window of `old` begins and ends that has so many more lines before and behind the span, as far as there are.

    >>> widened(b"a\\nb\\nc\\nd\\n", Span(4, 6, 6), 1, 9)
    (2, 8)
    """
    start, end = span.start, span.old_end
    for _ in range(lines_before):
        if start == 0:
            break
        start = old.rfind(b"\n", 0, start - 1) + 1
    for _ in range(lines_after):
        line_end = old.find(b"\n", end)
        if line_end < 0:
            end = len(old)
            break
        end = line_end + 1
    return start, end


def unified_diff(old: str, new: str, context: int = CONTEXT_LINES) -> str:
    """Return the hunks of a unified diff, without file names; empty for equal texts.

    >>> print(unified_diff("a\\nb\\n", "a\\nc\\n"), end="")
    @@ -1,2 +1,2 @@
     a
    -b
    +c
    """
    before, after = _lines(old), _lines(new)
    lead = _equal_lines(before, after)
    tail = _equal_lines(before[lead:][::-1], after[lead:][::-1])
    first = max(0, lead - context)
    old_part = before[first : min(len(before), len(before) - tail + context)]
    new_part = after[first : min(len(after), len(after) - tail + context)]
    core = (lead - first, len(old_part) - min(tail, context), lead - first, len(new_part) - min(tail, context))
    if (core[1] - core[0]) * (core[3] - core[2]) > MAX_COMPARED:
        groups: list[list[tuple[str, int, int, int, int]]] = [
            [("equal", 0, core[0], 0, core[2]), ("replace", *core), ("equal", core[1], len(old_part), core[3], len(new_part))]
        ]
    else:
        matcher = difflib.SequenceMatcher(None, old_part, new_part)
        groups = [list(group) for group in matcher.get_grouped_opcodes(context)]
    out: list[str] = []
    for group in groups:
        if all(code[0] == "equal" for code in group):
            continue
        head = _range(group[0][1], group[-1][2], first), _range(group[0][3], group[-1][4], first)
        out.append(f"@@ -{head[0]} +{head[1]} @@\n")
        for tag, i, j, k, m in group:
            if tag == "equal":
                out += _marked(" ", old_part[i:j])
                continue
            out += _marked("-", old_part[i:j])
            out += _marked("+", new_part[k:m])
    return "".join(out)


def apply_diff(old: str, diff: str) -> str:
    """Return the text that a diff of `unified_diff` makes of `old`; raise ``ValueError`` if it does not fit.

    >>> apply_diff("a\\nb\\n", unified_diff("a\\nb\\n", "a\\nc\\n"))
    'a\\nc\\n'
    """
    before, out, place = _lines(old), [], 0
    lines = _lines(diff)
    for number, line in enumerate(lines):
        if head := _HUNK.match(line):
            start = int(head[1]) - (head[2] != "0")
            out += before[place:start]
            place = start
            continue
        if line == NO_LINE_END:
            continue
        text = line[1:-1] if lines[number + 1 : number + 2] == [NO_LINE_END] else line[1:]
        if line[0] in " -":
            if before[place : place + 1] != [text]:
                raise ValueError(f"line {place + 1} is not what the diff expects")
            place += 1
        if line[0] in " +":
            out.append(text)
    return "".join(out + before[place:])


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _equal_lines(a: list[str], b: list[str]) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _range(start: int, stop: int, offset: int) -> str:
    """Return a range of lines as unified diffs write it: counted from 1; an empty one names the line before it."""
    length = stop - start
    begin = start + offset + (length > 0)
    return f"{begin}" if length == 1 else f"{begin},{length}"


def _marked(sign: str, lines: list[str]) -> list[str]:
    return [f"{sign}{line}" if line.endswith("\n") else f"{sign}{line}\n{NO_LINE_END}" for line in lines]
