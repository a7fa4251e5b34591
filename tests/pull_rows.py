"""One pull request in every shape of export, and the repository that it belongs to, for tests and fuzzing."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import repositories

BASE = "import sys\n\n\ndef add(a, b):\n    return a - b\n\n\ndef twice(a):\n    return add(a, a)\n"
FIRST = BASE.replace("return a - b", "return a+b")
SECOND = BASE.replace("return a - b", "return a + b")
PATCH = "@@ -2,7 +2,7 @@ import sys\n \n \n def add(a, b):\n-    return a - b\n+    return a + b\n \n \n def twice(a):"
HUNK = "@@ -2,7 +2,7 @@ import sys\n \n \n def add(a, b):\n-    return a - b\n+    return a+b"
DESCRIPTION = "It subtracted so far, which twice showed. Thanks to @carol-dev."
COMMENT = "Please put spaces around the plus, as PEP 8 has it."


def user(login: str, type: str = "User") -> dict[str, Any]:
    return {"login": login, "id": 1, "type": type, "gists_url": "https://api.github.com/users/x/gists"}


def pull_row(**changes: Any) -> dict[str, Any]:
    """A pull request of the REST API with its reviews, comments and files in it."""
    url = "https://api.github.com/repos/acme/tool/pulls/7"
    row: dict[str, Any] = {
        **{"number": 7, "title": "Add adds its arguments", "body": DESCRIPTION, "user": user("ann-dev"), "url": url},
        **{"html_url": "https://github.com/acme/tool/pull/7", "state": "closed", "created_at": "2024-05-01T10:00:00Z"},
        **{"closed_at": "2024-05-01T14:00:00Z", "merged_at": "2024-05-01T14:00:00Z", "merged_by": user("bob-dev"), "changed_files": 1},
        "base": {"sha": "b" * 40, "repo": {"full_name": "acme/tool", "license": {"spdx_id": "MIT"}}},
        **{"head": {"sha": "a" * 40}, "merge_commit_sha": "c" * 40},
        "reviews": [
            {
                **{"id": 50, "user": user("bob-dev"), "body": "Right, but see below.", "state": "CHANGES_REQUESTED"},
                **{"submitted_at": "2024-05-01T11:00:00Z", "commit_id": "d" * 40, "pull_request_url": url},
            },
            {
                **{"id": 51, "user": user("bob-dev"), "body": "", "state": "APPROVED", "submitted_at": "2024-05-01T13:00:00Z"},
                **{"commit_id": "a" * 40, "pull_request_url": url},
            },
        ],
        "review_comments": [
            {
                **{"id": 60, "user": user("bob-dev"), "body": COMMENT, "path": "src/add.py", "diff_hunk": HUNK, "original_position": 5},
                **{"pull_request_review_id": 50, "created_at": "2024-05-01T10:59:00Z", "original_commit_id": "d" * 40},
                "pull_request_url": url,
            },
            {
                **{"id": 61, "user": user("ann-dev"), "body": "Done, @bob-dev; thank you for it.", "path": "src/add.py"},
                **{"diff_hunk": HUNK, "original_position": 5, "in_reply_to_id": 60, "created_at": "2024-05-01T12:00:00Z"},
                **{"original_commit_id": "d" * 40, "pull_request_url": url},
            },
        ],
        "comments": [
            {
                **{"id": 70, "user": user("dan-dev"), "body": "I hit this last week as well.", "created_at": "2024-05-01T10:30:00Z"},
                "issue_url": "https://api.github.com/repos/acme/tool/issues/7",
            }
        ],
        "files": [{"filename": "src/add.py", "status": "modified", "patch": PATCH}],
    }
    return {**row, **changes}


def apart(row: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The same as files of a folder: pulls, reviews, comments on lines, comments, files."""
    inner = {key: row[key] for key in ("reviews", "review_comments", "comments")}
    files = [{**file, "pull_request_url": row["url"]} for file in row["files"]]
    whole = {key: value for key, value in row.items() if key not in (*inner, "files")}
    return {"pulls": [{**whole, "comments": 1, "review_comments": 2}], **inner, "files": files}


