"""Issues of every shape: what a thread becomes, by which rules, and that nothing is lost."""

from __future__ import annotations

import functools
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuzz_issues
from data_prep import issues
from data_prep.documents import parse_thread
from data_prep.issue_rules import CUT, english_share
from data_prep.kinds import Setting, open_kind
from data_prep.mail import without_mail
from data_prep.records import Dropped, Item, Kept
from data_prep.sources import find_tables
from fuzzing import outcome_of
from issue_inputs import (
    ANSWER,
    LONG,
    account,
    archive,
    bigcode_row,
    comment,
    event,
    graphql_page,
    issue,
    old_events,
    thread_events,
    write_lines,
    write_rest,
)
from starchat.errors import UserError

EVENTS = os.environ.get("STARCHAT_REAL_EVENTS")
ASKED = f"Building fails\nwith an empty cache. {LONG}@username_1 saw it too."
ANSWERED = f"@username_0 the lock was missing. {LONG}Please try the branch of @username_1, or ask ada@example.org."


POST = {"min_characters": None}


@functools.cache
def setting(workers: int = 1) -> Setting:
    """A setting whose tokenizer is read once."""
    return Setting(workers=workers)


def build(path: Path, workers: int = 1, **keys: Any) -> list[Item]:
    """The items of a source."""
    return list(open_kind("issues", {"path": str(path), **keys}, "spec", setting(workers)).items())


def only(path: Path, **keys: Any) -> Item:
    """The one item of a source."""
    (item,) = build(path, **keys)
    return item


def document(item: Item) -> str:
    """A document as text, its tokens by name."""
    assert isinstance(item, Kept), item
    return "".join(part.marker + part.text for part in item.record.parts)


def reasons(items: list[Item]) -> list[str]:
    """What became of items."""
    return ["kept" if isinstance(item, Kept) else item.reason for item in items]


def hours(folder: Path, *events: dict[str, Any]) -> Path:
    """A file of GHArchive with these events."""
    return write_lines(folder / "2020-01-01-11.json.gz", list(events))


def test_an_hour_becomes_a_document(tmp_path: Path) -> None:
    item = only(hours(tmp_path, *thread_events()))
    assert document(item) == (
        f"<issue_start>Title: Cache is lost when two workers start\nusername_0: {ASKED}"
        f"<issue_comment>username_2: {ANSWERED}<issue_comment>username_0: It works, thanks @username_2!<issue_closed>"
    )
    assert isinstance(item, Kept) and item.repairs == ("line_ends", "bot_comment")
    source = item.record.source
    assert (source.place, source.repository) == (f"{tmp_path}/2020-01-01-11.json.gz:1", "acme/lib")
    assert source.url == "https://github.com/acme/lib/issues/7"


def test_an_hour_becomes_a_dialogue(tmp_path: Path) -> None:
    item = only(hours(tmp_path, *thread_events()), view="dialogue", license="MIT")
    assert isinstance(item, Kept)
    assert [(turn.role, turn.content) for turn in item.record.turns] == [
        ("user", f"Cache is lost when two workers start\n\n{ASKED}"),
        ("assistant", ANSWERED.removeprefix("@username_0 ")),
    ]
    assert item.repairs == ("line_ends", "bot_comment", "names_left", "ends_with_user") and item.record.license == "MIT"


@pytest.mark.parametrize("seed", range(8))
def test_order_and_repetition_of_events_do_not_matter(tmp_path: Path, seed: int) -> None:
    expected = document(only(hours(tmp_path, *thread_events())))
    events = thread_events() + thread_events()[2:5]
    random.Random(seed).shuffle(events)
    (tmp_path / "2020-01-01-11.json.gz").unlink()
    for number in range(3):
        write_lines(tmp_path / f"{number}.json", events[number::3])
    assert document(only(tmp_path)) == expected


