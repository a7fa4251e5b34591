"""What a pull request changes: patches, from an export or from a clone, and the lines around them.

In: unified diffs as text, or a repository and two commits. Out: `FileChange` with its hunks and, from a clone, the whole text before.
A patch whose lines do not add up to what its ``@@`` lines say is refused: a hunk that was cut off reads like a deletion.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

from data_prep.languages import language_of

_HEADER = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")


class BadPatch(ValueError):
    """A patch that is none, and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hunk:
    """Lines of a unified diff, their signs in front. `old` and `new` count the lines of the files in front of it."""

    old: int
    new: int
    lines: tuple[str, ...]

    @property
    def old_lines(self) -> list[str]:
        """The lines before the change, context and all."""
        return [line[1:] for line in self.lines if line[0] in " -"]

    @property
    def new_lines(self) -> list[str]:
        """The lines after the change."""
        return [line[1:] for line in self.lines if line[0] in " +"]

    def text(self, hidden: int = 0) -> str:
        """Return the hunk with its ``@@`` line, lines counted as if the first `hidden` ones of both files were not there."""
        old, new = len(self.old_lines), len(self.new_lines)
        before, after = self.old - hidden + (old > 0), self.new - hidden + (new > 0)
        return "\n".join((f"@@ -{before},{old} +{after},{new} @@", *self.lines))


@dataclasses.dataclass(frozen=True, slots=True)
class FileChange:
    """A file that changed. `base` is its text before, where that is known; `old_path` differs from `path` where it was renamed."""

    path: str
    old_path: str
    hunks: tuple[Hunk, ...]
    added: bool = False
    base: str | None = None
    removed: bool = False

    @property
    def language(self) -> str | None:
        """The language of the file, by its name."""
        return language_of(self.path)


def parse_patch(patch: str, cut_off: bool = False) -> tuple[Hunk, ...]:
    """Return the hunks of one file's patch, as GitHub's ``files[].patch`` has it; raise `BadPatch`.

    With `cut_off` the last hunk may end early, as that of a comment does, which ends at the line commented on.

    >>> parse_patch("@@ -1,2 +1,2 @@ def f():\\n a\\n-b\\n+c")
    (Hunk(old=0, new=0, lines=(' a', '-b', '+c')),)
    """
    lines = patch.removesuffix("\n").split("\n")
    hunks: list[Hunk] = []
    place = 0
    while place < len(lines):
        header = _HEADER.match(lines[place])
        if header is None:
            raise BadPatch(f"line {place + 1} of the patch is {lines[place][:40]!r}; expected @@ -a,b +c,d @@")
        hunk, place = _parse_hunk(header, lines, place + 1, cut_off)
        hunks.append(hunk)
    return tuple(hunks)


def _parse_hunk(header: re.Match[str], lines: Sequence[str], place: int, cut_off: bool) -> tuple[Hunk, int]:
    old, new = (1 if header[group] is None else int(header[group]) for group in (2, 4))
    before, after = int(header[1]) - (old > 0), int(header[3]) - (new > 0)
    if before < 0 or after < 0:
        raise BadPatch(f"the patch has {header[0]!r}; expected lines counted from 1")
    found: list[str] = []
    while place < len(lines) and (old > 0 or new > 0 or lines[place].startswith("\\")):
        line = lines[place] or " "  # some tools strip the space of an empty line
        sign = line[0]
        if sign not in " +-\\":
            raise BadPatch(f"line {place + 1} of the patch begins with {sign!r}; expected a space, +, - or \\")
        old -= sign in " -"
        new -= sign in " +"
        found.append(line)
        place += 1
    if (old or new) and not (cut_off and old >= 0 <= new and place == len(lines)):
        raise BadPatch(f"the patch ends, or goes on, before the lines of {header[0]!r} are told")
    return Hunk(before, after, tuple(found)), place


def with_context(hunks: Iterable[Hunk], context: int) -> tuple[Hunk, ...]:
    """Return hunks with at most `context` lines around each change, cut in two where more lie between.

    >>> hunk = Hunk(0, 0, (" a", " b", "-c", " d", " e", " f", "+g"))
    >>> [part.lines for part in with_context([hunk], 1)]
    [(' b', '-c', ' d'), (' f', '+g')]
    """
    return tuple(part for hunk in hunks for part in _cut(hunk, context))


def _cut(hunk: Hunk, context: int) -> Iterator[Hunk]:
    changed = [place for place, line in enumerate(hunk.lines) if line[0] in "+-"]
    runs: list[list[int]] = []
    for place in changed:
        if runs and place - runs[-1][1] - 1 <= 2 * context:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    old, new, seen = hunk.old, hunk.new, 0
    for first, last in runs:
        start, stop = max(first - context, 0), last + 1 + context
        stop += stop < len(hunk.lines) and hunk.lines[stop][0] == "\\"  # a line and that it has no end are not parted
        for line in hunk.lines[seen:start]:
            old += line[0] in " -"
            new += line[0] in " +"
        seen = start
        yield Hunk(old, new, hunk.lines[start:stop])


def line_at(hunks: Iterable[Hunk], position: int) -> str | None:
    """Return the hunk down to a position in a file's diff, as GitHub counts and shows it, or None if it has no such position.

    Positions count the lines below the first ``@@``; the ``@@`` lines of later hunks count too.

    >>> line_at([Hunk(0, 0, ("-a", "+b")), Hunk(8, 8, ("+c",))], 4)
    '@@ -8,0 +9,1 @@\\n+c'
    """
    for hunk in hunks:
        if 0 < position <= len(hunk.lines):
            header = hunk.text().partition("\n")[0]
            return "\n".join((header, *hunk.lines[:position]))
        position -= len(hunk.lines) + 1
    return None


def change_range(hunks: Iterable[Hunk]) -> tuple[int, int]:
    """Return the first and the last line before (from 0, the last excluded) between which hunks change anything."""
    first, last = None, 0
    for hunk in hunks:
        place = hunk.old
        for line in hunk.lines:
            if line[0] in "+-":
                first = place if first is None else min(first, place)
            place += line[0] in " -"
            if line[0] in "+-":
                last = max(last, place)
    return first or 0, last


def reach(hunks: Iterable[Hunk]) -> tuple[int, int]:
    """Return the first and the last line before (from 0, the last excluded) that hunks show."""
    ends = [(hunk.old, hunk.old + len(hunk.old_lines)) for hunk in hunks]
    return (min(start for start, _ in ends), max(stop for _, stop in ends)) if ends else (0, 0)


def shifted(hunk: str, hidden: int) -> str:
    """Return a hunk as text with the numbers of its ``@@`` line counted as if `hidden` lines in front were not there.

    >>> shifted("@@ -11,2 +11,3 @@ class A:\\n x", 10)
    '@@ -1,2 +1,3 @@ class A:\\n x'
    """
    header = _HEADER.match(hunk)
    if header is None or not hidden or min(int(header[1]), int(header[3])) <= hidden:
        return hunk
    old, new = (f"{int(header[start]) - hidden}" + ("" if header[start + 1] is None else f",{header[start + 1]}") for start in (1, 3))
    return f"@@ -{old} +{new} @@{hunk[header.end() :]}"
