"""Pairs: every detector against a planted fault, clean pairs of every kind, and the laws of the encoder on both sides."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from hostile import FAMILIES, content, dialogues
from planted import MAX_LENGTH, TOOLS, Case
from starchat.dialogue import Record, Source, Turn
from starchat.encode import Row, SetAside, encode_prompt
from starchat.pairs import encode_pairs, sides
from starchat.recipe import Recipe
from starchat.template import TEMPLATES

RECIPE = Recipe("base", "data", "run", MAX_LENGTH, kind="dpo", packing=False, max_set_aside_fraction=0.9)
EARLIER = (Turn("user", "q?"), Turn("assistant", "a", train=False))


def pair(number, *prompt, chosen, rejected, split="train", **keys):
    turns = (*prompt, Turn("assistant", chosen))
    return Record(Source(f"a.jsonl:{number}"), turns=turns, rejected=Turn("assistant", rejected), split=split, **keys)


PAIRS = (
    pair(1, Turn("user", "hi"), chosen="\n  hello", rejected="go away"),
    pair(2, Turn("system", "brief"), *EARLIER, Turn("user", "and?"), chosen="yes <|end|>", rejected="no"),
    pair(3, Turn("user", "2+2"), chosen="four", rejected="\n five", tools=TOOLS),
    pair(4, Turn("user", "long"), chosen="so", rejected="word " * 60),
    pair(5, Turn("user", "2+2"), chosen="four", rejected="six", tools=TOOLS),
    pair(6, Turn("user", "test?"), chosen="tested", rejected="untested", split="test"),
)


def make(tokens, records=PAIRS):
    items = list(encode_pairs(records, tokens, RECIPE.max_length_tokens))
    both = [side for record in records for side in sides(record)]
    rows = [item for item in items if isinstance(item, Row)]
    return Case(tokens, both, rows, [item for item in items if isinstance(item, SetAside)], RECIPE)


@pytest.fixture
def case(all_tokens):
    return make(all_tokens["starcoder", "starchat"])


def faults(report):
    return {finding.check for finding in report.findings if not finding.ok}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_clean_pairs_have_no_fault(all_tokens, family, template):
    case = make(all_tokens[family, template])
    report = case.report()
    assert not faults(report), [f for f in report.findings if not f.ok]
    assert report.stats["records"] == len(PAIRS)
    assert report.stats["rows"] == {"train": 8, "test": 2}
    assert report.stats["packed_groups"] == 4
    assert report.stats["set_aside"]["over_long"]["count"] == 2, "both sides of a pair whose rejected answer is too long"


def add(case, record):
    """Add a pair to a case, in front of the test pair."""
    case.records[-2:-2] = sides(record)
    case.rows[-2:-2] = encode_pairs([record], case.tokens, MAX_LENGTH)


def plant_another_prompt(case):
    ids = case.rows[1].ids.copy()
    ids[1] += 1
    case.change(1, ids=ids)
    return "one_prompt"


def plant_a_prompt_of_more_tokens(case):
    case.put(1, 1, [int(case.rows[1].ids[1])])
    return "one_prompt"


def plant_end_token_untrained(case):
    case.train(1, case.last_trained(1), False)
    return "every_end_token_is_trained"


def plant_end_token_missing(case):
    case.put(1, len(case.rows[1].ids) - 1, drop=1)
    return "every_end_token_is_trained"


def plant_user_trained(case):
    case.train(1, 1)
    return "user_and_system_untrained"


def plant_earlier_answer_trained(case):
    span = case.rows[3].spans[2]
    assert span.role == "assistant"
    case.train(3, slice(span.content, span.stop))
    return "user_and_system_untrained"


def plant_forged_control_token(case):
    case.put(1, 1, [case.tokens.control["<|end|>"]])
    return "no_forged_control_tokens"


def plant_rejected_cut(case):
    case.put(1, case.last_trained(1) - 1, drop=1)
    return "trained_tokens_are_the_answers"


def plant_the_same_answer_twice(case):
    case.change(1, ids=case.rows[0].ids, trained=case.rows[0].trained)
    return "sides_differ"


def plant_sides_swapped(case):
    case.rows[0], case.rows[1] = case.rows[1], case.rows[0]
    return "pairs_are_whole"


def plant_sides_of_two_pairs(case):
    case.rows[1], case.rows[3] = case.rows[3], case.rows[1]
    return "pairs_are_whole"


def plant_a_side_lost(case):
    del case.rows[1]
    return "pairs_are_whole"


def plant_a_pair_lost(case):
    del case.rows[:2]
    return "pairs_are_whole"


def plant_a_pair_forgotten(case):
    case.set_aside = []
    return "pairs_are_whole"


def plant_the_opposite_preference(case):
    add(case, pair(7, Turn("user", "hi"), chosen="go away", rejected="\n  hello"))
    return "preferences_agree"


def plant_a_pair_twice(case):
    add(case, pair(7, Turn("user", "hi", name="x"), chosen="\n  hello", rejected="go away"))
    return "duplicate_pairs"


def plant_a_test_pair_in_train(case):
    add(case, pair(7, Turn("user", "test?", name="x"), chosen="tested", rejected="untested"))
    return "train_test_disjoint"


def plant_an_over_long_row(case):
    case.change(1, ids=np.tile(case.rows[1].ids, 20), trained=np.tile(case.rows[1].trained, 20))
    return "lengths"


def plant_much_set_aside(case):
    case.recipe = dataclasses.replace(RECIPE, max_set_aside_fraction=0.01)
    return "lengths"


def plant_an_empty_answer(case):
    add(case, pair(7, Turn("user", "?"), chosen="so", rejected=""))
    return "no_empty_answers"


PLANTS = [value for name, value in sorted(globals().items()) if name.startswith("plant_")]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__.removeprefix("plant_"))
def test_each_planted_fault_is_found(case, plant):
    assert not faults(case.report())
    wanted = plant(case)
    report = case.report()
    assert wanted in faults(report)
    finding = next(finding for finding in report.findings if finding.check == wanted)
    assert finding.remedy
    assert finding.detail


def test_copies_of_a_mixture_are_no_duplicates(case):
    add(case, dataclasses.replace(PAIRS[0], copy=1))
    assert not faults(case.report())


def test_how_often_the_longer_answer_is_preferred_is_told(case):
    def told():
        return next(f.detail for f in case.report().findings if f.check == "preferences_agree")

    sizes = [int(row.trained.sum()) for row in case.rows[:8]]
    share = sum(chosen > rejected for chosen, rejected in zip(sizes[::2], sizes[1::2], strict=True)) / 4
    assert f"the longer one in {share:.1%} of them" in told()
    add(case, pair(7, Turn("user", "more"), chosen="much more text than that", rejected="x"))
    assert f"the longer one in {(4 * share + 1) / 5:.1%} of them" in told()


@pytest.mark.parametrize("key", [("starcoder", "starchat"), ("qwen", "chatml"), ("starcoder", "native"), ("llama", "chatml")])
def test_the_laws_hold_on_both_sides_of_hostile_pairs(all_tokens, key):
    tokens = all_tokens[key]

    @given(dialogues(), content, content)
    @settings(max_examples=30, deadline=None)
    def check(record, chosen, rejected):
        prompt = (*record.turns, Turn("user", "and?"))
        made = pair(1, *prompt, chosen=chosen, rejected=rejected, tools=record.tools)
        rows = list(encode_pairs([made], tokens, 100_000))
        asked = encode_prompt(prompt, tokens, record.tools)
        for row, answer in zip(rows, (chosen, rejected), strict=True):
            assert row.ids[: len(asked)].tolist() == asked, "the prompt at inference is a prefix of both sides"
            trained = np.flatnonzero(row.trained)
            assert trained.tolist() == list(range(len(asked), len(asked) + len(trained))), "the answer alone is trained"
            assert tokens.decode(row.ids[trained].tolist()) == tokens.normalize(answer) + tokens.end
            assert row.ids[trained[-1]] == tokens.control[tokens.end]
        longest = max(len(row.ids) for row in rows)
        assert all(isinstance(item, Row) for item in encode_pairs([made], tokens, longest))
        aside = list(encode_pairs([made], tokens, longest - 1))
        assert [item.reason for item in aside] == ["over_long", "over_long"], "a pair is never cut, nor one side of it kept"
        assert [item.trained_tokens for item in aside] == [int(row.trained.sum()) for row in rows]

    check()
