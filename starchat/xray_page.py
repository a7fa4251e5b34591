"""The X-ray's page: every token as it lies in its row, coloured by whether it is trained.

Everything that comes from data is escaped, invisible and direction-changing characters are spelled out, and the page's
policy lets nothing run but its own script, so a hostile row is only text. Nothing is loaded from outside.
"""

from __future__ import annotations

import base64
import hashlib
import html
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from starchat.encode import Row, Span
from starchat.finding import Finding, Report, by_group, summary
from starchat.tokens import Tokens

LONGEST_CHARACTER_TOKENS = 8
"""Tokens that are shown as one if only together they are text: a character's bytes may lie in several."""

SHOWN_TOKENS = 4096
"""Tokens of one row that the page shows; what is left out is said."""


def page(
    report: Report, numbers: Sequence[tuple[str, str]], rows: Sequence[Row], tokens: Tokens, places: Mapping[str, str], limit: int
) -> str:
    """Return the page as HTML text."""
    chosen, told = _choose(len(rows), limit), summary(report.findings)
    shown = f"{len(chosen):,} of {len(rows):,} rows, evenly chosen" if len(chosen) < len(rows) else f"all {len(rows):,} rows"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_digest(SCRIPT)}'"
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Loss X-ray</title>',
            f"<style>{STYLE}</style></head><body><header><h1>Loss X-ray</h1>",
            f'<p class="verdict {"good" if report.ok else "bad"}">{_escape(_words(told))}</p></header>',
            '<section class="top"><div>',
            _findings(report),
            '</div><div class="side"><dl>',
            *(f"<dt>{_escape(name)}</dt><dd>{_escape(line)}</dd>" for name, line in numbers),
            "</dl>",
            _histogram(report.stats),
            _curve(report.stats),
            "</div></section>",
            '<nav><label>Find <input id="find" type="search" placeholder="row id, place or text" autocomplete="off"></label>',
            '<label><input id="only" type="checkbox"> trained turns only</label>',
            '<span class="legend"><b>trained</b> <i>not trained</i> <kbd>control token</kbd> <kbd class="t">trained</kbd></span>',
            f'<span class="count">{_escape(shown)} · point at a token for its id</span></nav><main>',
            *(_row(n, rows[n], tokens, places.get(rows[n].id, "")) for n in chosen),
            f"</main><script>{SCRIPT}</script></body></html>\n",
        ]
    )


