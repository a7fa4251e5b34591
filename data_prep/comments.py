"""How much of a file is comment: what StarCoder asked of its Python, Java and JavaScript (bigcode-dataset, ``filtering.py``).

Pure. Comments and strings are told apart by one pattern a family of languages, not by a parser, so that a broken file has a share too.
Docstrings of Python count as comments, as they did there. Languages whose comments are not known here have no share.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

_QUOTED = r"\"(?:\\.|[^\"\\\n])*+\"?|'(?:\\.|[^'\\\n])*+'?"
_SLASHES = rf"(?P<comment>//[^\n]*+|/\*.*?(?:\*/|\Z))|{_QUOTED}|`(?:\\.|[^`\\])*+`?"
_HASHES = rf"(?P<comment>(?<!\S)#[^\n]*+)|{_QUOTED}"
_DASHES = rf"(?P<comment>--[^\n]*+|/\*.*?(?:\*/|\Z)|\{{-.*?(?:-\}}|\Z))|{_QUOTED}"
_PATTERNS: Mapping[str, str] = {
    **dict.fromkeys(("C", "C++", "C#", "Java", "JavaScript", "TypeScript", "Go", "Rust", "Kotlin", "Scala", "Swift", "Dart"), _SLASHES),
    **dict.fromkeys(("PHP", "Groovy", "Objective-C", "Zig", "Solidity", "Protocol Buffer", "CSS", "SCSS", "Less"), _SLASHES),
    **dict.fromkeys(("Shell", "Ruby", "R", "Perl", "YAML", "TOML", "Dockerfile", "Makefile", "CMake", "Elixir", "Julia"), _HASHES),
    **dict.fromkeys(
        ("SQL", "Haskell", "Lua", "Ada", "VHDL", "Elm"), rf"(?P<comment>--[^\n]*+|/\*.*?(?:\*/|\Z)|\{{-.*?(?:-\}}|\Z))|{_QUOTED}"
    ),
    "Python": (
        r"(?P<comment>#[^\n]*+|^[ \t]*+[rRuUbB]{0,2}(?:\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)))"
        rf"|\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)|{_QUOTED}"
    ),
    **dict.fromkeys(("HTML", "XML", "Markdown"), r"(?P<comment><!--.*?(?:-->|\Z))"),
}


@functools.cache
def _pattern(language: str) -> re.Pattern[str]:
    return re.compile(_PATTERNS[language], re.DOTALL | re.MULTILINE)


def comment_share(text: str, language: str | None) -> float | None:
    """Return the share of a text's characters that are comments, None for a language whose comments are not known.

    >>> comment_share("x = '# no'  # yes\\n", "Python"), comment_share("x", "Brainfuck")
    (0.2777777777777778, None)
    """
    if language not in _PATTERNS:
        return None
    size = sum(len(found["comment"]) for found in _pattern(language).finditer(text) if found["comment"] is not None)
    return size / len(text) if text else 0.0
