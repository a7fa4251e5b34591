"""The single objects of GitHub's exports: comments, reviews, comments on lines, patches, people, times and ids.

In: objects of REST, of webhooks and of GraphQL, whose keys tell them apart. Out: `Said` and `FilePatch`. A text of another type is a
fault; ids, dates and people that are none count as not known.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from data_prep.drafts import optional_text
from data_prep.people import Person

_ISO_LENGTH = len("2015-01-01T00:00:00Z")


class Said(NamedTuple):
    """One thing that somebody did: `state` is the action of a ``status``, the verdict of a ``review``, or what became of a comment.

    `line` is the position in the file's diff, `span` how many lines a comment is about, of which the last ends its `hunk`.
    """

    kind: Literal["status", "comment", "review", "line"]
    who: Person
    at: str
    text: str
    id: str | None = None
    state: str | None = None
    title: str | None = None
    merged: bool | None = None
    head: str | None = None
    base: str | None = None
    review: str | None = None
    reply_to: str | None = None
    path: str | None = None
    line: int | None = None
    hunk: str | None = None
    span: int = 1


class FilePatch(NamedTuple):
    """A file of an export: `patch` is None where GitHub left it out, as for binary and for very large files."""

    path: str
    old_path: str
    status: str
    patch: str | None


def read_comment(row: Mapping[str, Any], action: str) -> Said:
    return Said("comment", _who(row), _at(row), optional_text(row, "body"), identity(row), action)


def read_review(row: Mapping[str, Any], action: str) -> Said:
    state = (word(row.get("state")) or "commented").lower()
    at = read_time(row.get("submitted_at")) or read_time(row.get("submittedAt")) or _at(row)
    head = word(row.get("commit_id")) or oid(row.get("commit"))
    return Said("review", _who(row), at, optional_text(row, "body"), identity(row), state, head=head)


def read_line(row: Mapping[str, Any], action: str) -> Said:
    place = whole(row.get("original_position", row.get("originalPosition")))
    reply, review = row.get("replyTo"), row.get("pullRequestReview")
    first = whole(row.get("original_start_line", row.get("originalStartLine")))
    last = whole(row.get("original_line", row.get("originalLine")))
    return Said(
        "line",
        _who(row),
        _at(row),
        optional_text(row, "body"),
        identity(row),
        action,
        head=word(row.get("original_commit_id")) or word(row.get("commit_id")) or oid(row.get("originalCommit")),
        review=_number(row.get("pull_request_review_id")) or (identity(review) if isinstance(review, dict) else None),
        reply_to=_number(row.get("in_reply_to_id")) or (identity(reply) if isinstance(reply, dict) else None),
        path=optional_text(row, "path") or None,
        line=place,
        hunk=optional_text(row, "diff_hunk") or optional_text(row, "diffHunk") or None,
        span=max(1, last - first + 1) if first is not None and last is not None else 1,
    )


def read_file(row: Mapping[str, Any]) -> FilePatch:
    path = optional_text(row, "filename") or optional_text(row, "path")
    old = optional_text(row, "previous_filename")
    return FilePatch(path, old or path, word(row.get("status")) or "modified", optional_text(row, "patch") or None)


def _who(row: Mapping[str, Any]) -> Person:
    return read_person(row["user"] if "user" in row else row.get("author"), row)


def read_person(value: Any, row: Mapping[str, Any] | None = None) -> Person:
    app = row is not None and isinstance(row.get("performed_via_github_app"), dict)
    if isinstance(value, str) and value:
        return Person(value, app=app)
    if not isinstance(value, dict) or not isinstance(value.get("login"), str) or not value["login"]:
        return Person(app=app)
    kind = value.get("type", value.get("__typename"))
    return Person(value["login"], kind if isinstance(kind, str) else "", app or value.get("is_bot") is True)


def _at(row: Mapping[str, Any]) -> str:
    return read_time(row.get("created_at", row.get("createdAt")))


def read_time(value: Any) -> str:
    """Return a time in UTC that sorts as text, or "" for none.

    >>> read_time("2012-01-01T00:00:00-08:00"), read_time("2012/01/01 00:00:00 -0800"), read_time("soon")
    ('2012-01-01T08:00:00Z', '2012-01-01T08:00:00Z', '')
    """
    if not isinstance(value, str) or not value[:1].isdigit():
        return ""
    if len(value) == _ISO_LENGTH and value[10] == "T" and value[-1] == "Z":
        return value
    try:
        if value[4:5] == "/":
            found = datetime.datetime.strptime(value, "%Y/%m/%d %H:%M:%S %z")
        else:
            found = datetime.datetime.fromisoformat(value)
        return found.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return ""


def nodes(value: Any) -> Sequence[Mapping[str, Any]]:
    """Return the objects of a list, or of a connection of GraphQL."""
    if isinstance(value, dict):
        edges = value.get("edges")
        value = value.get("nodes", [edge.get("node") for edge in edges if isinstance(edge, dict)] if isinstance(edges, list) else [])
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def identity(row: Mapping[str, Any]) -> str | None:
    return next((found for key in ("databaseId", "fullDatabaseId", "id") if (found := _number(row.get(key))) is not None), None)


def _number(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def sha(value: Any) -> str | None:
    return word(value.get("sha")) if isinstance(value, dict) else None


def oid(value: Any) -> str | None:
    return (word(value.get("oid")) or word(value.get("abbreviatedOid"))) if isinstance(value, dict) else None
