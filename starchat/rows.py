"""A recipe's dataset as encoded rows, and on disk for every process of a run to read.

In: the dataset that a recipe names. Out: `Encoded`: flat arrays in ``<run>/encoded-<digest>/``, written whole by the first
process, memory-mapped by all. Encoding happens while no process is in a collective, so none times out waiting for it.
Imports no torch.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from starchat.dialogue import ROLES, Record, Source, canonical_json, from_message, from_row
from starchat.document import encode_documents
from starchat.encode import Row, SetAside, encode_dialogues
from starchat.errors import UserError
from starchat.files import building, digest_json, read_manifest, sha256_file, write_json
from starchat.pack import Groups, one_by_one, pack, two_by_two
from starchat.pairs import encode_pairs
from starchat.recipe import Recipe
from starchat.tokens import Tokens

SEEN_S = 180.0
"""A shared disk shows another machine's folder late: NFS asks again after at most 60 s by default (``acdirmax``)."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Rows of one split, flat. Row n is ``ids[offsets[n]:offsets[n + 1]]``; a group lists the rows of one packed example,
    or the chosen and the rejected row of a pair."""

    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    groups: Groups
    row_ids: tuple[str, ...]

    def row(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Return ids and trained flags of a row, (tokens,) each."""
        start, stop = self.offsets[number], self.offsets[number + 1]
        return self.ids[start:stop], self.trained[start:stop]

    def __len__(self) -> int:
        return len(self.offsets) - 1


def read_records(dataset: str, split: str) -> Iterator[Record]:
    """Yield the records of one split, in the order of the files."""
    folder = Path(dataset)
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is not None and manifest.get("stage") == "prepare":
        yield from _read_prepared(folder, split, int(manifest["counts"]["splits"].get(split, 0)))
        return
    if folder.is_dir() and not (folder / "dataset_info.json").is_file() and not (folder / "dataset_dict.json").is_file():
        what = "an unfinished or foreign folder" if any(folder.iterdir()) else "an empty folder"
        raise UserError(f"dataset: {dataset}: {what}; give a folder that starchat prepare wrote, or a datasets folder")
    for number, row in enumerate(_load_hub(dataset, split), 1):
        yield _record_of_messages(row, f"{dataset}:{number}", split)


def dataset_digest(dataset: str) -> str:
    """Return the digest of what a dataset holds; of a Hub id, its name."""
    folder = Path(dataset)
    if not folder.exists():
        return digest_json(dataset)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".parquet", ".arrow"))
    return digest_json([[str(p.relative_to(folder)), sha256_file(p)] for p in files])


def encode_split(recipe: Recipe, tokens: Tokens, split: str) -> Iterator[Row | SetAside]:
    """Yield the rows of one split of the recipe's dataset."""
    records = read_records(recipe.dataset, split)
    if recipe.of_pairs:
        yield from encode_pairs((r for r in records if r.kind == "pair"), tokens, recipe.max_length_tokens)
    elif recipe.of_dialogues:
        yield from encode_dialogues((r for r in records if r.kind == "dialogue"), tokens, recipe.max_length_tokens)
        records = read_records(recipe.dataset, split)
    if recipe.of_documents:
        documents = (r for r in records if r.parts)
        yield from encode_documents(documents, tokens, recipe.max_length_tokens, recipe.fim, int(recipe.trainer.get("seed", 42)))


def group_rows(recipe: Recipe, lengths: Sequence[int] | npt.NDArray[np.int64]) -> Groups:
    """Return the rows of each example, by number: several where rows are packed, the two of a pair, else one."""
    if recipe.of_pairs:
        return two_by_two(len(lengths))
    return pack(lengths, recipe.max_length_tokens) if recipe.packing else one_by_one(len(lengths))


def encoded_digest(recipe: Recipe, tokens: Tokens) -> str:
    """Return the digest of everything that encoded rows depend on."""
    parts = [recipe.kind, recipe.template, recipe.max_length_tokens, recipe.packing, recipe.trainer.get("seed", 42)]
    fim = dataclasses.asdict(recipe.fim) if recipe.fim else None
    return digest_json([*parts, fim, dataset_digest(recipe.dataset), tokens.whole.to_str(), _code_digest()])


def write_encoded(folder: Path, recipe: Recipe, splits: Mapping[str, Sequence[Row]]) -> None:
    """Write the encoded rows of each split; the folder appears whole."""
    with building(folder) as target:
        for split, rows in splits.items():
            lengths = [len(row.ids) for row in rows]
            groups = group_rows(recipe, lengths)
            _save(target / f"{split}-ids.npy", np.concatenate([r.ids for r in rows]) if rows else np.zeros(0, np.int32))
            _save(target / f"{split}-trained.npy", np.concatenate([r.trained for r in rows]) if rows else np.zeros(0, np.bool_))
            _save(target / f"{split}-offsets.npy", np.cumsum([0, *lengths], dtype=np.int64))
            _save(target / f"{split}-groups.npy", groups.rows)
            _save(target / f"{split}-group-offsets.npy", groups.offsets)
            write_json(target / f"{split}.json", {"row_ids": [r.id for r in rows]})


