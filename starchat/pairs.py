"""Pairs of answers to rows: each pair two rows, the chosen before the rejected, with one prompt.

In: records of kind ``pair`` and `Tokens`. Out: rows in twos, or two `SetAside`: a pair is never cut, split or parted. Imports no torch.

Each side is encoded as the dialogue that it is, by the one encoder, with its last turn alone trained. So the prompt is a token prefix
of both, and what holds of a dialogue's row (`starchat.detect_dialogues`) can be shown of each side.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator

from starchat.batches import batched
from starchat.dialogue import Record, Turn
from starchat.encode import Row, SetAside, encode_dialogues
from starchat.errors import UserError
from starchat.recipe import Recipe
from starchat.tokens import Tokens

CHUNK_PAIRS = 1000


def sides(pair: Record) -> tuple[Record, Record]:
    """Return the chosen and the rejected dialogue of a pair; only their last turns are trained.

    >>> from starchat.dialogue import Source
    >>> pair = Record(Source("a.jsonl:1"), turns=(Turn("user", "2+2?"), Turn("assistant", "4")), rejected=Turn("assistant", "5"))
    >>> [side.turns[-1].content for side in sides(pair)]
    ['4', '5']
    """
    assert pair.rejected is not None, "a pair has a rejected answer"
    prompt = tuple(_with_training(turn, False) for turn in pair.turns[:-1])
    chosen, rejected = ((*prompt, _with_training(answer, True)) for answer in (pair.turns[-1], pair.rejected))
    return dataclasses.replace(pair, turns=chosen, rejected=None), dataclasses.replace(pair, turns=rejected, rejected=None)


def encode_pairs(records: Iterable[Record], tokens: Tokens, max_length_tokens: int) -> Iterator[Row | SetAside]:
    """Yield two items for each pair, in order: the rows of its sides, or both set aside as ``over_long`` where one of them is."""
    for chunk in batched(records, CHUNK_PAIRS):
        both = [side for record in chunk for side in sides(record)]
        rows = list(encode_dialogues(both, tokens, sys.maxsize))
        for number in range(0, len(both), 2):
            two = rows[number : number + 2]
            if all(isinstance(row, Row) and len(row.ids) <= max_length_tokens for row in two):
                yield from two
            else:
                yield from (_set_aside(row, both[number].source.place) for row in two)


def require_chat_tokens(recipe: Recipe, tokens: Tokens) -> None:
    """Raise `UserError` if the model does not know the template's tokens: then nothing was trained that could be preferred."""
    if tokens.new:
        raise UserError(
            f"template: {recipe.template}: {', '.join(tokens.new)} are new to model {recipe.model}; kind: dpo begins with a model that "
            "chats; train kind: sft first and give its run as model, or name the template that the model has"
        )


def _with_training(turn: Turn, train: bool) -> Turn:
    return dataclasses.replace(turn, train=train) if turn.role == "assistant" else turn


def _set_aside(row: Row | SetAside, place: str) -> SetAside:
    return row if isinstance(row, SetAside) else SetAside(row.id, "over_long", place, len(row.ids), int(row.trained.sum()))
