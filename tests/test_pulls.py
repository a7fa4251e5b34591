"""kind: pulls: one pull request in every shape, rules that fire and spare, clones, dialogues, any number of workers."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

import fuzz_pulls
import pull_rows
import repositories
from data_prep.kinds import Opened, Setting, open_kind
from data_prep.pull_changes import FileChange
from data_prep.pull_documents import Comment, Diff, ReviewComment, Status, parse_pull, render_pull
from data_prep.pull_objects import read_time
from data_prep.pull_rules import file_fault, rules_of
from data_prep.records import Dropped, Item, Kept
from fuzzing import outcome_of
from hostile import write_tokenizer
from preparing import assert_conserved, run
from starchat.errors import UserError

PLAIN = {"preset": "own", "whole_base_fraction": 0.0, "max_window_lines": 0, "max_context_lines": 3}
BEGIN = (
    "<pr>Title: Add adds its arguments\nusername_0: It subtracted so far, which twice showed. Thanks to @username_1."
    "<pr_status>opened<repo_name>acme/tool<pr_base><pr_file>src/add.py<pr_base_code>\n\ndef add(a, b):\n    return a - b\n\n\ndef twice(a):"
)
HUNK = "@@ -1,7 +1,7 @@\n \n \n def add(a, b):\n-    return a - b\n+    return a+b"
FIRST_DIFF = f"<pr_diff><pr_file>src/add.py<pr_diff_hunk>{HUNK}\n \n \n def twice(a):"
LAST_DIFF = FIRST_DIFF.replace("a+b", "a + b")
COMMENT_HUNK = "<pr_diff_hunk>@@ -1,7 +1,7 @@ import sys\n \n \n def add(a, b):\n-    return a - b\n+    return a+b"
TALK = (
    "<pr_comment>username_2: I hit this last week as well.<pr_event_id>70<pr_status>created"
    "<pr_review>username_3: Right, but see below.<pr_event_id>50<pr_review_state>changes_requested"
    "<pr_review_comment><pr_event_id>60<pr_in_reply_to_review_id>50<pr_file>src/add.py<pr_diff_hunk_comment_line>5"
    f"{COMMENT_HUNK}<pr_comment>username_3: Please put spaces around the plus, as PEP 8 has it."
    "<pr_review_comment><pr_event_id>61<pr_in_reply_to_comment_id>60<pr_file>src/add.py<pr_diff_hunk_comment_line>5"
    f"{COMMENT_HUNK}<pr_comment>username_0: Done, @username_3; thank you for it."
)
END = "<pr_review>username_3<pr_event_id>51<pr_review_state>approved<pr>username_3<pr_status>closed<pr_is_merged>True"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("starcoder2")
    write_tokenizer(folder, "starcoder2")
    return str(folder)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("clone")
    return folder, pull_rows.make_clone(folder)


@pytest.fixture
def build(tokenizer: str, tmp_path: Path) -> Any:
    """What becomes of rows, or of what a mapping names."""

    def built(rows: list[Any] | None = None, workers: int = 1, **keys: Any) -> list[Item]:
        path = {} if rows is None else {"path": pull_rows.write(tmp_path / "rows.jsonl", rows)}
        opened = open_kind("pulls", {"rules": PLAIN, **path, **keys}, "spec", Setting(tokenizer, workers=workers))
        return list(opened.items())

    return built


def text_of(item: Item) -> str:
    assert isinstance(item, Kept), item
    return "".join(part.marker + part.text for part in item.record.parts)


def reasons(items: list[Item]) -> list[str]:
    return ["kept" if isinstance(item, Kept) else item.reason for item in items]


def changed(row: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    row = copy.deepcopy(row)
    inner: Any = row
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return row


def test_a_row_of_rest_to_the_character(build: Any) -> None:
    (item,) = build([pull_rows.pull_row()])
    assert text_of(item) == BEGIN + LAST_DIFF + TALK + END
    assert item.repairs == ("final_diff", "base_from_patch")
    source = item.record.source
    assert (source.place[-12:], source.repository, source.commit) == ("rows.jsonl:1", "acme/tool", "c" * 40)
    assert (source.url, item.record.license) == ("https://github.com/acme/tool/pull/7", "MIT")


def test_a_folder_of_rows_that_lie_apart(build: Any, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    for name, rows in pull_rows.apart(pull_rows.pull_row()).items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=1))
    (item,) = build(path=str(folder))
    assert text_of(item) == BEGIN + LAST_DIFF + TALK + END


def test_graphql_tells_the_same(build: Any) -> None:
    (item,) = build([pull_rows.graphql_row()])
    assert text_of(item) == (BEGIN + LAST_DIFF + TALK + END).replace("61<pr_in", "61<pr_in_reply_to_review_id>50<pr_in")


@pytest.mark.parametrize("shape", ["events", "webhooks"])
def test_events_show_the_states_that_a_clone_knows(shape: str, build: Any, clone: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    rows = pull_rows.with_commits(getattr(pull_rows, shape)(), clone[1])
    (item,) = build(rows, clone=str(clone[0]))
    assert text_of(item) == BEGIN + FIRST_DIFF + TALK + LAST_DIFF + END
    assert item.repairs == ("binary_file",)
    shuffled = rows[::-1] + rows
    assert text_of(build(shuffled, clone=str(clone[0]))[0]) == text_of(item), "neither order nor repetition matters"
    packed = tmp_path / "2024-05-01-10.json.gz"
    packed.write_bytes(gzip.compress(Path(pull_rows.write(tmp_path / "plain.jsonl", rows)).read_bytes()))
    assert text_of(build(path=str(packed), clone=str(clone[0]))[0]) == text_of(item)


def test_an_archive_of_graphql_finds_the_lines_of_its_comments(build: Any, clone: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive = pull_rows.with_commits(pull_rows.archive(), clone[1])
    (tmp_path / "archive.json").write_text(json.dumps(archive, indent=2))
    (item,) = build(path=str(tmp_path / "archive.json"), clone=str(clone[0]))
    (comment,) = [event for event in parse_pull(item.record.parts).events if isinstance(event, ReviewComment)]
    assert (comment.author, comment.path, comment.line, comment.review) == ("username_2", "src/add.py", 5, "50")
    assert "located_comment" in item.repairs
    archive["pulls"][0]["reviews"][0]["commit"]["abbreviatedOid"] = clone[1]["a"][:9]
    (tmp_path / "archive.json").write_text(json.dumps(archive))
    (item,) = build(path=str(tmp_path / "archive.json"), clone=str(clone[0]))
    (comment,) = [event for event in parse_pull(item.record.parts).events if isinstance(event, ReviewComment)]
    assert (comment.path, comment.line, comment.hunk) == (None, 5, None), "two files changed, one of them binary"
    assert "comment_without_path" in item.repairs and "located_comment" not in item.repairs
    (item,) = build(path=str(tmp_path / "archive.json"), clone=str(clone[0]), repository="x/y")
    assert item.record.source.repository == "acme/tool", "what the rows say counts before the spec"


def test_a_position_is_enough_where_one_file_changed(build: Any, tmp_path: Path) -> None:
    repositories.new(tmp_path / "r")
    base = repositories.commit(tmp_path / "r", "Begin", {"a.md": "\n".join(f"line {n} of it" for n in range(40))})
    text = "\n".join(f"line {n} of it" + " !" * (n in (5, 30)) for n in range(40))
    head = repositories.commit(tmp_path / "r", "Change", {"a.md": text})
    archive = pull_rows.with_commits(pull_rows.archive(), {"b": base, "a": head, "d": head, "c": "e" * 40})
    archive["pulls"][0]["reviews"][0]["comments"][0]["originalPosition"] = 8 + 1 + 5
    (tmp_path / "archive.json").write_text(json.dumps(archive))
    (item,) = build(path=str(tmp_path / "archive.json"), clone=str(tmp_path / "r"))
    comment = next(event for event in parse_pull(item.record.parts).events if isinstance(event, ReviewComment))
    assert comment.path == "a.md" and comment.hunk is not None
    assert comment.hunk.split("\n")[-1] == "+line 30 of it !"
    assert "located_comment" in item.repairs


@pytest.mark.parametrize(
    ("fires", "spares", "reason"),
    [
        ((("user", "type"), "Bot"), (("user", "login"), "talbot"), "bot_opened"),
        ((("title",), "Add adds"), (("title",), "Add  adds!"), "short_title"),
        ((("title",), "Update dependencies of it"), (("title",), "Make them independent"), "title_word"),
        ((("title",), "Release 1.0 at last"), (("title",), "A prerelease at last"), "title_word"),
        ((("body",), " \n"), (("body",), "x" * 20), "no_description"),
        ((("body",), None), (("body",), "x" * 20), "no_description"),
        ((("body",), "x" * 19), (("body",), "x" * 20), "short_description"),
        ((("body",), "<!-- tell us what it does and why -->x"), (("body",), "no <!-- a --> comment in the rest"), "short_description"),
        ((("body",), "Qwiet found a hole in this code."), (("body",), "qwiet found a hole in this code."), "dropped_word"),
        ((("merged_at",), None), (("merged_at",), "2024-05-01T14:00:00Z"), "not_merged_or_approved"),
        ((("files",), []), (("files", 0, "status"), "renamed"), "no_diff"),
        ((("files", 0, "patch"), pull_rows.PATCH[:-16]), (("files", 0, "patch"), pull_rows.PATCH), "no_diff"),
        ((("files", 0, "filename"), "package-lock.json"), (("files", 0, "filename"), "packages/a.py"), "no_file_left"),
    ],
)
def test_each_rule_fires_and_spares_its_neighbour(fires: Any, spares: Any, reason: str, build: Any) -> None:
    row = pull_rows.pull_row()
    if reason == "not_merged_or_approved":
        row["reviews"][1]["state"] = "COMMENTED"
    rules = {**PLAIN, "lock_fraction": 0.0}
    bad, good = (changed(row, *path, value=value) for path, value in (fires, spares))
    assert reasons(build([bad, good], rules=rules)) == [reason, "kept"]


def test_a_person_other_than_a_bot_must_have_said_something(build: Any) -> None:
    row = pull_rows.pull_row(review_comments=[], comments=[])
    bots = copy.deepcopy(row)
    for review in bots["reviews"]:
        review["user"] = pull_rows.user("helper[bot]", "Bot")
    assert reasons(build([bots, row])) == ["no_human_response", "kept"]
    assert reasons(build([bots], rules={**PLAIN, "human_response": False})) == ["kept"]


def test_a_base_that_moved_is_set_aside(build: Any, clone: tuple[Path, dict[str, str]]) -> None:
    rows = pull_rows.events()
    rows[5]["payload"]["pull_request"]["base"] = {**rows[5]["payload"]["pull_request"]["base"], "sha": "f" * 40}
    rows[6]["payload"]["pull_request"]["base"] = {**rows[6]["payload"]["pull_request"]["base"], "sha": "0" * 40}
    rows = pull_rows.with_commits(rows, clone[1])
    assert reasons(build(rows, clone=str(clone[0]))) == ["base_changed"]
    assert reasons(build(rows, clone=str(clone[0]), rules={**PLAIN, "same_base": False})) == ["kept"]


@pytest.mark.parametrize(
    ("comment", "text", "repair"),
    [
        ("x" * 19, None, "short_comment"),
        ("x" * 20, "x" * 20, None),
        ("Look at Qwiet for more of this.", None, "dropped_word"),
        ("The Codecov report: 93 %, which is 2 % more.", "[OMITTED]CodeCov", "omitted_text"),
        ("<!-- hidden -->Shown to all who read it.", "Shown to all who read it.", "html_comment"),
        ("Keep `<!-- this -->` in the template, please.", "Keep `<!-- this -->` in the template, please.", None),
        ("It goes a --> b --> c, and not back.", "It goes a --> b --> c, and not back.", None),
        ("one\r\ntwo, and then no more than that", "one\ntwo, and then no more than that", "line_ends"),
        ("n\n" * 80 + "n", "n\n" * 60 + "[TRUNCATED]\n" + "n\n" * 19 + "n", "long_text"),
        ("n\n" * 79 + "n", "n\n" * 79 + "n", None),
        ("x" * 1001, "x" * 1000, "long_text"),
    ],
)
def test_texts(comment: str, text: str | None, repair: str | None, build: Any) -> None:
    (item,) = build([changed(pull_rows.pull_row(), "comments", 0, "body", value=comment)])
    found = [event.text for event in parse_pull(item.record.parts).events if isinstance(event, Comment)]
    assert found == ([] if text is None else [text])
    assert set(item.repairs) - {"final_diff", "base_from_patch"} == ({repair} if repair else set())


def test_bots_speak_in_the_published_preset_only(build: Any) -> None:
    row = changed(pull_rows.pull_row(), "comments", 0, "user", value=pull_rows.user("helper", "Bot"))
    own, published = (build([row], rules={**PLAIN, "preset": preset})[0] for preset in ("own", "starcoder2"))
    assert "bot_comment" in own.repairs and "last week" not in text_of(own)
    assert "last week" in text_of(published)


def test_a_long_hunk_of_a_comment_is_left_out(build: Any) -> None:
    row = pull_rows.pull_row()
    long = row["review_comments"][0]["diff_hunk"] + "\n" + "\n".join("+" + "x" * 99 for _ in range(100))
    (item,) = build([changed(row, "review_comments", 0, "diff_hunk", value=long)])
    first = next(event for event in parse_pull(item.record.parts).events if isinstance(event, ReviewComment))
    assert first.hunk == "[OMITTED]" and "long_hunk" in item.repairs


@pytest.mark.parametrize(
    ("line", "fault"),
    [("x" * 999, None), ("x" * 1000, "long_lines"), ("\\x41\\x42\\x43" * 20, "hex_file"), ("= + - * / % ( ) { }" * 20, "few_letters")],
)
def test_files_that_are_no_code_are_left_out(line: str, fault: str | None, build: Any, clone: tuple[Path, dict[str, str]]) -> None:
    row = pull_rows.pull_row()
    patch = f"@@ -1,1 +1,1 @@\n-{line}\n+ok"
    row["files"].append({"filename": "b.py", "status": "modified", "patch": patch})
    (item,) = build([row], rules={**PLAIN, "max_mean_line_chars": None})
    assert (f"<pr_file>b.py<pr_base_code>{line}" in text_of(item)) is (fault is None)
    assert (fault in item.repairs) is (fault is not None)


@pytest.mark.parametrize(
    ("base", "fault"),
    [
        ("x = 1\n" * 99_999, None),
        ("x = 1\n" * 100_000, "long_file"),
        (("x" * 99 + "\r\n") * 50, None),
        (("x" * 100 + "\n") * 50, "long_lines"),
    ],
)
def test_lines_are_counted_as_published(base: str, fault: str | None) -> None:
    rules = rules_of({"preset": "starcoder2"}, "spec")
    assert file_fault(FileChange("a.py", "a.py", (), base=base), rules) == fault


def test_length(build: Any) -> None:
    row = pull_rows.pull_row()
    size = len(text_of(build([row])[0]))
    for keys, reason in (({"min_chars": size}, "kept"), ({"min_chars": size + 1}, "too_short"), ({"max_chars": size - 1}, "too_long")):
        assert reasons(build([row], rules={**PLAIN, **keys})) == [reason]


def test_retention_keeps_about_a_hundred_of_many(build: Any) -> None:
    rows = pull_rows.numbered(400)
    items = build(rows, rules={**PLAIN, "retention": True})
    kept = reasons(items).count("kept")
    assert 160 < kept < 260, "0.52 of 400"
    assert set(reasons(items)) == {"kept", "retention"}
    assert reasons(items) == reasons(build(rows, rules={**PLAIN, "retention": True}, workers=3))


def test_windows_are_drawn_by_the_file_and_cover_the_hunks(build: Any, tmp_path: Path) -> None:
    repositories.new(tmp_path / "r")
    lines = [f"line {n} of it" for n in range(200)]
    base = repositories.commit(tmp_path / "r", "Begin", {"a.py": "\n".join(lines)})
    lines[100] = "changed"
    head = repositories.commit(tmp_path / "r", "Change", {"a.py": "\n".join(lines)})
    row = pull_rows.with_commits(pull_rows.pull_row(reviews=[], review_comments=[]), {"b": base, "a": head})
    shown = []
    for item in build(pull_rows.numbered(60, row), rules={"preset": "own"}, clone=str(tmp_path / "r")):
        pull = parse_pull(item.record.parts)
        (file,), (diff,) = pull.base, [event for event in pull.events if isinstance(event, Diff)]
        window, hunk = file.text.split("\n"), diff.files[0].hunks[0].split("\n")
        start, count = (int(number) for number in hunk[0].split()[1][1:].split(","))
        assert [line[1:] for line in hunk[1:] if line[0] in " -"] == window[start - 1 : start - 1 + count]
        assert 3 <= hunk[1:].index("-line 100 of it") <= 10
        shown.append(len(window))
    assert 4 < shown.count(200) < 22, "a fifth is shown whole"
    assert max(size for size in shown if size < 200) <= 65 and min(shown) >= 7


def test_hunks_of_a_patch_without_context_have_numbers_from_one(build: Any) -> None:
    patch = "@@ -2,2 +2,3 @@\n a\n+b\n c\n@@ -40,2 +41,2 @@\n d\n-e\n+f"
    row = pull_rows.pull_row(reviews=[], review_comments=[], files=[{"filename": "a.py", "patch": patch}])
    (item,) = build([row], rules={**PLAIN, "min_context_lines": 0, "max_context_lines": 0})
    diff = next(event for event in parse_pull(item.record.parts).events if isinstance(event, Diff))
    assert diff.files[0].hunks == ("@@ -0,0 +1,1 @@\n+b", "@@ -39,1 +40,1 @@\n-e\n+f")


def test_a_renamed_file_is_named_as_lost_and_others_are_left_out(build: Any, tmp_path: Path) -> None:
    clone = repositories.new(tmp_path / "r")
    text = "\n".join(f"line {n} of it" for n in range(30))
    begin = {"old.py": text, "moved.py": "a\n" * 40, 'we"ird\tname.py': "x = 1\n", "latin.py": b"caf\xe9\n", "gone.py": "y = 2\n"}
    base = repositories.commit(clone, "Begin", begin)
    (clone / "link").symlink_to("gone.py")
    files = {"old.py": None, "new.py": text.replace("line 5 ", "line five "), "moved.py": None, "moved2.py": "a\n" * 40}
    odd = {'we"ird\tname.py': "x = 2\n", "latin.py": b"caf\xe8\n", "gone.py": None, "added.py": "z = 3", "empty.py": ""}
    head = repositories.commit(clone, "Change", {**files, **odd})
    row = pull_rows.with_commits(pull_rows.pull_row(reviews=[], review_comments=[]), {"b": base, "a": head})
    (item,) = build([row], clone=str(clone), rules={**PLAIN, "whole_base_fraction": 1.0})
    pull = parse_pull(item.record.parts)
    diff = next(event for event in pull.events if isinstance(event, Diff))
    assert {file.path: file.hunks for file in diff.files if file.path != "new.py"} == {
        "added.py": ("@@ -0,0 +1,1 @@\n+z = 3\n\\ No newline at end of file",),
        "gone.py": ("@@ -1,1 +0,0 @@\n-y = 2",),
        'we"ird\tname.py': ("@@ -1,1 +1,1 @@\n-x = 1\n+x = 2",),
    }
    assert [file.path for file in pull.base] == ["gone.py", "new.py", 'we"ird\tname.py']
    assert set(item.repairs) == {"lost_rename", "renamed_only", "undecodable_file", "not_a_file", "no_line_changed"}


def test_states_on_another_base_are_left_out(build: Any, tmp_path: Path) -> None:
    clone = repositories.new(tmp_path / "r")
    base = repositories.commit(clone, "Begin", {"src/add.py": pull_rows.BASE})
    repositories.git(clone, "checkout", "-q", "-b", "fix")
    first = repositories.commit(clone, "Add adds", {"src/add.py": pull_rows.FIRST})
    repositories.git(clone, "checkout", "-q", "main")
    moved = repositories.commit(clone, "Go on", {"src/add.py": f"# head\n{pull_rows.BASE}", "other.py": "x = 1\n"})
    repositories.git(clone, "checkout", "-q", "fix")
    repositories.git(clone, "merge", "-q", "--no-ff", "-m", "Merge main", "main")
    second = repositories.commit(clone, "Spaces", {"src/add.py": f"# head\n{pull_rows.SECOND}"})
    row = pull_rows.with_commits(pull_rows.pull_row(), {"b": moved, "d": first, "a": second})
    (item,) = build([row], clone=str(clone))
    assert base != moved and "base_moved" in item.repairs
    assert text_of(item) == BEGIN + FIRST_DIFF + TALK + END


def test_the_merge_commit_stands_in_for_heads_that_were_not_fetched(build: Any, clone: tuple[Path, dict[str, str]]) -> None:
    known = {letter: commit for letter, commit in clone[1].items() if letter in "bc"}
    row = pull_rows.with_commits(pull_rows.pull_row(files=[], changed_files=2), known)
    (item,) = build([row], clone=str(clone[0]))
    assert "merge_commit_diff" in item.repairs
    assert text_of(item) == BEGIN + LAST_DIFF + TALK + END
    assert reasons(build([{**row, "changed_files": 5}], clone=str(clone[0]))) == ["merge_commit_differs"]
    (lost,) = build([pull_rows.pull_row(files=[])], clone=str(clone[0]))
    assert isinstance(lost, Dropped) and lost.reason == "no_diff" and "fetch refs/pull/*/head" in lost.detail


def test_trimmed_payloads_are_set_aside_by_name(build: Any) -> None:
    rows = pull_rows.events()
    for row in rows:
        if "pull_request" in row["payload"]:
            told = row["payload"]["pull_request"]
            row["payload"]["pull_request"] = {key: told[key] for key in ("number", "url", "head", "base")}
    assert reasons(build([row for row in rows if row["type"] != "IssueCommentEvent"])) == ["trimmed_payload"]
    assert reasons(build([rows[2]], rules={**PLAIN, "merged_or_approved": False})) == ["no_diff"], (
        "an issue comment still carries title and text"
    )
    comments = pull_rows.apart(pull_rows.pull_row())["review_comments"]
    assert reasons(build(comments)) == ["no_pull_request"]


def test_hours_are_read_in_order_of_time_not_of_names(build: Any, clone: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """GHArchive's hour 9 stands behind its hour 10 where names are sorted."""
    rows = pull_rows.with_commits(pull_rows.events(), clone[1])
    for row in rows[3:8]:
        row["payload"]["pull_request"] |= {"title": "Another title", "merge_commit_sha": None}
    (wanted,) = build(rows, clone=str(clone[0]))
    assert text_of(wanted).startswith("<pr>Title: Add adds its arguments") and wanted.record.source.commit == clone[1]["c"]
    hours = tmp_path / "hours"
    hours.mkdir()
    pull_rows.write(hours / "2024-05-01-9.jsonl", rows[:3])
    pull_rows.write(hours / "2024-05-01-10.jsonl", rows[3:])
    (item,) = build(path=str(hours), clone=str(clone[0]))
    assert text_of(item) == text_of(wanted) and item.record.source.commit == wanted.record.source.commit


