"""Whatever form a record has, what it holds is looked at: strings with escapes, blocks at any depth, sessions, code beside blocks."""

from __future__ import annotations

import json
import time

import pytest

from data_prep.matched_texts import quoted_in, texts_and_python
from made_up_benchmark import PROMPT, SOLUTION, posts_matcher, renamed
from starchat.dialogue import Part, Record, Source, ToolCall, Turn

WHOLE = PROMPT + SOLUTION


@pytest.fixture(scope="module")
def matcher(tmp_path_factory):
    return posts_matcher(tmp_path_factory.mktemp("posts"))


def found(matcher, text, python):
    """The fields and matchers by which a text is contaminated."""
    return {(match.field, match.matcher) for match in matcher.match(text, python) if match.contaminated}


def test_python_within_other_text(matcher):
    fenced = f"Sure:\n\n```python\nimport os\n\n{renamed(WHOLE)}\n```\n"
    record = Record(Source("a:1"), turns=(Turn("user", "Write it."), Turn("assistant", fenced)))
    text, python = texts_and_python(record)
    assert ("solution", "python") in found(matcher, text, python) and found(matcher, text, []) == set()
    prose = "As follows:\n\n" + "\n".join("    " + line for line in renamed(WHOLE).split("\n")) + "\n\nThat doesn't parse as a whole."
    assert ("solution", "python") in found(matcher, prose, [prose])


LIST = "\n".join("   " + line for line in ["```python", *renamed(WHOLE).split("\n"), "```"])
OUTSIDE = [
    f"Sure:\n\n```python\nimport os\n\n{renamed(WHOLE)}\n",
    f"1. Write it:\n\n{LIST}\n2. Call it.",
    f"~~~python\n{renamed(WHOLE)}\n~~~",
    f"{renamed(WHOLE)}\n\nUse it:\n\n```python\ndef main():\n    z0([1], 2)\n```\n",
    "The session:\n>>> " + renamed(WHOLE).partition("\n\n")[2].replace("\n", "\n... ") + "\n...\n>>> z0([1], 2)\n0\n",
]


@pytest.mark.parametrize("text", OUTSIDE, ids=["open", "list", "tildes", "beside", "session"])
def test_python_wherever_it_stands_in_an_answer(matcher, text):
    record = Record(Source("a:1"), turns=(Turn("user", "Write it."), Turn("assistant", text)))
    assert ("solution", "python") in found(matcher, *texts_and_python(record))


@pytest.mark.parametrize("depth", [1, 2])
def test_problems_within_strings(matcher, depth):
    said, renamed_code = f'{WHOLE}\n# \u00e9 "so"\n', renamed(WHOLE)
    for _ in range(depth):
        said, renamed_code = json.dumps({"path": "a.py", "code": said}), json.dumps({"path": "b.py", "code": renamed_code})
    call = Turn("assistant", "", tool_calls=(ToolCall("write", said),))
    written = Record(Source("a:1"), turns=(Turn("user", "Write it."), call))
    assert {("prompt", "verbatim"), ("solution", "verbatim"), ("solution", "ngrams"), ("solution", "python")} <= found(
        matcher, *texts_and_python(written)
    )
    file = Record(Source("a:1"), parts=(Part("<file_sep>", "a.jsonl"), Part("", f"\n{renamed_code}\n{{}}\n")))
    assert ("solution", "python") in found(matcher, *texts_and_python(file))


def test_strings_with_escapes_of_other_languages():
    assert quoted_in(r'x = "\d+ of them\n and of many others, \"all\" of them"') == ['\\d+ of them\n and of many others, "all" of them']
    assert quoted_in(r'x = "short\n"; y = "long enough but without any escape at all"') == []


def test_hostile_strings_take_no_time():
    for text in (
        '\\"' * 500_000,
        '"\\\\' * 300_000,
        ("\\" * 99 + '"') * 9999,
        '"' * 1_000_000,
        ">>> x\n" * 99_999,
        json.dumps("\\" * 500_000),
    ):
        begin = time.process_time()
        texts_and_python(Record(Source("a:1"), turns=(Turn("user", text), Turn("assistant", f"def {text}"))))
        assert time.process_time() - begin < 10


def test_all_texts_of_a_record_are_looked_at():
    calls = (ToolCall("run", "def of(arguments): pass"),)
    turns = (Turn("user", "question"), Turn("assistant", "def answer(): pass", tool_calls=calls))
    pair = Record(Source("a:1"), turns=turns, rejected=Turn("assistant", "no `x`\n```py\ndef rejected(): pass\n```"))
    text, python = texts_and_python(pair)
    assert all(word in text for word in ("question", "answer", "arguments", "rejected"))
    assert python == ["def answer(): pass", "def of(arguments): pass", "def rejected(): pass\n"]
    document = Record(Source("a:1"), parts=(Part("<file_sep>", "a.py"), Part("", "\ndef inside(): pass")))
    assert texts_and_python(document) == ("a.py\n\ndef inside(): pass", ["\ndef inside(): pass"])
