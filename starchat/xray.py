"""How a report looks: a table for the terminal, and a page in which every token shows whether it is trained.

In: a `Report`, rows, tokens. Out: text, or one self-contained HTML file. Imports no torch.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from starchat.dialogue import Record
from starchat.encode import Row
from starchat.files import write_text
from starchat.finding import Report, by_group, summary
from starchat.tokens import Tokens
from starchat.xray_page import page

PLAIN_WIDTH = 10_000
"""Lines for a file or a pipe are never wrapped."""


def render_text(report: Report, stream: TextIO | None = None) -> str:
    """Return the report as an aligned table, in colour if `stream` (standard error unless given) is a terminal.

    A terminal that NO_COLOR or its encoding limits gets plain words.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    target = stream or sys.stderr
    terminal = target.isatty()
    width = Console(file=target).width if terminal else PLAIN_WIDTH
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, legacy_windows=False)
    good, bad, arrow = ("✓", "✗", "→") if _encodes(target, "✓✗→") else ("ok", "FAULT", "->")
    table = Table.grid(padding=(0, 2))
    for group, found in by_group(report.findings):
        table.add_row(Text(), Text(group, style="bold cyan"), Text())
        for finding in found:
            detail = Text(finding.detail)
            if finding.remedy:
                detail.append(f"\n{arrow} {finding.remedy}", style="yellow")
            mark = Text(good, style="green") if finding.ok else Text(bad, style="bold red")
            table.add_row(mark, Text(finding.check, style="" if finding.ok else "bold"), detail)
    console.print(table)
    numbers = Table.grid(padding=(0, 2))
    for name, line in summary_lines(report.stats):
        numbers.add_row(Text(name, style="dim"), Text(line))
    console.print()
    console.print(numbers)
    console.print()
    console.print(Text(summary(report.findings), style="bold green" if report.ok else "bold red"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def summary_lines(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the numbers of a report as (name, line), for people."""
    rows, quantiles = stats["rows"], stats["length_quantiles"]
    lines = [
        ("rows", f"{rows['train']:,} train, {rows['test']:,} test, from {stats['records']:,} records"),
        ("tokens", f"{stats['tokens']:,}, of which trained {stats['trained_tokens']:,} ({stats['trained_share']:.1%})"),
    ]
    if "roles" in stats:
        used = {role: n for role, n in stats["roles"].items() if n["turns"]}
        parts = (f"{role} {n['trained']:,} of {n['header'] + n['content'] + n['end']:,}" for role, n in used.items())
        lines.append(("trained", ", ".join(parts)))
    lines.append(
        (
            "lengths",
            f"shortest {quantiles['0.00']:,}, half up to {quantiles['0.50']:,}, 95 % up to {quantiles['0.95']:,}, "
            f"longest {quantiles['1.00']:,}, allowed {stats['max_length_tokens']:,}",
        )
    )
    split = stats.get("split", {"records": 0})
    if split["records"]:
        lines.append(("split", f"{split['records']:,} dialogues in {split['pieces']:,} rows, {split['repeated_tokens']:,} tokens repeated"))
    lines.append(
        (
            "packing",
            f"{stats['packed_groups']:,} sequences, {stats['fill']:.1%} filled; {stats['steps_per_epoch_with_one_process']:,} steps "
            f"an epoch with one process ({stats['sequences_per_step_with_one_process']} sequences a step)",
        )
    )
    if "schedule" in stats:
        plan = stats["schedule"]
        warmup = f", {plan['warmup_updates']:,} of warm-up" if plan["warmup_updates"] else ""
        peak = f"{max(plan['rates']):.3g} at most, {plan['rates'][-1]:.3g} at the end"
        lines.append(("schedule", f"{plan['updates']:,} updates{warmup}; learning rate {plan['kind']}, {peak}"))
    for reason, found in stats["set_aside"].items():
        places = ", ".join(found["places"][:3]) + (", ..." if found["count"] > 3 else "")
        lines.append(("set aside", f"{found['count']:,} {reason}, {found['trained_tokens']:,} tokens to train: {places}"))
    if stats["records_of_another_kind"]:
        lines.append(("not used", f"{stats['records_of_another_kind']:,} records that this kind of training does not use"))
    if "tokens_by_source" in stats:
        lines.append(("sources", ", ".join(f"{name} {count:,}" for name, count in list(stats["tokens_by_source"].items())[:8])))
    return lines


def write_html(
    path: str | Path, report: Report, rows: Sequence[Row], tokens: Tokens, records: Sequence[Record] = (), limit: int = 200
) -> None:
    """Write the page of a report and at most `limit` of `rows`, evenly chosen. `records` add where each row came from."""
    places = {record.id: record.source.place for record in records}
    write_text(path, page(report, summary_lines(report.stats), rows, tokens, places, limit))


def _encodes(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
