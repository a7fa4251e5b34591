"""The files of one repository, as many to a document as fit.

Folders stand together, as what they hold belongs together; which folder comes when, and which file in it, is drawn by hash, so that no
document begins with what is called ``a`` (StarCoder2 drew the order of all files; arXiv 2402.19173, section 5.1). A file that is larger
than a document alone is one. What is dropped in between is yielded at once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from data_prep.documents import Rendered, Repository, SourceFile, render_repository, render_source
from data_prep.records import Item
from data_prep.source_files import Built, Choice, draw
from data_prep.source_trees import Leaf
from data_prep.views import document_item
from starchat.dialogue import Source


class RepositoryDocuments:
    """Collects files until the next one would make the document longer than `max_chars` characters."""

    def __init__(self, choice: Choice, max_chars: int) -> None:
        self._choice, self._max_chars = choice, max_chars
        self._files: list[Built] = []
        self._chars = 0

    def ordered(self, leaves: Iterable[Leaf]) -> list[Leaf]:
        """Return the leaves in the order in which they stand in documents."""

        return sorted(leaves, key=lambda leaf: drawn_order(self._choice.repository, leaf.path, self._choice.seed))

    def items(self, results: Iterable[Iterable[Built]]) -> Iterator[Item]:
        """Yield the documents of files, and in between what is no file of one; a text that was seen before is not taken again."""
        seen: set[bytes] = set()
        for built in itertools.chain.from_iterable(results):
            if built.digest is not None and built.digest in seen:
                yield built.duplicate
                continue
            if built.digest is not None:
                seen.add(built.digest)
            yield from built.items if built.text is None else self._add(built)
        if self._files:
            yield self._document()

    def _add(self, file: Built) -> Iterator[Item]:
        """Take a file; yield the document before it, if the file does not fit into that one or is of another repository."""
        size = len(file.text or "") + len(file.source.path or "")
        if self._files and (self._chars + size > self._max_chars or self._files[0].source.repository != file.source.repository):
            yield self._document()
        self._files.append(file)
        self._chars += size

    def _document(self) -> Item:
        files, self._files, self._chars = self._files, [], 0
        choice, family = self._choice, self._choice.family
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
