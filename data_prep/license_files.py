"""Which licence each file of a repository has, by what lies beside and above it.

In: the repository's paths, and a function that reads some of them. Out: `TreeLicenses`. What is nearer decides, in this order (the
file's own header, which decides over all of it, is looked at where the file is read): REUSE (``a.png.license``, ``REUSE.toml``,
``.reuse/dep5``; reuse.software, versions 3.0 to 3.3), then the licence files of the nearest folder that has some, and there
package metadata (`data_prep.license_metadata`). Of what is equally near all holds: a licence text beside metadata of another is both.
At the root, what the spec states comes before all files of the root.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from data_prep.license_metadata import METADATA, metadata_license, wording_license
from data_prep.license_policy import all_hold, bracketed, families, license_class
from data_prep.license_texts import MAX_LICENSE_CHARS, UNRECOGNISED, header_license, is_expression, license_of_text
from data_prep.licenses import license_ids
from data_prep.source_trees import Leaf, Tree, read_leaves

Read = Callable[[Iterable[str]], Iterator[tuple[str, str | None]]]
"""Reads files of the repository as text: yields each path with its text, None where there is none."""

POINTER_CHARS = 400
"""A file up to this length may be no licence, but point to one."""

_POINTER = re.compile(
    r"\b(?i:see|read|refer to|(?:found|contained|included|stated|given) in|in the files?|\w*include::)[^.]{0,80}?"
    r"[\w./:-]{0,200}?(?:LICEN[SC]E|COPYING|README|NOTICE|CONTRIBUTING|licen[sc]e\.)|\A\s*[\w.-]*+/[\w./-]+\s*\Z"
)
_REFUSAL = re.compile(
    r"\b(?:may not|must not|shall not|no part|prohibited|forbidden|confidential|proprietary|without|unless|commercial)\b", re.IGNORECASE
)
_CERTAIN_NAME = re.compile(r"^LicenseRef-|-\d+\.\d")
"""Names that are meant as such; other unknown words in metadata, such as ``LICENSE.txt``, add nothing to a licence text."""

_LICENSE_FILE = re.compile(
    r"(?:(?:un)?licen[sc]e|copying|copyright|mit-licen[sc]e)(?:[._-][\w.+-]+)?(?<!\.license)|[\w.+-]+[._-]licen[sc]e(?:\.(?:txt|md|rst))?",
    re.IGNORECASE,
)
_NO_LICENSE_FILE = re.compile(
    r".*(?:\.license|\.(?:py|js|ts|c|h|cc|cpp|go|java|rb|rs|php|css|html?|json|ya?ml|toml|svg|png|xml|sh|dep5|tmpl|erb|j2|md5|sha256|sig|asc|gz|pdf))",
    re.IGNORECASE,
)
_REUSE_FILE = frozenset({"REUSE.toml", ".reuse/dep5"})


@dataclasses.dataclass(frozen=True, slots=True)
class Annotation:
    """What REUSE says of the paths that match a pattern; `overrides` decides over the file's own header."""

    pattern: re.Pattern[str]
    license: str
    overrides: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class TreeLicenses:
    """The licences of a repository's folders (``""`` is the root), of single files, and REUSE's annotations, the last of which counts."""

    folders: Mapping[str, str]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotations: tuple[Annotation, ...] = ()

    def of(self, path: str) -> tuple[str | None, bool]:
        """Return the SPDX expression for a path, or None; and whether it decides over the file's own header."""
        if own := self.files.get(path):
            return own, True
        for annotation in reversed(self.annotations):
            if annotation.pattern.fullmatch(path):
                return annotation.license, annotation.overrides
        folder = path
        while folder:
            folder = folder.rpartition("/")[0]
            if found := self.folders.get(folder):
                return found, False
        return None, False

    def of_text(self, path: str, text: str) -> str | None:
        """Return the SPDX expression for a file of a text, or None."""
        around, overrides = self.of(path)
        return around if overrides else header_license(text) or around


def is_license_path(path: str) -> bool:
    """Return whether a file may say something about licences.

    >>> [is_license_path(p) for p in ("LICENSE", "a/COPYING.LESSER", "b/license.py", "LICENSES/MIT.txt", "logo.png.license")]
    [True, True, False, False, True]
    """
    name = path.rpartition("/")[2]
    return _is_license_file(name) or name in METADATA or path in _REUSE_FILE or name == "REUSE.toml" or name.endswith(".license")


def _is_notice(name: str, text: str) -> bool:
    """Return whether a file tells whose the work is, and no terms."""
    named = name.casefold().startswith("copyright")
    return named and (name.casefold() == "copyright" or (len(text) <= POINTER_CHARS and not _REFUSAL.search(text)))


def _is_license_file(name: str) -> bool:
    return _LICENSE_FILE.fullmatch(name) is not None and _NO_LICENSE_FILE.fullmatch(name) is None


def licenses_of_tree(tree: Tree, leaves: Iterable[Leaf], stated: str | None = None) -> TreeLicenses:
    """Return the licences of a folder or commit, which some of its `leaves` say; `stated` is what the spec says of its root."""
    by_path = {leaf.path: leaf for leaf in leaves if leaf.fault is None and is_license_path(leaf.path)}

    def read(paths: Iterable[str]) -> Iterator[tuple[str, str | None]]:
        wanted = [by_path[path] for path in paths]
        for leaf, data in zip(wanted, read_leaves(tree, wanted, MAX_LICENSE_CHARS), strict=True):
            yield leaf.path, data.decode("utf-8", "replace") if isinstance(data, bytes) else None

    return find_licenses(by_path, read, stated)


