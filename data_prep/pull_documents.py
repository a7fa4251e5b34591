"""The document format of StarCoder2's pull requests, with its parser.

In: a `PullRequest` as plain data. Out: parts with control tokens by name, as in `data_prep.documents`. No line ends stand between the
tokens: those in the paper's listing are for reading. To the character after the-stack-v2's ``pull_requests_and_issues/render.py`` and
StarCoder2's paper (arXiv 2402.19173), section 5.2:

    <pr>Title: T\\nusername_0: text<pr_status>opened<repo_name>owner/name
    <pr_base><pr_file>path<pr_base_code>code ...
    <pr_diff><pr_file>path<pr_diff_hunk>@@ -1,3 +1,4 @@\\n lines<pr_diff_hunk>... ...
    <pr_comment>username_1: text<pr_event_id>7<pr_status>created
    <pr_review>username_1: text<pr_event_id>8<pr_review_state>approved
    <pr_review_comment><pr_event_id>9<pr_in_reply_to_review_id>8<pr_in_reply_to_comment_id>6<pr_file>path
        <pr_diff_hunk_comment_line>3<pr_diff_hunk>@@ ... @@\\n lines<pr_comment>username_1: text
    <pr>username_0<pr_status>closed<pr_is_merged>True

Whoever says nothing stands there alone, without ``": "``. A diff that is not known is ``<pr_diff>[DIFFS OMITTED]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from data_prep.documents import Family, Rendered, one_line, speaker
from starchat.dialogue import Part, merge_parts

TITLE = "Title: "
DIFFS_OMITTED = "[DIFFS OMITTED]"
TOKENS = (
    *("<pr>", "<pr_status>", "<repo_name>", "<pr_is_merged>", "<pr_base>", "<pr_file>", "<pr_base_code>", "<pr_diff>", "<pr_diff_hunk>"),
    *("<pr_comment>", "<pr_event_id>", "<pr_review>", "<pr_review_state>", "<pr_review_comment>", "<pr_in_reply_to_review_id>"),
    *("<pr_in_reply_to_comment_id>", "<pr_diff_hunk_comment_line>"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class BaseFile:
    """A file as it was before, or a stretch of its lines."""

    path: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class FileDiff:
    """What became of a file: hunks of a unified diff, each with its ``@@`` line."""

    path: str
    hunks: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Diff:
    """The change as it stands from here on; without files it is not known."""

    files: tuple[FileDiff, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What somebody did with the pull request itself; `title` where it tells title and text anew, `merged` where it was closed."""

    action: str
    author: str = ""
    title: str | None = None
    text: str = ""
    merged: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Comment:
    """A comment on the pull request as a whole."""

    author: str
    text: str
    id: str | None = None
    action: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Review:
    """A reviewer's verdict: `state` is ``approved``, ``changes_requested``, ``commented`` or ``dismissed``."""

    author: str
    text: str
    id: str | None = None
    state: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ReviewComment:
    """A comment on a line: `line` is its position in the file's diff, `hunk` the diff down to it."""

    author: str
    text: str
    id: str | None = None
    review: str | None = None
    reply_to: str | None = None
    path: str | None = None
    line: int | None = None
    hunk: str | None = None


Event = Diff | Status | Comment | Review | ReviewComment


@dataclasses.dataclass(frozen=True, slots=True)
class PullRequest:
    """A pull request as it was `opened` (the action may be another where the opening is not known), and what followed in order."""

    opened: Status
    repository: str
    base: tuple[BaseFile, ...]
    events: tuple[Event, ...]


def render_pull(pull: PullRequest, family: Family) -> Rendered:
    """Return a pull request as StarCoder2 read it; StarCoder has no tokens for it.

    >>> tokens = frozenset(TOKENS)
    >>> pull = PullRequest(Status("opened", "username_0", "Fix", "It is"), "a/b", (), (Status("closed", "username_0", merged=True),))
    >>> "".join(f"{part.marker}{part.text}" for part in render_pull(pull, Family("starcoder2", "t", tokens)).parts)
    '<pr>Title: Fix\\nusername_0: It is<pr_status>opened<repo_name>a/b<pr_base><pr>username_0<pr_status>closed<pr_is_merged>True'
    """
    family.require(*TOKENS)
    losses: list[str] = []
    parts = [*_status(pull.opened, losses), Part("<repo_name>", pull.repository), Part("<pr_base>", "")]
    for file in pull.base:
        parts += (Part("<pr_file>", file.path), Part("<pr_base_code>", file.text))
    for event in pull.events:
        parts += _event(event, losses)
    return Rendered(tuple(parts), tuple(dict.fromkeys(losses)))


