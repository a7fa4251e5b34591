"""A dataset that prepare wrote, opened and read: for those who look at it, count it, or write it without some rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from starchat.errors import UserError
from starchat.files import read_manifest


def require_prepared(dataset: Path) -> dict[str, Any]:
    """Return the manifest of a dataset; raise `UserError` if it is none, not finished, or has lost rows."""
    if not dataset.is_dir():
        raise UserError(f"{dataset}: no such folder; give a folder that starchat prepare wrote")
    manifest = read_manifest(dataset)
    if manifest is None or manifest.get("stage") != "prepare" or "counts" not in manifest:
        raise UserError(f"{dataset}: not a finished dataset of starchat prepare; run it, or give another folder")
    rows, written = count_rows(dataset), manifest["counts"]["written"]
    if rows != written:
        raise UserError(f"{dataset}: holds {rows} rows, its manifest says {written}; files were lost or added: prepare it again")
    return manifest


def prepared_files(dataset: Path) -> list[Path]:
    """Return the files of a dataset's rows, those of the train split first."""
    return [path for split in ("train", "test") for path in sorted(dataset.glob(f"{split}-*.parquet"))]


def dropped_files(dataset: Path, reason: str) -> list[Path]:
    """Return the files of what was dropped for a reason: one, or more if there is much."""
    return [dataset / "dropped" / f"{reason}.parquet", *sorted((dataset / "dropped").glob(f"{reason}-[0-9]*.parquet"))]


def count_rows(dataset: Path) -> int:
    """Return the number of rows that the files of a dataset state."""
    rows = 0
    for path in prepared_files(dataset):
        with open_parquet(path) as file:
            rows += file.metadata.num_rows
    return rows


def prepared_rows(dataset: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset in order."""
    for path in prepared_files(dataset):
        with open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=512):
                yield from batch.to_pylist()


@contextlib.contextmanager
def open_parquet(path: str | Path, data: BinaryIO | None = None) -> Iterator[Any]:
    """Give an open Parquet file, read from `data` if that is open already; what is wrong with it becomes one `UserError`."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(data or path) as file:
            yield file
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: missing or damaged ({' '.join(str(error).split())}); prepare the dataset again") from None