def _save(path: Path, values: npt.NDArray[Any]) -> None:
    try:
        np.save(path, values)
    except OSError as error:
        if error.errno is None:  # numpy says of a full disk how many values it wrote, and not why it stopped
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise


def read_encoded(folder: Path, split: str) -> Encoded:
    """Return the encoded rows of one split, memory-mapped."""
    index = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
    ids, trained = (np.load(folder / f"{split}-{name}.npy", mmap_mode="r") for name in ("ids", "trained"))
    offsets, rows, group_offsets = (np.load(folder / f"{split}-{name}.npy") for name in ("offsets", "groups", "group-offsets"))
    return Encoded(ids, trained, offsets, Groups(rows, group_offsets), tuple(index["row_ids"]))


def wait_for(folder: Path, limit_s: float = SEEN_S, poll_s: float = 0.5) -> None:
    """Return when the encoded rows that another process has written are seen here too; raise `UserError` if that takes too long."""
    until = time.monotonic() + limit_s
    while not folder.is_dir():
        if time.monotonic() > until:
            raise UserError(f"{folder}: written by the first process and not seen here; give an output on a disk that all machines share")
        time.sleep(poll_s)


def _read_prepared(folder: Path, split: str, expected: int) -> Iterator[Record]:
    """Yield the records of a split; a part that is damaged or gone is an error, not a smaller dataset."""
    import pyarrow
    import pyarrow.parquet as pq

    found, remedy = 0, "restore the folder, or prepare the dataset again"
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(1000):
                    yield from map(from_row, batch.to_pylist())
                    found += batch.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:200]}); {remedy}") from None
    if found != expected:
        raise UserError(f"{folder}: the {split} split has {found:,} records, its manifest says {expected:,}; {remedy}")


def _load_hub(dataset: str, split: str) -> Any:
    import datasets

    try:
        loaded = datasets.load_from_disk(dataset) if Path(dataset).is_dir() else datasets.load_dataset(dataset)
    except (FileNotFoundError, ConnectionError, ValueError, OSError) as error:
        what = " ".join(str(error).split())[:200]
        raise UserError(f"dataset: {dataset!r}: neither a folder nor a data set that can be loaded ({what}); check the name") from None
    if isinstance(loaded, datasets.Dataset):
        return loaded if split == "train" else ()
    return loaded.get(split, ())


def _record_of_messages(row: Mapping[str, Any], place: str, split: str) -> Record:
    remedy = "run starchat prepare on it first"
    if "messages" not in row:
        raise UserError(f"{place}: columns {', '.join(row)}; expected 'messages'; {remedy}")
    messages = row["messages"]
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise UserError(f"{place}: messages is {str(messages)[:80]!r}; expected a list of messages with role and content; {remedy}")
    for message in messages:
        if message.get("role") not in ROLES:
            raise UserError(f"{place}: role {message.get('role')!r}; expected {', '.join(ROLES)}; {remedy}")
        if not isinstance(message.get("content") or "", str):
            raise UserError(f"{place}: content is of type {type(message['content']).__name__}; expected text; {remedy}")
    try:
        turns = tuple(map(from_message, messages))
    except (KeyError, TypeError):
        turns = ()
    if not turns or not all(isinstance(text, str) for turn in turns for call in turn.tool_calls for text in (call.name, call.arguments)):
        raise UserError(f"{place}: tool_calls are not in OpenAI's shape (function with name and arguments as JSON text); {remedy}")
    placeholders = row.get("placeholders") or ()
    if isinstance(placeholders, str) or not all(isinstance(placeholder, str) for placeholder in placeholders):
        raise UserError(f"{place}: placeholders is {str(placeholders)[:80]!r}; expected a list of texts; {remedy}")
    return Record(Source(place), turns=turns, tools=_tools_of(row, place, remedy), split=split, placeholders=tuple(placeholders))


def _tools_of(row: Mapping[str, Any], place: str, remedy: str) -> str | None:
    tools = row.get("tools")
    if not tools:
        return None
    try:
        value = json.loads(tools) if isinstance(tools, str) else tools
    except ValueError as error:
        raise UserError(f"{place}: tools is not JSON ({error}); expected the JSON text of a list; {remedy}") from None
    if not isinstance(value, list):
        raise UserError(f"{place}: tools is of type {type(value).__name__}; expected a list; {remedy}")
    return canonical_json(value)


def _code_digest() -> str:
    """Return the digest of the modules that decide what a row is, so that a change of them is never served stale rows."""
    here = Path(__file__).parent
    modules = ("dialogue", "template", "tokens", "placeholders", "encode", "pairs", "document", "fim", "pack", "rows")
    return digest_json([sha256_file(here / f"{module}.py") for module in modules])