def test_times_without_a_zone_are_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 10: not in the zone of the machine."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert read_time("2024-05-01T10:00:00") == "2024-05-01T10:00:00Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_titles_that_were_edited_name_nobody(build: Any) -> None:
    rows = pull_rows.webhooks()
    edited = copy.deepcopy(next(row for row in rows if row.get("action") == "opened" or row.get("payload", {}).get("action") == "opened"))
    inner = edited.get("payload", edited)
    inner["action"] = "edited"
    inner["pull_request"] |= {"title": "Add adds,  as @bob-dev and @eve-dev asked", "updated_at": "2024-05-01T10:10:00Z"}
    patch = {"filename": "src/add.py", "patch": pull_rows.PATCH, "pull_request_url": pull_rows.pull_row()["url"]}
    (item,) = build([*rows, edited, patch], rules={**PLAIN, "max_title_chars": 38})
    (event,) = [event for event in parse_pull(item.record.parts).events if isinstance(event, Status) and event.action == "edited"]
    assert event.title == "Add adds, as @username_2 and @username"
    assert "long_title" in item.repairs


def test_deleted_and_edited_comments(build: Any) -> None:
    rows = pull_rows.webhooks()
    gone, edited = copy.deepcopy(rows[4]), copy.deepcopy(rows[1])
    assert gone["comment"]["id"] == 61 and edited["payload"]["comment"]["id"] == 70
    gone["action"] = "deleted"
    edited["payload"] |= {"action": "edited", "comment": {**edited["payload"]["comment"], "body": "I hit this two weeks ago."}}
    patch = {"filename": "src/add.py", "patch": pull_rows.PATCH, "pull_request_url": pull_rows.pull_row()["url"]}
    (item,) = build([*rows, gone, edited, patch])
    events = parse_pull(item.record.parts).events
    assert [event.text for event in events if isinstance(event, Comment)] == ["I hit this two weeks ago."]
    assert [event.id for event in events if isinstance(event, ReviewComment)] == ["60"]
    assert "deleted_comment" in item.repairs


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"foo": 1}, "wrong_type"),
        ({"filename": "a.py", "patch": "@@ -1 +1 @@"}, "wrong_type"),
        ([1], "wrong_type"),
        ("not JSON", "wrong_type"),
        (pull_rows.pull_row(body=5), "wrong_type"),
        (pull_rows.pull_row(reviews=[5]), "wrong_type"),
        (pull_rows.apart(pull_rows.pull_row())["reviews"][0], "wrong_type"),
    ],
)
def test_malformed_rows_are_faults(row: Any, reason: str, build: Any, tmp_path: Path) -> None:
    many = pull_rows.numbered(60)
    items = build([*many, row, *many])
    assert reasons(items) == ["kept"] * 60 + [reason] + ["kept"] * 60
    assert items[60].fault and items[60].place.endswith(":61")
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in many) + b'{"number": 1, \n\xff\n\n')
    assert [item.reason for item in build(path=str(path))[60:]] == ["invalid_json", "invalid_utf8"]


