"""Documents to rows, for pretraining: cut into windows at line ends, permuted for fill-in-the-middle.

In: records with `parts`. Out: rows in which every token but the first is trained, and but those of placeholders. Imports no torch.

A document longer than the maximum becomes several windows, each with the base model's beginning token, if it has one. A file has its
name and the like before each window; a document of many parts (an issue, a notebook, a repository) goes on in the next window where it
was cut, between parts if it can be, but not between a file and its name. Inside a part a window ends behind a line end where there is
one. The last window ends with the end-of-text token. Every window is encoded again by itself, as its row will be, and is split once more
if that made it too long: the ids at a cut are not those that the whole document has there. No row is ever cut.

No cut falls inside a placeholder: it moves to the placeholder's beginning. A token of redaction (`starchat.placeholders`) and the text
behind it go on with the part that they interrupt, which windows and fill-in-the-middle treat as one text. A document that has a window
with nothing to train, of placeholders alone, is set aside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding

from starchat.dialogue import Part, Record
from starchat.encode import Row, SetAside
from starchat.errors import UserError
from starchat.fim import NAMES, fim_tokens, permute, rng_for
from starchat.placeholders import (
    NOTHING,
    REDACTION_TOKENS,
    Redaction,
    Stretch,
    find_holes,
    keeping_whole,
    moved_out,
    redaction_of,
)
from starchat.recipe import Fim
from starchat.tokens import Tokens

FIM_RESERVE_TOKENS = 16
"""Room for three sentinels and what two cuts inside tokens add. A permuted window that needs more is left as it was."""

MIN_WINDOW_TOKENS = 16
"""A character can be twelve tokens: three code points after NFC, four bytes each."""

CHUNK_CHARACTERS = 2_000_000
"""An encoding with offsets takes some hundred bytes a token; a longer document is a chunk of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Draft:
    """A window before permutation: the parts of the document that it holds, and their ids. `goes_on`: it is the middle of some part.

    In `parts` the tokens of `redaction` are letters.
    """

    id: str
    place: str
    redaction: Redaction
    piece: int
    last: bool
    goes_on: bool
    parts: tuple[Part, ...]
    ids: list[int]


def encode_documents(
    records: Iterable[Record], tokens: Tokens, max_length_tokens: int, fim: Fim | None, seed: int
) -> Iterator[Row | SetAside]:
    """Yield the rows of documents, in order; at least one item for each record."""
    for chunk in _chunks(records):
        items = list(_drafts(chunk, tokens, max_length_tokens - (FIM_RESERVE_TOKENS if fim else 0)))
        rows = _rows([item for item in items if isinstance(item, _Draft)], tokens, max_length_tokens, fim, seed)
        made: list[Row] = []
        for item in items:
            if isinstance(item, SetAside):
                yield item
                continue
            made.append(next(rows))
            if item.last:
                yield from _unless_mute(item, made)
                made = []


def _unless_mute(draft: _Draft, rows: list[Row]) -> list[Row] | list[SetAside]:
    """Return the rows of a document, or the document set aside if one of them has no trained token."""
    if all(row.trained.any() for row in rows):
        return rows
    tokens, trained = sum(len(row.ids) for row in rows), sum(int(row.trained.sum()) for row in rows)
    return [SetAside(draft.id, "nothing_trained", draft.place, tokens, trained)]


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield consecutive records in groups of some `CHUNK_CHARACTERS`."""
    chunk: list[Record] = []
    characters = 0
    for record in records:
        chunk.append(record)
        characters += sum(len(part.text) for part in record.parts)
        if characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def is_file(parts: Sequence[Part]) -> bool:
    """Whether a document is one plain text behind names: these are then put before each of its windows."""
    return not parts[-1].marker and all(part.marker in NAMES for part in parts[:-1])


def _drafts(chunk: Sequence[Record], tokens: Tokens, capacity: int) -> Iterator[_Draft | SetAside]:
    """Yield the windows of documents, each at most `capacity` tokens with its beginning and the end-of-text token."""
    redactions = [redaction_of(record) for record in chunk]
    documents = [redaction.fold(record.parts) for record, redaction in zip(chunk, redactions, strict=True)]
    both = list(zip(documents, redactions, strict=True))
    fronts = iter(_encode([redaction.unfold(parts[:-1]) for parts, redaction in both if is_file(parts)], tokens))
    texts = [(part.text, redaction) for parts, redaction in both for part in (parts[-1:] if is_file(parts) else parts)]
    encoded = iter(_encode_folded(texts, tokens))
    for record, (folded, redaction) in zip(chunk, both, strict=True):
        if is_file(folded):
            windows = _windows_of_file(folded, next(fronts), next(encoded), tokens, capacity, redaction)
        else:
            windows = _windows_of_parts(folded, [next(encoded) for _ in folded], tokens, capacity, redaction)
        id, lead = record.id, 1 if tokens.bos else 0
        if not windows.fit or windows.total == lead + 1:
            reason = "nothing_trained" if windows.fit else "over_long"
            yield SetAside(id, reason, record.source.place, windows.total, windows.total - lead - 1)
            continue
        for piece, (parts, ids) in enumerate(windows.fit):
            goes_on = piece > 0 and not is_file(folded) and len(parts) == 1 and not parts[0].marker
            yield _Draft(id, record.source.place, redaction, piece, piece == len(windows.fit) - 1, goes_on, parts, ids)


class _Window(NamedTuple):
    """The ids of a window, without an end-of-text token, the parts that they encode, and the placeholders in their texts."""

    ids: list[int]
    parts: tuple[Part, ...]
    strings: tuple[str, ...]


class _Windows(NamedTuple):
    """The windows of a document, each its parts and their ids; none if it does not fit. `total` is the document's length in tokens."""

    fit: list[tuple[tuple[Part, ...], list[int]]]
    total: int