def test_a_closing_stands_behind_the_comment_of_its_second_and_repetitions_count_once(tmp_path: Path) -> None:
    closed = event(6, "IssuesEvent", "closed", 1, issue=issue())
    events = [thread_events()[0], closed, thread_events()[2], *[event(7, "IssuesEvent", "labeled", 2, issue=issue())] * 20]
    item = only(hours(tmp_path, *events), rules={"min_users": 3})
    assert document(item).endswith("<issue_closed>")
    assert isinstance(item, Kept) and item.repairs == ("line_ends", "lost_other_event")
    many = [event(100 + n, "IssuesEvent", "labeled", 2, issue=issue()) for n in range(20)]
    assert reasons(build(hours(tmp_path, *events[:3], *many), rules={"min_users": 3})) == ["one_user"]


def test_opened_is_made_from_a_comment_where_it_is_missing(tmp_path: Path) -> None:
    item = only(hours(tmp_path, *thread_events()[2:]))
    assert document(item) == document(only(hours(tmp_path, *thread_events())))
    assert isinstance(item, Kept) and item.repairs[0] == "opened_is_missing"
    trimmed = {key: issue()[key] for key in ("id", "number", "title", "body", "user", "created_at", "html_url")}
    events = [event(3, "IssueCommentEvent", "created", 1, issue=trimmed, comment={"id": 31, "user": account("maint"), "body": ANSWER})]
    assert document(only(hours(tmp_path, *events))).endswith(f"<issue_comment>username_2: {ANSWERED}")


def test_edited_and_deleted_posts(tmp_path: Path) -> None:
    changes = [
        event(7, "IssuesEvent", "edited", 5, issue=issue(title="Cache lost", body=f"Edited. {LONG}")),
        event(8, "IssueCommentEvent", "edited", 6, issue=issue(), comment=comment(31, "maint", "Better.", 1)),
        event(9, "IssueCommentEvent", "deleted", 7, issue=issue(), comment=comment(33, "ada-l", "It works", 3)),
    ]
    item = only(hours(tmp_path, *thread_events(), *changes), rules={"min_characters": None})
    expected = f"<issue_start>Title: Cache lost\nusername_0: Edited. {LONG}<issue_comment>username_1: Better.<issue_closed>"
    assert document(item) == expected
    assert isinstance(item, Kept) and item.repairs == ("edited_comment", "deleted_comment", "bot_comment")


def test_the_last_edit_counts_whatever_its_file_is_called(tmp_path: Path) -> None:
    edits = [event(7 + n, "IssuesEvent", "edited", n, issue=issue(title=f"Title {n}")) for n in (2, 10)]
    write_lines(tmp_path / "2020-01-01-2.json", [*thread_events(), edits[0]])
    write_lines(tmp_path / "2020-01-01-10.json", edits[1:])
    assert document(only(tmp_path)).startswith("<issue_start>Title: Title 10\n")


def test_events_before_2015_are_set_aside_and_the_repository_is_found(tmp_path: Path) -> None:
    (item,) = build(hours(tmp_path, *old_events()))
    assert isinstance(item, Dropped) and (item.reason, item.fault) == ("no_question", False)
    assert json.loads(item.raw)["repository"] == "acme/lib" and json.loads(item.raw)["number"] == 3


def test_a_repository_that_is_gone_is_found_by_the_address(tmp_path: Path) -> None:
    events = [{**line, "repo": {"id": 2, "name": "/"}} for line in thread_events()]
    item = only(hours(tmp_path, *events))
    assert isinstance(item, Kept) and item.record.source.repository == "acme/lib"


def test_conversations_of_pull_requests_are_told_apart(tmp_path: Path) -> None:
    pull = issue(8, pull_request={"url": "https://api.github.com/repos/acme/lib/pulls/8"})
    others = [event(20, "IssueCommentEvent", "created", 1, issue=pull, comment=comment(50, "maint", "A change.", 1))]
    items = build(hours(tmp_path, *thread_events(), *others, *others))
    assert sorted(reasons(items)) == ["kept", "pull_request"]
    nulls = issue(pull_request={"url": None, "html_url": None})
    assert reasons(build(hours(tmp_path, event(1, "IssuesEvent", "opened", 0, issue=nulls)), rules={"preset": "none"})) == ["kept"]