@pytest.mark.parametrize("space", [b"\x0c", b"\x0b"])
def test_white_space_that_is_none_in_json_may_stand_around_a_line(space: bytes, build: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(space + json.dumps(row).encode() + space + b"\n" for row in pull_rows.numbered(2)))
    assert reasons(build(path=str(path))) == ["kept", "kept"]


@pytest.mark.parametrize("before", [b"", b"\n\n", b"\xef\xbb\xbf", b"damaged\n", b"[\n"])
def test_lines_under_the_name_of_json(before: bytes, build: Any, tmp_path: Path) -> None:
    path = tmp_path / "hour.json"
    path.write_bytes(before + b"\n\n".join(json.dumps(row).encode() for row in pull_rows.numbered(3)))
    items = build(path=str(path))
    assert reasons(items) == ["invalid_json"] * (before in (b"damaged\n", b"[\n")) + ["kept"] * 3
    path.write_bytes(json.dumps(pull_rows.numbered(3), indent=1).encode()[:-300])
    with pytest.raises(UserError, match="not valid JSON"):
        build(path=str(path))


def suggestion(row: dict[str, Any], body: str, **keys: Any) -> dict[str, Any]:
    row = copy.deepcopy(row)
    row["review_comments"][0] |= {"body": body, "diff_hunk": pull_rows.HUNK.replace("a+b", "a + b"), **keys}
    return row


