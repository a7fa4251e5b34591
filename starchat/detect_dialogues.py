"""Laws 1 to 3 on every row of dialogues, by other means than those that made the rows.

Each detector takes the evidence and returns one `Finding`. What is trained is decoded and compared with the records' own
text; prompts are encoded as at inference; the exported Jinja template is rendered and tokenized as transformers does it.
Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from starchat.dialogue import ROLES, Turn, to_message
from starchat.encode import encode_prompts
from starchat.evidence import Evidence, Turns, control_ids, is_one_of
from starchat.finding import Finding, excerpt, verdict
from starchat.template import jinja, turn_text, with_tools

CHUNK_ROWS = 2000


def trained_tokens_are_the_answers(evidence: Evidence, turns: Turns) -> Finding:
    """Decode every stretch of trained tokens, holes that a record's placeholders explain filled in, and compare with the records'
    assistant turns and their end token."""
    tokens, trained = evidence.tokens, evidence.trained | turns.holes
    before = np.concatenate([[False], trained[:-1]])
    before[evidence.offsets[:-1]] = False
    first = np.flatnonzero(trained & ~before)
    after = np.concatenate([trained[1:], [False]])
    after[evidence.offsets[1:] - 1] = False
    last = np.flatnonzero(trained & ~after) + 1
    cuts = np.searchsorted(first, evidence.offsets)
    flags = np.searchsorted(turns.starts, evidence.offsets)
    faults: list[str] = []
    for begin in range(0, len(evidence.rows), CHUNK_ROWS):
        rows = range(begin, min(begin + CHUNK_ROWS, len(evidence.rows)))
        low, high = cuts[rows[0]], cuts[rows[-1] + 1]
        texts = tokens.decode_texts([evidence.ids[a:b].tolist() for a, b in zip(first[low:high], last[low:high], strict=True)])
        for row in rows:
            expected = turns.expected[flags[row] : flags[row + 1]]
            wanted = [tokens.normalize(turn_text(t)) + tokens.end for t, e in zip(turns.of_row[row], expected, strict=False) if e]
            found = texts[cuts[row] - low : cuts[row + 1] - low]
            if found != wanted:
                faults.append(f"{evidence.place(row)}: {_difference(found, wanted)}")
    holds = f"{len(first):,} answers of {len(evidence.rows):,} rows, decoded, are the records' own text"
    return verdict("trained_tokens_are_the_answers", faults, holds)


def _difference(found: Sequence[str], wanted: Sequence[str]) -> str:
    if len(found) != len(wanted):
        return f"{len(found)} stretches are trained where the record has {len(wanted)} answers"
    one, other = next((f, w) for f, w in zip(found, wanted, strict=True) if f != w)
    return f"trained is {excerpt(one)} where the record has {excerpt(other)}"


def every_end_token_is_trained(evidence: Evidence, turns: Turns) -> Finding:
    """Look for the end token where each trained turn ends, and for its label."""
    end = evidence.tokens.control[evidence.tokens.end]
    ends = turns.ends[turns.expected]
    absent, mute = evidence.ids[ends] != end, ~evidence.trained[ends]
    what = [(at, "has no end token" if no else "has an end token that is not trained") for at, no in zip(ends, absent, strict=True)]
    faults = [f"{evidence.place(evidence.row_at(int(what[n][0])))}: a trained turn {what[n][1]}" for n in np.flatnonzero(absent | mute)]
    holds = f"{len(ends):,} trained turns, each with {evidence.tokens.end} trained"
    return verdict("every_end_token_is_trained", faults, holds)


def user_and_system_untrained(evidence: Evidence, turns: Turns) -> Finding:
    """Count the trained tokens of each role, and of the headers, which no turn trains."""
    bad = evidence.trained.copy()
    for start, stop in zip(turns.starts[turns.expected] + turns.header_tokens[turns.expected], turns.ends[turns.expected] + 1, strict=True):
        bad[start:stop] = False
    positions = np.flatnonzero(bad)
    where, first = np.unique(np.searchsorted(turns.starts, positions, side="right") - 1, return_index=True)
    faults = []
    for position, turn in zip(positions[first].tolist(), where.tolist(), strict=True):
        known = turn >= 0 and position < turns.stops[turn]
        header = known and position < turns.starts[turn] + turns.header_tokens[turn]
        role = (*ROLES, "unknown")[turns.roles[turn]] if known else "no"
        part = "header" if header else "turn that must not be trained here" if role == "assistant" else "turn"
        spelled = evidence.tokens.whole.id_to_token(int(evidence.ids[position]))
        faults.append(f"{evidence.place(evidence.row_at(position))}: trained token {spelled!a} in {role} {part}")
    counts = ", ".join(f"{role} {np.count_nonzero(turns.roles == n):,}" for n, role in enumerate(ROLES) if role != "assistant")
    return verdict("user_and_system_untrained", faults, f"no trained token outside the answers (turns: {counts})")


def no_forged_control_tokens(evidence: Evidence, turns: Turns) -> Finding:
    """Hold the control tokens of every turn against the only two that belong there: its marker and its end."""
    tokens, template = evidence.tokens, evidence.tokens.template
    assert template is not None, "dialogues need a template"
    control = is_one_of(evidence.ids, control_ids(tokens))
    totals = np.concatenate([[0], np.cumsum(control)])
    markers = np.array([*(tokens.control[template.marker(role)[0]] for role in ROLES), -1])
    ends = np.clip(turns.ends, 0, len(evidence.ids) - 1)
    wrong = (totals[turns.stops] - totals[turns.starts] != 2) | (evidence.ids[turns.starts] != markers[turns.roles])
    wrong |= evidence.ids[ends] != tokens.control[tokens.end]
    faults, forbidden = list(turns.contradictions), {*control_ids(tokens).tolist()}
    for turn in np.flatnonzero(wrong & (turns.roles < len(ROLES))):
        ids = evidence.ids[turns.starts[turn] : turns.stops[turn]].tolist()
        names = " ".join(str(tokens.whole.id_to_token(i)) for i in ids if i in forbidden)
        place = evidence.place(evidence.row_at(int(turns.starts[turn])))
        faults.append(f"{place}: control tokens {names[:120]} in the turn of {ROLES[turns.roles[turn]]}")
    texts = sum(any(token in turn.content for token in tokens.control) for record in evidence.records for turn in record.turns)
    holds = f"{len(turns.starts):,} turns, each with its marker and its end token only"
    spelled = f"; {texts:,} texts spell a control token and stay text" if texts else ""
    return verdict("no_forged_control_tokens", faults, holds + spelled)


def one_beginning_token(evidence: Evidence, turns: Turns) -> Finding:
    """Hold what stands before the first turn of every row against the base model's own beginning token, once or not at all."""
    tokens = evidence.tokens
    lead = [tokens.control[tokens.bos]] if tokens.bos else []
    index = np.searchsorted(turns.starts, evidence.offsets[:-1])
    first = np.append(turns.starts, len(evidence.ids))[index]
    size = np.minimum(first, evidence.offsets[1:]) - evidence.offsets[:-1]
    bad = size != len(lead)
    if lead:
        bad |= evidence.ids[evidence.offsets[:-1]] != lead[0]
    faults = [f"{evidence.place(int(row))}: {size[row]} tokens before the first turn; expected {len(lead)}" for row in np.flatnonzero(bad)]
    holds = f"each row begins with {tokens.bos}, once" if tokens.bos else "no beginning token, as in the base model"
    return verdict("one_beginning_token", faults, holds)


