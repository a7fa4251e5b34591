"""The language of a notebook, and its cells as code of that language alone.

Pure. A kernel's words for a language become names of `data_prep.languages`. For scripts, what only a notebook understands becomes
comments, as jupytext does it: IPython's line magics, shell commands and help (``%matplotlib inline``, ``!ls``, ``x = !ls``, ``?x``,
``x?``), and whole cells of another language (``%%bash``). A block of Python that begins with such a line gets a ``pass`` there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

from data_prep.documents import Cell
from data_prep.languages import languages
from data_prep.python_syntax import syntax_fault

KERNELS: Mapping[str, str] = {
    **dict.fromkeys(("ipython", "ipython2", "ipython3", "pypy", "pyspark", "pysparkkernel", "xpython", "conda", "py"), "Python"),
    **dict.fromkeys(("ir", "xr", "sparkr"), "R"),
    **dict.fromkeys(("bash", "sh", "zsh", "calysto_bash"), "Shell"),
    **dict.fromkeys(("js", "node", "nodejs", "jslab", "ijavascript", "deno"), "JavaScript"),
    **dict.fromkeys(("tslab", "ts"), "TypeScript"),
    **dict.fromkeys(("cpp", "xcpp", "cling"), "C++"),
    **dict.fromkeys(("csharp", ".net-csharp", "cs"), "C#"),
    **dict.fromkeys(("fsharp", ".net-fsharp", "ifsharp", "fs"), "F#"),
    **dict.fromkeys((".net-powershell", "pwsh"), "PowerShell"),
    **dict.fromkeys(("sagemath", "sage-math"), "Sage"),
    **dict.fromkeys(("octave", "xoctave"), "MATLAB"),
    **dict.fromkeys(("gophernotes", "gonb"), "Go"),
    **dict.fromkeys(("evcxr",), "Rust"),
    **dict.fromkeys(("ihaskell",), "Haskell"),
    **dict.fromkeys(("almond", "spylon", "spark", "apache_toree_scala"), "Scala"),
    **dict.fromkeys(("ijava", "jshell"), "Java"),
    **dict.fromkeys(("latex",), "TeX"),
}
"""Names that kernels and cell magics give to languages, in lower case, where they are not linguist's name or that with a version."""

_TIMERS = ("time", "timeit", "prun", "memit", "mprun", "lprun", "snakeviz", "pyinstrument", "scalene")
TRANSPARENT = frozenset({*_TIMERS, "capture", "px", "debug", "python", "python3"})
"""Cell magics behind which the notebook's own language goes on."""

_VERSION = re.compile(r"[-_ ]?v?(?<![\d.])\d[\d.]*+$")
_CELL_MAGIC = re.compile(r"%%(\w[\w.-]*)?")
_LINE_MAGIC = re.compile(r"\s*%{1,2}[A-Za-z]\w*(?:\s|$)")
_PYTHON_MAGIC = re.compile(
    r"(?:"
    r"%{1,3}[A-Za-z]"  # a magic
    r"|[!?]{1,2}\s*[\w.~$\\/{}*%\"'(-]"  # a shell command, or help
    r"|[\w.,\s\[\]'\"]*[\w\]]\s*=\s*(?:%{1,2}[A-Za-z]|!\s*\S)"  # what either gives, in a name
    r"|[%\w.*\[\]'\"()]+\?{1,2}\s*+;?\s*$"  # help behind a name
    r"|(?:cat|cd|cp|mv|rm|rmdir|mkdir|copy|ddir|echo|ls|ldir|ren|pip|conda)(?:\s+[^\s=,(]|\s*$)"  # magics that need no sign
    r")"
)
_PYTHON = re.compile(r"^[ \t]*(?:(?:import|from) \w|(?:def|class|for|with|while|if) [^\n]*:[ \t]*(?:#[^\n]*)?$)", re.MULTILINE)
_OPENS_BLOCK = re.compile(r":[ \t]*(?:#.*)?$")
_QUOTES = re.compile(r"\\.|#|\"{3}|'{3}|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[\"']")