def turns(item: Item) -> list[tuple[str, str]]:
    assert isinstance(item, Kept), item
    return [(turn.role, turn.content) for turn in item.record.turns]


REQUEST = (
    "Review this pull request.\n\nAdd adds its arguments\n\nIt subtracted so far, which twice showed. Thanks to @username_1.\n\n"
    "```diff\n--- a/src/add.py\n+++ b/src/add.py\n@@ -2,7 +2,7 @@\n \n \n def add(a, b):\n-    return a - b\n+    return a + b\n \n \n"
    " def twice(a):\n```"
)
SUGGESTED = "Say what it returns here.\n```suggestion\n    return int(a + b)\n```\n"
CHANGE = "```diff\n-    return a + b\n+    return int(a + b)\n```"


def test_a_review_and_its_suggestion_as_a_dialogue(build: Any) -> None:
    row = suggestion(pull_rows.pull_row(), SUGGESTED)
    (item,) = build([row], view="dialogue")
    quoted = "`src/add.py`, line 5:\n\n```diff\n+    return a + b\n```\n\nSay what it returns here."
    assert turns(item) == [
        ("user", REQUEST),
        ("assistant", f"Right, but see below.\n\n{quoted}"),
        ("user", "Make the change that your comment on `src/add.py`, line 5 asks for."),
        ("assistant", CHANGE),
    ]
    (item,) = build([row], view="dialogue", task="review")
    assert turns(item)[1:] == [("assistant", f"Right, but see below.\n\n{quoted}\n\nSuggested change:\n\n{CHANGE}")]
    (item,) = build([row], view="dialogue", task="suggest")
    assert turns(item)[1] == ("assistant", CHANGE)
    assert turns(item)[0][1].endswith("+    return a + b\n```\n\nMake the change that the comment asks for.")
    (item,) = build([suggestion(row, SUGGESTED.partition("\n")[2] + "(tested)", original_start_line=4, original_line=5)], view="dialogue")
    assert "-def add(a, b):\n-    return a + b\n+    return int(a + b)" in turns(item)[-1][1], "lines that a comment spans go with it"


