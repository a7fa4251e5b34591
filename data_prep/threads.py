"""An issue's conversation as it was found, before any rule: what every reader of issues gives.

Here too: the reader of rows that hold a thread or a part of one, in the words of GitHub's REST API (``user``, ``created_at``), of its
GraphQL API and ``gh`` (``author``, ``createdAt``), and of IETF working groups' archives. GHArchive's events and BigCode's rows are read in
`data_prep.github_events`. Nothing is judged here; a value of a wrong type raises `RowProblem`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data_prep.drafts import RowProblem, wrong_type
from data_prep.people import Person

MAINTAINERS = frozenset(("OWNER", "MEMBER", "COLLABORATOR"))
"""What ``author_association`` says of those who may write to a repository."""

_URL = re.compile(r"https?://[^/\s]+/(?:api/v\d+/)?(?:repos/)?([^/\s]+/[^/\s]+)/(issues|pulls?)/(\d+)")
"""An issue or pull request: its page, or its place in the API, which an enterprise's own server has below ``/api/v3``."""


class Happening(NamedTuple):
    """What happened in a thread: ``post`` or ``closed`` or ``reopened``, or another word of the source that no format holds.

    `member` tells that somebody with a right to write to the repository posted, `accepted` that the asker took it as the answer,
    `hidden` that the project has hidden it.
    """

    kind: str
    time: str
    person: Person = Person()
    text: str = ""
    member: bool = False
    accepted: bool = False
    hidden: bool = False


@dataclasses.dataclass(slots=True)
class RawThread:
    """A thread. The first of `happenings` is its description if it was `asked`; a `pull` is the conversation of a pull request."""

    place: str
    repository: str | None
    number: int | None
    title: str
    happenings: list[Happening]
    url: str | None = None
    pull: bool = False
    repairs: tuple[str, ...] = ()
    asked: bool = True


class Comment(NamedTuple):
    """A comment that is exported apart from its issue, or from its `pull` request, to which `repository` and `number` lead."""

    repository: str
    number: int
    id: str
    happening: Happening
    pull: bool


def text_of(row: Mapping[str, Any], *names: str) -> str:
    """Return the text of the first of these keys that is there and not null, or an empty one."""
    for name in names:
        if (value := row.get(name)) is not None:
            if isinstance(value, str):
                return value
            raise wrong_type(name, value, "a text or null")
    return ""


def number_of(row: Mapping[str, Any], name: str) -> int | None:
    """Return a whole number, or None where it is absent or null."""
    value = row.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise wrong_type(name, value, "a whole number")


