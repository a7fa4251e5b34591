"""Which licence a package's metadata states: ``pyproject.toml``, ``setup.cfg``, ``setup.py``, ``package.json``, ``Cargo.toml``.

In: such a file's text. Out: an SPDX expression, or None where nothing is stated; classifiers and the field both hold. ``setup.py`` is not
run: what stands there in quotes is read. This is what a package says of itself; what lies beside it is `data_prep.license_files`' part.
"""

from __future__ import annotations

import configparser
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from data_prep.license_policy import all_hold, license_class
from data_prep.license_texts import UNRECOGNISED, header_license, is_expression, stated_expression
from data_prep.licenses import SPDX_OF_WORDING
from data_prep.sources import parse_json

METADATA = frozenset({"pyproject.toml", "setup.cfg", "setup.py", "package.json", "Cargo.toml"})

MAX_WORDING_CHARS = 200
_CLASSIFIER = re.compile(r"License :: (?:[^\"'\n]* :: )?(?P<wording>[^\"':\n]+)")
_KEYWORD = re.compile(r"""(?<![\w.])["']?license["']?\s*[=:]\s*(?P<quote>["'])(?P<wording>[^\n]{1,200}?)(?P=quote)""")
_REFUSAL = re.compile(r"\b(?:unlicensed|proprietary|commercial|confidential|all rights reserved|non-?commercial)\b", re.IGNORECASE)
_COPYRIGHT_LINE = re.compile(r"^\W*(?:copyright|\(c\)|©).*$", re.IGNORECASE | re.MULTILINE)


def metadata_license(name: str, text: str) -> str | None:
    """Return the SPDX expression that package metadata states, or None.

    >>> metadata_license("package.json", '{"license": "MIT"}'), metadata_license("Cargo.toml", '[package]\\nlicense = "MIT/Apache-2.0"')
    ('MIT', 'MIT OR Apache-2.0')
    >>> metadata_license("setup.py", "setup(license='MIT', classifiers=['License :: OSI Approved :: GNU Affero General Public License'])")
    'LicenseRef-AGPL AND MIT'
    """
    try:
        stated = [_statement(value) for value in _values(name, text)]
    except (ValueError, configparser.Error, RecursionError):
        return None
    return all_hold(license for license in stated if license)


def wording_license(text: str) -> str | None:
    """Return the licence of a text that, besides lines of copyright, is one's name and nothing more.

    >>> wording_license("The MIT License\\nCopyright (c) 2020 Ann\\n"), wording_license("All rights reserved")
    ('MIT', None)
    """
    if len(text) > 2 * MAX_WORDING_CHARS:
        return None
    found = SPDX_OF_WORDING.get(" ".join(_COPYRIGHT_LINE.sub("", text).lower().split()).strip(" .#=-*"))
    return None if found == "BSD" else found


def _statement(value: Any) -> str | None:
    """Return what one value says as SPDX; None for one that says nothing, or no more than where to look."""
    if isinstance(value, dict):
        value = value.get("type") or value.get("text")
    if not isinstance(value, str) or len(value) > MAX_WORDING_CHARS or "\n" in value.strip():
        return None
    value = value.strip()
    known = SPDX_OF_WORDING.get(value.lower())
    if known is not None:
        return None if known == "BSD" else known
    if value.upper() == "UNKNOWN" or value.upper().startswith("SEE LICENSE"):
        return None
    if _REFUSAL.search(value):
        return "LicenseRef-proprietary"
    expression = stated_expression(value)
    if expression is not None and expression != UNRECOGNISED and " " in expression:
        return expression
    if notice := header_license(f"License: {value}"):
        return notice
    joined = re.sub(r"\s+", "-", value)  # as in MPL 2.0
    return expression if expression != UNRECOGNISED else joined if license_class(joined) == "copyleft" and is_expression(joined) else None


def _values(name: str, text: str) -> Iterator[Any]:
    """Yield what stands under ``license`` in a metadata file, and its classifiers of licences."""
    if name == "package.json":
        document = parse_json(text.encode("utf-8", "surrogatepass"))
        several = document.get("licenses") if isinstance(document, dict) else None
        yield document.get("license") if isinstance(document, dict) else None
        yield from several if isinstance(several, list) else [several]
        return
    if name == "setup.cfg":
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(text)
        yield parser.get("metadata", "license", fallback=None)
    elif name == "setup.py":
        yield from (found["wording"] for found in _KEYWORD.finditer(text))
    else:
        document = tomllib.loads(text)
        tool = document.get("tool")
        tables = (
            [document.get("package")] if name == "Cargo.toml" else [document.get("project"), isinstance(tool, dict) and tool.get("poetry")]
        )
        yield from (table.get("license") for table in tables if isinstance(table, dict))
    yield from (found["wording"].strip() for found in _CLASSIFIER.finditer(text))
