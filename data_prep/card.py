"""The data card of a prepared dataset: its ``README.md``, whose head lets ``datasets.load_dataset`` find the splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def render_card(manifest: Mapping[str, Any], licenses: Mapping[str, int]) -> str:
    """Return the Markdown of the card; `licenses` counts the kept records of each SPDX licence."""
    counts = manifest["counts"]
    splits = [split for split, rows in counts["splits"].items() if rows]
    files = [{"split": split, "path": f"{split}-*.parquet"} for split in splits]
    head: dict[str, Any] = {"configs": [{"config_name": "default", "data_files": files}]}
    if len(licenses) == 1 and "not stated" not in licenses:
        head["license"] = next(iter(licenses)).lower()
    sums = (
        f"{counts['read']} read = {counts['kept']} kept + {sum(counts['dropped'].values())} dropped. "
        f"{counts['written']} rows written, of which {counts['copies']} are copies made by mixture weights."
    )
    lines = ["---", yaml.safe_dump(head, sort_keys=False).rstrip(), "---", "", "# Data card", ""]
    lines += [
        f"Made by `starchat prepare` (version {manifest['versions']['starchat']}).",
        "",
        sums,
        "",
        *_table("Splits", ("split", "rows"), counts["splits"]),
        *_table("Licences", ("licence", "records kept"), licenses),
        *_table("Dropped", ("reason", "units"), counts["dropped"]),
        *_table("Repaired", ("repair", "records"), counts["repaired"]),
        "## Sources",
        "",
        "| place | format | weight | read | kept | dropped |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for source in counts["sources"]:
        dropped = sum(source["dropped"].values())
        lines.append(f"| {source['place']} | {source['format']} | {source['weight']:g} | {source['read']} | {source['kept']} | {dropped} |")
    lines += ["", "What was dropped lies in `dropped/`, one file for each reason.", ""]
    return "\n".join(lines)


def _table(title: str, columns: tuple[str, str], rows: Mapping[str, int]) -> list[str]:
    if not rows:
        return []
    body = [f"| {name} | {count} |" for name, count in sorted(rows.items())]
    return [f"## {title}", "", f"| {columns[0]} | {columns[1]} |", "|---|---:|", *body, ""]
