"""Inputs of ``kind: issues`` written by hand, in every shape that the builder reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

LONG = "The cache is written before the lock is taken, so two workers that start together both see an empty folder. "
QUESTION = f"Building fails\r\nwith an empty cache. {LONG}@kai42 saw it too."
ANSWER = f"@ada-l the lock was missing. {LONG}Please try the branch of @kai42, or ask ada@example.org."


def account(login: str | None, type: str = "User") -> dict[str, Any] | None:
    """An account as the REST API shows it."""
    return None if login is None else {"login": login, "id": len(login), "type": type}


def issue(number: int = 7, repository: str = "acme/lib", **changes: Any) -> dict[str, Any]:
    """An issue as the REST API and events show it."""
    return {
        "id": 1000 + number,
        "number": number,
        "title": "Cache is lost when two workers start",
        "user": account("ada-l"),
        "body": QUESTION,
        "state": "open",
        "created_at": "2020-01-01T10:00:00Z",
        "closed_at": None,
        "author_association": "NONE",
        "html_url": f"https://github.com/{repository}/issues/{number}",
        "performed_via_github_app": None,
        **changes,
    }


def comment(identity: int, login: str | None, body: str | None, minute: int, **changes: Any) -> dict[str, Any]:
    """A comment as the REST API and events show it."""
    return {
        "id": identity,
        "issue_url": "https://api.github.com/repos/acme/lib/issues/7",
        "user": account(login),
        "body": body,
        "created_at": f"2020-01-01T11:{minute:02}:00Z",
        "author_association": "MEMBER" if login == "maint" else "NONE",
        **changes,
    }


def event(identity: int, type: str, action: str, minute: int, repository: str = "acme/lib", **payload: Any) -> dict[str, Any]:
    """A line of GHArchive since 2015."""
    about = payload.get("comment") or payload.get("issue") or {}
    return {
        "id": str(identity),
        "type": type,
        "actor": {"id": 1, "login": (about.get("user") or {}).get("login", "ghost")},
        "repo": {"id": 2, "name": repository},
        "payload": {"action": action, **payload},
        "public": True,
        "created_at": f"2020-01-01T11:{minute:02}:00Z",
    }


def thread_events() -> list[dict[str, Any]]:
    """A thread of the years since 2015: asked, answered, closed, with a bot in between, and lines of other kinds."""
    return [
        event(1, "IssuesEvent", "opened", 0, issue=issue()),
        {"id": "2", "type": "PushEvent", "actor": {}, "repo": {"name": "acme/lib"}, "payload": {"commits": [{"message": "type"}]}},
        event(3, "IssueCommentEvent", "created", 1, issue=issue(), comment=comment(31, "maint", ANSWER, 1)),
        event(4, "IssueCommentEvent", "created", 2, issue=issue(), comment=comment(32, "stale[bot]", "No activity.", 2)),
        event(5, "IssueCommentEvent", "created", 3, issue=issue(), comment=comment(33, "ada-l", "It works, thanks @maint!", 3)),
        event(6, "IssuesEvent", "closed", 4, issue=issue()),
    ]


def old_events() -> list[dict[str, Any]]:
    """Lines of before 2015: numbers only."""
    about = {"actor": "ada-l", "repository": {"owner": "acme", "name": "lib", "id": 2}, "public": True}
    return [
        {
            **about,
            "type": "IssuesEvent",
            "created_at": "2014-05-01T10:00:00-07:00",
            "payload": {"action": "opened", "issue": 555, "number": 3},
        },
        {
            **about,
            "type": "IssueCommentEvent",
            "created_at": "2014-05-01T11:00:00-07:00",
            "payload": {"issue_id": 555, "comment_id": 9},
            "url": "https://github.com/acme/lib/issues/3#issuecomment-9",
        },
    ]


def archive() -> dict[str, Any]:
    """An archive as IETF working groups keep it: names for accounts, pull requests beside the issues."""
    said = {"authorAssociation": "MEMBER", "body": ANSWER, "createdAt": "2020-01-01T11:01:00Z"}
    asked = {
        "number": 7,
        "title": "Cache is lost",
        "url": "https://github.com/acme/lib/issues/7",
        "state": "CLOSED",
        "author": "ada-l",
        "authorAssociation": "NONE",
        "body": QUESTION,
        "createdAt": "2020-01-01T10:00:00Z",
        "closedAt": "2020-01-01T11:01:00Z",
        "comments": [{"author": "maint", **said}, {"author": None, **said, "body": "Me too.", "createdAt": "2020-01-01T12:00:00Z"}],
    }
    return {"magic": "x", "repo": "acme/lib", "issues": [asked], "pulls": [{**asked, "number": 8, "reviews": []}]}


def graphql_page() -> dict[str, Any]:
    """A page of the GraphQL API, with accounts that tell their type, hidden comments and a timeline."""

    def by(login: str, type: str = "User") -> dict[str, Any]:
        return {"author": {"__typename": type, "login": login}, "createdAt": "2020-01-01T11:00:00Z"}

    asked = {
        "number": 7,
        "title": "Cache is lost",
        "body": QUESTION,
        **by("ada-l"),
        "comments": {
            "nodes": [
                {**by("maint"), "body": ANSWER, "authorAssociation": "OWNER", "isMinimized": False},
                {**by("spammer"), "body": "Buy now", "isMinimized": True},
                {**by("helper", "Bot"), "body": "I am a bot."},
            ]
        },
        "timelineItems": {
            "nodes": [
                {"__typename": "ClosedEvent", "createdAt": "2020-01-02T00:00:00Z", "actor": {"login": "maint"}},
                {"__typename": "ReopenedEvent", "createdAt": "2020-01-03T00:00:00Z", "actor": None},
            ]
        },
    }
    return {
        "data": {"repository": {"nameWithOwner": "acme/lib", "issues": {"edges": [{"node": asked}], "pageInfo": {"hasNextPage": False}}}}
    }


def bigcode_row() -> dict[str, Any]:
    """A row of BigCode's dataset."""
    events = [
        {"type": "issue", "action": "opened", "author": "ada-l", "title": "Cache is lost", "description": QUESTION, "comment": None},
        {"type": "comment", "action": "created", "author": "maint", "comment": ANSWER, "description": None, "comment_id": 31},
        {"type": "issue", "action": "closed", "author": "maint"},
    ]
    rows = [{"datetime": f"2020-01-01 11:0{minute}:00", **entry} for minute, entry in enumerate(events)]
    return {"repo": "acme/lib", "org": "acme", "issue_id": 1007, "issue_number": 7, "pull_request": None, "events": rows}


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSON Lines, compressed where the name says so."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def write_rest(folder: Path) -> Path:
    """Write an export of the REST API: issues and comments apart, a pull request among the issues."""
    folder.mkdir(exist_ok=True)
    pull = issue(8, title="A change", pull_request={"url": "https://api.github.com/repos/acme/lib/pulls/8"})
    issues = [issue(closed_at="2020-01-01T11:05:00Z", state="closed", state_reason="completed"), pull]
    (folder / "issues.json").write_text(json.dumps(issues))
    comments = [comment(32, None, "I am gone, but it was me who broke it.", 2), comment(31, "maint", ANSWER, 1)]
    write_lines(folder / "comments.jsonl", comments)
    return folder
