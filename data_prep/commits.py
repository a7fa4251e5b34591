"""Commits as records: the ``kind: commits`` builder of the prepare stage.

In: a git clone or bare repository, streamed, or CommitPack rows. Out: one item for each unit: a file that a commit changed; a merge,
and a commit that changed nothing, is a unit of its own. Newest first.

The document view is StarCoder's: before, subject line, after; whole files or a window that is really around the change, or the change
as a unified diff. The dialogue view asks for one of three things, drawn for each unit: to make the edit, to explain it, or to write its
message. Which commits are worth it: `data_prep.commit_rules`.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_prep import git
from data_prep.commit_rules import PRESETS, CommitRules, Draws, draws, path_problem, size_problem, subject_problem
from data_prep.commit_texts import Message, answer_of, read_message, shown
from data_prep.commitpack import row_pieces
from data_prep.documents import Commit, Family, render_commit
from data_prep.kinds import Opened, Piece, Setting, preset_rules, spec_and_rules
from data_prep.languages import language_of
from data_prep.license_files import TreeLicenses, licenses_of_tree
from data_prep.license_texts import HEADER_CHARS
from data_prep.records import Claim, Dropped, Found, Item, Kept
from data_prep.remote_files import describe_input
from data_prep.source_trees import Tree, list_leaves
from data_prep.sources import as_text, find_tables, table_files
from data_prep.views import dialogue_item, document_item
from starchat.batches import batched
from starchat.config import to_mapping
from starchat.dialogue import Source
from starchat.errors import UserError
from starchat.files import digest_bytes

COMMITS_OF_A_TASK = 512
"""Git unpacks a file from its neighbours in history; a process that reads few commits unpacks the same ones again."""

MAX_BLOB_BYTES = 4 << 20
"""Larger files are not read, whatever the rules: ten times what the published ones keep at four bytes a character."""

REGULAR = frozenset({"100644", "100755"})
LINKS = {"120000": "symbolic_link", "160000": "submodule"}
STATUSES = {"A": "file_added", "D": "file_deleted", "T": "type_changed"}


@dataclasses.dataclass(frozen=True)
class CommitsSpec:
    """Commits of the repository at `path`, reachable from `ref`, or CommitPack rows (a file, folder, pattern or Hub id).

    `rules` names a preset (``starcoder`` for documents, ``commitpackft`` for dialogues) and what differs from it. `form`: whole files,
    windows, the published mixture of one whole file in five, or the diff. `tasks` weighs what dialogues ask for. `license` (SPDX) is
    what the root of the repository is under, where the files of `ref` do not say it, and what all rows are. Records carry `repository`:
    ``owner/name`` of the clone's origin, or its folder, by default.
    """

    path: str
    kind: Literal["commits"] = "commits"
    view: Literal["document", "dialogue"] = "document"
    form: Literal["published", "full", "window", "diff"] = "published"
    rules: dict[str, Any] = dataclasses.field(default_factory=dict)
    tasks: dict[str, float] = dataclasses.field(default_factory=lambda: {"edit": 2.0, "explain": 1.0, "message": 1.0})
    ref: str = "HEAD"
    license: str | None = None
    repository: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Builder:
    """What turns a unit into an item, besides the unit itself; sent to every worker."""

    path: str
    view: str
    form: str
    rules: CommitRules
    tasks: tuple[tuple[str, float], ...]
    license: str | None
    repository: str
    family: Family | None
    tokenizer: str
    seed: int
    licenses: TreeLicenses | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of history: consecutive commits, and those of them at which a shallow clone ends."""

    builder: Builder
    store: git.Store
    commits: tuple[str, ...]
    shallow: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A change that its name and message let through, before its contents are read; `slot` is its place among the piece's items."""

    slot: int
    commit: str
    change: git.Change
    message: Message
    drawn: Draws


def open_kind(mapping: Mapping[str, Any], place: str, setting: Setting) -> Opened:
    """Return commits that are ready to be read (`data_prep.kinds`)."""
    default = "commitpackft" if mapping.get("view") == "dialogue" else "starcoder"
    spec, rules = spec_and_rules(CommitsSpec, mapping, place, functools.partial(preset_rules, CommitRules, PRESETS, default))
    unknown = sorted(set(spec.tasks) - {"edit", "explain", "message"})
    if unknown or not any(spec.tasks.values()) or any(weight < 0 for weight in spec.tasks.values()):
        raise UserError(f"{place}: tasks: {spec.tasks}; expected weights of edit, explain and message, such as {{edit: 2, explain: 1}}")
    family = setting.family if spec.view == "document" else None
    if family is not None:
        render_commit(Commit("", "", ""), family)
    is_git = git.is_repository(spec.path)
    name = spec.repository or (git.repository_name(spec.path) if is_git else "")
    builder = Builder(
        *(spec.path, spec.view, spec.form, rules, tuple(sorted(spec.tasks.items())), spec.license),
        *(name, family, setting.tokenizer, setting.seed),
    )
    resolved = {**to_mapping(spec), "rules": to_mapping(rules)}
    if is_git:
        commit = git.resolve(spec.path, spec.ref)
        inputs: list[dict[str, Any]] = [
            {"git": spec.path, "ref": spec.ref, "commit": commit, "cut_off": sorted(git.shallow_commits(spec.path))}
        ]
        return Opened(spec.path, "git", resolved, lambda: inputs, lambda _: commit_pieces(builder, commit), setting.workers)
    if Path(spec.path).is_dir() and not any(Path(spec.path).iterdir()):
        raise UserError(f"{spec.path}: an empty folder; give a git clone, a bare repository, or a file of CommitPack rows")
    tables = find_tables(spec.path)
    files = [file for table in tables for file in table_files(table)]
    return Opened(
        *(spec.path, "commitpack", resolved, lambda: [describe_input(file) for file in files]),
        *(lambda _: row_pieces(tables, builder, row_item), setting.workers),
    )


