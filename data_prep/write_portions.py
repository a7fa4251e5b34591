"""The files of a dataset, each written by one task of any engine from the lines that were judged to be in it.

In: a portion (`data_prep.verdicts`) and the folders of the shards' items. Out: a Parquet file, of a split or of what was dropped for one
reason; of a split also its counts (``census.pickle``), and the repairs of its records as the task's value.
"""

from __future__ import annotations

import collections
import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.arrays import save_array
from data_prep.census import Census
from data_prep.item_files import ITEMS, identity, read_line
from data_prep.sources import as_text
from data_prep.tables import TableFile, dropped_schema, record_schema
from data_prep.verdicts import CLAIMED, DUPLICATE, MIXTURE, NEAR, OWN, Portion
from starchat.dialogue import from_row
from starchat.files import digest_bytes

CENSUS = "census.pickle"
WEIGHTS = "weights.npy"


@dataclasses.dataclass(frozen=True, slots=True)
class WriteTask:
    """A portion's file and the digest of its `entries`, which lie in a file, as the `weights` of all sources do.

    `shards` is how the folders of shards are called.
    """

    name: str
    split: str | None
    entries: str
    digest: str
    shards: str
    weights: str

    def task_identity(self) -> Any:
        """Return what tells this file from others of its run, whose digest covers all the rest."""
        return [self.name, self.digest]


def shard_folder(pattern: str, number: int) -> Path:
    """Return the folder of a shard."""
    return Path(pattern.format(number))


def write_portion(folder: Path, task: WriteTask) -> dict[str, dict[str, int]]:
    """Write a file of the dataset to an empty folder; return the repairs of its records by source."""
    entries = np.load(task.entries)
    target = folder / task.name
    if task.split is None:
        weights = np.load(task.weights)
        with TableFile(target, dropped_schema()) as table:
            for entry, value in lines_of(entries, task.shards):
                table.write(dropped_row(entry, value, weights), int(entry["size"]))
        return {}
    census = Census()
    repaired: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with TableFile(target, record_schema()) as table:
        for entry, value in lines_of(entries, task.shards):
            source = int(entry["source"])
            census.add(from_row(value["row"]))
            repaired[str(source)].update(value["repairs"])
            row = {**value["row"], "repairs": value["repairs"], "origin": source, "split": task.split, "copy": 0}
            table.write(row, int(entry["size"]), int(entry["copies"]))
    (folder / CENSUS).write_bytes(pickle.dumps(census))
    return {source: dict(counts) for source, counts in repaired.items() if counts}


def lines_of(entries: np.ndarray[Any, Any], shards: str) -> Iterator[tuple[np.void, dict[str, Any]]]:
    """Yield each entry with the value of its line."""
    cuts = np.flatnonzero(np.diff(entries["shard"])) + 1
    for some in np.split(entries, cuts) if len(entries) else ():
        with open(shard_folder(shards, int(some["shard"][0])) / ITEMS, "rb") as file:
            for entry in some:
                yield entry, read_line(file, entry)


def dropped_row(entry: np.void, value: dict[str, Any], weights: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return the row of what is dropped: as its builder or a step said, or by a verdict."""
    source = int(entry["source"])
    twin = identity(entry["twin"])
    if entry["verdict"] in (OWN, CLAIMED):
        found = {**{key: value["dropped"][key] for key in ("place", "detail", "raw")}, "source": source}
        return found if entry["verdict"] == OWN else {**found, "detail": f"{found['detail']}: the record {twin}"}
    row = value["row"]
    detail = {
        DUPLICATE: f"same content as the earlier record {twin}",
        NEAR: f"{entry['similarity']:.3f} like the record {twin}, which is kept",
        MIXTURE: f"not in the share that weight {weights[source]:g} keeps",
    }[int(entry["verdict"])]
    if entry["verdict"] == NEAR and twin == row["id"]:
        detail = f"same content as the record {twin}, which is kept"
    return {"place": row["source"]["place"], "detail": detail, "raw": as_text(row), "source": source}


def write_tasks(portions: Iterator[Portion], folder: Path, shards: str, weights: tuple[float, ...]) -> Iterator[WriteTask]:
    """Yield the task of each portion, whose entries are written to a folder, beside the weights of the sources."""
    place = folder / WEIGHTS
    save_array(place, np.array(weights))
    for portion in portions:
        path = folder / f"{portion.name}.npy"
        save_array(path, portion.entries)
        yield WriteTask(portion.name, portion.split, str(path), digest_bytes(portion.entries.tobytes()), shards, str(place))
