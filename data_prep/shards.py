"""Parquet files of bounded size: the records of a dataset, and the rows that were dropped, by reason.

Out: ``<split>-00000.parquet`` ..., ``dropped/<reason>.parquet``. Rows are written as they come, so memory does not
grow with their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from data_prep.records import Dropped, encodable

MAX_SHARD_BYTES = 256 << 20
MAX_GROUP_BYTES = 16 << 20
MAX_GROUP_ROWS = 2_000


def record_schema() -> Any:
    """Return the Arrow schema of what `starchat.dialogue.to_row` gives."""
    import pyarrow as pa

    text = pa.string()
    function = pa.struct([("name", text), ("arguments", text)])
    call = pa.struct([("id", text), ("type", text), ("function", function)])
    message = pa.struct(
        [("role", text), ("content", text), ("name", text), ("tool_calls", pa.list_(call)), ("tool_call_id", text), ("weight", pa.int64())]
    )
    part = pa.struct([("marker", text), ("text", text)])
    named = [(name, text) for name in ("place", "repository", "path", "commit", "url")]
    source = pa.struct([*named, ("stars", pa.int64()), ("date", text), ("people", pa.list_(text))])
    return pa.schema(
        [
            ("id", text),
            ("kind", text),
            ("messages", pa.list_(message)),
            ("rejected", message),
            ("document", pa.list_(part)),
            ("tools", text),
            ("source", source),
            ("license", text),
            ("repairs", pa.list_(text)),
            ("origin", pa.int64()),
            ("split", text),
            ("copy", pa.int64()),
            ("placeholders", pa.list_(text)),
        ]
    )


def dropped_schema() -> Any:
    """Return the Arrow schema of ``dropped/<reason>.parquet``: `source` is the index of the spec's source."""
    import pyarrow as pa

    return pa.schema([("place", pa.string()), ("detail", pa.string()), ("raw", pa.string()), ("source", pa.int64())])


class Shards:
    """Writes rows of one schema to the files ``pattern.format(0)``, ``pattern.format(1)``, ..., a new one after `max_bytes`."""

    def __init__(self, folder: Path, pattern: str, schema: Any, max_bytes: int | None) -> None:
        self._folder, self._pattern, self._schema, self._max_bytes = folder, pattern, schema, max_bytes
        self._rows: list[Mapping[str, Any]] = []
        self._group_bytes = self._shard_bytes = self._shards = 0
        self._writer: Any = None
        self._file: Any = None

    def write(self, row: Mapping[str, Any], size_bytes: int) -> None:
        """Add a row of about `size_bytes`."""
        self._rows.append(row)
        self._group_bytes += size_bytes
        if self._group_bytes >= MAX_GROUP_BYTES or len(self._rows) >= MAX_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left and close the last file."""
        self._flush()
        self._close_file()

    def abandon(self) -> None:
        """Give back the open file, if there is one, without writing what is left: after a failure, such as a full disk."""
        writer, self._writer, self._rows = self._writer, None, []
        if writer is not None:
            with contextlib.suppress(OSError):  # the failure itself is on its way to the caller
                writer.close()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        import pyarrow as pa
        import pyarrow.parquet

        if self._writer is None:
            self._file = pa.OSFile(str(self._folder / self._pattern.format(self._shards)), "wb")
            self._writer = pyarrow.parquet.ParquetWriter(self._file, self._schema, compression="zstd")
            self._shards += 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._shard_bytes += self._group_bytes
        self._rows, self._group_bytes = [], 0
        if self._max_bytes is not None and self._shard_bytes >= self._max_bytes:
            self._close_file()

    def _close_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer, self._shard_bytes = None, 0


class DatasetWriter:
    """The open files of a dataset folder; a context manager that closes them all."""

    def __init__(self, folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self._folder, self._max_shard_bytes = folder, max_shard_bytes
        self._splits: dict[str, Shards] = {}
        self._dropped: dict[str, Shards] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        everything = [*self._splits.values(), *self._dropped.values()]
        try:
            if kind is None:
                for shards in everything:
                    shards.close()
        finally:
            for shards in everything:
                shards.abandon()

    def keep(self, row: Mapping[str, Any], size_bytes: int) -> None:
        """Write a row of `starchat.dialogue.to_row` to the shards of its split."""
        split = row["split"]
        if split not in self._splits:
            self._splits[split] = Shards(self._folder, f"{split}-{{:05d}}.parquet", record_schema(), self._max_shard_bytes)
        self._splits[split].write(row, size_bytes)

    def drop(self, dropped: Dropped, source: int) -> None:
        """Write a dropped unit to the file of its reason."""
        if dropped.reason not in self._dropped:
            (self._folder / "dropped").mkdir(exist_ok=True)
            self._dropped[dropped.reason] = Shards(self._folder / "dropped", f"{dropped.reason}.parquet", dropped_schema(), None)
        texts = {"place": dropped.place, "detail": dropped.detail, "raw": dropped.raw}
        row = {**{key: encodable(text) for key, text in texts.items()}, "source": source}
        self._dropped[dropped.reason].write(row, len(dropped.raw))
