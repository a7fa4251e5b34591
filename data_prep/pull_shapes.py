"""What is known of a pull request, whatever the export it was told in: the reader of ``kind: pulls``.

In: JSON objects. Out: a `RawPull` with what was said in order of time. The shapes, each known by its keys (`shape_of`):

- ``event``: GHArchive, of both generations; ``webhook``: a payload, alone or as ``{event, payload}``.
- ``pull``: GitHub's REST object, with ``reviews``, ``review_comments``, ``comments`` and ``files`` in it where an export put them.
- ``graphql``: the same from GraphQL: ``archive.json`` of IETF repositories, ``gh pr list --json``, connections of nodes or edges.
- ``issue``, ``review``, ``line``, ``comment``, ``file``: REST objects that stand apart and name their pull request.

What single objects hold: `data_prep.pull_objects`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from data_prep.people import GHOST, Person
from data_prep.pull_objects import (
    FilePatch,
    Said,
    objects_of,
    oid,
    read_comment,
    read_file,
    read_line,
    read_review,
    read_time,
    sha,
    whole,
    word,
)
from data_prep.threads import is_pull, person_of, place_of, text_of

Shape = Literal["event", "webhook", "pull", "graphql", "issue", "review", "line", "comment", "file"]
WHOLE = ("pull", "graphql")
"""Shapes of which each row is a pull request."""

PULL_EVENTS = {
    "PullRequestEvent": "pull_request",
    "PullRequestReviewEvent": "pull_request_review",
    "PullRequestReviewCommentEvent": "pull_request_review_comment",
    "IssueCommentEvent": "issue_comment",
}
"""GHArchive's names of what the payloads of webhooks call otherwise."""

_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
ADDRESSES = ("pull_request_url", "issue_url", "html_url", "url")
"""Keys of addresses that tell repository and number."""


@dataclasses.dataclass(slots=True)
class RawPull:
    """A pull request as its rows tell it, filled while they are read. `title` is None where no row has one."""

    place: str
    repository: str | None = None
    number: int | None = None
    title: str | None = None
    body: str = ""
    author: Person | None = None
    opened_at: str = ""
    closed_at: str = ""
    closer: Person | None = None
    merged: bool | None = None
    base: str | None = None
    head: str | None = None
    merge_commit: str | None = None
    changed_files: int | None = None
    license: str | None = None
    url: str | None = None
    files: list[FilePatch] | None = None
    said: list[Said] = dataclasses.field(default_factory=list)
    deleted: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    minimized: bool = False

    @property
    def name(self) -> str:
        """Repository and number, or where it was read."""
        return self.place if self.number is None else f"{self.repository or ''}#{self.number}"


def shape_of(row: Mapping[str, Any]) -> Shape | None:
    """Return what a row is of a pull request, or None for a row of something else."""
    kind, payload = row.get("type"), row.get("payload")
    if isinstance(payload, dict):
        if isinstance(kind, str) and kind.endswith("Event"):
            return "event"
        return "webhook" if isinstance(row.get("event"), str) else None
    if "action" in row and (isinstance(row.get("pull_request"), dict) or isinstance(row.get("issue"), dict)):
        return "webhook"
    if "number" in row and ({"baseRefOid", "headRefOid", "baseRefName", "headRefName", "isDraft", "mergedAt"} & row.keys()):
        return "graphql"
    if "number" in row and isinstance(row.get("pull_request"), dict):
        return "issue"
    if "number" in row and ({"head", "base", "merged_at", "files", "reviews", "review_comments", "diff_url"} & row.keys()):
        return "pull"
    if "filename" in row and ({"pull_number", "pull_request_url"} & row.keys()):
        return "file"
    if "pull_request_url" in row:
        return "line" if {"diff_hunk", "path"} & row.keys() else "review"
    return "comment" if "issue_url" in row and "body" in row else None


def concerns_pull(row: Mapping[str, Any], shape: Shape | None) -> bool:
    """Return whether a row is about a pull request at all: events of an archive mostly are not."""
    if shape is None:
        return False
    if shape == "event":
        if row["type"] not in PULL_EVENTS:
            return False
        return row["type"] != "IssueCommentEvent" or _is_pull_issue(row["payload"])
    if shape == "webhook":
        payload = row["payload"] if isinstance(row.get("payload"), dict) else row
        return isinstance(payload.get("pull_request"), dict) or _is_pull_issue(payload)
    return True


def _is_pull_issue(payload: Mapping[str, Any]) -> bool:
    issue = payload.get("issue")
    return isinstance(issue, dict) and is_pull(issue) and isinstance(payload.get("comment"), dict)


def key_of(row: Mapping[str, Any], shape: Shape, repository: str | None) -> tuple[str, int] | None:
    """Return repository and number of the pull request that a row is about; `repository` stands in where the row names none."""
    subject = row
    if shape in ("event", "webhook"):
        payload = row["payload"] if isinstance(row.get("payload"), dict) else row
        subject = next((p for key in ("pull_request", "issue", "comment") if isinstance(p := payload.get(key), dict)), payload)
        named = _event_repository(row, payload)
    else:
        named = _repository(row)
    found = _address(subject)
    number = whole(subject.get("number"))
    if number is None:
        number = whole(row.get("pull_number"))
    if number is None and found is not None:
        number = found[1]
    owner = named or (found[0] if found else None) or repository
    return None if number is None else (owner or "", number)


