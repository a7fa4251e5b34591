"""What stands for what was taken out is not trained, and everything else is: dialogues, pairs and documents, all families of tokenizers."""

from __future__ import annotations

import dataclasses
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuzz_placeholders
from hostile import FAMILIES, FRAGMENTS, write_tokenizer
from starchat.check import examine
from starchat.dialogue import Part, Record, Source, Turn, from_row, to_row
from starchat.document import encode_documents
from starchat.encode import Row, SetAside, encode_dialogues
from starchat.errors import UserError
from starchat.fim import permute, rng_for
from starchat.holes import Spelling
from starchat.pairs import encode_pairs, sides
from starchat.placeholders import NOTHING, Redaction, find_holes, keeping_whole, moved_out, occurrences, read_occurrences, redaction_of
from starchat.recipe import Fim, Recipe
from starchat.rows import _record_of_messages
from starchat.template import ESCAPE, TEMPLATES
from starchat.tokens import load_tokens

MAIL, KEY = "user1@example.com", "REDACTED1xxxx"
SURROGATES = (MAIL, KEY, "user2@example.com", "xx", "中文1", "e\u0301x", "-----BEGIN\nkey\n-----END\n", "1xxxxuser1@")
RECIPE = Recipe("m", "d", "o", 100_000, max_set_aside_fraction=1.0)
PRETRAIN = dataclasses.replace(RECIPE, kind="pretrain", architecture={"model_type": "gpt_bigcode"})
OURS = {"trained_tokens_are_the_answers", "every_end_token_is_trained", "user_and_system_untrained", "all_but_first_trained"} | {
    *("placeholders_untrained", "documents_are_whole", "conservation", "rows_are_encoded_alone", "no_forged_control_tokens", "dead_rows"),
    *("pairs_are_whole", "one_prompt", "first_tokens_untrained", "prompt_is_a_prefix", "lengths"),
}

strings = st.lists(st.sampled_from(SURROGATES), max_size=4, unique=True).map(tuple)
fence = st.sampled_from(["```python\nmail = '", "'\n```\n"])
text = st.lists(st.one_of(st.sampled_from(SURROGATES), st.sampled_from(FRAGMENTS), fence, st.text(max_size=4)), max_size=8).map("".join)


def faults(report):
    """Return the checks of the encoding that found a fault, with what they say."""
    return [(finding.check, finding.detail) for finding in report.findings if not finding.ok and finding.check in OURS]


def covered(tokens, ids, placeholders):
    """Return, from decoded prefixes alone, which tokens of an ASCII text overlap a placeholder: slow, and of no use but here."""
    ends = [len(tokens.plain.decode(list(ids[: n + 1]))) for n in range(len(ids))]
    whole = tokens.plain.decode(list(ids))
    bad = {n for p in placeholders for n in range(len(whole)) if p and whole.startswith(p, n) for n in range(n, n + len(p))}
    return [bool(bad & {*range(a, b)}) for a, b in zip([0, *ends], ends, strict=False)]


def rows_of(items):
    """Return the rows and what was set aside."""
    items = list(items)
    return [i for i in items if isinstance(i, Row)], [i for i in items if isinstance(i, SetAside)]


def report_of(tokens, records, rows, aside, recipe):
    """Return what the checks say of rows that are all for training."""
    return examine(recipe, tokens, records, {"train": rows, "test": []}, aside, tokens.size)


@pytest.fixture(scope="module")
def starcoder2(tmp_path_factory):
    """Tokens of StarCoder2's kind, which have tokens of redaction."""
    folder = tmp_path_factory.mktemp("starcoder2")
    write_tokenizer(folder, "starcoder2")
    return load_tokens(folder, None)


