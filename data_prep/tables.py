"""The tables of a dataset: the schemas of its records and of what was dropped, and a Parquet file that is written row by row.

Rows are written in groups as they come, so memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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
    """Return the Arrow schema of ``dropped/*.parquet``: `source` is the index of the spec's source."""
    import pyarrow as pa

    return pa.schema([("place", pa.string()), ("detail", pa.string()), ("raw", pa.string()), ("source", pa.int64())])


class TableFile:
    """Writes rows of one schema to a file, group by group; a context manager that closes it."""

    def __init__(self, path: Path, schema: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._schema = schema
        self._rows: list[Mapping[str, Any]] = []
        self._copies: list[range] = []
        self._group_rows = self._group_bytes = 0
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pyarrow.parquet.ParquetWriter(self._file, schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
                self._writer.close()
                self._file.close()
        finally:  # after a failure, such as a full disk, which is on its way to the caller
            for thing in (self._writer, self._file):
                with contextlib.suppress(OSError):
                    thing.close()

    def write(self, row: Mapping[str, Any], size_bytes: int, copies: int = 1) -> None:
        """Add a row of about `size_bytes`, as often as `copies` says: the column ``copy`` of each but the first has its number, from 1."""
        first = 0
        while first < copies:
            room = min(MAX_GROUP_ROWS - self._group_rows, -(-(MAX_GROUP_BYTES - self._group_bytes) // max(size_bytes, 1)))
            end = min(first + room, copies)
            self._rows.append(row)
            self._copies.append(range(first, end))
            self._group_rows += end - first
            self._group_bytes += (end - first) * size_bytes
            first = end
            if self._group_bytes >= MAX_GROUP_BYTES or self._group_rows >= MAX_GROUP_ROWS:
                self._flush()

    def _flush(self) -> None:
        import numpy as np
        import pyarrow as pa

        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
            if self._copies != [range(1)] * len(self._rows):  # Python's objects are made into Arrow's once, however many copies there are
                table = table.take(np.repeat(np.arange(len(self._rows)), [len(copies) for copies in self._copies]))
                column = self._schema.get_field_index("copy")
                table = table.set_column(column, self._schema.field(column), pa.array(np.concatenate(self._copies)))
            self._writer.write_table(table)
            self._rows, self._copies, self._group_rows, self._group_bytes = [], [], 0, 0
