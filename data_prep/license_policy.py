"""Curation by licence: permissive, copyleft, none and unknown kept apart, and what a spec allows of them.

Pure: a record's SPDX expression in, a reason with its detail out, or None. Every licence that an expression names counts, also where
``OR`` leaves a choice, since nobody documents which was taken; an exception (``WITH``) gives more freedom and changes no class; behind
``WITH``, what is no exception counts as a licence. Names are compared without case; a GNU name without ``-only`` or ``-or-later`` is
either of the two, without a version any.

==========================  ==========================================================================================
``license_copyleft``        the expression names a licence whose conditions pass on to what is made of it
``license_unknown``         it names one that is not known here, such as ``LicenseRef-unrecognised`` or ``LicenseRef-proprietary``
``license_none``            nothing is stated
``license_denied``          it names a licence of the spec's ``deny``
==========================  ==========================================================================================
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from data_prep.licenses import SPDX_OF_WORDING, WIDELY_PERMISSIVE
from starchat.config import closest, from_mapping
from starchat.errors import UserError

LicenseClass = Literal["permissive", "copyleft", "none", "unknown"]
CLASSES: tuple[LicenseClass, ...] = ("permissive", "copyleft", "none", "unknown")

NOT_STATED = frozenset({"none", "noassertion", "no_license", "not stated", ""})
"""How tables write that nothing is stated: SPDX's two words, The Stack v2's, and ours."""

_COPYLEFT = re.compile(
    r"(?:AGPL|GPL|LGPL|GFDL|MPL|EPL|CDDL|CPL|EUPL|OSL|QPL|RPL|SPL|CeCILL|CECILL|ODbL|CPAL|APSL|MS-RL|RPSL|Sleepycat|IPL|NPL|NOSL|SISSL"
    r"|CC-BY(?:-NC)?-SA|CERN-OHL-[SW]|copyleft-next|TAPR-OHL)(?:-|$)|(?:LicenseRef-)?(?:GNU-)?[AL]?GPL(?:[-v\d]|$)",
    re.IGNORECASE,
)
"""Families of the SPDX list with conditions on derived works, from those on a file to those on whole works and services."""

_NAMES = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]", re.IGNORECASE)
_EXCEPTION = re.compile(r"\s+WITH\s+(?=[^\s()]*(?:exception|Linux-syscall-note))[^\s()]+", re.IGNORECASE)
_GNU = re.compile(
    r"(?:licenseref-)?(?:gnu-)?(?P<family>[al]?gpl|gfdl)(?:-?v?(?P<number>\d)(?P<minor>\.\d)?)?(?P<later>-only|-or-later|\+)?"
)
_GNU_VERSIONS = ("1.0", "1.1", "1.2", "1.3", "2.0", "2.1", "3.0")


@dataclasses.dataclass(frozen=True)
class LicenseRules:
    """What may be trained on: `allow` holds classes and SPDX names, `deny` those that are refused all the same."""

    allow: tuple[str, ...] = ("permissive",)
    deny: tuple[str, ...] = ()


def license_rules(mapping: Mapping[str, Any], place: str) -> LicenseRules:
    """Return the rules of a spec; raise `UserError` for a word that is neither a class nor shaped as a name of SPDX."""
    rules = from_mapping(LicenseRules, mapping, place)
    if not rules.allow:
        raise UserError(f"{place}.allow: is empty, so that nothing would be kept; name classes ({', '.join(CLASSES)}) or SPDX names")
    for key, names in (("allow", rules.allow), ("deny", rules.deny)):
        for name in names:
            if name not in CLASSES and (_NAMES.search(f" {name} ") or (license_class(name) == "unknown" and not _is_name(name))):
                raise UserError(f"{place}.{key}: {name!r} is neither a class nor the SPDX name of one licence; {closest(name, CLASSES)}")
    return rules


def _is_name(name: str) -> bool:
    """Return whether a word has the shape of an SPDX name: each of those has a capital, a digit or a hyphen."""
    return re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name) is not None and re.search(r"[A-Z0-9-]", name) is not None


def names_of(expression: str | None) -> tuple[str, ...]:
    """Return the licences that an expression names, without its exceptions; names in the field's other spellings become SPDX's.

    >>> names_of("(MIT OR apache-2.0) AND GPL-2.0-only WITH Classpath-exception-2.0")
    ('MIT', 'Apache-2.0', 'GPL-2.0-only')
    """
    return _every_name(_EXCEPTION.sub("", expression or ""))


def _every_name(expression: str | None) -> tuple[str, ...]:
    """Return the licences and exceptions that an expression names."""
    found = (name.strip() for name in _NAMES.split(expression or ""))
    return tuple(dict.fromkeys(_spelled(name) for name in found if name.lower() not in NOT_STATED))


@functools.cache
def _spelled(name: str) -> str:
    return _permissive().get(name.lower()) or SPDX_OF_WORDING.get(name.lower(), name)


@functools.cache
def _permissive() -> Mapping[str, str]:
    return {name.lower(): name for name in WIDELY_PERMISSIVE}


@functools.lru_cache(4096)
def license_class(expression: str | None) -> LicenseClass:
    """Return the class of an SPDX expression: that of its least free licence.

    >>> [license_class(text) for text in ("mit", "MIT OR GPL-3.0", "Apache-2.0 AND LicenseRef-x", None, "NOASSERTION")]
    ['permissive', 'copyleft', 'unknown', 'none', 'none']
    """
    names = names_of(expression)
    if not names:
        return "none"
    if any(_COPYLEFT.match(name) for name in names):
        return "copyleft"
    return "permissive" if all(name in WIDELY_PERMISSIVE for name in names) else "unknown"


def families(expression: str) -> frozenset[str]:
    """Return the licences of an expression without ``-only`` or ``-or-later``, which a licence's text does not say."""
    return frozenset(re.sub(r"-(?:only|or-later)$|\+$", "", name) for name in names_of(expression))


