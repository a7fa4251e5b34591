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
HEADS_HELD = 1024
"""Heads whose licence is remembered: the commits of a file hardly ever change its head, and each is looked at."""

UNRECOGNISED = "LicenseRef-unrecognised"
"""What is stated is known to be something, not known what."""

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
    *((phrase, "LicenseRef-further-conditions") for phrase in ("not permitted", "not allowed", "paid licen", "commercial licen")),
    *((phrase, "LicenseRef-further-conditions") for phrase in ("commercial use", "commercial purpose", "educational use", "internal use")),
)

_SPDX_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*(?P<expression>[^\n\r]*)")
_NAME = r"(?:\(\s*)*[A-Za-z0-9][\w.+-]*(?:\s*\))*"
_EXPRESSION = re.compile(rf"{_NAME}(?:\s+(?:AND|OR|WITH)\s+{_NAME})*")
_TAG_END = re.compile(r"""["'`\\<]|\*+[/)]|-+>|[#%?-]\}|[%?]>|copyright|\(c\)|©""", re.IGNORECASE)
"""What ends the comment or the text of a program that a tag stands in, or the tag within it."""

_OPERATORS = (
    (re.compile(r"\s*(?:/|\|+)\s*"), " OR "),
    (re.compile(r"\s*[,;&]+\s*"), " AND "),
    (re.compile(r"(?<=[\s)])(?:and|or|with)(?=[\s(])", re.IGNORECASE), lambda found: found[0].upper()),
)
_GNU = re.compile(r"GNU\s+(?P<which>Lesser|Library|Affero)?\s*General\s+Public\s+Licen[sc]e(?P<rest>.{0,400})", re.DOTALL | re.IGNORECASE)
_VERSION = re.compile(r"\bv(?:ersion)?\.?\s*(?P<number>\d(?:\.\d)?)", re.IGNORECASE)
_GNU_NAMES = {"": "GPL", "lesser": "LGPL", "library": "LGPL", "affero": "AGPL"}

_LICENSE_IS = (
    r"(?:(?<![a-z])licen[sc]e(?:__)?(?: ?:| =| is) ?[\"'(]?(?:[\w.-]+(?: licen[sc]e)?,? (?:and|or) )?(?:the )?"
    r"|\b(?:licen[sc]ed|released|distributed|available|covered|published|provided)\b[^.]{0,40}? (?:under|by) (?:[\w.,/(-]+ ){0,8}?\(?)"
)
"""How a notice in words begins, in lower case with single spaces."""
_GNU_SHORT = re.compile(
    rf"(?:{_LICENSE_IS}(?:gnu )?|\bgnu |\bgnu\.org/(?:copyleft|licenses)/(?:old-licenses/)?)(?P<which>[al]?gpl)(?=[^a-z]|v\d|$)"
    r"[ ,-]{0,2}(?:v(?:ersion)?\.? ?)?(?P<number>\d(?:\.\d)?)?(?P<rest>.{0,40})"
    r"|\b(?P<only_which>[al]?gpl)[ -]?v?(?P<only_number>\d(?:\.\d)?)(?P<only_rest>\+|(?: or later)?) licen[sc]e"
)
_CREATIVE = re.compile(
    rf"(?:{_LICENSE_IS}(?:creative commons )?\(?cc[ -]|creativecommons\.org/licenses/)(?P<terms>by(?:[ -](?:nc|sa|nd))*)\b"
    r"(?:[ /-](?P<version>\d\.\d))?|\bcc[ -](?P<only_terms>by(?:[ -](?:nc|sa|nd))*)(?:[ -](?P<only_version>\d\.\d))? licen[sc]e"
)

_CREATIVE_SIGNS = ("cc by", "cc-by", "licenses/by")

# What a notice says in place of the text, in lower case with single spaces; the licence; a word without which it is not looked for.
_NOTICES = (
    (
        re.compile(r"licensed (?:to .{0,120})?under the apache license,? version 2\.0|www\.apache\.org/licenses/license-2\.0"),
        "Apache-2.0",
        "apache",
    ),
    (re.compile(r"mozilla public license,? (?:v(?:ersion|\.)? ?)?2\.0|mozilla\.org/mpl/2\.0"), "MPL-2.0", "mozilla"),
    (re.compile(r"eclipse public license,? (?:- )?v(?:ersion)? ?2\.0|eclipse\.org/legal/epl-(?:v20|2\.0)"), "EPL-2.0", "eclipse"),
    (re.compile(r"eclipse public license,? (?:- )?v(?:ersion)? ?1\.0|eclipse\.org/legal/epl-v10"), "EPL-1.0", "eclipse"),
    (re.compile(r"python software foundation license version 2"), "PSF-2.0", "foundation"),
    (re.compile(r"(?:under|with|to) the (?:terms of the )?mit licen[sc]e|@licen[sc]e:? mit\b|opensource\.org/licenses/mit"), "MIT", "mit"),
    (re.compile(r"boost software license,? (?:- )?version 1\.0"), "BSL-1.0", "boost"),
    (re.compile(r"\bproprietary and confidential\b|\bconfidential and proprietary\b"), "LicenseRef-proprietary", "confidential"),
)
_GAP = re.compile(r"(?<![\s*#/;%!-])[*#/;%!-]*+\s[\s*#/;%!-]*")
"""The signs of comments around white space, from the first of them on."""

