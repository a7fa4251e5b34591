"""The four steps that find near-duplicates (`data_prep.near_duplicates`), each of pure tasks that write into a folder of their own.

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

import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.arrays import save_array, write_array
from data_prep.shingles import Hashes, Numbers, Shingles, band_hashes, kernels, shingles_of
from data_prep.tasks import write_beside
from starchat.files import digest_bytes

BATCH_CHARS = 1_000_000
"""Texts are hashed together up to this size: what that takes fits into a core's caches, and its memory is used again for the next."""

SLICE_DOCUMENTS = 50_000_000
"""About how many documents a task of the second step sorts at once."""

FEW_HASHES = 2_000_000
"""Bands of fewer documents are sorted several by one task, up to so many hashes."""

HAND_BYTES = 256_000_000
"""About how much memory a task of the fourth step takes, if no part alone takes more."""

HANDS = 16
"""Hands that are dealt out at least. One number everywhere: what a task reads must not hang on how many workers there are."""

PART = np.uint64(1 << 63)

CROWDED = 4
"""More pairs than so many times the shingles are found by rare shingles, not by bands alone."""

SHARD, COUNTS = "shard-{:05d}", "counts.npy"
"""The folder of a signed shard, and the file of how many documents each has."""

SHINGLES, BOUNDS, MIDS, RANKS, BANDS = "shingles", "bounds.npy", "mids.npy", "ranks.npy", "bands.npy"
"""The files of a signed shard. Document `i` has the shingles from its bound to the next; those of its second part begin at its mid."""

LINKS, HAND, REMOVED = "links.npy", "hand-{:05d}.npy", "removed.npy"
"""Those of the other steps."""

REMOVAL = np.dtype([("document", "<i8"), ("twin", "<i8"), ("similarity", "<f8")])

Text = str | tuple[str, str]
"""A text, or two parts of one, such as questions and answers: texts are alike where each part is."""

Reader = Callable[[Any], Iterable[tuple[Text, int]]]


def sign(folder: Path, shard: Any, read: Reader, words_per_shingle: int, bands: int, rows: int, seed: int) -> int:
    """Write the shingles of a shard's documents, where they begin, their ranks and their bands; return the number of documents."""
    bounds, mids, sketched, ranks, filled = [np.zeros(1, np.int64)], [np.zeros(0, np.int64)], [np.zeros((bands, 0), np.uint64)], [], 0
    with open(folder / SHINGLES, "wb") as file:
        for batch in _batches(read(shard)):
            shingles, own_mids = _shingles_of([text for text, _ in batch], words_per_shingle)
            file.write(shingles.hashes.astype("<u8", copy=False).data)
            bounds.append(shingles.bounds[1:] + filled)
            mids.append(own_mids + filled)
            filled += shingles.hashes.size
            sketched.append(band_hashes(shingles, bands, rows, seed))
            ranks += [rank for _, rank in batch]
    save_array(folder / BOUNDS, np.concatenate(bounds))
    save_array(folder / MIDS, np.concatenate(mids))
    save_array(folder / RANKS, np.array(ranks, np.int64))
    save_array(folder / BANDS, np.concatenate(sketched, axis=1))
    return len(ranks)


def _shingles_of(texts: Sequence[Text], words_per_shingle: int) -> tuple[Shingles, Numbers]:
    """Return the shingles of texts, and where those of second parts begin.

    Of a text in parts the highest bit of a hash tells the part, so that its shingles ascend and the same words in both are two.
    """
    first = shingles_of([text if isinstance(text, str) else text[0] for text in texts], words_per_shingle)
    if all(isinstance(text, str) for text in texts):
        return first, first.bounds[1:]
    second = shingles_of(["" if isinstance(text, str) else text[1] for text in texts], words_per_shingle)
    pieces: list[Hashes] = []
    for number, text in enumerate(texts):
        one, other = (each.hashes[each.bounds[number] : each.bounds[number + 1]] for each in (first, second))
        pieces += [one, other] if isinstance(text, str) else [np.unique(one & ~PART), np.unique(other | PART)]
    ends = np.cumsum([0, *(piece.size for piece in pieces)], dtype=np.int64)
    return Shingles(np.concatenate(pieces), ends[::2]), ends[1::2]


