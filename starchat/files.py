"""Folders that are finished or absent.

A stage writes its ``manifest.json`` last; a folder without one is not finished. What a stage builds is
built in a sibling folder and renamed when all of it is on the disk, so a crash, a full disk or a fault leaves
the target as it was. Whoever builds holds the target's name (`alone_at`) from the first look at it to the rename.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from starchat.errors import UserError

MANIFEST = "manifest.json"

BEGUN = "begun.json"
"""What a run writes before anything else, and what it depends on."""

RUN_MARK = "# Resolved by starchat"
"""How the ``recipe.yaml`` begins that a run writes. A folder with a recipe of somebody's own is no run."""

_LEFT = re.compile(r"\.(?P<target>.+)\.(?P<kind>building|replaced)-[0-9a-f]{32}")
"""How a folder is called that is being built, or was moved aside. Whoever holds the target's name and did not make it may sweep it."""

_DIGESTED = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest_bytes(data: bytes) -> str:
    """Return the digest used for ids: 128 bits of BLAKE2b, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_json(value: Any) -> str:
    """Return the digest of a JSON value; the order of keys does not matter.

    >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    True
    """
    return digest_bytes(_DIGESTED.encode(value).encode("utf-8", "surrogatepass"))


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(path: str | Path, name: str | None = None) -> dict[str, Any]:
    """Return name, size in bytes and SHA-256 of a file, as manifests list them."""
    return {"path": name or str(path), "bytes": os.path.getsize(path), "sha256": sha256_file(path)}


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with placed(target):
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_object(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return the JSON object in a file that exists; raise `UserError` if it holds anything else than `what`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__}; expected {what}; {remedy}")
    return value


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """Return the manifest of a finished stage, or None if the folder is not finished."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    return read_object(path, "a manifest", "the folder was damaged: remove it and run the stage again")


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of the named packages; absent ones are left out."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def place_of(folder: str | Path) -> Path:
    """Return where a result goes: where a link leads, so that it lies on the disk that the link names; raise `UserError` for no name."""
    target = Path(folder)
    if target.name in ("", ".."):
        raise UserError(f"output {str(folder)!r}: names no folder of its own; choose another output, such as {target / 'result'}")
    return Path(os.path.realpath(target)) if target.is_symlink() else target


def already_finished(folder: str | Path, stage: str, digest: str, overwrite: bool) -> bool:
    """Return whether `folder` holds exactly this finished stage; raise `UserError` if it holds anything else.

    `digest` is that of everything the result depends on. With `overwrite` a folder that the same
    stage began or finished may be replaced; another stage's result and other files are never touched.
    """
    target = place_of(folder)
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; choose another output")
    if not target.exists() or not any(target.iterdir()):
        return False
    manifest = read_manifest(target)
    if manifest is not None and manifest.get("stage") == stage and manifest.get("digest") == digest:
        return True
    begun = manifest is None and ((target / BEGUN).is_file() or _is_marked(target / "recipe.yaml"))
    found = manifest.get("stage") if manifest is not None else "train" if begun else None
    ours = found == stage
    if overwrite and ours:
        return False
    what = "an unfinished run" if begun else "other files" if found is None else f"another {found} result" if ours else f"a {found} result"
    remedy = "choose another output or pass --overwrite" if ours else "choose another output"
    raise UserError(f"{target}: holds {what}; {remedy}")


def _is_marked(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(RUN_MARK)) == RUN_MARK.encode()


@contextlib.contextmanager
def building(folder: str | Path) -> Iterator[Path]:
    """Give an empty folder beside `folder` that takes its place when the block ends well, and vanishes otherwise.

    Whoever calls holds the name, or the folder around it: what a kill leaves is taken away by the next who does.
    """
    target = place_of(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target, "building")
    temporary.mkdir()
    try:
        with placed(target):
            yield temporary
            sync_tree(temporary)
            _take_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def alone_at(folder: str | Path) -> Iterator[None]:
    """Hold the name of a folder, whether it is there or not, for this process; raise `UserError` if another one holds it.

    What processes left half-built that held it and were killed is swept first. For the rest it is as `alone_in`. Where this process may
    not write, it can look at what is there, and holds nothing.
    """
    target = place_of(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(target.parent, os.W_OK):
        yield
        return
    lock = target.with_name(f".{target.name}.lock")
    handle = _held(lock, target, lambda: os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666))
    try:
        sweep(target.parent, target.name)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder, made if need be, for this process; raise `UserError` if another one holds it.

    The system lets go of it when the process ends, however it does. A launcher that is killed leaves its processes behind, and they go
    on writing. Disks that know no locks, as some shared ones, have none. A folder that was made and stayed empty is taken away again;
    the block may take it away itself.
    """
    if folder.exists() and not folder.is_dir():
        yield
        return
    made = not folder.exists()
    handle = _held(folder, folder, lambda: _opened_folder(folder))
    try:
        yield
    finally:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        os.close(handle)


def _opened_folder(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # whoever held it has just taken it away
            return os.open(folder, os.O_RDONLY)


def _held(path: Path, said: Path, opened: Callable[[], int]) -> int:
    """Return a handle that holds the file or folder `path` until it is closed; raise `UserError`, which names `said`, if another does."""
    while True:
        handle = opened()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UserError(f"{said}: another process is at work in it; wait until it is finished, or end it") from None
        except OSError:
            return handle
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)  # whoever held it took it away before this process held it: others will make and hold a new one


def sweep(folder: Path, target: str | None = None) -> None:
    """Remove what killed processes left half-built in a folder, or of it what was to become `target`; whoever calls holds that.

    What such a process had just moved aside is put back.
    """
    for entry in folder.iterdir() if folder.is_dir() else ():
        found = _LEFT.fullmatch(entry.name)
        if found is None or target not in (None, found["target"]):
            continue
        place = entry.with_name(found["target"])
        if found["kind"] == "replaced" and not place.exists():
            os.replace(entry, place)
        else:
            shutil.rmtree(entry)


def sync_tree(folder: Path) -> None:
    """Return when a folder and all that is in it is on the disk, and not only in memory."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk. Some shared disks know no such thing for folders."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_manifest(folder: str | Path, stage: str, digest: str, content: Mapping[str, Any]) -> None:
    """Write the manifest of a finished stage. Call it last."""
    write_json(Path(folder) / MANIFEST, {"stage": stage, "digest": digest, **content})


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}-{uuid.uuid4().hex}")


def _take_place(new: Path, target: Path) -> None:
    """Put the folder `new` where `target` is; if that fails, `target` is what it was."""
    replaced = _beside(target, "replaced")
    old = target.exists()
    if old:
        os.replace(target, replaced)
    try:
        os.replace(new, target)
    except OSError:
        if old:
            os.replace(replaced, target)
        raise
    sync(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def placed(target: Path) -> Iterator[None]:
    """Name `target` in an error of the system that names no file: a full disk says so only when a file is flushed."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(target)
        raise
