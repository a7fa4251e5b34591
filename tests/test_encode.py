"""Laws 1, 3 and 5 on hostile dialogues: what is trained, what a prompt is, and that nothing is cut in silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import FAMILIES, dialogues
from starchat.dialogue import Record, Source, Turn
from starchat.encode import Row, SetAside, encode_dialogues, encode_prompt, encode_prompts
from starchat.errors import UserError
from starchat.template import TEMPLATES, find_template, prompt_segments, turn_segments, turn_text, with_tools

KEYS = [(family, template) for family in FAMILIES for template in TEMPLATES]


def runs(row):
    """Return the consecutive stretches of trained ids."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.trained.astype(np.int8), [0]])))
    return [row.ids[a:b].tolist() for a, b in zip(edges[::2], edges[1::2], strict=True)]


def answers(record, tokens):
    """Return what law 1 wants trained, from the record alone."""
    return [tokens.normalize(turn_text(turn)) + tokens.end for turn in with_tools(record.turns, record.tools) if turn.trained]


@pytest.mark.parametrize("key", KEYS)
def test_trained_are_the_answers_and_nothing_else(all_tokens, key):
    tokens = all_tokens[key]

    @given(dialogues())
    @settings(max_examples=40, deadline=None)
    def check(record):
        (row,) = encode_dialogues([record], tokens, 100_000)
        assert tokens.decode_texts(runs(row)) == answers(record, tokens)
        control = {*tokens.control.values()}
        assert all(run[-1] == tokens.control[tokens.end] and not control & {*run[:-1]} for run in runs(row))
        assert not row.trained[0]

    check()


@pytest.mark.parametrize("key", KEYS)
def test_prompt_is_a_prefix_of_the_row(all_tokens, key):
    tokens = all_tokens[key]

    @given(dialogues())
    @settings(max_examples=40, deadline=None)
    def check(record):
        (row,) = encode_dialogues([record], tokens, 100_000)
        turns = with_tools(record.turns, record.tools)
        for number, turn in enumerate(turns):
            if turn.role == "assistant":
                prompt = encode_prompt(turns[:number], tokens)
                assert row.ids[: len(prompt)].tolist() == prompt
                assert row.spans[number].content == len(prompt)

    check()


@pytest.mark.parametrize("key", KEYS)
def test_over_long_dialogues_are_split_at_turns_and_trained_once(all_tokens, key):
    tokens = all_tokens[key]

    @given(st.lists(dialogues(max_exchanges=8), min_size=1, max_size=3), st.integers(8, 160))
    @settings(max_examples=40, deadline=None)
    def check(records, max_length_tokens):
        items = list(encode_dialogues(records, tokens, max_length_tokens))
        for record in records:
            turns = with_tools(record.turns, record.tools)
            (whole,) = encode_dialogues([record], tokens, 100_000)
            mine = [item for item in items if item.id == record.id]
            assert mine, "at least one item for each record"
            rows = [item for item in mine if isinstance(item, Row)]
            repeats = sum(r.id == record.id for r in records)
            lost = sum(item.trained_tokens for item in mine if isinstance(item, SetAside))
            assert sum(int(row.trained.sum()) for row in rows) + lost == repeats * int(whole.trained.sum())
            for row in rows:
                assert len(row.ids) <= max_length_tokens
                head = 1 if turns[0].role == "system" else 0
                numbers = [*range(head), *range(row.first_turn, row.first_turn + len(row.spans) - head)]
                segments = [s for n in numbers for s in turn_segments(tokens.template, turns[n], n)]
                lead = [tokens.control[tokens.bos]] if tokens.bos else []
                assert row.ids.tolist() == lead + tokens.encode_segments(segments)
                assert row.trained.any()
                wanted = answers(record, tokens)
                assert all(text in wanted for text in tokens.decode_texts(runs(row)))

    check()


def test_a_piece_repeats_what_it_does_not_train(all_tokens):
    tokens = all_tokens["starcoder", "starchat"]
    turns = [Turn("system", "be brief")]
    for number in range(6):
        turns += [Turn("user", f"question {number}"), Turn("assistant", f"answer {number}")]
    record = Record(Source("x:1"), turns=tuple(turns))
    rows = list(encode_dialogues([record], tokens, 100))
    assert len(rows) > 1
    assert all(isinstance(row, Row) for row in rows)
    trained = [text for row in rows for text in tokens.decode_texts(runs(row))]
    assert trained == [f"answer {n}<|end|>" for n in range(6)]
    assert [row.piece for row in rows] == list(range(len(rows)))
    assert any(not span.trained for span in rows[1].spans if span.role == "assistant"), "context is repeated"
    assert all(row.spans[0].role == "system" for row in rows)


def test_set_aside_is_counted_with_its_place(all_tokens):
    tokens = all_tokens["starcoder", "starchat"]
    long = Record(Source("x:7"), turns=(Turn("user", "hi"), Turn("assistant", "word " * 50), Turn("user", "a"), Turn("assistant", "b")))
    silent = Record(Source("x:8"), turns=(Turn("user", "hi"), Turn("assistant", "no", train=False)))
    first, row, last = encode_dialogues([long, silent], tokens, 20)
    assert (first.reason, first.place) == ("over_long", "x:7")
    assert first.trained_tokens == len(tokens.encode_texts(["word " * 50])[0]) + 1
    assert tokens.decode(row.ids) == "<|user|>a<|end|><|assistant|>b<|end|>"
    assert (last.reason, last.place, last.trained_tokens) == ("nothing_trained", "x:8", 0)


def test_many_prompts_are_each_prompt(all_tokens):
    tokens = all_tokens["qwen", "chatml"]
    dialogues_of = [(Turn("user", "a"),), (Turn("system", "s"), Turn("user", "user\na"), Turn("assistant", "\n  b"), Turn("user", ""))]
    assert encode_prompts(dialogues_of, tokens) == [encode_prompt(turns, tokens) for turns in dialogues_of]
    segments = prompt_segments(find_template("chatml"))
    assert encode_prompt((), tokens) == tokens.encode_segments(segments)


def test_half_a_surrogate_pair_is_a_user_error(all_tokens):
    with pytest.raises(UserError, match="half of a surrogate pair"):
        encode_prompt([Turn("user", "ok so far \ud83d")], all_tokens["starcoder", "starchat"])