def graphql_row(**changes: Any) -> dict[str, Any]:
    """The same as GraphQL tells it, with patches added, and connections of nodes."""
    rest = pull_row()
    first, second = rest["review_comments"]
    comments = [
        {
            **{"databaseId": 60, "author": {"login": "bob-dev", "__typename": "User"}, "body": first["body"], "path": "src/add.py"},
            **{"diffHunk": HUNK, "originalPosition": 5, "createdAt": first["created_at"], "originalCommit": {"oid": "d" * 40}},
        },
        {
            **{"databaseId": 61, "author": {"login": "ann-dev"}, "body": second["body"], "path": "src/add.py", "diffHunk": HUNK},
            **{"originalPosition": 5, "createdAt": second["created_at"], "replyTo": {"databaseId": 60}},
        },
    ]
    row: dict[str, Any] = {
        **{"number": 7, "title": rest["title"], "body": rest["body"], "author": {"login": "ann-dev"}, "url": rest["html_url"]},
        **{"createdAt": rest["created_at"], "closedAt": rest["closed_at"], "mergedAt": rest["merged_at"], "state": "MERGED"},
        **{"mergedBy": {"login": "bob-dev"}, "baseRefOid": "b" * 40, "headRefOid": "a" * 40, "mergeCommit": {"oid": "c" * 40}},
        "baseRepository": {"nameWithOwner": "acme/tool"},
        "reviews": {
            "nodes": [
                {
                    **{"databaseId": 50, "author": {"login": "bob-dev"}, "body": "Right, but see below.", "state": "CHANGES_REQUESTED"},
                    **{"submittedAt": "2024-05-01T11:00:00Z", "commit": {"oid": "d" * 40}, "comments": {"nodes": comments}},
                },
                {
                    **{"databaseId": 51, "author": {"login": "bob-dev"}, "body": "", "state": "APPROVED"},
                    **{"submittedAt": "2024-05-01T13:00:00Z", "commit": {"oid": "a" * 40}, "comments": {"nodes": []}},
                },
            ]
        },
        "comments": {
            "edges": [
                {"node": {"databaseId": 70, "author": {"login": "dan-dev"}, "body": "I hit this last week as well.",
                          "createdAt": "2024-05-01T10:30:00Z"}}
            ]
        },
        "files": [{"path": "src/add.py", "patch": PATCH}],
    }  # fmt: skip
    return {**row, **changes}


def archive() -> dict[str, Any]:
    """An ``archive.json``: comments on lines tell neither who made them, nor on which file."""
    row = graphql_row(author="ann-dev", mergedBy="bob-dev", baseRepository="acme/tool", comments=[])
    del row["files"]
    review = {
        **{"id": "MDE3OlB1bGxSZXF1ZXN0UmV2aWV3NTA=", "commit": {"abbreviatedOid": "ddddddd"}, "author": "bob-dev"},
        **{"state": "CHANGES_REQUESTED", "body": "", "createdAt": "2024-05-01T11:00:00Z"},
        "comments": [{"originalPosition": 5, "body": COMMENT, "createdAt": "2024-05-01T10:59:00Z"}],
    }
    row["reviews"] = [review]
    issue = {"number": 6, "title": "twice gives 0", "author": "dan-dev", "body": "", "comments": [], "labels": []}
    return {"magic": "x", "repo": "acme/tool", "labels": [], "issues": [issue], "pulls": [row]}


