"""What pretraining rows must be: every token but the first trained, and the documents whole when the rows are put together again.

Each detector returns one `Finding`. Imports no torch.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from starchat.dialogue import Part, Record, merge_parts
from starchat.document import is_file
from starchat.evidence import Evidence, control_ids, holes_of_documents, is_one_of
from starchat.fim import STARCODER, chance, find_fim_tokens, join
from starchat.finding import Finding, excerpt, verdict
from starchat.placeholders import NOTHING, Redaction, redaction_of
from starchat.recipe import Fim
from starchat.tokens import Tokens

CHUNK_ROWS = 2000

STANDARD_ERRORS = 5
"""How far the share of permuted windows may lie from the one asked for: beyond that chance is ruled out for practical purposes."""


@dataclasses.dataclass(frozen=True)
class Window:
    """A row read back: its parts with fill-in-the-middle undone, whether it was permuted, and whether the document ends with it.

    `whole` is the document of its record, or nothing. In both the tokens of `redaction` are letters.
    """

    row: int
    parts: tuple[Part, ...]
    permuted: bool
    last: bool
    whole: tuple[Part, ...]
    redaction: Redaction


def read_windows(evidence: Evidence) -> list[Window]:
    """Return every row as the parts that its ids decode to, cut at control tokens."""
    tokens, windows = evidence.tokens, []
    control, end = control_ids(tokens), tokens.control[tokens.end_of_text]
    names = find_fim_tokens(tokens.control) or STARCODER
    lead = tokens.control[tokens.bos] if tokens.bos else None
    known = {id: _folded(record, tokens) for id, record in evidence.by_id.items()}
    for begin in range(0, len(evidence.rows), CHUNK_ROWS):
        rows = range(begin, min(begin + CHUNK_ROWS, len(evidence.rows)))
        cut = [_cut(evidence.rows[row].ids, control, lead) for row in rows]
        texts = iter(tokens.decode_texts([ids for pieces in cut for _, ids in pieces]))
        for row, pieces in zip(rows, cut, strict=True):
            whole, redaction = known.get(evidence.rows[row].id, ((), NOTHING))
            foreign = {ord(letter): "\ufffd" for letter in redaction.letters.values()}  # the record's own texts have no letter
            found = (next(texts).translate(foreign) if foreign else next(texts) for _ in pieces)
            names_of = ("" if id is None else str(tokens.whole.id_to_token(id)) for id, _ in pieces)
            parts = tuple(map(Part, names_of, found))
            last = bool(pieces) and pieces[-1] == (end, [])
            parts = redaction.fold(parts[:-1] if last else parts)
            joined = join(parts, names)
            windows.append(Window(row, joined, joined != parts, last, whole, redaction))
    return windows


def _folded(record: Record, tokens: Tokens) -> tuple[tuple[Part, ...], Redaction]:
    """Return a document as decoding gives it back, and what was put into it."""
    redaction = redaction_of(record)
    return redaction.fold([Part(part.marker, tokens.normalize(part.text)) for part in record.parts]), redaction


def _cut(row: npt.NDArray[np.int32], control: npt.NDArray[np.int64], lead: int | None) -> list[tuple[int | None, list[int]]]:
    """Return the control tokens of a row behind its beginning, each with the ids of the text that follows; None for text without one."""
    row = row[1:] if len(row) and row[0] == lead else row
    at = np.flatnonzero(is_one_of(row, control)).tolist()
    ids = row.tolist()
    if not at:
        return [(None, ids)]
    front: list[tuple[int | None, list[int]]] = [(None, ids[: at[0]])] if at[0] else []
    return front + [(ids[a], ids[a + 1 : b]) for a, b in zip(at, [*at[1:], len(ids)], strict=True)]


def all_but_first_trained(evidence: Evidence) -> Finding:
    """Count the tokens that are not trained: the first of each row, those that a record's placeholders explain, and no other."""
    holes = holes_of_documents(evidence)
    wanted = ~holes
    wanted[evidence.offsets[:-1]] = False
    wrong = np.flatnonzero((wanted != evidence.trained) & ~(evidence.trained & holes))  # a trained placeholder has a check of its own
    rows = np.unique(np.searchsorted(evidence.offsets, wrong, side="right") - 1)
    faults = [f"{evidence.place(int(row))}: tokens other than the first are not trained, or the first is" for row in rows]
    but = f", and {np.count_nonzero(holes):,} of placeholders" if holes.any() else ""
    holds = f"{int(evidence.trained.sum()):,} of {len(evidence.ids):,} tokens trained: all but the first of each row{but}"
    return verdict("all_but_first_trained", faults, holds)


def one_beginning_token(evidence: Evidence) -> Finding:
    """Hold the first token of every window against the base model's own beginning token, if it has one."""
    tokens = evidence.tokens
    lead = tokens.control[tokens.bos] if tokens.bos else None
    lost = np.flatnonzero(evidence.ids[evidence.offsets[:-1]] != lead).tolist() if lead is not None else []
    faults = [f"{evidence.place(row)}: does not begin with {tokens.bos}" for row in lost]
    holds = f"each window begins with {tokens.bos}" if tokens.bos else "no beginning token, as in the base model"
    return verdict("one_beginning_token", faults, holds)


