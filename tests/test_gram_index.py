"""The compiled loops and numpy find the same, and what they find is what a plain search finds."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep import gram_kernels
from data_prep.gram_index import build_index, gram_hashes, python_tokens, stream_hashes, words_of
from data_prep.verbatim import MIN_BYTES, SPACE, bare, build_verbatim

ENGINES = ["numpy", *(["numba"] if importlib.util.find_spec("numba") else [])]
CODE = st.lists(
    st.sampled_from(
        [
            *(
                "if",
                "x",
                ".x",
                "for ",
                "in ",
                "a.b",
                "1",
                "1234",
                "12.5e-3",
                "0x1F",
                "'",
                '"',
                "'''",
                '"""',
                "\\",
                "#",
                "\n",
                " ",
                "->",
                "==",
                "(",
            ),
            *("é", "漢", "ª", "×", "。", "“", "\u0300", "\U0001f600", "\ud800", "_", "X9", "3if", "...", "\r\n", "\0"),
        ]
    ),
    max_size=40,
).map("".join)
TEXTS = st.one_of(CODE, st.text(max_size=60))
needs_numba = pytest.mark.skipif(len(ENGINES) == 1, reason="numba is not installed")


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@needs_numba
@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from(["words", "python"]))
@example("x = 1234 + 123", "python")
def test_both_engines_hash_alike(text, stream):
    one, two = (stream_hashes(encoded(text), stream, engine) for engine in ("numba", "numpy"))
    assert one.tolist() == two.tolist()


@settings(max_examples=120, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.integers(2, 4), st.sampled_from(["words", "python"]), st.sampled_from(ENGINES))
def test_shared_ngrams_are_those_of_a_plain_search(texts, size, stream, engine):
    text, *needles = [encoded(text) for text in texts]
    split = (lambda data: words_of(data.decode("utf-8", "surrogatepass"))) if stream == "words" else python_tokens
    index = build_index(stream, size, [gram_hashes(stream_hashes(needle, stream, engine), size) for needle in needles])
    plain = [{tuple(split(data)[i : i + size]) for i in range(len(split(data)) - size + 1)} for data in (text, *needles)]
    assert index.totals == tuple(len(grams) for grams in plain[1:])
    found = {shared.needle: shared.grams for shared in index.shared(text, 1e-9, engine)}
    assert all(0 < count <= len(plain[needle + 1] & plain[0]) for needle, count in found.items())
    assert set(found) == {needle for needle, grams in enumerate(plain[1:]) if grams & plain[0]}


FEW = "ab c\n"


@settings(max_examples=120, deadline=None)
@given(st.lists(st.text(FEW, min_size=50, max_size=90), min_size=1, max_size=6), st.text(FEW, max_size=20), st.sampled_from(ENGINES))
def test_verbatim_is_a_plain_search(needles, tail, engine):
    kept = [text for needle in needles if len(text := bare(needle.encode())) >= MIN_BYTES]
    index = build_verbatim(kept)
    for text in (tail.join(needles), needles[0][3:] + tail, tail + needles[-1][:-1], "".join(reversed(needles))):
        plain = bare(text.encode())
        found = index.found(text.encode(), engine)
        assert set(found) == {number for number, needle in enumerate(kept) if needle in plain}
        assert all(plain.startswith(kept[number], place) for number, place in found.items())


def test_a_needle_is_found_at_every_place():
    needle = bytes(range(97, 97 + 20)) + b"0123456789!"
    index = build_verbatim([needle, b"z" * 40])
    for engine in ENGINES:
        for place in range(40):
            assert index.found(b"-" * place + needle, engine) == {0: place}
            assert index.found(b" -\n" * place + needle.replace(b"5", b"6"), engine) == {}
        assert index.found(b"z" * 1000, engine) == {1: 0}


def test_streams():
    assert words_of("Add_1 über 加法。“x” 1.5") == [word.encode() for word in ("add_1", "über", "加", "法", "x", "1", "5")]
    body = b"return [x.size ** 2 for x in rows if x is not None and 'a' not in x.names]\n"
    rest = b'return [ (row.size)**2 for row in table  # why\n   if row is not None and "other" not in row.names ]'
    assert python_tokens(body) == python_tokens(rest) != python_tokens(body.replace(b"**", b"*"))
    assert python_tokens(b"123 1234 1.5 1_0 07") == [b"123", b"0.", b"0.", b"0.", b"07"]
    assert python_tokens(b'"""doc: if for while"""\nx = f(y)  # if') == [b'""', b"="]


def test_white_space_and_case_are_those_of_ascii():
    kernels = gram_kernels.compiled()
    data = bytes(range(256)) * 3
    index = build_verbatim([bare(data)[200:300]])
    assert index.found(data) == index.found(data, "numpy") == {0: 200}
    assert set(range(256)) - set(bare(data)) == set(SPACE) | set(range(ord("A"), ord("Z") + 1))
    assert kernels is None or len(vars(kernels)) == 4


def test_a_stretch():
    grams = gram_hashes(np.arange(1, 40, dtype=np.uint64), 3)
    index = build_index("words", 3, [grams[:4], grams[2:9]])
    assert index.totals == (4, 7) and len(index.grams) == 9


@pytest.mark.parametrize("text", ["'" * 100_000, "\\" * 100_000, '"""' + "\\" * 99_999, "'''" * 40_000, "a." * 50_000, "#" * 100_000])
def test_no_text_takes_long(text):
    for engine in ENGINES:
        stream_hashes(text.encode(), "python", engine)
        stream_hashes(text.encode(), "words", engine)
