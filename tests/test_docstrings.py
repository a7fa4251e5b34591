"""Documented functions are found whole in every language, or are named as what cannot be used."""

from __future__ import annotations

import ast
import inspect
import textwrap
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import data_prep.clean
import data_prep.doc_comments
import starchat.config
from data_prep.doc_comments import SCANNED
from data_prep.docstrings import LANGUAGES, TEMPLATES, functions_of, turns_of, unused
from starchat.fences import code_blocks

CASES = {
    "C": ("/* Return the sum of two. */\nstatic int\nadd (int a, int b)\n{\n  if (a) { return '}'; }\n  return b; /* } */\n}\n", "add"),
    "C++": ("  /// Return width times height of it.\n  double Shape::area() const {\n    return w * h;\n  }\n", "Shape::area"),
    "C#": ("/// <summary>Multiplies width and height.</summary>\n[Pure]\npublic double Area() { return W * H; }\n", "Area"),
    "Java": ("/**\n * Gives all that is.\n * @param x a\n */\n@Override\npublic List<R> read(int x) {\n\treturn f(x);\n}\n", "read"),
    "JavaScript": ("/** Join all the parts. */\nexport const join = async (a, b) => {\n  return `${a}}` + b;\n};\n", "join"),
    "TypeScript": ("class A {\n  /** Puts all parts together. */\n  join(a: T): string {\n    return `{`;\n  }\n}\n", "join"),
    "Go": ("// Read reads all the rows.\nfunc (s *Store[T]) Read(n int) []Row {\n\tr := '{'\n\treturn s.rows[:n]\n}\n", "Read"),
    "Rust": ("/// Returns the longest one.\n#[inline]\npub fn longest<'a>(x: &'a T) -> &'a T\nwhere\n    T: A,\n{\n    x\n}\n", "longest"),
    "PHP": ("/**\n * Registers a new command.\n */\npublic static function register($name)\n{\n    return \"{$name}\";\n}\n", "register"),
    "Kotlin": ("/** Returns the sum of both. */\nprivate fun <T> List<T>.total(a: Int): Int {\n    return a\n}\n", "total"),
    "Scala": ("/** Returns the sum of both. */\ndef total(a: Int): Int = {\n  a\n}\n", "total"),
    "Swift": ("/// Returns the sum of both.\n@objc public func total(a: Int) -> Int {\n  return a\n}\n", "total"),
    "Zig": ("/// Returns the sum of both.\npub fn total(a: u8) u8 {\n  return a;\n}\n", "total"),
    "R": ("#' Mean of all the values\n#' @param x numbers\nmean.of <- function(x) {\n  # a }\n  sum(x) / length(x)\n}\n", "mean.of"),
    "Perl": ("# Return the first of the two.\nsub first {\n  my ($x) = @_;\n  return $x;\n}\n", "first"),
    "Shell": ("# Print a line to the log.\nlog_line() {\n  echo \"$1\"\n}\n", "log_line"),
    "Ruby": ("  # Public: Return a row.\n  def self.first?(a)\n    a.do |b|\n      b\n    end\n  rescue E\n    1\n  end\n", "self.first?"),
    "Lua": ("-- Return the sum of both.\nlocal function M.add(a, b)\n  local t = {}\n  return a + b\nend\n", "M.add"),
    "Julia": ('"""\n    total(a)\n\nReturn the sum of all.\n"""\nfunction total(a)\n  sum(a)\nend\n', "total"),
}  # fmt: skip
for same, like in (("Objective-C", "C"), ("Cuda", "C"), ("Dart", "Java"), ("Groovy", "Java"), ("TSX", "TypeScript")):
    CASES[same] = CASES[like]


def test_every_language_has_a_case():
    assert set(CASES) == set(SCANNED) and set(SCANNED) | {"Python"} == LANGUAGES


