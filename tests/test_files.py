"""Folders are finished or absent, whatever happens on the way."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs import mounted_disk
from starchat.errors import UserError
from starchat.files import (
    RUN_MARK,
    alone_at,
    alone_in,
    already_finished,
    building,
    describe_file,
    digest_json,
    read_manifest,
    sweep,
    versions,
    write_json,
    write_manifest,
    write_text,
)

plain = st.none() | st.booleans() | st.integers() | st.text()
values = st.recursive(plain, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=8)


@given(st.dictionaries(st.text(), values))
def test_digest_depends_on_content_and_not_on_order(value: dict[str, Any]) -> None:
    assert digest_json(value) == digest_json(dict(reversed(value.items())))
    assert digest_json(value) != digest_json([value])


def test_building_replaces_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with building(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    with building(target) as folder:
        (folder / "b").write_text("2")
        assert [p.name for p in target.iterdir()] == ["a"]
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("fault", [RuntimeError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_fault_leaves_what_was_there(tmp_path: Path, fault: BaseException) -> None:
    target = tmp_path / "out"
    with building(target) as folder:
        (folder / "a").write_text("1")

    def fail() -> None:
        with building(target) as folder:
            (folder / "b").write_text("2")
            raise fault

    with pytest.raises(type(fault)):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (target / "a").read_text() == "1"


def test_a_full_disk_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as caught, building(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(tmp_path / "out")


def test_a_rename_that_fails_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    with building(target) as folder:
        (folder / "a").write_text("1")
    real = os.replace

    def replace(source: Any, destination: Any) -> None:
        if ".building-" in str(source):
            raise OSError(errno.EXDEV, "another disk")
        real(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="another disk"), building(target):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (target / "a").read_text() == "1"


def test_write_text_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    write_json(path, {"é": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'


LEFT = "0123456789abcdef" * 2


def test_what_a_killed_process_left_is_swept_and_what_it_moved_aside_comes_back(tmp_path: Path) -> None:
    kept = [".out.building-notes", ".out.replaced-2024", "out"]
    for name in (*kept, f".out.building-{LEFT}", f".out.replaced-{LEFT}", f".lost.replaced-{LEFT}"):
        (tmp_path / name).mkdir()
    (tmp_path / f".lost.replaced-{LEFT}" / "a").write_text("1")
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*kept, "lost"}
    assert (tmp_path / "lost" / "a").read_text() == "1"


def test_whoever_holds_a_name_sweeps_what_was_to_bear_it(tmp_path: Path) -> None:
    """Also what a process of another machine left: nobody but the holder builds there."""
    for name in ("out", "other"):
        (tmp_path / f".{name}.building-{LEFT}").mkdir()
    (tmp_path / f".out.replaced-{LEFT}").mkdir()
    with alone_at(tmp_path / "out"):
        assert {p.name for p in tmp_path.iterdir()} == {".out.lock", "out", f".other.building-{LEFT}"}
        with building(tmp_path / "out") as folder, pytest.raises(UserError), alone_at(tmp_path / "out"):
            pass
        assert folder.name != "out"
    assert {p.name for p in tmp_path.iterdir()} == {"out", f".other.building-{LEFT}"}


HOLD = "import sys, time; from pathlib import Path; from starchat.files import {0}\n"
HOLD += "with {0}(Path({1!r})): print('held', flush=True); time.sleep(60)"


@pytest.mark.parametrize("hold", [alone_in, alone_at], ids=["a folder", "a name"])
def test_two_processes_do_not_work_in_one_folder(hold: Any, tmp_path: Path) -> None:
    """A killed holder lets go; a folder that was made in vain vanishes."""
    code = HOLD.format(hold.__name__, str(tmp_path / "run"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="run: another process is at work in it; wait until it is finished, or end it"):
            hold(tmp_path / "run").__enter__()
        holder.kill()
    with hold(tmp_path / "run"):
        assert (tmp_path / "run").is_dir() == (hold is alone_in)
    with hold(tmp_path / "new"):
        assert (tmp_path / "new").is_dir() == (hold is alone_in)
    assert [path.name for path in tmp_path.iterdir()] == ["run"] * (hold is alone_in)


@pytest.mark.parametrize("hold", [alone_in, alone_at], ids=["a folder", "a name"])
def test_what_is_taken_away_while_it_is_being_held_is_held_anew(hold: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process opens what another one holds, and gets the lock when that one has taken it away: then a third one is not let in."""
    place = tmp_path / ("run" if hold is alone_in else ".run.lock")
    real = fcntl.flock

    def late(handle: int, operation: int) -> None:
        place.rmdir() if place.is_dir() else place.unlink()
        monkeypatch.setattr(fcntl, "flock", real)
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with hold(tmp_path / "run"):
        assert place.exists()
        with pytest.raises(UserError, match="another process is at work"), hold(tmp_path / "run"):
            pass


