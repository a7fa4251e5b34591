"""Documents to rows, for pretraining: cut into windows at line ends, permuted for fill-in-the-middle.

In: records with `parts`. Out: rows in which every token but the first is trained. Imports no torch.

A document longer than the maximum becomes several windows, each with the base model's beginning token, if it has one. A file has its
name and the like before each window; a document of many parts (an issue, a notebook, a repository) goes on in the next window where it
was cut, between parts if it can be, but not between a file and its name. Inside a part a window ends behind a line end where there is
one. The last window ends with the end-of-text token. Every window is encoded again by itself, as its row will be, and is split once more
if that made it too long: the ids at a cut are not those that the whole document has there. No row is ever cut.
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
    """A window before permutation: the parts of the document that it holds, and their ids. `goes_on`: it is the middle of some part."""

    id: str
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
        for item in items:
            yield next(rows) if isinstance(item, _Draft) else item


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
    fronts = iter(_encode([record.parts[:-1] for record in chunk if is_file(record.parts)], tokens))
    texts = [part.text for record in chunk for part in (record.parts[-1:] if is_file(record.parts) else record.parts)]
    encoded = iter(tokens.encode_with_offsets(texts))
    for record in chunk:
        if is_file(record.parts):
            windows = _windows_of_file(record.parts, next(fronts), next(encoded), tokens, capacity)
        else:
            windows = _windows_of_parts(record.parts, [next(encoded) for _ in record.parts], tokens, capacity)
        id, lead = record.id, 1 if tokens.bos else 0
        if not windows.fit or windows.total == lead + 1:
            reason = "nothing_trained" if windows.fit else "over_long"
            yield SetAside(id, reason, record.source.place, windows.total, windows.total - lead - 1)
            continue
        for piece, (parts, ids) in enumerate(windows.fit):
            goes_on = piece > 0 and not is_file(record.parts) and len(parts) == 1 and not parts[0].marker
            yield _Draft(id, piece, piece == len(windows.fit) - 1, goes_on, parts, ids)


class _Windows(NamedTuple):
    """The windows of a document, each its parts and their ids; none if it does not fit. `total` is the document's length in tokens."""

    fit: list[tuple[tuple[Part, ...], list[int]]]
    total: int


def _windows_of_file(parts: tuple[Part, ...], front: list[int], content: Encoding, tokens: Tokens, capacity: int) -> _Windows:
    last, room = parts[-1], capacity - len(front) - 1
    pieces = [(last.text, content.ids)] if len(content) <= room else _windows(last.text, content.offsets, tokens, room)
    return _Windows([((*parts[:-1], Part("", text)), [*front, *ids]) for text, ids in pieces], len(front) + len(content) + 1)


def _windows_of_parts(parts: tuple[Part, ...], encoded: Sequence[Encoding], tokens: Tokens, capacity: int) -> _Windows:
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
        pieces = _windows(part.text, content.offsets, tokens, room - len(marked)) if cut else [(part.text, content.ids)]
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
    encoded = [draft.ids for draft in drafts]
    if fim is not None:
        sentinels = fim_tokens(tokens.control)
        permuted = [
            d.parts if d.goes_on else permute(d.parts, rng_for(seed, f"{d.id}:{d.piece}", 0), fim.rate, fim.spm_rate, sentinels)
            for d in drafts
        ]
        changed = [n for n, parts in enumerate(permuted) if parts != drafts[n].parts]
        for n, ids in zip(changed, _encode([permuted[n] for n in changed], tokens), strict=True):
            if len(ids) + 1 <= max_length_tokens:
                encoded[n] = ids
    for draft, ids in zip(drafts, encoded, strict=True):
        whole = [*ids, tokens.control[tokens.end_of_text]] if draft.last else ids
        assert 0 < len(whole) <= max_length_tokens, "windows are measured before they become rows"
        trained = np.ones(len(whole), dtype=np.bool_)
        trained[0] = False  # nothing in the row predicts it
        yield Row(draft.id, np.array(whole, dtype=np.int32), trained, (), draft.piece)


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


def _windows(text: str, offsets: Sequence[tuple[int, int]], tokens: Tokens, room: int) -> list[tuple[str, list[int]]]:
    """Return consecutive pieces of `text` with their ids, each of at most `room` tokens; none if that cannot be."""
    if room < MIN_WINDOW_TOKENS:
        return []
    pieces = list(_cut(text, offsets, room))
    while True:
        encoded = tokens.encode_with_offsets(pieces)
        if all(len(encoding) <= room for encoding in encoded):
            return [(piece, encoding.ids) for piece, encoding in zip(pieces, encoded, strict=True)]
        finer = [
            part
            for piece, encoding in zip(pieces, encoded, strict=True)
            for part in (_cut(piece, encoding.offsets, room) if len(encoding) > room else [piece])
        ]
        if len(finer) == len(pieces):
            return []
        pieces = finer


def _cut(text: str, offsets: Sequence[tuple[int, int]], room: int) -> Iterator[str]:
    """Yield consecutive pieces of `text` with about `room` of its tokens each, cut behind line ends."""
    start = first = 0
    while len(offsets) - first > room:
        limit = offsets[first + room][0]
        newline = text.rfind("\n", start, limit)
        cut = newline + 1 if newline > start else limit
        if cut <= start:
            break
        yield text[start:cut]
        start = cut
        while first < len(offsets) and offsets[first][0] < start:
            first += 1
    if start < len(text):
        yield text[start:]
