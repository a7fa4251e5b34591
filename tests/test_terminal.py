"""What a terminal shows: colours gone, cursor followed, and no input that costs more than its length."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.terminal import as_shown, plain

PIECES = ("a", "bc", " ", "\n", "\r", "\r\n", "\b", "\b\b", "\x1b[A", "\x1b[2A", "\x1b[K", "\x1b[2K", "\x1b[1m", "\x1b", "é", "[31m")
written = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ntext", "plain\ntext"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("  0%|    |\r 50%|##  |\r100%|####|\n", "100%|####|\n"),
        ("a long line\rok", "oklong line"),
        ("a long line\r\x1b[Kok", "ok"),
        ("a long line\x1b[2K\rok", "ok"),
        ("12%\b\b\b34%", "34%"),
        ("abc\b", "abc"),
        ("\b\bx", "x"),
        ("outer 0%\ninner 0%\r\x1b[A\router 9%\ninner 9%", "outer 9%\ninner 9%"),
        ("a\n\x1b[9Ab", "b\n"),
        ("\x1b[0;31mred\x1b[0m \x1b[1mbold\x1b[22m", "red bold"),
        ("\x1b]0;title\x07rest \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "rest link"),
        ("lost escape [31m stays", "lost escape [31m stays"),
        ("\x1b(Bset", "set"),
        ("end\x1b", "end"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert as_shown(text) == shown


@given(written)
def test_what_is_shown_is_shown_as_it_is(text: str) -> None:
    shown = as_shown(text)
    assert not {"\r", "\b", "\x1b"} & set(shown)
    assert as_shown(shown) == shown


@given(st.text(alphabet="ab \n\t", max_size=20))
def test_text_without_moves_is_untouched(text: str) -> None:
    assert as_shown(text) == plain(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "x" * 300_000 + "\ry" * 100_000,
        "y" * 100_000 + "\n\x1b[Ax" * 20_000,
        "\n" * 20_000 + "x" * 300_000 + "\x1b[Ax" * 20_000,
        "\x1b[" * 200_000,
        "\x1b]" * 200_000,
        "x\x1b[2K" * 100_000,
    ],
)
def test_hostile_output_takes_no_longer_than_its_length(text: str) -> None:
    begin = time.process_time()
    as_shown(text)
    assert time.process_time() - begin < 3