def find_licenses(paths: Iterable[str], read: Read, stated: str | None = None) -> TreeLicenses:
    """Return the licences of a tree; `stated` is what the spec says of the repository."""
    texts: dict[str, dict[str, str | None]] = {}
    metadata: dict[str, list[str]] = {}
    single: dict[str, str] = {}
    annotations: list[Annotation] = []
    for path, text in read(path for path in paths if is_license_path(path)):
        folder, _, name = path.rpartition("/")
        if text is None:
            continue
        if name.endswith(".license"):
            if license := header_license(text):
                single[path.removesuffix(".license")] = license
        elif name == "REUSE.toml":
            annotations += _reuse_toml(folder, text)
        elif path == ".reuse/dep5":
            annotations += _dep5(text)
        elif name in METADATA:
            if license := metadata_license(name, text):
                metadata.setdefault(folder, []).append(license)
        elif (license := license_of_text(text) or wording_license(text)) or not _is_notice(name, text):
            texts.setdefault(folder, {})[text] = license
    combined = {folder: _of_folder(texts.get(folder, {}), metadata.get(folder, ())) for folder in {**texts, **metadata}}
    folders = {folder: license for folder, license in combined.items() if license}
    if stated:
        folders[""] = stated
    return TreeLicenses(folders, single, tuple(annotations))


def _of_folder(found: Mapping[str, str | None], metadata: Iterable[str]) -> str | None:
    """Return the licence of a folder by its licence files and its metadata. All of them hold, whichever says more.

    Where they name the same licences, metadata says how these combine. Beside a text that is not recognised it counts alone only if
    that text names the same licence: a program that makes new projects writes some licence into them, whatever lies beside it.
    """
    stated = all_hold(metadata)
    known = all_hold(license for license in found.values() if license)
    foreign = [text for text, license in found.items() if license is None and not _points_elsewhere(text)]
    if known is None:
        if stated and all(_names_all(text, stated) for text in foreign):
            return stated
        return " AND ".join([*([bracketed(stated)] if stated else []), UNRECOGNISED]) if foreign else None
    if foreign:
        return f"{bracketed(known)} AND {UNRECOGNISED}"
    if stated is None or all(license_class(name) == "unknown" and not _CERTAIN_NAME.search(name) for name in license_ids(stated)):
        return known
    return stated if families(known) == families(stated) else all_hold([known, stated])


def _names_all(text: str, expression: str) -> bool:
    """Return whether a text has the first word of each licence of an expression, such as the MIT of MIT-0."""
    return all(re.search(rf"\b{re.escape(name.partition('-')[0])}\b", text) for name in license_ids(expression))


def _points_elsewhere(text: str) -> bool:
    """Return whether a licence file that is not recognised states nothing itself: it is blank, or short and names the file to look at.

    >>> _points_elsewhere("See LICENSE.MIT or LICENSE.BSD."), _points_elsewhere("Copyright Acme. All rights reserved.")
    (True, False)
    """
    return not text.strip() or (len(text) <= POINTER_CHARS and _POINTER.search(text) is not None and _REFUSAL.search(text) is None)


def _reuse_toml(folder: str, text: str) -> Iterator[Annotation]:
    try:
        entries = tomllib.loads(text).get("annotations", [])
    except (ValueError, RecursionError):
        return
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        license = _joined(entry.get("SPDX-License-Identifier"))
        paths = entry.get("path")
        for path in [paths] if isinstance(paths, str) else paths if isinstance(paths, list) else []:
            if license and isinstance(path, str):
                pattern = _glob(f"{folder}/{path}" if folder else path)
                yield Annotation(pattern, license, entry.get("precedence") == "override")


def _joined(stated: Any) -> str | None:
    """Return one expression for one or several."""
    found = [x.strip() for x in ([stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []) if isinstance(x, str)]
    found = [x for x in found if is_expression(x)]
    return found[0] if len(found) == 1 else " AND ".join(f"({x})" if " " in x else x for x in found) or None


def _glob(pattern: str) -> re.Pattern[str]:
    """Return a pattern of REUSE.toml as an expression: ``*`` stays in its folder, ``**`` does not.

    >>> bool(_glob("src/*").fullmatch("src/a/b.py")), bool(_glob("src/**").fullmatch("src/a/b.py"))
    (False, True)
    """
    runs = [[""]]  # texts between single stars, between double ones
    for piece in re.split(r"(\\.|\*\*|\*)", pattern):
        if piece == "**":
            runs.append([""])
        elif piece == "*":
            runs[-1].append("")
        else:
            runs[-1][-1] += re.escape(piece[1:] if piece[:1] == "\\" else piece)
    *inner, last = runs
    end = f"{_nearest(last[:-1])}[^/]*{last[-1]}" if len(last) > 1 else last[0]
    if inner:
        middle = "".join(f"(?>.*?{_nearest(texts)})" for texts in inner[1:])
        end = f"{_nearest(inner[0])}{middle}.*{end}"
    return re.compile(end, re.DOTALL)


def _nearest(texts: list[str]) -> str:
    """Return texts with stars between as an expression. A star takes the least, for good: the next takes the rest. This bounds the time."""
    return texts[0] + "".join(f"(?>[^/]*?{text})" for text in texts[1:])


def _dep5(text: str) -> Iterator[Annotation]:
    """Yield the annotations of a Debian copyright file, version 1.0; there ``*`` crosses folders."""
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        fields = dict(re.findall(r"^([\w-]+):[ \t]*((?:.*)(?:\n[ \t]+.*)*)", paragraph, re.MULTILINE))
        license = fields.get("License", "").split("\n")[0].strip()
        if "Files" in fields and is_expression(license):
            for pattern in fields["Files"].split():
                yield Annotation(re.compile(fnmatch.translate(pattern)), license)
