"""What a dataset may teach by mistake: repeats, answers that were cut off, endless runs, questions of the test split.

Each detector returns one `Finding`. The thresholds are judgements, far from what sound datasets have: a dataset is not faulted for
being unusual. Imports no torch.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

import numpy as np

from starchat.dialogue import ROLES, Record, first_user_text
from starchat.document import encode_documents
from starchat.encode import Row, encode_dialogues
from starchat.evidence import Evidence, Turns
from starchat.fences import blocks_of
from starchat.finding import Finding, excerpt, judged, verdict
from starchat.recipe import Recipe
from starchat.template import turn_text

MIN_TRAINED_SHARE = 0.01
MAX_SAME_ANSWER = 0.5
MIN_JUDGED = 20
"""Answers or records below which a share says nothing."""

MAX_OPEN_FENCES = 0.05
MIN_OPEN_FENCES = 3
LONG_RUN = 64
MAX_RUNS = 0.01
"""Of trained tokens, in runs of one token of at least `LONG_RUN`: data tables and separators have some."""

MAX_OF_ONE_RECORD = 0.5
MAX_SEEN_QUESTIONS = 0.01
MAX_CHANGED_TEXTS = 0.01
CHUNK_ROWS = 2000
SAMPLED_TEXTS = 2000
SAMPLED_RECORDS = 64


def trained_share(evidence: Evidence) -> Finding:
    """Hold the trained tokens against all tokens of the training split."""
    stop = int(evidence.offsets[evidence.train_rows])
    share = int(evidence.trained[:stop].sum()) / max(1, stop)
    detail = f"{share:.1%} of the {stop:,} training tokens are trained"
    return judged("trained_share", share >= MIN_TRAINED_SHARE, f"{detail}; expected at least {MIN_TRAINED_SHARE:.0%}")


def answers_differ(evidence: Evidence, turns: Turns) -> Finding:
    """Count the answers that are the same text."""
    mine = np.flatnonzero(turns.expected & (turns.starts < evidence.offsets[evidence.train_rows]))
    starts, ends = (turns.starts + turns.header_tokens)[mine], turns.ends[mine]
    found = collections.Counter(evidence.ids[a:b].tobytes() for a, b in zip(starts.tolist(), ends.tolist(), strict=True))
    (most, count), *_ = found.most_common(1) or [(b"", 0)]
    share = count / max(1, len(mine))
    text = excerpt(evidence.tokens.decode(np.frombuffer(most, dtype=evidence.ids.dtype).tolist()))
    detail = f"{len(found):,} different answers of {len(mine):,}; the most frequent is {share:.1%} of them"
    ok = share <= MAX_SAME_ANSWER or len(mine) < MIN_JUDGED
    return judged("answers_differ", ok, detail if ok else f"{detail}: {text}")


def answers_close_their_fences(evidence: Evidence) -> Finding:
    """Count answers whose last code block is not closed, as those are that a limit cut off."""
    fenced, faults = 0, []
    for record in evidence.records:
        for turn in record.turns:
            blocks = blocks_of(turn.content) if turn.trained else []
            fenced += bool(blocks)
            if blocks and not blocks[-1].closed:
                faults.append(f"{record.source.place}: ends within a code block")
    few = len(faults) < MIN_OPEN_FENCES or len(faults) <= MAX_OPEN_FENCES * fenced
    holds = f"{fenced:,} answers with code blocks" + (f", {len(faults):,} of them not closed" if faults else ", each closed")
    return verdict("answers_close_their_fences", [] if few else faults, holds)


def no_endless_runs(evidence: Evidence) -> Finding:
    """Look for long runs of one trained token."""
    ids = np.where(evidence.trained, evidence.ids, -1)
    new = np.concatenate([[True], ids[1:] != ids[:-1]])
    new[evidence.offsets[:-1][evidence.offsets[:-1] < len(ids)]] = True
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(ids)))
    long = np.flatnonzero((sizes >= LONG_RUN) & (ids[starts] >= 0))
    share = int(sizes[long].sum()) / max(1, int(evidence.trained.sum()))
    where = (int(starts[n]) for n in long[np.argsort(-sizes[long])])
    faults = [f"{evidence.place(evidence.row_at(at))}: {excerpt(evidence.tokens.decode([int(ids[at])]))} over and over" for at in where]
    holds = f"{share:.2%} of the trained tokens lie in runs of {LONG_RUN} and more of one token"
    return verdict("no_endless_runs", faults if share > MAX_RUNS else [], holds)


def no_record_dominates(evidence: Evidence) -> Finding:
    """Hold the trained tokens of each record, its copies included, against those of all."""
    stop = int(evidence.offsets[evidence.train_rows])
    totals = np.diff(np.concatenate([[0], np.cumsum(evidence.trained[:stop])])[evidence.offsets[: evidence.train_rows + 1]])
    found: collections.Counter[str] = collections.Counter()
    for row, count in zip(evidence.rows, totals.tolist(), strict=False):
        found[row.id] += count
    (id, most), *_ = found.most_common(1) or [("", 0)]
    share = most / max(1, sum(found.values()))
    record = evidence.by_id.get(id)
    place = record.source.place if record else id
    ok = share <= MAX_OF_ONE_RECORD or len(found) < MIN_JUDGED
    return judged("no_record_dominates", ok, f"{share:.1%} of the tokens to train are those of one record, {place}")


def questions_of_the_test_unseen(evidence: Evidence) -> Finding:
    """Look for test dialogues whose first question a training dialogue asks too."""
    asked: dict[str, list[Record]] = {"train": [], "test": []}
    for record in evidence.records:
        asked.setdefault(record.split, []).append(record)
    trained = {_question(record) for record in asked["train"]}
    faults = [f"{record.source.place}: its first question is also trained" for record in asked["test"] if _question(record) in trained]
    few = len(faults) <= MAX_SEEN_QUESTIONS * len(asked["test"])
    holds = f"{len(asked['test']):,} test dialogues" + (f", {len(faults):,} of them with a trained first question" if faults else "")
    return verdict("questions_of_the_test_unseen", [] if few else faults, f"{holds}; none asks what was trained" if not faults else holds)


def _question(record: Record) -> str:
    return " ".join(first_user_text(record.turns).lower().split())


def texts_survive_the_tokenizer(evidence: Evidence, turns: Turns | None) -> Finding:
    """Decode what is not trained and compare it with the records; count the texts that the tokenizer's normalizer changes.

    What is trained is decoded by `trained_tokens_are_the_answers`, windows of documents by `documents_are_whole`.
    """
    tokens = evidence.tokens
    faults = list(_misread(evidence, turns)) if turns is not None else []
    texts = [text for record in _spread(evidence.records, SAMPLED_TEXTS) for text in _texts(record)]
    changed = [text for text in texts if tokens.normalize(text) != text]
    if len(changed) > MAX_CHANGED_TEXTS * len(texts):
        shown = excerpt(tokens.normalize(changed[0]))
        faults.append(f"{len(changed):,} of {len(texts):,} texts are changed before they are cut, such as {excerpt(changed[0])} to {shown}")
    decoded = np.count_nonzero(~turns.expected) if turns is not None else 0
    holds = f"{decoded:,} untrained turns decode to their text; {len(changed):,} of {len(texts):,} texts looked at are normalized"
    return verdict("texts_survive_the_tokenizer", faults, holds)


def _misread(evidence: Evidence, turns: Turns) -> Iterator[str]:
    first = np.searchsorted(turns.starts, evidence.offsets)
    for begin in range(0, len(evidence.rows), CHUNK_ROWS):
        rows = range(begin, min(begin + CHUNK_ROWS, len(evidence.rows)))
        found = ((row, first[row] + n, turn) for row in rows for n, turn in enumerate(turns.of_row[row]))
        chosen = [(row, k, turn) for row, k, turn in found if not turns.expected[k]]
        parts = (evidence.ids[turns.starts[k] + turns.header_tokens[k] : turns.ends[k]] for _, k, _ in chosen)
        texts = evidence.tokens.decode_texts([part[part >= 0].tolist() for part in parts])
        for (row, k, turn), text in zip(chosen, texts, strict=True):
            wanted = evidence.tokens.normalize(turn_text(turn))
            if turns.roles[k] < len(ROLES) and text != wanted:
                yield f"{evidence.place(row)}: {turn.role} turn decodes to {excerpt(text)}, its record has {excerpt(wanted)}"


def _texts(record: Record) -> list[str]:
    return [turn.content for turn in record.turns] + [part.text for part in record.parts]


def _spread(records: Sequence[Record], most: int) -> list[Record]:
    """Return at most `most` records, evenly chosen."""
    return [records[n] for n in np.unique(np.linspace(0, len(records) - 1, min(most, len(records))).astype(int))] if records else []


def rows_are_encoded_alone(evidence: Evidence, recipe: Recipe) -> Finding:
    """Encode some records again, each by itself, and compare with the rows that they have among the others."""
    rows: dict[str, list[Row]] = collections.defaultdict(list)
    for row in evidence.rows:
        rows[row.id].append(row)
    parted = {item.id for item in evidence.set_aside} if recipe.of_pairs else set()  # with their other side, which was over-long
    chosen = [record for record in _spread(evidence.records, SAMPLED_RECORDS) if record.copy == 0 and record.id not in parted]
    faults = []
    for record in chosen:
        alone = [_key(item) for item in _encode(record, evidence, recipe) if isinstance(item, Row)]
        if {*alone} != {_key(row) for row in rows[record.id]}:
            faults.append(f"{record.source.place}: encoded alone it has other rows")
    return verdict("rows_are_encoded_alone", faults, f"{len(chosen):,} records encoded once more, each alone, have the same rows")


def _encode(record: Record, evidence: Evidence, recipe: Recipe) -> Iterator[object]:
    if record.turns:
        return encode_dialogues([record], evidence.tokens, recipe.max_length_tokens)
    return encode_documents([record], evidence.tokens, recipe.max_length_tokens, recipe.fim, int(recipe.trainer.get("seed", 42)))


def _key(row: Row) -> tuple[int, bytes, bytes]:
    return row.piece, row.ids.tobytes(), row.trained.tobytes()