def _batches(documents: Iterable[tuple[Text, int]]) -> Iterator[list[tuple[Text, int]]]:
    batch, chars = [], 0
    for document in documents:
        batch.append(document)
        text = document[0]
        chars += 100 + (len(text) if isinstance(text, str) else sum(map(len, text)))  # a document takes memory even if it is empty
        if chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


@dataclasses.dataclass(frozen=True, slots=True)
class Signed:
    """What the first step wrote: `folder` holds one of each shard, and `counts` is a file, of a `digest`, of how many documents each has.

    Every task of the later steps is given this, so it is as small with many shards as with few.
    """

    folder: Path
    counts: Path
    digest: str
    documents: int

    def task_identity(self) -> Any:
        """Return what tells this from what the first step wrote of other shards."""
        return [str(self.folder), self.digest]

    def bounds(self) -> Numbers:
        """Return the number of the first document of each shard, and the number of documents."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.load(self.counts))])

    def shards(self) -> Iterator[tuple[int, Path]]:
        """Yield the number of the first document of each shard, and its folder."""
        for number, first in enumerate(self.bounds()[:-1].tolist()):
            yield first, self.folder / SHARD.format(number)


def signed_shards(folder: Path, counts: Sequence[int]) -> Signed:
    """Return what the first step wrote in a folder, of so many documents in each shard, which a file beside that folder says then."""
    data = io.BytesIO()
    write_array(data, np.array(counts, np.int64))
    place = folder.with_name(COUNTS)
    write_beside(str(place), data.getvalue())
    return Signed(folder, place, digest_bytes(data.getvalue()), sum(counts))


def link(folder: Path, signed: Signed, some: range, number: int, slices: int) -> None:
    """Write pairs of documents that connect all those with the same hash of a band, of some bands, in one of their slices."""
    hashes: list[list[Hashes]] = [[np.zeros(0, np.uint64)] for _ in some]
    documents: list[list[Numbers]] = [[np.zeros(0, np.int64)] for _ in some]
    for first, place in signed.shards():
        told = np.diff(np.load(place / BOUNDS)) > 0
        bands = np.asarray(np.load(place / BANDS, mmap_mode="r"))
        for at, band in enumerate(some):
            in_slice = told if slices == 1 else told & (bands[band] % np.uint64(slices) == number)
            local = np.flatnonzero(in_slice)
            hashes[at].append(bands[band, local])
            documents[at].append(local + first)
    links = [_neighbours(np.concatenate(each), np.concatenate(of)) for each, of in zip(hashes, documents, strict=True)]
    save_array(folder / LINKS, np.concatenate(links))


def _neighbours(hashes: Hashes, documents: Numbers) -> Numbers:
    """Return pairs of documents that connect all those with the same hash."""
    order = np.argsort(hashes)
    hashes, documents = hashes[order], documents[order]
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    return np.stack((documents[same], documents[same + 1]), axis=1)


def deal(folder: Path, signed: Signed, links: Sequence[Path], bands: int) -> int:
    """Write the documents of the connected parts to files, each part into one, so that all are about equal; return how many files."""
    parents = np.arange(signed.documents, dtype=np.int64)
    for place in links:
        _join(parents, np.load(place))
    sizes = np.concatenate([np.zeros(0, np.int64), *(np.diff(np.load(place / BOUNDS)) for _, place in signed.shards())])
    in_part = parents != np.arange(signed.documents)
    in_part[parents[in_part]] = True
    members = np.flatnonzero(in_part)
    parts, part_of = np.unique(parents[members], return_inverse=True)
    weights_bytes = np.bincount(part_of, 8 * sizes[members] + 16 * bands, parts.size)
    hands = min(parts.size, max(math.ceil(weights_bytes.sum() / HAND_BYTES), HANDS))
    turn = np.empty(parts.size, np.int64)
    turn[np.argsort(-weights_bytes, kind="stable")] = np.arange(parts.size)
    hand_of = (turn % max(hands, 1))[part_of]
    for number in range(hands):
        save_array(folder / HAND.format(number), members[hand_of == number])
    return hands


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


def resolve(folder: Path, signed: Signed, hand: Path, threshold: float) -> None:
    """Write which documents of some whole parts are removed, their twins and similarities."""
    documents: Numbers = np.load(hand)
    held = _load(signed, documents)
    order = np.lexsort((documents, held.ranks))
    starts, mids, ends, buckets = held.bounds[:-1][order], held.mids[order], held.bounds[1:][order], _buckets(held.bands, order)
    loops = kernels("twin")
    find = loops.resolve_by_prefixes if are_crowded(buckets, held.hashes.size) else loops.resolve
    twins, similarities = find(held.hashes, starts, mids, ends, buckets, threshold)
    documents = documents[order]
    removed = np.flatnonzero(twins >= 0)
    table = np.empty(removed.size, REMOVAL)
    table["document"], table["twin"], table["similarity"] = documents[removed], documents[twins[removed]], similarities[removed]
    save_array(folder / REMOVED, table)


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What the first step found of some documents; the shingles of document `i` are ``hashes[bounds[i] : bounds[i + 1]]``, those of its
    second part ``hashes[mids[i] : bounds[i + 1]]``."""

    hashes: Hashes
    bounds: Numbers
    mids: Numbers
    ranks: Numbers
    bands: Hashes