def _choose(count: int, limit: int) -> list[int]:
    """Return the numbers of at most `limit` of `count` rows, evenly spread, first and last among them.

    >>> _choose(10, 4)
    [0, 3, 6, 9]
    """
    if count <= limit:
        return list(range(count))
    return [n * (count - 1) // (limit - 1) for n in range(limit)] if limit > 1 else list(range(limit))


def _escape(text: str) -> str:
    return html.escape(_spelled(text), quote=True)


def _spelled(text: str) -> str:
    """Return text with characters that cannot be seen, or that turn the direction of writing, spelled by code point.

    >>> _spelled("a\\u202eb\\x00")
    'a⟨202E⟩b⟨0⟩'
    """
    return "".join(f"⟨{ord(c):X}⟩" if c not in "\n\t" and unicodedata.category(c) in HIDDEN else c for c in text)


HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of characters without a form of their own."""


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _words(text: str) -> str:
    return text.replace("_", " ")


def _findings(report: Report) -> str:
    """Return the findings, a part for each group that opens; those with a fault are open."""
    parts = []
    for group, found in by_group(report.findings):
        faults = sum(not finding.ok for finding in found)
        told = f"{faults} of {len(found)} with a fault" if faults else f"{len(found)} check{'s' if len(found) > 1 else ''} hold"
        names = " · ".join(_escape(_words(finding.check)) for finding in found)
        title = f"<span>{'✗' if faults else '✓'}</span> <strong>{_escape(group)}</strong> <small>{told}</small>"
        head = f"<summary>{title}<em>{names}</em></summary>"
        lines = "".join(_finding(finding) for finding in sorted(found, key=lambda finding: finding.ok))
        state, kind = (" open", "bad") if faults else ("", "good")
        parts.append(f'<details class="{kind}"{state}>{head}<ul class="findings">{lines}</ul></details>')
    return "".join(parts)


def _finding(finding: Finding) -> str:
    remedy = f'<p class="remedy">{_escape(finding.remedy)}</p>' if finding.remedy else ""
    text = f"<h2>{_escape(_words(finding.check))}</h2><div><p>{_escape(finding.detail)}</p>{remedy}</div>"
    return f'<li class="{"good" if finding.ok else "bad"}"><span>{"✓" if finding.ok else "✗"}</span>{text}</li>'


def _histogram(stats: Mapping[str, Any]) -> str:
    """Return the lengths of rows as an inline SVG."""
    counts, edges = stats["length_histogram"]["rows"], stats["length_histogram"]["edges"]
    width, height, most = 100 / len(counts), 46, max(*counts, 1)
    bars = []
    for n, count in enumerate(counts):
        size = max(height * count / most, 0.7 if count else 0)
        title = f"<title>{edges[n]:,.0f} to {edges[n + 1]:,.0f} tokens: {count:,} rows</title>"
        shape = f'x="{n * width:.2f}" y="{height - size:.2f}" width="{width * 0.86:.2f}" height="{size:.2f}"'
        bars.append(f"<rect {shape}>{title}</rect>")
    caption = f"Lengths of rows, 0 to {stats['max_length_tokens']:,} tokens; the highest bar is {most:,} rows"
    picture = f'<svg viewBox="0 0 100 {height}" preserveAspectRatio="none" role="img">{"".join(bars)}</svg>'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _curve(stats: Mapping[str, Any]) -> str:
    """Return the learning rate over the updates as an inline SVG; nothing where the schedule was not looked at."""
    if "schedule" not in stats:
        return ""
    rates, height = stats["schedule"]["rates"], 46
    most = max(*rates, 1e-30)
    points = " ".join(f"{100 * n / max(1, len(rates) - 1):.2f},{height - (height - 2) * rate / most:.2f}" for n, rate in enumerate(rates))
    caption = f"Learning rate over {stats['schedule']['updates']:,} updates; the highest is {most:.3g}"
    line = f'<polyline points="{points}" vector-effect="non-scaling-stroke"/>'
    picture = f'<svg viewBox="0 0 100 {height}" preserveAspectRatio="none" role="img">{line}</svg>'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _row(number: int, row: Row, tokens: Tokens, place: str) -> str:
    trained = int(row.trained.sum())
    facts = [place, f"{len(row.ids):,} tokens", f"{trained:,} trained", f"piece {row.piece + 1}" if row.piece else ""]
    about = _escape(" · ".join(fact for fact in facts if fact))
    head = f'<h3><a href="#r{number}">{number + 1}</a> <code>{_escape(row.id)}</code> {about}</h3>'
    turns = "".join(_turn(row, span, tokens) for span in row.spans or _whole(row))
    more = len(row.ids) - SHOWN_TOKENS
    rest = f'<p class="rest">{more:,} more tokens are not shown</p>' if more > 0 else ""
    return f'<article id="r{number}">{head}{turns}{rest}</article>'


def _whole(row: Row) -> tuple[Span, ...]:
    return (Span("document", 0, 0, len(row.ids), bool(row.trained.any())),)


def _turn(row: Row, span: Span, tokens: Tokens) -> str:
    """Return one turn; what stands before the first turn and behind an end token goes with it."""
    later = [other.start for other in row.spans if other.start > span.start]
    start = 0 if row.spans and span is row.spans[0] else span.start
    stop = min(later) if later else len(row.ids)
    cells = "".join(_tokens(row, start, min(stop, SHOWN_TOKENS), tokens))
    kind = "trained" if span.trained else "context"
    return f'<section class="turn {kind}"><h4>{_escape(span.role)}</h4><pre>{cells}</pre></section>' if cells else ""


def _tokens(row: Row, start: int, stop: int, tokens: Tokens) -> Iterator[str]:
    """Yield the tokens of a stretch, each as an element whose title is its id and text."""
    names = {id: name for name, id in tokens.control.items()}
    ids, trained = row.ids.tolist(), row.trained.tolist()
    at = start
    while at < stop:
        if ids[at] in names:
            yield f'<kbd{" class=t" if trained[at] else ""} title="{ids[at]}">{_escape(names[ids[at]])}</kbd>'
            at += 1
            continue
        end, text = at + 1, tokens.decode(ids[at : at + 1])
        while "\ufffd" in text and end < min(stop, at + LONGEST_CHARACTER_TOKENS) and trained[end] == trained[at] and ids[end] not in names:
            end += 1
            text = tokens.decode(ids[at:end])
        tag = "b" if trained[at] else "i"
        title = f"{' '.join(map(str, ids[at:end]))} {ascii(text) if not text.isprintable() else repr(text)}"
        yield f'<{tag} title="{_escape(title)}">{_visible(text)}</{tag}>'
        at = end


def _visible(text: str) -> str:
    """Return the text of a token escaped, with marks where white space cannot be seen; line breaks stay.

    >>> _visible("<b>\\n")
    '&lt;b&gt;<s>↵</s>\\n'
    """
    return _escape(text).replace("\t", "<s>⇥</s>\t").replace("\n", "<s>↵</s>\n")


SCRIPT = """
document.body.classList.add('ready');
const find = document.getElementById('find'), only = document.getElementById('only');
const rows = [...document.querySelectorAll('article')].map(row => [row, row.textContent.toLowerCase()]);
find.addEventListener('input', () => {
  const wanted = find.value.trim().toLowerCase();
  for (const [row, text] of rows) row.hidden = !text.includes(wanted);
});
only.addEventListener('change', () => document.body.classList.toggle('only', only.checked));
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #67717c; --page: #f6f7f9; --card: #fff; --line: #dfe3e8;
  --good: #16794a; --bad: #c02637; --warn: #8a5a00; --trained: #c9efd6; --trained2: #b4e5c5; --trainedink: #0c3d22;
  --even: #eceff3; --badge: #e4e8ee; --badgeink: #4a5561; --bar: #5b8def; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe5ec; --soft: #8f9ba8; --page: #13171c; --card: #1b2027;
  --line: #2d343d; --good: #54c98a; --bad: #ff7382; --warn: #e5b65a; --trained: #164a2e; --trained2: #1d5a39;
  --trainedink: #c8f5da; --even: #232a32; --badge: #2e3640; --badgeink: #aab6c3; --bar: #5b8def; } }
* { box-sizing: border-box }
body:not(.ready) nav label { display: none }
[hidden] { display: none !important }
body { margin: 0 auto; max-width: 1240px; padding: 24px 20px 80px; background: var(--page); color: var(--ink); font:
  15px/1.5 system-ui, sans-serif }
header { display: flex; align-items: baseline; gap: 16px; flex-wrap: wrap }
h1 { font-size: 24px; margin: 0 }
p { margin: 0 }
.verdict { font-weight: 600 }
.verdict.good, .good > span { color: var(--good) }
.verdict.bad, li.bad > span, li.bad h2 { color: var(--bad) }
.top { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); align-items: start; gap: 20px; margin: 16px 0 20px }
.top > div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 8px 16px }
@media (max-width: 860px) { .top { grid-template-columns: minmax(0, 1fr) } }
details { border-top: 1px solid var(--line) }
details:first-child { border: 0 }
summary { cursor: pointer; position: relative; padding: 8px 24px 8px 0; font-size: 14px; list-style: none; display: flex; flex-wrap: wrap;
  align-items: baseline; gap: 0 8px }