def test_malformed_lines_are_faults_and_lines_of_no_interest_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    good = b"".join(json.dumps(line).encode() + b"\n" for line in thread_events())
    bad = b'{"type":"IssuesEvent","act\n[1]\n\xff\n\n{"type":"IssuesEvent","payload":[]}\n{"type":"IssuesEvent","payload":{}}\n'
    path.write_bytes(b"\xef\xbb\xbf" + good + bad + b'{"type":"PushEvent","payload":{"text":"\\"IssuesEvent\\""}}\r\n')
    items = build(path)
    found = [(item.reason, item.fault, int(item.place.rpartition(":")[2])) for item in items if isinstance(item, Dropped)]
    assert found == [
        ("invalid_json", True, 7),
        ("wrong_type", True, 8),
        ("invalid_utf8", True, 9),
        ("wrong_type", True, 11),
        ("no_issue", False, 12),
    ]
    assert len(items) == len(found) + 1


def test_white_space_that_json_does_not_know_around_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"".join(b"\x0b" + json.dumps(line).encode() + b"\x0c\n" for line in thread_events()))
    assert reasons(build(path, format="gharchive")) == ["kept"]


def test_rest_comes_together_from_two_files(tmp_path: Path) -> None:
    items = build(write_rest(tmp_path / "rest"))
    assert sorted(reasons(items)) == ["kept", "pull_request"]
    item = next(item for item in items if isinstance(item, Kept))
    assert document(item).endswith(
        f"<issue_comment>username_2: {ANSWERED}<issue_comment>username_3: I am gone, but it was me who broke it.<issue_closed>"
    )
    assert item.record.source.place.endswith("issues.json:1")


def test_comments_without_their_issue_are_no_question(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "comments.jsonl", [comment(31, "maint", ANSWER, 1), comment(32, "bob", "More.", 2)])
    for view in ("document", "dialogue"):
        item = only(path, view=view, rules={"preset": "none"})
        assert isinstance(item, Dropped) and item.reason == "no_question"
        assert [event["author"] for event in json.loads(item.raw)["events"]] == ["maint", "bob"], "each once"
    row = bigcode_row()
    del row["events"][0]
    assert reasons(build(write_lines(tmp_path / "rows.jsonl", [row]), rules={"preset": "none"})) == ["no_question"]


def test_issues_of_repositories_that_are_not_told_stay_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        about = issue(body=f"{name}. {LONG}", user=account(name))
        del about["html_url"]
        write_lines(tmp_path / f"{name}.jsonl", [about, {"items": [{**about, "number": 8}, {**about, "number": 9}]}])
    items = build(tmp_path, rules=POST)
    assert reasons(items) == ["kept"] * 6 and len(set(map(document, items))) == 2


def test_an_enterprise_server_and_a_repository_with_the_name_of_a_path(tmp_path: Path) -> None:
    about = issue(repository="acme/pull", html_url="https://git.acme.example/acme/pull/issues/7")
    said = comment(31, "maint", ANSWER, 1, issue_url="https://git.acme.example/api/v3/repos/acme/pull/issues/7")
    item = only(write_lines(tmp_path / "x.jsonl", [about, {**said, "html_url": f"{about['html_url']}#issuecomment-31"}]))
    assert document(item).endswith(f"<issue_comment>username_2: {ANSWERED}")


def test_a_comment_apart_from_its_issue_is_a_fault_with_its_place_where_threads_are_rows(tmp_path: Path) -> None:
    item = only(write_lines(tmp_path / "x.jsonl", [comment(31, "maint", ANSWER, 1)]), format="graphql")
    assert isinstance(item, Dropped) and (item.reason, item_place(item), item.fault) == ("wrong_type", "x.jsonl:1", True)
    assert "format: rest" in item.detail and json.loads(item.raw)["id"] == 31


