"""Replacing what was found: after it no detector finds anything, and a file that parsed still parses.

In: a text and a detector, perhaps finds of a model. Out: the new text, and where in it the replacements lie, so that a trainer can leave
them out. Two styles:

``text``    surrogates of the same type: ``user1@example.com``, addresses of the ranges for documentation (RFC 2606, 5737, 2544, 3849),
            ``REDACTED1`` padded to the length of a key, repeated digits for a bare number. Equal secrets of a text get equal
            surrogates (e-mail addresses whatever their case), different ones different ones, numbered by their first appearance; what
            stands in the text already, or begins something there, stands for no secret.
``tokens``  StarCoder2's placeholders ``<NAME>``, ``<EMAIL>``, ``<KEY>``, ``<PASSWORD>``; IP addresses have none, and get surrogates.

A replacement changes what stands beside it: a word may now begin where none began. So the new text is searched again, and what is found
there is mapped to the old text and replaced with the rest, until nothing is found. Each round takes in more of the old text, so this ends.
"""

from __future__ import annotations

import bisect
import dataclasses
import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from data_prep.detect import Detector, Span
from data_prep.secret_kinds import KINDS, label_of
from starchat.config import closest
from starchat.errors import UserError

if TYPE_CHECKING:
    from data_prep.names import NameModel

STYLES = ("text", "tokens")
PLACEHOLDERS = {"NAME": "<NAME>", "USERNAME": "<NAME>", "EMAIL": "<EMAIL>", "KEY": "<KEY>", "PASSWORD": "<PASSWORD>"}
"""StarCoder2's tokens for what was taken out (special_tokens_map.json of bigcode/starcoder2-7b)."""

MAX_KEY_LENGTH = 64
_IPV4_BLOCKS = ("192.0.2.0", "198.51.100.0", "203.0.113.0")
_BENCHMARK_BLOCK, _BENCHMARK_ADDRESSES = ipaddress.IPv4Address("198.18.0.0"), 1 << 17
_FAMILIES = {"PASSWORD": "KEY", "USERNAME": "NAME"}
"""Labels whose surrogates look alike are numbered together."""

_ALREADY_THERE = re.compile(
    r"user\d+@example\.com|REDACTED\d+|(?:192\.0\.2|198\.51\.100|203\.0\.113|198\.1[89]\.\d{1,3})\.\d{1,3}|2001:db8::[0-9a-f]+|name\d+"
    r"|([1-9])\1{5,}"
)
"""What looks like a surrogate."""


class Replacement(NamedTuple):
    """Where in the new text something stands for a secret, and what kind of secret it was."""

    start: int
    end: int
    kind: str


class Redacted(NamedTuple):
    """A text without secrets, and the stretches of it that are replacements, in order."""

    text: str
    replacements: tuple[Replacement, ...] = ()


@dataclasses.dataclass(frozen=True)
class SecretRules:
    """What to do about secrets. Kinds in `redact` are replaced; a text that holds a kind of `drop` is to be dropped.

    `names` is the id or folder of a model that marks names (`data_prep.names`); finds below `min_name_score` are left.
    """

    redact: tuple[str, ...] = KINDS
    drop: tuple[str, ...] = ()
    style: str = "text"
    names: str | None = None
    min_name_score: float = 0.8

    def __post_init__(self) -> None:
        """Raise `UserError` that names all faults."""
        faults = []
        for key in ("redact", "drop"):
            value = getattr(self, key)
            if isinstance(value, str) or not isinstance(value, Sequence):
                faults.append(f"secrets.{key}: {value!r}; expected a list of kinds, such as [email, password]")
                continue
            object.__setattr__(self, key, tuple(value))
            faults += [f"secrets.{key}: {kind!r}; {closest(str(kind), KINDS)}" for kind in value if kind not in KINDS]
        if self.style not in STYLES:
            faults.append(f"secrets.style: {self.style!r}; {closest(str(self.style), STYLES)}")
        if isinstance(self.min_name_score, bool) or not 0 <= self.min_name_score <= 1:
            faults.append(f"secrets.min_name_score: {self.min_name_score!r}; expected a number from 0 to 1")
        if faults:
            raise UserError("\n".join(faults))


def redact(text: str, detector: Detector, style: str = "text", more: Iterable[Span] = ()) -> Redacted:
    """Return a text in which the detector finds nothing; `more` are spans that something else found, such as names.

    Text outside the replacements is as it was.

    >>> redact("a = 'ada@corp.io', 'bob@corp.io', 'ada@corp.io'", Detector())
    Redacted(text="a = 'user1@example.com', 'user2@example.com', 'user1@example.com'", replacements=(Replacement(start=5, end=22, \
kind='email'), Replacement(start=26, end=43, kind='email'), Replacement(start=47, end=64, kind='email')))
    """
    spans = joined([*detector.find(text), *(span for span in more if 0 <= span.start < span.end <= len(text))])
    if not spans:
        return Redacted(text)
    while True:
        result = replaced(text, spans, style)
        again = detector.find(result.text)
        if not again:
            return result
        grown = joined([*spans, *_in_old_text(again, spans, result)])
        if grown == spans:  # a surrogate by itself was found: take in what stands beside it
            grown = joined([Span(max(0, span.start - 1), min(len(text), span.end + 1), span.kind) for span in spans])
            assert grown != spans, "a surrogate is never a secret"
        spans = grown


