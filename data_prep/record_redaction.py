"""Secrets and personal data of a record replaced in all of its texts at once, so that one secret has one surrogate throughout.

Pure, but for a model of names that is loaded once. In: a `Record` and the rules. Out: the record with surrogates and the names of the
repairs, or a reason to drop it. Texts are all strings of its row: also tools, names, addresses and paths. Documents of tokenizers with
StarCoder2's placeholders get those as parts of their own; all other texts get surrogates of the same type, since plain text never becomes
a control token.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from data_prep.detect import Detector, Span
from data_prep.record_texts import labels_of, texts_of, with_labels, with_texts
from data_prep.redact import PLACEHOLDERS, Redacted, SecretRules, applied, redact
from data_prep.secret_kinds import label_of
from starchat.dialogue import Part, Record

if TYPE_CHECKING:
    from data_prep.names import NameModel

JOINT = "\n\0\n"
"""Between the texts of a record while they are one: no text holds NUL, and hardly a pattern crosses lines."""


class RedactedRecord(NamedTuple):
    """A record without secrets, the repairs by name, and the strings that stand for what was taken out."""

    record: Record
    repairs: tuple[str, ...] = ()
    placeholders: tuple[str, ...] = ()


def redacted_record(record: Record, rules: SecretRules) -> RedactedRecord | tuple[str, str]:
    """Return a record without the secrets of the rules, or why it is dropped."""
    texts = [*texts_of(record), *labels_of(record)]
    whole = JOINT.join(texts)
    rules = rules if record.parts else dataclasses.replace(rules, style="text")
    names = _names_of(rules)
    done = applied(whole, rules, names)
    if isinstance(done, Span):
        return f"secret_{done.kind}", f"at character {done.start + 1} of {len(whole)}"
    if not done.replacements:
        return RedactedRecord(record)
    repairs = tuple(dict.fromkeys(f"redacted_{replacement.kind}" for replacement in done.replacements))
    pieces = done.text.split(JOINT)
    if len(pieces) != len(texts):  # a find crossed from one text into the next
        return _rebuilt(record, [_redacted(text, rules, names) for text in texts], repairs)
    each, position = [], 0
    for piece in pieces:
        inside = [found for found in done.replacements if position <= found.start and found.end <= position + len(piece)]
        each.append(Redacted(piece, tuple(found._replace(start=found.start - position, end=found.end - position) for found in inside)))
        position += len(piece) + len(JOINT)
    return _rebuilt(record, each, repairs)


def redacted_text(text: str, rules: SecretRules) -> str:
    """Return the text of something that was dropped without any secret of the rules, also of the kinds for which records are dropped."""
    wider = dataclasses.replace(rules, redact=(*rules.redact, *rules.drop), style="text")
    return _redacted(text, wider, _names_of(rules)).text


def _redacted(text: str, rules: SecretRules, names: NameModel | None) -> Redacted:
    return redact(text, Detector(rules.redact), rules.style, names.find(text, rules.min_name_score) if names else ())


def _rebuilt(record: Record, each: Sequence[Redacted], repairs: tuple[str, ...]) -> RedactedRecord:
    placeholders = sorted({text[found.start : found.end] for text, replacements in each for found in replacements})
    texts = iter(one.text for one in each)
    size = len(texts_of(record))
    redacted = with_labels(with_texts(record, itertools.islice(texts, size)), texts)
    if record.parts:
        of_parts = each[size - len(record.parts) : size]
        parts = [piece for part, one in zip(record.parts, of_parts, strict=True) for piece in _parts(part.marker, one)]
        redacted = dataclasses.replace(redacted, parts=tuple(parts))
    markers = set(PLACEHOLDERS.values())
    return RedactedRecord(redacted, repairs, tuple(shown for shown in placeholders if shown not in markers))


def _parts(marker: str, redacted: Redacted) -> list[Part]:
    """Return a part of a document, cut at StarCoder2's placeholders, each of which becomes the marker of what stands behind it."""
    parts, position = [], 0
    for found in redacted.replacements:
        shown = redacted.text[found.start : found.end]
        if shown == PLACEHOLDERS.get(label_of(found.kind)):
            parts.append(Part(marker, redacted.text[position : found.start]))
            marker, position = shown, found.end
    return [*parts, Part(marker, redacted.text[position:])]


def _names_of(rules: SecretRules) -> NameModel | None:
    return None if rules.names is None else _loaded(rules.names)


@functools.lru_cache(1)
def _loaded(model: str) -> NameModel:
    from data_prep.names import load_names

    return load_names(model)