def _event(event: Event, losses: list[str]) -> list[Part]:
    if isinstance(event, Diff):
        return _diff(event)
    if isinstance(event, Status):
        return _status(event, losses)
    said = _said(event.author, event.text, losses)
    if isinstance(event, ReviewComment):
        about = (
            ("<pr_event_id>", event.id),
            ("<pr_in_reply_to_review_id>", event.review),
            ("<pr_in_reply_to_comment_id>", event.reply_to),
            ("<pr_file>", event.path),
            ("<pr_diff_hunk_comment_line>", None if event.line is None else str(event.line)),
            ("<pr_diff_hunk>", event.hunk),
        )
        return [Part("<pr_review_comment>", ""), *_known(about), Part("<pr_comment>", said)]
    if isinstance(event, Review):
        return [Part("<pr_review>", said), *_known((("<pr_event_id>", event.id), ("<pr_review_state>", event.state)))]
    return [Part("<pr_comment>", said), *_known((("<pr_event_id>", event.id), ("<pr_status>", event.action)))]


def _known(named: Sequence[tuple[str, str | None]]) -> list[Part]:
    return [Part(marker, text) for marker, text in named if text is not None]


def _status(event: Status, losses: list[str]) -> list[Part]:
    said = _said(event.author, event.text, losses)
    if event.title is not None:
        said = f"{TITLE}{one_line(event.title, 'title_on_lines', losses)}\n{said}"
    elif said.startswith(TITLE):  # somebody of that name, who would be taken for a title
        losses.append("speaker")
        said = f"_{said}"
    merged = None if event.merged is None else str(event.merged)
    return [Part("<pr>", said), *_known((("<pr_status>", event.action), ("<pr_is_merged>", merged)))]


def _diff(diff: Diff) -> list[Part]:
    parts = [Part("<pr_diff>", "" if diff.files else DIFFS_OMITTED)]
    for file in diff.files:
        parts.append(Part("<pr_file>", file.path))
        parts += [Part("<pr_diff_hunk>", hunk) for hunk in file.hunks]
    return parts


def _said(author: str, text: str, losses: list[str]) -> str:
    name = speaker(author, losses)
    return f"{name}: {text}" if text else name


def parse_pull(parts: Sequence[Part]) -> PullRequest:
    """Return the pull request of `render_pull`."""
    merged = merge_parts(parts)
    base = next(number for number, part in enumerate(merged) if part.marker == "<pr_base>")
    repository = next(part.text for part in merged[:base] if part.marker == "<repo_name>")
    (opened,) = _heard_events([part for part in merged[:base] if part.marker != "<repo_name>"])
    assert isinstance(opened, Status)
    place, files = base + 1, []
    while place < len(merged) and merged[place].marker == "<pr_file>":
        files.append(BaseFile(merged[place].text, merged[place + 1].text))
        place += 2
    return PullRequest(opened, repository, tuple(files), tuple(_heard_events(merged[place:])))


def _heard_events(parts: Sequence[Part]) -> list[Event]:
    """Return the events of parts. ``<pr_comment>`` ends a review comment, and begins an event of its own everywhere else."""
    groups: list[list[Part]] = []
    for part in parts:
        ends_review_comment = (
            part.marker == "<pr_comment>"
            and bool(groups)
            and groups[-1][0].marker == "<pr_review_comment>"
            and groups[-1][-1].marker != "<pr_comment>"
        )
        starts = part.marker in ("<pr>", "<pr_diff>", "<pr_review>", "<pr_review_comment>", "<pr_comment>") and not ends_review_comment
        if starts:
            groups.append([part])
        else:
            groups[-1].append(part)
    return [_heard_event(group) for group in groups]


def _heard_event(parts: Sequence[Part]) -> Event:
    first, found = parts[0], {part.marker: part.text for part in parts}
    if first.marker == "<pr_diff>":
        return _heard_diff(parts)
    if first.marker == "<pr>":
        title, said = None, first.text
        if said.startswith(TITLE):
            title, _, said = said.removeprefix(TITLE).partition("\n")
        author, text = _heard(said)
        merged = found.get("<pr_is_merged>")
        return Status(found["<pr_status>"], author, title, text, None if merged is None else merged == "True")
    author, text = _heard(parts[-1].text if first.marker == "<pr_review_comment>" else first.text)
    if first.marker == "<pr_review>":
        return Review(author, text, found.get("<pr_event_id>"), found.get("<pr_review_state>"))
    if first.marker == "<pr_comment>":
        return Comment(author, text, found.get("<pr_event_id>"), found.get("<pr_status>"))
    line = found.get("<pr_diff_hunk_comment_line>")
    return ReviewComment(
        author,
        text,
        found.get("<pr_event_id>"),
        found.get("<pr_in_reply_to_review_id>"),
        found.get("<pr_in_reply_to_comment_id>"),
        found.get("<pr_file>"),
        None if line is None else int(line),
        found.get("<pr_diff_hunk>"),
    )


def _heard_diff(parts: Sequence[Part]) -> Diff:
    files: list[tuple[str, list[str]]] = []
    for part in parts[1:]:
        if part.marker == "<pr_file>":
            files.append((part.text, []))
        else:
            files[-1][1].append(part.text)
    return Diff(tuple(FileDiff(path, tuple(hunks)) for path, hunks in files))


def _heard(said: str) -> tuple[str, str]:
    author, _, text = said.partition(": ")
    return author, text