summary::-webkit-details-marker { display: none }
summary::after { content: '+'; position: absolute; right: 2px; top: 8px; color: var(--soft) }
details[open] > summary::after { content: '−' }
summary strong::first-letter { text-transform: uppercase }
summary strong { display: inline-block; font-weight: 600 }
summary em { flex-basis: 100%; padding-left: 21px; font-size: 12.5px; font-style: normal; line-height: 1.6; color: var(--soft) }
details[open] > summary em { display: none }
summary small { font-size: 13px; color: var(--soft) }
.good > summary > span { color: var(--good) }
.bad > summary > span, .bad > summary small { color: var(--bad) }
.findings li.good h2 { color: var(--ink) }
.findings { list-style: none; margin: 0 0 8px; padding: 0 }
.findings li { display: grid; grid-template-columns: 16px 190px minmax(0, 1fr); gap: 8px; padding: 5px 0;
  border-top: 1px solid var(--line) }
.findings li:first-child { border: 0 }
.findings h2 { font-size: 13.5px; margin: 0; line-height: 1.5 }
.findings p { font-size: 13px; color: var(--soft); overflow-wrap: anywhere }
.findings .remedy { color: var(--warn) }
.findings .remedy::before { content: '→ ' }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 14px; margin: 8px 0 14px; font-size:
  13.5px }
dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere }
figure { margin: 8px 0 }
svg { width: 100%; height: 120px; border-bottom: 1px solid var(--line) }
rect { fill: var(--bar) }
polyline { fill: none; stroke: var(--bar); stroke-width: 2px }
figcaption { font-size: 12.5px; color: var(--soft) }
nav { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center;
  padding: 10px 0; background: var(--page); border-bottom: 1px solid var(--line); font-size: 13.5px }
input[type=search] { font: inherit; color: inherit; width: 240px; padding: 4px 8px; background: var(--card); border:
  1px solid var(--line); border-radius: 6px }
.count { color: var(--soft); margin-left: auto }
.legend { display: inline-flex; gap: 8px; align-items: center }
article { margin: 16px 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow:
  hidden; scroll-margin-top: 60px; content-visibility: auto; contain-intrinsic-size: auto 400px }
h3 { font-size: 13px; font-weight: 500; margin: 0; padding: 8px 14px; border-bottom: 1px solid var(--line); color:
  var(--soft); overflow-wrap: anywhere }
h3 a { color: var(--ink); font-weight: 700; text-decoration: none; margin-right: 6px }
h3 code { font-size: 12px; margin-right: 8px }
.turn { display: grid; grid-template-columns: 88px minmax(0, 1fr); border-top: 1px solid var(--line) }
h3 + .turn { border: 0 }
h4 { margin: 0; padding: 10px 0 8px 14px; font-size: 12px; font-weight: 600; color: var(--soft) }
.turn.trained h4 { color: var(--good) }
.turn.trained { box-shadow: inset 3px 0 var(--good) }
body.only .turn.context { display: none }
pre { margin: 0; padding: 8px 14px 8px 6px; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.65
  ui-monospace, Menlo, Consolas, monospace }
i, b { font-style: normal; font-weight: 400; border-radius: 2px; padding: 1px 0 }
i { color: var(--soft) }
i:nth-of-type(even) { background: var(--even) }
b { background: var(--trained); color: var(--trainedink) }
b:nth-of-type(even) { background: var(--trained2) }
i:hover, b:hover, kbd:hover { outline: 1px solid var(--bar) }
s { text-decoration: none; opacity: .6; font-size: 12px }
kbd { font: 11px/1 ui-monospace, Menlo, Consolas, monospace; padding: 2px 5px; margin: 0 2px; border-radius: 5px;
  background: var(--badge); color: var(--badgeink); border: 1px solid var(--line); white-space: nowrap }
kbd.t { background: var(--good); border-color: var(--good); color: var(--card) }
.rest { padding: 8px 14px; color: var(--soft); font-size: 13px }
"""
