"""Which licence a text is: a whole licence file, or the header of a source file.

In: a text. Out: an SPDX expression, or None where nothing is recognised. Texts to compare with are those that the package `identify`
carries (choosealicense.com, CC-BY-3.0); its own comparison, an edit distance of the whole files, knows neither an Apache licence
without its appendix nor two licences in one file, and takes the JSON licence for the MIT one. Here the share of a licence's
four-word sequences that stand in the file decides, so that names, titles and copyright lines hardly count.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

from data_prep.licenses import license_ids

WORDS = 4
MIN_COVERAGE = 0.9
MIN_BSD_COVERAGE = 0.75  # its parties are named in the middle of sentences
MAX_UNEXPLAINED = 0.3
MAX_LICENSE_CHARS = 100_000
HEADER_CHARS = 3000

Shingles = frozenset[tuple[str, ...]]


class Known(NamedTuple):
    """The sequences of a licence's terms, and those of its whole text, with how to apply it."""

    terms: Shingles
    whole: Shingles


_WORD = re.compile(r"[a-z0-9]+")
_COPYRIGHT = re.compile(
    r"^[^\w\n]*(?:(?:copyright|\(c\)|©)[ \t]*(?:\(c\)|©|&copy;|\d{4}|\[|<|by\b|of\b|\d)|all rights reserved).*$", re.MULTILINE
)
_APPENDIX = "END OF TERMS AND CONDITIONS"

# The text of a GNU licence alone does not say "or any later version"; files do.
_CURRENT_ID = {f"{name}": f"{name}-only" for name in ("GPL-2.0", "GPL-3.0", "AGPL-3.0", "LGPL-2.1", "LGPL-3.0")}
_BSD = ("BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear")

# Conditions that are put into a licence or behind it; with them it is another one.
_RIDERS = (
    ("for good not evil", "JSON"),
    ("commons clause", "LicenseRef-Commons-Clause"),
    ("non commercial", "LicenseRef-non-commercial"),
    ("noncommercial", "LicenseRef-non-commercial"),
    *((phrase, "LicenseRef-further-conditions") for phrase in ("may not", "shall not", "must not", "prohibited", "forbidden")),
)

_SPDX_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*(?P<expression>[^\n\r]*)")
_NAME = r"(?:\(\s*)*[A-Za-z0-9][\w.+-]*(?:\s*\))*"
_EXPRESSION = re.compile(rf"{_NAME}(?:\s+(?:AND|OR|WITH)\s+{_NAME})*")
_GNU = re.compile(r"GNU\s+(?P<which>Lesser|Library|Affero)?\s*General\s+Public\s+Licen[sc]e(?P<rest>.{0,400})", re.DOTALL | re.IGNORECASE)
_VERSION = re.compile(r"\bv(?:ersion)?\.?\s*(?P<number>\d(?:\.\d)?)", re.IGNORECASE)
_GNU_NAMES = {"": "GPL", "lesser": "LGPL", "library": "LGPL", "affero": "AGPL"}

# What a notice says in place of the text, in lower case with single spaces.
_NOTICES = (
    (re.compile(r"licensed (?:to .{0,120})?under the apache license,? version 2\.0|www\.apache\.org/licenses/license-2\.0"), "Apache-2.0"),
    (re.compile(r"mozilla public license,? v(?:ersion|\.)? ?2\.0|mozilla\.org/mpl/2\.0"), "MPL-2.0"),
    (re.compile(r"eclipse public license,? (?:- )?v(?:ersion)? ?2\.0|eclipse\.org/legal/epl-(?:v20|2\.0)"), "EPL-2.0"),
    (re.compile(r"eclipse public license,? (?:- )?v(?:ersion)? ?1\.0|eclipse\.org/legal/epl-v10"), "EPL-1.0"),
    (re.compile(r"python software foundation license version 2"), "PSF-2.0"),
    (re.compile(r"(?:under|with|to) the (?:terms of the )?mit licen[sc]e|@licen[sc]e:? mit\b|opensource\.org/licenses/mit"), "MIT"),
    (re.compile(r"boost software license,? (?:- )?version 1\.0"), "BSL-1.0"),
    (re.compile(r"\bproprietary and confidential\b|\bconfidential and proprietary\b"), "LicenseRef-proprietary"),
)
_GAP = re.compile(r"(?<![\s*#/;%!-])[*#/;%!-]*+\s[\s*#/;%!-]*")
"""The signs of comments around white space, from the first of them on."""

_NOTICE_SIGNS = ("license", "licence", "proprietary", "spdx", "redistribution", "permission")
"""One of these is in every notice, in whatever case."""