def test_places_in_lines_under_the_name_of_json(tmp_path: Path) -> None:
    rows = [issue(number, body=LONG * 3) for number in (1, 2)]
    items = build(write_lines(tmp_path / "x.json", rows))
    assert [item_place(item) for item in items] == ["x.json:1", "x.json:2"]


def test_rest_with_comments_inside_and_an_app_that_posts(tmp_path: Path) -> None:
    said = [comment(31, "maint", ANSWER, 1), comment(32, "helper", "I am an app.", 2, performed_via_github_app={"id": 1})]
    path = write_lines(tmp_path / "issues.jsonl", [issue(comments=said)])
    item = only(path, format="rest")
    assert document(item).count("<issue_comment>") == 1
    assert isinstance(item, Kept) and "bot_comment" in item.repairs
    assert document(only(path, rules={"bots": "keep"})).count("<issue_comment>") == 2


def test_what_gh_lists(tmp_path: Path) -> None:
    row = {
        "number": 7,
        "title": "Cache is lost",
        "body": ANSWER + LONG,
        "author": {"id": "x", "is_bot": False, "login": "ada-l", "name": "Ada"},
        "state": "CLOSED",
        "closedAt": "2020-01-01T12:00:00Z",
        "createdAt": "2020-01-01T10:00:00Z",
        "comments": [{"author": {"login": "maint"}, "authorAssociation": "OWNER", "body": "Done.", "createdAt": "2020-01-01T12:00:00Z"}],
        "stateReason": "COMPLETED",
    }
    (tmp_path / "list.json").write_text(json.dumps([row, {**row, "author": {"login": "app/robot", "is_bot": True}}]))
    items = build(tmp_path / "list.json", repository="acme/lib")
    assert reasons(items) == ["kept", "opened_by_bot"]
    assert document(items[0]).endswith("<issue_comment>username_2: Done.<issue_closed>")
    assert isinstance(items[0], Kept) and items[0].record.source.repository == "acme/lib"


def test_archives_and_pages_of_graphql(tmp_path: Path) -> None:
    (tmp_path / "archive.json").write_text(json.dumps(archive(), indent=1))
    items = build(tmp_path / "archive.json")
    assert reasons(items) == ["kept", "pull_request"] and [item_place(item) for item in items] == ["archive.json:1", "archive.json:2"]
    assert document(items[0]).endswith(f"<issue_comment>username_2: {ANSWERED}<issue_closed><issue_comment>username_3: Me too.")
    item = only(write_lines(tmp_path / "pages.jsonl", [graphql_page()]))
    assert document(item).endswith(f"<issue_comment>username_2: {ANSWERED}<issue_closed>")
    assert isinstance(item, Kept) and item.repairs == ("line_ends", "hidden_comment", "bot_comment", "lost_reopened")


def item_place(item: Item) -> str:
    """The file's name and the row of an item."""
    place = item.record.source.place if isinstance(item, Kept) else item.place
    return place.rpartition("/")[2]


def test_rows_of_bigcode_from_lines_and_parquet(tmp_path: Path) -> None:
    row = bigcode_row()
    lines = only(write_lines(tmp_path / "rows.jsonl.gz", [row]))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    assert document(lines) == document(only(tmp_path / "rows.parquet"))
    assert document(lines).endswith(f"<issue_comment>username_2: {ANSWERED}<issue_closed>")
    row["events"].append({"type": "comment", "action": "deleted", "comment_id": 31})
    assert "<issue_comment>" not in document(only(write_lines(tmp_path / "rows.jsonl", [row]), rules=POST))


