"""CommitPack rows: JSON Lines or Parquet with a file before and after a commit, as bigcode/commitpack and commitpackft publish them.

In: tables of rows. Out: one item for each row. ``repos`` is a comma list with repetitions; its first name stands for the record.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_prep.drafts import RowProblem, optional_text, required_text
from data_prep.json_lines import STRETCH_BYTES, Lines, cut_lines, read_rows, require_some
from data_prep.kinds import Piece
from data_prep.records import Dropped, Item
from data_prep.sources import Row, Table, as_text, read_table
from starchat.batches import batched
from starchat.dialogue import Source

RowItem = Callable[[str, str, str, Source, str | None, Any], Item]
ROWS_OF_A_PIECE = 256
SHOWN_KEYS = ("commit", "old_file", "new_file", "repos", "license")


def row_pieces(tables: Sequence[Table], builder: Any, item_of: RowItem) -> Iterator[Piece]:
    """Yield the rows in pieces, of which each row's item is what `item_of`, a function of a module, makes of its texts."""
    items = functools.partial(_items, builder, item_of)
    for table in tables:
        if table.reader == "jsonl":
            yield from (Piece(items, some, some.reads) for some in require_some(table.path, cut_lines(table.path, STRETCH_BYTES)))
        else:
            yield from (Piece(items, some) for some in batched(read_table(table), ROWS_OF_A_PIECE))


def _items(builder: Any, item_of: RowItem, found: Lines | tuple[Row | Dropped, ...]) -> list[Item]:
    rows = read_rows(found) if isinstance(found, Lines) else found
    return [row if isinstance(row, Dropped) else _item(row, builder, item_of) for row in rows]


def _item(row: Row, builder: Any, item_of: RowItem) -> Item:
    value = row.value
    try:
        old, new = optional_text(value, "old_contents"), required_text(value, "new_contents")
        message = optional_text(value, "message") or required_text(value, "subject")
        texts = {key: optional_text(value, key) for key in ("commit", "old_file", "new_file", "repos", "license")}
        if value.get("returncode") not in (None, 0, "0"):
            raise RowProblem("fetch_failed", f"returncode {value['returncode']}: the contents were not fetched")
    except RowProblem as problem:
        raw = {key: value[key] for key in SHOWN_KEYS if key in value}
        return Dropped(problem.reason, row.place, problem.detail, as_text(raw), problem.fault)
    path = texts["new_file"] or texts["old_file"]
    repository = texts["repos"].split(",")[0] or builder.repository or None
    source = Source(row.place, repository, path or None, texts["commit"] or None)
    if old == new:
        return Dropped("no_change", row.place, "the contents before and after are the same", as_text({"path": path}))
    if not old:
        return Dropped("file_added", row.place, "there is no content before", as_text({"path": path}))
    return item_of(old, new, message, source, texts["license"] or None, builder)
