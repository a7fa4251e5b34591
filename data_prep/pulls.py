"""Pull requests as records: the ``kind: pulls`` builder of the prepare stage.

In: what a `PullsSpec` names: exports of GitHub's REST or GraphQL API, payloads of webhooks, hours of GHArchive; and perhaps a clone,
which knows the code. Out: one `Kept` or `Dropped` for each pull request, which is the unit, and for each line that is no JSON or no
row of a pull request's; rows about other things (pushes, issues) are passed over. Documents are those of `data_prep.pull_documents`,
dialogues those of `data_prep.pull_dialogues`, rules those of `data_prep.pull_rules`.

Pull requests that are told whole in a row come in the order of the rows; those that must be put together from many rows come in an
order that depends on the input alone.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import pickle
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from data_prep.documents import Family
from data_prep.drafts import RowProblem
from data_prep.git import Store, is_repository, open_store, references, resolve, shallow_commits
from data_prep.kinds import Opened, Piece, Setting, Shop, spec_and_rules
from data_prep.people import GHOST, pseudonym
from data_prep.pull_build import Conversation, build_pull, converse
from data_prep.pull_dialogues import dialogue_turns
from data_prep.pull_documents import TOKENS, render_pull
from data_prep.pull_reading import BATCH_ROWS, FORMATS, Batch, find_files, find_shapes, open_batches, pulls_of
from data_prep.pull_rules import PullRules, is_retained, pull_fault, rules_of
from data_prep.pull_shapes import RawPull, Shape
from data_prep.pull_states import States, clone_states, export_states, locate_comments
from data_prep.records import Dropped, Item
from data_prep.remote_files import describe_input
from data_prep.sources import as_text
from data_prep.views import dialogue_item, document_item
from starchat.config import to_mapping
from starchat.dialogue import Source
from starchat.errors import UserError

CLONE_ROWS = 32
"""How many pull requests git is asked about at a time; where a row is one, they are a task."""

MAX_RAW_TEXT = 1000
"""How much of a description the table of dropped units shows."""


@dataclasses.dataclass(frozen=True)
class PullsSpec:
    """Pull requests from `path`: a file, a folder of files or a pattern.

    `format` is detected from the keys of each row; named, rows of other formats are malformed. `clone` is a git repository, bare or
    with a work tree, that has the commits; without it the patches in an export tell the change. `repository` (``owner/name``) is
    what rows belong to that name none. `license` is the SPDX licence of all records; without it that of the exported repository.
    `task` is about the dialogue view: ``review``, ``suggest`` (a comment and the change that it asks for), or ``both`` in one. `rules`
    has the keys of `data_prep.pull_rules.PullRules`.
    """

    path: str
    kind: Literal["pulls"] = "pulls"
    view: Literal["document", "dialogue"] = "document"
    format: Literal["auto", "gharchive", "webhooks", "rest", "graphql"] = "auto"
    clone: str | None = None
    repository: str | None = None
    license: str | None = None
    task: Literal["review", "suggest", "both"] = "both"
    rules: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of a source share; `family` is None in the dialogue view, `counts` names the file of `_write_counts`."""

    spec: PullsSpec
    rules: PullRules
    seed: int
    family: Family | None
    clone: Store | None = None
    counts: str | None = None


def open_kind(mapping: Mapping[str, Any], place: str, setting: Setting) -> Opened:
    """Return pull requests that are ready to be read (`data_prep.kinds`)."""
    spec, rules = spec_and_rules(PullsSpec, mapping, place, rules_of)
    files = find_files(spec.path)
    shapes = find_shapes(files, spec.format)
    known: list[dict[str, Any]] = []
    clone = None
    if spec.clone is not None:
        if not is_repository(spec.clone):
            raise UserError(f"{place}: clone: {spec.clone}: no git repository; name the root of a clone, or a bare repository")
        clone = open_store(spec.clone)
        held = {"references": references(spec.clone), "cut_off": sorted(shallow_commits(clone))}
        known = [{"path": spec.clone, "commit": resolve(spec.clone), **held}]
    family = None
    if spec.view == "document":
        family = setting.family
        family.require(*TOKENS)
    job = Job(spec, rules, setting.seed, family, clone)
    resolved = {**to_mapping(spec), "rules": to_mapping(rules)}
    formats = [name for name, of_it in FORMATS.items() if set(of_it) & set(shapes)] or [spec.format]
    return Opened(
        *(spec.path, ", ".join(formats), resolved, lambda: [*map(describe_input, files), *known]),
        *(lambda shop: _pieces(files, shapes, job, shop), setting.workers),
    )


def _pieces(files: list[Path], shapes: Collection[Shape], job: Job, shop: Shop) -> Iterator[Piece]:
    rows = CLONE_ROWS if job.spec.clone else BATCH_ROWS
    batches = open_batches(files, shapes, job.spec.format, job.spec.repository, shop, rows)
    if job.rules.retention:
        job = dataclasses.replace(job, counts=_write_counts(batches(), shop))
    yield from (Piece(functools.partial(build_batch, job), batch, batch.reads) for batch in batches())


def _write_counts(batches: Iterable[Batch], shop: Shop) -> str:
    """Have it written how many pull requests each repository has, and return the file's name."""
    counts: collections.Counter[str] = collections.Counter()
    for _, found in shop.run("counted", count_batch, batches):
        counts.update(found)
    ((folder, name),) = shop.run("counts", _write, [dict(counts)])
    return str(folder / name)


