"""Commits from git and from CommitPack: every unit counted, windows around the change, rules seen to take and to spare."""

from __future__ import annotations

import collections
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuzz_commits
import repositories
from data_prep.changes import apply_diff
from data_prep.commit_rules import PRESETS, CommitRules, draws, path_problem, size_problem, subject_problem
from data_prep.commit_texts import Message, answer_of, read_message, shown
from data_prep.documents import parse_commit
from data_prep.kinds import Setting, open_kind
from data_prep.records import Dropped, Kept
from fuzzing import outcome_of
from hostile import write_tokenizer
from preparing import assert_conserved, digests, records, run
from repositories import history
from starchat.errors import UserError
from starchat.fences import code_blocks

LINES = "".join(f"line {n}\n" for n in range(400))
ROOT = Path(__file__).parent.parent
OFF = {"rules": {"preset": "none"}}


def items(path, workers=1, **keys):
    return list(open_kind("commits", {"path": str(path), **keys}, "spec", Setting(workers=workers)).items())


def outcomes(found):
    return collections.Counter("kept" if isinstance(item, Kept) else item.reason for item in found)


def text(item):
    return "".join(part.marker + part.text for part in item.record.parts)


@pytest.fixture
def clone(tmp_path):
    history(
        tmp_path / "tool",
        [("Begin", {"a.py": LINES}), ("Raise the limit of line 300", {"a.py": LINES.replace("line 300\n", "line three hundred\n")})],
    )
    return tmp_path / "tool"


def test_a_window_is_around_the_change(clone):
    """The published code began every window at the top of the file."""
    (added,) = [item for item in items(clone, **OFF, form="window") if isinstance(item, Dropped)]
    (edited,) = [item for item in items(clone, **OFF, form="window") if isinstance(item, Kept)]
    assert added.reason == "file_added"
    commit = parse_commit(edited.record.parts)
    assert commit.message == "Raise the limit of line 300"
    assert "line 300\n" in commit.before and "line three hundred\n" in commit.after
    assert 1 <= commit.before.count("\n") <= 65 and "line 0\n" not in commit.before
    assert commit.before.replace("line 300\n", "line three hundred\n") == commit.after
    source = edited.record.source
    assert (source.path, source.commit, source.repository) == ("a.py", repositories.git(clone, "rev-parse", "HEAD"), "tool")


def test_each_file_has_the_licence_that_the_repository_states_for_it(tmp_path):
    tagged = f"# SPDX-License-Identifier: 0BSD\n{LINES}"
    files = {"a.py": LINES, "vendor/b.py": LINES, "c.py": tagged}
    metadata = {"package.json": '{"license": "MIT"}', "vendor/package.json": '{"license": "GPL-3.0-only"}'}
    later = {name: text.replace("line 300\n", "line three hundred\n") for name, text in files.items()}
    history(tmp_path / "tool", [("Begin", files), ("Raise the limit of line 300", later), ("State the licences", metadata)])

    def licenses(**keys):
        return {i.record.source.path: i.record.license for i in items(tmp_path / "tool", **OFF, **keys) if isinstance(i, Kept)}

    assert licenses() == {"a.py": "MIT", "vendor/b.py": "GPL-3.0-only", "c.py": "0BSD"}
    assert licenses(license="Apache-2.0") == {"a.py": "Apache-2.0", "vendor/b.py": "GPL-3.0-only", "c.py": "0BSD"}
    assert licenses(ref="HEAD~1") == {"a.py": None, "vendor/b.py": None, "c.py": "0BSD"}


def test_whole_files_and_diffs(clone):
    (full,) = [i for i in items(clone, **OFF, form="full") if isinstance(i, Kept)]
    assert parse_commit(full.record.parts).before == LINES
    (diff,) = [i for i in items(clone, **OFF, form="diff") if isinstance(i, Kept)]
    commit = parse_commit(diff.record.parts)
    assert commit.after.startswith("@@ -")
    assert apply_diff(commit.before, commit.after) == commit.before.replace("line 300\n", "line three hundred\n")


def test_one_window_in_five_is_the_whole_file():
    whole = [
        shown(LINES.encode(), LINES.replace("line 9\n", "x\n").encode(), "published", draws(0, str(n), "a"), None).whole
        for n in range(2000)
    ]
    assert 0.17 < sum(whole) / len(whole) < 0.23


lines = st.lists(st.sampled_from(["a\n", "b\n", "c", "\n"]), max_size=9).map("".join)