NOTICE_CHARS = 600
"""How far a notice goes beyond such a word."""

_NOTICE_SIGNS = ("license", "licence", "proprietary", "spdx", "redistribution", "permission", "gpl")
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
    return _license_of_head(text[:HEADER_CHARS])


@functools.lru_cache(HEADS_HELD)
def _license_of_head(head: str) -> str | None:
    lowered = head.lower()
    signs = [sign for sign in _NOTICE_SIGNS if sign in lowered]
    if not signs:
        return None
    if tags := [expression for match in _SPDX_TAG.finditer(head) if (expression := stated_expression(match["expression"]))]:
        distinct = sorted(set(tags))
        return distinct[0] if len(distinct) == 1 else " AND ".join(f"({x})" if " " in x else x for x in distinct)
    if "gnu" in lowered and (gnu := _GNU.search(head)):
        return _gnu(gnu["which"] or "", gnu["rest"])
    start, end = min(map(lowered.find, signs)), max(map(lowered.rfind, signs))
    plain = " ".join(_GAP.sub(" ", lowered[max(0, start - NOTICE_CHARS) : end + NOTICE_CHARS]).split())
    found = {name for pattern, name, word in _NOTICES if word in plain and pattern.search(plain)} | _by_letters(plain)
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


def stated_expression(stated: str) -> str | None:
    """Return the expression that a tag states, up to the end of the comment that it stands in; None if nothing is there.

    What else is there is not left out, since it may hold the stricter licence: the whole is then not recognised.

    >>> stated_expression("MIT or GPL-2.0-only */"), stated_expression("MIT, but not to be sold")
    ('MIT OR GPL-2.0-only', 'LicenseRef-unrecognised')
    """
    stated = _TAG_END.split(stated.strip().lstrip("\"'`\\"), maxsplit=1)[0]
    stated = re.sub(r"[\s*#|=/;:.,!%-]+$", "", stated.strip())
    if not re.match(r"[A-Za-z0-9(]", stated):
        return None
    for operator, written in _OPERATORS:
        stated = operator.sub(written, stated)
    return stated if is_expression(stated) and license_ids(stated) else UNRECOGNISED


def _by_letters(plain: str) -> set[str]:
    """Return the GNU and Creative Commons licences that a notice names by their letters, as in ``License: GPLv3``."""
    found = set()
    for gnu in _GNU_SHORT.finditer(plain) if "gpl" in plain else ():
        which, number, rest = (gnu[key] or gnu[f"only_{key}"] for key in ("which", "number", "rest"))
        found.add(_gnu_name(which.upper(), number, rest or ""))
    for creative in _CREATIVE.finditer(plain) if any(sign in plain for sign in _CREATIVE_SIGNS) else ():
        terms, version = (creative[key] or creative[f"only_{key}"] for key in ("terms", "version"))
        name = "CC-" + terms.replace(" ", "-").upper()
        found.add(f"{name}-{version}" if version else f"LicenseRef-{name}")
    return {name for name in found if not any(other.startswith(f"{name.removeprefix('LicenseRef-')}-") for other in found)}


def _gnu(which: str, rest: str) -> str:
    name = _GNU_NAMES[which.lower()]
    version = _VERSION.search(rest)
    return _gnu_name(name, version["number"] if version else None, rest)


def _gnu_name(name: str, number: str | None, rest: str) -> str:
    """Return the SPDX name of a GNU licence by its number, if one is told, and what follows."""
    if number is None:
        return f"LicenseRef-{name}"
    later = rest.startswith("+") or re.search(r"(?:any|or)\W+(?:\w+\W+){0,4}later", rest, re.IGNORECASE)
    return f"{name}-{number if '.' in number else number + '.0'}-{'or-later' if later else 'only'}"


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
