"""The loss X-ray: the laws proved on every row of a recipe's dataset, before any training.

In: a recipe. Out: a `Report`, and the encoded rows, so that training does not encode twice. The detectors are in
`starchat.detect_dialogues`, `starchat.detect_pairs`, `starchat.detect_documents`, `starchat.detect_placeholders`, `starchat.detect_rows`
and `starchat.detect_data`; how a report looks, in `starchat.xray`. Imports no torch.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from starchat import detect_data as data
from starchat import detect_dialogues as dialogues
from starchat import detect_documents as documents
from starchat import detect_pairs as pairs
from starchat import detect_placeholders as placeholders
from starchat import detect_rows as every
from starchat.detect_base import base_findings
from starchat.dialogue import Record
from starchat.encode import Row, SetAside
from starchat.errors import UserError
from starchat.evidence import Evidence, Turns, find_turns, gather
from starchat.finding import Finding, Report, merged
from starchat.hub import base_folder, context_length, read_config, start_folder
from starchat.measure import measure
from starchat.pack import one_by_one
from starchat.pairs import require_chat_tokens, sides
from starchat.recipe import Recipe
from starchat.rows import encode_split, group_rows, read_records
from starchat.tokens import Tokens, load_tokens

__all__ = ["Finding", "Report", "check_recipe", "examine"]

SPLITS = ("train", "test")

Step = Callable[[str], None]


def check_recipe(recipe: Recipe, progress: bool = True) -> tuple[Report, dict[str, list[Row]]]:
    """Return what the checks found in a recipe's dataset, and its rows by split.

    Raises `UserError` where there is nothing to check: no dataset, no tokenizer, rows longer than the model's context.
    """
    folder = base_folder(recipe.model)
    config = dict(recipe.architecture or {}) if recipe.from_nothing else read_config(folder)
    tokens = load_tokens(start_folder(recipe.model), recipe.dialogue_template)
    if recipe.of_pairs:
        require_chat_tokens(recipe, tokens)
    _refuse_long_rows(recipe, context_length(config))
    with _progress(progress) as step:
        step("reading records")
        records, unused = _read(recipe)
        rows: dict[str, list[Row]] = {}
        set_aside: list[SetAside] = []
        for split in SPLITS:
            step(f"encoding the {split} split")
            items = list(encode_split(recipe, tokens, split))
            rows[split] = [item for item in items if isinstance(item, Row)]
            set_aside += [item for item in items if isinstance(item, SetAside)]
        if not rows["train"]:
            raise UserError(_nothing_left(recipe, records, set_aside))
        model_rows = tokens.size if recipe.from_nothing else int(config.get("vocab_size") or tokens.size)
        report = examine(recipe, tokens, records, rows, set_aside, model_rows, step, unused)
        if not recipe.from_nothing:
            step("the base model's files")
            ids = np.unique(np.concatenate([row.ids for split in rows.values() for row in split]))
            of_base = load_tokens(folder, recipe.dialogue_template)  # a run's adapter has rows that its base has not
            report = Report((*report.findings, *base_findings(folder, config, of_base, ids)), report.stats)
    return report, rows


def examine(
    recipe: Recipe,
    tokens: Tokens,
    records: Sequence[Record],
    rows: dict[str, list[Row]],
    set_aside: Sequence[SetAside],
    model_rows: int,
    step: Step = lambda name: None,
    unused: int = 0,
) -> Report:
    """Return the report on rows that claim to be those of `records`; there must be a training row.

    `model_rows` is the number of embedding rows of the base model, `unused` that of records of another kind in the dataset.
    """
    evidence = gather(tokens, records, rows["train"], rows["test"], set_aside)
    step("matching rows with records")
    chats, texts = _by_kind(recipe, evidence)
    turns = find_turns(chats) if chats else None
    findings = _of_dialogues(chats, turns, step) if chats and turns else []
    findings += _of_documents(texts, recipe, step) if texts else []
    step("what the data teaches")
    findings += _of_data(evidence, chats, turns, texts, recipe)
    step("lengths, packing, duplicates")
    sizes, capacity = evidence.lengths[: evidence.train_rows], recipe.max_length_tokens
    fits = int(evidence.lengths.max()) <= capacity and int(evidence.lengths.min()) > 0
    groups = group_rows(recipe, sizes) if fits else one_by_one(len(sizes))
    keys = every.row_keys(evidence)
    findings += [detector(evidence) for detector in pairs.DETECTORS] if recipe.of_pairs else []
    findings += [pairs.one_prompt(evidence, turns)] if recipe.of_pairs and turns else []
    findings += [
        every.dead_rows(evidence),
        every.first_tokens_untrained(evidence),
        every.lengths(evidence, capacity, recipe.max_set_aside_fraction),
        *([] if recipe.of_pairs else [every.packing(sizes, groups.tolist(), capacity), every.duplicate_rows(evidence, keys)]),
        every.train_test_disjoint(evidence, keys),
        every.end_token_stops(tokens.control[tokens.end], tokens.stop_ids, tokens.pad_id, recipe.of_dialogues),
        every.new_tokens_counted(tokens, model_rows),
        every.ids_in_vocabulary(evidence, model_rows),
        *(every.conservation(part, turns if part is chats else None) for part in (chats, texts) if part and not recipe.of_pairs),
    ]
    return Report(merged(findings), measure(recipe, evidence, chats, turns, groups, unused))


def _by_kind(recipe: Recipe, evidence: Evidence) -> tuple[Evidence | None, Evidence | None]:
    """Return the evidence of dialogues and that of documents; a row of no record belongs to the first that there is."""
    if not recipe.of_documents:
        return evidence, None
    if not recipe.of_dialogues:
        return None, evidence

    def kind_of(id: str) -> str:
        record = evidence.by_id.get(id)
        return record.kind if record else "dialogue"

    def part(kind: str) -> Evidence:
        records = [record for record in evidence.records if record.kind == kind]
        train, test = (
            [row for row in rows if kind_of(row.id) == kind]
            for rows in (evidence.rows[: evidence.train_rows], evidence.rows[evidence.train_rows :])
        )
        return gather(evidence.tokens, records, train, test, [item for item in evidence.set_aside if kind_of(item.id) == kind])

    return part("dialogue"), part("document")


def _of_dialogues(evidence: Evidence, turns: Turns, step: Step) -> list[Finding]:
    detectors = (
        dialogues.trained_tokens_are_the_answers,
        dialogues.every_end_token_is_trained,
        dialogues.user_and_system_untrained,
        dialogues.prompt_is_a_prefix,
        dialogues.jinja_gives_the_same_ids,
        dialogues.no_forged_control_tokens,
        dialogues.one_beginning_token,
        dialogues.no_empty_answers,
        placeholders.in_dialogues,
    )
    return [_run(detector.__name__, step, lambda d=detector: d(evidence, turns)) for detector in detectors]  # type: ignore[misc]


def _of_documents(evidence: Evidence, recipe: Recipe, step: Step) -> list[Finding]:
    step("reading windows back")
    windows = documents.read_windows(evidence)
    return [
        documents.all_but_first_trained(evidence),
        documents.one_beginning_token(evidence),
        documents.documents_are_whole(evidence, windows),
        documents.only_the_documents_own_control_tokens(evidence, windows),
        documents.fim_share(windows, recipe.fim),
        placeholders.in_documents(evidence),
    ]


def _of_data(evidence: Evidence, chats: Evidence | None, turns: Turns | None, texts: Evidence | None, recipe: Recipe) -> Iterator[Finding]:
    yield data.trained_share(evidence)
    yield data.no_endless_runs(evidence)
    yield data.no_record_dominates(evidence)
    yield data.rows_are_encoded_alone(evidence, recipe)
    if chats and turns:
        yield data.answers_differ(chats, turns)
        yield data.answers_close_their_fences(chats)
        yield data.questions_of_the_test_unseen(chats)
    for part in (chats, texts):
        if part:
            yield data.texts_survive_the_tokenizer(part, turns if part is chats else None)


def _run(name: str, step: Step, detector: Callable[[], Finding]) -> Finding:
    step(name.replace("_", " "))
    return detector()


def _read(recipe: Recipe) -> tuple[list[Record], int]:
    """Return the records of both splits that this kind of training uses, of pairs both sides, and how many records it does not use."""
    found = [record for split in SPLITS for record in read_records(recipe.dataset, split)]
    kinds = ["pair" if recipe.of_pairs else "dialogue"] * recipe.of_dialogues + ["document"] * recipe.of_documents
    for kind in kinds:
        if not any(record.kind == kind and record.split == "train" for record in found):
            others = collections.Counter(record.kind for record in found)
            holds = ", ".join(f"{count:,} {other}s in all" for other, count in others.items()) or "no records"
            why = "fim replays documents" if len(kinds) > 1 and kind == "document" else f"kind {recipe.kind} trains on {kind}s"
            raise UserError(f"dataset: {recipe.dataset}: no {kind} in its train split ({holds}); {why}")
    records = [record for record in found if record.kind in kinds]
    unused = len(found) - len(records)
    return [side for record in records for side in sides(record)] if recipe.of_pairs else records, unused


def _nothing_left(recipe: Recipe, records: Sequence[Record], set_aside: Sequence[SetAside]) -> str:
    reasons = sorted({item.reason for item in set_aside})
    first = set_aside[0]
    return (
        f"dataset: {recipe.dataset}: all {len(records):,} records were set aside ({', '.join(reasons)}; the first is {first.place} with "
        f"{first.tokens:,} tokens, max_length_tokens is {recipe.max_length_tokens:,}); raise max_length_tokens, or give dialogues with "
        "answers to train"
    )


def _refuse_long_rows(recipe: Recipe, context: int | None) -> None:
    if context is not None and recipe.max_length_tokens > context:
        asked = f"max_length_tokens: {recipe.max_length_tokens:,}"
        raise UserError(f"{asked}; model {recipe.model} has a context of {context:,} tokens; lower it to at most that")


@contextlib.contextmanager
def _progress(shown: bool) -> Iterator[Step]:
    """Give a function that names the step begun, on standard error if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield lambda name: None
        return
    with console.status("check") as status:
        yield lambda name: status.update(f"check: {name}")