def test_where_nothing_can_be_written_nothing_is_held(tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", "64k") as disk:
        (disk / "out").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with alone_at(disk / "out"):
            assert os.listdir(disk) == ["out"]


@pytest.mark.parametrize("there", [True, False], ids=["a folder", "nothing yet"])
def test_a_link_stays_and_what_it_names_is_replaced(there: bool, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk" / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
    for text in ("1", "2"):
        with alone_at(tmp_path / "out"):
            assert (tmp_path / "disk" / ".real.lock").is_file()
            with building(tmp_path / "out") as folder:
                (folder / "a").write_text(text)
                assert folder.parent == tmp_path / "disk"
        assert (tmp_path / "disk" / "real" / "a").read_text() == text
    assert (tmp_path / "out").is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "disk", "out", "real"]


def test_a_folder_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could leave a name with empty files behind it. Then its name is put there too."""
    told: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: told.append(os.readlink(f"/proc/self/fd/{handle}")) or sync(handle))
    monkeypatch.setattr(os, "replace", lambda source, target: told.append("renamed") or replace(source, target))
    with building(tmp_path / "out") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("1")
    assert told == [str(folder / "inner" / "a"), str(folder / "inner"), str(folder), "renamed", str(tmp_path)]


def test_describe_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert describe_file(path, "a") == {"path": "a", "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}


def test_manifest_that_is_damaged_is_told(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    for text, expected in (("{", "not valid JSON"), ("[]", "expected a manifest")):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=expected):
            read_manifest(tmp_path)


def test_already_finished(tmp_path: Path) -> None:
    target = tmp_path / "run"
    assert not already_finished(target, "train", "d1", overwrite=False)
    target.mkdir()
    assert not already_finished(target, "train", "d1", overwrite=False)
    write_manifest(target, "train", "d1", {"x": 1})
    assert already_finished(target, "train", "d1", overwrite=False)
    assert already_finished(target, "train", "d1", overwrite=True)
    with pytest.raises(UserError, match="holds another train result; choose another output or pass --overwrite"):
        already_finished(target, "train", "d2", overwrite=False)
    assert not already_finished(target, "train", "d2", overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds a train result; choose another output$"):
            already_finished(target, "prepare", "d1", overwrite)


@pytest.mark.parametrize(("name", "text"), [("recipe.yaml", "kind: sft\n"), ("manifest.json", '{"name": "a web page"}')])
def test_files_that_only_bear_our_names_are_not_ours(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(text)
    with pytest.raises(UserError, match="holds other files; choose another output$"):
        already_finished(tmp_path / "out", "train", "d", overwrite=True)


@pytest.fixture(params=["a file", "other files", "an unfinished run", "no name", "the parent"])
def occupied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str, bool]]:
    """An output that holds something else, what the message says, and whether --overwrite may replace it."""
    target = tmp_path / "out"
    if request.param == "a file":
        target.write_text("mine")
        yield target, "is a file; choose another output", False
    elif request.param in ("no name", "the parent"):
        yield Path("" if request.param == "no name" else tmp_path / ".."), "names no folder of its own", False
    else:
        target.mkdir()
        unfinished = request.param == "an unfinished run"
        (target / ("recipe.yaml" if unfinished else "thesis.tex")).write_text(RUN_MARK if unfinished else "mine")
        yield target, f"holds {request.param}", unfinished


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_this_result_is_never_touched(occupied: tuple[Path, str, bool], overwrite: bool) -> None:
    target, expected, replaceable = occupied
    if overwrite and replaceable:
        assert not already_finished(target, "train", "d", overwrite)
        return
    with pytest.raises(UserError, match=expected):
        already_finished(target, "train", "d", overwrite)


def test_versions_leaves_out_what_is_not_installed() -> None:
    assert set(versions("pyyaml", "no-such-package-at-all")) == {"pyyaml"}
