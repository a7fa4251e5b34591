"""The files of one repository, as many to a document as fit.

Folders stand together, as what they hold belongs together; which folder comes when, and which file in it, is drawn by hash, so that no
document begins with what is called ``a`` (StarCoder2 drew the order of all files; arXiv 2402.19173, section 5.1). A file that is larger
than a document alone is one. What is dropped in between is yielded at once.

Which text is another's, and what fits, only all files before tell. So they are built first, by tasks that write them to disk, and one
process cuts documents by a few bytes of each, which it does not keep but for the digests of texts; then the documents are pieces.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from data_prep.documents import Rendered, Repository, SourceFile, render_repository, render_source
from data_prep.kinds import Piece, Shop
from data_prep.records import Item
from data_prep.source_files import Built, Choice, draw
from data_prep.source_trees import Leaf
from data_prep.views import document_item
from starchat.dialogue import Source

FILES = "files"

PIECE_BYTES = 4 << 20
PIECE_GROUPS = 500
"""How much a piece holds at most, as far as documents can be parted."""

Task = TypeVar("Task")


class Sketch(NamedTuple):
    """What tells where a file goes: the digest of its text, or None if it is left out; its length with its path; its bytes on disk."""

    digest: bytes | None
    repository: str | None
    chars: int
    size_bytes: int


class Span(NamedTuple):
    """Where a file that was built lies on disk."""

    path: str
    start: int
    size_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Files that are a document together; or one that is left out, or that has the text of an earlier one."""

    fate: Literal["document", "left_out", "duplicate"]
    files: tuple[Span, ...]


def ordered(leaves: Iterable[Leaf], choice: Choice) -> list[Leaf]:
    """Return leaves in the order in which they stand in documents."""
    return sorted(leaves, key=lambda leaf: drawn_order(choice.repository, leaf.path, choice.seed))


def document_pieces(
    shop: Shop, build: Callable[[Task], Iterable[Built]], tasks: Iterable[Task], choice: Choice, max_chars: int
) -> Iterator[Piece]:
    """Yield documents of at most `max_chars` characters in pieces; `build` gives the files of each task, in order."""
    found = shop.run("files", functools.partial(write_files, build), tasks)
    groups: list[Group] = []
    size = 0
    for group in grouped(((str(folder / FILES), sketches) for folder, sketches in found), max_chars):
        groups.append(group)
        size += sum(span.size_bytes for span in group.files)
        if size >= PIECE_BYTES or len(groups) == PIECE_GROUPS:
            yield Piece(build_documents, (choice, tuple(groups)))
            groups, size = [], 0
    if groups:
        yield Piece(build_documents, (choice, tuple(groups)))


def write_files(build: Callable[[Task], Iterable[Built]], folder: Path, task: Task) -> list[Sketch]:
    """Write the files of a task to a folder, one behind the other, and return a sketch of each."""
    sketches = []
    with open(folder / FILES, "wb") as target:
        for built in build(task):
            data = pickle.dumps(built, pickle.HIGHEST_PROTOCOL)
            target.write(data)
            chars = len(built.text or "") + len(built.source.path or "")
            sketches.append(Sketch(built.digest, built.source.repository, chars, len(data)))
    return sketches


def grouped(sketched: Iterable[tuple[str, Iterable[Sketch]]], max_chars: int) -> Iterator[Group]:
    """Yield what becomes of files, of each of whose paths on disk there are the sketches of those in it, in order.

    A document ends where the next file would make it too long or is of another repository.
    """
    seen: set[bytes] = set()
    files: list[Span] = []
    chars, repository = 0, None
    for path, sketches in sketched:
        start = 0
        for sketch in sketches:
            span = Span(path, start, sketch.size_bytes)
            start += sketch.size_bytes
            if sketch.digest is None or sketch.digest in seen:
                yield Group("left_out" if sketch.digest is None else "duplicate", (span,))
                continue
            seen.add(sketch.digest)
            if files and (chars + sketch.chars > max_chars or repository != sketch.repository):
                yield Group("document", tuple(files))
                files, chars = [], 0
            files.append(span)
            chars, repository = chars + sketch.chars, sketch.repository
    if files:
        yield Group("document", tuple(files))


def build_documents(task: tuple[Choice, tuple[Group, ...]]) -> Iterator[Item]:
    """Yield the documents of groups, and the items of files that are in none."""
    choice, groups = task
    files = _read_files(span for group in groups for span in group.files)
    for group in groups:
        some = list(itertools.islice(files, len(group.files)))
        if group.fate == "document":
            yield _document(some, choice)
        else:
            yield from some[0].items if group.fate == "left_out" else (some[0].duplicate,)


def _read_files(spans: Iterable[Span]) -> Iterator[Built]:
    for path, some in itertools.groupby(spans, key=lambda span: span.path):
        with open(path, "rb") as file:
            for span in some:
                file.seek(span.start)
                yield pickle.loads(file.read(span.size_bytes))


def _document(files: Sequence[Built], choice: Choice) -> Item:
    family = choice.family
    assert family is not None, "a document has tokens"
    first = files[0].source
    drawn_out = choice.metadata == "published" and draw(first, "metadata", choice.seed) >= 0.5
    if family.name == "starcoder2" and (drawn_out or choice.metadata == "none"):
        parts = [part for file in files for part in render_source(SourceFile(file.text or ""), family).parts]
        rendered = Rendered(tuple(parts))
    else:
        texts = tuple((file.source.path or "", file.text or "") for file in files)
        rendered = render_repository(Repository(first.repository or "", texts), family)
    place = first.place if choice.place is None else choice.place
    path = first.path if len(files) == 1 else None
    date = max((file.source.date for file in files if file.source.date is not None), default=None)
    source = Source(place, first.repository, path, first.commit, stars=first.stars, date=date)
    repairs = tuple(dict.fromkeys(repair for file in files for repair in file.repairs))
    return document_item(rendered, source, _joined({file.license for file in files}), repairs)


def drawn_order(repository: str | None, path: str, seed: int) -> tuple[float, str, float, str]:
    """Return the key by which the files of a repository are sorted: the folder's draw, then the file's."""
    folder = path.rpartition("/")[0]
    draws = [draw(Source("", repository, name), "order", seed) for name in (folder, path)]
    return draws[0], folder, draws[1], path


def _joined(licenses: set[str | None]) -> str | None:
    """Return the expression that holds for all files together; None if that of one is not known.

    >>> _joined({"MIT", "Apache-2.0 AND MIT", "MIT OR ISC", "(A AND B) OR C"})
    '((A AND B) OR C) AND (MIT OR ISC) AND Apache-2.0 AND MIT'
    """
    terms: set[str] = set()
    for license in licenses:
        if license is None:
            return None
        bare = license[1:-1] if re.fullmatch(r"\([^()]*\)", license) else license
        terms.update([f"({bare})"] if " OR " in bare or "(" in bare else bare.split(" AND "))
    return next(iter(licenses)) if len(licenses) == 1 else " AND ".join(sorted(terms))