def license_of_text(text: str) -> str | None:
    """Return the SPDX expression of a licence file: every licence that it holds, joined by ``AND``; None if more than that is in it.

    >>> license_of_text("Do what you want.") is None
    True
    """
    text = text[:MAX_LICENSE_CHARS]
    words = _words(text)
    rest = everything = _shingles(words)
    found: set[str] = set()
    while True:
        scores = [(len(known.terms & rest) / len(known.terms), len(known.terms), name) for name, known in _known().items()]
        coverage, _, name = max(scores)
        if coverage < (MIN_BSD_COVERAGE if name in _BSD else MIN_COVERAGE):
            break
        found.add(_which_bsd(text) if name in _BSD else _CURRENT_ID.get(name, name))
        rest = rest.difference(*(_known()[each].whole for each in (_BSD if name in _BSD else (name,))))
    if not found:
        return header_license(text)
    if len(rest) > MAX_UNEXPLAINED * len(everything):
        return None
    return " AND ".join(sorted(found | _riders(rest)))


def _riders(rest: Shingles) -> set[str]:
    """Return the licences that conditions outside the known texts make of them."""
    unexplained = {" ".join(shingle) for shingle in rest}
    return {identity for phrase, identity in _RIDERS if any(phrase in text for text in unexplained)}


def header_license(text: str) -> str | None:
    """Return the SPDX expression that the head of a file states, by a tag or by a notice in words; None if it states none.

    >>> header_license("// SPDX-License-Identifier: MIT OR Apache-2.0\\nfn main() {}")
    'MIT OR Apache-2.0'
    >>> header_license("# under the GNU General Public License, version 2 or any later version")
    'GPL-2.0-or-later'
    """
    head = text[:HEADER_CHARS]
    lowered = head.lower()
    if not any(sign in lowered for sign in _NOTICE_SIGNS):
        return None
    if tags := [expression for match in _SPDX_TAG.finditer(head) if (expression := _tag(match["expression"]))]:
        distinct = sorted(set(tags))
        return distinct[0] if len(distinct) == 1 else " AND ".join(f"({x})" if " " in x else x for x in distinct)
    if gnu := _GNU.search(head):
        return _gnu(gnu["which"] or "", gnu["rest"])
    plain = " ".join(_GAP.sub(" ", lowered).split())
    found = {name for pattern, name in _NOTICES if pattern.search(plain)}
    if "permission is hereby granted, free of charge, to any person obtaining" in plain:
        found.add("JSON" if "for good, not evil" in plain else "MIT")
    if "redistribution and use in source and binary forms" in plain:
        found.add(_which_bsd(head))
    return (" OR " if "at your option" in plain else " AND ").join(sorted(found)) or None


def is_expression(text: str) -> bool:
    """Return whether a text has the form of an SPDX expression.

    >>> is_expression("(MIT OR Apache-2.0) AND BSD-3-Clause"), is_expression("see the file LICENSE")
    (True, False)
    """
    return _EXPRESSION.fullmatch(text) is not None and text.count("(") == text.count(")")


def _tag(stated: str) -> str | None:
    """Return the expression behind a tag, without the end of the comment that it stands in."""
    found = _EXPRESSION.match(stated.strip())
    expression = found[0].strip() if found else ""
    while expression.count(")") > expression.count("(") and expression.endswith(")"):
        expression = expression[:-1].rstrip()
    expression = re.sub(r"(?<=\w)-+$", "", expression)
    return expression if expression and is_expression(expression) and license_ids(expression) else None


def _gnu(which: str, rest: str) -> str:
    name = _GNU_NAMES[which.lower()]
    version = _VERSION.search(rest)
    if version is None:
        return f"LicenseRef-{name}"
    number = version["number"] if "." in version["number"] else f"{version['number']}.0"
    later = re.search(r"(?:any|or)\W+(?:\w+\W+){0,4}later", rest, re.IGNORECASE)
    return f"{name}-{number}-{'or-later' if later else 'only'}"


def _which_bsd(text: str) -> str:
    """Return which BSD licence a text is, by the clauses that it has."""
    joined = " ".join(_WORD.findall(text.lower()))
    if "advertising materials mentioning features" in joined:
        return "BSD-4-Clause"
    if "no express or implied licenses to any party" in joined:
        return "BSD-3-Clause-Clear"
    return "BSD-3-Clause" if "neither the name" in joined or "endorse or promote products" in joined else "BSD-2-Clause"


def _words(text: str) -> list[str]:
    return _WORD.findall(_COPYRIGHT.sub("", text.lower()))


def _shingles(words: list[str]) -> Shingles:
    return frozenset(zip(*(words[start:] for start in range(WORDS)), strict=False))


@functools.cache
def _known() -> Mapping[str, Known]:
    """Return the four-word sequences of each licence."""
    from identify.vendor.licenses import LICENSES

    return {name: Known(_shingles(_words(text.partition(_APPENDIX)[0])), _shingles(_words(text))) for name, text in LICENSES}
