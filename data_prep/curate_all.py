"""Curation of all items: each looked at by itself on all cores, then near-duplicates, which only all of them together show.

In: the numbered items of all sources. Out: the same, in their order, as `data_prep.curate` leaves them, and the report on benchmarks.
Without a step that needs all items they stream through. With one they are written to files as they come (`data_prep.item_files`), about
`BATCH_CHARACTERS` each; near-duplicates are found in those, and they are read once more. Nothing depends on the number of workers.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.curate import Curation, curate_item, opened
from data_prep.decontaminate import Match, write_matcher
from data_prep.item_files import Numbered, read_items, write_items
from data_prep.kinds import Setting
from data_prep.near_duplicates import NearDuplicate, find_near_duplicates
from data_prep.near_miss import NearMisses
from data_prep.pool import run_tasks
from data_prep.preferred import compared_text, rank_of
from data_prep.record_texts import texts_of
from data_prep.records import Dropped, Kept
from data_prep.sources import as_text
from starchat.dialogue import to_row

BATCH_CHARACTERS = 4 << 20
BATCH_ITEMS = 2_000


@dataclasses.dataclass(frozen=True, slots=True)
class _Batch:
    """Items for one task, and the file that they go to, if all of them are needed later."""

    stated: str
    setting: Setting
    items: tuple[Numbered, ...]
    file: str | None
    matcher_file: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Done:
    """What became of a batch: its items, or the ids of those kept in its file; and the matches with benchmarks, with their places."""

    items: tuple[Numbered, ...]
    ids: tuple[bytes, ...]
    matches: tuple[tuple[str, Sequence[Match]], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Shard:
    """A file of items, and what says which copy is preferred."""

    file: str
    prefer: tuple[str, ...]


class CurateAll:
    """One run of a curation; `near_misses` is the report on benchmarks once the items have been read, None where none is looked for."""

    def __init__(self, curation: Curation) -> None:
        self._curation = curation
        matcher = curation.matcher
        self.near_misses = None if matcher is None else NearMisses(matcher.items, matcher.unused)

    def items(self, items: Iterable[Numbered]) -> Iterator[Numbered]:
        """Yield items, each as the steps leave it, in their order."""
        with tempfile.TemporaryDirectory(prefix="starchat-curate-") as name:
            if self._curation.duplicates is not None:
                yield from self._without_duplicates(items, Path(name))
                return
            for done in self._run(items, Path(name), to_files=False):
                yield from done.items

    def _run(self, items: Iterable[Numbered], folder: Path, to_files: bool) -> Iterator[_Done]:
        curation, matcher_file = self._curation, None
        if curation.matcher is not None:
            matcher_file = str(folder / "matcher")
            write_matcher(curation.matcher, Path(matcher_file))
        batches = (
            _Batch(curation.stated, curation.setting, batch, str(folder / f"{number:06}.jsonl") if to_files else None, matcher_file)
            for number, batch in enumerate(_batches(items))
        )
        for done in run_tasks(curate_batch, batches, curation.setting.workers):
            if self.near_misses is not None:
                for place, matches in done.matches:
                    self.near_misses.add(place, matches)
            yield done

    def _without_duplicates(self, items: Iterable[Numbered], folder: Path) -> Iterator[Numbered]:
        rules = self._curation.duplicates
        assert rules is not None
        ids = [id for done in self._run(items, folder, to_files=True) for id in done.ids]
        shards = [_Shard(str(path), rules.prefer) for path in sorted(folder.glob("*.jsonl"))]
        removed = {
            found.document: found
            for found in find_near_duplicates(shards, read_shard, folder / "near", rules, self._curation.setting.workers)
        }
        number = -1
        for shard in shards:
            for source, item in read_items(Path(shard.file)):
                if isinstance(item, Kept):
                    number += 1
                    if (found := removed.get(number)) is not None:
                        yield source, _duplicate(item, found, ids)
                        continue
                yield source, item


def curate_batch(batch: _Batch) -> _Done:
    """Return what becomes of a batch."""
    curation = opened(batch.stated, batch.setting, batch.matcher_file)
    items: list[Numbered] = []
    matches: list[tuple[str, Sequence[Match]]] = []
    for number, item in batch.items:
        found, shared = curate_item(item, curation)
        items.append((number, found))
        if shared:
            matches.append((found.place if isinstance(found, Dropped) else found.record.source.place, shared))
    if batch.file is None:
        return _Done(tuple(items), (), tuple(matches))
    write_items(Path(batch.file), items)
    ids = tuple(bytes.fromhex(item.record.id) for _, item in items if isinstance(item, Kept))
    return _Done((), ids, tuple(matches))


def read_shard(shard: _Shard) -> Iterator[tuple[str, int]]:
    """Yield text and rank of each kept item of a file."""
    for _, item in read_items(Path(shard.file)):
        if isinstance(item, Kept):
            yield compared_text(item.record), rank_of(item.record, shard.prefer)


def _duplicate(item: Kept, found: NearDuplicate, ids: Sequence[bytes]) -> Dropped:
    record, twin = item.record, ids[found.twin].hex()
    if ids[found.document] == ids[found.twin]:
        reason, detail = "duplicate", f"same content as the record {twin}, which is kept"
    else:
        reason, detail = "near_duplicate", f"{found.similarity:.3f} like the record {twin}, which is kept"
    return Dropped(reason, record.source.place, detail, as_text(to_row(record)))


def _batches(items: Iterable[Numbered]) -> Iterator[tuple[Numbered, ...]]:
    """Yield items in batches of about the same size."""
    batch: list[Any] = []
    size = 0
    for number, item in items:
        batch.append((number, item))
        size += sum(map(len, texts_of(item.record))) if isinstance(item, Kept) else len(item.raw)
        if size >= BATCH_CHARACTERS or len(batch) == BATCH_ITEMS:
            yield tuple(batch)
            batch, size = [], 0
    if batch:
        yield tuple(batch)
