"""One row of the table of secrets: how a kind is written, in parts that every engine can use.

A row has an *anchor*, a short pattern that every find begins with; a *rest*, which is matched behind the anchor; and a *gate*, a plain
pattern that holds wherever anchor and rest do, for engines that know neither lookaround nor references. The finds of a row are, by
definition, all places where anchor and rest match and `span` names a stretch, so that every engine that meets each such place gives the
same.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from data_prep.secret_values import is_placeholder, is_token

Stretch = tuple[int, int]
Match = re.Match[str]
Judge = Callable[[Match], Stretch | None]
"""What says where in a match the secret is, or None where there is none."""

LEFT = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))"
"""What a token stands behind: no letter or digit, unless that is the letter of an escape in a string."""

END = r"(?![A-Za-z0-9])"
WIDE_END = r"(?![A-Za-z0-9_-])"


def secret_of(match: Match) -> Stretch | None:
    """Return the group ``secret`` of a match, the whole where there is no such group; None for a placeholder."""
    start, end = match.span("secret") if "secret" in match.re.groupindex else match.span()
    return None if is_placeholder(match.string[start:end]) else (start, end)


@dataclasses.dataclass(frozen=True)
class Shape:
    """One row: a kind, and one way in which it is written.

    `guard` looks at what stands before the anchor; `words` are what the anchor begins with, in small letters, or none; `reach` is the
    length in characters that anchor and gate have at most.
    """

    kind: str
    anchor: str
    rest: str
    gate: str
    words: tuple[str, ...] = ()
    span: Judge = secret_of
    guard: str = ""
    reach: int = 160

    @property
    def gate_pattern(self) -> str:
        """What an engine looks for: it begins where the anchor does, and is at most `reach` characters long."""
        return f"(?:{self.anchor}){self.gate}"

    @property
    def pattern(self) -> str:
        """What decides, where an engine found the gate."""
        return f"{self.guard}(?:{self.anchor}){self.rest}"


def checked(check: Callable[[str], bool]) -> Judge:
    """Return the judge that takes the secrets that pass a check."""

    def judge(match: Match) -> Stretch | None:
        found = secret_of(match)
        return found if found and check(match.string[found[0] : found[1]]) else None

    return judge


def token(kind: str, prefixes: str, rest: str, gate: str = r"[\w.+/=%-]{6}", span: Judge | None = None) -> Shape:
    """Return the row of tokens that begin with one of some fixed texts, given with blanks between them."""
    words = tuple(prefixes.split())
    anchor = "|".join(map(re.escape, words))
    return Shape(
        kind, anchor, rest, gate, tuple(word.lower() for word in words), span or checked(is_token), LEFT, max(map(len, words)) + 48
    )
