"""The single objects of GitHub's exports: comments, reviews, comments on lines, patches, people, times and ids.

In: objects of REST, of webhooks and of GraphQL, whose keys tell them apart. Out: `Said` and `FilePatch`. A text of another type is a
fault; ids, dates and people that are none count as not known.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from data_prep.drafts import wrong_type
from data_prep.people import Person
from data_prep.threads import nodes_of, person_of, text_of

_OLD_NODE = re.compile(rb"\d{1,4}:[A-Za-z]+?(\d+)")
_ISO_LENGTH = len("2015-01-01T00:00:00Z")


class Said(NamedTuple):
    """One thing that somebody did: `state` is the action of a ``status``, the verdict of a ``review``, or what became of a comment.

    `line` is the position in the file's diff, `span` how many lines a comment is about, of which the last ends
    its `hunk`, None where that is not known.
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
    span: int | None = 1


class FilePatch(NamedTuple):
    """A file of an export: `patch` is None where GitHub left it out, as for binary and for very large files."""

    path: str
    old_path: str
    status: str
    patch: str | None


def read_comment(row: Mapping[str, Any], action: str) -> Said:
    """Return a comment on the pull request as a whole; `action` is what became of it."""
    return Said("comment", person_of(row), _at(row), text_of(row, "body"), identity(row), action)


def read_review(row: Mapping[str, Any], _action: str) -> Said:
    """Return a reviewer's verdict."""
    state = (word(row.get("state")) or "commented").lower()
    at = read_time(row.get("submitted_at")) or read_time(row.get("submittedAt")) or _at(row)
    head = word(row.get("commit_id")) or oid(row.get("commit"))
    return Said("review", person_of(row), at, text_of(row, "body"), identity(row), state, head=head)


def read_line(row: Mapping[str, Any], action: str) -> Said:
    """Return a comment on a line; `action` is what became of it."""
    place = whole(row.get("original_position", row.get("originalPosition")))
    reply, review = row.get("replyTo"), row.get("pullRequestReview")
    return Said(
        "line",
        person_of(row),
        _at(row),
        text_of(row, "body"),
        identity(row),
        action,
        head=word(row.get("original_commit_id")) or word(row.get("commit_id")) or oid(row.get("originalCommit")),
        review=_number(row.get("pull_request_review_id")) or (identity(review) if isinstance(review, dict) else None),
        reply_to=_number(row.get("in_reply_to_id")) or (identity(reply) if isinstance(reply, dict) else None),
        path=text_of(row, "path") or None,
        line=place,
        hunk=text_of(row, "diff_hunk", "diffHunk") or None,
        span=_span(row),
    )


def _span(row: Mapping[str, Any]) -> int | None:
    first = whole(row.get("original_start_line", row.get("originalStartLine")))
    last = whole(row.get("original_line", row.get("originalLine")))
    if first is not None and last is not None:
        return max(1, last - first + 1)
    return None if "originalPosition" in row and "originalStartLine" not in row else 1  # GraphQL tells what it is asked for


def read_file(row: Mapping[str, Any]) -> FilePatch:
    """Return a changed file."""
    path = text_of(row, "filename", "path")
    old = text_of(row, "previous_filename")
    return FilePatch(path, old or path, word(row.get("status")) or "modified", text_of(row, "patch") or None)


def _at(row: Mapping[str, Any]) -> str:
    return read_time(row.get("created_at", row.get("createdAt")))


def read_time(value: Any) -> str:
    """Return a time in UTC, where it is without a zone, that sorts as text, or "" for none.

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
            found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
        return found.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        return ""


def objects_of(value: Any, key: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list or of a connection of GraphQL, which may have nulls in it."""
    for entry in nodes_of(value, key):
        if isinstance(entry, dict):
            yield entry
        elif entry is not None:
            raise wrong_type(key, entry, "a list of objects")


def identity(row: Mapping[str, Any]) -> str | None:
    """Return the number that REST gives as an object's id, or its id of another make, or None."""
    return next((found for key in ("databaseId", "fullDatabaseId", "id") if (found := _number(row.get(key))) is not None), None)


def _number(value: Any) -> str | None:
    if isinstance(value, str):
        return (value if value.isdigit() else number_of_node(value)) or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def number_of_node(node: str) -> str:
    """Return the number in one of GraphQL's node ids, old or new, which REST gives plainly; an id of another make as it is.

    >>> number_of_node("MDE3OlB1bGxSZXF1ZXN0UmV2aWV3MTIzNDU="), number_of_node("PRR_kwDOAAAAAc4AADA5"), number_of_node("x-1")
    ('12345', '12345', 'x-1')
    """
    head, mark, tail = node.partition("_")
    try:
        if not mark:
            found = _OLD_NODE.fullmatch(base64.b64decode(node, validate=True))
            return found[1].decode() if found else node
        packed = base64.b64decode(tail + "=" * (-len(tail) % 4), b"-_", validate=True)
    except ValueError:
        return node
    # MessagePack: an array of 0, the repository's number and this one's, which take a mark and 4 or 8 bytes each
    for mark_byte, width in ((0xCE, 4), (0xCF, 8)):
        if head.isupper() and len(packed) > width and packed[0] == 0x93 and packed[-width - 1] == mark_byte:
            return str(int.from_bytes(packed[-width:]))
    return node


def whole(value: Any) -> int | None:
    """Return a whole number from 0, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def word(value: Any) -> str | None:
    """Return a text that is not empty, or None for anything else."""
    return value if isinstance(value, str) and value else None


def sha(value: Any) -> str | None:
    """Return the commit of REST's ``head`` or ``base``."""
    return word(value.get("sha")) if isinstance(value, dict) else None


def oid(value: Any) -> str | None:
    """Return the commit of GraphQL's objects, perhaps abbreviated."""
    return (word(value.get("oid")) or word(value.get("abbreviatedOid"))) if isinstance(value, dict) else None
