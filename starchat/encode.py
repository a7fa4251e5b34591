"""Records to rows of token ids with a trained flag for each; over-long dialogues are split at turns.

In: records and `Tokens`. Out: `Row`, or `SetAside` with a reason: nothing disappears. Imports no torch.

A turn's ids do not depend on its neighbours, so a row is the concatenation of its turns. A dialogue over the
maximum is split before user turns. Each piece starts with the system turn, repeats as much of the exchange before
it as fits into half the maximum (not trained again), and trains turns that no other piece trains. One exchange
that is too long by itself is set aside. Of a trained turn, tokens that overlap a placeholder of its record are not trained;
its end token is.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from starchat.batches import batched
from starchat.dialogue import Record, Turn
from starchat.placeholders import find_holes
from starchat.template import Segment, prompt_segments, turn_segments, with_tools
from starchat.tokens import Tokens

IGNORED = -100
"""The label that the loss skips (torch's default ``ignore_index``)."""

CHUNK_RECORDS = 500

CHUNKS_AHEAD = 2
"""Chunks that wait for the tokenizer or for their assembly; with one, the tokenizer would wait while a chunk is assembled."""


class Span(NamedTuple):
    """Where a turn lies in a row: header from `start`, content from `content`, end token before `stop`."""

    role: str
    start: int
    content: int
    stop: int
    trained: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """An encoded example: `ids` (tokens,) int32 and `trained` (tokens,) bool.

    `piece` counts the pieces of a split record. `first_turn` is the number of the turn that the row begins with, behind the
    system turn; the turns follow each other without a gap.
    """

    id: str
    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    spans: tuple[Span, ...] = ()
    piece: int = 0
    first_turn: int = 0

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Return `ids` where trained, `IGNORED` elsewhere, (tokens,)."""
        return np.where(self.trained, self.ids, np.int32(IGNORED))


@dataclasses.dataclass(frozen=True, slots=True)
class SetAside:
    """What could not be encoded: ``over_long`` (an exchange above the maximum) or ``nothing_trained``."""

    id: str
    reason: str
    place: str
    tokens: int
    trained_tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Begun:
    """Records whose texts are being tokenized."""

    records: Sequence[Record]
    rendered: list[list[tuple[str, list[Segment]]]]  # for each record, role and segments of its turns
    texts: list[str]
    ids: Future[list[list[int]]]


class _EncodedTurn(NamedTuple):
    role: str
    ids: list[int]
    content: int
    trained_from: int  # the range of ids that is trained; empty if the turn is not
    trained_to: int
    tail: int  # ids behind the end token
    holes: Sequence[int] = ()  # ids in that range that are not trained

    @property
    def trained_tokens(self) -> int:
        return self.trained_to - self.trained_from - len(self.holes)


def encode_dialogues(records: Iterable[Record], tokens: Tokens, max_length_tokens: int) -> Iterator[Row | SetAside]:
    """Yield the rows of dialogues, in order; at least one item for each record."""
    with ThreadPoolExecutor(1) as tokenizer:  # tokenizes while this thread reads the next records and assembles the last ones
        begun: collections.deque[_Begun] = collections.deque()
        for chunk in batched(records, CHUNK_RECORDS):
            begun.append(_begin(chunk, tokens, tokenizer))
            if len(begun) > CHUNKS_AHEAD:
                yield from _finish(begun.popleft(), tokens, max_length_tokens)
        while begun:
            yield from _finish(begun.popleft(), tokens, max_length_tokens)


def encode_prompt(turns: Sequence[Turn], tokens: Tokens, tools: str | None = None) -> list[int]:
    """Return the ids that ask for a reply to `turns`: a token prefix of the row that has the reply."""
    return encode_prompts([with_tools(turns, tools)], tokens)[0]


def encode_prompts(dialogues: Sequence[Sequence[Turn]], tokens: Tokens) -> list[list[int]]:
    """Return `encode_prompt` of many dialogues, whose tools are in their system turns already; each text is encoded once."""
    template = tokens.template
    assert template is not None, "a prompt needs a template"
    asked = [[*(s for turn in turns for s in turn_segments(template, turn)), *prompt_segments(template)] for turns in dialogues]
    texts = list(dict.fromkeys(s.text for segments in asked for s in segments if not s.control))
    ids = dict(zip(texts, tokens.encode_texts(texts), strict=True))
    lead = [tokens.control[tokens.bos]] if tokens.bos else []
    return [[*lead, *(i for s in segments for i in ([tokens.control[s.text]] if s.control else ids[s.text]))] for segments in asked]


def _begin(chunk: Sequence[Record], tokens: Tokens, tokenizer: Executor) -> _Begun:
    """Render a chunk's dialogues and hand all their texts, each once, to the tokenizer in one batch."""
    template = tokens.template
    assert template is not None, "dialogues need a template"
    rendered = [
        [(turn.role, turn_segments(template, turn, n)) for n, turn in enumerate(with_tools(record.turns, record.tools))] for record in chunk
    ]
    texts = list(dict.fromkeys([s.text for turns in rendered for _, segments in turns for s in segments if not s.control]))
    return _Begun(chunk, rendered, texts, tokenizer.submit(tokens.encode_texts, texts))


def _finish(begun: _Begun, tokens: Tokens, max_length_tokens: int) -> Iterator[Row | SetAside]:
    ids = dict(zip(begun.texts, begun.ids.result(), strict=True))
    holes = _holes(begun, tokens)
    for number, (record, turns) in enumerate(zip(begun.records, begun.rendered, strict=True)):
        encoded = [_encode_turn(role, segments, tokens, ids) for role, segments in turns]
        for turn, found in holes.get(number, ()):
            encoded[turn] = encoded[turn]._replace(holes=[encoded[turn].content + hole for hole in found])
        yield from _assemble(record, encoded, tokens, max_length_tokens)


def _holes(begun: _Begun, tokens: Tokens) -> dict[int, list[tuple[int, list[int]]]]:
    """Return, for each record with placeholders, its trained turns and which tokens of their content are not trained."""
    asked = [
        (number, segment.turn, [segment.text], record.placeholders)
        for number, record in enumerate(begun.records)
        if record.placeholders
        for _, segments in begun.rendered[number]
        for segment in segments
        if segment.trained and not segment.control
    ]
    found: dict[int, list[tuple[int, list[int]]]] = {}
    for (number, turn, _, _), holes in zip(asked, find_holes([(texts, strings) for _, _, texts, strings in asked], tokens), strict=True):
        found.setdefault(number, []).append((turn, holes))
    return found


def _encode_turn(role: str, segments: Sequence[Segment], tokens: Tokens, ids: dict[str, list[int]]) -> _EncodedTurn:
    assert tokens.template is not None
    out: list[int] = []
    header = 2 if tokens.template.marker(role)[1] else 1
    content = trained_from = trained_to = end = 0
    for number, (text, control, trained, _) in enumerate(segments):
        if number == header:
            content = len(out)
        if trained and not trained_to:
            trained_from = len(out)
        if control:
            out.append(tokens.control[text])
        else:
            out.extend(ids[text])
        if trained:
            trained_to = len(out)
        if control and number >= header:
            end = len(out)
    return _EncodedTurn(role, out, content, trained_from, trained_to, len(out) - end)


def _assemble(record: Record, turns: Sequence[_EncodedTurn], tokens: Tokens, max_length_tokens: int) -> Iterator[Row | SetAside]:
    lead = [tokens.control[tokens.bos]] if tokens.bos else []
    total = len(lead) + sum(len(turn.ids) for turn in turns)
    trained = sum(turn.trained_tokens for turn in turns)
    if not trained:
        yield SetAside(record.id, "nothing_trained", record.source.place, total, 0)
    elif total <= max_length_tokens:
        yield _row(record.id, lead, turns)
    else:
        yield from _split(record, lead, turns, max_length_tokens)


def _row(id: str, lead: Sequence[int], turns: Sequence[_EncodedTurn], context: int = 0, piece: int = 0, skipped: int = 0) -> Row:
    """Return the row of `turns`, the first `context` of which are not trained; `skipped` turns lie before them, behind the system turn."""
    ids, spans, ranges, holes = list(lead), [], [], []
    for number, turn in enumerate(turns):
        start = len(ids)
        trained = turn.trained_to > turn.trained_from and number >= context
        if trained:
            ranges.append((start + turn.trained_from, start + turn.trained_to))
            holes += [start + hole for hole in turn.holes]
        ids.extend(turn.ids)
        spans.append(Span(turn.role, start, start + turn.content, len(ids) - turn.tail, trained))
    mask = np.zeros(len(ids), dtype=np.bool_)
    for start, stop in ranges:
        mask[start:stop] = True
    mask[holes] = False
    first_turn = skipped + (turns[0].role == "system")
    return Row(id, np.array(ids, dtype=np.int32), mask, tuple(spans), piece, first_turn)


def _split(record: Record, lead: Sequence[int], turns: Sequence[_EncodedTurn], max_length_tokens: int) -> Iterator[Row | SetAside]:
    system = list(turns[:1]) if turns[0].role == "system" else []
    base = len(lead) + sum(len(t.ids) for t in system)
    exchanges = _exchanges(turns[len(system) :])
    sizes = [sum(len(t.ids) for t in exchange) for exchange in exchanges]
    start = piece = 0
    while start < len(exchanges):
        if base + sizes[start] > max_length_tokens:
            lost = sum(t.trained_tokens for t in exchanges[start])
            yield SetAside(record.id, "over_long", record.source.place, base + sizes[start], lost)
            start += 1
            continue
        first, used = start, base + sizes[start]
        while first > 0 and used + sizes[first - 1] <= max_length_tokens // 2:
            first -= 1
            used += sizes[first]
        stop = start + 1
        while stop < len(exchanges) and used + sizes[stop] <= max_length_tokens:
            used += sizes[stop]
            stop += 1
        context = len(system) + sum(len(e) for e in exchanges[first:start])
        skipped = sum(len(e) for e in exchanges[:first])
        row = _row(record.id, lead, [*system, *(t for e in exchanges[first:stop] for t in e)], context, piece, skipped)
        if row.trained.any():
            yield row
            piece += 1
        start = stop


def _exchanges(turns: Sequence[_EncodedTurn]) -> list[list[_EncodedTurn]]:
    """Return turns grouped so that each group but perhaps the first begins with a user turn."""
    groups: list[list[_EncodedTurn]] = []
    for turn in turns:
        if turn.role == "user" or not groups:
            groups.append([])
        groups[-1].append(turn)
    return groups
