"""What the detectors look at: rows laid end to end, cut at control tokens, beside the records that they claim to be.

In: records as read and rows as encoded. Out: `Evidence` for any rows, `Turns` for those of dialogues. Where a turn begins is
read from the ids, never from the spans that the encoder wrote: a wrong span or a forged marker shows as a contradiction.
Imports no torch.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from starchat.dialogue import ROLES, Record, Turn
from starchat.encode import Row, SetAside
from starchat.holes import Spelling
from starchat.placeholders import REDACTION_TOKENS
from starchat.template import with_tools
from starchat.tokens import Tokens

UNKNOWN = len(ROLES)
"""The role code of a turn in a row that contradicts its record."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Rows of both splits, those for training first. Row n is ``ids[offsets[n]:offsets[n + 1]]``."""

    tokens: Tokens
    records: tuple[Record, ...]
    rows: tuple[Row, ...]
    train_rows: int
    set_aside: tuple[SetAside, ...]
    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    record_ids: tuple[str, ...]
    by_id: dict[str, Record]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each row."""
        return np.diff(self.offsets)

    def row_at(self, position: int) -> int:
        """Return the number of the row that a position in `ids` belongs to."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    def place(self, row: int) -> str:
        """Return where the record of a row came from, for a message."""
        record = self.by_id.get(self.rows[row].id)
        piece = f", piece {self.rows[row].piece + 1}" if self.rows[row].piece else ""
        return f"{record.source.place if record else 'row ' + self.rows[row].id}{piece}"


@dataclasses.dataclass(frozen=True)
class Turns:
    """The turns of all rows, in order. Flat arrays have one entry a turn; `of_row` has one tuple a row.

    A turn is ``ids[starts[k]:stops[k]]``: header (`header_tokens`), content, end token, tail (`tail_tokens`).
    `expected` says that law 1 wants the turn trained in this row; `repeated` that an earlier piece has it already. `holes`, one a token of
    all rows, says which tokens of the expected turns' content stand for what was taken out of the record: these alone are not trained.
    """

    of_row: tuple[tuple[Turn, ...], ...]
    contradictions: tuple[str, ...]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    roles: npt.NDArray[np.int8]
    expected: npt.NDArray[np.bool_]
    repeated: npt.NDArray[np.bool_]
    header_tokens: npt.NDArray[np.int64]
    tail_tokens: int
    holes: npt.NDArray[np.bool_]

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where the end token of each turn belongs."""
        return self.stops - self.tail_tokens - 1


def gather(tokens: Tokens, records: Sequence[Record], train: Sequence[Row], test: Sequence[Row], set_aside: Sequence[SetAside]) -> Evidence:
    """Return the evidence of a dataset; there must be at least one row."""
    rows = (*train, *test)
    ids = np.concatenate([row.ids for row in rows])
    trained = np.concatenate([row.trained for row in rows])
    offsets = np.cumsum([0, *(len(row.ids) for row in rows)], dtype=np.int64)
    record_ids = tuple(record.id for record in records)
    by_id = dict(zip(record_ids, records, strict=True))
    return Evidence(tokens, tuple(records), rows, len(train), tuple(set_aside), ids, trained, offsets, record_ids, by_id)


def control_ids(tokens: Tokens) -> npt.NDArray[np.int64]:
    """Return the ids that no text may have: the tokens' own list, and every token that the tokenizer calls special."""
    special = [i for i, token in tokens.whole.get_added_tokens_decoder().items() if token.special]
    return np.unique(np.array([*tokens.control.values(), *special], dtype=np.int64))