def commit_pieces(builder: Builder, commit: str | None) -> Iterator[Piece]:
    """Yield the pieces of a commit and all that lie before it; an empty repository has none, which is an error."""
    if commit is None:
        raise UserError(f"{builder.path}: a repository without commits; give one with a history")
    tree = Tree(builder.path, commit)
    builder = dataclasses.replace(builder, licenses=licenses_of_tree(tree, list_leaves(tree), builder.license))
    store = git.open_store(builder.path)
    shallow = git.shallow_commits(store)
    groups = batched(git.list_commits(store, commit), COMMITS_OF_A_TASK)
    yield from (Piece(found_in, Stretch(builder, store, ids, shallow.intersection(ids))) for ids in groups)


def found_in(piece: Stretch) -> list[Found]:
    """Return what is in a stretch of history, newest first: of each path perhaps only what is found first."""
    items = piece_items(piece)
    return [_claim_of_its_path(item) for item in items] if piece.builder.rules.one_per_file else [*items]


def _claim_of_its_path(item: Item) -> Item | Claim:
    if isinstance(item, Dropped):
        return item
    source = item.record.source
    told = as_text({"commit": source.commit, "path": source.path})
    otherwise = Dropped("one_per_file", source.place, "a newer commit of the same file is kept", told)
    return Claim(bytes.fromhex(digest_bytes((source.path or "").encode())), (item,), otherwise)


def piece_items(piece: Stretch) -> list[Item]:
    """Return the items of a stretch of history, in order."""
    builder, items = piece.builder, list[Item | None]()
    messages = zip(piece.commits, git.read_blobs(piece.store, piece.commits), strict=True)
    candidates: list[Candidate] = []
    for (commit, changes), (_, content) in zip(git.read_changes(piece.store, piece.commits), messages, strict=True):
        if (whole := _whole_commit(commit, changes, content, commit in piece.shallow)) is not None:
            items.append(whole)
            continue
        assert isinstance(content, bytes)
        message = read_message(content)
        problem = _message_problem(message, len(changes), builder.rules)
        for change in changes:
            drawn = draws(builder.seed, commit, change.path)
            found = problem or _change_problem(change, message, builder.rules, drawn)
            if found is None:
                candidates.append(Candidate(len(items), commit, change, message, drawn))
                items.append(None)
            else:
                items.append(_dropped(commit, change, *found))
    for candidate, old, new in _contents(piece.store, candidates):
        items[candidate.slot] = _read_item(candidate, old, new, builder)
    return [item for item in items if item is not None]


def _contents(store: git.Store, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, git.Content, git.Content]]:
    """Yield each change with the contents before and after. What one commit made is what the next one found: it is read once, and
    held from its first use to its last."""
    wanted = [oid for candidate in candidates for oid in (candidate.change.old_oid, candidate.change.new_oid)]
    uses = collections.Counter(wanted)
    contents = git.read_blobs(store, uses, MAX_BLOB_BYTES)
    held: dict[str, git.Content] = {}
    for candidate in candidates:
        pair: list[git.Content] = []
        for oid in (candidate.change.old_oid, candidate.change.new_oid):
            if oid not in held:
                held[oid] = next(contents)
            pair.append(held[oid])
            uses[oid] -= 1
            if not uses[oid]:
                del held[oid]
        yield candidate, pair[0], pair[1]


def _whole_commit(commit: str, changes: Sequence[git.Change], content: git.Content, is_cut: bool) -> Dropped | None:
    """Return why a commit as a whole is one unit that is dropped, or None."""
    if not isinstance(content, bytes):
        reason, detail = "missing_object", "the repository lacks the commit"
    elif is_cut:
        reason, detail = "shallow_boundary", "the clone is shallow: what the commit changed is not known; fetch with --unshallow"
    elif content.count(b"\nparent ", 0, content.find(b"\n\n")) > 1:
        reason, detail = "merge", "a merge changes what its parents changed"
    elif not changes:
        reason, detail = "no_change", "the commit changes no file"
    else:
        return None
    return Dropped(reason, f"commit {commit}", detail, as_text({"commit": commit}))


def _message_problem(message: Message, files: int, rules: CommitRules) -> tuple[str, str] | None:
    if rules.max_files is not None and files > rules.max_files:
        return "many_files", f"the commit changes {files} files; at most {rules.max_files}"
    return subject_problem(message.subject, rules)