def language_named(name: str | None) -> str | None:
    """Return the language that a kernel means, by its name in `data_prep.languages`, or None.

    >>> language_named("python3"), language_named("C++17"), language_named("julia-1.9"), language_named("elvish-like")
    ('Python', 'C++', 'Julia', None)
    """
    if name is None:
        return None
    lower = name.strip().lower()
    return next((found for word in (lower, _VERSION.sub("", lower)) if (found := KERNELS.get(word) or _by_name().get(word))), None)


@functools.cache
def _by_name() -> Mapping[str, str]:
    return {name.lower(): name for name in languages()}


def cell_language(source: str, language: str | None) -> str | None:
    """Return the language of a code cell: that of its magic, or the notebook's own.

    >>> cell_language("%%bash\\nls", "Python"), cell_language("%%time\\nf()", "Python"), cell_language("%%writefile a", "Python")
    ('Shell', 'Python', None)
    """
    magic = _CELL_MAGIC.match(source) if "%%" in source else None
    if magic is None or magic[1] is None or magic[1] in TRANSPARENT:
        return language
    return language_named(magic[1])


def is_python(source: str) -> bool:
    """Return whether a cell is Python, once what is IPython's own has become comments.

    >>> is_python("%time x = 1\\nprint(x)"), is_python("x <- 1; if (x) {}")
    (True, False)
    """
    return syntax_fault(without_magics(source, "Python", "#")) is None


def guess_python(cells: Sequence[Cell]) -> bool:
    """Return whether a notebook that does not say its language is one of Python: all of its code parses, and some is like nothing else.

    >>> guess_python([Cell("code", "import os\\nx = 1")]), guess_python([Cell("code", "x <- f(1)")])
    (True, False)
    """
    code = [cell.source for cell in cells if cell.kind == "code"]
    return any(map(_PYTHON.search, code)) and not any(" <- " in source for source in code) and all(map(is_python, code))


def without_magics(source: str, language: str | None, comment: str) -> str:
    """Return a code cell with what its language does not know as comments, unchanged where nothing is.

    >>> without_magics("%matplotlib inline\\nimport os\\nfiles = !ls", "Python", "#")
    '# %matplotlib inline\\nimport os\\n# files = !ls'
    >>> without_magics("%%bash\\nls", "Python", "#")
    '# %%bash\\n# ls'
    """
    if comment == "%":  # what looks like a magic is a comment there
        return source
    magic = _CELL_MAGIC.match(source) if "%%" in source else None
    if magic is not None and magic[1] is not None and magic[1] not in TRANSPARENT:
        return "\n".join(f"{comment} {line}" if line else comment for line in source.split("\n"))
    if language == "Python":
        return source if syntax_fault(source) is None else _commented_python(source)
    if "%" not in source:
        return source
    return "\n".join(f"{comment} {line}" if _LINE_MAGIC.match(line) else line for line in source.split("\n"))


def _commented_python(source: str) -> str:
    """Return Python with the lines commented that are IPython's, unless they begin within a string. A magic goes on behind a backslash
    and within brackets, as a statement does."""
    lines = []
    quote: str | None = None
    goes_on = opens_block = False
    depth = 0
    for line in source.split("\n"):
        bare = line.lstrip()
        if quote is None and (goes_on or _PYTHON_MAGIC.match(bare)):
            if "%" in bare or depth:
                depth += sum(map(line.count, "([{")) - sum(map(line.count, ")]}"))
            start = 0 if goes_on else len(line) - len(bare)
            lines.append(f"{line[:start]}{'pass  ' * opens_block}# {line[start:]}")
            opens_block = False
            goes_on = line.endswith("\\") or depth > 0
            depth = depth if goes_on else 0
            continue
        lines.append(line)
        if bare and bare[0] != "#":
            opens_block = _OPENS_BLOCK.search(bare) is not None
        if quote is not None or '"""' in line or "'''" in line:
            quote = _quote_behind(line, quote)
    return "\n".join(lines)


def _quote_behind(line: str, quote: str | None) -> str | None:
    """Return the triple quote that is open behind a line, which begins within `quote`, or outside of strings."""
    position = 0
    while True:
        if quote is not None:
            end = line.find(quote, position)
            if end < 0:
                return quote
            position, quote = end + 3, None
        found = _QUOTES.search(line, position)
        if found is None or found[0] == "#":
            return None
        position = found.end()
        if found[0] in ('"""', "'''"):
            quote = found[0]
