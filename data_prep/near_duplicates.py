"""Near-duplicates: which documents resemble an earlier one that is kept.

In: shards of documents, each a text and a rank; a lower rank is preferred, then an earlier place. Out: the documents to remove, each
with its kept twin and their similarity, the share of the shingles of both together that both have (Jaccard's), counted exactly. A document
is removed if and only if it shares a band of its sketch (`data_prep.shingles`) with an earlier kept one and they are at least as similar as
the threshold. So whatever is removed resembles what is kept, and no chain of lookalikes takes away what resembles only its middle. Which
those are hangs on nothing but the texts and their order: not on the number of shards, workers or tasks.

Four steps, each of pure tasks that write their files whole or not at all into one folder:

1. `sign`, a task a shard: shingles and bands. On disk 8 bytes a shingle, about as much as the text, and ``8 * bands + 16`` bytes a
   document, 304 by rule; in memory twice the bands of the shard, 20 times its longest text at most, and some 100 MB.
2. `link`, a task a band and slice of its hashes (of few documents, some bands): which documents share it, neighbour to neighbour. In
   memory 40 bytes a document of the slice, of `SLICE_DOCUMENTS`; on disk 16 bytes a link, of which a band has fewer than documents.
3. `deal`, one task: the connected parts, dealt out evenly. In memory 8 bytes a document for what part it is in, 16 while parts are
   joined, and up to 50 more for each that is in a part with others; and one file of links.
4. `resolve`, a task a hand of parts: walks their documents in order. In memory the shingles of its documents, 8 bytes each, and
   ``16 * bands`` bytes a document, more for those that are kept; where many share bands that are not alike, such as texts made from a
   template, they are told apart by their rarest shingles (`data_prep.twin_kernels`), which takes some 12 bytes a shingle more at a
   threshold of 0.7, and 50 at the lowest. On disk 24 bytes a removal.

The step that needs the most memory is the resolving of one very large part, which one task does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_prep.arrays import write_array
from data_prep.pool import default_workers, run_tasks
from data_prep.shingles import Hashes, Numbers, band_hashes, candidate_probability, kernels, shingles_of
from starchat.errors import UserError

BATCH_CHARS = 1_000_000
"""Texts are hashed together up to this size: what that takes fits into a core's caches, and its memory is used again for the next."""

SLICE_DOCUMENTS = 50_000_000
"""About how many documents a task of the second step sorts at once."""

FEW_HASHES = 2_000_000
"""Bands of fewer documents are sorted several by one task, up to so many hashes."""

HAND_BYTES = 256_000_000
"""About how much memory a task of the fourth step takes, if no part alone takes more."""

CROWDED = 4
"""More pairs than so many times the shingles are found by rare shingles, not by bands alone."""

REMOVAL = np.dtype([("document", "<i8"), ("twin", "<i8"), ("similarity", "<f8")])

Reader = Callable[[Any], Iterable[tuple[str, int]]]


@dataclasses.dataclass(frozen=True)
class NearDuplicateRules:
    """What counts as a near-duplicate: a similarity of at least `threshold`.

    `recall` is the least share of the pairs exactly at the threshold that share a band and are compared; of more similar ones it is more.
    Sketches have up to `permutations` values, which `seed` draws. By rule they are cut into 36 bands of 7 rows. The 25 bands of 10 that
    the published data sets used are a recall of 0.5 here; for terabytes, for they let through a fiftieth of the pairs that are 0.3 alike.
    """

    threshold: float = 0.7
    recall: float = 0.95
    permutations: int = 256
    words_per_shingle: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, all of it at once."""
        faults = []
        for name, least, most, usual in (("threshold", 0.05, 1, 0.7), ("recall", 0.01, 0.9999, 0.95)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                faults.append(f"{name}: {value!r}; expected a number from {least} to {most}; {usual} is usual")
        for name, least, most, usual in (("permutations", 1, 4096, 256), ("words_per_shingle", 1, 64, 5), ("seed", 0, 2**64 - 1, 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                faults.append(f"{name}: {value!r}; expected a whole number from {least} to {most}; {usual} is usual")
        if not faults and candidate_probability(self.threshold, *self.bands_and_rows()) < self.recall:
            faults.append(f"permutations: {self.permutations}; too few for threshold {self.threshold} and recall {self.recall}; take more")
        if faults:
            raise UserError("\n".join(f"near_duplicates: {fault}" for fault in faults))

    def bands_and_rows(self) -> tuple[int, int]:
        """Return the most rows, which let the fewest pairs through that are not alike, with which bands reach the recall.

        >>> NearDuplicateRules().bands_and_rows(), NearDuplicateRules(recall=0.5).bands_and_rows()
        ((36, 7), (25, 10))
        """
        for rows in range(self.permutations, 1, -1):
            if candidate_probability(self.threshold, self.permutations // rows, rows) >= self.recall:
                return self.permutations // rows, rows
        return self.permutations, 1


@dataclasses.dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A document to remove, its kept twin and their similarity; documents are numbered from 0 over all shards in order."""

    document: int
    twin: int
    similarity: float