def test_a_suggestion_of_what_stands_there_says_nothing(build: Any) -> None:
    row = suggestion(pull_rows.pull_row(), "```suggestion\n    return a + b\n```")
    assert reasons(build([row], view="dialogue")) == ["no_review_comment"]


def test_a_file_that_an_export_tells_twice_is_shown_once(build: Any) -> None:
    row = suggestion(pull_rows.pull_row(), SUGGESTED)
    twice = {**row, "files": 2 * row["files"]}
    assert [turns(item) for item in build([twice], view="dialogue")] == [turns(item) for item in build([row], view="dialogue")]


def test_a_file_that_goes_is_compared_with_nothing(build: Any, tmp_path: Path) -> None:
    patch = "@@ -1 +0,0 @@\n-x = 1"
    row = suggestion(pull_rows.pull_row(), SUGGESTED)
    row["files"].append({"filename": "old.py", "status": "removed", "patch": patch})
    (item,) = build([row], view="dialogue")
    assert "--- a/old.py\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-x = 1\n" in turns(item)[0][1]


def test_a_suggestion_for_an_unknown_number_of_lines_stays_a_comment(build: Any) -> None:
    row = pull_rows.graphql_row()
    comment = row["reviews"]["nodes"][0]["comments"]["nodes"][0]
    comment |= {"body": SUGGESTED, "diffHunk": pull_rows.HUNK.replace("a+b", "a + b")}
    (item,) = build([row], view="dialogue")
    assert len(turns(item)) == 2 and turns(item)[1][1].endswith("```suggestion\n    return int(a + b)\n```")
    comment |= {"originalStartLine": None, "originalLine": 5}
    (item,) = build([row], view="dialogue")
    assert turns(item)[-1] == ("assistant", CHANGE)


