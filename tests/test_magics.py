"""Languages of kernels, and cells as code of their language alone."""

from __future__ import annotations

import ast
import time

import pytest

from data_prep.documents import Cell
from data_prep.languages import FENCES, LINE_COMMENTS, fence_label, languages
from data_prep.magics import KERNELS, cell_language, guess_python, is_python, language_named, without_magics


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *(("python", "Python"), ("Python 3", "Python"), ("python3", "Python"), ("ipython3", "Python"), ("R", "R"), ("ir", "R")),
        *(
            ("julia-1.10", "Julia"),
            ("c++17", "C++"),
            ("bash", "Shell"),
            ("node", "JavaScript"),
            (".net-csharp", "C#"),
            ("octave", "MATLAB"),
        ),
        *(("scala", "Scala"), ("OCaml", "OCaml"), ("pythonic", None), ("", None), ("3", None), (None, None)),
    ],
)
def test_languages_of_kernels(name: str | None, language: str | None) -> None:
    assert language_named(name) == language


def test_every_name_is_one_of_the_table() -> None:
    assert set(KERNELS.values()) | set(FENCES) | set(LINE_COMMENTS) <= set(languages())
    assert all(name == name.lower() for name in KERNELS)


def test_fences() -> None:
    assert [fence_label(name) for name in ("Python", "R", "C++", "Shell", "Wolfram Language", None)] == [
        *("python", "r", "cpp", "bash", "wolframlanguage", "")
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("%matplotlib inline\nx = 1", "# %matplotlib inline\nx = 1"),
        ("!pip install x \\\n    --quiet\nx = 1", "# !pip install x \\\n#     --quiet\nx = 1"),
        ("files = !ls\nt = %timeit -o f()", "# files = !ls\n# t = %timeit -o f()"),
        ("a, b = !ls", "# a, b = !ls"),
        ("?len\nlen?\nlen??\nstr.*find*?", "# ?len\n# len?\n# len??\n# str.*find*?"),
        ("%%time\nf()", "# %%time\nf()"),
        ("%%capture out\n!ls\nf()", "# %%capture out\n# !ls\nf()"),
        ("%%bash\nls\n\necho", "# %%bash\n# ls\n#\n# echo"),
        ("%%writefile a.py\nx = 1", "# %%writefile a.py\n# x = 1"),
        ("%%html\n<b>", "# %%html\n# <b>"),
        ("pip install x", "# pip install x"),
        ("cd ..", "# cd .."),
        ("for x in y:\n    print(x)\n    !echo {x}", "for x in y:\n    print(x)\n    # !echo {x}"),
        (
            "if x:\n    !ls\n    !cd\nelse:  # y\n    # z\n\n    %f",
            "if x:\n    pass  # !ls\n    # !cd\nelse:  # y\n    # z\n\n    pass  # %f",
        ),
        ("%timeit f(a,\n          b)\ng()", "# %timeit f(a,\n#           b)\ng()"),
        ("!echo (\ng()", "# !echo (\ng()"),
        ('%time f()\ntext = """\n%time\n!ls\n"""', '# %time f()\ntext = """\n%time\n!ls\n"""'),
        ("%time f()\nx = 'it\\'s'  # \"\"\"\n!ls", "# %time f()\nx = 'it\\'s'  # \"\"\"\n# !ls"),
        ("%time f()\na = ''' x ''' + '''\n!ls '''\n!ls", "# %time f()\na = ''' x ''' + '''\n!ls '''\n# !ls"),
    ],
)
def test_what_is_ipythons_becomes_comments(source: str, expected: str) -> None:
    assert without_magics(source, "Python", "#") == expected
    ast.parse(expected)


@pytest.mark.parametrize(
    "source",
    [
        'print("%d"\n      %x)',
        'text = """\n%time\n!ls\n"""',
        "x = 7 %3",
        "ls = 3\nls",
        "if a != b: pass",
        "cat = 1\nmv = cat",
        "def f(:",
        "this is no code",
        "a = b ! c",
    ],
)
def test_what_is_not_is_spared(source: str) -> None:
    assert without_magics(source, "Python", "#") == source


@pytest.mark.parametrize(
    ("source", "language", "expected"),
    [
        ("%%R\nx <- 1", "Julia", "# %%R\n# x <- 1"),
        ("%time f()\nx %in% y", "R", "# %time f()\nx %in% y"),
        ("%in% y", "R", "%in% y"),
        ("% a comment\n%% a section", "MATLAB", "% a comment\n%% a section"),
        ("!ls", "R", "!ls"),
        ("%%module\n%comment\nf() -> ok.", "Erlang", "%%module\n%comment\nf() -> ok."),
    ],
)
def test_other_languages(source: str, language: str, expected: str) -> None:
    assert without_magics(source, language, LINE_COMMENTS[language]) == expected


def test_the_language_of_a_cell() -> None:
    assert cell_language("x = '%%R'", "Python") == "Python"
    assert [cell_language(f"%%{magic}\nx", "Python") for magic in ("R", "js", "timeit -n 1", "capture", "script false", "")] == [
        *("R", "JavaScript", "Python", "Python", None, "Python")
    ]


def test_guessing_python() -> None:
    assert is_python("%time\nprint(1)") and not is_python('print "1"')
    assert guess_python([Cell("text", "x"), Cell("code", "%pylab\nimport os"), Cell("code", "!ls")])
    assert guess_python([Cell("code", "for x in y:  # all\n    print(x)")])
    assert not guess_python([Cell("code", "import os"), Cell("code", "x <- function(y) y")]), "all of it must parse"
    assert not guess_python([Cell("code", "import Base"), Cell("code", "x <- 1")]), "R, though Python reads it as a comparison"
    assert not guess_python([Cell("code", "print(x)")]), "which other languages say as well"
    assert not guess_python([Cell("text", "import os")])


@pytest.mark.parametrize(
    "source",
    [
        *(" " * 200_000 + "x", "a." * 100_000 + "!", "%x\n" + "'" * 200_000, "(" * 100_000, '%x\nx = "' + "\\" * 200_000),
        *("a?" + " " * 100_000 + "x", "1." * 50_000 + "x"),
    ],
)
def test_hostile_code_takes_no_longer_than_its_length(source: str) -> None:
    begin = time.process_time()
    without_magics(source, "Python", "#")
    language_named(source)
    assert time.process_time() - begin < 3
