"""The history of one row: where it came from, what was done to it, and what was dropped beside it.

In: a dataset folder and a row's id, or the beginning of one. Out: a report (plain values), or its text for a terminal. Dropped siblings are
units of the same place (file, commit or table), and those that were dropped because of this row: duplicates and near-duplicates of it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.inspect import shown_content, shown_text
from data_prep.license_policy import license_class
from data_prep.prepared import dropped_files, open_parquet, prepared_rows, require_prepared
from starchat.errors import UserError

MIN_ID_CHARACTERS = 4
_STEP = re.compile(r"[:#][^:#/]*\Z")


def history_of(dataset: Path, id: str, samples: int = 10) -> dict[str, Any]:
    """Return the history of the row whose id begins so, with up to `samples` dropped siblings; raise `UserError` if there is none."""
    manifest = require_prepared(dataset)
    if len(id) < MIN_ID_CHARACTERS:
        raise UserError(f"--id: {id!r}; give at least {MIN_ID_CHARACTERS} characters of a row's id, as starchat inspect shows them")
    rows = [row for row in prepared_rows(dataset) if row["id"].startswith(id)]
    ids = sorted({row["id"] for row in rows})
    if len(ids) != 1:
        found = f"{len(ids)} rows begin so ({', '.join(ids[:3])}, ...)" if ids else "no row begins so"
        raise UserError(f"{dataset}: --id: {id!r}: {found}; starchat inspect shows ids")
    row, spec = rows[0], manifest["spec"]
    siblings = list(_siblings(dataset, row, manifest["counts"]["dropped"]))
    return {
        "folder": str(dataset),
        "row": row,
        "copies": len(rows),
        "license_class": license_class(row["license"]),
        "from": spec["sources"][row["origin"]] if row.get("origin") is not None else None,
        "repairs": row.get("repairs") or [],
        "steps": spec.get("curate") or {},
        "versions": manifest["versions"],
        "siblings": siblings[:samples],
        "siblings_in_all": len(siblings),
    }


def _siblings(dataset: Path, row: Mapping[str, Any], reasons: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    home = _STEP.sub("", row["source"]["place"])
    for reason, path in [(name, path) for name in sorted(reasons) for path in dropped_files(dataset, name)]:
        with open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=2_000, columns=["place", "detail"]):
                for dropped in batch.to_pylist():
                    if row["id"] in dropped["detail"] or dropped["place"] == home or _STEP.sub("", dropped["place"]) == home:
                        yield {"reason": reason, **dropped}


def render_history(report: Mapping[str, Any]) -> str:
    """Return a report as text for a terminal."""
    row = report["row"]
    source = {key: value for key, value in row["source"].items() if value and key != "people"}
    lines = [f"{row['id']} ({row['kind']}, {row['split']}, written {report['copies']} times)"]
    lines += [f"  {key:<12} {shown_text(str(value))}" for key, value in source.items()]
    lines.append(f"  {'licence':<12} {row['license'] or 'not stated'} ({report['license_class']})")
    if report["from"]:
        stated = {key: value for key, value in report["from"].items() if value is not None and not isinstance(value, dict)}
        lines.append(f"  {'source':<12} " + shown_text(", ".join(f"{key}: {value}" for key, value in stated.items())))
    lines.append(f"  {'repairs':<12} {', '.join(report['repairs']) or 'none'}")
    lines.append(f"  {'curated by':<12} {', '.join(report['steps']) or 'nothing'}")
    lines += ["", *shown_content(row), "", f"{report['siblings_in_all']} dropped siblings"]
    for sibling in report["siblings"]:
        lines.append(textwrap.shorten(shown_text(f"  {sibling['reason']}: {sibling['place']}: {sibling['detail']}"), 240, placeholder=" …"))
    return "\n".join(lines)
