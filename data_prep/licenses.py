"""Which licence an installed distribution states, and whether it is permissive.

In: the metadata of a distribution. Out: an SPDX expression, or None where nothing is stated. This reads what the
distribution says about itself; it does not compare licence texts, and a file may still carry a licence of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution

PERMISSIVE = frozenset({"MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "PSF-2.0", "Python-2.0"})

WIDELY_PERMISSIVE = PERMISSIVE | {
    *("0BSD", "BSD-3-Clause-Clear", "BSD-1-Clause", "BSL-1.0", "BlueOak-1.0.0", "CC0-1.0", "MIT-0", "MIT-CMU", "MulanPSL-2.0", "NCSA"),
    *("PostgreSQL", "UPL-1.0", "Unlicense", "WTFPL", "X11", "Zlib", "curl", "libpng-2.0", "HPND", "Unicode-3.0"),
}
"""Licences that ask for no more than a notice, rarer ones too; without those that cover changes, patents or whole works."""

# Wordings found in the License field and the classifiers of some hundred distributions; keys are in lower case.
SPDX_OF_WORDING = {
    "mit": "MIT",
    "mit license": "MIT",
    "the mit license": "MIT",
    "the mit license (mit)": "MIT",
    "mit license (mit)": "MIT",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "2-clause bsd license": "BSD-2-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "bsd": "BSD",
    "bsd license": "BSD",
    "isc": "ISC",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "psf": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
}

NAMELESS = ("OSI Approved", "DFSG approved")
LICENSE_FILES = ("LICENSE", "LICENCE", "COPYING")

_OPERATOR = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]")
_OTHER_HEADER = re.compile(
    r"GNU (?:Lesser |Library |Affero )?General Public Licen[sc]e|\bMozilla Public License\b|\bEclipse Public License\b"
    r"|SPDX-License-Identifier:[ \t]*(?P<spdx>[^\n*\"']+)"
)
_HEADER_CHARS = 3000


def license_ids(expression: str) -> frozenset[str]:
    """Return the licences and exceptions that an SPDX expression names.

    >>> sorted(license_ids("MIT AND (Apache-2.0 OR BSD-3-Clause)"))
    ['Apache-2.0', 'BSD-3-Clause', 'MIT']
    """
    return frozenset(part.strip() for part in _OPERATOR.split(expression) if part.strip())


def is_permissive(expression: str) -> bool:
    """Return whether an SPDX expression names licences of `PERMISSIVE` and nothing else, no exception either.

    This is the question of what this repository may hold; what a spec may train on is `data_prep.license_policy`'s. An ``OR``
    would leave a choice; it is not used, so that nobody has to document one.

    >>> is_permissive("MIT OR Apache-2.0"), is_permissive("MIT AND MPL-2.0"), is_permissive("Apache-2.0 WITH LLVM-exception")
    (True, False, False)
    """
    ids = license_ids(expression)
    return bool(ids) and ids <= PERMISSIVE


def spdx_expression(expression: str | None, field: str | None, classifiers: list[str], license_text: str = "") -> str | None:
    """Return one SPDX expression for what ``License-Expression``, ``License`` and the classifiers say; None if nothing is said.

    ``License-Expression`` decides alone where it is given. Otherwise every statement counts, and a wording that is not
    known becomes ``LicenseRef-...``, which is not permissive. ``BSD`` without a number is settled by the licence text.
    A ``License`` field of several lines is a licence text, not a name.

    >>> spdx_expression(None, "BSD", ["License :: OSI Approved :: BSD License"], "... Neither the name of ...")
    'BSD-3-Clause'
    >>> spdx_expression(None, "MIT", ["License :: OSI Approved :: Academic Free License (AFL)"])
    'LicenseRef-academic-free-license-afl AND MIT'
    """
    if expression:
        return expression.strip()
    field = (field or "").strip()
    wordings = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License :: ") and not c.endswith(NAMELESS)]
    if field and field.upper() != "UNKNOWN" and "\n" not in field:
        wordings += sorted(license_ids(field))
    ids = {_spdx(wording) for wording in wordings}
    if "BSD" in ids:
        ids.remove("BSD")
        if not ids & {"BSD-2-Clause", "BSD-3-Clause"}:
            ids.add(_which_bsd(license_text))
    if ids and ids <= PERMISSIVE and license_ids(field) == ids:
        return field
    return " AND ".join(sorted(ids)) or None


def distribution_license(distribution: Distribution) -> str | None:
    """Return the SPDX expression of an installed distribution, or None if its metadata states no licence."""
    metadata = distribution.metadata
    names = {name: metadata.get_all(name) or [] for name in ("License-Expression", "License", "Classifier")}
    first = {name: values[0] if values else None for name, values in names.items()}
    return spdx_expression(first["License-Expression"], first["License"], names["Classifier"], _license_text(distribution))


def _license_text(distribution: Distribution) -> str:
    """Return the distribution's own licence files; those of what it bundles have longer names, such as LICENSES.third-party."""
    own = [path for path in distribution.files or () if path.parts[0].endswith(".dist-info") and path.stem.upper() in LICENSE_FILES]
    found = [Path(str(distribution.locate_file(path))) for path in sorted(own, key=str)]
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in found if path.is_file())


def foreign_header(text: str) -> str | None:
    """Return the words by which the head of a file claims a licence that is not permissive, or None.

    >>> foreign_header("# This is free software under the GNU General Public License.")
    'GNU General Public License'
    >>> foreign_header("# SPDX-License-Identifier: MIT") is None
    True
    """
    for match in _OTHER_HEADER.finditer(text, 0, _HEADER_CHARS):
        spdx = match["spdx"]
        if spdx is None or not is_permissive(spdx.strip().removesuffix("-->").strip()):
            return match[0].strip()
    return None


def _spdx(wording: str) -> str:
    if wording in PERMISSIVE:
        return wording
    known = SPDX_OF_WORDING.get(wording.lower())
    return known or "LicenseRef-" + re.sub(r"[^a-z0-9.]+", "-", wording.lower()).strip("-")


def _which_bsd(license_text: str) -> str:
    """Return the SPDX name of a BSD licence by its third clause; without a text it is only known to be some BSD licence."""
    text = " ".join(license_text.lower().split())
    if "redistributions of source code" not in text and "neither the name" not in text:
        return "LicenseRef-bsd"
    return "BSD-3-Clause" if "neither the name" in text or "endorse or promote" in text else "BSD-2-Clause"