def test_rows_of_bigcode_in_any_order_with_edits_and_repetitions(tmp_path: Path) -> None:
    row = bigcode_row()
    opened, said, closed = row["events"]
    edited = {**said, "action": "edited", "comment": "Better.", "datetime": "2020-01-01 12:00:00"}
    gone = {"type": "issue", "action": "deleted", "datetime": "2020-01-01 13:00:00"}
    nameless = {"type": "comment", "author": "bob", "comment": "And more.", "datetime": "2020-01-01 11:05:00"}
    row["events"] = [edited, gone, said, opened, opened, nameless, closed, said]
    item = only(write_lines(tmp_path / "rows.jsonl", [row]), rules=POST)
    expected = f"<issue_start>Title: Cache is lost\nusername_0: {ASKED}<issue_comment>username_2: Better."
    assert document(item) == f"{expected}<issue_closed><issue_comment>username_3: And more."
    assert isinstance(item, Kept) and item.repairs == ("edited_comment", "line_ends", "lost_other_event")
    row["events"] = [
        {key: value for key, value in entry.items() if key != "datetime"} for entry in (opened, said, closed, nameless, nameless)
    ]
    item = only(write_lines(tmp_path / "rows.jsonl", [row]), rules=POST)
    assert document(item).endswith("<issue_closed><issue_comment>username_3: And more.<issue_comment>username_3: And more.")
    assert reasons(build(write_lines(tmp_path / "rows.jsonl", [{**row, "events": []}]))) == ["no_question"]


def thread(folder: Path, *posts: tuple[str, str], rules: dict[str, Any] | None = None, **keys: Any) -> Item:
    """The item of a thread with these posts; the first is the description."""
    (first, body), *rest = posts
    said = [comment(40 + place, login, text, place) for place, (login, text) in enumerate(rest)]
    path = write_lines(folder / "thread.jsonl", [issue(user=account(first), body=body, comments=said)])
    return only(path, rules={**POST, **(rules or {})}, **keys)


def test_length(tmp_path: Path) -> None:
    for characters, expected in ((199, "short_text"), (200, "kept")):
        item = thread(tmp_path, ("ada", "x" * 150), ("bob", "y" * (characters - 150)), rules={"min_characters": 200})
        assert reasons([item]) == [expected]


def test_a_lone_user(tmp_path: Path) -> None:
    for posts, expected in (
        ([("ada", "x" * 7000)], "kept"),
        ([("ada", "x" * 7001)], "one_user"),
        ([("ada", "x" * 7000), ("bob", "y")], "kept"),
        ([("ada", "x")] * 10, "kept"),
        ([("ada", "x")] * 11, "one_user"),
        ([("ada", "x" * 7000), ("stale[bot]", "y")], "kept"),
    ):
        assert reasons([thread(tmp_path, *posts)]) == [expected]
    assert reasons([thread(tmp_path, ("ada", "x" * 7001), rules={"max_lone_characters": None})]) == ["kept"]


def test_long_comments_keep_both_ends(tmp_path: Path) -> None:
    text = "\n".join(map(str, range(81)))
    item = thread(tmp_path, ("ada", "q"), ("bob", text))
    said = document(item).partition("username_1: ")[2].split("\n")
    assert said == [*map(str, range(60)), CUT, *map(str, range(61, 81))]
    assert isinstance(item, Kept) and item.repairs == ("long_comment",)
    spared = thread(tmp_path, ("ada", "q"), ("bob", text.removesuffix("\n80")))
    assert isinstance(spared, Kept) and spared.repairs == () and CUT not in document(spared)


def test_bots_go_and_the_person_before_them_stays(tmp_path: Path) -> None:
    item = thread(tmp_path, ("ada", "q"), ("talbot", "/retest"), ("k8s-ci-robot", "retesting"), ("bob", "thanks"))
    assert document(item).endswith("username_0: q<issue_comment>username_1: /retest<issue_comment>username_2: thanks")
    assert reasons([thread(tmp_path, ("renovate", "update"), ("ada", "no"))]) == ["opened_by_bot"]


def test_what_is_not_seen_goes(tmp_path: Path) -> None:
    item = thread(tmp_path, ("ada", "<!-- a\nhint -->Text `<!-- code -->` and <!-- open"), ("bob", "<!-- only -->"), ("eve", "yes"))
    assert document(item).endswith("username_0: Text `<!-- code -->` and <!-- open<issue_comment>username_1: yes")
    assert isinstance(item, Kept) and item.repairs == ("html_comment", "empty_comment")


