"""Placeholders: faults planted in rows of dialogues, pairs and documents, each found, and clean rows that no check complains of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hostile import write_tokenizer
from planted import Case
from starchat.dialogue import Part, Record, Source, Turn
from starchat.document import encode_documents
from starchat.encode import Row, SetAside, encode_dialogues
from starchat.pairs import encode_pairs, sides
from starchat.recipe import Fim, Recipe
from starchat.tokens import load_tokens

MAIL, KEY = "user1@example.com", "REDACTED1xxxx"
RECIPE = Recipe("base", "data", "run", 120, max_set_aside_fraction=0.9)
DIALOGUES = (
    (Turn("user", f"write to {MAIL}"), Turn("assistant", f"{MAIL} it is, with {KEY}")),
    (Turn("system", KEY), Turn("user", "why?"), Turn("assistant", KEY), Turn("user", "and?"), Turn("assistant", f"```\n{MAIL}{MAIL}\n```")),
    (Turn("user", "one"), Turn("assistant", MAIL, train=False), Turn("user", "again"), Turn("assistant", f"yes {MAIL}")),
    (Turn("user", "long"), *(turn for n in range(9) for turn in (Turn("user", f"q{n} {MAIL}"), Turn("assistant", f"{n} {MAIL}")))),
    (Turn("user", "too long"), Turn("assistant", f"{MAIL} word " * 30), Turn("user", "short"), Turn("assistant", "ok")),
)
PLAIN = Record(Source("b.jsonl:1"), (Turn("user", f"of {MAIL}"), Turn("assistant", f"no placeholder: {MAIL}")))


def code(name):
    """Return a file with an address in every other line."""
    return "".join(f"{name}_{n} = '{MAIL}'\nvalue_{n} = '{name}'\n" for n in range(12))


def split(items):
    """Return rows and what was set aside, as lists."""
    items = list(items)
    return [i for i in items if isinstance(i, Row)], [i for i in items if isinstance(i, SetAside)]


def faults(report):
    """Return the names of the checks that found a fault."""
    return {finding.check for finding in report.findings if not finding.ok}


@pytest.fixture
def chats(all_tokens):
    """Dialogues with placeholders, and one without."""
    tokens = all_tokens["starcoder", "starchat"]
    records = [*(Record(Source(f"a.jsonl:{n}"), turns, placeholders=(MAIL, KEY)) for n, turns in enumerate(DIALOGUES, 1)), PLAIN]
    return Case(tokens, records, *split(encode_dialogues(records, tokens, RECIPE.max_length_tokens)), RECIPE)


@pytest.fixture
def pairs(all_tokens):
    """Pairs of answers that begin with placeholders."""
    tokens = all_tokens["qwen", "chatml"]
    prompt, answers = (Turn("user", f"mail {MAIL}?"),), [(f"{MAIL} it is", f"{KEY} or {MAIL}"), (MAIL, "no"), ("yes", f"{KEY}{KEY}")]
    made = [
        Record(Source(f"a.jsonl:{n}"), (*prompt, Turn("assistant", a)), rejected=Turn("assistant", b), placeholders=(MAIL, KEY))
        for n, (a, b) in enumerate(answers)
    ]
    recipe = dataclasses.replace(RECIPE, kind="dpo", packing=False)
    rows, aside = split(encode_pairs(made, tokens, recipe.max_length_tokens))
    return Case(tokens, [side for record in made for side in sides(record)], rows, aside, recipe)


@pytest.fixture
def files(tmp_path):
    """Files with placeholders, files with tokens of redaction, and one with neither."""
    write_tokenizer(tmp_path, "starcoder2")
    tokens = load_tokens(tmp_path, None)
    named, key = Part("<file_sep>", "a.py"), Part("<KEY>", "'\n")
    records = [
        *(Record(Source(f"s:{n}"), parts=(named, Part("", f"\n{code(n)}")), placeholders=(MAIL,)) for n in range(12)),
        *(Record(Source(f"r:{n}"), parts=(named, Part("", f"\nx{n} = '"), Part("<EMAIL>", "'\n" + code(f"r{n}")), key)) for n in range(12)),
        Record(Source("p:1"), parts=(named, Part("", f"\n{code(99)}"))),
    ]
    recipe = Recipe("base", "data", "run", 100, kind="pretrain", fim=Fim(), architecture={"model_type": "gpt_bigcode"})
    rows, aside = split(encode_documents(records, tokens, recipe.max_length_tokens, recipe.fim, 42))
    assert any(tokens.control["<fim_middle>"] in row.ids for row in rows)
    return Case(tokens, records, rows, aside, recipe)


def holes(case, number):
    """Return where a row is not trained although it is of an answer, or of a document."""
    row = case.rows[number]
    places = [range(span.content, span.stop) for span in row.spans if span.trained] or [range(1, len(row.ids))]
    return [at for place in places for at in place if not row.trained[at]]


def plant_placeholder_trained(case):
    """Of the first row that has a hole behind something trained."""
    row = next(n for n in range(len(case.rows)) if holes(case, n))
    case.train(row, holes(case, row)[0])
    return {"placeholders_untrained", "rows_are_encoded_alone"}


def plant_all_placeholders_trained(case):
    for number in range(len(case.rows)):
        case.train(number, holes(case, number))
    return {"placeholders_untrained", "rows_are_encoded_alone"}


def plant_hole_where_no_placeholder_is(case):
    row = next(n for n in range(len(case.rows)) if holes(case, n))
    control = [*case.tokens.control.values()]
    case.train(row, int(np.flatnonzero(case.rows[row].trained & ~np.isin(case.rows[row].ids, control))[-1]), False)
    law = "all_but_first_trained" if case.recipe.kind == "pretrain" else "trained_tokens_are_the_answers"
    return {"placeholders_untrained", "rows_are_encoded_alone", law}


@pytest.mark.parametrize("plant", [plant_placeholder_trained, plant_all_placeholders_trained, plant_hole_where_no_placeholder_is])
@pytest.mark.parametrize("kind", ["chats", "pairs", "files"])
def test_a_planted_fault_is_found_by_these_checks(kind, plant, request):
    case = request.getfixturevalue(kind)
    assert not faults(case.report()), [f for f in case.report().findings if not f.ok]
    wanted = plant(case)
    report = case.report()
    accounts = {"conservation"} if kind == "chats" else set()
    assert wanted <= faults(report) <= wanted | accounts
    finding = next(finding for finding in report.findings if finding.check == "placeholders_untrained")
    assert finding.remedy and "a token" in finding.detail


def test_a_redaction_token_that_is_trained_is_found(files):
    token = files.tokens.control["<EMAIL>"]
    row = next(n for n, one in enumerate(files.rows) if token in one.ids)
    files.train(row, files.rows[row].ids.tolist().index(token))
    assert faults(files.report()) == {"placeholders_untrained", "rows_are_encoded_alone"}


def test_a_letter_that_stands_in_text_for_a_redaction_token_is_found(files):
    """The detectors fold tokens of redaction into letters as the encoder does: such a letter in the text itself must not pass for one."""
    token = files.tokens.control["<EMAIL>"]
    row = next(n for n, one in enumerate(files.rows) if token in one.ids)
    at = files.rows[row].ids.tolist().index(token)
    files.put(row, at, files.tokens.encode_texts(["\U000f0000"])[0], drop=1)
    files.train(row, slice(at, at + 4))
    assert "documents_are_whole" in faults(files.report())


def test_a_placeholder_of_another_record_explains_nothing(chats):
    """The last record has the same string, and no placeholder: a hole there is a fault."""
    row = len(chats.rows) - 1
    at = next(n for n in range(len(chats.rows[row].ids)) if chats.rows[row].trained[n])
    chats.train(row, at + 3, False)
    assert faults(chats.report()) == {"trained_tokens_are_the_answers", "rows_are_encoded_alone"}


def test_an_end_token_is_no_hole(chats):
    chats.train(0, chats.last_trained(0), False)
    assert {"every_end_token_is_trained", "trained_tokens_are_the_answers"} <= faults(chats.report())


def test_a_holes_turn_that_is_lost_is_not_accounted_for_by_its_placeholders(chats):
    del chats.rows[chats.of_record(3)[-1]]
    assert "conservation" in faults(chats.report())


def test_the_finding_tells_how_many(chats, files):
    for case in (chats, files):
        told = next(f.detail for f in case.report().findings if f.check == "placeholders_untrained")
        count = sum(len(holes(case, n)) for n in range(len(case.rows)))
        assert told.startswith(f"{count:,} tokens of placeholders in ") and count > 50
    bare = Case(chats.tokens, [PLAIN], *split(encode_dialogues([PLAIN], chats.tokens, 120)), RECIPE)
    assert next(f.detail for f in bare.report().findings if f.check == "placeholders_untrained") == "no placeholders"
