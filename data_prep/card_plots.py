"""The plots of a data card as SVG: bars by language, licence and drop reason, and the lengths of records.

Pure: counts in, the text of an SVG out; no script, nothing from elsewhere. Colours hold on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from data_prep.census import shares

WIDTH, PANEL_HEIGHT, GAP = 980, 250, 24
PANEL_WIDTH = (WIDTH - GAP) // 2
LABEL_WIDTH = 150
MOST_BARS = 9
BLUE, ORANGE = "#4c72b0", "#c8803c"

_STYLE = (
    "svg{background:#fff;color:#1d2329;font:12px system-ui,sans-serif}text{fill:currentColor}.soft{opacity:.65}"
    ".title{font-weight:600;font-size:13px}.small{font-size:9px}.tick{font-size:10px}.middle{text-anchor:middle}"
    "@media(prefers-color-scheme:dark){svg{background:#13171c;color:#dfe5ec}}"
)


def plot_svg(content: Mapping[str, Any]) -> str:
    """Return the picture of a manifest's counts."""
    census, counts = content["census"], content["counts"]
    panels = [
        _bars("records kept by language", shares(census["languages"], MOST_BARS), BLUE),
        _bars("records kept by licence", shares(census["licenses"], MOST_BARS), BLUE),
        _bars("units dropped by reason", shares(counts["dropped"], MOST_BARS), ORANGE),
        _columns("characters of a record", [(int(bound), count) for bound, count in census["characters_below"].items()]),
    ]
    height = 2 * PANEL_HEIGHT + GAP
    placed = [
        f'<g transform="translate({(number % 2) * (PANEL_WIDTH + GAP)},{(number // 2) * (PANEL_HEIGHT + GAP)})">{panel}</g>'
        for number, panel in enumerate(panels)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 -12 {WIDTH + 24} {height + 24}" width="{WIDTH + 24}" role="img">'
    return f"{head}<style>{_STYLE}</style>{''.join(placed)}</svg>\n"


def _bars(title: str, values: Sequence[tuple[str, int]], color: str) -> str:
    most = max((count for _, count in values), default=0)
    room = PANEL_WIDTH - LABEL_WIDTH - 70
    rows = []
    for number, (name, count) in enumerate(values):
        top = 30 + number * 24
        width = max(1, round(room * count / most))
        shown = name if len(name) <= 22 else name[:21] + "…"
        rows.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{top + 13}" text-anchor="end"><title>{escape(name)}</title>{escape(shown)}</text>'
            f'<rect x="{LABEL_WIDTH}" y="{top}" width="{width}" height="17" rx="2" fill="{color}"/>'
            f'<text class="soft" x="{LABEL_WIDTH + width + 6}" y="{top + 13}">{count:,}</text>'
        )
    return _title(title if values else f"{title}: none") + "".join(rows)


def _columns(title: str, values: Sequence[tuple[int, int]]) -> str:
    """Return columns by powers of two; those between the shortest and the longest that hold nothing are shown as such."""
    if not values:
        return _title(f"{title}: none")
    counts = dict(values)
    bound, last = values[0][0], values[-1][0]
    bounds = [bound]
    while bound < last:
        bound *= 2
        bounds.append(bound)
    most, step = max(counts.values()), min(40.0, (PANEL_WIDTH - 20) / len(bounds))
    columns = []
    for number, bound in enumerate(bounds):
        count = counts.get(bound, 0)
        height = round((PANEL_HEIGHT - 80) * count / most)
        left = 10 + number * step
        top, width = PANEL_HEIGHT - 40 - height, step - 3
        middle = left + width / 2
        columns.append(f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}" rx="2" fill="{BLUE}"/>')
        if count:
            columns.append(f'<text class="soft small middle" x="{middle:.1f}" y="{top - 5}">{_short(count)}</text>')
        columns.append(f'<text class="tick middle" x="{middle:.1f}" y="{PANEL_HEIGHT - 25}">{_short(bound)}</text>')
    return _title(f"{title}, below") + "".join(columns)


def _title(text: str) -> str:
    return f'<text class="title" x="0" y="12">{escape(text)}</text>'


def _short(number: int) -> str:
    """Return a number in few characters: of two powers of two, 1k is 1024.

    >>> _short(999), _short(4096), _short(1 << 21)
    ('999', '4k', '2M')
    """
    for factor, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if number >= factor:
            return f"{number / factor:.0f}{letter}"
    return str(number)
