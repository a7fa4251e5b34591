"""Look at a dataset that prepare wrote: counts, lengths, roles, licences, what was dropped and why, samples.

In: a dataset folder. Out: a report (plain values, ready for JSON), its text for a terminal, or a picture. Rows are
streamed; of each only its lengths are kept. Nothing is changed.
"""

from __future__ import annotations

import collections
import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.prepared import count_rows, open_parquet, prepared_rows, require_prepared
from starchat.config import closest
from starchat.errors import UserError

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
MAX_SHOWN_CHARACTERS = 1_200
BAR_COLOR = "#4c72b0"
REJECTED = "rejected"
"""Where a row is a pair, the answer that was not preferred is counted and shown beside the roles."""
ROLE_COLORS = {"system": "#7f7f7f", "user": "#1f77b4", "assistant": "#2ca02c", "tool": "#ff7f0e", REJECTED: "#d62728"}


@dataclasses.dataclass
class RowCounts:
    """What is counted while the rows go by; `characters` and `turns` have one entry a row."""

    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    licenses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    roles: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    role_characters: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    characters: list[int] = dataclasses.field(default_factory=list)
    turns: list[int] = dataclasses.field(default_factory=list)
    samples: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def inspect(dataset: Path, samples: int = 3, reason: str | None = None) -> dict[str, Any]:
    """Return counts, quantiles of lengths, roles and licences, `samples` rows, and as many dropped rows for each reason.

    With `reason`, dropped rows of that reason only. Samples are spread evenly over the rows, so they are the same each time.
    """
    manifest = require_prepared(dataset)
    counts = manifest["counts"]
    counted = count_what_rows_hold(dataset, samples)
    reasons = counts["dropped"]
    if reason is not None and reason not in reasons:
        raise UserError(f"{dataset}: nothing was dropped for {reason!r}; {closest(reason, reasons) if reasons else 'nothing was dropped'}")
    return {
        "folder": str(dataset),
        "counts": counts,
        "kinds": dict(counted.kinds),
        "characters": quantiles(counted.characters),
        "turns": quantiles(counted.turns),
        "roles": {role: {"turns": n, "characters": counted.role_characters[role]} for role, n in counted.roles.most_common()},
        "licenses": dict(counted.licenses.most_common()),
        "samples": counted.samples,
        "dropped_samples": {name: _dropped_samples(dataset, name, samples) for name in ([reason] if reason else sorted(reasons))},
    }


