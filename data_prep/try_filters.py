"""Filters tried on a dataset before a spec names them: how many rows each would take, and which.

In: a dataset folder and rules as ``key=value``. Out: a report (plain values), or its text for a terminal. Nothing is changed.
"""

from __future__ import annotations

import collections
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.curate import token_counter
from data_prep.filters import filter_fault, filter_rules
from data_prep.prepared import prepared_rows, require_prepared
from starchat.config import apply_overrides, to_mapping
from starchat.dialogue import from_row

MAX_SHOWN_CHARACTERS = 600


def try_filters(dataset: Path, rules: Sequence[str], samples: int = 3) -> dict[str, Any]:
    """Return how many rows of a dataset the rules would take, by reason, and the first `samples` of each reason."""
    manifest = require_prepared(dataset)
    found = filter_rules(apply_overrides({}, rules), "--filter")
    count_tokens = None if found.min_characters_per_token is None else token_counter(manifest["spec"]["tokenizer"])
    taken: collections.Counter[str] = collections.Counter()
    shown: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    rows = 0
    for row in prepared_rows(dataset):
        rows += 1
        record = from_row(row)
        if (fault := filter_fault(record, found, count_tokens)) is None:
            continue
        reason, detail = fault
        taken[reason] += 1
        if len(shown[reason]) < samples:
            text = "".join(part.marker + part.text for part in record.parts) or "\n\n".join(turn.content for turn in record.turns)
            shown[reason].append({"id": row["id"], "place": record.source.place, "detail": detail, "text": text[:MAX_SHOWN_CHARACTERS]})
    return {"folder": str(dataset), "rules": to_mapping(found), "rows": rows, "taken": dict(taken.most_common()), "samples": dict(shown)}


def render_tried(report: Mapping[str, Any]) -> str:
    """Return a report as text for a terminal."""
    taken = sum(report["taken"].values())
    share = f" ({100 * taken / report['rows']:.1f} %)" if report["rows"] else ""
    lines = [f"{report['folder']}: {taken:,} of {report['rows']:,} rows would be taken{share}"]
    lines += [f"  {reason:<28} {count:>9,}" for reason, count in report["taken"].items()]
    for reason, rows in report["samples"].items():
        for row in rows:
            text = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in row["text"])
            lines += ["", f"--- {reason}: {row['place']}: {row['detail']}", textwrap.indent(text, "  ")]
    return "\n".join(lines)