@dataclasses.dataclass(frozen=True)
class _Folded:
    """What `tokenizers.Encoding` gives of a text, of one in which letters stand for tokens."""

    ids: list[int]
    offsets: list[Stretch]

    def __len__(self) -> int:
        return len(self.ids)


def _encode_folded(texts: Sequence[tuple[str, Redaction]], tokens: Tokens) -> list[Encoding | _Folded]:
    """Return the ids and offsets of texts; a letter is its token, one character long."""
    split = [redaction.split(text) for text, redaction in texts]
    encoded = iter(tokens.encode_with_offsets([part.text for parts in split for part in parts]))
    return [_joined(parts, [next(encoded) for _ in parts], tokens) for parts in split]


def _joined(parts: Sequence[Part], encoded: Sequence[Encoding], tokens: Tokens) -> Encoding | _Folded:
    if len(parts) == 1:
        return encoded[0]
    ids: list[int] = []
    offsets: list[Stretch] = []
    at = 0
    for part, content in zip(parts, encoded, strict=True):
        if part.marker:
            ids += _marker_ids(part.marker, tokens)
            offsets.append((at, at + 1))
            at += 1
        ids += content.ids
        offsets += [(at + start, at + stop) for start, stop in content.offsets]
        at += len(part.text)
    return _Folded(ids, offsets)


def _windows_of_file(
    parts: tuple[Part, ...], front: list[int], content: Encoding | _Folded, tokens: Tokens, capacity: int, redaction: Redaction
) -> _Windows:
    last, room = parts[-1], capacity - len(front) - 1
    pieces = [(last.text, content.ids)] if len(content) <= room else _windows(last.text, content.offsets, tokens, room, redaction)
    return _Windows([((*parts[:-1], Part("", text)), [*front, *ids]) for text, ids in pieces], len(front) + len(content) + 1)


