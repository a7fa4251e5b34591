"""Laws 4, 5 and 9 on rows of any kind: lengths, packing, duplicates, splits, ids, and that nothing disappeared.

Each detector returns one `Finding`. Imports no torch.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from starchat.encode import SetAside
from starchat.evidence import Evidence, Turns
from starchat.finding import Finding, judged, verdict
from starchat.holes import Spelling
from starchat.pack import fill
from starchat.template import turn_text, with_tools
from starchat.tokens import Tokens

MAX_DUPLICATE_FRACTION = 0.01
"""A judgement: above one row in a hundred, exact repeats are rather a mistake in building the dataset than chance."""


def row_keys(evidence: Evidence) -> list[bytes]:
    """Return for each row the bytes of its ids."""
    return [row.ids.astype(np.int32, copy=False).tobytes() for row in evidence.rows]


def lengths(evidence: Evidence, max_length_tokens: int, max_set_aside_fraction: float) -> Finding:
    """Hold every row against the maximum, and what over-long records cost against what the recipe admits."""
    sizes = evidence.lengths
    over = np.flatnonzero(sizes > max_length_tokens)
    faults = [f"{evidence.place(int(row))}: {sizes[row]:,} tokens; the maximum is {max_length_tokens:,}" for row in over]
    long = [item for item in evidence.set_aside if item.reason == "over_long"]
    lost = sum(item.trained_tokens for item in long)
    share = lost / max(1, lost + int(evidence.trained.sum()))
    if share > max_set_aside_fraction:
        worst = max(long, key=lambda item: item.tokens)
        faults.append(
            f"{share:.1%} of the tokens to train are lost to {len(long):,} exchanges above {max_length_tokens:,} tokens "
            f"(the longest: {worst.place}, {worst.tokens:,}); the recipe admits {max_set_aside_fraction:.1%}"
        )
    middle, high, top = (int(q) for q in np.quantile(sizes, [0.5, 0.95, 1.0]))
    holds = f"longest {top:,} of {max_length_tokens:,} tokens, 95 % up to {high:,}, half up to {middle:,}"
    cost = f"; {len(long):,} over-long set aside ({share:.2%} of the tokens to train)" if long else ""
    return verdict("lengths", faults, holds + cost)


def packing(sizes: npt.NDArray[np.int64], groups: Sequence[Sequence[int]], capacity: int) -> Finding:
    """Hold the groups against the rows: each row in exactly one, none above the capacity."""
    counts = np.bincount(np.array([row for group in groups for row in group], dtype=np.int64), minlength=len(sizes))
    wrong = np.flatnonzero(counts != (np.arange(len(counts)) < len(sizes)))
    faults = [f"row {row} is in {counts[row]} groups" + ("" if row < len(sizes) else ", and there is no such row") for row in wrong]
    known = [[row for row in group if row < len(sizes)] for group in groups]
    totals = [int(sizes[group].sum()) for group in known]
    faults += [f"group {n} has {total:,} tokens; the maximum is {capacity:,}" for n, total in enumerate(totals) if total > capacity]
    holds = f"{len(sizes):,} rows in {len(groups):,} groups, each once; {fill(sizes.tolist(), known, capacity):.1%} of the places filled"
    return verdict("packing", faults, holds)


def dead_rows(evidence: Evidence) -> Finding:
    """Look for rows without a trained token: they cost time and teach nothing."""
    totals = np.concatenate([[0], np.cumsum(evidence.trained)])[evidence.offsets]
    faults = [f"{evidence.place(int(row))}: no trained token" for row in np.flatnonzero(np.diff(totals) == 0)]
    holds = f"{len(evidence.rows):,} rows, each with trained tokens"
    return verdict("dead_rows", faults, holds)


def first_tokens_untrained(evidence: Evidence) -> Finding:
    """Look at the first token of each row: in a packed group its label would be predicted from another row."""
    rows = np.flatnonzero(evidence.trained[evidence.offsets[:-1]])
    faults = [f"{evidence.place(int(row))}: the first token is trained" for row in rows]
    return verdict("first_tokens_untrained", faults, "no row trains its first token")


def duplicate_rows(evidence: Evidence, keys: Sequence[bytes]) -> Finding:
    """Count training rows with the same ids. Copies that a mixture weight above 1 made are meant, and are not counted."""
    train = keys[: evidence.train_rows]
    records = zip(evidence.record_ids, evidence.records, strict=True)
    originals = collections.Counter(id for id, record in records if record.copy == 0 and record.split == "train")
    ids_of: dict[bytes, dict[str, int]] = collections.defaultdict(dict)
    for row, key in enumerate(train):
        ids_of[key].setdefault(evidence.rows[row].id, row)
    extra = {key: sum(originals[id] for id in ids) - 1 for key, ids in ids_of.items()}
    repeated = {key: count for key, count in extra.items() if count > 0}
    total = sum(repeated.values())
    most = sorted(repeated, key=lambda key: -repeated[key])[:3]
    places = "; ".join(f"{evidence.place(next(iter(ids_of[key].values())))} occurs {repeated[key] + 1} times" for key in most)
    detail = f"{total:,} of {len(train):,} training rows repeat another ({total / max(1, len(train)):.1%})"
    ok = total <= MAX_DUPLICATE_FRACTION * len(train)
    return judged("duplicate_rows", ok, f"{detail}: {places}" if places else detail)


def train_test_disjoint(evidence: Evidence, keys: Sequence[bytes]) -> Finding:
    """Look for test rows that are also trained: a loss on them would flatter the model."""
    train = set(keys[: evidence.train_rows])
    rows = range(evidence.train_rows, len(keys))
    faults = [f"{evidence.place(row)}: this test row is also a training row" for row in rows if keys[row] in train]
    holds = f"{len(rows):,} test rows, none of them trained" if rows else "there is no test split"
    return verdict("train_test_disjoint", faults, holds)


def end_token_stops(end_id: int, stop_ids: Sequence[int], pad_id: int, of_dialogues: bool) -> Finding:
    """Hold the trained end token against the ids at which generation stops and, where replies must end, against padding."""
    faults = []
    if end_id not in stop_ids:
        faults.append(f"the trained end token {end_id} is not among the stop ids {list(stop_ids)}")
    if end_id == pad_id and of_dialogues:
        faults.append(f"the end token {end_id} is also the padding token; a program that masks padding would mask it")
    return verdict("end_token_stops", faults, f"id {end_id} ends a reply and stops generation; padding is {pad_id}")


def new_tokens_counted(tokens: Tokens, model_rows: int) -> Finding:
    """Hold the template's new tokens against the end of the vocabulary, where new embedding rows are made."""
    ids = tokens.new_ids
    faults = []
    if ids and ids != tuple(range(ids[0], tokens.size)):
        faults.append(f"new tokens {', '.join(tokens.new)} have ids {list(ids)}; expected the last ones below {tokens.size}")
    grown = max(model_rows, tokens.size)
    names = ", ".join(f"{name} = {id}" for name, id in zip(tokens.new, ids, strict=True)) or "none"
    holds = f"new tokens: {names}; vocabulary {tokens.size:,}, embedding rows {model_rows:,}, after growth {grown:,}"
    return verdict("new_tokens_counted", faults, holds)


