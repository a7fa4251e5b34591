"""Files of this machine, or of any store that fsspec opens, such as ``s3://bucket/key``, under one set of names.

In and out: paths, where whatever has ``://`` is an address. Stores of objects know no folders and no renaming: what reads there goes by a
marker that is written last (`data_prep.tasks`). Nothing here writes to a local path; that is done by name and rename where it belongs.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from starchat.errors import UserError
from starchat.files import describe_file

TEMPORARY = "starchat-task-"

EXTRA = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
"""Which package opens the addresses of a store."""


def is_remote(path: str | Path) -> bool:
    """Return whether a path is an address in a store rather than on this machine.

    >>> is_remote("s3://bucket/key"), is_remote("/data/key"), is_remote("file:///data/key")
    (True, False, False)
    """
    return "://" in str(path) and not str(path).startswith("file://")


def local_path(path: str | Path) -> Path:
    """Return the path of what is on this machine.

    >>> local_path("file:///data/key").as_posix()
    '/data/key'
    """
    assert not is_remote(path), path
    return Path(str(path).removeprefix("file://"))


def as_path(path: str | Path) -> Path:
    """Return a path to read from; that of an address does what ``pathlib`` does, in its store.

    >>> as_path("s3://bucket/part.jsonl.gz").suffixes, str(as_path("s3://bucket/part.jsonl.gz"))
    (['.jsonl', '.gz'], 's3://bucket/part.jsonl.gz')
    """
    if not is_remote(path):
        return local_path(path)
    _opened(path)  # says what is missing, if something is
    found: Path = importlib.import_module("upath").UPath(str(path))
    return found


def matches(pattern: str) -> list[str]:
    """Return the paths of the files that a pattern with ``*`` names, sorted."""
    if not is_remote(pattern):
        return sorted(name for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
    store, name = _opened(pattern)
    scheme = pattern.split("://", 1)[0]
    return sorted(f"{scheme}://{found.removeprefix(f'{scheme}://')}" for found in store.glob(name) if store.isfile(found))


def join(path: str | Path, *names: str) -> str:
    """Return the path of what is beneath another.

    >>> join("s3://bucket/run/", "part-0", "done.json")
    's3://bucket/run/part-0/done.json'
    """
    return "/".join([str(path).rstrip("/"), *names]) if is_remote(path) else str(local_path(path).joinpath(*names))


def _opened(path: str | Path) -> tuple[Any, str]:
    """Return the store that an address is in, and its name there. Nothing is asked of the store yet."""
    core = importlib.import_module("fsspec.core")
    try:
        store, name = core.url_to_fs(str(path))
    except ImportError as error:
        package = EXTRA.get(str(path).split("://", 1)[0], "what the message names")
        raise UserError(f"{path}: {error}; this address needs a package of its own: pip install {package}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; expected a path, or an address such as s3://bucket/folder") from None
    store.invalidate_cache()  # other processes write there too
    return store, str(name)


def open_to_read(path: str | Path) -> BinaryIO:
    """Return a file opened for its bytes."""
    if not is_remote(path):
        return open(local_path(path), "rb")
    store, name = _opened(path)
    return store.open(name, "rb")


@contextlib.contextmanager
def at_hand(path: str | Path) -> Iterator[Path]:
    """Give a local path of a file or folder: itself, or a copy that vanishes when the block ends."""
    if not is_remote(path):
        yield local_path(path)
        return
    store, name = _opened(path)
    with temporary_folder() as temporary:
        target = temporary / name.rstrip("/").rsplit("/", 1)[-1]
        if store.isfile(name):
            store.get_file(name, str(target))
        else:
            for inner in sizes_bytes(path):
                (target / inner).parent.mkdir(parents=True, exist_ok=True)
                store.get_file(f"{name.rstrip('/')}/{inner}", str(target / inner))
        yield target


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give an empty folder that vanishes when the block ends."""
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{os.getpid()}-") as folder:
        yield Path(folder)


def sweep_temporary() -> None:
    """Remove the temporary folders of processes of this machine that were killed."""
    import psutil

    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*-*"):
        owner = folder.name.removeprefix(TEMPORARY).split("-", 1)[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def sizes_bytes(folder: str | Path) -> dict[str, int]:
    """Return the size of each file beneath a folder by its path there; empty if there is no such folder."""
    if not is_remote(folder):
        root = local_path(folder)
        files = (path for path in root.rglob("*") if path.is_file()) if root.is_dir() else iter(())
        return {path.relative_to(root).as_posix(): path.stat().st_size for path in files}
    store, name = _opened(folder)
    head = name.rstrip("/") + "/"
    found = store.find(head, detail=True)
    return {key[key.index(head) + len(head) :]: int(entry["size"]) for key, entry in found.items() if head in key}


def read_all(paths: Iterable[str]) -> dict[str, bytes]:
    """Return the bytes of small files by path, without those that are not there; from a store many at a time."""
    found: dict[str, bytes] = {}
    asked = list(paths)
    for path in asked:
        if not is_remote(path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                found[path] = local_path(path).read_bytes()
    remote = [path for path in asked if is_remote(path)]
    if remote:
        store, _ = _opened(remote[0])
        names = {store._strip_protocol(path): path for path in remote}  # as the store spells them in its answer
        found.update({names[name]: data for name, data in store.cat(list(names), on_error="omit").items()})
    return found


def write_object(path: str, data: bytes) -> None:
    """Write a whole object of a store."""
    store, name = _opened(path)
    store.pipe_file(name, data)


def put_files(folder: Path, names: Iterable[str], target: str) -> None:
    """Copy files of a local folder beneath an address."""
    store, root = _opened(target)
    for name in names:
        place = f"{root.rstrip('/')}/{name}"
        store.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
        store.put_file(str(folder / name), place)


def remove(path: str | Path, first: str | None = None, keep: str | None = None) -> None:
    """Remove a file or folder with all that is in it, the file `first` before the others. What is not there is no fault.

    Of a folder in a store the file `keep` stays.
    """
    if is_remote(path):
        store, name = _opened(path)
        head = name.rstrip("/")
        found = set(store.find(head)) - {f"{head}/{keep}"}
        if f"{head}/{first}" in found:
            store.rm_file(f"{head}/{first}")
            found.remove(f"{head}/{first}")
        if found:
            store.rm(sorted(found))
    elif local_path(path).is_dir():
        shutil.rmtree(local_path(path), ignore_errors=True)
    else:
        local_path(path).unlink(missing_ok=True)


STAMP = "stamp"
"""The key of a described file that no manifest has: where it really is, its size and when it was last written, before it was read."""


def stamp_of(path: str | Path) -> list[Any]:
    """Return what differs, without a look at the content, when a local file was written since."""
    found = os.stat(path)
    return [os.fspath(path), found.st_size, found.st_mtime_ns]


def describe_input(path: str | Path, name: str | None = None) -> dict[str, Any]:
    """Return name, size and content of a file as manifests list them, and its stamp; of an object the store's mark of its version."""
    if not is_remote(path):
        stamp = stamp_of(local_path(path))
        return {**describe_file(local_path(path), name), STAMP: stamp}
    store, name = _opened(path)
    try:
        entry = store.info(name)
    except FileNotFoundError:
        raise UserError(f"{path}: no such object; check the address") from None
    return {"path": str(path), "bytes": entry["size"], "version": str(entry.get("ETag") or store.ukey(name))}