def test_null_bodies_and_ghosts(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "x.jsonl", [issue(body=None, user=None, comments=[comment(1, None, "Me.", 1), comment(2, "bob", None, 2)])]
    )
    item = only(path, rules={"preset": "none"})
    assert document(item) == "<issue_start>Title: Cache is lost when two workers start\nusername_0: <issue_comment>username_0: Me."


def test_language_and_state(tmp_path: Path) -> None:
    english, german = (
        "The build fails when the cache is empty and two workers start.",
        "Der Aufbau schlägt fehl, wenn zwei Prozesse starten.",
    )
    rules = {"min_english": 0.5, "closed": "any"}
    assert reasons([thread(tmp_path, ("ada", f"{english}\n```\nxyzzy plugh qwert\n```"), rules=rules)]) == ["kept"]
    path = write_lines(tmp_path / "x.jsonl", [issue(title="Fehler beim Aufbau", body=german)])
    assert reasons(build(path, rules={**POST, **rules})) == ["not_english"]
    assert english_share(english) > 0.9 and english_share(german) < 0.4
    assert reasons([thread(tmp_path, ("ada", english), rules={"closed": "required"})]) == ["not_closed"]
    closed = write_lines(tmp_path / "x.jsonl", [issue(closed_at="2020-02-01T00:00:00Z")])
    assert reasons(build(closed, rules={**POST, "closed": "required"})) == ["kept"]


def turns(item: Item) -> list[tuple[str, str]]:
    """Roles and texts of a dialogue."""
    assert isinstance(item, Kept), item
    return [(turn.role, turn.content) for turn in item.record.turns]


def test_one_voice_answers_and_it_is_the_maintainers(tmp_path: Path) -> None:
    posts = (
        ("ada", "q"),
        ("ada", "more"),
        ("bob", "a long answer that is none"),
        ("maint", "A."),
        ("maint", "B."),
        ("ada", "And?"),
        ("eve", "C."),
    )
    item = thread(tmp_path, *posts, view="dialogue")
    title = issue()["title"]
    assert turns(item) == [("user", f"{title}\n\nq\n\nmore"), ("assistant", "A.\n\nB."), ("user", "And?"), ("assistant", "C.")]
    assert isinstance(item, Kept) and item.repairs == ("other_answers", "merged_user_turns")
    longest = thread(tmp_path, ("ada", "q"), ("bob", "short"), ("eve", "much longer"), view="dialogue")
    assert turns(longest)[1] == ("assistant", "much longer")


def test_the_accepted_answer_is_before_the_maintainers(tmp_path: Path) -> None:
    page = graphql_page()
    said = {"author": {"login": "zoe-9"}, "body": "Mine.", "isAnswer": True, "createdAt": "2020-01-01T11:30:00Z"}
    page["data"]["repository"]["issues"]["edges"][0]["node"]["comments"]["nodes"].append(said)
    item = only(write_lines(tmp_path / "page.jsonl", [page]), view="dialogue")
    assert turns(item)[1] == ("assistant", "Mine.")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("@ada-l: try it", "try it"),
        ("@ada-l try it", "try it"),
        ("@ada-l, @kai42: try it", "try it"),
        ("Thanks @ada-l! Try it", "Thanks! Try it"),
        ("Try it.\n\ncc @kai42 @ada-l", "Try it."),
        ("I like @ada-l's way", "I like your way"),
        ("@kai42 knows it", "@username_2 knows it"),
        ("As @kai42 said", "As @username_2 said"),
        ("```\n@decorated: x\n```", "```\n@decorated: x\n```"),
    ],
)
def test_names_that_only_call_are_left_out_of_dialogues(tmp_path: Path, said: str, expected: str) -> None:
    item = thread(tmp_path, ("ada-l", "q"), ("bob", said), view="dialogue")
    assert turns(item)[1] == ("assistant", expected)
    assert isinstance(item, Kept) and ("names_left" in item.repairs) == ("username_" in expected)