@pytest.mark.parametrize("key", [(family, template) for family in FAMILIES for template in TEMPLATES])
def test_answers_have_holes_where_placeholders_are_and_nowhere_else(all_tokens, key):
    tokens = all_tokens[key]
    answers = st.builds(Turn, st.just("assistant"), text, train=st.sampled_from([True, True, False]))
    others = st.builds(Turn, st.sampled_from(["user", "tool"]), text)
    middles = st.lists(st.one_of(answers, others), max_size=5)
    made = st.builds(
        lambda turns, last, p: Record(Source("x:1"), (Turn("user", MAIL), *turns, Turn("assistant", last)), placeholders=p),
        middles, text, strings,
    )  # fmt: skip

    @given(st.lists(made, min_size=1, max_size=3, unique_by=lambda record: record.id), st.sampled_from([60, 200, 100_000]))
    @settings(max_examples=8, deadline=None)
    def check(records, max_length_tokens):
        recipe = dataclasses.replace(RECIPE, max_length_tokens=max_length_tokens)
        rows, aside = rows_of(encode_dialogues(records, tokens, max_length_tokens))
        plain, _ = rows_of(encode_dialogues([dataclasses.replace(r, placeholders=()) for r in records], tokens, max_length_tokens))
        assert [row.ids.tolist() for row in rows] == [row.ids.tolist() for row in plain], "law 3: the ids stay"
        end = tokens.control[tokens.end]
        for row, without in zip(rows, plain, strict=True):
            assert not (row.trained & ~without.trained).any()
            assert (row.trained[row.ids == end] == without.trained[row.ids == end]).all(), "end tokens stay trained"
        if rows:
            assert not faults(report_of(tokens, records, rows, aside, recipe))

    check()


@pytest.mark.parametrize("key", [("starcoder", "starchat"), ("qwen", "chatml"), ("llama", "starchat")])
def test_sides_of_pairs_have_the_same_holes_as_dialogues(all_tokens, key):
    tokens = all_tokens[key]

    @given(text, text, text, strings)
    @settings(max_examples=8, deadline=None)
    def check(question, chosen, rejected, placeholders):
        turns = (Turn("user", question), Turn("assistant", chosen))
        pair = Record(Source("x:1"), turns, rejected=Turn("assistant", rejected), placeholders=placeholders)
        rows = list(encode_pairs([pair], tokens, 100_000))
        both = list(sides(pair))
        assert [row.trained.tolist() for row in rows] == [next(encode_dialogues([s], tokens, 100_000)).trained.tolist() for s in both]
        recipe = dataclasses.replace(RECIPE, kind="dpo", packing=False)
        assert not faults(report_of(tokens, both, rows, [], recipe))

    check()


names = st.lists(st.builds(Part, st.sampled_from(["<filename>", "<reponame>"]), text), max_size=2)
cells = st.builds(Part, st.sampled_from(["<jupyter_code>", "<issue_comment>", "<filename>", ""]), text)


@pytest.mark.parametrize("fim", [None, Fim(rate=1.0, spm_rate=0.5)], ids=["plain", "fim"])
@pytest.mark.parametrize("family", ["starcoder", "qwen", "llama"])
def test_documents_have_holes_where_placeholders_are_and_nowhere_else(bases, family, fim):
    tokens = load_tokens(bases[family], None)
    marked = family == "starcoder"
    fim = fim if family != "llama" else None
    bodies = st.lists(text, min_size=1, max_size=6).map("".join)
    files = st.builds(lambda front, body: (*(front if marked else ()), Part("", body)), names, bodies)
    documents = st.one_of(files, st.lists(cells, min_size=1, max_size=5).map(tuple)) if marked else files
    made = st.builds(lambda parts, p: Record(Source("x:1"), parts=parts, placeholders=p), documents, strings)

    @given(st.lists(made, min_size=1, max_size=3, unique_by=lambda record: record.id), st.sampled_from([40, 64, 120, 1000]))
    @settings(max_examples=12, deadline=None)
    def check(records, max_length_tokens):
        recipe = dataclasses.replace(PRETRAIN, max_length_tokens=max_length_tokens, fim=fim)
        rows, aside = rows_of(encode_documents(records, tokens, max_length_tokens, fim, 42))
        assert all(row.trained.any() and len(row.ids) <= max_length_tokens for row in rows)
        if rows:
            assert not faults(report_of(tokens, records, rows, aside, recipe))

    check()


