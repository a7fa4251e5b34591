"""Requests not to be trained on: every form in which they come, names in other cases, former names, and whom they reach."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.github_names import name_of
from data_prep.kinds import Setting, open_kind
from data_prep.opt_out import Request, connected, names_its_owner, open_opt_outs, read_former_names, read_requests
from data_prep.opt_out_issues import names_asked
from data_prep.prepare import summary
from data_prep.records import Kept
from preparing import chat, run, write_rows
from starchat.dialogue import Source
from starchat.errors import UserError
from tests.repositories import commit, new

FORM = """### Accounts and organizations to remove ENTIRELY

Ada
old-ada

### Specific repositories to remove

Some-Org/Engine
https://github.com/other/thing.git

### Optional - a link that helps confirm this is you/yours

https://github.com/not/asked
"""


def test_text_lists_skip_blank_lines_and_comments(tmp_path: Path) -> None:
    """Names, repositories and addresses stand on lines of their own."""
    path = tmp_path / "list.txt"
    path.write_text(
        "\ufeff# asked in spring\n\nAda\n  \nBob/Engine  # one only\nhttps://github.com/carol/\ngit@github.com:dan/x.git\n",
        encoding="utf-8",
    )
    assert [(found.name, found.place) for found in read_requests(str(path)) if not isinstance(found, str)] == [
        ("ada", f"{path}:3"),
        ("bob/engine", f"{path}:5"),
        ("carol", f"{path}:6"),
        ("dan/x", f"{path}:7"),
    ]


@pytest.mark.parametrize("line", ["ada*", "*/engine", "a/b/c", "please remove me", "ada engine", "-ada", "x" * 41])
def test_a_line_that_names_nobody_is_an_error(tmp_path: Path, line: str) -> None:
    """A request that is not understood must not be lost."""
    path = tmp_path / "list.txt"
    path.write_text(f"bob\n{line}\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"list\.txt:2: .* names no account or repository; expected a name, or owner/repository, without wildcards"
    ):
        list(read_requests(str(path)))


def test_everything_of_an_owner_may_be_written_with_a_star() -> None:
    """``owner/*`` is the one pattern that has a plain meaning."""
    assert name_of("Ada/*") == "ada"


def test_the_form_names_accounts_and_repositories() -> None:
    """The two boxes count, the link that proves something does not."""
    assert names_asked("Ada", FORM)[0] == ["ada", "old-ada", "some-org/engine", "other/thing"]
    one_box = FORM.replace("Ada\nold-ada", "_No response_")
    assert names_asked("Ada", one_box)[0] == ["some-org/engine", "other/thing"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I request that the following data is removed from The Stack:\n\n - all\n\n_Note_: edit the list above.", ["ada"]),
        ("Please remove:\r\n\r\n- Ada/engine\r\n- notes\r\n* tools.py\r\n", ["ada/engine", "ada/notes", "ada/tools.py"]),
        ("- Ada\n", ["ada"]),
        ("- `All`\n- ada/engine", ["ada", "ada/engine"]),
        ("I never agreed to this.", ["ada"]),
        ("", ["ada"]),
        ("1. ada/one\n2) ada/two", ["ada/one", "ada/two"]),
        ("- my code, all of it, please\n", ["ada"]),
    ],
)
def test_requests_in_words(text: str, expected: list[str]) -> None:
    """A list is taken as it stands, bare names as the author's repositories; without one, everything of the author is meant."""
    assert names_asked("Ada", text)[0] == expected


@pytest.mark.parametrize(
    ("line", "expected", "unread"),
    [
        ("https://github.com/myorg/engine/tree/main\nmyorg/notes", ["myorg/engine", "myorg/notes"], []),
        ("myorg/engine, myorg/notes", ["myorg/engine", "myorg/notes"], []),
        ("myorg/a and myorg/b; myorg/c myorg/d", ["myorg/a", "myorg/b", "myorg/c", "myorg/d"], []),
        ("myorg (my company)", ["myorg"], []),
        ("[x](https://github.com/myorg/x)", ["myorg/x"], []),
        ("https://github.com/orgs/myorg", ["myorg"], []),
        ("https://gitlab.com/a/b\nmyorg/x", ["myorg/x"], ["https://gitlab.com/a/b"]),
        ("my former employer's code", ["ada"], ["my former employer's code"]),
        ("all", ["ada"], []),
        ("myorg/x # the engine", ["myorg/x"], []),
    ],
)
def test_every_entry_of_the_form_is_read_or_told(line: str, expected: list[str], unread: list[str]) -> None:
    """Several on a line, addresses of any depth, remarks; what is left over is told, and never nothing."""
    form = "### Accounts and organizations to remove ENTIRELY\n\n_No response_\n\n### Specific repositories to remove\n\n"
    assert names_asked("Ada", f"{form}{line}\n") == (expected, unread)


@pytest.mark.parametrize(
    ("text", "expected", "unread"),
    [
        ("I want out, because of\n- copyright\n- privacy", ["ada"], []),
        ("- Thanks", ["ada"], []),
        ("- https://github.com/myorg/engine/issues/7\n- [me](https://github.com/Ada)", ["myorg/engine", "ada"], []),
        ("My work:\n- myorg/engine", ["myorg/engine", "ada"], []),
        ("- ada/engine, ada/notes and tools", ["ada/engine", "ada/notes", "ada/tools"], []),
        ("- ada/engine\n- a/b/c", ["ada/engine"], ["a/b/c"]),
    ],
)
def test_a_bare_word_is_a_repository_only_beside_one(text: str, expected: list[str], unread: list[str]) -> None:
    """Reasons and thanks in a list are none, and the author is taken out unless something of theirs is named."""
    assert names_asked("Ada", text) == (expected, unread)


def test_entries_that_nobody_understood_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come with the issue that they stand in, also behind what prepare has made."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "issues.json"
    path.write_text(json.dumps([issue(1, "Ada", "- ada/engine\n- a/b/c")]), encoding="utf-8")
    opt_outs = open_opt_outs({"lists": [str(path)]}, "spec")
    told = "https://github.com/o/opt-out/issues/1: 'a/b/c' names no account or repository"
    assert opt_outs.unread == (told,)
    manifest = run({"path": write_rows("chats.jsonl", [chat("one", "1")])}, curate={"opt_out": {"lists": [str(path)]}})
    assert manifest["opt_out"]["unread"] == [told]
    assert f"\nwarning: an opt-out request that somebody must read: {told}\n" in summary(manifest)


@pytest.mark.parametrize(
    "address",
    [
        "git@github.com:Ada/engine.git",
        "ssh://git@github.com/Ada/engine.git",
        "git+https://github.com/Ada/engine",
        "https://api.github.com/repos/Ada/engine/issues/7",
        "https://raw.githubusercontent.com/Ada/engine/main/a.py",
        "https://github.com/Ada/engine/blob/main/a.py?x=1#L7",
        "HTTPS://WWW.GITHUB.COM/ADA/ENGINE",
    ],
)
def test_every_address_of_a_repository_is_its_name(tmp_path: Path, address: str) -> None:
    """As a source's repository or address, and in a list of requests."""
    path = tmp_path / "list.txt"
    path.write_text("ada/engine\n", encoding="utf-8")
    opt_outs = open_opt_outs({"lists": [str(path)]}, "spec")
    for source in (Source("x", address), Source("x", url=address)):
        assert opt_outs.match(source) is not None and names_its_owner(source)
    assert name_of(address) == "ada/engine"
    assert opt_outs.match(Source("x", address.lower().replace("ada", "eve"))) is None


def issue(number: int, login: str | None, body: str | None, **more: Any) -> dict[str, Any]:
    """Return an issue as the REST API gives it."""
    user = None if login is None else {"login": login, "type": "User"}
    url = f"https://github.com/o/opt-out/issues/{number}"
    return {"number": number, "title": "Opt-out", "user": user, "body": body, "html_url": url, "created_at": "2026-01-01T00:00:00Z", **more}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".jsonl.gz"])
def test_exports_of_an_opt_out_repository(tmp_path: Path, suffix: str) -> None:
    """Issues are requests, pull requests and questions are not; an author who is gone is reported."""
    rows = [
        issue(1, "Ada", "- all"),
        issue(2, "Bob", "- engine", labels=[{"name": "Question"}]),
        issue(3, "Carol", "x", pull_request={"url": "u"}),
        issue(4, None, "remove mine"),
        issue(5, "Dan", None),
    ]
    text = json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))
    path = tmp_path / f"issues{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    opt_outs = open_opt_outs({"lists": [str(path)]}, "spec")
    assert sorted(opt_outs.requests) == ["ada", "dan"]
    assert opt_outs.unread == ("https://github.com/o/opt-out/issues/4: its author is gone",)
    assert [entry["path"] for entry in opt_outs.described] == [str(path)]


def test_the_table_of_an_opt_out_repository(tmp_path: Path) -> None:
    """BigCode keeps processed requests as lists of owners and repositories."""
    path = tmp_path / "optouts.jsonl"
    path.write_text(json.dumps({"issue": 7, "optout_owners": ["Ada"], "optout_repos": ["Bob/Engine"]}) + "\n", encoding="utf-8")
    assert [(found.name, found.place) for found in read_requests(str(path)) if not isinstance(found, str)] == [
        ("ada", f"{path}:1"),
        ("bob/engine", f"{path}:1"),
    ]


def test_a_damaged_table_stops(tmp_path: Path) -> None:
    """A line that cannot be read might be a request."""
    path = tmp_path / "optouts.jsonl"
    path.write_text('{"optout_owners": ["ada"]}\n{"optout_own\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"optouts\.jsonl:2: .*no request may be lost"):
        list(read_requests(str(path)))


def test_whom_a_request_reaches(tmp_path: Path) -> None:
    """An account reaches all of its repositories, in any case of letters, also where only an address names them; nothing else."""
    path = tmp_path / "list.txt"
    path.write_text("ada\nbob/engine\n", encoding="utf-8")
    opt_outs = open_opt_outs({"lists": [str(path)]}, "spec")
    reached = [
        Source("x", "Ada/notes"),
        Source("x", "ADA/Engine"),
        Source("x", "Bob/ENGINE"),
        Source("x", "github.com/bob/engine.git"),
        Source("x", url="https://github.com/Ada/notes/issues/7"),
    ]
    others = [Source("x", "bob/engines"), Source("x", "bob/other"), Source("x", "adam/notes"), Source("ada"), Source("x", "notes/ada")]
    assert [opt_outs.match(source) is not None for source in (*reached, *others)] == [True] * 5 + [False] * 5


def test_former_names_are_the_same_name(tmp_path: Path) -> None:
    """A request reaches what was published under an earlier or a later name, through several renamings, owners and repositories alike."""
    former, asked = tmp_path / "names.txt", tmp_path / "list.txt"
    former.write_text("# former later\nold-ada Ada\nada countess\n\nbob/engine bob/motor\nbob robert\n", encoding="utf-8")
    asked.write_text("countess\nrobert/motor\n", encoding="utf-8")
    opt_outs = open_opt_outs({"lists": [str(asked)], "former_names": str(former)}, "spec")
    assert sorted(opt_outs.requests) == ["ada", "bob/engine", "bob/motor", "countess", "old-ada", "robert/engine", "robert/motor"]
    assert opt_outs.requests["old-ada"].place == f"{asked}:1"
    assert opt_outs.match(Source("x", "robert/other")) is None
    assert len(opt_outs.described) == 2


@pytest.mark.parametrize("line", ["ada", "ada bob/engine", "a b c"])
def test_former_names_come_in_pairs_of_one_kind(tmp_path: Path, line: str) -> None:
    """An account cannot have become a repository."""
    path = tmp_path / "names.txt"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"names\.txt:1: .*expected two accounts, or two repositories"):
        read_former_names(str(path))


def test_renamings_in_a_circle_end() -> None:
    """Names that were swapped are connected, and nothing turns for ever."""
    pairs = [("a", "b"), ("b", "a"), ("a/x", "a/y"), ("b/y", "b/x")]
    first = Request("a/x", "1")
    assert sorted(connected({first.name: first}, pairs)) == ["a/x", "a/y", "b/x", "b/y"]


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    """What is missing or no text is an error with the remedy."""
    binary = tmp_path / "list.txt"
    binary.write_bytes(b"ada\n\xff\xfe\n")
    with pytest.raises(UserError, match="byte 5 is not valid UTF-8; save the list as UTF-8"):
        open_opt_outs({"lists": [str(binary)]}, "spec")
    with pytest.raises(UserError, match="no such file"):
        open_opt_outs({"lists": [str(tmp_path / "gone.txt")]}, "spec")
    with pytest.raises(UserError, match=r"spec\.lists: is empty"):
        open_opt_outs({"lists": []}, "spec")


def test_people_are_found_where_they_only_took_part(tmp_path: Path) -> None:
    """An account reaches the issues it wrote in and the commits it made, a mail address the commits that bear it; others stay."""
    clone = new(tmp_path / "clone")
    body = "Add a loop\n\nIt was missing.\n\nCo-authored-by: Dan <12+Dan@users.noreply.github.com>\n"
    commit(clone, "Begin", {"a.py": "x = 1\n"})
    commit(clone, body, {"a.py": "x = 2\n"})
    issues = tmp_path / "issues.json"
    rows = [issue(1, "Ada", "Why does it fail? " * 20), issue(2, "Bob", "How is it done? " * 20)]
    issues.write_text(json.dumps(rows), encoding="utf-8")
    setting = Setting(workers=1)
    sources: list[dict[str, Any]] = [
        {"path": str(issues), "repository": "o/r", "rules": {"preset": "none"}},
        {"path": str(clone), "repository": "o/r", "rules": {"preset": "none"}, "view": "document"},
    ]
    found = [
        item.record.source
        for kind, mapping in zip(("issues", "commits"), sources, strict=True)
        for item in open_kind(kind, mapping, "spec", setting).items()
        if isinstance(item, Kept)
    ]
    assert [source.date for source in found] == ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2024-05-01T12:00:00Z"]
    for asked, expected in (("ADA", [True, False, False]), ("dan", [False, False, True]), ("ann@example.org", [False, False, True])):
        path = tmp_path / "asked.txt"
        path.write_text(f"{asked}\n", encoding="utf-8")
        opt_outs = open_opt_outs({"lists": [str(path)]}, "spec")
        assert [opt_outs.match(source) is not None for source in found] == expected
    assert "ada" not in json.dumps([source.people for source in found]).lower()


def test_records_that_no_request_can_reach_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the manifest, the card and the summary; nothing is dropped for it, and nothing told where there is nothing, or no list."""
    monkeypatch.chdir(tmp_path)
    rows = [{"content": f"def f{n}():\n    return {n}\n", "path": "a.py", "repo_name": name} for n, name in enumerate(["a/b", "b", None])]
    tables = {"kind": "source", "path": write_rows("files.jsonl", rows), "view": "document", "rules": {"preset": "none"}}
    chats = {"path": write_rows("chats.jsonl", [chat("one", "1"), chat("two", "2")]), "weight": 2}
    Path("list.txt").write_text("somebody\n", encoding="utf-8")
    asked = {"opt_out": {"lists": ["list.txt"]}}
    manifest = run(tables, chats, curate=asked, test_fraction=0)
    assert manifest["counts"]["kept"] == 5
    assert manifest["opt_out"] == {"records": 5, "out_of_reach": 4, "unread": []}
    told = "4 of 5 records name no repository or author; opt-outs cannot reach them"
    assert summary(manifest).split("\n")[-1] == f"warning: {told}"
    assert f"\n{told}.\n" in Path("dataset/README.md").read_text(encoding="utf-8")
    assert f"<p>{told}.</p>" in Path("dataset/card.html").read_text(encoding="utf-8")
    owned = {**tables, "repository": "c/d", "path": write_rows("more.jsonl", rows[::2])}
    for source, curate in ((chats, {}), (owned, asked)):
        manifest = run(source, overwrite=True, test_fraction=0, curate=curate)
        assert manifest.get("opt_out", {}).get("out_of_reach", 0) == 0
        assert "warning" not in summary(manifest)
        assert "reach" not in Path("dataset/README.md").read_text(encoding="utf-8")