def events() -> list[dict[str, Any]]:
    """The same as GHArchive told it before October 2025, among events of other kinds."""
    row = pull_row()
    inner = ("reviews", "review_comments", "comments", "files")
    whole = {key: value for key, value in row.items() if key not in inner}
    opened = {**whole, "merged": False, "merged_at": None, "closed_at": None, "merged_by": None, "head": {"sha": "d" * 40}}
    issue = {"number": 7, "title": row["title"], "body": row["body"], "user": row["user"], "pull_request": {"url": row["url"]}}

    def event(kind: str, who: str, at: str, **payload: Any) -> dict[str, Any]:
        return {
            **{"id": f"{kind} {at}", "type": kind, "actor": {"login": who}, "repo": {"name": "acme/tool"}},
            **{"payload": payload, "public": True, "created_at": at},
        }

    lines, reviews = row["review_comments"], row["reviews"]
    review, comment = "PullRequestReviewEvent", "PullRequestReviewCommentEvent"
    return [
        event("PushEvent", "ann-dev", "2024-05-01T09:00:00Z", size=1),
        event("PullRequestEvent", "ann-dev", "2024-05-01T10:00:00Z", action="opened", number=7, pull_request=opened),
        event("IssueCommentEvent", "dan-dev", "2024-05-01T10:30:00Z", action="created", issue=issue, comment=row["comments"][0]),
        event(review, "bob-dev", "2024-05-01T11:00:01Z", action="created", review=reviews[0], pull_request=opened),
        event(comment, "bob-dev", "2024-05-01T11:00:02Z", action="created", comment=lines[0], pull_request=opened),
        event(comment, "ann-dev", "2024-05-01T12:00:00Z", action="created", comment=lines[1], pull_request=opened),
        event(review, "bob-dev", "2024-05-01T13:00:00Z", action="created", review=reviews[1], pull_request={**opened, "head": row["head"]}),
        event("PullRequestEvent", "bob-dev", "2024-05-01T14:00:00Z", action="closed", number=7, pull_request={**whole, "merged": True}),
        event(
            "IssueCommentEvent", "dan-dev", "2024-05-01T15:00:00Z", action="created", issue={"number": 6}, comment={"id": 1, "body": "x"}
        ),
    ]


def webhooks() -> list[dict[str, Any]]:
    """The same as payloads of webhooks, half of them in an envelope."""
    kinds = {
        "PullRequestEvent": "pull_request",
        "PullRequestReviewEvent": "pull_request_review",
        "PullRequestReviewCommentEvent": "pull_request_review_comment",
        "IssueCommentEvent": "issue_comment",
    }
    rows = []
    for number, event in enumerate(events()):
        if event["type"] in kinds:
            payload = {**event["payload"], "repository": {"full_name": "acme/tool"}, "sender": user(event["actor"]["login"])}
            rows.append(payload if number % 2 else {"event": kinds[event["type"]], "payload": payload})
    return rows


def make_clone(folder: Path) -> dict[str, str]:
    """Make the repository, with both heads under ``refs/pull``, and return the ids of its commits by the letters that stand for them."""
    repositories.new(folder)
    base = repositories.commit(folder, "Begin", {"src/add.py": BASE, "logo.png": b"\0\1"})
    repositories.git(folder, "checkout", "-q", "-b", "fix")
    first = repositories.commit(folder, "Add adds", {"src/add.py": FIRST})
    second = repositories.commit(folder, "Spaces", {"src/add.py": SECOND, "logo.png": b"\0\2"})
    repositories.git(folder, "checkout", "-q", "main")
    repositories.git(folder, "merge", "-q", "--no-ff", "-m", "Merge", "fix")
    return {"a": second, "b": base, "c": repositories.git(folder, "rev-parse", "HEAD"), "d": first}


def with_commits(value: Any, commits: dict[str, str]) -> Any:
    """Return rows with real ids in the place of ``aaaa...``, short ones too."""
    text = json.dumps(value)
    for letter, commit in commits.items():
        text = text.replace(f'"{letter * 40}"', f'"{commit}"').replace(f'"{letter * 7}"', f'"{commit[:7]}"')
    return json.loads(text)


def write(path: Path, rows: Iterable[Any]) -> str:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def numbered(count: int, row: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return pull requests of one repository that differ in their numbers and titles."""
    rows = []
    for number in range(1, count + 1):
        changed = copy.deepcopy(row or pull_row())
        rows.append({**changed, "number": number, "title": f"Add adds its arguments, part {number}"})
    return rows