def bracketed(expression: str) -> str:
    """Return an expression as a part of another.

    >>> bracketed("MIT OR ISC"), bracketed("MIT")
    ('(MIT OR ISC)', 'MIT')
    """
    return f"({expression})" if re.search(r"\sOR\s", expression) else expression


def all_hold(expressions: Iterable[str]) -> str | None:
    """Return the expression that several statements make together, in an order of its own; one that adds no licence is left out.

    >>> all_hold(["MIT", "GPL-3.0-only", "LicenseRef-GPL", "MIT OR Apache-2.0"]), all_hold([])
    ('(MIT OR Apache-2.0) AND GPL-3.0-only', None)
    """
    kept: list[str] = []
    for expression in sorted(set(expressions), key=lambda text: (-len(families(text)), text.startswith("LicenseRef-"), text)):
        held = frozenset[str]().union(*map(families, kept))
        held |= {f"LicenseRef-{name.partition('-')[0]}" for name in held}
        if not families(expression) <= held:
            kept.append(expression)
    return " AND ".join(sorted(map(bracketed, kept))) if len(kept) > 1 else next(iter(kept), None)


def license_fault(expression: str | None, rules: LicenseRules) -> tuple[str, str] | None:
    """Return why a record of a licence is not kept, or None.

    >>> license_fault("GPL-3.0-only", LicenseRules())
    ('license_copyleft', 'GPL-3.0-only; allowed: permissive')
    >>> license_fault("MIT AND MPL-2.0", LicenseRules(allow=("permissive", "MPL-2.0"))) is None
    True
    """
    refused = _meanings(rules.deny)
    if denied := next((name for name in _every_name(expression) if _meanings([name]) & refused or license_class(name) in rules.deny), None):
        return "license_denied", f"{denied}, which the spec denies"
    found = license_class(expression)
    if found in rules.allow:
        return None
    names, allowed = names_of(expression), _meanings(rules.allow)
    if names and all(_meanings([name]) <= allowed or license_class(name) in rules.allow for name in names):
        return None
    return f"license_{found}", f"{expression or 'nothing is stated'}; allowed: {', '.join(rules.allow)}"


def _meanings(names: Iterable[str]) -> frozenset[str]:
    """Return the licences that names may stand for, in lower case.

    >>> sorted(_meanings(["GPLv3"])), sorted(_meanings(["LGPL-2.1+"])), sorted(_meanings(["Mit"]))
    (['gpl-3.0-only', 'gpl-3.0-or-later'], ['lgpl-2.1-or-later'], ['mit'])
    """
    found: set[str] = set()
    for name in names:
        lowered = _spelled(name).lower()
        gnu = _GNU.fullmatch(lowered)
        if gnu is None:
            found |= {lowered, lowered.removesuffix("+")}
            continue
        ends = {"+": ("-or-later",), None: ("-only", "-or-later")}.get(gnu["later"], (gnu["later"],))
        versions = (gnu["number"] + (gnu["minor"] or ".0"),) if gnu["number"] else _GNU_VERSIONS
        found |= {f"{gnu['family']}-{version}{end}" for version in versions for end in ends}
    return frozenset(found)


class Attribution:
    """Counts rows by where they come from, for the file that is published with a dataset."""

    def __init__(self) -> None:
        self._rows: collections.Counter[tuple[str, str, str]] = collections.Counter()

    def add(self, repository: str | None, license: str | None, url: str | None) -> None:
        """Count a row; what has no repository is named by the address it came from, if it has one."""
        self._rows[repository or "", license or "", "" if repository else url or ""] += 1

    def merge(self, other: Attribution) -> None:
        """Add the counts of other rows."""
        self._rows.update(other._rows)

    def lines(self) -> Iterable[dict[str, Any]]:
        """Yield one object a repository (or address) and licence, in order."""
        for (repository, license, url), rows in sorted(self._rows.items()):
            stated = {"license": license or None, "class": license_class(license or None), "rows": rows}
            yield {"repository": repository or None, "url": url or None, **stated}