def read_pull(rows: Iterable[tuple[Shape, Mapping[str, Any]]], place: str, repository: str | None) -> RawPull:
    """Return what rows of one pull request tell of it; raise `RowProblem` where a text is of another type."""
    pull = RawPull(place, repository)
    for shape, row in rows:
        if pull.number is None and (key := key_of(row, shape, repository)) is not None:
            pull.repository, pull.number = key[0] or None, key[1]
        _READERS[shape](pull, row)
    if (pull.closed_at or pull.merged) and not any(said.kind == "status" and said.state == "closed" for said in pull.said):
        closer = pull.closer or Person("")
        pull.said.append(Said("status", closer, pull.closed_at, "", state="closed", merged=bool(pull.merged), head=pull.head))
    pull.said = _in_order(pull)
    return pull


def _in_order(pull: RawPull) -> list[Said]:
    """Return what was said once each, in order of time; what has no time stays behind what was told before it."""
    found: dict[Any, tuple[str, int, Said]] = {}
    submitted = {said.id: said.at for said in pull.said if said.kind == "review" and said.id is not None}
    last = ""
    for said in pull.said:
        if said.id is not None and (said.kind, said.id) in pull.deleted:
            continue
        at = said.at or last
        if said.kind == "line" and said.review is not None:
            at = max(at, submitted.get(said.review, ""))  # a comment is seen when its review is submitted
        last = said.at or last
        key = (
            (said.kind, said.id)
            if said.id is not None
            else (said.kind, said.who.login, said.at, said.text, said.state, said.path, said.line)
        )
        rank = ("status", "review", "line", "comment").index(said.kind) if said.state != "closed" else 4
        before = found.get(key)
        found[key] = (at, rank, said) if before is None else (before[0], before[1], said)
    return [said for _, _, said in sorted(found.values(), key=lambda entry: entry[:2])]


def _read_event(pull: RawPull, row: Mapping[str, Any]) -> None:
    actor = row.get("actor")
    about = row.get("actor_attributes") if isinstance(row.get("actor_attributes"), dict) else actor
    who = person_of({"user": about})
    _read_payload(pull, PULL_EVENTS.get(row["type"], ""), row["payload"], who, read_time(row.get("created_at")))


def _read_webhook(pull: RawPull, row: Mapping[str, Any]) -> None:
    payload = row["payload"] if isinstance(row.get("payload"), dict) else row
    kinds = (("review", "pull_request_review"), ("issue", "issue_comment"), ("comment", "pull_request_review_comment"))
    kind = next((kind for key, kind in kinds if isinstance(payload.get(key), dict)), "pull_request")
    _read_payload(pull, kind, payload, person_of({"user": payload.get("sender")}), "")


def _read_payload(pull: RawPull, kind: str, payload: Mapping[str, Any], who: Person, at: str) -> None:
    action = word(payload.get("action")) or "created"
    told = payload.get("pull_request")
    pulled = told if isinstance(told, dict) else {}
    head, base = sha(pulled.get("head")), sha(pulled.get("base"))
    issue = payload.get("issue")
    _read_rest(pull, pulled if pulled else issue if isinstance(issue, dict) else {}, embedded=False)
    if kind == "pull_request":
        at = at or read_time(pulled.get({"opened": "created_at", "closed": "closed_at"}.get(action, "updated_at")))
        title = text_of(pulled, "title") if action in ("opened", "reopened", "edited") else None
        text = text_of(pulled, "body") if title is not None else ""
        merged = pulled.get("merged") if action == "closed" else None
        merged = merged if isinstance(merged, bool) or action != "closed" else pulled.get("merged_at") is not None
        pull.said.append(Said("status", who, at, text, None, action, title, merged, head, base))
        return
    entry = payload.get("review" if kind == "pull_request_review" else "comment")
    if not isinstance(entry, dict):
        return
    said = (read_review if kind == "pull_request_review" else read_line if kind == "pull_request_review_comment" else read_comment)(
        entry, action
    )
    if action == "deleted" and said.id is not None:
        pull.deleted.add((said.kind, said.id))
    pull.said.append(said._replace(at=said.at or at, who=said.who if said.who.login != GHOST else who, base=base, head=said.head or head))


