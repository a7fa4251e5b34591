"""Documents: every detector against a planted fault, and clean rows that none may complain of."""

from __future__ import annotations

import dataclasses

import pytest

from planted import RECIPE, RECORDS, Case, make
from starchat.dialogue import Part, Record, Source
from starchat.document import encode_documents
from starchat.encode import Row, SetAside
from starchat.recipe import Fim, Recipe
from starchat.template import find_template
from starchat.tokens import load_tokens

PRETRAIN = Recipe(
    model="base", dataset="data", output="run", max_length_tokens=64, kind="pretrain", fim=Fim(), architecture={"model_type": "gpt_bigcode"}
)
TEXT = "".join(f"def f{n}(x):\n    return x + {n}\n" for n in range(12))


def variant(name):
    return TEXT.replace("x", f"{name}_")


FILES = tuple(part for name in "ab" for part in (Part("<filename>", name), Part("", f"\n{variant(name)}")))


def document_case(tokens, recipe=PRETRAIN, records=None):
    records = records or [
        *(Record(Source(f"s:{n}", repository="r"), parts=(Part("<filename>", f"a{n}.py"), Part("", f"\n{n}{TEXT}"))) for n in range(30)),
        Record(Source("s:t"), parts=(Part("<filename>", "t.py"), Part("", "\nprint(1)\n")), split="test"),
        Record(Source("s:n"), parts=(Part("<reponame>", "r"), Part("<jupyter_code>", TEXT))),
        Record(Source("s:i"), parts=(Part("<issue_start>", "Title: t"), Part("<issue_comment>", variant("i")), Part("<issue_closed>", ""))),
        Record(Source("s:r"), parts=(Part("<reponame>", "r"), *FILES)),
    ]
    items = list(encode_documents(records, tokens, recipe.max_length_tokens, recipe.fim, 42))
    rows = [item for item in items if isinstance(item, Row)]
    return Case(tokens, records, rows, [item for item in items if isinstance(item, SetAside)], recipe, 0)


def faults(report):
    return {finding.check for finding in report.findings if not finding.ok}


@pytest.fixture
def documents(bases):
    return document_case(load_tokens(bases["starcoder"], None))


def test_clean_documents_have_no_fault(documents):
    report = documents.report()
    assert not faults(report)
    assert report.stats["tokens_by_source"].keys() == {"r", "no repository named"}


def plant_document_window_lost(case):
    del case.rows[1]
    return "documents_are_whole"


def plant_document_part_of_a_thread_lost(case):
    lost = next(n for n, row in enumerate(case.rows) if case.tokens.control["<issue_closed>"] in row.ids)
    case.put(lost, list(case.rows[lost].ids).index(case.tokens.control["<issue_closed>"]), drop=1)
    return "documents_are_whole"


def plant_document_of_many_files_disordered(case):
    first = next(n for n, row in enumerate(case.rows) if row.id == case.records[-1].id)
    case.rows[first], case.rows[first + 1] = case.rows[first + 1], case.rows[first]
    return "documents_are_whole"


def plant_document_cut(case):
    case.put(0, 5, drop=2)
    return "documents_are_whole"


def plant_document_without_end(case):
    last = max(n for n, row in enumerate(case.rows) if row.id == case.rows[0].id)
    case.put(last, len(case.rows[last].ids) - 1, drop=1)
    return "documents_are_whole"


def plant_document_without_its_name(case):
    case.put(1, 1, case.tokens.encode_texts(["zz.py"])[0], drop=2)
    return "documents_are_whole"


def plant_document_token_untrained(case):
    case.train(2, 5, False)
    return "all_but_first_trained"


def plant_document_first_token_trained(case):
    case.train(2, 0)
    return "first_tokens_untrained"


def plant_document_forged_token(case):
    case.put(0, 9, [case.tokens.control["<commit_msg>"]])
    return "no_forged_control_tokens"


def plant_document_never_permuted(case):
    case.rows = document_case(case.tokens, dataclasses.replace(PRETRAIN, fim=None)).rows
    return "fim_share"


DOCUMENT_PLANTS = [value for name, value in sorted(globals().items()) if name.startswith("plant_document")]


@pytest.mark.parametrize("plant", DOCUMENT_PLANTS, ids=lambda plant: plant.__name__.removeprefix("plant_document_"))
def test_each_fault_planted_in_documents_is_found(documents, plant):
    wanted = plant(documents)
    assert wanted in faults(documents.report())


def bare_case(tokens, recipe):
    """Documents without markers, for tokenizers that have none."""
    records = [Record(Source(f"s:{n}"), parts=(Part("", TEXT.replace("x", f"x{n}")),)) for n in range(30)]
    items = list(encode_documents(records, tokens, recipe.max_length_tokens, recipe.fim, 42))
    return Case(tokens, records, [i for i in items if isinstance(i, Row)], [i for i in items if isinstance(i, SetAside)], recipe, 0)


@pytest.mark.parametrize("family", ["llama", "codellama", "qwen"])
def test_documents_of_other_families(bases, family):
    tokens = load_tokens(bases[family], None)
    case = bare_case(tokens, dataclasses.replace(PRETRAIN, fim=Fim() if family == "qwen" else None, max_length_tokens=128))
    assert not faults(case.report())
    if tokens.bos:
        assert all(row.ids[0] == tokens.control[tokens.bos] and not row.trained[0] for row in case.rows)
        case.put(3, 0, drop=1)
        assert "one_beginning_token" in faults(case.report())


@pytest.fixture
def replay(bases):
    """Dialogues with documents beside them."""
    tokens = load_tokens(bases["starcoder"], find_template("starchat"))
    recipe = dataclasses.replace(RECIPE, fim=Fim())
    chats = make(tokens, RECORDS, recipe)
    texts = document_case(tokens, dataclasses.replace(PRETRAIN, max_length_tokens=RECIPE.max_length_tokens))
    both = ([*getattr(chats, name), *getattr(texts, name)] for name in ("records", "rows", "set_aside"))
    return Case(tokens, *both, recipe), len(chats.rows)


def test_dialogues_and_replayed_documents_are_each_held_to_their_own_law(replay):
    case, _ = replay
    report = case.report()
    assert not faults(report)
    names = [finding.check for finding in report.findings]
    assert len(names) == len(set(names))
    assert {"every_end_token_is_trained", "documents_are_whole", "fim_share"} <= set(names)
    assert "; " in next(finding.detail for finding in report.findings if finding.check == "conservation")


def test_a_fault_in_either_is_found(replay):
    case, chats = replay
    case.train(chats + 2, 5, False)
    assert faults(case.report()) == {"all_but_first_trained", "rows_are_encoded_alone"}
    case.train(chats + 2, 5)
    case.train(0, case.last_trained(0), False)
    assert "every_end_token_is_trained" in faults(case.report())