def applied(text: str, rules: SecretRules, names: NameModel | None = None) -> Redacted | Span:
    """Return the text that rules make of a text, or its first find of a kind for which the whole text is to be dropped.

    >>> applied("by ada@corp.io", SecretRules(style="tokens")).text, applied("by ada@corp.io", SecretRules(drop=("email",))).kind
    ('by <EMAIL>', 'email')
    """
    if rules.drop and (found := Detector(rules.drop).find(text)):
        return found[0]
    return redact(text, Detector(rules.redact), rules.style, names.find(text, rules.min_name_score) if names else ())


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that overlap as one with the kind of the longest.

    >>> joined([Span(4, 9, "email"), Span(0, 5, "password")])
    [Span(start=0, end=9, kind='email')]
    """
    groups: list[list[Span]] = []
    end = -1
    for span in sorted(spans):
        if span.start < end:
            groups[-1].append(span)
        else:
            groups.append([span])
            end = 0
        end = max(end, span.end)
    longest = [max(group, key=lambda span: (span.end - span.start, span.start)) for group in groups]
    return [Span(g[0].start, max(s.end for s in g), best.kind) for g, best in zip(groups, longest, strict=True)]


def replaced(text: str, spans: Sequence[Span], style: str = "text") -> Redacted:
    """Return a text with spans replaced, which are sorted and do not overlap."""
    surrogates = _Surrogates(text)
    pieces, replacements, position, length = [], [], 0, 0
    for span in spans:
        label, secret = label_of(span.kind), text[span.start : span.end]
        new = PLACEHOLDERS[label] if style == "tokens" and label in PLACEHOLDERS else surrogates.of(label, secret)
        length += span.start - position
        pieces += [text[position : span.start], new]
        replacements.append(Replacement(length, length + len(new), span.kind))
        length, position = length + len(new), span.end
    return Redacted("".join([*pieces, text[position:]]), tuple(replacements))


class _Surrogates:
    """The surrogates that were given out for the secrets of a text, and those that cannot be since they stand in it already."""

    def __init__(self, text: str) -> None:
        self._given: dict[tuple[str, str], str] = {}
        self._used: set[str] = set()
        self._numbers: Counter[str] = Counter()
        self._present = sorted({match[0] for match in _ALREADY_THERE.finditer(text)})

    def of(self, label: str, secret: str) -> str:
        """Return what stands for a secret: what it was before, or the next that is free."""
        family = _FAMILIES.get(label, label)
        key = family, secret.casefold() if label == "EMAIL" else secret
        if key not in self._given:
            for _ in range(len(self._present) + len(self._used) + 1):
                self._numbers[family] += 1
                new = surrogate(label, secret, self._numbers[family])
                if new not in self._used and not self._begins_something(new):
                    break
            self._used.add(new)
            self._given[key] = new
        return self._given[key]

    def _begins_something(self, new: str) -> bool:
        at = bisect.bisect_left(self._present, new)
        return at < len(self._present) and self._present[at].startswith(new)


def surrogate(label: str, secret: str, number: int) -> str:
    """Return what stands for the secret with a number in its text.

    >>> surrogate("KEY", "AKIA" + "Q" * 16, 1), surrogate("IP_ADDRESS", "93.184.216.34", 2), surrogate("PASSWORD", "55001234", 1)
    ('REDACTED000000000001', '192.0.2.2', '11111111')
    """
    if label == "EMAIL":
        return f"user{number}@example.com"
    if label == "IP_ADDRESS":
        if ":" in secret:
            return str(ipaddress.IPv6Address((0x20010DB8 << 96) + number))
        block, host = divmod(number - 1, 254)
        if block < len(_IPV4_BLOCKS):
            return str(ipaddress.IPv4Address(_IPV4_BLOCKS[block]) + host + 1)
        return str(_BENCHMARK_BLOCK + (number - 1 - 254 * len(_IPV4_BLOCKS)) % _BENCHMARK_ADDRESSES)
    if label in ("NAME", "USERNAME"):
        return f"name{number}"
    if re.fullmatch(r"[1-9][0-9]*", secret):
        times, digit = divmod(number - 1, 9)
        return str(digit + 1) * (max(6, len(secret)) + times)
    digits = min(len(secret), MAX_KEY_LENGTH) - len("REDACTED")
    return f"REDACTED{number:0{max(1, digits)}}"


def _in_old_text(found: Sequence[Span], spans: Sequence[Span], result: Redacted) -> list[Span]:
    """Return spans of the new text as spans of the old one; a part of a replacement means all that it replaced."""
    starts = [replacement.start for replacement in result.replacements]
    moved = []
    for span in found:
        ends: list[int] = []
        for position, is_end in ((span.start, False), (span.end, True)):
            index = bisect.bisect_left(starts, position) - 1 if is_end else bisect.bisect_right(starts, position) - 1
            if index < 0:
                ends.append(position)
                continue
            new, old = result.replacements[index], spans[index]
            edge = old.end if is_end else old.start
            ends.append(edge if position - is_end < new.end else old.end + position - new.end)
        moved.append(Span(ends[0], ends[1], span.kind))
    return moved
