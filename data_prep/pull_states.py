"""The states of a pull request while it was open, each with all that it changes: from an export's patches, or from a clone.

In: a `RawPull` and perhaps a repository. Out: `States`. A clone knows the change at every head commit that an event names and that was
fetched (``refs/pull/*`` holds them all). Where it has none of these, what the merge commit changed against its first parent is the
only state, unless the export counts other files than that. An export has the patches of the last state only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from data_prep.drafts import RowProblem
from data_prep.git import Change, Oversize, Store, merge_base, read_blobs, read_patch
from data_prep.pull_changes import BadPatch, FileChange, line_at, parse_patch, with_context
from data_prep.pull_shapes import RawPull
from data_prep.records import encodable
from starchat.errors import UserError

MAX_PATCH_BYTES = 16 << 20
"""Nobody reviews more; the patch of one pull request is held in memory."""

MAX_FILE_BYTES = 10 << 20
"""A hundred thousand lines of a hundred characters, which the published rules allow at most."""

GITHUB_CONTEXT = 3
"""Lines around a change in GitHub's diffs, by which it counts positions."""

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SECTION = re.compile(rb"^diff --git ", re.MULTILINE)


class State(NamedTuple):
    """What a pull request changed when `head` was its last commit (None where that is not known); `whole` if no file was left out."""

    head: str | None
    files: tuple[FileChange, ...]
    whole: bool = False


class States(NamedTuple):
    """The states in order of time, at least one, and what had to be left out of them by name."""

    states: tuple[State, ...]
    repairs: tuple[str, ...]


def commits_of(pull: RawPull) -> list[str]:
    """Return the commits that a pull request names: its heads in order of time, its base and its merge commit."""
    named = [*(said.head for said in pull.said), pull.head, pull.base, pull.merge_commit]
    return list(dict.fromkeys(commit for commit in named if commit and _COMMIT.fullmatch(commit)))


def present_commits(clone: Store, commits: Iterable[str]) -> frozenset[str]:
    """Return those of the named commits that a repository has."""
    names = sorted(set(commits))
    return frozenset(name for name, found in zip(names, read_blobs(clone, names, 0), strict=True) if found is not None)


def clone_states(pull: RawPull, clone: Store, present: frozenset[str], context: int) -> States | None:
    """Return the states that a clone knows, None if it knows none; `present` are the commits that it has.

    Raises `RowProblem` where the clone lacks files of a commit that it has, or where what it knows is not this change.
    """
    try:
        return _clone_states(pull, clone, present, context)
    except UserError as error:
        raise RowProblem("unreadable_commit", f"{error}; a partial clone lacks files: fetch them all") from None


def _clone_states(pull: RawPull, clone: Store, present: frozenset[str], context: int) -> States | None:
    repairs: list[str] = []
    pairs = _pairs(pull, clone, present)
    by_merge = not pairs and pull.merge_commit is not None and pull.merge_commit in present
    if by_merge and pull.merge_commit is not None and (parent := _first_parent(clone, pull.merge_commit)) is not None:
        pairs = [(parent, pull.merge_commit, pull.head)]
        repairs.append("merge_commit_diff")
    found = [(head, _read(clone, old, new, context)) for old, new, head in pairs]
    if by_merge and found and pull.changed_files is not None and pull.changed_files != len(found[0][1][0]):
        detail = f"the export counts {pull.changed_files} changed files, its merge commit has {len(found[0][1][0])}: it was rebased"
        raise RowProblem("merge_commit_differs", f"{detail}; fetch refs/pull/*/head into the clone")
    texts = _texts(clone, (change for _, (changes, _) in found for change in changes))
    states = []
    for head, (changes, patch) in found:
        files = tuple(_file_changes(changes, patch, texts, repairs))
        states.append(State(head, files, len(files) == len(changes)))
    known = tuple(state for state in states if state.files)
    return States(known, tuple(dict.fromkeys(repairs))) if known else None


def _pairs(pull: RawPull, clone: Store, present: frozenset[str]) -> list[tuple[str, str, str | None]]:
    """Return of each head that a clone has where it left the base, the head, and the head's name."""
    if pull.base is None or pull.base not in present:
        return []
    heads = [commit for commit in commits_of(pull) if commit in present and commit not in (pull.base, pull.merge_commit)]
    bases = ((merge_base(clone, pull.base, head), head) for head in heads)
    return [(base, head, head) for base, head in bases if base is not None and base != head]


def export_states(pull: RawPull) -> States | None:
    """Return the state that an export's patches tell, None if they tell none."""
    repairs: list[str] = []
    files = []
    for file in pull.files or ():
        if file.patch is None:
            repairs.append("renamed_only" if file.status == "renamed" else "file_without_patch")
            continue
        try:
            hunks = parse_patch(file.patch)
        except BadPatch:
            repairs.append("bad_patch")
            continue
        repairs += ["lost_rename"] * (file.old_path != file.path)
        files.append(FileChange(file.path, file.old_path, hunks, file.status == "added"))
    known = {said.head for said in pull.said if said.head and said.kind == "line"}
    repairs += ["final_diff"] * bool(files and known - {pull.head})
    return States((State(pull.head, tuple(files)),), tuple(dict.fromkeys(repairs))) if files else None


def locate_comments(pull: RawPull, states: States) -> bool:
    """Give comments that an export left without path and hunk what the state shows that they were made on; return whether any was.

    Archives made with GraphQL may tell the position only: it is enough where that state has one file.
    """
    files = {state.head: state.files[0] for state in states.states if state.head is not None and state.whole and len(state.files) == 1}
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


def _read(clone: Store, old: str, new: str, context: int) -> tuple[list[Change], bytes]:
    found = read_patch(clone, old, new, context, MAX_PATCH_BYTES)
    if isinstance(found, Oversize):
        raise RowProblem("large_diff", f"its diff has more than {MAX_PATCH_BYTES:,} bytes")
    return found


def _first_parent(clone: Store, commit: str) -> str | None:
    (data,) = read_blobs(clone, [commit], MAX_FILE_BYTES)
    if not isinstance(data, bytes):
        return None
    head = data.partition(b"\n\n")[0].split(b"\n")
    parents = [line[len(b"parent ") :].decode() for line in head if line.startswith(b"parent ")]
    return parents[0] if parents and present_commits(clone, parents[:1]) else None


def _texts(clone: Store, changes: Iterable[Change]) -> dict[str, bytes | Oversize | None]:
    oids = sorted({change.old_oid for change in changes if change.status != "A" and change.old_mode.startswith("100")})
    return dict(zip(oids, read_blobs(clone, oids, MAX_FILE_BYTES), strict=True)) if oids else {}


def _file_changes(
    changes: Sequence[Change], patch: bytes, texts: dict[str, bytes | Oversize | None], repairs: list[str]
) -> Iterator[FileChange]:
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
        yield FileChange(path, old_path, hunks, change.status == "A", base)


def _unfit(change: Change, section: bytes, texts: dict[str, bytes | Oversize | None]) -> tuple[str | None, str | None]:
    """Return why a file cannot be shown, and its text before."""
    if change.status == "T" or not {change.old_mode[:3], change.new_mode[:3]} <= {"100", "000"}:
        return "not_a_file", None
    if b"\n@@ " not in section:
        return "binary_file" if b"\nBinary files " in section else "renamed_only", None
    text = None if change.status == "A" else texts.get(change.old_oid)
    if isinstance(text, Oversize) or (text is None and change.status != "A"):
        return "large_file" if text is not None else "missing_file", None
    try:
        section.decode()
        return None, None if text is None else text.decode()
    except UnicodeDecodeError:
        return "undecodable_file", None