def prompt_is_a_prefix(evidence: Evidence, turns: Turns) -> Finding:
    """Encode the prompt of every trained turn as inference does, and compare with the row up to the turn's content."""
    faults: list[str] = []
    first_turn = np.searchsorted(turns.starts, evidence.offsets)
    for begin in range(0, len(evidence.rows), CHUNK_ROWS):
        rows = range(begin, min(begin + CHUNK_ROWS, len(evidence.rows)))
        asked = [(row, n) for row in rows for n in range(len(turns.of_row[row])) if turns.expected[first_turn[row] + n]]
        prompts = encode_prompts([turns.of_row[row][:n] for row, n in asked], evidence.tokens)
        for (row, n), prompt in zip(asked, prompts, strict=True):
            turn, start = first_turn[row] + n, evidence.offsets[row]
            content = turns.starts[turn] + turns.header_tokens[turn]
            if not np.array_equal(evidence.ids[start:content], np.array(prompt, dtype=np.int32)):
                faults.append(f"{evidence.place(row)}: the prompt of turn {n + 1} gives other tokens than the row has before its answer")
    holds = f"{np.count_nonzero(turns.expected):,} prompts, encoded as at inference, are token prefixes of their rows"
    return verdict("prompt_is_a_prefix", faults, holds)


def jinja_gives_the_same_ids(evidence: Evidence, turns: Turns) -> Finding:
    """Render every row with the template that is exported, tokenize the text whole as transformers does, and compare."""
    faults: list[str] = []
    for begin in range(0, len(evidence.rows), CHUNK_ROWS):
        rows = [row for row in range(begin, min(begin + CHUNK_ROWS, len(evidence.rows))) if turns.of_row[row]]
        texts = list(_rendered(evidence, [(evidence.rows[row].id, turns.of_row[row]) for row in rows]))
        encoded = evidence.tokens.whole.encode_batch_fast(texts, add_special_tokens=False)
        for row, encoding in zip(rows, encoded, strict=True):
            ids = evidence.ids[evidence.offsets[row] : evidence.offsets[row + 1]]
            if not np.array_equal(ids, np.array(encoding.ids, dtype=np.int32)):
                faults.append(f"{evidence.place(row)}: {_first_difference(encoding.ids, ids.tolist())}")
    holds = f"{len(evidence.rows):,} rows rendered by the exported chat template and tokenized whole have the same ids"
    return verdict("jinja_gives_the_same_ids", faults, holds)