def is_one_of(ids: npt.NDArray[np.int32], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return for each id whether it is among `wanted`; ids may be anything, also negative."""
    return np.isin(ids, wanted)


def find_turns(evidence: Evidence) -> Turns:
    """Return the turns of all rows as their ids have them, matched with those of the records."""
    tokens, template = evidence.tokens, evidence.tokens.template
    assert template is not None, "dialogues need a template"
    markers = np.array(sorted({tokens.control[token] for token, _ in template.markers.values()}), dtype=np.int64)
    starts = np.flatnonzero(is_one_of(evidence.ids, markers)).astype(np.int64)
    in_row = np.diff(np.searchsorted(starts, evidence.offsets))
    # The next turn or the next row ends a turn.
    stops = np.minimum(np.append(starts[1:], len(evidence.ids)), evidence.offsets[np.searchsorted(evidence.offsets, starts, side="right")])
    matched = _Matching()
    for number, (row, count) in enumerate(zip(evidence.rows, in_row.tolist(), strict=True)):
        matched.add(row, count, evidence.by_id.get(row.id), evidence.place(number))
    roles = np.array(matched.roles, dtype=np.int8)
    texts = [template.marker(role)[1] for role in ROLES]
    header = np.array([1 + len(tokens.encode_texts([text])[0]) if text else 1 for text in texts] + [1], dtype=np.int64)
    tail = len(tokens.encode_texts([template.after_end])[0]) if template.after_end else 0
    expected, repeated = (np.array(values, dtype=np.bool_) for values in (matched.expected, matched.repeated))
    sizes, holes = header[roles], np.zeros(len(evidence.ids), dtype=np.bool_)
    spelling = Spelling(tokens)
    for turn in np.flatnonzero(expected & with_placeholders(evidence, starts)).tolist():
        content = slice(starts[turn] + sizes[turn], stops[turn] - tail - 1)
        record = evidence.by_id[evidence.rows[evidence.row_at(int(starts[turn]))].id]
        holes[content] = spelling.holes(evidence.ids[content], record.placeholders)
    return Turns(tuple(matched.of_row), tuple(matched.contradictions), starts, stops, roles, expected, repeated, sizes, tail, holes)


def with_placeholders(evidence: Evidence, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return for each position in `ids` whether its row's record has placeholders."""
    found = (evidence.by_id.get(row.id) for row in evidence.rows)
    rows = np.array([bool(record and record.placeholders) for record in found], dtype=np.bool_)
    return np.asarray(rows[np.searchsorted(evidence.offsets, positions, side="right") - 1])


def holes_of_documents(evidence: Evidence) -> npt.NDArray[np.bool_]:
    """Return for each token of all rows, which are those of documents, whether it stands for what was taken out of the record."""
    tokens, spelling = evidence.tokens, Spelling(evidence.tokens)
    redaction = np.array([tokens.control[name] for name in REDACTION_TOKENS if name in tokens.control], dtype=np.int64)
    holes, control = is_one_of(evidence.ids, redaction), is_one_of(evidence.ids, control_ids(tokens))
    for number, row in enumerate(evidence.rows):
        record = evidence.by_id.get(row.id)
        if record is None or not record.placeholders:
            continue
        start, stop = evidence.offsets[number : number + 2].tolist()
        marks = [*(start + np.flatnonzero(control[start:stop])).tolist(), stop]
        for begin, end in zip([start, *(mark + 1 for mark in marks)], marks, strict=False):
            holes[begin:end] = spelling.holes(evidence.ids[begin:end], record.placeholders)
    return holes


class _Matching:
    """Goes through the rows in order and remembers which turns of a record were trained by earlier pieces."""

    def __init__(self) -> None:
        self.of_row: list[tuple[Turn, ...]] = []
        self.contradictions: list[str] = []
        self.roles: list[int] = []
        self.expected: list[bool] = []
        self.repeated: list[bool] = []
        self._seen: dict[str, set[int]] = collections.defaultdict(set)

    def add(self, row: Row, count: int, record: Record | None, place: str) -> None:
        """Match a row that has `count` turn markers with its record."""
        turns = with_tools(record.turns, record.tools) if record else ()
        head = 1 if turns and turns[0].role == "system" else 0
        numbers = [*range(head), *range(row.first_turn, row.first_turn + count - head)]
        if not (count and head <= row.first_turn <= row.first_turn + count - head <= len(turns)):
            self.contradictions.append(f"{place}: {count} turn markers from turn {row.first_turn + 1}; its record has {len(turns)} turns")
            self.of_row.append(())
            self.roles += [UNKNOWN] * count
            self.expected += [False] * count
            self.repeated += [False] * count
            return
        seen = self._seen[row.id]
        if row.piece == 0:
            seen.clear()
        self.of_row.append(tuple(turns[n] for n in numbers))
        self.roles += [ROLES.index(turns[n].role) for n in numbers]
        self.expected += [turns[n].trained and n not in seen for n in numbers]
        self.repeated += [n in seen for n in numbers]
        seen.update(numbers)
