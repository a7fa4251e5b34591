"""A pull request as a dialogue: "review this change", and then "make the change that your comment asks for".

In: a `Conversation` and its `States`. Out: turns, none where nothing sound can be had. What is asked for, and what counts:

- **review**: title, description and diff; the answer is what people other than the author said of single lines, in the order of the
  files, with the line quoted that each is about, and before it what the same reviews say as a whole. Only comments whose line is found
  in the diff that is shown count: a later diff has often answered them already. Of several states the one is shown in which most
  comments are found. Replies, a second comment on the same line, and comments that speak to or of other people are conversation and
  not review.
- **suggest**: the change that a comment asks for, as a diff of the lines it is about: its own ```` ```suggestion ```` block, or what the
  author made of just that line in the next state, where a clone knows it.

In ``both`` the suggestions follow the review as exchanges of their own, and their code is not told in the review before. A review
without any comment on a line is no dialogue: it would teach to approve.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_prep.people import is_bot
from data_prep.pull_build import Conversation
from data_prep.pull_changes import BadPatch, FileChange, Hunk, parse_patch, with_context
from data_prep.pull_objects import Said
from data_prep.pull_rules import OMITTED, PullRules, file_fault
from data_prep.pull_shapes import RawPull
from data_prep.pull_states import State, States
from starchat.dialogue import Turn
from starchat.fences import fenced

MAX_FOLLOWED_LINES = 5000
"""Longer files are not searched for what became of a line."""

MAX_CHANGED_LINES = 40
"""A change of more lines than this answers more than a comment on one of them."""

_SUGGESTION = re.compile(r"^(?P<fence>`{3,})suggestion[^\n]*\n(?P<code>.*?)^(?P=fence)[ \t]*$\n?", re.MULTILINE | re.DOTALL)
_PEOPLE = re.compile(r"\busername_\d")


class Remark(NamedTuple):
    """A comment on a line: the lines that it is about as they stand in the hunk, the number of the last of them, and perhaps a change."""

    path: str
    number: int
    quoted: tuple[str, ...]
    hunk: str
    text: str
    change: str | None
    head: str | None
    review: str | None


def dialogue_turns(pull: RawPull, talk: Conversation, states: States | None, rules: PullRules, task: str) -> list[Turn]:
    """Return the turns of a pull request for a task: ``review``, ``suggest`` or ``both``; none if it has no such comments."""
    remarks = _remarks(pull, talk)
    if task == "suggest":
        asked = [remark._replace(change=remark.change or _follow_up(remark, states)) for remark in remarks]
        return [turn for remark in asked if remark.change is not None and remark.text for turn in _suggestion(remark, alone=True)]
    if states is None:
        return []
    shown, found = max(((state, _found(remarks, state, rules)) for state in states.states), key=lambda entry: len(entry[1]))
    files = [change for change in shown.files if file_fault(change, rules) is None]
    names = {change.path for change in files}
    found = [remark for remark in found if remark.path in names]
    if not found:
        return []
    if task == "both":
        found = [remark._replace(change=remark.change or _follow_up(remark, states)) for remark in found]
    order = {change.path: place for place, change in enumerate(files)}
    found.sort(key=lambda remark: (order[remark.path], remark.number))
    turns = [Turn("user", _request(talk, files, rules)), Turn("assistant", _review(talk, found, task))]
    if task == "both":
        turns += [turn for remark in found if remark.change is not None and remark.text for turn in _suggestion(remark, alone=False)]
    return turns


def _remarks(pull: RawPull, talk: Conversation) -> list[Remark]:
    """Return the comments on lines that are review, in order."""
    remarks = []
    seen: set[tuple[str, int, str]] = set()
    for said, author, text in talk.spoken:
        if said.kind != "line" or said.path is None or (anchored := _anchor(said)) is None:
            continue
        number, quoted = anchored
        place = (said.path, number, quoted[-1])
        if said.reply_to is not None or place in seen:  # not every export tells what is a reply
            continue
        seen.add(place)
        if author == talk.author or is_bot(said.who) or not quoted[-1][1:].strip() or text.startswith(OMITTED) or _PEOPLE.search(text):
            continue
        blocks = list(_SUGGESTION.finditer(text))
        change = None
        if len(blocks) == 1 and quoted[-1][0] != "-" and said.span is not None:
            code = blocks[0]["code"].removesuffix("\n").split("\n") if blocks[0]["code"] else []
            change = _as_diff([line[1:] for line in quoted], code)
            text = f"{text[: blocks[0].start()]}{text[blocks[0].end() :]}".strip()
            if not text and change is None:  # what it suggests stands there already
                continue
        remarks.append(Remark(said.path, number, quoted, said.hunk or "", text, change, said.head, said.review))
    return remarks


def _anchor(said: Said) -> tuple[int, tuple[str, ...]] | None:
    """Return the number of the line that a comment is about (after the change; before it for a line that goes), and its lines."""
    try:
        *_, hunk = parse_patch(said.hunk or "", cut_off=True)
    except BadPatch:
        return None
    lines = [line for line in hunk.lines if line[0] != "\\"]
    if not lines:
        return None
    goes = lines[-1][0] == "-"
    same = [line for line in lines if line[0] in (" -" if goes else " +")]
    return (hunk.old if goes else hunk.new) + len(same), tuple(same[-(said.span or 1) :])


def _found(remarks: Sequence[Remark], state: State, rules: PullRules) -> list[Remark]:
    """Return the remarks whose line stands, with the number that it has there, in the diff of a state as it is shown."""
    places = {change.path: _numbered(with_context(change.hunks, rules.max_context_lines)) for change in state.files}
    found = []
    for remark in remarks:
        last = remark.quoted[-1]
        if places.get(remark.path, {}).get((last[0] == "-", remark.number)) == last:
            found.append(remark)
    return found


def _numbered(hunks: Sequence[Hunk]) -> dict[tuple[bool, int], str]:
    """Return each line of hunks by its number: of those that go, before the change; of the others, after it."""
    numbered = {}
    for hunk in hunks:
        old, new = hunk.old, hunk.new
        for line in hunk.lines:
            old += line[0] in " -"
            new += line[0] in " +"
            if line[0] != "\\":
                numbered[line[0] == "-", old if line[0] == "-" else new] = line
    return numbered


def _request(talk: Conversation, files: Sequence[FileChange], rules: PullRules) -> str:
    pieces = []
    for change in files:
        hunks = "\n".join(hunk.text() for hunk in with_context(change.hunks, rules.max_context_lines))
        before, after = "/dev/null" if change.added else f"a/{change.old_path}", "/dev/null" if change.removed else f"b/{change.path}"
        pieces.append(f"--- {before}\n+++ {after}\n{hunks}")
    described = f"{talk.title}\n\n{talk.body}".strip()
    return f"Review this pull request.\n\n{described}\n\n{fenced(chr(10).join(pieces), 'diff')}"


def _review(talk: Conversation, remarks: Sequence[Remark], task: str) -> str:
    reviews = {remark.review for remark in remarks if remark.review is not None}
    wholes = [text for said, _, text in talk.spoken if said.kind == "review" and said.id in reviews]
    pieces = [text for text in wholes if text and not text.startswith(OMITTED) and not _PEOPLE.search(text)]
    for remark in remarks:
        quoted = fenced("\n".join(remark.quoted), "diff")
        told = [remark.text] if remark.text else []
        if remark.change is not None and (task == "review" or not remark.text):
            told.append(f"Suggested change:\n\n{remark.change}")
        pieces.append("\n\n".join((f"{_where(remark)}:", quoted, *told)))
    return "\n\n".join(pieces)


def _where(remark: Remark) -> str:
    return f"`{remark.path}`, line {remark.number}"


def _suggestion(remark: Remark, alone: bool) -> list[Turn]:
    assert remark.change is not None
    if alone:
        asked = f"A reviewer says of {_where(remark)}:\n\n{remark.text}\n\nThe change so far:\n\n{fenced(remark.hunk, 'diff')}"
        return [Turn("user", f"{asked}\n\nMake the change that the comment asks for."), Turn("assistant", remark.change)]
    return [Turn("user", f"Make the change that your comment on {_where(remark)} asks for."), Turn("assistant", remark.change)]


def _as_diff(old: Sequence[str], new: Sequence[str]) -> str | None:
    if list(old) == list(new):
        return None
    return fenced("\n".join((*(f"-{line}" for line in old), *(f"+{line}" for line in new))), "diff")


def _follow_up(remark: Remark, states: States | None) -> str | None:
    """Return what the next state made of the line of a remark, if it was changed there and little else with it.

    A state on another base holds what other people did in the meantime, and makes nothing of a remark.
    """
    if states is None or remark.head is None or remark.quoted[-1][0] == "-":
        return None
    heads = [state.head for state in states.states]
    if remark.head not in heads[:-1]:
        return None
    place = heads.index(remark.head)
    if states.states[place].base != states.states[place + 1].base:
        return None
    before, after = (_lines_after(states.states[number], remark.path) for number in (place, place + 1))
    if before is None or after is None or max(len(before), len(after)) > MAX_FOLLOWED_LINES:
        return None
    if not 0 < remark.number <= len(before) or before[remark.number - 1] != remark.quoted[-1][1:]:
        return None
    matcher = difflib.SequenceMatcher(None, before, after)
    for tag, old, old_end, new, new_end in matcher.get_opcodes():
        if tag != "equal" and old <= remark.number - 1 < old_end:
            if old_end - old + new_end - new > MAX_CHANGED_LINES:
                return None
            return _as_diff(before[old:old_end], after[new:new_end])
    return None


def _lines_after(state: State, path: str) -> list[str] | None:
    """Return the lines of a file in a state, from its text before and its hunks."""
    found: Mapping[str, FileChange] = {change.path: change for change in state.files}
    change = found.get(path)
    if change is None or (change.base is None and not change.added):
        return None
    before = (change.base or "").split("\n")
    lines: list[str] = []
    done = 0
    for hunk in change.hunks:
        lines += before[done : hunk.old]
        lines += hunk.new_lines
        done = hunk.old + len(hunk.old_lines)
    return lines + before[done:]