@pytest.mark.parametrize("language", sorted(SCANNED))
def test_a_documented_function_is_found_whole(language):
    text, name = CASES[language]
    before, after = "x = 1\n\n", "\nx = 2\n"
    (found,) = functions_of(before + text + after, language)
    assert (found.name, found.ambiguous, found.line) == (name, False, 3 + (language in ("TypeScript", "TSX")))
    assert unused(found, language, 80) is None, found
    inner = text.replace("class A {\n", "").removesuffix("}\n") if language in ("TypeScript", "TSX") else text
    assert found.code == textwrap.dedent(inner)
    assert found.code.endswith(found.bare) and len(found.bare) < len(found.code)
    assert found.doc.replace("total(a)", "").strip()[0].isalpha() and not set(found.doc) & set("/*#<>")
    cut = inner.rstrip().removesuffix("end").removesuffix("};").removesuffix("}")
    assert all(other.ambiguous for other in functions_of(cut, language)), "without its end, it is not used"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("Java", "/** Rows of a table, as read. */\npublic class Rows {\n  int read() { return 1; }\n}\n"),
        ("Java", "interface A {\n  /** Reads all rows of it. */\n  int read();\n}\n"),
        ("C", "/* The largest number there is. */\n#define MAX(a) ((a) > 1)\n"),
        ("C", "/* Calls it many times. */\nif (x) {\n  y();\n}\n"),
        ("C++", "/// The largest number there is.\nint max = f(1);\n"),
        ("JavaScript", "/** Loops over all of them. */\nfor (const a of b) {\n  c();\n}\n"),
        ("Go", "// Row is a row of a table.\ntype Row struct {\n\ta func() int\n}\n"),
        ("Go", "// A comment that stands alone.\n\nfunc Read() {\n}\n"),
        ("Ruby", "# A row of the table.\nclass Row\n  def a\n    1\n  end\nend\n"),
    ],
)
def test_what_is_no_function_or_has_no_comment(language, text):
    assert list(functions_of(text, language)) == []


def test_a_comment_beside_code_is_no_documentation_and_does_not_swallow_the_next():
    text = "/** The number. */ int n;\n/** Return the number of all. */\nint count(int x) {\n  return n;\n}\n"
    (found,) = functions_of(text, "C")
    assert (found.doc, found.line) == ("Return the number of all.", 2)
    assert list(functions_of(text.replace("\nint count", " int count").replace("/**", "/*"), "C")) == []


@pytest.mark.parametrize(
    "text",
    [
        "/** Joins all the parts here. */\nfunction join(a) {\n  if (a) {\n}\n  return a;\n}\n",
        "/** Joins all the parts here. */\nfunction join(a) {\n  return f(a;\n}\n",
    ],
)
def test_where_brackets_and_indentation_disagree(text):
    (found,) = functions_of(text, "JavaScript")
    assert found.ambiguous and unused(found, "JavaScript", 80)[0] == "ambiguous_end"


def test_python():
    text = '''import os

def plain(a, *, b=1):
    """Return the sum of both numbers."""

    return a + b

class Disc(Shape):
    """A disc."""

    @property
    def area(self):
        """Return the area.

        In square metres.
        """
        return f"""
    {3.14 * self.r ** 2}"""

    async def nothing(self): "One line of doc here"; return 1

try:
    import x
except ImportError:
    def x():
        """Stand in for the real thing."""
def undocumented():
    def inner():
        """Return what is inside of it."""
'''
    found = {function.name: function for function in functions_of(text, "Python")}
    assert list(found) == ["plain", "area", "nothing", "x"], "in the order of the text; functions in functions are part of them"
    assert found["plain"].bare == "def plain(a, *, b=1):\n    return a + b\n"
    assert found["area"].code.startswith('@property\ndef area(self):\n    """Return the area.\n\n    In square')
    assert found["area"].bare == '@property\ndef area(self):\n    return f"""\n{3.14 * self.r ** 2}"""\n'
    assert (found["area"].owner, found["area"].doc) == ("Disc", "Return the area.\n\nIn square metres.")
    reasons = {name: (fault := unused(function, "Python", 80)) and fault[0] for name, function in found.items()}
    assert reasons == {"plain": None, "area": None, "nothing": "ambiguous_end", "x": "stub"}


@pytest.mark.parametrize("module", [data_prep.clean, data_prep.doc_comments, starchat.config])
def test_functions_of_real_modules_parse_and_mean_the_same(module):
    """What is cut out of a file is the same function as in the file."""
    text = inspect.getsource(module)
    nodes = {node.name: node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and ast.get_docstring(node)}
    found = list(functions_of(text, "Python"))
    assert {function.name for function in found} <= set(nodes) and len(found) > 3
    for function in found:
        whole, bare = ast.parse(function.code).body[0], ast.parse(function.bare).body[0]
        assert ast.dump(whole) == ast.dump(nodes[function.name]) and ast.get_docstring(bare) is None
        assert ast.dump(ast.Module(bare.body, [])) == ast.dump(ast.Module(whole.body[1:], []))


@pytest.mark.parametrize("text", ["def f(:", "x = '\ud800'", "(" * 500, "-" * 90_000 + "1", "print 1"])
def test_python_that_does_not_parse(text):
    with pytest.raises(ValueError, match="."):
        list(functions_of(text, "Python"))


BODY = "\n    return a + 1\n"


