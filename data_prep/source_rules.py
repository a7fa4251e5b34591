"""Which source files are fit to learn from: the published rules of StarCoder and StarCoder2, by language and extension.

Pure: a text and its language in, a reason with its detail out, or None. StarCoder: bigcode-dataset ``preprocessing/filtering.py``
and ``visual_inspection.csv``, whose 305 rows mostly have the default thresholds; what differs stands in the tables here, and a row
without a decision has the default. StarCoder2: section 2.1 of its paper (arXiv 2402.19173).

``none`` has no thresholds.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import re
import string
from collections.abc import Mapping
from typing import Any, Literal

from data_prep.languages import type_of

Thresholds = Literal["starcoder", "starcoder2", "none"]
Fault = tuple[str, str]
"""A reason and its detail."""

KEPT_DATA = frozenset({"SQL", "JSON", "YAML", "Protocol Buffer", "GraphQL", "SPARQL"})
"""Languages of type data that hold something like code, besides those of a preset."""

KEPT: Mapping[Thresholds, frozenset[str]] = {
    "starcoder": frozenset({"CSS", "HTML", "Markdown", "reStructuredText", "TeX", "RMarkdown"}) | KEPT_DATA,
    "starcoder2": frozenset({"XML", "TOML", "Web Ontology Language", "Graphviz (DOT)"}) | KEPT_DATA,
    "none": frozenset({"XML", "TOML", "INI", "Web Ontology Language", "Graphviz (DOT)"}) | KEPT_DATA,
}
"""What is kept besides programming languages; all but StarCoder keep markup and prose too."""

OTHER_BUILDERS = frozenset({"Jupyter Notebook"})
"""Languages that a kind of source of their own reads."""


@dataclasses.dataclass(frozen=True)
class SourceRules:
    """Which files are taken: all that the `preset` says, and the keys beside it.

    `thresholds` are those that a model's authors published, by language; they decide also which languages are kept, unless `languages`
    (linguist's names) does. The rest is the same in both presets: StarCoder2 dropped generated files; vendored ones, Python that does
    not parse and files above a megabyte, which are data, are dropped by our own choice. Tests are kept: a firm's own are code as well.
    """

    preset: str
    thresholds: Thresholds = "none"
    languages: tuple[str, ...] | None = None
    tests: Literal["keep", "drop"] = "keep"
    generated: Literal["keep", "drop"] = "keep"
    vendored: Literal["keep", "drop"] = "keep"
    python_must_parse: bool = False
    min_file_bytes: int | None = None
    max_file_bytes: int | None = None
    max_function_lines: int | None = None


_OURS = {"generated": "drop", "vendored": "drop", "python_must_parse": True, "max_file_bytes": 1_000_000, "max_function_lines": 80}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "starcoder": {"thresholds": "starcoder", **_OURS},
    "starcoder2": {"thresholds": "starcoder2", **_OURS},
    "none": {},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds for one language; None means off. Shares are of all characters."""

    max_lines: int | None = None
    max_line_chars: int | None = None
    max_mean_line_chars: int | None = None
    min_alphanumeric: float | None = None
    min_alphabetic: float | None = None
    characters: tuple[int, int] | None = None
    no_xml: bool = False
    visible_html: bool = False
    encoded_data: bool = False
    names: frozenset[str] | None = None


_NO_LIMITS = Limits()
_STARCODER = Limits(max_line_chars=1000, max_mean_line_chars=100, min_alphanumeric=0.25, no_xml=True)
_STARCODER2 = Limits(max_lines=100_000, max_line_chars=1000, max_mean_line_chars=100, min_alphabetic=0.25, encoded_data=True)

_EXCLUDED: Mapping[str, frozenset[str]] = {
    "C": frozenset({".cats", ".w"}),
    "C#": frozenset({".csx"}),
    "Clojure": frozenset({".cl2"}),
    "Common Lisp": frozenset({".sexp"}),
    "Erlang": frozenset({".xrl"}),
    "Fortran": frozenset({".f77"}),
    "GLSL": frozenset({".frg", ".geo", ".vrx"}),
    "Groovy": frozenset({".grt"}),
    "Wolfram Language": frozenset({".cdf", ".nbp", ".wlt"}),
    "Pascal": frozenset({".dpr"}),
    "Perl": frozenset({".al", ".ph", ".plx"}),
    "Racket": frozenset({".rktd", ".rktl"}),
    "reStructuredText": frozenset({".rest"}),
    "SQL": frozenset({".pck", ".pls", ".tab"}),
    "PLSQL": frozenset({".pck", ".pls"}),
    "Standard ML": frozenset({".sig"}),
    "TeX": frozenset({".aux", ".ltx", ".toc"}),
    "VHDL": frozenset({".vhf", ".vht"}),
    "Visual Basic 6.0": frozenset({".frx"}),
    "Yacc": frozenset({".yy"}),
    "Bison": frozenset({".bison"}),
}
_ANY_LINES = frozenset(
    {".bsv", ".cmake", ".markdown", ".md", ".mkd", ".mkdn", ".ron", ".r", ".rst", ".rmd", ".sql", ".bbx", ".bib", ".cbx", ".dtx", ".ins"}
    | {".lbx", ".mkii", ".mkiv", ".mkvi", ".sty", ".tex", ".nb", ".ma", ".matlab", ".ado", ".do", ".frm", ".json"}
)
_ALPHABETIC = frozenset(
    {".ads", ".aug", ".fp", ".mpl", ".wl", ".scm", ".sld", ".sps", ".prc", ".sv", ".vhd", ".bas", ".y", ".ma", ".nb", ".matlab"}
)
_ANY_CHARACTERS = frozenset({".ma", ".nb", ".frm", ".sas"})
_XML_BY_NATURE = frozenset({"XSLT", "XML", "SVG"})

_LONG_LINES = frozenset({"HTML", "JSON", "Markdown", "Roff", "Roff Manpage", "SMT", "TeX", "Text", "XML"})
_FEW_LINES = frozenset({"Text", "JSON", "YAML", "Web Ontology Language", "Graphviz (DOT)"})
_TEXT_NAMES = frozenset({"requirements", "readme", "notes", "todo", "description", "cmakelists"})
_FEW_LETTERS = frozenset({"Motorola 68K Assembly", "WebAssembly"})

# As the paper prints them.
_ENCODED = (
    ("base64", re.compile(r"[a-zA-Z0-9+/\n=]{64,}")),
    ("hexadecimal", re.compile(r"(?:\b(?:0x|\\x)?[0-9a-fA-F]{2}(?:,|\b\s*)){8,}")),
    ("Unicode escapes", re.compile(r"(?:\\u[0-9a-fA-F]{4}){8,}")),
)
_HEX = b"0123456789abcdefABCDEF"


def _told_apart(signs: bytes) -> bytes:
    """Return a table by which `bytes.translate` tells some signs from all others."""
    return bytes(b"01"[sign in signs] for sign in range(256))


_RUNS = (
    (_told_apart(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\n="), b"", 64),
    (_told_apart(_HEX + b"x\\"), b" \t\n\r\v\f\x1c\x1d\x1e\x1f,?", 16),
    (_told_apart(_HEX + b"u\\"), b"", 48),
)
"""For each of `_ENCODED` its signs, what may stand between them (``?`` for what is not ASCII), and how many signs a match has at least.

To look for so long a run takes a fiftieth of what the expressions take."""

MAX_ENCODED_CHARS = 1024
MAX_ENCODED_SHARE = 0.5

# One match ends where the next begins, also for what is never closed: time grows with the length only.
_NO_TEXT = re.compile(
    r"<!--.*?(?:-->|\Z)|<(?P<tag>script|style)\b.*?(?:</(?P=tag)\s*>|\Z)|<[a-z/!?][^>]*(?:>|\Z)", re.DOTALL | re.IGNORECASE
)
MIN_VISIBLE_CHARS = 100
MIN_VISIBLE_SHARE = 0.2

_LETTERS = string.ascii_letters.encode()
_LETTERS_AND_DIGITS = _LETTERS + string.digits.encode()


def is_kept(language: str, thresholds: Thresholds) -> bool:
    """Return whether files of a language are kept at all.

    >>> is_kept("Go", "starcoder"), is_kept("CSV", "starcoder2"), is_kept("Vue", "starcoder2")
    (True, False, True)
    """
    if language in OTHER_BUILDERS:
        return False
    types = ("programming",) if thresholds == "starcoder" else ("programming", "markup", "prose")
    return type_of(language) in types or language in KEPT[thresholds]


@functools.cache
def limits_for(thresholds: Thresholds, language: str, extension: str) -> Limits | None:
    """Return the thresholds for files of a language, whose extension is in lower case with its dot; None if they are left out.

    >>> limits_for("starcoder", "Markdown", ".md").max_line_chars is None
    True
    >>> limits_for("starcoder", "C", ".cats") is None
    True
    """
    if thresholds == "none":
        return _NO_LIMITS
    if thresholds == "starcoder":
        return None if extension in _EXCLUDED.get(language, ()) else _starcoder(language, extension)
    if language in _LONG_LINES:
        limits = dataclasses.replace(_STARCODER2, max_line_chars=100_000, max_mean_line_chars=None)
    elif language in _FEW_LETTERS:
        limits = dataclasses.replace(_STARCODER2, min_alphabetic=None)
    else:
        limits = _STARCODER2
    if language in _FEW_LINES:
        limits = dataclasses.replace(limits, max_lines=512)
    if language == "Text":
        limits = dataclasses.replace(limits, names=_TEXT_NAMES)
    return dataclasses.replace(limits, visible_html=language == "HTML")


def _starcoder(language: str, extension: str) -> Limits:
    limits = dataclasses.replace(_STARCODER, no_xml=language not in _XML_BY_NATURE, visible_html=language == "HTML")
    if extension in _ANY_LINES:
        limits = dataclasses.replace(limits, max_line_chars=None, max_mean_line_chars=None)
    elif extension == ".fsh":
        limits = dataclasses.replace(limits, max_line_chars=500)
    if extension in _ANY_CHARACTERS:
        limits = dataclasses.replace(limits, min_alphanumeric=None)
    if extension in _ALPHABETIC:
        limits = dataclasses.replace(limits, min_alphabetic=0.25)
    if language in ("JSON", "YAML"):
        limits = dataclasses.replace(limits, min_alphabetic=0.5, characters=(50, 5000))
    return limits


def fault_of(text: str, limits: Limits) -> Fault | None:
    """Return why a text is not kept, or None; cheap rules come first.

    >>> fault_of("x = 1\\n" * 9 + "y" * 1001, limits_for("starcoder2", "Python", ".py"))
    ('long_line', '1001 characters in line 10; at most 1000')
    >>> fault_of("0, 1, 2, 3, 4, 5, 6\\n" * 20, limits_for("starcoder2", "C", ".c"))
    ('few_letters', '0 % of the characters are letters; at least 25 %')
    """
    if limits is _NO_LIMITS:
        return None
    if limits.no_xml and "<?xml version=" in text[:100]:
        return "xml", "begins as XML"
    if limits.characters is not None and not limits.characters[0] <= len(text) <= limits.characters[1]:
        least, most = limits.characters
        return "few_characters" if len(text) < least else "many_characters", f"{len(text)} characters; {least} to {most} are kept"
    if fault := line_fault(text, limits):
        return fault
    if fault := _few(text, limits):
        return fault
    if limits.visible_html and (fault := _little_visible(text)):
        return fault
    return encoded_data(text) if limits.encoded_data else None


def line_fault(text: str, limits: Limits) -> Fault | None:
    """Return the fault of a text that has too many lines, or whose longest line, or whose lines on average, have too many characters."""
    if limits.max_lines is limits.max_line_chars is limits.max_mean_line_chars is None:
        return None
    lengths = line_lengths(text)
    if limits.max_lines is not None and len(lengths) > limits.max_lines:
        return "many_lines", f"{len(lengths)} lines; at most {limits.max_lines}"
    longest = max(lengths, default=0)
    if limits.max_line_chars is not None and longest > limits.max_line_chars:
        return "long_line", f"{longest} characters in line {lengths.index(longest) + 1}; at most {limits.max_line_chars}"
    if limits.max_mean_line_chars is not None and sum(lengths) > limits.max_mean_line_chars * len(lengths):
        return "long_mean_line", f"{sum(lengths) / len(lengths):.1f} characters a line; at most {limits.max_mean_line_chars}"
    return None


def line_lengths(text: str) -> list[int]:
    """Return the characters of each line without its end, as the published filter counts: there is no line behind the last end.

    That is the-stack-v2's ``process_commit_pairs.py``: `str.splitlines`, and the number, the largest and the mean of the lengths.
    bigcode-dataset's ``filtering.py`` reads the same figures from columns that The Stack came with; how they were made is not published.

    >>> line_lengths("x = 1\\r\\n\\ny\\n"), line_lengths("")
    ([5, 0, 1], [])
    """
    return [len(line) for line in text.splitlines()]


def _few(text: str, limits: Limits) -> Fault | None:
    if limits.min_alphanumeric is not None and (share := _share(text, letters_only=False)) < limits.min_alphanumeric:
        return "few_alphanumerics", f"{share:.0%} of the characters are letters or digits; at least {limits.min_alphanumeric:.0%}".replace(
            "%", " %"
        )
    if limits.min_alphabetic is not None and (share := _share(text, letters_only=True)) < limits.min_alphabetic:
        return "few_letters", f"{share:.0%} of the characters are letters; at least {limits.min_alphabetic:.0%}".replace("%", " %")
    return None


def _share(text: str, letters_only: bool) -> float:
    """Return the share of letters, or of letters and digits; a text of ASCII is counted in C."""
    if not text:
        return 0.0
    if text.isascii():
        rest = text.encode("ascii").translate(None, _LETTERS if letters_only else _LETTERS_AND_DIGITS)
        return 1 - len(rest) / len(text)
    return sum(map(str.isalpha if letters_only else str.isalnum, text)) / len(text)


def _little_visible(text: str) -> Fault | None:
    visible = len(html.unescape(_NO_TEXT.sub("", text)))
    if visible <= MIN_VISIBLE_CHARS or visible / len(text) <= MIN_VISIBLE_SHARE:
        return "little_visible_text", f"{visible} of {len(text)} characters are text; more than 100 and 20 % are kept"
    return None


def encoded_data(text: str) -> Fault | None:
    """Return the fault of a text that is encoded data to a large part: one stretch of it is long, or all of them are half of the text.

    >>> encoded_data("data = '" + "QUJDREVG" * 200 + "'")
    ('encoded_data', 'a stretch of 1600 characters in base64')
    """
    data = text.encode("ascii", "replace")
    for (name, pattern), (signs, between, least) in zip(_ENCODED, _RUNS, strict=True):
        if b"1" * least not in data.translate(signs, between):
            continue
        total = 0
        for match in pattern.finditer(text):
            size = match.end() - match.start()
            if size > MAX_ENCODED_CHARS:
                return "encoded_data", f"a stretch of {size} characters in {name}"
            total += size
        if total > MAX_ENCODED_SHARE * len(text):
            return "encoded_data", f"{total} of {len(text)} characters in {name}"
    return None