@pytest.mark.parametrize("fim", [None, Fim(rate=1.0, spm_rate=0.5)], ids=["plain", "fim"])
def test_files_that_tokens_of_redaction_interrupt_are_one_file(starcoder2, fim):
    marker = st.sampled_from(["<EMAIL>", "<KEY>", "<NAME>"])
    pieces = st.lists(st.builds(Part, marker, text), max_size=6)
    front = st.lists(st.builds(Part, st.sampled_from(["<file_sep>", "<repo_name>"]), text), max_size=2)
    many = st.lists(st.tuples(text, pieces), min_size=2, max_size=3)
    parts = st.one_of(
        st.builds(lambda a, b, c: (*a, Part("", b), *c), front, text, pieces),
        many.map(lambda files: tuple(p for name, body in files for p in (Part("<file_sep>", name), Part("", "\n"), *body))),
    )
    made = st.builds(lambda found, p: Record(Source("x:1"), parts=found, placeholders=p), parts, strings)

    @given(st.lists(made, min_size=1, max_size=3, unique_by=lambda record: record.id), st.sampled_from([48, 120, 1000]))
    @settings(max_examples=20, deadline=None)
    def check(records, max_length_tokens):
        recipe = dataclasses.replace(PRETRAIN, max_length_tokens=max_length_tokens, fim=fim)
        rows, aside = rows_of(encode_documents(records, starcoder2, max_length_tokens, fim, 42))
        redaction = [starcoder2.control[name] for name in ("<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>")]
        assert not any(row.trained[np.isin(row.ids, redaction)].any() for row in rows)
        if rows:
            assert not faults(report_of(starcoder2, records, rows, aside, recipe))

    check()


def test_a_file_with_tokens_of_redaction_is_cut_and_permuted_as_a_whole(starcoder2):
    body = [Part("", "\nowner = '"), Part("<EMAIL>", "'\n" + "".join(f"value_{n} = {n}\n" for n in range(30))), Part("<KEY>", "\nend\n")]
    record = Record(Source("x:1"), parts=(Part("<file_sep>", "a.py"), *body))
    rows, _ = rows_of(encode_documents([record], starcoder2, 64, None, 0))
    texts = [starcoder2.decode(row.ids) for row in rows]
    assert len(rows) > 3 and all(one.startswith("<file_sep>a.py") for one in texts), "the name stands before each window"
    whole = "".join(part.marker + part.text for part in body) + "<|endoftext|>"
    assert "".join(one.removeprefix("<file_sep>a.py") for one in texts) == whole
    permuted = [rows_of(encode_documents([record], starcoder2, 1000, Fim(rate=1.0, spm_rate=0.0), seed))[0][0] for seed in range(30)]
    texts = [starcoder2.decode(row.ids) for row in permuted]
    assert all(one.startswith("<file_sep><fim_prefix>a.py") for one in texts)
    assert any("<EMAIL>" in one.split("<fim_middle>")[1] for one in texts), "a token of redaction may lie in the middle"
    assert any("<EMAIL>" in one.split("<fim_suffix>")[0] for one in texts)


@pytest.mark.parametrize(
    "answer", [MAIL, f"{MAIL}{MAIL}", f"{MAIL} and {KEY}", f"so {KEY}{MAIL}.", f"```\nx = '{MAIL}'\n```", "yes", f"x{KEY}x"]
)
def test_holes_are_the_tokens_that_overlap_by_a_third_way(all_tokens, answer):
    tokens = all_tokens["starcoder", "starchat"]
    record = Record(Source("x:1"), (Turn("user", f"write to {MAIL}"), Turn("assistant", answer)), placeholders=(MAIL, KEY))
    (row,) = encode_dialogues([record], tokens, 1000)
    content = slice(row.spans[-1].content, row.spans[-1].stop - 1)
    assert (~row.trained[content]).tolist() == covered(tokens, row.ids[content].tolist(), (MAIL, KEY))
    assert row.trained[row.spans[-1].stop - 1] and not row.trained[: row.spans[-1].content].any()


@pytest.mark.parametrize(
    ("whole", "placeholders", "expected"),
    [
        ("ababa", ["aba"], [(0, 5)]),
        ("abab", ["ab"], [(0, 2), (2, 4)]),
        ("xabcx", ["b", "abc"], [(1, 4)]),
        ("abcd", ["abc", "bcd"], [(0, 4)]),
        ("a.c abc", ["a.c"], [(0, 3)]),
        ("none", ["", "absent"], []),
    ],
)
def test_every_occurrence_counts_also_those_that_overlap(whole, placeholders, expected):
    assert occurrences(whole, placeholders) == expected