@given(lines, lines, st.integers(), st.sampled_from(["published", "window", "full", "diff"]))
def test_a_window_holds_the_whole_change(old, new, seed, form):
    edit = shown(old.encode(), new.encode(), form, draws(seed, "c", "p"), None)
    if isinstance(edit, tuple):
        assert edit[0] == "emptied" and not new.strip()
        return
    assert old.count(edit.before) and new.count(edit.after)
    assert any(old[:n] + edit.after + old[n + len(edit.before) :] == new for n in range(len(old) + 1)), (
        "put back, the window makes the new file"
    )
    assert apply_diff(edit.before, edit.diff) == edit.after


def test_every_unit_is_counted(tmp_path):
    """One merge, one empty commit, and one unit for each file that another commit changed."""
    clone = tmp_path / "r"
    history(clone, [("Begin", {"a": "1\n", "b": "1\n", "bin": b"\0\1", "l.txt": "x\r\ny\r\n", "old name": LINES})])
    os.symlink("a", clone / "link")
    (clone / "x.sh").write_text("echo\n")
    repositories.commit(clone, "Add", {})
    (clone / "link").unlink()
    os.symlink("b", clone / "link")
    (clone / "x.sh").chmod(0o755)
    (clone / "old name").rename(clone / "new name")
    repositories.commit(clone, "Many", {"a": "2\n", "b": None, "bin": b"\0\2", "l.txt": "x\ny\n", "c": b"caf\xe9\n"})
    repositories.commit(clone, "Latin", {"c": b"th\xe9\n", "new name": LINES + "more\n"})
    repositories.commit(clone, "Nothing", {})
    repositories.git(clone, "checkout", "-q", "-b", "side", "HEAD~1")
    repositories.commit(clone, "Side", {"side": "1"})
    repositories.git(clone, "checkout", "-q", "main")
    repositories.git(clone, "merge", "-q", "--no-ff", "-m", "Join", "side")
    found = items(clone, **OFF)
    wanted = {"kept": 2, "merge": 1, "no_change": 1, "file_added": 8, "file_deleted": 1, "binary": 1, "line_ends_only": 1}
    wanted |= {"symbolic_link": 2, "mode_changed": 1, "renamed_only": 1, "not_utf8": 1}
    assert outcomes(found) == wanted
    listed = repositories.git(clone, "log", "--raw", "-M", "--no-abbrev", "--format=%H", "HEAD").split("\n")
    assert len(found) == sum(line.startswith(":") for line in listed) + 2
    kept = {(i.record.source.path, parse_commit(i.record.parts).after) for i in found if isinstance(i, Kept)}
    assert ("a", "2\n") in kept


def test_a_renamed_file_that_was_edited_is_kept_under_its_new_name(tmp_path):
    clone = repositories.new(tmp_path / "r")
    repositories.commit(clone, "Begin", {"old.py": LINES})
    (clone / "old.py").rename(clone / "new.py")
    repositories.commit(clone, "Move it", {"new.py": LINES.replace("line 5\n", "five\n")})
    (edited,) = [i for i in items(clone, **OFF) if isinstance(i, Kept)]
    assert edited.record.source.path == "new.py"


