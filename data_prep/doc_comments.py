"""Functions with a comment above that says what they do, in languages other than Python.

Pure: a text in a language of `SCANNED` in, `Documented` out. Comments are found first; what follows one is a function if the
language's pattern says so. It ends at the first line that closes it at its own indentation or less; in languages with braces these
must then balance, strings and comments apart. Where the two disagree, or no end is found within `MAX_LINES`, `ambiguous` is set: such
a function is not used. This reads laid-out code, which is what repositories hold, without a grammar for each language.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import NamedTuple

MAX_HEADER_LINES = 15
MAX_LINES = 500
"""How far the end of a function is looked for: where none has an end, more would take the square of the text's length."""


class Documented(NamedTuple):
    """A function: its name, its class if known, its comment as plain text, and its code with the comment and without."""

    name: str
    owner: str | None
    doc: str
    code: str
    bare: str
    line: int
    ambiguous: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Syntax:
    """How a language writes functions: their first line, the comments above, what may stand between, and how they end."""

    header: re.Pattern[str]
    docs: tuple[re.Pattern[str], ...]
    between: re.Pattern[str] | None = None
    closes: str = "}"
    strings: re.Pattern[str] | None = None


_REST = r"[^*]*+(?:\*(?!/)[^*]*+)*+\*/(?:[ \t]*\n)?"
_BLOCK = re.compile(rf"^[ \t]*/\*[*!](?![*/]){_REST}", re.MULTILINE)
_PLAIN_BLOCK = re.compile(rf"^[ \t]*/\*(?![*!]){_REST}", re.MULTILINE)
_SLASHES = re.compile(r"^(?:[ \t]*//[/!](?!/)[^\n]*\n)+", re.MULTILINE)
_TWO_SLASHES = re.compile(r"^(?:[ \t]*//(?!/)[^\n]*\n)+", re.MULTILINE)
_HASHES = re.compile(r"^(?:[ \t]*#(?![!'#{])[^\n]*\n)+", re.MULTILINE)
_ROXYGEN = re.compile(r"^(?:[ \t]*#'[^\n]*\n)+", re.MULTILINE)
_DASHES = re.compile(r"^(?:[ \t]*--(?!\[)[^\n]*\n)+", re.MULTILINE)
_TRIPLE = re.compile(r'^[ \t]*"""\n.*?^[ \t]*"""[ \t]*\n', re.MULTILINE | re.DOTALL)

