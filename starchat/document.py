"""Documents to rows, for pretraining: cut into windows at line ends, permuted for fill-in-the-middle.

In: records with `parts`. Out: rows in which every token but the first is trained. Imports no torch.

A document longer than the maximum becomes several windows, each with the document's leading parts (file name and the
like) before it; a window ends behind a line end where there is one. The last window ends with the end-of-text token.
Every window is encoded again by itself, as its row will be, and is split once more if that made it too long: the ids at a
cut are not those that the whole document has there. No row is ever cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from starchat.dialogue import Part, Record
from starchat.encode import Row, SetAside, batched
from starchat.errors import UserError
from starchat.fim import fim_tokens, permute, rng_for
from starchat.recipe import Fim
from starchat.tokens import Tokens

FIM_RESERVE_TOKENS = 16
"""Room for three sentinels and what two cuts inside tokens add. A permuted window that needs more is left as it was."""

MIN_WINDOW_TOKENS = 16
"""A character can be twelve tokens: three code points after NFC, four bytes each."""

CHUNK_RECORDS = 200


def encode_documents(records: Iterable[Record], tokens: Tokens, max_length_tokens: int, fim: Fim | None, seed: int) -> Iterator[Row | SetAside]:
    """Yield the rows of documents, in order; at least one item for each record."""
    reserve = FIM_RESERVE_TOKENS if fim else 0
    for chunk in batched(records, CHUNK_RECORDS):
        leads = _encode([record.parts[:-1] for record in chunk], tokens)
        rooms = [max_length_tokens - len(lead) - bool(r.parts[-1].marker) - 1 - reserve for r, lead in zip(chunk, leads, strict=True)]
        texts = [record.parts[-1].text for record in chunk]
        contents = tokens.encode_texts(texts)
        windows = [
            [text] if len(ids) <= room else _windows(text, tokens, room)
            for text, ids, room in zip(texts, contents, rooms, strict=True)
        ]
        rows = _rows(chunk, windows, tokens, max_length_tokens, fim, seed)
        for record, pieces, lead, content in zip(chunk, windows, leads, contents, strict=True):
            total = len(lead) + bool(record.parts[-1].marker) + len(content) + 1
            if not pieces or total == 1:
                yield SetAside(record.id, "over_long" if not pieces else "nothing_trained", record.source.place, total, total - 1)
                continue
            for _ in pieces:
                yield next(rows)


def _rows(
    chunk: Sequence[Record], windows: Sequence[Sequence[str]], tokens: Tokens, max_length_tokens: int, fim: Fim | None, seed: int
) -> Iterator[Row]:
    """Yield the rows of all windows of a chunk, permuted where the draw says so and the permuted window fits."""
    drafts = [(r, piece, len(texts), (*r.parts[:-1], Part(r.parts[-1].marker, text))) for r, texts in zip(chunk, windows, strict=True) for piece, text in enumerate(texts)]
    drafts = [d for d in drafts if any(part.marker or part.text for part in d[3])]
    plain = [parts for *_, parts in drafts]
    encoded = _encode(plain, tokens)
    if fim is not None:
        sentinels = fim_tokens(tokens.control)
        permuted = [permute(parts, rng_for(seed, f"{r.id}:{piece}", 0), fim.rate, fim.spm_rate, sentinels) for r, piece, _, parts in drafts]
        changed = [n for n, parts in enumerate(permuted) if parts != plain[n]]
        for n, ids in zip(changed, _encode([permuted[n] for n in changed], tokens), strict=True):
            if len(ids) + 1 <= max_length_tokens:
                encoded[n] = ids
    for (record, piece, pieces, _), ids in zip(drafts, encoded, strict=True):
        if piece == pieces - 1:
            ids = [*ids, tokens.control[tokens.end_of_text]]
        assert len(ids) <= max_length_tokens, "windows are measured before they become rows"
        trained = np.ones(len(ids), dtype=np.bool_)
        trained[0] = False  # nothing in the row predicts it
        yield Row(record.id, np.array(ids, dtype=np.int32), trained, (), piece)


def _encode(documents: Sequence[Sequence[Part]], tokens: Tokens) -> list[list[int]]:
    """Return the ids of documents; all texts go through the tokenizer in one batch."""
    texts = list(dict.fromkeys(part.text for parts in documents for part in parts if part.text))
    ids = dict(zip(texts, tokens.encode_texts(texts), strict=True))
    encoded = []
    for parts in documents:
        out: list[int] = []
        for part in parts:
            if part.marker:
                if part.marker not in tokens.control:
                    raise UserError(f"document marker {part.marker!r}: the tokenizer has no such token; build the documents for its family")
                out.append(tokens.control[part.marker])
            out.extend(ids[part.text] if part.text else ())
        encoded.append(out)
    return encoded


def _windows(text: str, tokens: Tokens, room: int) -> list[str]:
    """Return consecutive pieces of `text`, each of at most `room` tokens when encoded by itself; none if that cannot be."""
    if room < MIN_WINDOW_TOKENS:
        return []
    waiting, done = [text], []
    while waiting:
        cut = [piece for part in waiting for piece in _cut(part, tokens, room)]
        sizes = [len(ids) for ids in tokens.encode_texts(cut)]
        if len(cut) == len(waiting) and max(sizes) > room:
            return []
        # A piece that is too long when encoded by itself goes round again. Order is kept: all pieces do.
        waiting = cut if max(sizes) > room else []
        done = cut
    return done


def _cut(text: str, tokens: Tokens, room: int) -> Iterator[str]:
    """Yield consecutive pieces of `text` with about `room` of its tokens each, cut behind line ends."""
    offsets = tokens.plain.encode(text, add_special_tokens=False).offsets
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
    yield text[start:]
