"""Functions are the same in whatever names and lay-out, and no others are."""

from __future__ import annotations

import ast

import pytest

from data_prep.canonical_python import canonical_functions, functions_in
from data_prep.python_syntax import python_tree
from made_up_benchmark import PROMPT, SECOND_PROMPT, SECOND_SOLUTION, SOLUTION, renamed

BASE = '''
import numpy as np

def spread(values, low=0, *rest, **options):
    """How far apart."""
    kept = [value for value in values if value > low]
    try:
        total = np.sum(kept) + options.get("more", 1)
    except ValueError as error:
        raise KeyError(f"no {error!r}") from error
    while (step := total - 1) > 3:
        total -= step
    return lambda item: item * total
'''
SAME = {
    "names": BASE.replace("kept", "k").replace("value", "v").replace("error", "e").replace("total", "t").replace("spread", "f"),
    "quotes": BASE.replace('"more"', "'more'"),
    "docstring": BASE.replace('    """How far apart."""\n', "    '''Other.'''\n    'and more'\n"),
    "comments": BASE.replace("try:", "try:  # it\n        # may fail"),
    "annotations": BASE.replace("low=0", "low: int = 0").replace("kept = ", "kept: list[int] = ").replace("options):", "options) -> None:"),
    "decorator": BASE.replace("def ", "@cached\ndef "),
    "layout": BASE.replace("np.sum(kept) + ", "(np.sum(kept)\n            + ").replace('"more", 1)', '"more", 1))'),
    "alias": BASE.replace("as np", "as num").replace("np.", "num."),
    "unparsed": ast.unparse(ast.parse(BASE)),
    "carriage returns": BASE.replace("\n", "\r\n"),
}
OTHER = {
    "operator": BASE.replace("value > low", "value >= low"),
    "constant": BASE.replace("> 3", "> 4"),
    "type of a constant": BASE.replace("low=0", "low=0.0"),
    "text": BASE.replace("more", "most"),
    "attribute": BASE.replace("np.sum", "np.prod"),
    "import": BASE.replace("numpy", "torch"),
    "builtin": BASE.replace("ValueError", "TypeError"),
    "order of names": BASE.replace("total -= step", "step -= total"),
    "argument": BASE.replace("low=0, *rest", "low=0"),
    "keyword": BASE.replace('get("more", 1)', 'get(key="more", default=1)'),
    "statement": BASE.replace("    return", "    print()\n    return"),
    "branch": BASE.replace("while", "if"),
}


def digest(text):
    return canonical_functions(text)[0].digest


@pytest.mark.parametrize("name", SAME)
def test_same(name):
    assert SAME[name] != BASE and digest(SAME[name]) == digest(BASE)


@pytest.mark.parametrize("name", OTHER)
def test_other(name):
    assert OTHER[name] != BASE and digest(OTHER[name]) != digest(BASE)


def test_functions_of_the_same_file_are_names_of_its_author():
    text = "def step(x):\n    return x * 2 + 1\n\ndef walk(n):\n    return [step(i) for i in range(n)]\n"
    first, second = ([f.digest for f in canonical_functions(code)] for code in (text, text.replace("step", "go").replace("walk", "all_of")))
    assert first == second
    assert digest("def walk(n):\n    return [max(i) for i in range(n)]") != digest("def walk(n):\n    return [min(i) for i in range(n)]")


def test_renaming_everything():
    for code in (PROMPT + SOLUTION, SECOND_PROMPT + SECOND_SOLUTION):
        one, two = canonical_functions(code)[0], canonical_functions(renamed(code))[0]
        assert (one.digest, one.size, one.statements) == (two.digest, two.size, two.statements) and one.name != two.name


def test_inner_functions_methods_and_the_rest():
    text = "x = 1\nclass A:\n    async def m(self):\n        def inner(y):\n            return y\n        return inner\nprint(x + 1)\n"
    found = {function.name: function for function in canonical_functions(text)}
    assert set(found) == {"m", "inner", ""} and found["inner"].line == 4
    assert found[""].code == "x = 1\nprint(x + 1)" and found["inner"].code == "return y"
    assert [function.name for function in canonical_functions(text, lambda code: "y" in code and "inner" not in code)] == ["inner"]


def test_statements_within_others():
    plain, deep = (
        canonical_functions(f"def f(a):\n{body}")[0].statements for body in ("    a = 1\n    b = a\n", "    if a:\n        a = 1\n")
    )
    assert len(plain) == 2 and len(deep) == 2 and plain[0] == deep[1]


def test_pieces_of_a_text_that_does_not_parse():
    text = "Look:\n\n  def f(x):\n    return (x +\n            1)\n  def g(:\n    pass\n  def h(y):\n    return y\nend of it\n"
    assert [(f.name, f.line) for f in functions_in(text, lambda code: True) if f.name] == [("f", 3), ("h", 8)]
    assert functions_in(text, lambda code: False) == []


@pytest.mark.parametrize("text", ["def f(:", "x = (" * 400, "\0", "def f():\n" + "-" * 30_000 + "1", "\ud800"])
def test_what_is_no_python(text):
    with pytest.raises(ValueError):
        canonical_functions(text)
    assert functions_in(text, lambda code: True) == []


def test_every_kind_of_syntax_can_be_spelled():
    path = ast.__file__
    with open(path, encoding="utf-8") as file:
        text = file.read()
    cases = ("case {'a': x, **rest} | [x, *rest] if x: return rest", "case A(b=1) as y: del y")
    match = f"def f(p):\n    match p:\n        {cases[0]}\n        {cases[1]}\n"
    for code in (text, match, match.replace("rest", "others").replace("x", "z")):
        assert len(canonical_functions(code)) > 1 and python_tree(code)
    assert digest(match) == digest(match.replace("rest", "others").replace("x", "z")) != digest(match.replace("b=1", "c=1"))