def documents_are_whole(evidence: Evidence, windows: Sequence[Window]) -> Finding:
    """Put the windows of each document together and compare with its record: leading parts in each, the text whole, one end."""
    faults, pieces = [], collections.defaultdict(list)
    for window in windows:
        pieces[evidence.rows[window.row].id].append(window)
    copies = collections.Counter(evidence.record_ids)
    aside = {item.id for item in evidence.set_aside}
    for id, count in copies.items():
        record = evidence.by_id[id]
        parts = pieces[id][0].whole if pieces[id] else _folded(record, evidence.tokens)[0]
        both = _found_and_wanted(pieces[id], parts, 0 if id in aside else count)
        found, wanted = map(evidence.tokens.normalize, both)  # a cut may part a character from its accent, which now stand together
        if found != wanted:
            faults.append(f"{record.source.place}: the rows hold {excerpt(found)}, the record {excerpt(wanted)}")
        elif id not in aside and sum(window.last for window in pieces[id]) != count:
            faults.append(f"{record.source.place}: its last window does not end with {evidence.tokens.end_of_text}")
    cut = sum(evidence.rows[window.row].piece == 1 for window in windows)
    whole = len(evidence.records) - len(aside)
    holds = f"{len(windows):,} windows, put together again, are {whole:,} documents; {cut:,} of them were cut in windows"
    return verdict("documents_are_whole", faults, holds)


def _found_and_wanted(windows: Sequence[Window], parts: Sequence[Part], count: int) -> tuple[str, str]:
    """Return what the windows of a document's `count` copies hold, laid end to end, and what they should: of a file its text."""
    if is_file(parts):
        return "".join(_content(window, parts) for window in windows), parts[-1].text * count
    copies: list[list[Part]] = [[]]
    for window in windows:
        copies[-1] += window.parts
        if window.last:
            copies.append([])
    found = "".join(_spelled(merge_parts(copy)) for copy in copies)
    return found, _spelled(merge_parts(parts)) * count


def _spelled(parts: Sequence[Part]) -> str:
    """Return parts as one text in which a token cannot be taken for the text that spells it."""
    return "".join(f"\0{part.marker}\0{part.text}" for part in parts)


def _content(window: Window, parts: Sequence[Part]) -> str:
    """Return the text of a window behind the document's leading parts, or a note of what stands in their place."""
    *lead, content = parts
    found, front = merge_parts(window.parts), merge_parts(lead)
    if content.marker or not front:
        rest = found[len(front) :]
        fits = found[: len(front)] == front and [part.marker for part in rest] in ([content.marker], [])
        text = rest[0].text if rest else ""
    else:
        last = front[-1]
        fits = found[: len(front) - 1] == front[:-1] and len(found) == len(front)
        fits = fits and found[-1].marker == last.marker and found[-1].text.startswith(last.text)
        text = found[-1].text[len(last.text) :] if fits else ""
    return text if fits else f"[other parts: {''.join(part.marker + part.text for part in found)[:60]}]"


def fim_share(windows: Sequence[Window], fim: Fim | None) -> Finding:
    """Hold the share of permuted windows against the rate asked for, within what chance allows."""
    rate = fim.rate if fim else 0.0
    chances = [_chance(window, rate) for window in windows]
    able = sum(share > 0 for share in chances) if rate else sum(_chance(window, 1.0) > 0 for window in windows)
    permuted = sum(window.permuted for window in windows)
    expected, allowed = sum(chances), STANDARD_ERRORS * math.sqrt(sum(share * (1 - share) for share in chances))
    faults = []
    if abs(permuted - expected) > allowed:
        faults.append(f"{permuted:,} of {able:,} windows are permuted; rate {rate} expects {expected:,.0f}, give or take {allowed:,.0f}")
    holds = f"{permuted:,} of {able:,} windows permuted for fill-in-the-middle; the rate asked for is {rate}"
    return verdict("fim_share", faults, holds)


def _chance(window: Window, rate: float) -> float:
    if not window.whole or window.whole[-1].marker:
        return 0.0
    return rate if is_file(window.whole) else chance(merge_parts(window.parts), rate)


def only_the_documents_own_control_tokens(evidence: Evidence, windows: Sequence[Window]) -> Finding:
    """Hold the markers of every window, fill-in-the-middle undone, against those of its record."""
    faults = []
    for window in windows:
        record = evidence.by_id.get(evidence.rows[window.row].id)
        allowed = {part.marker for part in record.parts} | {""} if record else {""}
        foreign = [part.marker for part in window.redaction.unfold(window.parts) if part.marker not in allowed]
        if foreign:
            faults.append(f"{evidence.place(window.row)}: control tokens {' '.join(foreign[:5])} that the record does not have")
    return verdict("no_forged_control_tokens", faults, f"{len(windows):,} windows have their records' control tokens only")
