"""Code in Markdown is found wherever its fences stand, and told from prose in time that grows with the text only."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starchat.fences import blocks_of, code_blocks, code_spans, fenced, without_code

LINES = st.lists(st.sampled_from(["```", "````", "~~~", "  ```", "     ```", "\t```py", "```py", "`x`", "x", "", "``a`"]), max_size=12)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("1. First:\n\n   ```python\n   def f():\n       pass\n   ```\n", [("python", "def f():\n    pass\n")]),
        ("- a\n  - b\n\n      ```py\n      x\n      ```\n", [("py", "x\n")]),
        ("\t```go\n\tfunc f() {\n\t\tx\n\t}\n\t```\n", [("go", "func f() {\n\tx\n}\n")]),
        ("   ```make\n   all:\n   \techo\n   ```", [("make", "all:\n\techo\n")]),
        ("~~~ts\nx\n~~~\n", [("ts", "x\n")]),
        ("~~~ a ` b\nx\n~~~~\n", [("a", "x\n")]),
        ("~~~\n```\nx\n```\n~~~", [("", "```\nx\n```\n")]),
        ("``` python\nx\n```", [("python", "x\n")]),
        ('```py\n"""\n    ```\n    x\n    ```\n"""\n```\n', [("py", '"""\n    ```\n    x\n    ```\n"""\n')]),
        ("  - ```py\n```py\nx\n```", [("py", "x\n")]),
        ("   ```py\n   a\n   \u2028 b\n\n   c\n```", [("py", "a\n\u2028 b\n\nc\n")]),
        ("```py\r\nx\r\n```\r\n", [("py", "x\r\n")]),
    ],
)
def test_fences_of_all_kinds(text, blocks):
    assert code_blocks(text) == blocks


def test_a_block_without_an_end_goes_to_the_end_of_the_text():
    assert [(block.body, block.closed) for block in blocks_of("```\na\n```\nprose\n```py\nb\n")] == [("a\n", True), ("b\n", False)]
    assert [(block.body, block.closed) for block in blocks_of("`````\nprose\n```\na\n```\n")] == [("a\n", True)]
    assert [(block.body, block.closed) for block in blocks_of("```\n    ```\n")] == [("    ```\n", False)]


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("a `b` c ``d e`` f", "a `` c `` f"),
        ("a `b\nc` d", "a `b\nc` d"),
        ("1. x\n   ~~~\n   `y\n   ~~~\n2. `z", "1. x\n``\n2. `z"),
        ("```a``` is code\nand `b", "`` is code\nand `b"),
        ("a\n```py\nb", "a\n``"),
    ],
)
def test_prose(text, prose):
    assert without_code(text) == prose


@given(LINES)
def test_spans_are_those_of_blocks_and_in_order(lines):
    text = "\n".join(lines)
    spans, blocks = list(code_spans(text)), blocks_of(text)
    assert [end for _, end in spans] <= [start for start, _ in spans[1:]] + [len(text)]
    assert {(block.start, block.end) for block in blocks} <= set(spans)
    assert all(text[block.start : block.end].lstrip(" \t")[0] in "`~" for block in blocks)
    assert all(block.closed for block in blocks[:-1])


@given(st.text(), LINES, st.integers(0, 9))
def test_what_is_fenced_comes_back_at_any_depth(text, lines, depth):
    body = f"{text}\n" + "".join(f"{line}\n" for line in lines)
    assert code_blocks(fenced(body, "py")) == [("py", body)]
    inside = [f"{' ' * depth}{line}" for line in fenced(body).split("\n")]
    assert code_blocks("\n".join(inside)) == [("", body)]


def _staircase(count):
    return [" " * n + "`" * (n + 3) for n in range(1, count)]


@pytest.mark.parametrize(
    "lines",
    [
        *(["```x"], ["```x", "~~~y"], ["~~~"], ["    ```", "~~~"], ["`a"], ["``a`"], [" " * 999], ["```x "]),
        *([*_staircase(700), *["```x"] * 99], [*reversed(_staircase(700)), *["```x"] * 99]),
    ],
)
def test_hostile_texts_take_no_time(lines):
    text = "\n".join(lines * (1_000_000 // sum(len(line) + 1 for line in lines)))
    begin = time.process_time()
    without_code(text)
    assert time.process_time() - begin < 10