@given(text, strings, st.integers(), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_no_cut_of_fill_in_the_middle_parts_a_placeholder_and_the_draws_stay(whole, placeholders, seed, spm_rate):
    parts = (Part("<filename>", "a"), Part("", whole))
    found = permute(parts, rng_for(seed, "x", 0), 1.0, spm_rate, whole=lambda one: occurrences(one, placeholders))
    drawn = permute(parts, rng_for(seed, "x", 0), 1.0, spm_rate)
    stretches = occurrences(whole, placeholders)
    prefix, suffix, middle = (part.text for part in drawn[1:])
    if prefix or not middle:
        cuts = sorted(moved_out(at, stretches) for at in (len(prefix), len(whole) - len(suffix)))
        assert [part.text for part in found[1:]] == [whole[: cuts[0]], whole[cuts[1] :], whole[cuts[0] : cuts[1]]]
    assert sum(len(occurrences(part.text, placeholders)) for part in found[1:]) <= len(stretches)


def test_a_window_ends_before_a_placeholder_and_not_inside(bases):
    tokens = load_tokens(bases["starcoder"], None)
    pem = "-----BEGIN\n" + "k1\n" * 4 + "-----END"
    body = "".join(f"x = {n}\n{pem}\n" for n in range(20))
    record = Record(Source("x:1"), parts=(Part("<filename>", "a"), Part("", body)), placeholders=(pem,))
    rows, aside = rows_of(encode_documents([record], tokens, 80, None, 0))
    texts = [tokens.decode(row.ids).removeprefix("<filename>a").removesuffix("<|endoftext|>") for row in rows]
    assert not aside and len(rows) > 5 and "".join(texts) == body
    assert sum(one.count(pem) for one in texts) == 20, "each is whole in one window"


@pytest.mark.parametrize("spm_rate", [0.0, 1.0])
def test_a_permuted_window_has_each_placeholder_whole(bases, spm_rate):
    tokens = load_tokens(bases["starcoder"], None)
    body = f"\n{MAIL}{KEY}" * 6
    records = [Record(Source("x:1"), parts=(Part("<filename>", str(n)), Part("", body)), placeholders=(MAIL, KEY)) for n in range(40)]
    rows, _ = rows_of(encode_documents(records, tokens, 1000, Fim(rate=1.0, spm_rate=spm_rate), 42))
    texts = [tokens.decode(row.ids) for row in rows]
    assert all("<fim_middle>" in one and one.count(MAIL) == one.count(KEY) == 6 for one in texts)
    assert len({one.partition("<fim_suffix>")[2].index("<fim_middle>") for one in texts}) > 5, "the cuts differ"


def test_a_window_of_placeholders_alone_sets_its_document_aside(bases):
    tokens = load_tokens(bases["starcoder"], None)
    records = [
        Record(Source("x:1"), parts=(Part("", KEY * 100),), placeholders=(KEY,)),
        Record(Source("x:2"), parts=(Part("", f"x = 1\n{KEY}\n" * 20),), placeholders=(KEY,)),
    ]
    rows, aside = rows_of(encode_documents(records, tokens, 64, None, 42))
    assert [(item.reason, item.place) for item in aside] == [("nothing_trained", "x:1")]
    assert {row.id for row in rows} == {records[1].id}
    assert not faults(report_of(tokens, records, rows, aside, dataclasses.replace(PRETRAIN, max_length_tokens=64)))
    longer = dataclasses.replace(records[0], placeholders=(KEY * 100,))
    assert [item.reason for item in encode_documents([longer], tokens, 64, None, 42)] == ["over_long"], "a placeholder is not cut"


def test_letters_stand_for_tokens_and_are_none_of_the_documents_own():
    parts = (Part("<EMAIL>", "\U000f0000"), Part("<KEY>", ""), Part("<file_sep>", "a"), Part("<EMAIL>", "b"), Part("", "c"))
    redaction = redaction_of(Record(Source("x"), parts=parts))
    assert "\U000f0000" not in redaction.letters.values()
    folded = redaction.fold(parts)
    assert [part.marker for part in folded] == ["", "<file_sep>", ""]
    assert redaction.unfold(folded) == parts
    assert redaction_of(Record(Source("x"), parts=parts[2:3])) is NOTHING
    assert Redaction().unfold(parts) == parts


def test_placeholders_go_through_rows_and_pickles_and_leave_the_id(tmp_path):
    from data_prep.records import Kept
    from data_prep.tables import TableFile, record_schema
    from starchat.rows import _read_prepared

    for record in (
        Record(Source("x:1"), (Turn("user", "a"), Turn("assistant", "b")), placeholders=(MAIL, KEY)),
        Record(Source("x:2"), parts=(Part("", "x"),), placeholders=(MAIL,)),
    ):
        assert record.id == dataclasses.replace(record, placeholders=()).id
        assert from_row(to_row(record)) == record
        assert pickle.loads(pickle.dumps(Kept(record))).record == record
        folder = tmp_path / record.kind
        folder.mkdir()
        with TableFile(folder / "train-00000.parquet", record_schema()) as table:
            table.write({**to_row(record), "repairs": [], "origin": 0}, 10)
        assert list(_read_prepared(folder, "train", 1)) == [record]
        earlier = {key: value for key, value in to_row(record).items() if key != "placeholders"}
        assert from_row(earlier) == dataclasses.replace(record, placeholders=())


def test_a_hub_datasets_placeholders_are_read_or_refused():
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "placeholders": [MAIL]}
    assert _record_of_messages(row, "d:1", "train").placeholders == (MAIL,)
    assert _record_of_messages({**row, "placeholders": None}, "d:1", "train").placeholders == ()
    with pytest.raises(UserError, match="d:1: placeholders is .*expected a list of texts"):
        _record_of_messages({**row, "placeholders": [3]}, "d:1", "train")