def find_near_duplicates(
    shards: Sequence[Any], read: Reader, folder: Path, rules: NearDuplicateRules = NearDuplicateRules(), workers: int | None = None
) -> list[NearDuplicate]:
    """Return the documents to remove, by their number. `read`, a function of a module, yields text and rank of each document of a shard."""
    workers = default_workers() if workers is None else workers
    folder.mkdir(parents=True, exist_ok=True)
    bands, rows = rules.bands_and_rows()
    sign_tasks = [SignTask(shard, read, _place(folder, "sign", number), rules, bands, rows) for number, shard in enumerate(shards)]
    counts = list(run_tasks(sign, sign_tasks, workers))
    signed = Signed(tuple(task.place for task in sign_tasks), tuple(counts))
    slices = -(-signed.documents // SLICE_DOCUMENTS)
    at_once = max(1, FEW_HASHES // max(1, signed.documents))
    link_tasks = [
        LinkTask(signed, range(bands)[first : first + at_once], number, slices, folder)
        for first in range(0, bands, at_once)
        for number in range(slices)
    ]
    links = list(run_tasks(link, link_tasks, workers))
    hands = deal(signed, links, bands, folder, workers)
    resolve_tasks = [ResolveTask(signed, hand, rules) for hand in hands]
    removed = [np.load(place) for place in run_tasks(resolve, resolve_tasks, workers)]
    together = np.sort(np.concatenate([np.zeros(0, REMOVAL), *removed]), order="document")
    return [NearDuplicate(*row) for row in together.tolist()]


@dataclasses.dataclass(frozen=True, slots=True)
class SignTask:
    """A shard to sign, and how the names of the files begin that hold the result."""

    shard: Any
    read: Reader
    place: Path
    rules: NearDuplicateRules
    bands: int
    rows: int


def sign(task: SignTask) -> int:
    """Write the shingles of a shard's documents, their bounds, their ranks and their bands; return the number of documents."""
    rules, bands = task.rules, task.bands
    bounds, sketched, ranks, filled = [np.zeros(1, np.int64)], [np.zeros((bands, 0), np.uint64)], [], 0
    with _whole(task.place.with_suffix(".shingles")) as file:
        for batch in _batches(task.read(task.shard)):
            shingles = shingles_of([text for text, _ in batch], rules.words_per_shingle)
            file.write(shingles.hashes.astype("<u8", copy=False).data)
            bounds.append(shingles.bounds[1:] + filled)
            filled += shingles.hashes.size
            sketched.append(band_hashes(shingles, bands, task.rows, rules.seed))
            ranks += [rank for _, rank in batch]
    _write(task.place.with_suffix(".bounds"), np.concatenate(bounds))
    _write(task.place.with_suffix(".ranks"), np.array(ranks, np.int64))
    _write(task.place.with_suffix(".bands"), np.concatenate(sketched, axis=1))
    return len(ranks)


def _batches(documents: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    batch, chars = [], 0
    for document in documents:
        batch.append(document)
        chars += len(document[0]) + 100  # a document takes memory even if it is empty
        if chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


@dataclasses.dataclass(frozen=True, slots=True)
class Signed:
    """What the first step wrote: how the names of each shard's files begin, and how many documents it has."""

    places: tuple[Path, ...]
    counts: tuple[int, ...]

    @property
    def documents(self) -> int:
        """The number of documents in all."""
        return sum(self.counts)

    def shards(self) -> Iterator[tuple[int, Path]]:
        """Yield the number of the first document of each shard, and how the names of its files begin."""
        first = 0
        for place, count in zip(self.places, self.counts, strict=True):
            yield first, place
            first += count


@dataclasses.dataclass(frozen=True, slots=True)
class LinkTask:
    """Some bands, and the slice of their hashes to sort."""

    signed: Signed
    bands: range
    slice: int
    slices: int
    folder: Path


def link(task: LinkTask) -> Path:
    """Write pairs of documents that connect all those with the same hash of a band; return the file."""
    hashes: list[list[Hashes]] = [[np.zeros(0, np.uint64)] for _ in task.bands]
    documents: list[list[Numbers]] = [[np.zeros(0, np.int64)] for _ in task.bands]
    for first, place in task.signed.shards():
        told = np.diff(np.load(place.with_suffix(".bounds"))) > 0
        bands = np.asarray(np.load(place.with_suffix(".bands"), mmap_mode="r"))
        for number, band in enumerate(task.bands):
            in_slice = told if task.slices == 1 else told & (bands[band] % np.uint64(task.slices) == task.slice)
            local = np.flatnonzero(in_slice)
            hashes[number].append(bands[band, local])
            documents[number].append(local + first)
    links = [_neighbours(np.concatenate(each), np.concatenate(of)) for each, of in zip(hashes, documents, strict=True)]
    target = _place(task.folder, f"links-{task.bands[0]:04d}", task.slice)
    _write(target, np.concatenate(links))
    return target


def _neighbours(hashes: Hashes, documents: Numbers) -> Numbers:
    """Return pairs of documents that connect all those with the same hash."""
    order = np.argsort(hashes)
    hashes, documents = hashes[order], documents[order]
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    return np.stack((documents[same], documents[same + 1]), axis=1)


def deal(signed: Signed, links: Sequence[Path], bands: int, folder: Path, workers: int) -> list[Path]:
    """Write the documents of the connected parts to files, each part into one, so that all are about equal; return the files."""
    parents = np.arange(signed.documents, dtype=np.int64)
    for place in links:
        _join(parents, np.load(place))
    sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(np.load(place.with_suffix(".bounds"))) for _, place in signed.shards())])
    in_part = parents != np.arange(signed.documents)
    in_part[parents[in_part]] = True
    members = np.flatnonzero(in_part)
    parts, part_of = np.unique(parents[members], return_inverse=True)
    weights_bytes = np.bincount(part_of, 8 * sizes[members] + 16 * bands, parts.size)
    hands = min(parts.size, max(math.ceil(weights_bytes.sum() / HAND_BYTES), 4 * workers))
    turn = np.empty(parts.size, np.int64)
    turn[np.argsort(-weights_bytes, kind="stable")] = np.arange(parts.size)
    hand_of = (turn % max(hands, 1))[part_of]
    targets = [_place(folder, "hand", number) for number in range(hands)]
    for number, target in enumerate(targets):
        _write(target, members[hand_of == number])
    return targets


