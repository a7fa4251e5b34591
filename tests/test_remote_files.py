"""Paths of this machine and addresses in a store give the same through the same functions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from data_prep.remote_files import (
    at_hand,
    describe_input,
    is_remote,
    join,
    open_to_read,
    put_files,
    read_all,
    remove,
    sizes_bytes,
    write_object,
)
from starchat.errors import UserError

FILES = {"a.txt": b"one", "deep/b": b"", "deep/er/c": b"three"}


@pytest.fixture(params=["local", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of three files, here and in a store."""
    for name, data in FILES.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(data)
    if request.param == "local":
        return str(tmp_path / "files")
    put_files(tmp_path / "files", FILES, f"memory://{tmp_path.name}/files")
    return f"memory://{tmp_path.name}/files"


def test_what_is_there(folder: str) -> None:
    assert sizes_bytes(folder) == {"a.txt": 3, "deep/b": 0, "deep/er/c": 5}
    assert sizes_bytes(join(folder, "deep")) == {"b": 0, "er/c": 5}
    assert sizes_bytes(join(folder, "nothing")) == {}
    paths = [join(folder, name) for name in ("a.txt", "deep/er/c", "nothing", "a.txt/below", "deep")]
    assert read_all(paths) == {paths[0]: b"one", paths[1]: b"three"}
    assert read_all([]) == {}


def test_files_at_hand(folder: str) -> None:
    with open_to_read(join(folder, "a.txt")) as file:
        assert file.read() == b"one"
    with at_hand(folder) as found:
        assert {path.relative_to(found).as_posix(): path.read_bytes() for path in found.rglob("*") if path.is_file()} == FILES
    with at_hand(join(folder, "deep", "er", "c")) as found:
        assert (found.name, found.read_bytes()) == ("c", b"three")
    assert found.exists() != is_remote(folder), "a copy vanishes, the file itself does not"


def test_removing(folder: str) -> None:
    remove(join(folder, "deep"), first="er/c")
    assert sizes_bytes(folder) == {"a.txt": 3}
    for _ in range(2):
        remove(folder)
    assert sizes_bytes(folder) == {}


def test_an_input_is_described_by_its_content(folder: str) -> None:
    first = describe_input(join(folder, "a.txt"))
    assert first["bytes"] == 3 and first["path"].endswith("files/a.txt")
    assert describe_input(join(folder, "a.txt")) == first


def test_a_changed_object_is_described_otherwise(tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}/x"
    write_object(place, b"one")
    first = describe_input(place)
    write_object(place, b"two")
    assert describe_input(place) != first


def test_what_the_user_must_change() -> None:
    with pytest.raises(UserError, match="memory://none/x: no such object; check the address"):
        describe_input("memory://none/x")
    with pytest.raises(UserError, match="nosuch://x: Protocol not known: nosuch; expected a path, or an address such as s3://"):
        sizes_bytes("nosuch://x")


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(UserError, match="s3://bucket/x: .*this address needs a package of its own: pip install s3fs"):
        sizes_bytes("s3://bucket/x")