def test_what_the_author_made_of_a_comment_is_its_follow_up(build: Any, clone: tuple[Path, dict[str, str]]) -> None:
    row = pull_rows.with_commits(pull_rows.pull_row(files=[]), clone[1])
    (item,) = build([row], view="dialogue", clone=str(clone[0]))
    assert "+    return a+b" in turns(item)[0][1], "the state is shown on which the comment was made"
    assert turns(item)[2:] == [
        ("user", "Make the change that your comment on `src/add.py`, line 5 asks for."),
        ("assistant", "```diff\n-    return a+b\n+    return a + b\n```"),
    ]


def test_what_came_from_the_base_is_no_follow_up(build: Any, tmp_path: Path) -> None:
    clone = repositories.new(tmp_path / "r")
    repositories.commit(clone, "Begin", {"src/add.py": pull_rows.BASE})
    repositories.git(clone, "checkout", "-q", "-b", "fix")
    first = repositories.commit(clone, "Add adds", {"src/add.py": pull_rows.FIRST})
    repositories.git(clone, "checkout", "-q", "main")
    moved = repositories.commit(clone, "Go on", {"src/add.py": pull_rows.BASE.replace("twice(a):", "twice(a: int):")})
    repositories.git(clone, "checkout", "-q", "fix")
    repositories.git(clone, "merge", "-q", "--no-ff", "-m", "Merge main", "main")
    second = repositories.git(clone, "rev-parse", "HEAD")
    row = pull_rows.with_commits(pull_rows.pull_row(files=[]), {"b": moved, "d": first, "a": second})
    row["review_comments"][0] |= {"diff_hunk": f"{pull_rows.HUNK}\n \n \n def twice(a):", "original_position": 8}
    (item,) = build([row], view="dialogue", clone=str(clone))
    assert len(turns(item)) == 2, "somebody else changed that line"