def _write(folder: Path, counts: Mapping[str, int]) -> str:
    (folder / "counts").write_bytes(pickle.dumps(counts))
    return "counts"


@functools.lru_cache(1)
def _read_counts(path: str) -> Mapping[str, int]:
    counts: Mapping[str, int] = pickle.loads(Path(path).read_bytes())
    return counts


def count_batch(_: Path, batch: Batch) -> dict[str, int]:
    """Return how many pull requests of each repository are in a batch."""
    return collections.Counter((pull.repository or "").lower() for pull in pulls_of(batch) if isinstance(pull, RawPull))


def build_batch(job: Job, batch: Batch) -> list[Item]:
    """Return what becomes of each pull request of a batch, in order."""
    found = (pull if isinstance(pull, Dropped) else _ruled(pull, job) for pull in pulls_of(batch))
    if job.clone is None:
        return [pull if isinstance(pull, Dropped) else _built(pull, None, job) for pull in found]
    items: list[Item] = []
    while chunk := list(itertools.islice(found, CLONE_ROWS)):  # a partition may hold many, and git tells much of each
        pulls = [pull for pull in chunk if isinstance(pull, RawPull)]
        states = iter(clone_states(pulls, job.clone, job.rules.max_context_lines))
        items += [pull if isinstance(pull, Dropped) else _built(pull, next(states), job) for pull in chunk]
    return items


def _ruled(pull: RawPull, job: Job) -> RawPull | Dropped:
    """Return a pull request if the rules that need no code keep it."""
    if pull.title is None:
        return _title_missing(pull)
    fault = pull_fault(pull, job.rules)
    if fault is not None:
        return _dropped(pull, *fault)
    if job.counts is not None:
        count = _read_counts(job.counts).get((pull.repository or "").lower(), 1)
        if not is_retained(pull, count, job.seed):
            return _dropped(pull, "retention", f"not in the share that a repository of {count} pull requests gives")
    return pull


def _title_missing(pull: RawPull) -> Dropped:
    if pull.head is not None or pull.base is not None:
        detail = "no row has its title and text; GHArchive's events are trimmed since October 2025: export it from GitHub's API"
        return _dropped(pull, "trimmed_payload", detail)
    return _dropped(pull, "no_pull_request", "only what was said about it was found; export the pull request too")


def _dropped(pull: RawPull, reason: str, detail: str, fault: bool = False) -> Dropped:
    shown = {"repository": pull.repository, "number": pull.number, "title": pull.title, "body": pull.body[:MAX_RAW_TEXT]}
    return Dropped(reason, pull.place, f"{pull.name}: {detail}", as_text({**shown, "events": len(pull.said)}), fault)


def _built(pull: RawPull, states: States | RowProblem | None, job: Job) -> Item:
    try:
        if isinstance(states, RowProblem):
            raise states
        return _record(pull, states or export_states(pull), job)
    except RowProblem as problem:
        return _dropped(pull, problem.reason, problem.detail, problem.fault)


def _record(pull: RawPull, states: States | None, job: Job) -> Item:
    spec, rules = job.spec, job.rules
    if states is None and (job.family is not None or spec.task != "suggest"):
        raise RowProblem("no_diff", _no_diff(pull, spec.clone))
    located = states is not None and locate_comments(pull, states)
    talk = converse(pull, rules)
    repairs = [*talk.repairs, *(states.repairs if states else ()), *["located_comment"] * located]
    people = {person.login for person in (pull.author, *(said.who for said in pull.said)) if person is not None} - {GHOST}
    dated = max((pull.opened_at, pull.closed_at, *(said.at for said in pull.said))) or None
    named = tuple(map(pseudonym, sorted(people)))
    source = Source(pull.place, pull.repository, None, pull.merge_commit or pull.head, pull.url, date=dated, people=named)
    license = spec.license or pull.license
    if job.family is None or states is None:
        return _dialogue(pull, talk, states, job, source, license, repairs)
    rendered = render_pull(build_pull(pull, talk, states, rules, job.seed, repairs), job.family)
    _require_length(sum(len(part.marker) + len(part.text) for part in rendered.parts), rules)
    return document_item(rendered, source, license, repairs)


def _dialogue(
    pull: RawPull, talk: Conversation, states: States | None, job: Job, source: Source, license: str | None, repairs: list[str]
) -> Item:
    turns = dialogue_turns(pull, talk, states, job.rules, job.spec.task)
    if not turns:
        raise RowProblem("no_review_comment", f"no comment by a reviewer that task: {job.spec.task} can be made of")
    _require_length(sum(len(turn.content) for turn in turns), job.rules)
    return dialogue_item(turns, source, license, repairs)


def _require_length(chars: int, rules: PullRules) -> None:
    if rules.min_chars is not None and chars < rules.min_chars:
        raise RowProblem("too_short", f"{chars:,} characters in all")
    if rules.max_chars is not None and chars > rules.max_chars:
        raise RowProblem("too_long", f"{chars:,} characters in all")


def _no_diff(pull: RawPull, clone: str | None) -> str:
    if clone is not None:
        return "none of its commits is in the clone: fetch refs/pull/*/head, or export its files with their patches"
    if pull.files:
        return "none of its files has a patch that can be read; name a clone that has its commits with the key clone"
    return "the export has no files with patches; name a clone that has its commits with the key clone"
