"""One file after another: read, judged, and made a record or a dropped unit; the work of one process.

In: a `FileTask`, some files of a tree with the licences found for them; or one file from elsewhere. Out: a `Built` for each. Reasons
are looked for in this order: what the name says (``symbolic_link``, ``submodule``, ``special_file``, ``hidden_file``,
``skipped_folder``, ``not_utf8``, ``excluded``, ``vendored``, ``generated_code``, ``test_code``, ``unknown_language``,
``other_language``, ``excluded_extension``), the bytes (``too_large``, ``too_small``, ``missing_object``, ``missing_file``,
``unreadable``, ``binary``, ``unknown_charset``), the licence
(``licence_not_permissive``, ``licence_unknown``), and the text (`data_prep.source_rules`, ``generated_code``, ``does_not_parse``).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os.path
from typing import Literal

from data_prep.docstrings import LANGUAGES, functions_of, turns_of, unused
from data_prep.documents import Family, SourceFile, render_source, star_bucket
from data_prep.file_text import decoded_text, read_text
from data_prep.generated import generated_name, generated_text, is_test, vendored
from data_prep.languages import language_of
from data_prep.license_policy import license_class
from data_prep.license_texts import header_license
from data_prep.python_syntax import python_tree
from data_prep.records import Dropped, Item, encodable
from data_prep.source_rules import Fault, SourceRules, fault_of, is_kept, limits_for
from data_prep.source_trees import Leaf, Tree, read_leaves
from data_prep.sources import as_text
from data_prep.views import dialogue_item, document_item
from starchat.dialogue import Source
from starchat.files import digest_bytes, digest_json

NO_LANGUAGE = "unknown_language"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a spec says of every file: where they are, which are taken, and what is made of them. Without `family`, dialogues are.

    `place`, `repository` and `stars` are those of a tree; the row of a table has a place, and perhaps the others, of its own.
    `loose` files are not rendered: whole repositories are, elsewhere.
    """

    place: str | None
    repository: str | None
    family: Family | None
    seed: int
    stars: int | None
    metadata: Literal["path", "all", "published", "none"]
    rules: SourceRules
    permissive_only: bool
    keep_docs: bool
    loose: bool
    without: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A file, the licence that was found for it around it, and whether that decides over the file's own header."""

    leaf: Leaf
    license: str | None
    overrides: bool