_C_STRINGS = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_JS_STRINGS = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`", re.DOTALL)
_GO_STRINGS = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`[^`]*`", re.DOTALL)
_RUST_STRINGS = re.compile(r"//[^\n]*|/\*.*?\*/|r(?P<hash>#+)\".*?\"(?P=hash)|\"(?:\\.|[^\"\\])*\"|'(?:\\[^']+|[^'\\\n])'", re.DOTALL)
_HASH_STRINGS = re.compile(r"(?<![\\$\w{])#[^\n]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL)

_NO_FUNCTION = r"(?!(?:if|for|while|switch|catch|return|function|else|do|new|throw|using|lock|sizeof|typeof|when|synchronized)\b)"
_C_HEADER = re.compile(rf"[^(){{}};=\"'#]{{0,300}}?(?<![\w~]){_NO_FUNCTION}(?P<name>~?[A-Za-z_]\w*(?:::~?\w+)*)[ \t]*\(")
_MODIFIER = r"(?:(?:public|private|protected|internal|static|abstract|final|async|override|readonly|get|set|export|default|declare)[ \t]+)"
_JS_HEADER = re.compile(
    rf"[ \t]*{_MODIFIER}*(?:function[ \t]*\*?[ \t]*(?P<name>[\w$]+)[ \t]*[(<]"
    r"|(?:const|let|var)[ \t]+(?P<bound>[\w$]+)[^=\n]{0,200}=[ \t]*(?:async[ \t]+)?"
    r"(?:function\b|\([^\n]*=>[ \t]*\{|\([^)\n]*$|[\w$]+[ \t]*=>[ \t]*\{)"
    rf"|\*?[ \t]*{_NO_FUNCTION}(?P<method>[\w$]+)[ \t]*(?:<[^>\n]*>)?\()",
    re.MULTILINE,
)
_ATTRIBUTES = re.compile(r"[ \t]*(?:@[\w.]+(?:\([^\n]*\))?|#!?\[[^\n]*\]|\[[\w(][^\n]*\])[ \t]*\n")

_C_LIKE = Syntax(_C_HEADER, (_BLOCK, _SLASHES, _PLAIN_BLOCK), None, "}", _C_STRINGS)
_JAVA_LIKE = Syntax(_C_HEADER, (_BLOCK, _SLASHES), _ATTRIBUTES, "}", _C_STRINGS)
_JS_LIKE = Syntax(_JS_HEADER, (_BLOCK,), _ATTRIBUTES, "}", _JS_STRINGS)


def _named(pattern: str, docs: tuple[re.Pattern[str], ...], closes: str = "}", strings: re.Pattern[str] | None = _C_STRINGS) -> Syntax:
    return Syntax(re.compile(pattern), docs, _ATTRIBUTES, closes, strings)


SCANNED: Mapping[str, Syntax] = {
    **dict.fromkeys(("C", "C++", "Objective-C", "Cuda"), _C_LIKE),
    **dict.fromkeys(("Java", "C#", "Dart", "Groovy"), _JAVA_LIKE),
    **dict.fromkeys(("JavaScript", "TypeScript", "TSX"), _JS_LIKE),
    "Go": _named(r"func[ \t]+(?:\([^)\n]*\)[ \t]*)?(?P<name>\w+)[ \t]*[(\[]", (_TWO_SLASHES, _PLAIN_BLOCK), strings=_GO_STRINGS),
    "Rust": _named(
        r"[ \t]*(?:pub(?:\([^)\n]*\))?[ \t]+)?(?:(?:default|const|async|unsafe|extern(?:[ \t]+\"[^\"\n]*\")?)[ \t]+)*fn[ \t]+(?P<name>\w+)",
        (_SLASHES, _BLOCK),
        strings=_RUST_STRINGS,
    ),
    "PHP": _named(r"[ \t]*(?:(?:public|private|protected|static|abstract|final)[ \t]+)*function[ \t]+&?(?P<name>\w+)[ \t]*\(", (_BLOCK,)),
    "Kotlin": _named(r"[ \t]*(?:\w+[ \t]+)*fun[ \t]+(?:<[^>\n]*>[ \t]*)?(?:[\w.<>?]+\.)?(?P<name>\w+)[ \t]*\(", (_BLOCK,)),
    "Scala": _named(r"[ \t]*(?:[\w\[\]]+[ \t]+)*def[ \t]+(?P<name>[\w$]+)", (_BLOCK,)),
    "Swift": _named(r"[ \t]*(?:[\w@]+(?:\([^)\n]*\))?[ \t]+)*func[ \t]+(?P<name>\w+)[ \t]*[(<]", (_SLASHES, _BLOCK)),
    "Zig": _named(r"[ \t]*(?:(?:pub|export|inline)[ \t]+)*fn[ \t]+(?P<name>\w+)[ \t]*\(", (_SLASHES,)),
    "R": _named(r"(?P<name>[\w.]+)[ \t]*(?:<-|=)[ \t]*function[ \t]*\(", (_ROXYGEN,), strings=_HASH_STRINGS),
    "Perl": _named(r"[ \t]*sub[ \t]+(?P<name>\w+)", (_HASHES,), strings=None),
    "Shell": _named(r"(?:function[ \t]+)?(?P<name>[\w:-]+)[ \t]*\(\)[ \t]*(?:\{|$)", (_HASHES,), strings=None),
    "Ruby": _named(r"[ \t]*(?:(?:private|protected|public)[ \t]+)?def[ \t]+(?P<name>[\w.]+[?!=]?)", (_HASHES,), "end", None),
    "Lua": _named(r"[ \t]*(?:local[ \t]+)?function[ \t]+(?P<name>[\w.:]+)[ \t]*\(", (_DASHES,), "end", None),
    "Julia": _named(r"[ \t]*function[ \t]+(?P<name>[\w.!]+)", (_TRIPLE,), "end", None),
}
"""The languages whose documented functions are found, each with how it writes them."""

_MARKERS = re.compile(r"^[ \t]*(?:/\*+!?|\*+/|\*(?!/)|//[/!]?|#'|#|---?(?:[ \t]*[|^])?)[ \t]?", re.MULTILINE)
_GOES_ON = re.compile(r"[ \t]*(?:rescue|ensure|else|catch|finally)\b")
_ONE_LINE = re.compile(r"\bend[ \t]*\n\Z")
_XML_TAGS = re.compile(r"</?(?:summary|para|remarks|returns|c|see|param|typeparam|value|example|exception)\b[^>\n]*>")


def documented_functions(text: str, language: str) -> Iterator[Documented]:
    """Yield the functions of a text with a comment directly above, in the order of the text.

    >>> [found] = documented_functions("// Add adds.\\nfunc Add(a, b int) int {\\n\\treturn a + b\\n}\\n", "Go")
    >>> found.name, found.doc, found.bare
    ('Add', 'Add adds.', 'func Add(a, b int) int {\\n\\treturn a + b\\n}\\n')
    """
    syntax = SCANNED[language]
    text = text if text.endswith("\n") else text + "\n"
    comments = sorted(match.span() for pattern in syntax.docs for match in _matches(pattern, text))
    end = 0
    for start, stop in comments:
        if start < end:
            continue
        begin = stop
        while syntax.between is not None and (attribute := syntax.between.match(text, begin)):
            begin = attribute.end()
        header = syntax.header.match(text, begin)
        if header is None:
            continue
        name = next(value for value in header.groups() if value)
        finish = _end(text, begin, syntax)
        if finish == begin:
            continue
        end = max(finish or 0, stop)
        code = text[start : finish or stop]
        bare = text[stop : finish or stop]
        doc = _plain(text[start:stop], language)
        line = text.count("\n", 0, start) + 1
        yield Documented(name, None, doc, textwrap.dedent(code), textwrap.dedent(bare), line, finish is None)


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield all comments but those with code behind them; to look for those that are never closed would take the square of the length."""
    closing = "*/" if pattern in (_BLOCK, _PLAIN_BLOCK) else '"""' if pattern is _TRIPLE else None
    last = len(text) if closing is None else text.rfind(closing) + len(closing)
    last = text.find("\n", last) + 1 if closing is not None and last >= len(closing) else last
    return (match for match in pattern.finditer(text, 0, last if last > 0 else 0) if match[0].endswith("\n"))


def _end(text: str, begin: int, syntax: Syntax) -> int | None:
    """Return where the function ends that begins at `begin`: `begin` itself if it has no body, None if that cannot be told."""
    width = _width(text, begin)
    lines = itertools.islice(_lines(text, begin), MAX_LINES)
    if syntax.closes == "end":
        start, stop = next(lines)
        if _ONE_LINE.search(text, start, stop):
            return stop
        for start, stop in lines:
            if text[start:stop].strip() and _width(text, start) <= width and not _GOES_ON.match(text, start):
                is_end = re.compile(r"[ \t]*end\b").match(text, start) is not None and _width(text, start) == width
                return stop if is_end else None
        return None
    opened = _opened(text, begin)
    if opened is None:
        return begin
    for start, stop in lines:
        if stop <= opened:
            continue
        is_close = text[start:stop].lstrip().startswith("}") and _width(text, start) <= width
        if start <= opened < stop and "}" in text[opened:stop] and _balanced(text[begin:stop], syntax, strictly=True):
            return stop
        if is_close:
            return stop if _balanced(text[begin:stop], syntax) else None
    return None


def _opened(text: str, begin: int) -> int | None:
    """Return where a function's brace opens, or None where the declaration ends before."""
    depth = lines = 0
    for match in re.compile(r"[(){};\n]").finditer(text, begin):
        sign = match[0]
        if sign == "\n":
            lines += 1
            if lines > MAX_HEADER_LINES:
                return None
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif depth <= 0:
            return match.start() if sign == "{" else None
    return None


def _balanced(code: str, syntax: Syntax, strictly: bool = False) -> bool:
    """Return whether brackets are closed. Languages too rich in quotes are believed their indentation, unless `strictly`."""
    if syntax.strings is None and not strictly:
        return True
    plain = syntax.strings.sub("", code) if syntax.strings else code
    return plain.count("{") == plain.count("}") and plain.count("(") == plain.count(")")


def _lines(text: str, begin: int) -> Iterator[tuple[int, int]]:
    while begin < len(text):
        stop = text.find("\n", begin) + 1 or len(text)
        yield begin, stop
        begin = stop


def _width(text: str, start: int) -> int:
    """Return how far a line is indented; a tab counts to the next multiple of four."""
    width = 0
    for position in range(start, len(text)):
        if text[position] == " ":
            width += 1
        elif text[position] == "\t":
            width += 4 - width % 4
        else:
            break
    return width


def _plain(comment: str, language: str) -> str:
    """Return a comment without its signs."""
    if language == "Julia":
        text = textwrap.dedent(comment.strip().removeprefix('"""').removesuffix('"""'))
    else:
        text = _MARKERS.sub("", comment.strip().removesuffix("*/"))
    text = _XML_TAGS.sub("", text) if language == "C#" else text
    return "\n".join(line.rstrip() for line in textwrap.dedent(text).strip().split("\n"))
