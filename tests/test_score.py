"""Intervals on known values, and the loss on answers against a sum made by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from starchat.dialogue import Record, Source, Turn
from starchat.encode import Row, encode_dialogues
from starchat.errors import UserError
from starchat.score import AnswerLoss, answer_loss, bootstrap_ratio, paired_difference, wilson
from starchat.template import find_template
from starchat.tokens import Tokens, load_tokens


def test_wilson_on_published_values() -> None:
    """Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3."""
    published = ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718))
    for successes, trials, low, high in published:
        found = wilson(successes, trials)
        assert found.value == successes / trials
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_is_a_proportion_around_its_value(a: int, b: int) -> None:
    found = wilson(a, a + b)
    assert -1e-12 <= found.low <= found.value + 1e-12
    assert found.value <= found.high + 1e-12 <= 1 + 2e-12
    mirrored = wilson(b, a + b)
    if a + b:
        assert math.isclose(mirrored.low, 1 - found.high, abs_tol=1e-9)


def test_bootstrap_of_equal_items_has_no_width() -> None:
    found = bootstrap_ratio([3.0] * 10, [2] * 10)
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)


def test_bootstrap_weighs_by_tokens_and_is_near_the_normal_interval() -> None:
    sums = [float(n % 2) for n in range(400)]
    found = bootstrap_ratio(sums, [1] * 400)
    half = 1.96 * 0.5 / 20
    assert found.value == 0.5
    assert abs(found.low - (0.5 - half)) < 0.01
    assert abs(found.high - (0.5 + half)) < 0.01
    assert bootstrap_ratio([10.0, 0.0], [10, 90]).value == 0.1
    assert bootstrap_ratio(sums, [1] * 400, seed=0) == found
    assert bootstrap_ratio(sums, [1] * 400, seed=1) != found


def test_bootstrap_of_nothing_is_told() -> None:
    with pytest.raises(UserError, match="no answer is left to measure"):
        bootstrap_ratio([], [])


def test_paired_difference_is_narrow_where_the_dialogues_differ_more_than_the_models() -> None:
    counts = tuple([10] * 40)
    before = AnswerLoss(tuple(10.0 * n for n in range(40)), counts)
    after = AnswerLoss(tuple(10.0 * n - 5.0 for n in range(40)), counts)
    found = paired_difference(before, after)
    assert (found.value, found.low, found.high) == (-0.5, -0.5, -0.5)
    assert before.interval().high - before.interval().low > 1
    with pytest.raises(AssertionError, match="not the same dialogues"):
        paired_difference(before, AnswerLoss((1.0,), (1,)))


RECORDS = (
    Record(Source("a:1"), (Turn("system", "Be brief."), Turn("user", "add"), Turn("assistant", "def add(a, b):\n    return a + b"))),
    Record(
        Source("a:2"),
        (Turn("user", "q"), Turn("assistant", "context", train=False), Turn("user", "r"), Turn("assistant", "for number in range(10):")),
    ),
    Record(Source("a:3"), (Turn("user", "q"), Turn("assistant", ""))),
)


def by_hand(model: Any, tokens: Tokens, record: Record, with_end: bool) -> tuple[float, int]:
    """The loss of the last answer alone, from its own prompt, without our encoder's spans."""
    control, plain = tokens.control, lambda text: tokens.encode_texts([text])[0]
    ids: list[int] = []
    for turn in record.turns:
        ids += [control[f"<|{turn.role}|>"], *plain(turn.content), control["<|end|>"]]
    answer = len(plain(record.turns[-1].content))
    stop = len(ids) if with_end else len(ids) - 1
    start = len(ids) - 1 - answer
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(float(logits[n - 1, ids[n]]) for n in range(start, stop)), stop - start


@pytest.fixture(scope="module")
def model_and_tokens(tiny_base: Path) -> tuple[Any, Tokens]:
    from starchat.model import fit_vocabulary, load_base

    tokens = load_tokens(tiny_base, find_template("starchat"))
    model = load_base(tiny_base, torch.float32).eval()
    fit_vocabulary(model, tokens)
    return model, tokens


def test_answer_loss_is_the_sum_made_by_hand_without_end_tokens(model_and_tokens: tuple[Any, Tokens]) -> None:
    model, tokens = model_and_tokens
    found = answer_loss(model, tokens, RECORDS, 512)
    expected = [by_hand(model, tokens, record, with_end=False) for record in RECORDS[:2]]
    assert found.counts == tuple(count for _, count in expected), "the empty answer has nothing but its end token and is left out"
    assert found.sums == pytest.approx([loss for loss, _ in expected], rel=1e-4)
    with_end = [by_hand(model, tokens, record, with_end=True)[0] for record in RECORDS[:2]]
    assert all(more > less + 1 for more, less in zip(with_end, found.sums, strict=True)), "the guard would be seen"


def test_answer_loss_counts_a_repeated_record_once_as_an_item(model_and_tokens: tuple[Any, Tokens]) -> None:
    model, tokens = model_and_tokens
    once, twice = (answer_loss(model, tokens, [RECORDS[0]] * n, 512) for n in (1, 2))
    assert twice.counts == (2 * once.counts[0],)
    assert twice.interval().value == pytest.approx(once.interval().value, rel=1e-5)


def test_an_over_long_dialogue_is_split_as_in_training(model_and_tokens: tuple[Any, Tokens]) -> None:
    model, tokens = model_and_tokens
    turns = tuple(Turn("user" if n % 2 == 0 else "assistant", "for number in range(10):") for n in range(12))
    record = Record(Source("a:1"), turns)
    rows = [row for row in encode_dialogues([record], tokens, 100) if isinstance(row, Row)]
    assert len(rows) > 1
    ends = sum(span.trained for row in rows for span in row.spans)
    found = answer_loss(model, tokens, [record], 100)
    assert found.counts == (sum(int(row.trained.sum()) for row in rows) - ends,)