def mapping_of(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object, empty where it is absent or null."""
    value = row.get(name)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise wrong_type(name, value, "an object or null")


def person_of(row: Mapping[str, Any]) -> Person:
    """Return who wrote a row, by its ``user``, ``author`` or ``actor``: an object, a name alone, or null for an account that is gone.

    >>> person_of({"user": {"login": "x", "type": "Bot"}}), person_of({"author": None}).login
    (Person(login='x', type='Bot', app=False), 'ghost')
    """
    name = "user"
    value = row.get(name)
    if value is None:
        name = "author" if row.get("author") is not None else "actor"
        value = row.get(name)
    app = bool(row.get("performed_via_github_app"))
    if value is None:
        return Person(app=app)
    if isinstance(value, str):
        return Person(value or Person().login, app=app)
    if not isinstance(value, dict):
        raise wrong_type(name, value, "an account, a name or null")
    type = "Bot" if value.get("is_bot") is True else text_of(value, "type", "__typename")
    return Person(text_of(value, "login") or Person().login, type, app)


def place_of(url: str) -> tuple[str, int] | None:
    """Return repository and number that the address of an issue tells.

    >>> place_of("https://api.github.com/repos/a/b/issues/5"), place_of("https://github.com/a/b/issues/5#issuecomment-1")
    (('a/b', 5), ('a/b', 5))
    """
    found = _URL.match(url)
    return (found[1], int(found[3])) if found and len(found[3]) < 19 else None


def is_pull_url(url: str) -> bool:
    """Return whether an address is that of a pull request.

    >>> is_pull_url("https://github.com/a/b/pull/5#issuecomment-1"), is_pull_url("https://github.com/a/pull/issues/5")
    (True, False)
    """
    found = _URL.match(url)
    return found is not None and found[2] != "issues"


def is_pull(row: Mapping[str, Any]) -> bool:
    """Return whether an issue is a pull request's conversation; issues of old exports have the key with nulls in it."""
    value = row.get("pull_request")
    if isinstance(value, dict):
        return any(v is not None for v in value.values())
    return bool(value) or text_of(row, "__typename") == "PullRequest" or row.get("isPullRequest") is True


def nodes_of(value: Any, name: str) -> list[Any]:
    """Return a list, or the nodes of GraphQL's ``{nodes: [...]}`` and ``{edges: [{node: ...}]}``; a mere count or null has none."""
    if value is None or isinstance(value, int):
        return []
    if isinstance(value, dict):
        if isinstance(value.get("nodes"), list):
            return list(value["nodes"])
        edges = value.get("edges")
        if isinstance(edges, list):
            return [edge.get("node") if isinstance(edge, dict) else edge for edge in edges]
        if "totalCount" in value:
            return []
    if isinstance(value, list):
        return value
    raise wrong_type(name, value, "a list")


def happening_of(row: Any) -> Happening:
    """Return a comment of any of the APIs, or an event of GraphQL's ``timelineItems``."""
    if not isinstance(row, dict):
        raise wrong_type("comment", row, "an object")
    kind = text_of(row, "__typename")
    kind = kind.removesuffix("Event").lower() if kind.endswith("Event") else "post"
    return Happening(
        kind,
        text_of(row, "created_at", "createdAt"),
        person_of(row),
        text_of(row, "body", "bodyText") if kind == "post" else "",
        text_of(row, "author_association", "authorAssociation").upper() in MAINTAINERS,
        row.get("isAnswer") is True,
        row.get("isMinimized") is True,
    )


def read_thread(place: str, row: Mapping[str, Any], repository: str | None = None) -> RawThread | Comment:
    """Return the thread of an issue with the comments that it has inside, or a comment that is exported apart."""
    home = place_of(text_of(row, "issue_url"))
    if "title" not in row and home is not None:
        return Comment(*home, str(row.get("id") or row.get("node_id") or ""), happening_of(row), is_pull_url(text_of(row, "html_url")))
    if "title" not in row and "number" not in row:
        raise RowProblem("wrong_type", "neither an issue (number, title) nor a comment (issue_url, body); correct or remove the row", True)
    url = text_of(row, "html_url", "url")
    number = number_of(row, "number")
    home = place_of(url) or place_of(text_of(row, "url"))
    inner = row.get("repository")
    if isinstance(inner, dict):
        repository = repository or text_of(inner, "full_name", "nameWithOwner") or None
    elif isinstance(inner, str):
        repository = repository or inner
    found = [happening_of(entry) for entry in nodes_of(row.get("comments"), "comments")]
    timeline = [happening_of(entry) for entry in nodes_of(row.get("timelineItems"), "timelineItems") if entry is not None]
    found += [event for event in timeline if event.kind != "post" or not found]
    closed = text_of(row, "closed_at", "closedAt")
    if not any(event.kind == "closed" for event in found) and (closed or text_of(row, "state").lower() == "closed"):
        found.append(Happening("closed", closed))
    first = Happening(
        "post",
        text_of(row, "created_at", "createdAt"),
        person_of(row),
        text_of(row, "body", "bodyText"),
        text_of(row, "author_association", "authorAssociation").upper() in MAINTAINERS,
    )
    name = home[0] if home else repository
    return RawThread(place, name, number, text_of(row, "title"), [first, *in_order(found)], url or None, is_pull(row) or is_pull_url(url))


def in_order(happenings: Sequence[Happening]) -> list[Happening]:
    """Return happenings by time; what has none comes last, a closing behind the comment of the same second that it was made with."""
    return sorted(happenings, key=lambda event: (event.time or "~", event.kind != "post"))


def issue_rows(value: Any, repository: str | None = None) -> Iterator[tuple[Any, str | None, bool]]:
    """Yield the issues of a JSON value, each with its repository and whether it is a pull request: rows, pages, nested nodes."""
    waiting = [(value, repository, False)]
    while waiting:
        value, repository, pull = waiting.pop()
        if isinstance(value, list):
            waiting += [(entry, repository, pull) for entry in reversed(value)]
            continue
        if not isinstance(value, dict) or "title" in value or "issue_url" in value:
            yield value, repository, pull
            continue
        name = value.get("nameWithOwner") or value.get("repo")
        repository = name if isinstance(name, str) else repository
        inner = [
            (value[key], repository, pull or key in ("pulls", "pullRequests"))
            for key in (
                "data",
                "repository",
                "organization",
                "search",
                "node",
                "issues",
                "pulls",
                "pullRequests",
                "nodes",
                "edges",
                "items",
            )
            if isinstance(value.get(key), dict | list)
        ]
        if inner:
            waiting += reversed(inner)
        else:
            yield value, repository, pull