def _read_rest(pull: RawPull, row: Mapping[str, Any], embedded: bool = True) -> None:
    """Read a pull request object; of several the first title and text count, and the last of what changes."""
    if "title" in row and pull.title is None and row["title"] is not None:
        pull.title, pull.body = text_of(row, "title"), text_of(row, "body")
        pull.author = person_of(row)
    pull.opened_at = pull.opened_at or read_time(row.get("created_at"))
    pull.closed_at = read_time(row.get("closed_at")) or pull.closed_at
    merged = row.get("merged") if isinstance(row.get("merged"), bool) else True if row.get("merged_at") is not None else None
    pull.merged = pull.merged if merged is None else merged or bool(pull.merged)
    if row.get("merged_by") is not None or row.get("closed_by") is not None:
        pull.closer = person_of({"user": row.get("merged_by") or row.get("closed_by")})
    pull.base, pull.head = sha(row.get("base")) or pull.base, sha(row.get("head")) or pull.head
    pull.merge_commit = word(row.get("merge_commit_sha")) or pull.merge_commit
    pull.changed_files = whole(row.get("changed_files")) or pull.changed_files
    pull.license = pull.license or _license(row)
    pull.url = pull.url or word(row.get("html_url"))
    if not embedded:
        return
    for key, read in (("reviews", read_review), ("review_comments", None), ("issue_comments", None), ("comments", None)):
        for entry in objects_of(row.get(key), key):
            reader = read or (read_line if key == "review_comments" or {"diff_hunk", "path"} & entry.keys() else read_comment)
            pull.said.append(reader(entry, "created"))
    if "files" in row:
        pull.files = [*(pull.files or ()), *(read_file(entry) for entry in objects_of(row["files"], "files"))]


def _read_graphql(pull: RawPull, row: Mapping[str, Any]) -> None:
    pull.title, pull.body = text_of(row, "title"), text_of(row, "body")
    pull.author = person_of(row)
    pull.opened_at, pull.closed_at = read_time(row.get("createdAt")), read_time(row.get("closedAt"))
    pull.merged = row.get("mergedAt") is not None or row.get("merged") is True or row.get("state") == "MERGED"
    pull.closer = person_of({"user": row["mergedBy"]}) if row.get("mergedBy") is not None else None
    pull.base, pull.head = word(row.get("baseRefOid")), word(row.get("headRefOid"))
    pull.merge_commit = oid(row.get("mergeCommit"))
    pull.changed_files = whole(row.get("changedFiles"))
    pull.url = word(row.get("url"))
    for entry in _shown(pull, row.get("comments")):
        pull.said.append(read_comment(entry, "created"))
    for entry in objects_of(row.get("reviews"), "reviews"):
        review = read_review(entry, "submitted")
        pull.said.append(review)
        for inner in _shown(pull, entry.get("comments")):
            said = read_line(inner, "created")
            who = said.who if inner.get("author") is not None else review.who
            pull.said.append(said._replace(who=who, review=said.review or review.id, head=said.head or review.head))
    for thread in objects_of(row.get("reviewThreads"), "reviewThreads"):
        for inner in _shown(pull, thread.get("comments")):
            pull.said.append(read_line({"path": thread.get("path"), **inner}, "created"))
    if any("patch" in entry for entry in objects_of(row.get("files"), "files")):
        pull.files = [read_file(entry) for entry in objects_of(row["files"], "files")]


def _shown(pull: RawPull, entries: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the comments that are not hidden as spam, abuse or outdated."""
    for entry in objects_of(entries, "comments"):
        if entry.get("isMinimized") is True:
            pull.minimized = True
        else:
            yield entry


def _read_issue(pull: RawPull, row: Mapping[str, Any]) -> None:
    _read_rest(pull, {**row, "merged_at": row["pull_request"].get("merged_at")})


_READERS: Mapping[Shape, Any] = {
    "event": _read_event,
    "webhook": _read_webhook,
    "pull": _read_rest,
    "graphql": _read_graphql,
    "issue": _read_issue,
    "review": lambda pull, row: pull.said.append(read_review(row, "created")),
    "line": lambda pull, row: pull.said.append(read_line(row, "created")),
    "comment": lambda pull, row: pull.said.append(read_comment(row, "created")),
    "file": lambda pull, row: setattr(pull, "files", [*(pull.files or ()), read_file(row)]),
}


def _license(row: Mapping[str, Any]) -> str | None:
    base = row.get("base")
    license = _repo(base).get("license") if isinstance(base, dict) else None
    found = word(license.get("spdx_id")) if isinstance(license, dict) else None
    return found if found is not None and found != "NOASSERTION" and _SPDX.fullmatch(found) else None


def _repo(value: Mapping[str, Any]) -> Mapping[str, Any]:
    found = value.get("repo")
    return found if isinstance(found, dict) else {}


def _repository(row: Mapping[str, Any]) -> str | None:
    base = row.get("base")
    named = _repo(base).get("full_name") if isinstance(base, dict) else row.get("baseRepository")
    if isinstance(named, dict):
        named = named.get("nameWithOwner")
    return word(named)


def _event_repository(row: Mapping[str, Any], payload: Mapping[str, Any]) -> str | None:
    for owner in (row.get("repo"), row.get("repository"), payload.get("repository")):
        if isinstance(owner, dict):
            full = word(owner.get("full_name")) or word(owner.get("name"))
            login = word(owner.get("owner"))
            if full:
                return full if "/" in full or not login else f"{login}/{full}"
    return None


def _address(row: Mapping[str, Any]) -> tuple[str, int] | None:
    named = (value for key in ADDRESSES if isinstance(value := row.get(key), str))
    return next((found for value in named if (found := place_of(value)) is not None), None)