def _change_problem(change: git.Change, message: Message, rules: CommitRules, drawn: Draws) -> tuple[str, str] | None:
    """Return why a change is dropped for what is known of it without its contents, or None."""
    modes = {change.old_mode, change.new_mode} - {"000000"}
    if link := next((LINKS[mode] for mode in sorted(modes) if mode in LINKS), None):
        return link, "not a file with text"
    if change.status in STATUSES:
        return STATUSES[change.status], "there is no content both before and after"
    if not modes <= REGULAR:
        return "type_changed", f"mode {change.old_mode} became {change.new_mode}"
    if change.old_oid == change.new_oid:
        return ("renamed_only", f"from {change.old_path}") if change.status == "R" else ("mode_changed", "the content is the same")
    return path_problem(change.path, language_of(change.path), message.subject, rules, drawn)


def _dropped(commit: str, change: git.Change, reason: str, detail: str) -> Dropped:
    return Dropped(reason, f"{commit}:{change.path}", detail, as_text({"commit": commit, "path": change.path}))


def _read_item(candidate: Candidate, old: git.Content, new: git.Content, builder: Builder) -> Item:
    """Return the item of a change whose contents were read."""
    commit, change = candidate.commit, candidate.change
    if old is None or new is None:
        return _dropped(commit, change, "missing_object", "the repository lacks the content: a partial clone, or damaged")
    if isinstance(old, git.Oversize) or isinstance(new, git.Oversize):
        size = max(content.bytes if isinstance(content, git.Oversize) else 0 for content in (old, new))
        return _dropped(commit, change, "too_large", f"{size} bytes; at most {MAX_BLOB_BYTES}")
    message = candidate.message
    source = Source(f"{commit}:{change.path}", builder.repository, change.path, commit, date=message.date, people=message.people)
    assert builder.licenses is not None, "of a repository they are known"
    license = builder.licenses.of_text(change.path, new[: 4 * HEADER_CHARS].decode("utf-8", "replace"))
    item = edit_item(old, new, message, candidate.drawn, source, license, builder)
    return item if isinstance(item, Kept) else _dropped(commit, change, item.reason, item.detail)


def row_item(old: str, new: str, message: str, source: Source, license: str | None, builder: Builder) -> Item:
    """Return the item of a CommitPack row, by the same rules as a repository's."""
    path = source.path or ""
    drawn = draws(builder.seed, source.commit or source.place, path)
    read = read_message(b"\n\n" + message.encode("utf-8", "replace"))
    problem = subject_problem(read.subject, builder.rules)
    problem = problem or path_problem(path, language_of(path), read.subject, builder.rules, drawn)
    raw = as_text({"commit": source.commit, "path": path})
    if problem is not None:
        return Dropped(problem[0], source.place, problem[1], raw)
    before, after = (text.encode("utf-8", "replace") for text in (old, new))
    item = edit_item(before, after, read, drawn, source, builder.license or license, builder)
    return dataclasses.replace(item, raw=raw) if isinstance(item, Dropped) else item


def edit_item(old: bytes, new: bytes, message: Message, drawn: Draws, source: Source, license: str | None, builder: Builder) -> Item:
    """Return the item of an edit, in the view and form that are wanted, or the rule that it does not keep."""
    rules = builder.rules
    found = shown(old, new, builder.form, drawn, rules.max_file_chars)
    if isinstance(found, tuple):
        return Dropped(found[0], source.place, found[1], "")
    problem = size_problem(found.lines, rules, drawn) or _token_problem(found.before, found.after, builder)
    if problem is not None:
        return Dropped(problem[0], source.place, problem[1], "")
    repairs = [*message.repairs, *found.repairs]
    if builder.view == "dialogue":
        turns = answer_of(found, message, source.path or "", drawn, dict(builder.tasks))
        return dialogue_item(turns, source, license, repairs)
    assert builder.family is not None
    rendered = render_commit(Commit(found.before, message.subject, found.diff if builder.form == "diff" else found.after), builder.family)
    return document_item(rendered, source, license, repairs)


def _token_problem(before: str, after: str, builder: Builder) -> tuple[str, str] | None:
    least, most = builder.rules.min_tokens, builder.rules.max_tokens
    if least is None and most is None:
        return None
    if most is not None and len(before) + len(after) > most * MAX_TOKEN_CHARS:
        return "many_tokens", f"{len(before) + len(after)} characters; at most {most} tokens"
    count = sum(map(len, _tokens(builder.tokenizer).encode_texts([before, after])))
    if least is not None and count < least:
        return "few_tokens", f"{count} tokens before and after; at least {least}"
    if most is not None and count > most:
        return "many_tokens", f"{count} tokens before and after; at most {most}"
    return None


MAX_TOKEN_CHARS = 16
"""No text of some length has so few tokens; what is longer is not encoded to be counted."""


@functools.cache
def _tokens(tokenizer: str) -> Any:
    from starchat.hub import start_folder
    from starchat.tokens import load_tokens

    return load_tokens(start_folder(tokenizer), None)
