"""What stands in a text for what was taken out of it, and is not trained on: strings in the text, and StarCoder2's tokens for it.

In: a record's `placeholders`, its texts, `Tokens`. Out: which tokens of a text belong to placeholders, and a document's parts with the
tokens of StarCoder2's redaction (arXiv 2402.19173) folded into the text that they interrupt. Imports no torch.

A placeholder is looked for in a text as the tokenizer reads it, that is, normalised; of occurrences that overlap, each counts. What the
checks hold rows against is found by other means: `starchat.holes`.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from starchat.dialogue import Part, Record
from starchat.tokens import Tokens

REDACTION_TOKENS = ("<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>")
"""Tokens that StarCoder2's tokenizer has for what was taken out. As markers of parts they are not trained."""

FIRST_LETTER = 0xF0000
"""Code points from here on are for private use: of them those that a document does not have stand for tokens while it is cut."""

Stretch = tuple[int, int]
"""Where something begins and ends in a text, in characters."""


@dataclasses.dataclass(frozen=True)
class Redaction:
    """What was put into a document: `strings` into its text, and tokens, for each of which `letters` has a character of its own."""

    strings: tuple[str, ...] = ()
    letters: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def split(self, text: str) -> list[Part]:
        """Return a text with letters as parts; the first one has no marker."""
        names = {letter: token for token, letter in self.letters.items()}
        parts, start = [], 0
        marker = ""
        for at, letter in enumerate(text) if names else ():
            if letter in names:
                parts.append(Part(marker, text[start:at]))
                marker, start = names[letter], at + 1
        return [*parts, Part(marker, text[start:])]

    def fold(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """Return a document in which a token of redaction is a letter of the text in front of it."""
        if not self.letters:
            return tuple(parts)
        folded: list[Part] = []
        for part in parts:
            if part.marker not in self.letters:
                folded.append(part)
                continue
            front = folded.pop() if folded else Part("", "")
            folded.append(Part(front.marker, front.text + self.letters[part.marker] + part.text))
        return tuple(folded)

    def unfold(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """Return the document that `fold` was given; of an empty text without a marker before a token nothing is left.

        >>> redaction = Redaction(letters={"<EMAIL>": "@"})
        >>> folded = redaction.fold([Part("", "mail "), Part("<EMAIL>", " us")])
        >>> folded, [part.marker for part in redaction.unfold(folded)]
        ((Part(marker='', text='mail @ us'),), ['', '<EMAIL>'])
        """
        return tuple(piece for part in parts for piece in self._pieces(part)) if self.letters else tuple(parts)

    def _pieces(self, part: Part) -> list[Part]:
        first, *rest = self.split(part.text)
        return [*([Part(part.marker, first.text)] if part.marker or first.text or not rest else []), *rest]


NOTHING = Redaction()


def redaction_of(record: Record) -> Redaction:
    """Return what was put into a document for what was taken out."""
    used = sorted({part.marker for part in record.parts} & {*REDACTION_TOKENS})
    if not used:
        return Redaction(record.placeholders) if record.placeholders else NOTHING
    present = {letter for part in record.parts for letter in part.text}
    free = (chr(code) for code in itertools.count(FIRST_LETTER) if chr(code) not in present)
    return Redaction(record.placeholders, dict(zip(used, free, strict=False)))


def occurrences(text: str, placeholders: Sequence[str]) -> list[Stretch]:
    """Return where placeholders lie in a text, in order; those that overlap as one stretch.

    >>> occurrences("ababa b", ["aba", "b"])
    [(0, 5), (6, 7)]
    """
    found: list[Stretch] = []
    for start, stop in sorted({stretch for placeholder in {*placeholders} - {""} for stretch in _find(text, placeholder)}):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def _find(text: str, placeholder: str) -> Iterator[Stretch]:
    at = text.find(placeholder)
    while at >= 0:
        yield at, at + len(placeholder)
        at = text.find(placeholder, at + 1)


def without(text: str, placeholders: Sequence[str]) -> str:
    """Return a text without its placeholders.

    >>> without("mail user1@example.com now", ["user1@example.com"])
    'mail  now'
    """
    cuts = [0, *(edge for stretch in occurrences(text, placeholders) for edge in stretch), len(text)]
    return "".join(text[start:stop] for start, stop in zip(cuts[::2], cuts[1::2], strict=True)) if len(cuts) > 2 else text


def read_occurrences(text: str, placeholders: Sequence[str], tokens: Tokens) -> list[Stretch]:
    """Return `occurrences` in a text as the tokenizer reads it, by where they lie in the text as it is."""
    return tokens.before_normalizing(text, occurrences(tokens.normalize(text), [tokens.normalize(p) for p in placeholders]))


def keeping_whole(redaction: Redaction, tokens: Tokens) -> Callable[[str], list[Stretch]] | None:
    """Return what tells the stretches of a text that no cut may part; None if there are none."""
    return (lambda text: read_occurrences(text, redaction.strings, tokens)) if redaction.strings else None


def moved_out(at: int, stretches: Sequence[Stretch]) -> int:
    """Return a position, or the beginning of the stretch that it lies inside of.

    >>> [moved_out(at, [(2, 5), (5, 7)]) for at in (1, 2, 4, 5, 6, 7)]
    [1, 2, 2, 5, 5, 7]
    """
    number = bisect.bisect_left(stretches, at, key=lambda stretch: stretch[0]) - 1
    return stretches[number][0] if number >= 0 and at < stretches[number][1] else at


def find_holes(asked: Sequence[tuple[Sequence[str], Sequence[str]]], tokens: Tokens) -> list[list[int]]:
    """Return which tokens overlap a placeholder, by their numbers, for each of many runs of texts and their placeholders.

    The texts of a run stand side by side and are each encoded by itself; a placeholder may go from one into the next.
    """
    found: list[list[int]] = []
    runs = [_Run.of(texts, placeholders, tokens) for texts, placeholders in asked]
    encoded = iter(tokens.encode_with_offsets([text for run in runs for text in run.texts]))
    for run in runs:
        numbers: list[int] = []
        count = 0
        for stretches in run.stretches:
            offsets = next(encoded).offsets
            numbers += [count + number for number in _overlapping(offsets, stretches)]
            count += len(offsets)
        found.append(numbers)
    return found


@dataclasses.dataclass(frozen=True)
class _Run:
    """Texts side by side, and where in each of them placeholders lie; no texts if there are none."""

    texts: Sequence[str]
    stretches: Sequence[list[Stretch]]

    @classmethod
    def of(cls, texts: Sequence[str], placeholders: Sequence[str], tokens: Tokens) -> _Run:
        """Return the run of some texts."""
        read = [tokens.normalize(text) for text in texts]
        whole = occurrences("".join(read), [tokens.normalize(placeholder) for placeholder in placeholders])
        if not whole:
            return cls((), ())
        stretches, begin = [], 0
        for text, normal in zip(texts, read, strict=True):
            end = begin + len(normal)
            mine = [(max(start, begin) - begin, min(stop, end) - begin) for start, stop in whole if start < end and begin < stop]
            stretches.append(tokens.before_normalizing(text, mine))
            begin = end
        return cls(texts, stretches)


def _overlapping(offsets: Sequence[Stretch], stretches: Sequence[Stretch]) -> Iterator[int]:
    """Yield the numbers of the tokens that have a character of a stretch; both are in order."""
    for number, (start, stop) in enumerate(offsets) if stretches else ():
        nearest = bisect.bisect_right(stretches, start, key=lambda stretch: stretch[1])
        if nearest < len(stretches) and stretches[nearest][0] < stop:
            yield number