def test_submodules_and_shallow_and_partial_clones(tmp_path, clone):
    outer = repositories.new(tmp_path / "outer")
    repositories.commit(outer, "Begin", {"a": "1\n"})
    repositories.git(outer, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    repositories.git(outer, "commit", "-q", "-m", "Add a submodule")
    assert outcomes(items(outer, **OFF)) == {"submodule": 1, "file_added": 1}
    repositories.git(tmp_path, "clone", "-q", "--depth=1", clone.as_uri(), "shallow")
    assert outcomes(items(tmp_path / "shallow", **OFF)) == {"shallow_boundary": 1}
    cut_off = open_kind("commits", {"path": str(tmp_path / "shallow")}, "spec", Setting()).inputs()
    repositories.git(tmp_path / "shallow", "fetch", "-q", "--unshallow")
    assert outcomes(items(tmp_path / "shallow", **OFF)) == {"kept": 1, "file_added": 1}
    whole = open_kind("commits", {"path": str(tmp_path / "shallow")}, "spec", Setting()).inputs()
    assert cut_off != whole, "what the reason asks for makes the dataset anew, though HEAD is the same"
    repositories.git(clone, "config", "uploadpack.allowFilter", "true")
    repositories.git(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout", clone.as_uri(), "partial")
    assert outcomes(items(tmp_path / "partial", **OFF)) == {"missing_object": 1, "file_added": 1}


def test_an_empty_repository_and_wrong_keys(tmp_path, clone):
    repositories.new(tmp_path / "empty")
    with pytest.raises(UserError, match="a repository without commits"):
        items(tmp_path / "empty")
    (tmp_path / "folder").mkdir()
    for keys, message in (
        ({"path": str(tmp_path / "folder")}, "an empty folder"),
        ({"path": str(tmp_path / "absent")}, "no such file or folder"),
        ({"ref": "mian"}, "no branch, tag or commit 'mian'"),
        ({"tasks": {"sing": 1.0}}, "tasks: .*expected weights"),
        ({"tasks": {"edit": 0.0}}, "tasks: .*expected weights"),
        ({"rules": {"preset": "starcoders"}}, "did you mean 'starcoder'"),
        ({"rules": {"max_file": 3}}, "rules: unknown key 'max_file'; did you mean"),
        ({"form": "windows"}, "did you mean 'window'"),
    ):
        with pytest.raises(UserError, match=message):
            items(**{"path": clone, **keys})


def test_a_family_without_commit_tokens_is_an_error(clone, tmp_path):
    write_tokenizer(tmp_path / "base", "starcoder2")
    setting = Setting(tokenizer=str(tmp_path / "base"))
    with pytest.raises(UserError, match=r"no token <commit_before>, <commit_msg>, <commit_after>, .* view: dialogue"):
        open_kind("commits", {"path": str(clone)}, "spec", setting)
    assert open_kind("commits", {"path": str(clone), "view": "dialogue"}, "spec", setting).format == "git"


def test_messages():
    commit = b"tree 1\nencoding ISO-8859-1\n\nF\xfcr alle\n\nBody.\n\nMore.\nSigned-off-by: A <a@b>\nCo-authored-by: B <b@c>\n"
    message = read_message(commit)
    assert (message.subject, message.body) == ("Für alle", "Body.\n\nMore.")
    assert message.repairs == ("message_encoding", "trailers")
    assert read_message(b"tree 1\nencoding nonsense\n\n\xff").subject == "ÿ"
    assert read_message(b"tree 1\n\n\n\n  Late  \nnote: this stays\n").body == "note: this stays"
    assert read_message(b"").subject == ""


def test_trailers_in_the_midst_of_a_squashed_message():
    """GitHub joins the messages of all commits, trailers and all, and draws a line above its own."""
    signed, helped = "Signed-off-by:  A <a@b>", "Co-Authored By: B <b@c>"
    body = f"* One\n\n{signed}\n{helped}\n\n* Two\n\nTest: it fails.\n\n---------\n\n{signed}\n\n{helped}"
    message = read_message(f"tree 1\n\nSquash\n\n{body}\n".encode())
    assert (message.body, message.repairs) == ("* One\n\n* Two\n\nTest: it fails.", ("trailers",))
    trace = "It ends so:\n\nerror\nCaused by: an empty name\n\n---------"
    assert read_message(f"\n\nMend it\n\n{trace}".encode()) == Message("Mend it", trace)


def test_a_part_without_lines_is_no_empty_file():
    """A window may hold nothing but what is added: nothing is said of the lines around it then."""
    drawn = draws(0, "c", "p")._replace(before=0.0, after=0.0, form=0.9)
    message = Message("Add a line", "")
    for old, whole in (("a\n", False), ("", True)):
        edit = shown(old.encode(), f"{old}b\n".encode(), "window", drawn, None)
        assert (edit.before, edit.whole) == ("", whole)
        question = answer_of(edit, message, "a.py", drawn, {"edit": 1.0})[0].content
        assert question.endswith("`a.py` is empty so far.") == whole
        assert whole or question.endswith("Nothing stands there so far.")


FT = CommitRules("commitpackft", **PRESETS["commitpackft"])
SC = CommitRules("starcoder", **PRESETS["starcoder"])

SUBJECTS = {
    "message_short": ("Fix it now", "Fix the wrong sum of rows"),
    "message_long": ("Fix " + "the very long line " * 60, "Fix the very long line of it"),
    "message_says_nothing": ("Update contributing notes for new people", "Update the notes for new people"),
    "message_is_version": ("1.2.3-rc1 release of the whole thing", "Release the whole of version 1.2.3"),
    "message_merge": ("Merge branch 'a' into the main one", "Merge two loops into a single one"),
    "message_unfinished": ("Add WIP handler of new events", "Swap swipe handlers of new events"),
    "message_reference": ("Fix issue 1234 of the parser", "Fix issues found by the parser"),
    "message_personal": ("Fix what I broke last week", "Fix I/O errors on a full disk"),
    "message_not_imperative": ("Fixed the wrong sum of rows", "Fix the wrong sum of rows"),
}


@pytest.mark.parametrize("reason", SUBJECTS)
def test_each_rule_of_messages_takes_and_spares(reason):
    taken, spared = SUBJECTS[reason]
    problem = subject_problem(taken, FT)
    assert problem is not None and problem[0] == reason
    assert subject_problem(spared, FT) is None
    assert subject_problem(taken, CommitRules("none")) is None


@pytest.mark.parametrize(
    ("subject", "reason"),
    [("", "message_empty"), ("a" * 50, "message_without_words"), ("readme", "message_says_nothing"), ("v1.2.3", "message_is_version")],
)
def test_messages_of_the_starcoder_preset(subject, reason):
    assert (subject_problem(subject, SC) or ("",))[0] == reason


def test_a_version_with_a_sentence_behind_it_is_none_however_long_its_numbers_are():
    assert subject_problem("1.2.3 breaks it", SC) is None and subject_problem("1.2.34 breaks it", SC) is None


def test_names_of_files_are_words():
    """The published rule looks for ``a`` of ``a.py`` anywhere and so drops nearly every message."""
    drawn = draws(0, "c", "a.py")
    assert path_problem("src/a.py", "Python", "Handle an empty name", FT, drawn) is None
    assert path_problem("src/parser.py", "Python", "Mend parser for names", FT, drawn)[0] == "message_names_file"
    assert path_problem("p.py", "Python", "Mend it", CommitRules("none", languages=("Go",)), drawn)[0] == "language"


def shares(problem_of, count=4000):
    return sum(problem_of(draws(0, str(n), "p")) is None for n in range(count)) / count


def test_shares_are_what_is_kept():
    assert 0.46 < shares(lambda drawn: path_problem("a.json", "JSON", "Change all of the values here", SC, drawn)) < 0.54
    assert 0.46 < shares(lambda drawn: path_problem("a.py", "Python", "Few words", SC, drawn)) < 0.54
    assert shares(lambda drawn: path_problem("a.py", "Python", "Change all of the values here", SC, drawn)) == 1
    assert 0.08 < shares(lambda drawn: path_problem("a.py", "Python", "Bump the version of all parts", FT, drawn)) < 0.12
    assert 0.08 < shares(lambda drawn: size_problem(2, SC, drawn)) < 0.12
    assert 0.08 < shares(lambda drawn: size_problem(200, SC, drawn)) < 0.12
    assert shares(lambda drawn: size_problem(3, SC, drawn)) == shares(lambda drawn: size_problem(199, SC, drawn)) == 1


def test_the_newest_commit_of_a_file_is_kept(tmp_path):
    history(tmp_path / "r", [(f"Change the number to {n} here", {"a.py": f"{n}\n" * 9}) for n in range(5)])
    rules = {"preset": "none", "one_per_file": True}
    found = items(tmp_path / "r", rules=rules)
    assert outcomes(found) == {"kept": 1, "one_per_file": 3, "file_added": 1}
    assert next(text(i) for i in found if isinstance(i, Kept)).count("<commit_msg>Change the number to 4 here") == 1


def test_sizes_and_tokens(tmp_path):
    body = "def f(x):\n    return x\n\n" * 40
    history(tmp_path / "r", [("Begin", {"a.py": body, "b.py": "b\n"}), ("Change", {"a.py": body + "y = 1\n", "b.py": "c\n"})])
    assert outcomes(items(tmp_path / "r", rules={"preset": "none", "max_file_chars": 500})) == {"kept": 1, "too_large": 1, "file_added": 2}
    assert outcomes(items(tmp_path / "r", rules={"preset": "none", "max_files": 1})) == {"many_files": 4}
    tokens = outcomes(items(tmp_path / "r", form="full", rules={"preset": "none", "min_tokens": 50, "max_tokens": 300}))
    assert tokens == {"few_tokens": 1, "many_tokens": 1, "file_added": 2}


def test_dialogues(tmp_path):
    body = "The limit was a hundred rows, which is too few for the tables that people have; now it is a thousand."
    message = f"Raise the limit of rows\n\n{body}\n\nSigned-off-by: Ann <ann@example.org>"
    history(tmp_path / "r", [("Begin", {"limits.py": LINES}), (message, {"limits.py": LINES.replace("line 300\n", "LIMIT = 1000\n")})])
    made = {}
    for task in ("edit", "explain", "message"):
        (item,) = [i for i in items(tmp_path / "r", **OFF, view="dialogue", tasks={task: 1.0}) if isinstance(i, Kept)]
        user, assistant = item.record.turns
        made[task] = user.content, assistant.content
        assert "trailers" in item.repairs and "ann@example.org" not in user.content + assistant.content
    question, answer = made["edit"]
    assert "Raise the limit of rows." in question and "`limits.py`" in question
    ((language, before),), ((_, after),) = code_blocks(question), code_blocks(answer)
    assert language == "python" and before.replace("line 300\n", "LIMIT = 1000\n") == after
    assert made["explain"][1] == body
    assert made["message"][1] == f"Raise the limit of rows\n\n{body}"
    assert apply_diff(before, unified := code_blocks(made["message"][0])[0][1]) == after and unified.startswith("@@")


def test_what_has_no_explanation_is_not_asked_for_one(clone):
    (item,) = [i for i in items(clone, **OFF, view="dialogue", tasks={"explain": 1.0}) if isinstance(i, Kept)]
    assert code_blocks(item.record.turns[1].content), "an edit is asked for instead"


ROW = {
    **{"commit": "c" * 40, "old_file": "a.py", "new_file": "a.py", "old_contents": "x = 1\n", "new_contents": "x = 2\n"},
    **{"subject": "Change x", "message": "Change x", "lang": "Python", "license": "mit", "repos": "a/b,a/b,c/d"},
}


def test_commitpack_rows(tmp_path):
    changes = [{}, {"old_contents": ""}, {"new_contents": "x = 1\n"}, {"message": None, "subject": 3}, {"returncode": 1}]
    rows = [*({**ROW, **change} for change in changes), "x"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = items(tmp_path / "rows.jsonl", **OFF)
    assert outcomes(found) == {"kept": 1, "file_added": 1, "no_change": 1, "wrong_type": 2, "fetch_failed": 1}
    assert [i.fault for i in found if isinstance(i, Dropped)] == [False, False, True, False, True]
    record = found[0].record
    assert text(found[0]) == "<commit_before>x = 1\n<commit_msg>Change x<commit_after>x = 2\n"
    assert (record.source.repository, record.source.commit, record.license) == ("a/b", "c" * 40, "mit")


def test_rows_are_the_same_with_one_worker_and_with_three(tmp_path):
    rows = [{**ROW, "commit": f"{number:040x}", "new_contents": f"x = {number}\n"} for number in range(700)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, three = (items(tmp_path / "rows.jsonl", workers=workers, **OFF) for workers in (1, 3))
    assert len(one) == 700 and one == three


def test_the_same_bytes_with_one_worker_and_with_three(tmp_path, monkeypatch):
    """Law 10, through the command, on a history of several tasks."""
    clone = repositories.new(tmp_path / "r")
    stream = fuzz_commits.linear_history(1300)
    repositories.git(clone, "fast-import", "--quiet", given=stream)
    monkeypatch.chdir(tmp_path)
    made = []
    sources = [{"kind": "commits", "path": "r", "view": view, **OFF} for view in ("document", "dialogue")]
    for workers in (1, 3):
        manifest = run(*sources, workers=workers, overwrite=True)
        assert_conserved(manifest)
        assert manifest["counts"]["sources"][0]["read"] == 1300
        made.append(digests("dataset"))
    assert made[0] == made[1]
    assert len(records()) == manifest["counts"]["written"] > 1000


def test_mutants_are_kept_or_dropped_with_a_reason(tmp_path):
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome_of(fuzz_commits.mutant(random.Random(f"test:{number}"), folder), "commits", number)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: ru_maxrss counts the process that forked as well")
def test_memory_does_not_grow_with_history(tmp_path):
    program = (
        "import sys\nfrom data_prep.kinds import Setting, open_kind\n"
        "source = open_kind('commits', {'path': sys.argv[1], 'rules': {'preset': 'none'}}, 'x', Setting(workers=1))\n"
        "read = sum(1 for _ in source.items())\n"
        "print(read, next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    peaks = []
    for count in (1200, 4800):
        clone = repositories.new(tmp_path / str(count))
        repositories.git(clone, "fast-import", "--quiet", given=fuzz_commits.linear_history(count, lines=600))
        done = subprocess.run([sys.executable, "-c", program, str(clone)], capture_output=True, text=True, check=True, cwd=ROOT)
        read, peak = map(int, done.stdout.split())
        assert read == count
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 8_000, "kilobytes; the contents read are 70 MB"
