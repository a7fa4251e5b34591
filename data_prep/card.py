"""The data card of a prepared dataset, for people and for the Hub.

In: a manifest's content. Out: ``README.md``, whose head lets ``datasets.load_dataset`` find the splits, ``card.html`` with the same and
more, and ``card.svg``, the plots of both. What stands in a name of a file or a licence is text in all of them, never markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from data_prep.card_plots import plot_svg
from data_prep.census import NOT_STATED, Census
from starchat.dialogue import canonical_json
from starchat.errors import counted

ATTRIBUTION = "attribution.jsonl"
PLOT = "card.svg"
PAGE = "card.html"

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #67717c; --page: #fff; --line: #dfe3e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe5ec; --soft: #8f9ba8; --page: #13171c; --line: #2b333c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 1040px; margin: 2rem auto; }
body { padding: 0 1rem; } main { display: flex; flex-wrap: wrap; gap: 0 3.5rem; }
main > p, main > svg, main > h1, main > h2 { flex-basis: 100%; }
main > pre { flex-basis: 100%; } section { max-width: 100%; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; } .soft { color: var(--soft); } .scroll { overflow-x: auto; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .8rem; }
"""

Table = tuple[str, Sequence[str], Sequence[Sequence[str | int]]]
"""A title, the names of columns, and rows; numbers stand to the right."""


def write_card(folder: Path, content: Mapping[str, Any], census: Census) -> None:
    """Write the card of a dataset, its plots, and whom it is made of, into the dataset's folder."""
    (folder / PLOT).write_text(plot_svg(content), encoding="utf-8")
    (folder / "README.md").write_text(render_card(content), encoding="utf-8")
    (folder / PAGE).write_text(render_page(content), encoding="utf-8")
    lines = (canonical_json(line) + "\n" for line in census.attribution.lines())
    with open(folder / ATTRIBUTION, "w", encoding="utf-8") as file:
        file.writelines(lines)


def render_card(content: Mapping[str, Any]) -> str:
    """Return the Markdown of the card."""
    counts = content["counts"]
    splits = [split for split, rows in counts["splits"].items() if rows]
    files = [{"split": split, "path": f"{split}-*.parquet"} for split in splits]
    head: dict[str, Any] = {"configs": [{"config_name": "default", "data_files": files}]}
    licenses = content["census"]["licenses"]
    if len(licenses) == 1 and NOT_STATED not in licenses:
        head["license"] = next(iter(licenses)).lower()
    lines = ["---", yaml.safe_dump(head, sort_keys=False).rstrip(), "---", "", "# Data card", ""]
    lines += [*_sentences(content), "", f"![What the dataset is made of]({PLOT})", ""]
    for title, columns, rows in _tables(content):
        lines += [f"## {title}", "", f"| {' | '.join(columns)} |"]
        numbers = [isinstance(cell, int) for cell in rows[0]]
        lines.append("|" + "|".join("---:" if number else "---" for number in numbers) + "|")
        lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
        lines.append("")
    lines += ["What was dropped lies in `dropped/`, one file for each reason.", ""]
    return "\n".join(lines)


def render_page(content: Mapping[str, Any]) -> str:
    """Return the card as a page that needs nothing from elsewhere."""
    body = ["<h1>Data card</h1>", *(f"<p>{escape(text)}</p>" for text in _sentences(content, mark="")), plot_svg(content)]
    for title, columns, rows in _tables(content):
        numbers = [' class="number"' if isinstance(cell, int) else "" for cell in rows[0]]
        header = "".join(f"<th{number}>{escape(name)}</th>" for number, name in zip(numbers, columns, strict=True))
        cells = ["".join(f"<td{number}>{escape(_shown(cell))}</td>" for number, cell in zip(numbers, row, strict=True)) for row in rows]
        table = f"<table><tr>{header}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
        body.append(f'<section><h2>{escape(title)}</h2><div class="scroll">{table}</div></section>')
    body.append(f"<h2>Spec</h2><pre>{escape(yaml.safe_dump(content['spec'], sort_keys=False, allow_unicode=True))}</pre>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Data card</title>'
        f"<style>{_STYLE}</style><body><main>{''.join(body)}</main></body></html>\n"
    )


def _sentences(content: Mapping[str, Any], mark: str = "`") -> list[str]:
    counts, reach = content["counts"], told_reach(content)
    return [
        f"Made by {mark}starchat prepare{mark} (version {content['versions']['starchat']}). "
        f"{counts['read']} read = {counts['kept']} kept + {sum(counts['dropped'].values())} dropped. "
        f"{counts['written']} rows written, of which {counts['copies']} are copies made by mixture weights. "
        f"Where each came from, and under which licence, stands in its row; {mark}{ATTRIBUTION}{mark} sums it up.",
        *([f"{reach}."] if reach else []),
    ]


def told_reach(content: Mapping[str, Any]) -> str | None:
    """Return how many records the opt-outs of a dataset could not reach, as a sentence without its full stop; None for none.

    >>> told_reach({"opt_out": {"records": 1200, "out_of_reach": 1}})
    '1 of 1,200 records names no repository or author; opt-outs cannot reach it'
    """
    records, missed = (content.get("opt_out", {}).get(key, 0) for key in ("records", "out_of_reach"))
    if not missed:
        return None
    name, them = ("names", "it") if missed == 1 else ("name", "them")
    return f"{missed:,} of {counted(records, 'record')} {name} no repository or author; opt-outs cannot reach {them}"


def _tables(content: Mapping[str, Any]) -> list[Table]:
    counts, census = content["counts"], content["census"]
    found: list[Table] = [
        ("Splits", ("split", "rows"), list(counts["splits"].items())),
        ("Kinds", ("kind", "records kept"), list(census["kinds"].items())),
        ("Languages", ("language", "records kept"), list(census["languages"].items())),
        ("Licences", ("licence", "records kept"), sorted(census["licenses"].items())),
        ("Classes of licences", ("class", "records kept"), sorted(census["license_classes"].items())),
        ("Lengths", ("characters below", "records kept"), [(int(bound), count) for bound, count in census["characters_below"].items()]),
        ("Dropped", ("reason", "units"), sorted(counts["dropped"].items())),
        ("Repaired", ("repair", "records"), sorted(counts["repaired"].items())),
        (
            "Sources",
            ("place", "format", "weight", "read", "kept", "dropped"),
            [
                (one["place"], one["format"], f"{one['weight']:g}", one["read"], one["kept"], sum(one["dropped"].values()))
                for one in counts["sources"]
            ],
        ),
    ]
    return [table for table in found if table[2]]


def _shown(cell: str | int) -> str:
    return f"{cell:,}" if isinstance(cell, int) else cell


def _cell(cell: str | int) -> str:
    """Return a cell of a Markdown table, in which nothing is markup."""
    if isinstance(cell, int):
        return str(cell)
    text = " ".join(cell.split())
    return "".join(f"\\{c}" if c in "\\|`*_[]<>#" else c for c in text)
