"""A pull request as `data_prep.pull_documents` has it: what was said, made fit to be read, and the code that it is about.

In: a `RawPull` and its `States`. Out: a `Conversation`, which both views begin with, and a `PullRequest`. People become ``username_N``
in the order in which they appear, in names and in texts; code keeps whatever names it holds. Every draw is a hash of the pull request
and the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from data_prep.drafts import RowProblem
from data_prep.people import Names, Person, is_bot
from data_prep.pull_changes import BadPatch, FileChange, Hunk, change_range, parse_patch, reach, shifted, with_context
from data_prep.pull_documents import BaseFile, Comment, Diff, Event, FileDiff, PullRequest, Review, ReviewComment, Status
from data_prep.pull_objects import Said
from data_prep.pull_rules import OMITTED, PullRules, clean_text, cut_text, file_fault, looks_locked
from data_prep.pull_shapes import RawPull
from data_prep.pull_states import States
from starchat.fim import rng_for

ACTIONS = ("edited", "reopened", "closed", "synchronize")
"""What is told of the pull request itself behind its opening; labels, assignments and the like are not."""


class Spoken(NamedTuple):
    """One thing that was said, with the name and the text that stand for it."""

    said: Said
    author: str
    text: str


class Conversation(NamedTuple):
    """What was said about a pull request: its title and description by its author, and what followed in order."""

    title: str
    author: str
    body: str
    spoken: tuple[Spoken, ...]
    repairs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """What is shown of a file: the stretches before the change, the hunks in each state, and how many lines are hidden in front."""

    base: tuple[str, ...]
    hidden: int
    hunks: Mapping[int, tuple[Hunk, ...]]


def converse(pull: RawPull, rules: PullRules) -> Conversation:
    """Return what was said, by the rules for texts; raise `RowProblem` where they leave no description."""
    repairs: list[str] = []
    names = Names(pull.repository)
    author = names.introduce((pull.author or Person()).login)
    body = clean_text(pull.body, rules, repairs)
    if body is None or (rules.min_body_chars is not None and len(body) < rules.min_body_chars and not body.startswith(OMITTED)):
        raise RowProblem("short_description", f"the description has {len(body or '')} characters of its own")
    names.meet(pull.title or "")
    names.meet(body)
    kept = list(_kept(pull, rules, names, repairs))
    spoken = []
    for said, who, text in kept:
        if said.title is not None:
            said = said._replace(title=_written_title(said.title, names, rules, repairs))
        spoken.append(Spoken(said, who, cut_text(names.written(text), rules, repairs)))
    title = _written_title(pull.title or "", names, rules, repairs)
    body = cut_text(names.written(body), rules, repairs)
    repairs += ["minimized_comment"] * pull.minimized + ["deleted_comment"] * bool(pull.deleted)
    return Conversation(title, author, body, tuple(spoken), tuple(dict.fromkeys(repairs)))


def _written_title(title: str, names: Names, rules: PullRules, repairs: list[str]) -> str:
    title = " ".join(names.written(title).split())
    if rules.max_title_chars is None or len(title) <= rules.max_title_chars:
        return title
    repairs.append("long_title")
    return title[: rules.max_title_chars]


def _kept(pull: RawPull, rules: PullRules, names: Names, repairs: list[str]) -> Iterator[Spoken]:
    """Yield what the rules keep, cleaned; everybody who is told of is introduced on the way."""
    for said in pull.said:
        if said.kind == "status" and said.state not in ACTIONS:
            repairs += ["other_status"] * (said.state != "opened")
            continue
        if said.kind == "review" and said.state == "pending":
            repairs.append("pending_review")
            continue
        if not rules.bot_comments and said.kind != "status" and is_bot(said.who):
            repairs.append("bot_comment")
            continue
        text = clean_text(said.text, rules, repairs)
        if text is None:
            repairs.append("dropped_word")
            continue
        least = rules.min_comment_chars if said.kind in ("comment", "line") else None
        if (least is not None and len(text) < least and not text.startswith(OMITTED)) or (said.kind in ("comment", "line") and not text):
            repairs.append("short_comment")
            continue
        who = names.introduce(said.who.login) if said.who.login else ""
        names.meet(said.title or "")
        names.meet(text)
        yield Spoken(said, who, text)


def build_pull(pull: RawPull, talk: Conversation, states: States, rules: PullRules, seed: int, repairs: list[str]) -> PullRequest:
    """Return the document of a pull request; raise `RowProblem` where the rules leave no file of its change."""
    if any(state.base != states.states[0].base for state in states.states):  # what was merged into it or rebased onto is no change of its
        repairs.append("base_moved")
        states = States(tuple(state for state in states.states if state.base == states.states[0].base), states.repairs)
    windows = build_windows(pull, states, rules, seed, repairs)
    base = [BaseFile(name, text) for name, window in windows.items() for text in window.base]
    opened = Status("opened", talk.author, talk.title, talk.body)
    by_head = {state.head: number for number, state in enumerate(states.states) if state.head is not None}
    current = 0
    events: list[Event] = [_diff(0, windows)]
    for spoken in talk.spoken:
        number = by_head.get(spoken.said.head or "", current)
        if number != current and states.states[number].files != states.states[current].files and (diff := _diff(number, windows)).files:
            events.append(diff)
            current = number
        events.append(_event(spoken, windows, rules, repairs))
    return PullRequest(opened, pull.repository or "", tuple(base), tuple(events))


def _event(spoken: Spoken, windows: Mapping[str, Window], rules: PullRules, repairs: list[str]) -> Event:
    said, author, text = spoken
    if said.kind == "status":
        title = None if said.state == "closed" else said.title
        return Status(said.state or "", author, title, text, said.merged if said.state == "closed" else None)
    if said.kind == "comment":
        return Comment(author, text, said.id, said.state)
    if said.kind == "review":
        return Review(author, text, said.id, said.state)
    hunk = said.hunk
    if hunk is not None and rules.max_hunk_chars is not None and len(hunk) > rules.max_hunk_chars:
        hunk = OMITTED
        repairs.append("long_hunk")
    if said.path is None:
        repairs.append("comment_without_path")
    elif hunk is not None and said.path in windows:
        hunk = shifted(hunk, windows[said.path].hidden)
    line = said.line
    if line is None and hunk is not None:
        line = hunk.count("\n")  # GitHub ends a comment's hunk at the line that it is about
    return ReviewComment(author, text, said.id, said.review, said.reply_to, said.path, line, hunk)


def _diff(number: int, windows: Mapping[str, Window]) -> Diff:
    shown = ((name, window, window.hunks.get(number)) for name, window in windows.items())
    return Diff(tuple(FileDiff(name, tuple(hunk.text(window.hidden) for hunk in hunks)) for name, window, hunks in shown if hunks))


def build_windows(pull: RawPull, states: States, rules: PullRules, seed: int, repairs: list[str]) -> dict[str, Window]:
    """Return what is shown of each file, by its path after the change; raise `RowProblem` where the rules leave none."""
    changes: dict[str, list[tuple[int, FileChange]]] = {}
    for number, state in enumerate(states.states):
        for change in state.files:
            changes.setdefault(change.path, []).append((number, change))
    windows = {}
    for name, found in changes.items():
        looked = {(change.base, None if change.base is not None else change.hunks): change for _, change in found}
        faults = {fault for change in looked.values() if (fault := file_fault(change, rules)) is not None}
        if faults:
            repairs += sorted(faults)
            continue
        windows[name] = _window(pull, name, found, rules, seed)
    if rules.lock_fraction is not None:
        _drop_locked(pull, windows, changes, rules, seed, repairs)
    if not any(window.hunks.get(0) for window in windows.values()):
        left_out = ", ".join(sorted(set(repairs))) or "none"
        raise RowProblem("no_file_left", f"no file of its first state is left by the rules for files ({left_out})")
    if any(change.base is None and not change.added for state in states.states for change in state.files):
        repairs.append("base_from_patch")
    return windows


def _drop_locked(
    pull: RawPull,
    windows: dict[str, Window],
    changes: Mapping[str, Sequence[tuple[int, FileChange]]],
    rules: PullRules,
    seed: int,
    repairs: list[str],
) -> None:
    sizes = {name: sum(map(len, window.base)) for name, window in windows.items()}
    total = sum(sizes.values())
    for name, size in sizes.items():
        if looks_locked(changes[name][0][1], size, total, rules) and rng_for(seed, f"lock:{pull.name}:{name}", 0).random() >= (
            rules.lock_fraction or 0
        ):
            del windows[name]
            repairs.append("locked_file")


def _window(pull: RawPull, name: str, found: Sequence[tuple[int, FileChange]], rules: PullRules, seed: int) -> Window:
    rng = rng_for(seed, f"window:{pull.name}:{name}", 0)
    whole = rng.random() < rules.whole_base_fraction
    above, below = rng.randint(0, rules.max_window_lines), rng.randint(0, rules.max_window_lines)
    context = rng.randint(rules.min_context_lines, rules.max_context_lines)
    hunks = {number: with_context(change.hunks, context) for number, change in found}
    first = found[0][1]
    if first.added:
        return Window((), 0, hunks)
    if first.base is None:
        cut = hunks[found[0][0]]
        return Window(tuple("\n".join(hunk.old_lines) for hunk in cut if hunk.old_lines), cut[0].old if cut else 0, hunks)
    if whole:
        return Window((first.base,), 0, hunks)
    lines = first.base.split("\n")
    start, stop = change_range(hunk for _, change in found for hunk in change.hunks)
    seen = [reach(cut) for cut in hunks.values()] + list(_commented(pull, name))
    start = max(0, min([start - above, *(begin for begin, _ in seen)]))
    stop = min(len(lines), max([stop + below, *(end for _, end in seen)]))
    return Window(("\n".join(lines[start:stop]),), start, hunks)


def _commented(pull: RawPull, name: str) -> Iterable[tuple[int, int]]:
    """Yield which lines before the change the hunks of comments on a file show."""
    for said in pull.said:
        if said.path == name and said.hunk is not None:
            try:
                hunks = parse_patch(said.hunk, cut_off=True)
            except BadPatch:
                continue
            yield reach(hunks)