def test_rows_do_not_depend_on_the_grouping_or_on_other_records(all_tokens):
    tokens, rng = all_tokens["qwen", "chatml"], random.Random(0)
    records = [
        Record(Source("x:1"), (Turn("user", str(n)), Turn("assistant", f"{n} {rng.choice(SURROGATES)}")), placeholders=SURROGATES * (n % 2))
        for n in range(40)
    ]  # fmt: skip
    together = [row.trained.tolist() for row in encode_dialogues(records, tokens, 1000)]
    assert together == [next(encode_dialogues([record], tokens, 1000)).trained.tolist() for record in records]


@pytest.mark.parametrize("family", [*FAMILIES, "starcoder2", "smollm", "deepseek", "santacoder"])
def test_both_ways_to_tell_holes_agree_on_hostile_texts(tmp_path, family):
    write_tokenizer(tmp_path, family)
    tokens = load_tokens(tmp_path, None)
    spelling = Spelling(tokens)

    @given(text, st.lists(st.one_of(st.sampled_from(SURROGATES), text), max_size=3))
    @settings(max_examples=20, deadline=None)
    def check(whole, placeholders):
        (ids,) = tokens.encode_texts([whole])
        assert b"".join(spelling.bytes_of(id) for id in ids).decode() == tokens.normalize(whole)
        assert np.flatnonzero(spelling.holes(ids, placeholders)).tolist() == find_holes([([whole], placeholders)], tokens)[0]

    check()


def test_without_placeholders_nothing_more_is_asked_of_the_tokenizer(all_tokens, monkeypatch):
    tokens = all_tokens["starcoder", "starchat"]
    asked = []
    kind = type(tokens)
    real = kind.encode_with_offsets
    monkeypatch.setattr(kind, "encode_with_offsets", lambda self, texts: (asked.extend(texts), real(self, texts))[1])
    plain = Record(Source("x:1"), (Turn("user", "a"), Turn("assistant", f"b {MAIL}")))
    absent = dataclasses.replace(plain, placeholders=(KEY,))
    list(encode_dialogues([plain, absent], tokens, 1000))
    assert asked == []
    list(encode_dialogues([plain, dataclasses.replace(plain, placeholders=(MAIL,))], tokens, 1000))
    assert asked == [f"b {MAIL}"], "the answer alone, once"
    assert keeping_whole(NOTHING, tokens) is None


def test_sixty_mutants_keep_the_laws(tmp_path):
    known = fuzz_placeholders.all_tokens(tmp_path)
    outcomes = {fuzz_placeholders.outcome_of(random.Random(f"0:{number}"), known) for number in range(60)}
    assert len(outcomes) > 3


def test_a_placeholder_is_looked_for_as_the_tokenizer_reads_it(all_tokens):
    """What the normalizer removes from within it, or before it, changes where it lies and not that it does."""
    tokens = all_tokens["qwen", "chatml"]
    for front in (f"{ESCAPE}a{ESCAPE}b e\u0301 ", f"e\u0301{ESCAPE}", ""):
        whole = f"{front}x{ESCAPE}y{ESCAPE}"
        ((start, stop),) = read_occurrences(whole, ["xy"], tokens)
        assert whole[start:stop].lstrip(f"\u0301{ESCAPE}") == f"x{ESCAPE}y"
    assert moved_out(7, [(2, 5), (5, 7)]) == 7, "behind a placeholder is a place to cut"