def test_posts_that_only_call_somebody_are_no_turns(tmp_path: Path) -> None:
    item = thread(tmp_path, ("ada", "q"), ("bob", "A."), ("ada", "cc @kai42"), ("bob", "B."), ("ada", "@bob"), view="dialogue")
    assert [text for _, text in turns(item)][1:] == ["A.\n\nB."]


def test_threads_without_an_answer_are_no_dialogues(tmp_path: Path) -> None:
    assert reasons([thread(tmp_path, ("ada", "q"), ("ada", "I found it"), view="dialogue")]) == ["no_answer"]
    assert reasons([thread(tmp_path, ("ada", "q"), ("bob", "@ada:"), view="dialogue")]) == ["no_answer"]
    short = {"min_answer_characters": 5}
    assert reasons([thread(tmp_path, ("ada", "q"), ("bob", "Done"), view="dialogue", rules=short)]) == ["short_answer"]
    assert reasons([thread(tmp_path, ("ada", "q"), ("bob", "Done."), view="dialogue", rules=short)]) == ["kept"]


def test_workers_make_no_difference(tmp_path: Path) -> None:
    rng = random.Random(0)
    for hour in range(7):
        rows = []
        for number in range(40):
            about = issue(rng.randrange(60), f"acme/lib{rng.randrange(3)}", body="x" * rng.randrange(400))
            about["id"] = 10 * about["number"] + int(about["html_url"].split("/")[4][-1])
            said = comment(hour * 100 + number, rng.choice(("maint", "bob", None)), LONG, number)
            rows.append(event(hour * 100 + number, "IssueCommentEvent", "created", number, issue=about, comment=said))
        write_lines(tmp_path / f"{hour}.json", rows)
    one, three = build(tmp_path), build(tmp_path, workers=3)
    assert one == three and len(one) > 50
    lines = tmp_path / "rows"
    lines.mkdir()
    for number in range(5):
        write_lines(lines / f"{number}.jsonl", [bigcode_row()] * 7)
    assert build(lines) == build(lines, workers=3)


def test_many_partitions_and_segments_hold_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [event(n, "IssuesEvent", "opened", 0, issue=issue(n, id=n, body=LONG * 3)) for n in range(60)]
    path = write_lines(tmp_path / "x.json", rows)
    few = build(path)
    monkeypatch.setattr("data_prep.spill.PARTITION_BYTES", 2000)
    monkeypatch.setattr("data_prep.spill.SEGMENT_BYTES", 1500)
    many = build(path)
    written = [issues._sort(tmp_path, issues._Sort(piece, None, 3))[1] for piece in issues._pieces(find_tables(str(path)), "gharchive")]
    assert len(written[0].segments) > 5, "memory holds one segment"
    assert len(few) == 60 and sorted(map(document, few)) == sorted(map(document, many))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path": "nowhere.json"}, "no such file"),
        ({"path": "table.csv"}, "is no file of issues"),
        ({"path": "empty.json"}, "holds no rows"),
        ({"path": "events.parquet"}, "events.parquet is a table; GHArchive's hours are read as they are"),
        ({"path": "other.json"}, "not recognised as issues by its keys (a)"),
        ({"path": "broken.json"}, "not valid JSON"),
        ({"path": "cut.json.gz"}, "truncated"),
        ({"rules": {"min_chars": 1}}, "rules: unknown key 'min_chars'"),
        ({"rules": {"preset": "starcode"}}, "did you mean 'starcoder'?"),
        ({"rules": None}, "rules"),
        ({"rules": {"min_characters": -1}}, "rules.min_characters: -1; expected a number from 0, or null"),
        ({"rules": {"max_comment_lines": 1}}, "rules.max_comment_lines: 1; expected at least 2"),
        ({"rules": {"min_english": 50}}, "rules.min_english: 50.0; expected a share from 0 to 1"),
    ],
)
def test_what_the_user_must_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"table.csv": "a,b\n1,2\n", "empty.json": "", "other.json": '[{"a": 1}]', "broken.json": '[{\n"a": 1'}.items():
        Path(name).write_text(text)
    Path("cut.json.gz").write_bytes(gzip.compress(json.dumps(issue()).encode() * 99)[:-9])
    pq.write_table(pa.Table.from_pylist([{"type": "IssuesEvent", "payload": "{}"}]), "events.parquet")
    hours(tmp_path, *thread_events())
    with pytest.raises(UserError) as caught:
        list(open_kind("issues", {"path": "2020-01-01-11.json.gz", **keys}, "spec", setting()).items())
    assert message in str(caught.value)