@dataclasses.dataclass(frozen=True, slots=True)
class FileTask:
    """Some files of a tree, to be built in one go."""

    tree: Tree
    choice: Choice
    jobs: tuple[Job, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Built:
    """What became of a file: its `items`; or its `text`, if it is one of a repository's. `digest` is that of a text that is used."""

    source: Source
    items: tuple[Item, ...] = ()
    digest: bytes | None = None
    text: str | None = None
    license: str | None = None
    repairs: tuple[str, ...] = ()

    @property
    def duplicate(self) -> Dropped:
        """The item of a file whose text was used before."""
        return dropped_file(self.source, "exact_duplicate", "the same text is kept from another file")


class _Unfit(Exception):
    """Why a file is left out."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def build_files(task: FileTask) -> list[Built]:
    """Return what became of each file of a task, in order."""
    tree, choice = task.tree, task.choice
    judged = [_judged(job.leaf, choice) for job in task.jobs]
    contents = read_leaves(tree, judged, choice.rules.max_file_bytes)
    built = []
    for job, data in zip(task.jobs, contents, strict=True):
        source = Source(f"{choice.place}/{job.leaf.path}", choice.repository, job.leaf.path, tree.commit, stars=choice.stars)
        built.append(build_file(source, data, job.license, job.overrides, choice))
    return built


def _judged(leaf: Leaf, choice: Choice) -> Leaf:
    """Return a leaf with the fault that its name shows, if any: it is then not read."""
    fault = leaf.fault or name_fault(leaf.path, choice)
    if fault is None and leaf.bytes is not None:
        fault = _too_small(leaf.bytes, choice)
    return leaf if fault is None else dataclasses.replace(leaf, fault=fault)


def _too_small(size: int, choice: Choice) -> Fault | None:
    least = choice.rules.min_file_bytes
    return ("too_small", f"{size} bytes; at least {least} are kept") if least is not None and size < least else None


def name_fault(path: str, choice: Choice) -> Fault | None:
    """Return why a file is left out by its path, or None; a file whose name shows no language is judged by its first line, later."""
    if encodable(path) != path:
        return "not_utf8", "the file's name is not UTF-8; rename it"
    if pattern := next((pattern for pattern in choice.without if fnmatch.fnmatchcase(path, pattern)), None):
        return "excluded", f"named under 'without': {pattern}"
    if choice.rules.vendored == "drop" and (found := vendored(path)):
        return "vendored", found
    if choice.rules.generated == "drop" and (found := generated_name(path)):
        return "generated_code", found
    if choice.rules.tests == "drop" and is_test(path):
        return "test_code", path.rpartition("/")[2]
    language = language_of(path)
    if language is None:
        return (NO_LANGUAGE, "its name shows no language") if os.path.splitext(path)[1] else None
    return _language_fault(language, path, choice)


def _language_fault(language: str, path: str, choice: Choice) -> Fault | None:
    rules = choice.rules
    wanted = is_kept(language, rules.thresholds) if rules.languages is None else language in rules.languages
    if not wanted:
        return "other_language", language
    if choice.family is None and language not in LANGUAGES:
        return "other_language", f"{language}: its documented functions are not looked for"
    if limits_for(rules.thresholds, language, _extension(path)) is None:
        return "excluded_extension", f"{_extension(path)} of {language}, by {rules.thresholds}'s list"
    return None


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def build_file(source: Source, data: bytes | str | Fault, license: str | None, overrides: bool, choice: Choice) -> Built:
    """Return what became of a file, of its bytes or its decoded text, or why neither can be had.

    `license` was found for it around it; whether that `overrides` its own header is for who found it to say.
    """
    try:
        if isinstance(data, tuple):
            raise _Unfit(*data)
        text, repairs, language, license = _fit(source.path or "", data, license, overrides, choice)
        if choice.family is None:
            return _functions(text, language, source, license, repairs, choice)
    except _Unfit as unfit:
        return Built(source, (dropped_file(source, unfit.reason, unfit.detail),))
    digest = bytes.fromhex(digest_bytes(text.encode("utf-8", "surrogatepass")))
    if choice.loose:
        return Built(source, (), digest, text, license, repairs)
    file = SourceFile(text, *metadata_of(source, choice, choice.family))
    item = document_item(render_source(file, choice.family), source, license, repairs)
    return Built(source, (item,), digest)


def _fit(
    path: str, data: bytes | str, license: str | None, overrides: bool, choice: Choice
) -> tuple[str, tuple[str, ...], str, str | None]:
    """Return the text of a file, the repairs, its language and licence; raise `_Unfit` if it is left out."""
    if small := _too_small(len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode("utf-8", "surrogatepass")), choice):
        raise _Unfit(*small)
    text, repairs, fault = read_text(data) if isinstance(data, bytes) else decoded_text(data)
    if fault is not None:
        raise _Unfit(*fault)
    if not text.strip():
        raise _Unfit("empty_file", "nothing but white space")
    language = language_of(path, text[:200])
    if language is None:
        raise _Unfit(NO_LANGUAGE, "neither its name nor its first line shows a language")
    if fault := _language_fault(language, path, choice):
        raise _Unfit(*fault)
    license = license if overrides else header_license(text) or license
    if choice.permissive_only and license_class(license) != "permissive":
        raise _Unfit("licence_unknown" if license is None else "licence_not_permissive", license or "nothing states one")
    limits = limits_for(choice.rules.thresholds, language, _extension(path))
    assert limits is not None, path
    if limits.names is not None and path.rpartition("/")[2].partition(".")[0].lower() not in limits.names:
        raise _Unfit("other_text", f"texts are kept by name: {', '.join(sorted(limits.names))}")
    if fault := fault_of(text, limits):
        raise _Unfit(*fault)
    if choice.rules.generated == "drop" and (sign := generated_text(path, text)):
        raise _Unfit("generated_code", sign)
    if choice.rules.python_must_parse and language == "Python":
        try:
            python_tree(text)
        except ValueError as error:
            raise _Unfit("does_not_parse", str(error)) from None
    return text, repairs, language, license


def metadata_of(source: Source, choice: Choice, family: Family) -> tuple[str | None, str | None, str | None]:
    """Return the path, the repository and the stars that stand in front of a document."""
    path, repository = source.path, source.repository
    stars = None if source.stars is None else star_bucket(source.stars)
    if choice.metadata == "none":
        return None, None, None
    if choice.metadata == "path":
        return path, repository if family.name == "starcoder2" else None, None
    if family.name == "starcoder2":
        hidden = choice.metadata == "published" and draw(source, "metadata", choice.seed) >= 0.5
        return (None, None, None) if hidden else (path, repository, stars if choice.metadata == "all" else None)
    if choice.metadata == "all":
        return path, repository, stars
    chosen = [draw(source, name, choice.seed) < 0.2 for name in ("path", "repository", "stars")]
    return path if chosen[0] else None, repository if chosen[1] else None, stars if chosen[2] else None


def draw(source: Source, what: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on the seed, the file's repository and path, and on what is drawn."""
    return int(digest_json([seed, what, source.repository, source.path])[:13], 16) / 16**13


def _functions(text: str, language: str, source: Source, license: str | None, repairs: tuple[str, ...], choice: Choice) -> Built:
    """Return the dialogues of a file's documented functions, those that make none by reason."""
    items: list[Item] = []
    try:
        for found in functions_of(text, language):
            place = dataclasses.replace(source, place=f"{source.place}:{found.line}")
            if fault := unused(found, language, choice.rules.max_function_lines):
                items.append(dropped_file(place, *fault, name=found.name))
                continue
            turns = turns_of(found, language, choice.seed, choice.keep_docs)
            items.append(dialogue_item(turns, place, license, repairs, _raw(place, found.name)))
    except ValueError as error:
        raise _Unfit("does_not_parse", str(error)) from None
    if not items:
        raise _Unfit("no_documented_function", language)
    return Built(source, tuple(items), bytes.fromhex(digest_bytes(text.encode("utf-8", "surrogatepass"))))


def _raw(source: Source, name: str | None = None) -> str:
    """Return the name of a unit: text that may not be used is not copied into the dataset's folder either."""
    function = {} if name is None else {"function": name}
    return encodable(as_text({"repository": source.repository, "path": source.path, **function}))


def dropped_file(source: Source, reason: str, detail: str, name: str | None = None, fault: bool = False) -> Dropped:
    """Return the item of a file that is left out, or of one of its functions; `fault` marks malformed input (`Dropped`)."""
    return Dropped(reason, encodable(source.place), encodable(detail), _raw(source, name), fault)
