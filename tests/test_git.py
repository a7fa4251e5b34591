"""Repositories of every kind are read whole: bare, shallow, partial, empty, with links and submodules; none of their programs runs."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

import repositories
from data_prep import git
from data_prep.remote_files import sweep_temporary
from repositories import commit, history
from starchat.errors import UserError


@pytest.fixture
def clone(tmp_path):
    history(tmp_path / "r", [("one", {"a.txt": "a\n", "d/ü.txt": "b"}), ("two", {"a.txt": "A\n"}), ("three", {"c d.txt": "\n"})])
    return tmp_path / "r"


def test_commits_changes_trees_and_contents(clone):
    head = git.resolve(clone)
    ids = list(git.list_commits(clone, head))
    assert ids == repositories.git(clone, "rev-list", "HEAD").split()
    found = {commit: [(c.status, c.path) for c in changes] for commit, changes in git.read_changes(clone, ids)}
    assert list(found.values()) == [[("A", "c d.txt")], [("M", "a.txt")], [("A", "a.txt"), ("A", "d/ü.txt")]]
    entries = list(git.read_tree(clone, head))
    assert [entry.path for entry in entries] == ["a.txt", "c d.txt", "d/ü.txt"]
    assert list(git.read_blobs(clone, [e.oid for e in entries])) == [b"A\n", b"\n", b"b"]
    assert list(git.read_blobs(clone, [entries[0].oid, "0" * 40, entries[2].oid], max_bytes=1)) == [git.Oversize(2), None, b"b"]


def test_a_damaged_repository_is_called_that(clone):
    """Not one whose branch is gone."""
    (clone / ".git" / "shallow").write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="git cannot read it .*shallow"):
        git.resolve(clone)


def test_more_objects_than_a_pipe_holds(clone):
    (oid, *_) = [entry.oid for entry in git.read_tree(clone, git.resolve(clone))]
    assert sum(content == b"A\n" for content in git.read_blobs(clone, [oid] * 9000)) == 9000


def test_a_reader_that_stops_early_leaves_no_process(clone):
    blobs = git.read_blobs(clone, ["0" * 40] * 90_000)
    assert next(blobs) is None
    blobs.close()


KILLED = """
import os, signal, sys
from data_prep import git
tree = git.read_tree(sys.argv[1], git.resolve(sys.argv[1]))
next(tree)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_reader_left_is_swept(clone, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run([sys.executable, "-c", KILLED, str(clone)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path / "tmp")) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    sweep_temporary()
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.parametrize("name", ["bare.git", "worktree", "clone/.git"])
def test_bare_repositories_worktrees_and_git_folders(clone, tmp_path, name):
    repositories.git(tmp_path, "clone", "-q", "--bare", "r", "bare.git")
    repositories.git(tmp_path, "clone", "-q", "r", "clone")
    repositories.git(clone, "worktree", "add", "-q", str(tmp_path / "worktree"))
    assert git.is_repository(tmp_path / name)
    assert git.resolve(tmp_path / name) == git.resolve(clone)


def test_what_is_no_repository(tmp_path, clone):
    assert not git.is_repository(tmp_path)
    assert not git.is_repository(clone / "d"), "a folder inside a clone is a folder"
    with pytest.raises(UserError, match="git cannot read it"):
        git.resolve(tmp_path / "absent")
    (tmp_path / "broken" / ".git").mkdir(parents=True)
    with pytest.raises(UserError, match="git cannot read it"):
        git.resolve(tmp_path / "broken")


def test_a_broken_repository_is_not_the_one_around_it(clone):
    (clone / "sub" / ".git").mkdir(parents=True)
    with pytest.raises(UserError, match="git cannot read it"):
        git.resolve(clone / "sub")
    assert git.repository_name(clone / "sub") == "sub"


def test_refs(clone, tmp_path):
    repositories.git(clone, "tag", "v1", "HEAD~1")
    assert git.resolve(clone, "v1") == git.resolve(clone, "main~1")
    with pytest.raises(UserError, match="no branch, tag or commit 'mian'"):
        git.resolve(clone, "mian")
    with pytest.raises(UserError, match="ref: '--all'"):
        git.resolve(clone, "--all")
    with pytest.raises(UserError, match="expected a branch"):
        git.resolve(clone, "a\0b")
    assert git.resolve(repositories.new(tmp_path / "empty")) is None
    repositories.git(clone, "symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(UserError, match="HEAD names a branch that does not exist"):
        git.resolve(clone)


def test_shallow_clones_say_where_they_end(clone, tmp_path):
    assert git.shallow_commits(clone) == frozenset()
    repositories.git(tmp_path, "clone", "-q", "--depth=1", clone.as_uri(), "shallow")
    assert git.shallow_commits(tmp_path / "shallow") == {git.resolve(clone)}


def test_references_tell_what_was_fetched(clone):
    """A finished dataset is made anew when a clone has got commits that it lacked."""
    before = git.references(clone)
    assert git.references(clone) == before
    repositories.git(clone, "update-ref", "refs/pull/7/head", "HEAD~1")
    assert git.references(clone) != before


def test_a_partial_clone_fetches_nothing(clone, tmp_path):
    """Law: nothing is fetched. What is not there is None, though the origin has it."""
    repositories.git(clone, "config", "uploadpack.allowFilter", "true")
    repositories.git(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout", clone.as_uri(), "partial")
    partial = tmp_path / "partial"
    entries = list(git.read_tree(partial, git.resolve(partial)))
    contents = list(git.read_blobs(partial, [entry.oid for entry in entries]))
    assert contents == [None] * 3
    assert [len(changes) for _, changes in git.read_changes(partial, list(git.list_commits(partial, git.resolve(partial))))] == [1, 1, 2]


def test_a_damaged_object_is_missing(clone):
    oid = next(entry.oid for entry in git.read_tree(clone, git.resolve(clone)))
    path = clone / ".git" / "objects" / oid[:2] / oid[2:]
    path.chmod(0o644)
    path.write_bytes(b"not zlib")
    assert list(git.read_blobs(clone, [oid])) == [None]
    tree = repositories.git(clone, "rev-parse", "HEAD^{tree}")
    (clone / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(UserError, match="git cannot read it"):
        list(git.read_tree(clone, git.resolve(clone)))


@pytest.mark.parametrize("name", ["with space", "with:colon", 'with"quote', "ü"])
def test_odd_folders(tmp_path, name):
    ids = history(tmp_path / name, [("one", {"a": "a"})])
    assert list(git.list_commits(tmp_path / name, git.resolve(tmp_path / name))) == ids


def test_sha256(tmp_path):
    try:
        repositories.git(tmp_path, "init", "-q", "--object-format=sha256", "-b", "main")
    except subprocess.CalledProcessError:
        pytest.skip("this git knows no SHA-256")
    commit(tmp_path, "one", {"a": "a"})
    head = git.resolve(tmp_path)
    assert head is not None and len(head) == 64
    assert list(git.read_blobs(tmp_path, [entry.oid for entry in git.read_tree(tmp_path, head)])) == [b"a"]


def test_nothing_of_a_repository_is_run(clone, tmp_path):
    """Hooks, filters, monitors, pagers, signature checks: a repository from elsewhere may configure any of them."""
    mark = tmp_path / "ran"
    program = tmp_path / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    program.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "diff.external", "filter.f.smudge", "diff.d.textconv", "gpg.program", "core.sshCommand"):
        repositories.git(clone, "config", key, str(program))
    repositories.git(clone, "config", "log.showSignature", "true")
    (clone / ".gitattributes").write_text("* filter=f diff=d\n")
    head = git.resolve(clone)
    ids = list(git.list_commits(clone, head))
    list(git.read_changes(clone, ids))
    list(git.read_blobs(clone, [entry.oid for entry in git.read_tree(clone, head)]))
    assert not mark.exists()
    subprocess.run([program], input=b"", check=True)
    assert mark.exists(), "the program would have been seen"


def test_the_callers_environment_points_nowhere_else(clone, tmp_path, monkeypatch):
    other = tmp_path / "other"
    history(other, [("x", {"x": "x"})])
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert len(list(git.list_commits(clone, git.resolve(clone)))) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [(".config/git/attributes", "*.txt -diff\n"), (".gitconfig", "[diff]\n\tsuppressBlankEmpty = true\n"), (".gitconfig", "[broken\n")],
)
def test_the_callers_configuration_changes_nothing(clone, tmp_path, monkeypatch, name, text):
    """Law 10: what somebody likes to see of a diff is no property of the repository."""
    commit(clone, "spaced", {"a.txt": "A\n\nb\n"})
    commit(clone, "changed", {"a.txt": "A\n\nc\n"})
    store, ids = git.open_store(clone), [git.resolve(clone, ref) for ref in ("HEAD~1", "HEAD")]
    ((_, patch),) = git.read_patches(store, [(ids[0], ids[1])], 3, 1 << 20)
    file = tmp_path / "home" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert [found for _, found in git.read_patches(store, [(ids[0], ids[1])], 3, 1 << 20)] == [patch]
    assert b"\n \n-b\n+c\n" in patch


def test_git_is_needed(clone, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="git is needed"):
        git.resolve(clone)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/acme/tool.git", "acme/tool"),
        ("https://user:secret@example.org/group/sub/tool", "sub/tool"),
        ("git@example.org:acme/tool.git", "acme/tool"),
        ("/srv/tool", "r"),
    ],
)
def test_names_of_repositories(clone, url, name):
    repositories.git(clone, "remote", "add", "origin", url)
    assert git.repository_name(clone) == name
    assert git.repository_name(clone / ".git") == name


def test_renames_are_found(clone):
    commit(clone, "move", {"d/ü.txt": None, "e.txt": "b"})
    ((_, (change,)),) = git.read_changes(clone, [git.resolve(clone)])
    assert (change.status, change.old_path, change.path) == ("R", "d/ü.txt", "e.txt")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("max_bytes", [None, 10])
def test_an_object_that_ends_too_early_is_one_clear_message(tmp_path, max_bytes):
    """Also one that is to be skipped: its bytes never come."""
    clone = tmp_path / "r"
    history(clone, [("one", {"a.bin": random.Random(0).randbytes(50_000)})])
    (entry,) = git.read_tree(clone, git.resolve(clone))
    loose = clone / ".git/objects" / entry.oid[:2] / entry.oid[2:]
    content = loose.read_bytes()
    loose.unlink()
    loose.write_bytes(content[:30_000])
    with pytest.raises(UserError, match="git ended in the middle of an object of 50000 bytes|git cannot read it"):
        list(git.read_blobs(clone, [entry.oid], max_bytes))