def _join(parents: Numbers, links: Numbers) -> None:
    """Join the parts that links connect; each entry of `parents` is, before and after, the smallest document of its part."""
    while True:
        one, other = parents[links[:, 0]], parents[links[:, 1]]
        low, high = np.minimum(one, other), np.maximum(one, other)
        differ = low != high
        if not differ.any():
            return
        links = links[differ]
        parents[high[differ]] = low[differ]  # of several for one, any; the others are joined in a later turn
        while ((above := parents[parents]) != parents).any():
            parents[:] = above


@dataclasses.dataclass(frozen=True, slots=True)
class ResolveTask:
    """The file of the documents of some whole parts."""

    signed: Signed
    hand: Path
    rules: NearDuplicateRules


def resolve(task: ResolveTask) -> Path:
    """Write which of the documents are removed, their twins and similarities; return the file."""
    documents: Numbers = np.load(task.hand)
    held = _load(task.signed, documents)
    order = np.lexsort((documents, held.ranks))
    starts, ends, buckets = held.bounds[:-1][order], held.bounds[1:][order], _buckets(held.bands, order)
    loops = kernels("twin")
    find = loops.resolve_by_prefixes if are_crowded(buckets, held.hashes.size) else loops.resolve
    twins, similarities = find(held.hashes, starts, ends, buckets, task.rules.threshold)
    documents = documents[order]
    removed = np.flatnonzero(twins >= 0)
    table = np.empty(removed.size, REMOVAL)
    table["document"], table["twin"], table["similarity"] = documents[removed], documents[twins[removed]], similarities[removed]
    target = task.hand.with_suffix(".removed")
    _write(target, table)
    return target


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What the first step found of some documents; the shingles of document `i` are ``hashes[bounds[i] : bounds[i + 1]]``."""

    hashes: Hashes
    bounds: Numbers
    ranks: Numbers
    bands: Hashes


def _load(signed: Signed, documents: Numbers) -> Held:
    """Return what is known of documents, whose numbers ascend. The files of one shard are open at a time."""
    pieces, ranks, bands = [], [], []
    for (first, place), count in zip(signed.shards(), signed.counts, strict=True):
        local = documents[np.searchsorted(documents, first) : np.searchsorted(documents, first + count)] - first
        if local.size:
            bounds = np.load(place.with_suffix(".bounds"), mmap_mode="r")
            pieces.append((place.with_suffix(".shingles"), bounds[local], bounds[local + 1]))
            ranks.append(np.load(place.with_suffix(".ranks"), mmap_mode="r")[local])
            bands.append(np.load(place.with_suffix(".bands"), mmap_mode="r")[:, local])
    bounds = np.cumsum([0, *np.concatenate([ends - starts for _, starts, ends in pieces])], dtype=np.int64)
    hashes, at = np.empty(bounds[-1], "<u8"), 0
    for path, starts, ends in pieces:
        with open(path, "rb") as file:
            for start, count in zip(starts.tolist(), (ends - starts).tolist(), strict=True):
                file.seek(8 * start)
                size_bytes = file.readinto(hashes[at : at + count].data)
                assert size_bytes == 8 * count, path
                at += count
    return Held(hashes, bounds, np.concatenate(ranks), np.concatenate(bands, axis=1))


def load_kernels() -> None:
    """Have every loop compiled, or loaded from where that is kept."""
    shingles = shingles_of(["a b"])
    bands = band_hashes(shingles, 1, 1)
    buckets = _buckets(bands, np.zeros(1, np.int64))
    for find in (kernels("twin").resolve, kernels("twin").resolve_by_prefixes):
        find(shingles.hashes, shingles.bounds[:-1], shingles.bounds[1:], buckets, 1.0)


def are_crowded(buckets: Numbers, shingles: int) -> bool:
    """Return whether so many texts share bands that comparing all of them may take longer than ordering their shingles."""
    pairs = float(np.square(np.bincount(buckets.ravel()), dtype=np.float64).sum()) / 2
    return CROWDED * shingles < pairs


def _buckets(bands: Hashes, order: Numbers) -> Numbers:
    """Return a number from 0 for each hash, different in each band, of texts in an order."""
    numbers = np.empty(bands.shape, np.int64)
    given = 0
    for band, column in enumerate(bands):
        values, found = np.unique(column, return_inverse=True)
        numbers[band] = found[order] + given
        given += values.size
    return numbers


def _place(folder: Path, step: str, number: int) -> Path:
    return folder / f"{step}-{number:05d}"


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name when the block ends well, and is then on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, array: NDArray[Any]) -> None:
    with _whole(path) as file:
        write_array(file, array)
