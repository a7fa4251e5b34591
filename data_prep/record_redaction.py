"""Secrets and personal data of a record replaced in all of its texts at once, so that one secret has one surrogate throughout.

Pure, but for a model of names that is loaded once. In: a `Record` and the rules. Out: the record with surrogates and the names of the
repairs, or a reason to drop it. Documents of tokenizers with StarCoder2's placeholders get those as parts of their own; all other texts
get surrogates of the same type, since plain text never becomes a control token.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from data_prep.detect import Detector, Span
from data_prep.record_texts import texts_of, with_texts
from data_prep.redact import PLACEHOLDERS, Redacted, SecretRules, applied, redact
from data_prep.secret_kinds import label_of
from starchat.dialogue import Part, Record

JOINT = "\n\0\n"
"""Between the texts of a record while they are one: no text holds NUL, and hardly a pattern crosses lines."""


class RedactedRecord(NamedTuple):
    """A record without secrets, the repairs by name, and the strings that stand for what was taken out."""

    record: Record
    repairs: tuple[str, ...] = ()
    placeholders: tuple[str, ...] = ()


def redacted_record(record: Record, rules: SecretRules) -> RedactedRecord | tuple[str, str]:
    """Return a record without the secrets of the rules, or why it is dropped."""
    texts = texts_of(record)
    whole = JOINT.join(texts)
    rules = rules if record.parts else dataclasses.replace(rules, style="text")
    names = None if rules.names is None else _names(rules.names)
    done = applied(whole, rules, names)
    if isinstance(done, Span):
        return f"secret_{done.kind}", f"at character {done.start + 1} of {len(whole)}"
    if not done.replacements:
        return RedactedRecord(record)
    repairs = tuple(dict.fromkeys(f"redacted_{replacement.kind}" for replacement in done.replacements))
    pieces = done.text.split(JOINT)
    if len(pieces) != len(texts):  # a find crossed from one text into the next
        each = [redact(text, Detector(rules.redact), rules.style) for text in texts]
        return _rebuilt(record, each, repairs)
    starts, position = [], 0
    for piece in pieces:
        starts.append(position)
        position += len(piece) + len(JOINT)
    each = []
    for start, piece in zip(starts, pieces, strict=True):
        inside = [found for found in done.replacements if start <= found.start and found.end <= start + len(piece)]
        each.append(Redacted(piece, tuple(found._replace(start=found.start - start, end=found.end - start) for found in inside)))
    return _rebuilt(record, each, repairs)


def _rebuilt(record: Record, each: Sequence[Redacted], repairs: tuple[str, ...]) -> RedactedRecord:
    placeholders = sorted({text[found.start : found.end] for text, replacements in each for found in replacements})
    if not record.parts:
        return RedactedRecord(with_texts(record, (one.text for one in each)), repairs, tuple(placeholders))
    parts = [piece for part, one in zip(record.parts, each, strict=True) for piece in _parts(part.marker, one)]
    markers = set(PLACEHOLDERS.values())
    return RedactedRecord(dataclasses.replace(record, parts=tuple(parts)), repairs, tuple(p for p in placeholders if p not in markers))


def _parts(marker: str, redacted: Redacted) -> list[Part]:
    """Return a part of a document, cut at StarCoder2's placeholders, each of which becomes the marker of what stands behind it."""
    parts, position = [], 0
    for found in redacted.replacements:
        shown = redacted.text[found.start : found.end]
        if shown == PLACEHOLDERS.get(label_of(found.kind)):
            parts.append(Part(marker, redacted.text[position : found.start]))
            marker, position = shown, found.end
    return [*parts, Part(marker, redacted.text[position:])]


@functools.lru_cache(1)
def _names(model: str) -> Any:
    from data_prep.names import load_names

    return load_names(model)