def ids_in_vocabulary(evidence: Evidence, model_rows: int) -> Finding:
    """Hold the ids of all rows against the embedding rows that the model will have."""
    rows = max(model_rows, evidence.tokens.size)
    bad = np.flatnonzero((evidence.ids < 0) | (evidence.ids >= rows))
    faults = [f"{evidence.place(evidence.row_at(int(at)))}: id {evidence.ids[at]}; the model has rows 0 to {rows - 1}" for at in bad[:1000]]
    holds = f"highest id {int(evidence.ids.max()):,} of {rows:,} embedding rows"
    return verdict("ids_in_vocabulary", faults, holds)


def conservation(evidence: Evidence, turns: Turns | None) -> Finding:
    """Account for every record: its rows and what was set aside together have all that it was to train."""
    rows = collections.Counter(row.id for row in evidence.rows)
    aside: dict[str, list[SetAside]] = {}
    for item in evidence.set_aside:
        aside.setdefault(item.id, []).append(item)
    copies = collections.Counter(evidence.record_ids)
    faults = [f"{evidence.by_id[id].source.place}: neither a row nor set aside" for id in copies if id not in rows and id not in aside]
    if turns is not None:
        faults += _unaccounted_answers(evidence, turns, copies, aside)
    unknown = [evidence.place(n) for n, row in enumerate(evidence.rows) if row.id not in copies]
    faults += [f"{place}: a row of no record" for place in unknown]
    whole = sum(copies[id] for id in aside if id not in rows)
    partly = sum(copies[id] for id in aside if id in rows)
    encoded = len(evidence.records) - whole
    holds = f"{len(evidence.records):,} records = {encoded:,} in rows + {whole:,} set aside"
    return verdict("conservation", faults, f"{holds}; {partly:,} lost a part" if partly else holds)


def _unaccounted_answers(evidence: Evidence, turns: Turns, copies: dict[str, int], aside: dict[str, list[SetAside]]) -> list[str]:
    """Return the records whose trained turns are not all in rows or set aside, by number and, where some were, by tokens."""
    first = np.searchsorted(turns.starts, evidence.offsets)
    had = np.diff(np.concatenate([[0], np.cumsum(turns.expected)])[first])
    tokens_had = np.diff(np.concatenate([[0], np.cumsum(evidence.trained)])[evidence.offsets])
    answers: dict[str, int] = collections.Counter()
    trained: dict[str, int] = collections.Counter()
    for row, count, tokens in zip(evidence.rows, had.tolist(), tokens_had.tolist(), strict=True):
        answers[row.id] += count
        trained[row.id] += tokens
    faults, spelling = [], Spelling(evidence.tokens)
    for id, count in copies.items():
        record = evidence.by_id[id]
        wanted = [turn for turn in with_tools(record.turns, record.tools) if turn.trained]
        missing = count * len(wanted) - answers[id]
        lost = sum(item.trained_tokens for item in aside.get(id, ()))
        if not missing and not lost:
            continue
        texts = evidence.tokens.encode_texts([turn_text(turn) for turn in wanted])
        size = count * sum(1 + int(np.count_nonzero(~spelling.holes(ids, record.placeholders))) for ids in texts)
        if trained[id] + lost != size:
            faults.append(f"{record.source.place}: {missing} of {count * len(wanted)} answers are neither trained nor set aside")
    return faults