def _first_difference(exported: Sequence[int], row: Sequence[int]) -> str:
    at = next((n for n, (a, b) in enumerate(zip(exported, row, strict=False)) if a != b), min(len(exported), len(row)))
    return f"the exported template's ids ({len(exported):,}) part from the row's ({len(row):,}) at token {at:,}"


def _rendered(evidence: Evidence, asked: Sequence[tuple[str, tuple[Turn, ...]]]) -> Iterator[str]:
    """Yield the text of rows; a whole dialogue is given its tools as tools, a piece has them in its system turn already."""
    tokens = evidence.tokens
    assert tokens.template is not None, "dialogues need a template"
    template = jinja_environment().from_string(jinja(tokens.template, list(tokens.control), tokens.bos))
    for id, turns in asked:
        record = evidence.by_id[id]
        whole = record.tools is not None and len(turns) == len(with_tools(record.turns, record.tools))
        used = record.turns if whole else turns
        tools = json.loads(record.tools) if whole and record.tools else None
        yield template.render(messages=[to_message(turn) for turn in used], tools=tools, add_generation_prompt=False)


def jinja_environment() -> Any:
    """Return a Jinja environment set up as transformers sets up its own for chat templates."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = raise_exception
    return environment


def no_empty_answers(evidence: Evidence, turns: Turns) -> Finding:
    """Look for trained turns without content: they teach the model to stop before it has said anything."""
    numbers = np.flatnonzero(turns.expected & (turns.ends == turns.starts + turns.header_tokens))
    faults = [f"{evidence.place(evidence.row_at(int(turns.starts[n])))}: an empty answer is trained" for n in numbers]
    return verdict("no_empty_answers", faults, "no trained turn is empty")