@pytest.mark.parametrize(
    ("name", "doc", "body", "reason"),
    [
        ("test_a", "Check that both are the same.", BODY, "test_function"),
        ("f", "Todo: say what this is for.", BODY, "todo_doc"),
        ("f", "eslint-disable-next-line for this", BODY, "directive_doc"),
        ("f", ":param a: a number of things", BODY, "parameters_only_doc"),
        ("f", "Args:\n    a: a number of things", BODY, "parameters_only_doc"),
        ("read_all_rows", "Reads all the rows.", BODY, "name_only_doc"),
        ("f", "Do it.", BODY, "short_doc"),
        ("f", "Return the next number of all.", "\n    pass\n", "stub"),
        ("f", "Return the next number of all.", "\n    raise NotImplementedError('x')\n", "stub"),
        ("f", "Return the next number of all.", "\n    a = 1" * 90 + BODY, "long_function"),
        ("f", "Return the next number of all.", BODY, None),
        ("attest", "Testing is what this is about: see the todo list.", BODY, None),
        ("read", "Reads the rows, sorted.\n\n:param a: x", BODY, None),
    ],
)
def test_documentation_that_is_not_worth_it(name, doc, body, reason):
    (found,) = functions_of(f'def {name}(a):\n    """{doc}"""{body}', "Python")
    fault = unused(found, "Python", 80)
    assert (fault and fault[0]) == reason


@pytest.mark.parametrize(("body", "reason"), [("    if a:\n        return\n", None), ("    pass\n", "stub")])
def test_a_comment_behind_the_first_line_hides_no_body(body, reason):
    (found,) = functions_of(f'def f(a):  # noqa\n    """Return the next number of all."""\n{body}', "Python")
    fault = unused(found, "Python", 80)
    assert (fault and fault[0]) == reason


def test_turns_vary_by_hash_and_hold_the_code():
    found = [next(functions_of(CASES["Go"][0].replace("Read", f"Read{n}"), "Go")) for n in range(60)]
    pairs = [turns_of(function, "Go", 0, True) for function in found]
    shapes = {asked.content.replace(function.name, "NAME") for (asked, _), function in zip(pairs, found, strict=True)}
    assert len(shapes) == len(TEMPLATES) and all("Go function `Read" in asked.content for asked, _ in pairs)
    assert pairs == [turns_of(function, "Go", 0, True) for function in found]
    assert pairs != [turns_of(function, "Go", 1, True) for function in found]
    for (_, answer), function in zip(pairs, found, strict=True):
        assert code_blocks(answer.content) == [("go", function.code)]
        assert code_blocks(turns_of(function, "Go", 0, False)[1].content) == [("go", function.bare)]


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ('```python title="a.py"\nx\n```\ntext\n```python\ny\n```', [("python", "x\n"), ("python", "y\n")]),
        ("```{r}\nx\n```\n", [("", "x\n")]),
        ("````md\n```py\nx\n```\n````  \n", [("md", "```py\nx\n```\n")]),
        ("````md\n```py\nx\n`````\n```\ny\n```", [("md", "```py\nx\n"), ("", "y\n")]),
        ("`````\n```py\nx\n```\n", [("py", "x\n")]),
        ("```py\nx", []),
        ("```\n```", [("", "")]),
        ("```a``` is code\n```\nx\n```\n", [("", "x\n")]),
        ("```a\n" * 200_000, []),
        ("```a\n" * 200_000 + "```", [("a", "```a\n" * 199_999)]),
    ],
)
def test_blocks_of_markdown(text, blocks):
    begin = time.process_time()
    assert code_blocks(text) == blocks
    assert time.process_time() - begin < 10


@given(st.text(), st.sampled_from(sorted(LANGUAGES)), st.integers(0, 200))
def test_no_text_makes_the_scanner_fail(text, language, cut):
    sample = CASES.get(language, ('def f(a):\n    """Add one to it."""\n    return a + 1\n', "f"))[0]
    try:
        found = list(functions_of(sample[:cut] + text + sample[cut:], language))
    except ValueError:
        assert language == "Python"
        return
    for function in found:
        unused(function, language, 80)
        turns_of(function, language, 0, True)


@pytest.mark.parametrize("language", sorted(SCANNED))
@pytest.mark.parametrize(
    "text",
    [
        "/** " * 20_000,
        "/**\n" * 20_000 + "*/",
        "a* " * 20_000 + ";",
        "// x\n" * 20_000,
        "/** x */\n" + "a* " * 20_000,
        "# x\n# y\n\n" * 9_000,
        "/** x */ y\n" * 20_000,
        "/** x\n" * 20_000 + "*/ y\n",
    ],
)
def test_scanning_takes_no_longer_than_the_text_is(language, text):
    assert list(functions_of(text, language)) == []


def test_functions_without_an_end_take_no_longer_than_the_text_is():
    begin = time.process_time()
    found = list(functions_of("/// Adds one to it.\nfn f() {\n" * 10_000 + "}\n", "Rust"))
    assert [function.ambiguous for function in found] == [True] * 9_999 + [False]
    assert time.process_time() - begin < 20
