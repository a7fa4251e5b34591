"""Text of people and models as Markdown that cannot carry HTML.

In: raw text. Out: what the chat component gets. Where a character would start markup, a numeric entity with five hexadecimal
digits stands in its place; nobody writes entities so, which is how ``page.js`` finds them again for copying and editing. The
component's sanitizer and the page's Content-Security-Policy stand behind this; here the aim is also that ``vector<int>`` is
seen as it was written. Inside code nothing is changed but the language of a diagram, which would be drawn.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})([^`]*)$")
_REPLY_MARKUP = re.compile(r"(?P<code>(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=ticks)(?!`))|[<&]|!(?=\[)", re.DOTALL)
_MESSAGE_MARKUP = re.compile(r"[!-/:-@\[-`{-~\n]|(?<=[ \n]) | (?=\n)|\A | \Z")
_ENTITY = re.compile(r"&#x000([0-9a-f]{2});")


def show_reply(text: str) -> str:
    """Return a model's text as Markdown: HTML is shown as text, images as links.

    >>> show_reply("a <b> and `<b>`")
    'a &#x0003c;b> and `<b>`'
    """
    return "".join(piece if code else _REPLY_MARKUP.sub(_keep_code, piece) for code, piece in _pieces(text))


def show_message(text: str) -> str:
    """Return a person's text as Markdown that shows it letter by letter; fenced code stays code.

    >>> show_message("# no heading")
    '&#x00023; no heading'
    """
    pieces = list(_pieces(text))
    shown = []
    for number, (code, piece) in enumerate(pieces):
        before_code = not code and number + 1 < len(pieces)
        prose = piece.removesuffix("\n") if before_code else piece
        shown.append(piece if code else _MESSAGE_MARKUP.sub(_entity, prose) + ("\n" if before_code else ""))
    return "".join(shown)


def read_shown(text: str) -> str:
    """Return the text behind what `show_message` or `show_reply` made.

    >>> read_shown(show_message("if a < b:\\n    c"))
    'if a < b:\\n    c'
    """
    return _ENTITY.sub(lambda match: chr(int(match[1], 16)), text)


def show_line(text: str, kind: str) -> str:
    """Return one line of ours, escaped, for a Markdown component; an empty text gives an empty line.

    >>> show_line("a < b", "status")
    '<p class="status" role="status">a &lt; b</p>'
    """
    return f'<p class="{kind}" role="{"alert" if kind == "notice" else "status"}">{html.escape(text)}</p>' if text else ""


def _entity(match: re.Match[str]) -> str:
    return f"&#x{ord(match[0]):05x};"


def _keep_code(match: re.Match[str]) -> str:
    return match[0] if match["code"] else _entity(match)


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Yield (is code, text) for runs of lines; an open fence runs to the end, as while a reply is streamed."""
    run: list[str] = []
    fence, code_before, blank_before = "", False, True
    for line in text.splitlines(keepends=True) if text else []:
        opens = None if fence else _FENCE.match(line.rstrip("\r\n"))
        closes = bool(fence) and line.strip().startswith(fence) and not line.strip().strip(fence[0])
        indented = not fence and not opens and line.startswith(("    ", "\t")) and (blank_before or code_before)
        code = bool(fence) or opens is not None or indented
        if run and code != code_before:
            yield code_before, "".join(run)
            run = []
        run.append(_calm(line) if opens else line)
        fence = opens[1] if opens else "" if closes else fence
        code_before, blank_before = code, not line.strip()
    if run:
        yield code_before, "".join(run)


def _calm(line: str) -> str:
    """Return a fence's first line without a language that the component would draw as a diagram."""
    return re.sub("mermaid", "text", line, flags=re.IGNORECASE)