@pytest.mark.parametrize(
    "keys",
    [
        {"in_reply_to_id": 1},
        {"user": pull_rows.user("ann-dev")},
        {"user": pull_rows.user("helper[bot]")},
        {"body": "As @dan-dev said, this is what it does."},
        {"body": "LGTM"},
        {"path": "src/other.py"},
        {"diff_hunk": pull_rows.HUNK},
        {"diff_hunk": "nonsense"},
        {"diff_hunk": pull_rows.HUNK.partition("\n def")[0]},
    ],
)
def test_what_is_no_review_is_no_dialogue(keys: dict[str, Any], build: Any) -> None:
    row = suggestion(pull_rows.pull_row(), "Say what it returns here.")
    assert reasons(build([row], view="dialogue")) == ["kept"]
    row["review_comments"][0] |= keys
    assert reasons(build([row], view="dialogue")) == ["no_review_comment"]


def test_a_second_comment_on_a_line_is_talk(build: Any) -> None:
    row = suggestion(pull_rows.pull_row(), "Say what it returns here.")
    row["review_comments"][1] = {
        **row["review_comments"][0],
        "id": 62,
        "body": "Oh, it says so, never mind.",
        "created_at": "2024-05-01T12:00:00Z",
    }
    (item,) = build([row], view="dialogue")
    assert "never mind" not in turns(item)[1][1] and "Say what" in turns(item)[1][1]


def test_any_number_of_workers_gives_the_same(build: Any, clone: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    rows = pull_rows.numbered(600)
    told = json.dumps(pull_rows.with_commits(pull_rows.events(), clone[1]))
    events = [event for number in range(12) for event in json.loads(told.replace("acme/tool", f"acme/tool{number}"))]
    folder = tmp_path / "hours"
    folder.mkdir()
    for part in range(4):
        pull_rows.write(folder / f"{part}.jsonl", events[part::4])
    for rows_given, keys in ((rows, {}), (None, {"path": str(folder), "clone": str(clone[0]), "view": "dialogue"})):
        one, three = (build(rows_given, workers, **keys) for workers in (1, 3))
        assert one == three
        assert reasons(one) == ["kept"] * (600 if rows_given else 12)


def test_commits_that_were_fetched_make_another_input(clone: tuple[Path, dict[str, str]], tokenizer: str, tmp_path: Path) -> None:
    """What the reason `no_diff` asks for makes the dataset anew, though HEAD is the same."""
    mapping = {"path": pull_rows.write(tmp_path / "rows.jsonl", [pull_rows.pull_row()]), "clone": str(tmp_path / "r")}
    repositories.git(tmp_path, "clone", "-q", str(clone[0]), "r")
    before = open_kind("pulls", mapping, "spec", Setting(tokenizer, workers=1)).inputs()
    repositories.git(tmp_path / "r", "update-ref", "refs/pull/7/head", clone[1]["a"])
    assert open_kind("pulls", mapping, "spec", Setting(tokenizer, workers=1)).inputs() != before


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path": "absent.jsonl"}, "absent.jsonl: no such file or folder"),
        ({"path": "acme/absent"}, "acme/absent: no such file or folder"),
        ({"clone": "/"}, "clone: /: no git repository; name the root of a clone"),
        ({"rules": {"preset": "starcoder"}}, "rules.preset: 'starcoder'; did you mean 'starcoder2'"),
        ({"rules": {"min_tile": 1}}, "rules: unknown key 'min_tile'"),
        ({"rules": {"lock_fraction": 2}}, "rules.lock_fraction: 2.0; expected a number from 0 to 1"),
        ({"rules": {"min_context_lines": 9, "max_context_lines": 3}}, "expected numbers from 0 to 100, in order"),
        ({"task": "praise"}, "task: 'praise'"),
        ({"tokenizer": "nano"}, "tokenizer nano: has no token <pr>"),
    ],
)
def test_what_the_user_must_change(keys: dict[str, Any], message: str, tokenizer: str, tmp_path: Path) -> None:
    mapping = {"path": pull_rows.write(tmp_path / "rows.jsonl", [pull_rows.pull_row()]), **keys}
    setting = Setting(mapping.pop("tokenizer", tokenizer), workers=1)
    with pytest.raises(UserError) as error:
        open_kind("pulls", mapping, "spec", setting)
    assert message in str(error.value)