def test_the_resolved_spec_says_every_threshold_and_opens_again(tmp_path: Path) -> None:
    path = hours(tmp_path, *thread_events())
    spec = open_kind("issues", {"path": str(path), "rules": {"min_users": None}}, "spec", setting()).spec
    assert spec["rules"]["min_characters"] == 200 and spec["rules"]["min_users"] is None
    again = open_kind("issues", spec, "spec", setting())
    assert again.spec == spec and again.format == "gharchive" and [entry["path"] for entry in again.inputs()] == [str(path)]


TEXTS = st.text(alphabet="ab :>`\n-<!{}é", max_size=30).filter(lambda text: "<!--" not in text and not without_mail(text).repairs)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ada", "bob", "kai42"]), TEXTS), min_size=1, max_size=5))
def test_documents_parse_to_what_was_posted(tmp_path_factory: pytest.TempPathFactory, posts: list[tuple[str, str]]) -> None:
    item = thread(tmp_path_factory.mktemp("t"), *posts, rules={"preset": "none"})
    assert isinstance(item, Kept)
    names: dict[str, str] = {}
    expected = []
    for place, (login, text) in enumerate(posts):
        if text.strip() or not place:
            expected.append((names.setdefault(login, f"username_{len(names)}"), text if text.strip() else ""))
    found = parse_thread(item.record.parts)
    assert found.title == issue()["title"]
    assert [(event.author, event.text) for event in found.events] == expected


@pytest.mark.parametrize("number", range(60))
def test_damaged_inputs(tmp_path: Path, number: int) -> None:
    outcome_of(fuzz_issues.mutant(random.Random(f"test:{number}"), tmp_path), "issues", number)


@pytest.mark.skipif(EVENTS is None, reason="STARCHAT_REAL_EVENTS names no file of webhook payloads")
def test_real_payloads_are_read(tmp_path: Path) -> None:
    rows = []
    with gzip.open(str(EVENTS), "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            if row["event"] in ("issues", "issue_comment"):
                kind = "IssuesEvent" if row["event"] == "issues" else "IssueCommentEvent"
                repo = {"name": row["payload"]["repository"]["full_name"]}
                rows.append(
                    {"id": str(number), "type": kind, "repo": repo, "created_at": "2019-05-16T00:00:00Z", "payload": row["payload"]}
                )
    items = build(write_lines(tmp_path / "x.json", rows), rules={"preset": "none"})
    assert {"kept", "pull_request"} == set(reasons(items)) and not any(item.fault for item in items if isinstance(item, Dropped))


def test_a_time_that_is_none_is_no_date(tmp_path: Path) -> None:
    """Exports hold any text in the place of a time; rows can be stored all the same."""
    rows = []
    for number, time in enumerate(("2026-01-02T03:04:05Z", "yesterday", "\ud800", "2026-01-02\ud800"), 1):
        rows.append({"number": number, "title": "Why", "user": {"login": "a"}, "body": "It fails. " * 30, "created_at": time})
    path = tmp_path / "issues.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    opened = open_kind("issues", {"path": str(path), "repository": "o/r", "rules": {"preset": "none"}}, "spec", Setting(workers=1))
    assert [item.record.source.date for item in opened.items() if isinstance(item, Kept)] == ["2026-01-02T03:04:05Z", None, None, None]