def count_what_rows_hold(dataset: Path, samples: int = 0) -> RowCounts:
    """Return what the rows of a dataset hold; `samples` of them are kept whole."""
    counted = RowCounts()
    total = count_rows(dataset)
    wanted = {(2 * n + 1) * total // (2 * samples) for n in range(samples)} if total else set()
    for number, row in enumerate(prepared_rows(dataset)):
        lengths = [(message["role"], len(message["content"])) for message in row["messages"] or ()]
        lengths += [(REJECTED, len(row["rejected"]["content"]))] if row.get("rejected") else []
        for role, characters in lengths:
            counted.roles[role] += 1
            counted.role_characters[role] += characters
        document = sum(len(part["text"]) for part in row["document"] or ())
        counted.kinds[row["kind"]] += 1
        counted.licenses[row["license"] or "not stated"] += 1
        counted.characters.append(sum(n for _, n in lengths) + document)
        if row["messages"]:
            counted.turns.append(len(row["messages"]))
        if number in wanted:
            counted.samples.append(row)
    return counted


def quantiles(values: Sequence[int]) -> dict[str, float]:
    """Return the mean and the quantiles of some lengths, each a value that occurs; empty for none.

    >>> quantiles([1, 2, 3, 4])["50%"]
    2
    """
    if not values:
        return {}
    ordered = sorted(values)
    names = {q: f"{q:.0%}" for q in QUANTILES}
    return {"mean": sum(ordered) / len(ordered), **{name: ordered[int(q * (len(ordered) - 1))] for q, name in names.items()}}


def render_text(report: Mapping[str, Any]) -> str:
    """Return a report as text for a terminal."""
    counts = report["counts"]
    dropped = sum(counts["dropped"].values())
    lines = [
        report["folder"],
        f"{counts['read']} read = {counts['kept']} kept + {dropped} dropped; {counts['written']} rows written ({counts['copies']} copies); "
        + ", ".join(f"{split} {n}" for split, n in counts["splits"].items()),
        "",
    ]
    for source in counts["sources"]:
        lines.append(
            f"  {source['place']} ({source['format']}, weight {source['weight']:g}): {source['read']} read = "
            f"{source['kept']} kept + {sum(source['dropped'].values())} dropped"
        )
    lines += ["", *_lengths("characters", report["characters"]), *_lengths("turns", report["turns"])]
    lines += [f"{role:<10} {n['turns']:>9} turns {n['characters']:>12} characters" for role, n in report["roles"].items()]
    lines += _counts("licences", report["licenses"]) + _counts("dropped", counts["dropped"]) + _counts("repaired", counts["repaired"])
    for row in report["samples"]:
        place, license = shown_text(row["source"]["place"]), shown_text(row["license"] or "licence not stated")
        lines += ["", f"--- {place} ({row['split']}, {license}) {row['id'][:12]}"]
        lines += shown_content(row)
    for reason, rows in report["dropped_samples"].items():
        for row in rows:
            lines += [
                "",
                shown_text(f"--- dropped: {reason}: {row['place']}: {row['detail']}"),
                textwrap.indent(shown_text(row["raw"]), "  "),
            ]
    return "\n".join(lines)


def plot(dataset: Path, path_png: Path) -> None:
    """Draw lengths, roles and drop reasons of a dataset into a PNG file."""
    from matplotlib.figure import Figure

    counts = require_prepared(dataset)["counts"]
    counted = count_what_rows_hold(dataset)
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw_lengths(axes[0][0], counted.characters)
    _draw_turns(axes[0][1], counted.turns)
    _draw_bars(axes[1][0], dict(counted.role_characters.most_common()), "characters by role", ROLE_COLORS)
    _draw_bars(axes[1][1], dict(sorted(counts["dropped"].items(), key=lambda pair: -pair[1])[:12]), "units dropped by reason", {})
    dropped = sum(counts["dropped"].values())
    figure.suptitle(f"{dataset}: {counts['read']} read = {counts['kept']} kept + {dropped} dropped; {counts['written']} rows written")
    figure.savefig(path_png, format="png")


def _dropped_samples(dataset: Path, reason: str, samples: int) -> list[dict[str, Any]]:
    if samples < 1:
        return []
    with open_parquet(dataset / "dropped" / f"{reason}.parquet") as file:
        return list(next(file.iter_batches(batch_size=samples)).to_pylist())


def _lengths(name: str, values: Mapping[str, float]) -> list[str]:
    if not values:
        return []
    return [f"{name:<10} " + "  ".join(f"{key} {value:.0f}" for key, value in values.items())]


def _counts(title: str, rows: Mapping[str, int]) -> list[str]:
    return ["", f"{title}:", *(f"  {shown_text(name):<28} {n:>9}" for name, n in sorted(rows.items(), key=lambda p: -p[1]))] if rows else []


def shown_content(row: Mapping[str, Any]) -> list[str]:
    """Return what a row holds as lines for a terminal."""
    lines = []
    rejected = [{**row["rejected"], "role": REJECTED}] if row.get("rejected") else []
    for message in (*(row["messages"] or ()), *rejected):
        lines.append(f"[{message['role']}]")
        if message["content"]:
            lines.append(textwrap.indent(shown_text(message["content"]), "  "))
        calls = [call["function"] for call in message["tool_calls"] or ()]
        lines += [f"  calls {shown_text(call['name'])}({shown_text(call['arguments'])})" for call in calls]
    text = "".join(part["marker"] + part["text"] for part in row["document"] or ())
    return lines + ([textwrap.indent(shown_text(text), "  ")] if text else [])


def shown_text(text: str) -> str:
    """Return a text without the control characters that would drive a terminal, cut at a stated length."""
    sound = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text[:MAX_SHOWN_CHARACTERS])
    left = len(text) - MAX_SHOWN_CHARACTERS
    return sound if left <= 0 else f"{sound} … ({left} more characters)"


def _draw_lengths(axis: Any, characters: Sequence[int]) -> None:
    shown = [max(1, n) for n in characters]
    low, high = min(shown, default=1), max(shown, default=1)
    if low < high:
        axis.set_xscale("log")
    axis.hist(shown, bins=[low * (high / low) ** (n / 40) for n in range(41)] if low < high else 1, color=BAR_COLOR)
    axis.set(title="length of a row", xlabel="characters", ylabel="rows")


def _draw_turns(axis: Any, turns: Sequence[int]) -> None:
    counted = sorted(collections.Counter(min(n, 20) for n in turns).items())
    axis.bar([n for n, _ in counted], [rows for _, rows in counted], color=BAR_COLOR)
    axis.set(title="turns of a dialogue (20 and more together)", xlabel="turns", ylabel="rows")


def _draw_bars(axis: Any, values: Mapping[str, int], title: str, colors: Mapping[str, str]) -> None:
    names = list(values)
    axis.barh(names, list(values.values()), color=[colors.get(name, "#c44e52") for name in names])
    axis.invert_yaxis()
    axis.set(title=title if names else f"{title}: none")
    for name, value in values.items():
        axis.annotate(f" {value:,}", (value, name), va="center", fontsize=8)
    axis.margins(x=0.2)
