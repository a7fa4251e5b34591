"""Laws 2, 5 and 9 for documents: every row fits, nothing is cut away, no text becomes a control token."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import content
from starchat import document
from starchat.catalogue import BY_NAME
from starchat.check import examine
from starchat.dialogue import Part, Record, Source
from starchat.document import encode_documents
from starchat.encode import Row, SetAside
from starchat.errors import UserError
from starchat.recipe import Fim, Recipe
from starchat.tokens import load_tokens

RECIPE = Recipe(model="m", dataset="d", output="o", max_length_tokens=64, kind="pretrain", max_set_aside_fraction=1.0)
NAMED = "<filename>"

runs = st.sampled_from(["x = 1\n" * 9, "😀" * 40, "é" * 50, "\n" * 40, " " * 90, "a" * 200, "\u0344" * 30])
body = st.lists(st.one_of(content, runs), max_size=5)
lead = st.lists(st.builds(Part, st.sampled_from([NAMED, "<reponame>"]), content), max_size=2)
last = st.builds(Part, st.sampled_from(["", "", "<jupyter_code>"]), body.map("".join))
part = st.builds(Part, st.sampled_from(["<jupyter_code>", "<issue_comment>", "<commit_after>", NAMED, ""]), body.map("".join))
ends = st.one_of(last.map(lambda end: (end,)), st.lists(part, min_size=2, max_size=6).map(tuple))
documents = st.builds(lambda front, end: Record(Source("x:1", repository="r"), parts=(*front, *end)), lead, ends)


@pytest.fixture(scope="module")
def tokens(bases):
    return load_tokens(bases["starcoder"], None)


SEED = 42
"""That of a recipe which says nothing; its rows are encoded again by a check."""


def split(items):
    items = list(items)
    return [i for i in items if isinstance(i, Row)], [i for i in items if isinstance(i, SetAside)]


def document_of(text, name="a.py"):
    return Record(Source("x:1"), parts=(Part(NAMED, name), Part("", text)))


@pytest.mark.parametrize("fim", [None, Fim(rate=1.0, spm_rate=0.5)])
def test_rows_fit_and_put_together_are_the_documents(tokens, fim):
    @given(st.lists(documents, min_size=1, max_size=3), st.integers(20, 120))
    @settings(max_examples=50, deadline=None)
    def check(records, max_length_tokens):
        rows, aside = split(encode_documents(records, tokens, max_length_tokens, fim, SEED))
        assert all(len(row.ids) <= max_length_tokens for row in rows)
        assert {row.id for row in rows} | {item.id for item in aside} == {record.id for record in records}
        assert not any(row.trained[0] or not row.trained[1:].all() for row in rows)
        if rows:
            recipe = dataclasses.replace(RECIPE, max_length_tokens=max_length_tokens, fim=fim)
            report = examine(recipe, tokens, records, {"train": rows, "test": []}, aside, tokens.size)
            quiet = {name for name, check in BY_NAME.items() if check.group == "data"} | {"fim_share"}  # of tiny and repeated documents
            assert not [f for f in report.findings if not f.ok and f.check not in quiet]

    check()


def test_windows_end_at_line_ends_and_repeat_the_name(tokens):
    text = "".join(f"line {n} of the file\n" for n in range(60))
    rows, _ = split(encode_documents([document_of(text)], tokens, 64, None, 0))
    assert len(rows) > 5
    assert [row.piece for row in rows] == list(range(len(rows)))
    decoded = [tokens.decode(row.ids) for row in rows]
    assert all(one.startswith("<filename>a.py") for one in decoded)
    assert all(one.endswith("\n") for one in decoded[:-1])
    assert decoded[-1].endswith("\n<|endoftext|>")
    assert "".join(one.removeprefix("<filename>a.py").removesuffix("<|endoftext|>") for one in decoded) == text


def test_a_document_of_many_parts_goes_on_in_the_next_window(tokens):
    cells = [Part("<jupyter_start>", "")]
    for n in range(12):
        cells += [
            Part("<jupyter_text>", f"Step {n}"),
            Part("<jupyter_code>", f"x = {n}\n" * (40 if n == 5 else 2)),
            Part("<empty_output>", ""),
        ]
    record = Record(Source("x:1"), parts=tuple(cells))
    rows, aside = split(encode_documents([record], tokens, 64, Fim(rate=1.0), 0))
    assert not aside and len(rows) > 4
    decoded = [tokens.decode(row.ids) for row in rows]
    assert "".join(decoded) == "".join(cell.marker + cell.text for cell in cells) + "<|endoftext|>"
    begun = [one for one in decoded if not one.startswith("<jupyter")]
    assert 0 < len(begun) < len(rows), "only a cell that is longer than a window is cut"


@pytest.mark.parametrize("fim", [None, Fim(rate=1.0, spm_rate=0.0)])
def test_a_file_of_many_stands_behind_its_name(tokens, fim):
    files = {f"file_{number}.py": "x = 1\n" * size for number, size in enumerate((3, 9, 1, 30, 7, 12, 5, 20))}
    parts = [Part("<reponame>", "r"), *(p for name, text in files.items() for p in (Part(NAMED, name), Part("", "\n" + text)))]
    rows, aside = split(encode_documents([Record(Source("x:1"), parts=tuple(parts))], tokens, 80, fim, SEED))
    texts = [tokens.decode(row.ids) for row in rows]
    behind = ("\n", "<fim_prefix>")
    assert not aside and all(any(f"{NAMED}{name}{end}" in text for text in texts for end in behind) for name in files)
    assert fim is None or not any(text.startswith("\n") for text in texts)


@pytest.mark.parametrize("spm_rate", [0.0, 1.0])
def test_a_window_holds_one_piece_of_a_part(tokens, spm_rate):
    """Of two, the first alone would be permuted, and the second stand behind the middle."""
    behind = Part("", "\n\n<|system|>" + "😀" * 40)
    records = [Record(Source("x:1"), parts=(Part(NAMED, ""), behind, Part("<jupyter_code>", str(n)))) for n in range(20)]
    rows, aside = split(encode_documents(records, tokens, 34, fim := Fim(rate=1.0, spm_rate=spm_rate), SEED))
    recipe = dataclasses.replace(RECIPE, max_length_tokens=34, fim=fim)
    report = examine(recipe, tokens, records, {"train": rows, "test": []}, aside, tokens.size)
    assert [finding.ok for finding in report.findings if finding.check == "documents_are_whole"] == [True] and not aside


def test_a_window_that_grows_when_it_is_encoded_by_itself_is_split_again(tokens):
    """A cut inside a word gives other tokens than the whole has there; the second look is what keeps rows within the maximum."""
    text = "assistant " * 60 + "the default value is made once " * 40
    rows, aside = split(encode_documents([document_of(text)], tokens, 24, None, 0))
    assert not aside
    assert max(len(row.ids) for row in rows) <= 24
    pieces = document._windows(text, tokens.encode_with_offsets([text])[0].offsets, tokens, 20)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(ids == tokens.encode_texts([piece])[0] for piece, ids in pieces)


def test_a_permuted_window_that_does_not_fit_stays_as_it_was(tokens, monkeypatch):
    monkeypatch.setattr(document, "FIM_RESERVE_TOKENS", 0)
    text = "word word word word " * 40
    rows, _ = split(encode_documents([document_of(text)], tokens, 40, Fim(rate=1.0, spm_rate=0.0), 3))
    assert max(len(row.ids) for row in rows) <= 40
    permuted = [tokens.control["<fim_middle>"] in row.ids for row in rows]
    assert not all(permuted)


def test_too_little_room_and_nothing_to_train_are_counted(tokens):
    long_name = document_of("x = 1\n", name="n" * 90)
    empty = Record(Source("x:2"), parts=(Part("", ""),))
    _, aside = split(encode_documents([long_name, empty], tokens, 64, None, 0))
    assert [(item.reason, item.place) for item in aside] == [("over_long", "x:1"), ("nothing_trained", "x:2")]
    assert aside[0].tokens == aside[0].trained_tokens + 1 > 64


def test_sentinels_are_the_tokenizers_own(bases, tmp_path, tokens):
    """A tokenizer of the SantaCoder family spells them with hyphens."""
    text = (bases["starcoder"] / "tokenizer.json").read_text()
    for name in ("prefix", "middle", "suffix", "pad"):
        text = text.replace(f"<fim_{name}>", f"<fim-{name}>")
    (tmp_path / "tokenizer.json").write_text(text)
    (tmp_path / "tokenizer_config.json").write_text((bases["starcoder"] / "tokenizer_config.json").read_text())
    hyphens = load_tokens(tmp_path, None)
    records = [document_of(f"print({n})\n" * 3) for n in range(20)]
    fim = Fim(rate=1.0)
    rows, wanted = (split(encode_documents(records, t, 64, fim, SEED))[0] for t in (hyphens, tokens))
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(rows, wanted, strict=True))
    recipe = dataclasses.replace(RECIPE, fim=fim)
    assert examine(recipe, hyphens, records, {"train": rows, "test": []}, [], hyphens.size).ok


def test_an_unknown_marker_is_a_user_error(tokens):
    with pytest.raises(UserError, match="document marker '<repo_name>'"):
        list(encode_documents([Record(Source("x:1"), parts=(Part("<repo_name>", "r"), Part("", "x")))], tokens, 64, None, 0))


def test_rows_do_not_depend_on_how_documents_are_grouped(tokens, monkeypatch):
    records = [document_of(f"value = {n}\n" * (n + 1), name=f"{n}.py") for n in range(12)]
    whole, _ = split(encode_documents(records, tokens, 64, Fim(), 5))
    monkeypatch.setattr(document, "CHUNK_CHARACTERS", 1)
    single, _ = split(encode_documents(records, tokens, 64, Fim(), 5))
    assert [row.ids.tolist() for row in whole] == [row.ids.tolist() for row in single]