def _windows_of_parts(
    parts: tuple[Part, ...], encoded: Sequence[Encoding | _Folded], tokens: Tokens, capacity: int, redaction: Redaction
) -> _Windows:
    """Return the windows of a document of many parts: a part that fits into a window is not cut, and a file's names stand before it."""
    begin = [tokens.control[tokens.bos]] if tokens.bos else []
    total = len(begin) + 1 + sum(len(content) + bool(part.marker) for part, content in zip(parts, encoded, strict=True))
    room = capacity - len(begin) - 1
    windows: list[tuple[list[Part], list[int]]] = [([], [*begin])]
    names: list[Part] = []
    front: list[int] = []
    for part, content, after in zip(parts, encoded, [*parts[1:], None], strict=True):
        marked = [*front, *_marker_ids(part.marker, tokens)]
        is_front = part.marker in NAMES and after is not None and (not after.marker or after.marker in NAMES)
        if is_front and len(marked) + len(content) <= min(room // 2, room - MIN_WINDOW_TOKENS - 1):
            names, front = [*names, part], [*marked, *content.ids]
            continue
        cut = len(content) + len(marked) > room
        pieces = _windows(part.text, content.offsets, tokens, room - len(marked), redaction) if cut else [(part.text, content.ids)]
        if not pieces:
            return _Windows([], total)
        for number, (text, ids) in enumerate(pieces):
            added = [*(marked if number == 0 else ()), *ids]
            if number or len(windows[-1][1]) - len(begin) + len(added) > room:  # pieces of a part in one window would be permuted apart
                windows.append(([], [*begin]))
            windows[-1][0].extend([Part("", text)] if number else [*names, Part(part.marker, text)])
            windows[-1][1].extend(added)
        names, front = [], []
    return _Windows([(tuple(found), ids) for found, ids in windows], total)


def _marker_ids(marker: str, tokens: Tokens) -> list[int]:
    if not marker:
        return []
    if marker not in tokens.control:
        raise UserError(f"document marker {marker!r}: the tokenizer has no such token; build the documents for its family")
    return [tokens.control[marker]]


def _rows(drafts: Sequence[_Draft], tokens: Tokens, max_length_tokens: int, fim: Fim | None, seed: int) -> Iterator[Row]:
    """Yield the rows of windows, permuted where the draw says so and the permuted window fits."""
    encoded, parts = [draft.ids for draft in drafts], [draft.parts for draft in drafts]
    if fim is not None:
        permuted = [_permuted(draft, tokens, fim, seed) for draft in drafts]
        changed = [n for n, draft in enumerate(drafts) if permuted[n] != draft.parts]
        for n, ids in zip(changed, _encode([drafts[n].redaction.unfold(permuted[n]) for n in changed], tokens), strict=True):
            if len(ids) + 1 <= max_length_tokens:
                encoded[n], parts[n] = ids, permuted[n]
    marked = [n for n, draft in enumerate(drafts) if draft.redaction is not NOTHING]
    windows = [_Window(encoded[n], drafts[n].redaction.unfold(parts[n]), drafts[n].redaction.strings) for n in marked]
    holes = dict(zip(marked, _holes(windows, tokens), strict=True))
    for n, (draft, ids) in enumerate(zip(drafts, encoded, strict=True)):
        whole = [*ids, tokens.control[tokens.end_of_text]] if draft.last else ids
        assert 0 < len(whole) <= max_length_tokens, "windows are measured before they become rows"
        trained = np.ones(len(whole), dtype=np.bool_)
        trained[0] = False  # nothing in the row predicts it
        trained[holes.get(n, [])] = False
        yield Row(draft.id, np.array(whole, dtype=np.int32), trained, (), draft.piece)


def _permuted(draft: _Draft, tokens: Tokens, fim: Fim, seed: int) -> tuple[Part, ...]:
    if draft.goes_on:
        return draft.parts
    rng = rng_for(seed, f"{draft.id}:{draft.piece}", 0)
    return permute(draft.parts, rng, fim.rate, fim.spm_rate, fim_tokens(tokens.control), keeping_whole(draft.redaction, tokens))


def _holes(windows: Sequence[_Window], tokens: Tokens) -> list[list[int]]:
    """Return which tokens of windows are not trained, the first apart: those of redaction, and those that overlap a placeholder.

    A placeholder may go from one part into the next if no token stands between them.
    """
    lead, control = 1 if tokens.bos else 0, {*tokens.control.values()}
    redaction = {tokens.control[name] for name in REDACTION_TOKENS if name in tokens.control}
    asked, found, begins = [], [], []
    for window in windows:
        runs: list[list[str]] = [[]]
        for part in window.parts:
            runs += [[]] if part.marker else []
            runs[-1].append(part.text)
        marks = [at for at, id in enumerate(window.ids) if id in control and at >= lead]
        found.append([at for at in marks if window.ids[at] in redaction])
        begins.append([lead, *(at + 1 for at in marks)])
        asked += [(run, window.strings) for run in runs]
    holes = iter(find_holes(asked, tokens))
    return [[*marked, *(begin + n for begin in mine for n in next(holes))] for marked, mine in zip(found, begins, strict=True)]


def _encode(documents: Sequence[Sequence[Part]], tokens: Tokens) -> list[list[int]]:
    """Return the ids of documents; all texts go through the tokenizer in one batch."""
    texts = list(dict.fromkeys(part.text for parts in documents for part in parts if part.text))
    ids = dict(zip(texts, tokens.encode_texts(texts), strict=True))
    encoded = []
    for parts in documents:
        out = [tokens.control[tokens.bos]] if tokens.bos else []
        for part in parts:
            out.extend(_marker_ids(part.marker, tokens))
            out.extend(ids[part.text] if part.text else ())
        encoded.append(out)
    return encoded


def _windows(
    text: str, offsets: Sequence[Stretch], tokens: Tokens, room: int, redaction: Redaction = NOTHING
) -> list[tuple[str, list[int]]]:
    """Return consecutive pieces of `text` with their ids, each of at most `room` tokens; none if that cannot be."""
    if room < MIN_WINDOW_TOKENS:
        return []
    whole = keeping_whole(redaction, tokens)
    pieces = list(_cut(text, offsets, room, whole(text) if whole else ()))
    while True:
        encoded = _encode_folded([(piece, redaction) for piece in pieces], tokens)
        if all(len(encoding) <= room for encoding in encoded):
            return [(piece, encoding.ids) for piece, encoding in zip(pieces, encoded, strict=True)]
        finer = [
            part
            for piece, encoding in zip(pieces, encoded, strict=True)
            for part in (_cut(piece, encoding.offsets, room, whole(piece) if whole else ()) if len(encoding) > room else [piece])
        ]
        if len(finer) == len(pieces):
            return []
        pieces = finer


def _cut(text: str, offsets: Sequence[Stretch], room: int, whole: Sequence[Stretch]) -> Iterator[str]:
    """Yield consecutive pieces of `text` with about `room` of its tokens each, cut behind line ends, and not inside of `whole`."""
    start = first = 0
    while len(offsets) - first > room:
        limit = offsets[first + room][0]
        newline = text.rfind("\n", start, limit)
        cut = moved_out(newline + 1, whole) if newline > start else start
        if cut <= start:
            cut = moved_out(limit, whole)
        if cut <= start:
            break
        yield text[start:cut]
        start = cut
        while first < len(offsets) and offsets[first][0] < start:
            first += 1
    if start < len(text):
        yield text[start:]