def test_a_file_without_a_pull_request_is_refused(tokenizer: str, tmp_path: Path) -> None:
    push = [event for event in pull_rows.events() if event["type"] == "PushEvent"]
    with pytest.raises(UserError, match="no row of a pull request is in it"):
        open_kind("pulls", {"path": pull_rows.write(tmp_path / "a.jsonl", push)}, "spec", Setting(tokenizer, workers=1))
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="read from JSON or JSON Lines"):
        open_kind("pulls", {"path": str(tmp_path / "b.csv")}, "spec", Setting(tokenizer, workers=1))


def test_a_named_format_is_held_to(build: Any) -> None:
    assert reasons(build([pull_rows.pull_row()], format="rest")) == ["kept"]
    assert reasons(build([pull_rows.pull_row()], format="graphql")) == ["wrong_type"]


@pytest.mark.parametrize(("license", "found"), [("MIT", "MIT"), ("NOASSERTION", None), ("\ud800", None), (5, None), (None, None)])
def test_the_licence_is_an_spdx_id_or_not_known(license: Any, found: str | None, build: Any) -> None:
    (item,) = build([changed(pull_rows.pull_row(), "base", "repo", "license", "spdx_id", value=license)])
    assert item.record.license == found
    (item,) = build([pull_rows.pull_row()], license="Apache-2.0")
    assert item.record.license == "Apache-2.0"


def test_a_dataset_is_prepared_of_pull_requests(tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pull_rows.write(tmp_path / "rows.jsonl", [*pull_rows.numbered(5), pull_rows.pull_row(title="Short")])
    manifest = run({"kind": "pulls", "path": "rows.jsonl", "rules": PLAIN}, tokenizer=tokenizer)
    assert_conserved(manifest)
    assert (manifest["counts"]["kept"], manifest["counts"]["dropped"]) == (5, {"short_title": 1})
    assert manifest["counts"]["sources"][0]["format"] == "rest"
    assert manifest["spec"]["sources"][0]["rules"]["min_title_chars"] == 10


def test_the_table_of_shapes_is_named(tokenizer: str, tmp_path: Path) -> None:
    def format_of(rows: list[Any]) -> str:
        opened: Opened = open_kind("pulls", {"path": pull_rows.write(tmp_path / "a.jsonl", rows)}, "s", Setting(tokenizer, workers=1))
        return opened.format

    found = [format_of(rows) for rows in (pull_rows.events(), pull_rows.webhooks(), [pull_rows.pull_row()], [pull_rows.graphql_row()])]
    assert found == ["gharchive", "webhooks", "rest", "graphql"]


@pytest.mark.skipif("STARCHAT_REAL_EVENTS" not in os.environ, reason="STARCHAT_REAL_EVENTS names no file of webhook payloads")
def test_real_payloads(build: Any) -> None:
    items = build(path=os.environ["STARCHAT_REAL_EVENTS"], rules={"preset": "none"})
    assert items and all(isinstance(item, Dropped) and item.reason in ("no_diff", "no_pull_request") for item in items)
    talks = build(path=os.environ["STARCHAT_REAL_EVENTS"], rules={"preset": "none"}, view="dialogue", task="suggest")
    assert len(talks) == len(items)


def test_mutants(tmp_path: Path) -> None:
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        mapping = fuzz_pulls.mutant(random.Random(f"test:{number}"), folder)
        setting = Setting(mapping["tokenizer"], workers=1)
        outcome_of({**mapping}, "pulls", number)
        if mapping["view"] == "document" and number % 2:
            del mapping["tokenizer"]
            with contextlib.suppress(UserError):
                kept = [item.record for item in open_kind("pulls", mapping, "fuzz", setting).items() if isinstance(item, Kept)]
                assert all(render_pull(parse_pull(record.parts), setting.family).parts == record.parts for record in kept)


def test_a_closing_stands_in_for_one_that_was_not_told(build: Any) -> None:
    (item,) = build([pull_rows.pull_row(merged_by=None, merged_at=None)])
    assert parse_pull(item.record.parts).events[-1] == Status("closed", "", merged=False)
