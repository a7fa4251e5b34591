"""The states of a pull request while it was open, each with all that it changes: from an export's patches, or from a clone.

In: a `RawPull` and perhaps a repository. Out: `States`. A clone knows the change at every head commit that an event names and that was
fetched (``refs/pull/*`` holds them all). Where it has none of these, what the merge commit changed against its first parent is the
only state, unless the export counts other files than that. An export has the patches of the last state only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from data_prep.drafts import RowProblem
from data_prep.git import Change, Oversize, Store, find_commits, merge_base, read_blobs, read_patches
from data_prep.pull_changes import BadPatch, FileChange, line_at, parse_patch, with_context
from data_prep.pull_shapes import RawPull
from data_prep.records import encodable
from starchat.errors import UserError

MAX_PATCH_BYTES = 4 << 20
"""Nobody reviews more; the patches of the pull requests of one task are held in memory."""

MAX_FILE_BYTES = 10 << 20
"""A hundred thousand lines of a hundred characters, which the published rules allow at most."""

GITHUB_CONTEXT = 3
"""Lines around a change in GitHub's diffs, by which it counts positions."""

Texts = dict[str, bytes | Oversize | None]
"""The contents of blobs by their ids."""

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SECTION = re.compile(rb"^diff --git ", re.MULTILINE)


class State(NamedTuple):
    """What a pull request changed when `head` was its last commit (None where that is not known) against the commit `base`.

    `plain` if that is one commit, of which no file was left out: then a position in its diff can mean one line only.
    """

    head: str | None
    files: tuple[FileChange, ...]
    plain: bool = False
    base: str | None = None


class Plan(NamedTuple):
    """Which commits of a clone to compare: old, new, and the head that this shows. `by_merge`: only the merge commit is there."""

    pairs: tuple[tuple[str, str, str | None], ...]
    by_merge: bool = False


class States(NamedTuple):
    """The states in order of time, at least one, and what had to be left out of them by name."""

    states: tuple[State, ...]
    repairs: tuple[str, ...]


def _commits_of(pull: RawPull) -> list[str]:
    """Return the commits that a pull request names: its heads in order of time, its base and its merge commit."""
    named = [*(said.head for said in pull.said), pull.head, pull.base, pull.merge_commit]
    return list(dict.fromkeys(commit for commit in named if commit and _COMMIT.fullmatch(commit)))


def clone_states(pulls: Sequence[RawPull], clone: Store, context: int) -> list[States | RowProblem | None]:
    """Return of each pull request the states that a clone knows, None where it knows none.

    A `RowProblem` stands where the clone lacks files of a commit that it has, or where what it knows is not this change.
    """
    try:
        return _clone_states(pulls, clone, context)
    except UserError as error:
        if len(pulls) > 1:  # git stops at the first object that it cannot read
            return [found for pull in pulls for found in clone_states([pull], clone, context)]
        return [RowProblem("unreadable_commit", f"{error}; a partial clone lacks files: fetch them all")]


def _clone_states(pulls: Sequence[RawPull], clone: Store, context: int) -> list[States | RowProblem | None]:
    present = find_commits(clone, (commit for pull in pulls for commit in _commits_of(pull)))
    plans = [_plan(pull, clone, present) for pull in pulls]
    pairs = list(dict.fromkeys((old, new) for plan in plans for old, new, _ in plan.pairs))
    patches = dict(zip(pairs, read_patches(clone, pairs, context, MAX_PATCH_BYTES), strict=True)) if pairs else {}
    texts = _texts(clone, (change for changes, _ in patches.values() for change in changes))
    parents = _parents(clone, (new for _, new in pairs))
    found: list[States | RowProblem | None] = []
    for pull, plan in zip(pulls, plans, strict=True):
        try:
            found.append(_states(pull, plan, patches, texts, parents))
        except RowProblem as problem:
            found.append(problem)
    return found


def _plan(pull: RawPull, clone: Store, present: Mapping[str, str]) -> Plan:
    """Return which commits tell the change: the heads that are there, or else the merge commit."""
    base, merge = (present.get(name or "") for name in (pull.base, pull.merge_commit))
    if base is not None:
        heads = [(name, present[name]) for name in _commits_of(pull) if present.get(name) not in (None, base, merge)]
        bases = {head: merge_base(clone, base, head) for _, head in heads}
        if pairs := tuple((old, head, name) for name, head in heads if (old := bases[head]) is not None and old != head):
            return Plan(pairs)
    if merge is not None and (parent := _first_parent(clone, merge)) is not None:
        return Plan(((parent, merge, pull.head),), by_merge=True)
    return Plan(())