def _load(signed: Signed, documents: Numbers) -> Held:
    """Return what is known of documents, whose numbers ascend. The files of one shard are open at a time."""
    pieces, first_parts, ranks, bands = [], [], [], []
    firsts = signed.bounds()
    cuts = np.searchsorted(documents, firsts)
    for number in np.flatnonzero(np.diff(cuts)).tolist():
        place = signed.folder / SHARD.format(number)
        local = documents[cuts[number] : cuts[number + 1]] - firsts[number]
        bounds = np.load(place / BOUNDS, mmap_mode="r")
        pieces.append((place / SHINGLES, bounds[local], bounds[local + 1]))
        first_parts.append(np.load(place / MIDS, mmap_mode="r")[local] - bounds[local])
        ranks.append(np.load(place / RANKS, mmap_mode="r")[local])
        bands.append(np.load(place / BANDS, mmap_mode="r")[:, local])
    bounds = np.cumsum([0, *np.concatenate([ends - starts for _, starts, ends in pieces])], dtype=np.int64)
    hashes, at = np.empty(bounds[-1], "<u8"), 0
    for path, starts, ends in pieces:
        with open(path, "rb") as file:
            for start, count in zip(starts.tolist(), (ends - starts).tolist(), strict=True):
                file.seek(8 * start)
                size_bytes = file.readinto(hashes[at : at + count].data)
                assert size_bytes == 8 * count, path
                at += count
    return Held(hashes, bounds, bounds[:-1] + np.concatenate(first_parts), np.concatenate(ranks), np.concatenate(bands, axis=1))


def load_kernels() -> None:
    """Have every loop compiled, or loaded from where that is kept."""
    shingles = shingles_of(["a b"])
    bands = band_hashes(shingles, 1, 1)
    buckets = _buckets(bands, np.zeros(1, np.int64))
    for find in (kernels("twin").resolve, kernels("twin").resolve_by_prefixes):
        find(shingles.hashes, shingles.bounds[:-1], shingles.bounds[1:], shingles.bounds[1:], buckets, 1.0)


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
