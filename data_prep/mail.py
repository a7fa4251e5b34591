"""Messages that came by mail, without what the mail added: headers of replies, repeated quotations, footers, signatures.

Pure: a message in, a `Letter` out. Who answers a notification by mail sends along what the mail program adds. Of that go:

================  ==================================================================================================
``mail_header``   ``On Tue, ... X <...> wrote:`` over one to four lines, in eight languages; ``2018-07-03 22:36 GMT+02:00 X <...>:``;
                  blocks of ``From:``, ``Sent:``, ``To:``, ``Subject:``; ``-----Original Message-----``
``quoted_reply``  a quotation below such a header with no text of the sender's own behind it: it repeats the thread
``mail_footer``   ``—``, ``You are receiving this because ...``, ``Reply to this email directly, view it on GitHub ...``
``signature``     what follows a line ``-- ``, of at most eight lines, up to a header or the end; ``Sent from my ...``
================  ==================================================================================================

A quotation that the sender answers line by line is what the answers are about: it stays, only its headers and footers go. Without a
header or footer, lines with ``>`` are Markdown and stay, as does everything in fenced and indented code. A line that looks like a
header is prose unless it tells an address, or a time of day with a quotation below. No text is taken from above a header, nor from
below a quotation with signs; under a block of ``From:`` that names GitHub, where such programs put the whole old message without
signs, all is quotation.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEADER_LINES = 4
MAX_SIGNATURE_LINES = 8
"""RFC 3676 asks for four; those of firms have some more."""


class Letter(NamedTuple):
    """A message without what mail added to it, and the names of what was removed."""

    text: str
    repairs: tuple[str, ...] = ()


class _Line(NamedTuple):
    """A line of a message: how deep it is quoted, what stands behind the signs, and whether it is code."""

    depth: int
    text: str
    whole: str
    code: bool


_HEADER_MARKS = ("wrote:", "schrieb", "écrit", "escribió:", "scritto:", "schreef", "escreveu:", "skrev", "GMT", "UTC")
"""A header says one of these, and tells an address or has a quotation below it."""

_BLOCK_MARKS = ("From:", "Von:", "De :", "De:", "Original Message", "Ursprüngliche Nachricht", "Message d'origine")
_FOOTER_MARKS = ("receiving this", "eply to this email", "Message ID: ")
_SIGNATURE_MARKS = ("\n-- \n", "\n--\xa0\n", "ent from ", "esendet", "nvoyé ", "Outlook for")
"""What stands in a message that has a block, a footer or a signature. One that holds none of all these is no mail."""

_WROTE = re.compile(
    r"(?:On|Am|Le|El|Il|Op|Em|Den|Il giorno|\*?\*?On)\b.{3,300}?"
    r"(?:\bwrote|\bschrieb(?:\s.{1,150})?|\ba écrit|\bescribió|\bha scritto|\bschreef(?:\s.{1,150})?|\bescreveu|\bskrev(?:\s.{1,150})?)"
    r"\s?:\s*\**"
)
_HEADER_STARTS = frozenset("OALEID*0123456789_-FV ")
"""How the first line of a header begins, unless it ends with a colon."""

_WROTE_START = re.compile(r"\*{0,2}(?:On|Am|Le|El|Il|Op|Em|Den)\s.*\d")
_TALKS_ON = re.compile(r"[>)]\s+(?!wrote|schrieb|a écrit|escribió|ha scritto|schreef|escreveu|skrev)\w")
"""Words behind an address other than the verb: these are no header."""

_DATED = re.compile(r"\d{4}-\d\d-\d\d \d\d?:\d\d (?:GMT|UTC)[+-]\d\d:?\d\d:?\s.{1,200}(?:<.{3,100}>|\*{3}@\*{3}\.\*{3}):?")
_NAMED = re.compile(r".{1,100}[<(\[](?:mailto:)?[^<>\s@]+@[^<>\s@]+[>)\]]\)? (?:wrote|schrieb|writes):")
_ADDRESS = re.compile(r"[^\s<]@[^\s>]")
_TIME = re.compile(r"\b\d{1,2}[:.h]\d\d\b")
_BLOCK_KEY = re.compile(
    r"(?P<bold>\*{0,2})(?P<key>From|Sent|Date|To|Cc|Bcc|Subject|Reply-To|Importance"
    r"|Von|Gesendet|Datum|An|Betreff|Antwort an|De|Envoyé|À|A|Objet|Répondre à)\s?:(?P=bold)(?:\s|$)"
)
_FIRST_KEYS = frozenset(("From", "Von", "De"))
_BLOCK_RULE = re.compile(r"\s*(?:_{10,}|-{3,} ?(?:Original Message|Ursprüngliche Nachricht|Message d'origine) ?-{3,})\s*")
_FOOTER = re.compile(
    r"(?:You are receiving this (?:email |message )?because |\*{0,2}Reply to this email directly\b|Message ID: .{0,200}(?:@|\*\*\*).*>$)"
)
_FOOTER_RULE = re.compile(r"(?:—|--|---|_{3,})\s*")
_SENT_FROM = re.compile(
    r"(?:Sent from (?:my [\w .+-]{2,40}|(?:Outlook|Yahoo Mail|Mail|Gmail|Proton ?Mail)\b.{0,60})|Get Outlook for \w+.{0,80}"
    r"|Von meinem [\w .-]{2,30} gesendet|Gesendet von (?:meinem|Mail) ?.{0,40}|Envoyé de(?:puis)? mon [\w .-]{2,30})\.?\s*"
)
_OPENED = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
_QUOTED = re.compile(r" {0,3}>(?: {0,3}>)* ?")


def without_mail(text: str) -> Letter:
    """Return a message without what mail added to it; line ends must be plain newlines.

    >>> without_mail("Above.\\n\\nOn Tue, Jul 3, 2018 at 10:36 PM, X <n@github.com>\\nwrote:\\n\\n> old\\n")
    Letter(text='Above.', repairs=('mail_header', 'quoted_reply'))
    >>> without_mail("> quoted on the web\\n\\nAn answer.")
    Letter(text='> quoted on the web\\n\\nAn answer.', repairs=())
    """
    headed = (("\n>" in text or "@" in text or " >" in text) and _holds(text, _HEADER_MARKS)) or _holds(text, _BLOCK_MARKS)
    footed = _holds(text, _FOOTER_MARKS)
    signed = _holds(text, _SIGNATURE_MARKS) or text.startswith(("-- \n", "--\xa0\n"))
    if not (headed or footed or signed):
        return Letter(text)
    lines = _lines(text)
    removed = [""] * len(lines)
    if headed:
        _mark_headers(lines, removed)
    if footed:
        _mark_footers(lines, removed)
    by_mail = any(removed)
    if signed or by_mail:
        _mark_signatures(lines, removed, by_mail)
    if by_mail:
        _mark_trailing_quotes(lines, removed)
    repairs = tuple(sorted(set(filter(None, removed))))
    if not repairs:
        return Letter(text)
    kept = [line.whole for line, name in zip(lines, removed, strict=True) if not name]
    first, last = 0, len(kept)
    while first < last and not kept[first].strip("> \t"):
        first += 1
    while first < last and not kept[last - 1].strip("> \t"):
        last -= 1
    return Letter("\n".join(kept[first:last]), repairs)


def _holds(text: str, marks: tuple[str, ...]) -> bool:
    return any(map(text.__contains__, marks))


def _lines(text: str) -> list[_Line]:
    lines: list[_Line] = []
    fence = ""
    for whole in text.split("\n"):
        if fence:
            lines.append(_Line(0, whole, whole, True))
            stripped = whole.strip()
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                fence = ""
            continue
        quoted = _QUOTED.match(whole)
        if quoted is not None:
            lines.append(_Line(quoted[0].count(">"), whole[quoted.end() :], whole, False))
            continue
        opened = _OPENED.match(whole)
        fence = opened[1] if opened else ""
        lines.append(_Line(0, whole, whole, bool(opened) or whole.startswith(("    ", "\t"))))
    return lines


def _mark_headers(lines: list[_Line], removed: list[str]) -> None:
    number = 0
    while number < len(lines):
        line = lines[number]
        count = 0
        if not line.code and (line.text[:1] in _HEADER_STARTS or line.text.rstrip().endswith(":")) and line.text.strip():
            count = _wrote_lines(lines, number) or _block_lines(lines, number)
        removed[number : number + count] = ["mail_header"] * count
        number += count or 1
        if count > 2 and not line.depth and _names_github(lines[number - count : number]):
            removed[number:] = ["quoted_reply"] * (len(lines) - number)
            return


def _wrote_lines(lines: list[_Line], start: int) -> int:
    """Return how many lines from `start` on are ``On ... wrote:``; 0 if they are not."""
    first = lines[start].text.strip()
    if _NAMED.fullmatch(first) or _DATED.fullmatch(first):
        return 1
    if not _WROTE_START.match(first):
        return 0
    joined, depth = "", lines[start].depth
    for count, line in enumerate(lines[start : start + MAX_HEADER_LINES], 1):
        if line.depth != depth or line.code or not line.text.strip():
            return 0
        if count > 1 and _WROTE_START.match(line.text):
            return 0
        joined = f"{joined} {line.text.strip()}"
        if joined.rstrip("* ").endswith(":") and _WROTE.fullmatch(joined.strip()) and not _TALKS_ON.search(joined):
            below = next((lines[place].depth for place in range(start + count, len(lines)) if lines[place].text.strip()), depth + 1)
            return count if _ADDRESS.search(joined) or (below > depth and _TIME.search(joined)) else 0
    return 0


def _block_lines(lines: list[_Line], start: int) -> int:
    """Return how many lines from `start` on are a block of ``From:``, ``Sent:``, ``To:``, with the rule above; 0 if they are not."""
    number, depth = start, lines[start].depth
    if _BLOCK_RULE.fullmatch(lines[start].text):
        number += 1
        while number < len(lines) and lines[number].depth == depth and not lines[number].text.strip():
            number += 1
    keys: list[str] = []
    while number < len(lines) and lines[number].depth == depth and not lines[number].code:
        found = _BLOCK_KEY.match(lines[number].text)
        if found is None or found["key"] in keys:
            break
        keys.append(found["key"])
        number += 1
    if len(keys) < 3 or keys[0] not in _FIRST_KEYS:
        is_rule = "ess" in lines[start].text and _BLOCK_RULE.fullmatch(lines[start].text)
        return 1 if is_rule and depth == 0 and not keys else 0
    return number - start


def _names_github(block: list[_Line]) -> bool:
    text = "\n".join(line.text for line in block)
    return _BLOCK_KEY.search(text) is not None and ("github.com" in text or "***@***.***" in text)


def _mark_footers(lines: list[_Line], removed: list[str]) -> None:
    for number, line in enumerate(lines):
        if removed[number] or line.code or not _FOOTER.match(line.text):
            continue
        first, last = number, number + 1
        while first and lines[first - 1].depth == line.depth and not lines[first - 1].text.strip():
            first -= 1
        if not (first and lines[first - 1].depth == line.depth and _FOOTER_RULE.fullmatch(lines[first - 1].text)):
            first = number + 1
        while last < len(lines) and lines[last].text.strip() and (lines[last].depth >= line.depth if line.depth else not lines[last].depth):
            last += 1
        removed[min(first - 1, number) : last] = ["mail_footer"] * (last - min(first - 1, number))


def _mark_signatures(lines: list[_Line], removed: list[str], by_mail: bool) -> None:
    for number, line in enumerate(lines):
        if removed[number] or line.code or line.depth:
            continue
        if line.text[:1] in "SGVE" and _SENT_FROM.fullmatch(line.text):
            removed[number] = "signature"
            continue
        is_rule = line.text in ("-- ", "--\xa0") or (by_mail and line.text == "--")
        if not is_rule or not (by_mail or number == 0 or not lines[number - 1].text.strip()):
            continue
        end, said = number + 1, 0
        while end < len(lines) and said <= MAX_SIGNATURE_LINES and not removed[end] and not lines[end].depth:
            said += bool(lines[end].text.strip())
            end += 1
        if said <= MAX_SIGNATURE_LINES and not any(later.code for later in lines[number + 1 : end]):
            removed[number:end] = ["signature"] * (end - number)


def _mark_trailing_quotes(lines: list[_Line], removed: list[str]) -> None:
    """Mark the quotation at the end of a mail, if a header stands above it."""
    number = len(lines)
    while number and (removed[number - 1] or lines[number - 1].depth or not lines[number - 1].text.strip()):
        number -= 1
    header = next((place for place in range(number, len(lines)) if removed[place] == "mail_header"), len(lines))
    for place in range(header, len(lines)):
        if lines[place].depth:
            removed[place] = removed[place] or "quoted_reply"
