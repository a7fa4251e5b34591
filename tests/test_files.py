"""Folders are finished or absent, whatever happens on the way."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starchat.errors import UserError
from starchat.files import (
    RUN_MARK,
    already_finished,
    building,
    describe_file,
    digest_json,
    read_manifest,
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