def _states(
    pull: RawPull,
    plan: Plan,
    patches: Mapping[tuple[str, str], tuple[list[Change], bytes | Oversize]],
    texts: Texts,
    parents: Mapping[str, Sequence[str]],
) -> States | None:
    repairs: list[str] = []
    states = []
    for old, new, head in plan.pairs:
        changes, patch = patches[old, new]
        if isinstance(patch, Oversize):
            raise RowProblem("large_diff", f"its diff has {patch.bytes:,} bytes, more than {MAX_PATCH_BYTES:,}")
        if plan.by_merge and pull.changed_files is not None and pull.changed_files != len(changes):
            detail = f"the export counts {pull.changed_files} changed files, its merge commit has {len(changes)}: it was rebased"
            raise RowProblem("merge_commit_differs", f"{detail}; fetch refs/pull/*/head into the clone")
        files = tuple(_file_changes(changes, patch, texts, repairs))
        states.append(State(head, files, len(files) == len(changes) and parents[new] == [old], old))
    repairs += ["merge_commit_diff"] * plan.by_merge
    known = tuple(state for state in states if state.files)
    return States(known, tuple(dict.fromkeys(repairs))) if known else None


def export_states(pull: RawPull) -> States | None:
    """Return the state that an export's patches tell, None if they tell none."""
    repairs: list[str] = []
    files = []
    for file in {file.path: file for file in pull.files or ()}.values():  # pages of an export may tell one twice
        if file.patch is None:
            repairs.append("renamed_only" if file.status == "renamed" else "file_without_patch")
            continue
        try:
            hunks = parse_patch(file.patch)
        except BadPatch:
            repairs.append("bad_patch")
            continue
        repairs += ["lost_rename"] * (file.old_path != file.path)
        files.append(FileChange(file.path, file.old_path, hunks, file.status == "added", removed=file.status == "removed"))
    known = {said.head for said in pull.said if said.head and said.kind == "line"}
    repairs += ["final_diff"] * bool(files and known - {pull.head})
    return States((State(pull.head, tuple(files)),), tuple(dict.fromkeys(repairs))) if files else None


def locate_comments(pull: RawPull, states: States) -> bool:
    """Give comments that an export left without path and hunk what the state shows that they were made on; return whether any was.

    Archives made with GraphQL may tell the position only. It is enough where the state has one file and is one commit: of several
    commits each may have been commented on in its own diff, which nobody tells.
    """
    files = {state.head: state.files[0] for state in states.states if state.head is not None and state.plain and len(state.files) == 1}
    found = False
    for place, said in enumerate(pull.said):
        if said.kind != "line" or said.path is not None or said.line is None or said.head not in files:
            continue
        change = files[said.head]
        hunk = line_at(with_context(change.hunks, GITHUB_CONTEXT), said.line)
        if hunk is not None:
            pull.said[place] = said._replace(path=change.path, hunk=hunk)
            found = True
    return found


def _first_parent(clone: Store, commit: str) -> str | None:
    parents = _parents(clone, [commit])[commit]
    return parents[0] if parents and find_commits(clone, parents[:1]) else None


def _parents(clone: Store, commits: Iterable[str]) -> dict[str, list[str]]:
    asked = list(dict.fromkeys(commits))
    parents: dict[str, list[str]] = {}
    for commit, data in zip(asked, read_blobs(clone, asked, MAX_FILE_BYTES) if asked else (), strict=True):
        head = data.partition(b"\n\n")[0].split(b"\n") if isinstance(data, bytes) else []
        parents[commit] = [line[len(b"parent ") :].decode() for line in head if line.startswith(b"parent ")]
    return parents


def _texts(clone: Store, changes: Iterable[Change]) -> Texts:
    oids = sorted({change.old_oid for change in changes if change.status != "A" and change.old_mode.startswith("100")})
    return dict(zip(oids, read_blobs(clone, oids, MAX_FILE_BYTES), strict=True)) if oids else {}


def _file_changes(changes: Sequence[Change], patch: bytes, texts: Texts, repairs: list[str]) -> Iterator[FileChange]:
    starts = [match.start() for match in _SECTION.finditer(patch)]
    sections = iter([patch[start:stop] for start, stop in zip(starts, [*starts[1:], len(patch)], strict=True)])
    for change in changes:
        section = next(sections)
        if change.status == "T":
            next(sections)
        fault, base = _unfit(change, section, texts)
        if fault is not None:
            repairs.append(fault)
            continue
        hunks = parse_patch(section[section.index(b"\n@@ ") + 1 :].decode())
        repairs += ["lost_rename"] * (change.old_path != change.path)
        path, old_path = encodable(change.path), encodable(change.old_path)
        yield FileChange(path, old_path, hunks, change.status == "A", base, change.status == "D")


def _unfit(change: Change, section: bytes, texts: Texts) -> tuple[str | None, str | None]:
    """Return why a file cannot be shown, and its text before."""
    if change.status == "T" or not {change.old_mode[:3], change.new_mode[:3]} <= {"100", "000"}:
        return "not_a_file", None
    if b"\n@@ " not in section:
        nothing = "renamed_only" if change.status == "R" else "no_line_changed"
        return "binary_file" if b"\nBinary files " in section else nothing, None
    text = None if change.status == "A" else texts.get(change.old_oid)
    if isinstance(text, Oversize) or (text is None and change.status != "A"):
        return "large_file" if text is not None else "missing_file", None
    try:
        section.decode()
        return None, None if text is None else text.decode()
    except UnicodeDecodeError:
        return "undecodable_file", None
