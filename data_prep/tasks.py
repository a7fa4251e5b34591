"""Tasks: pieces of work that write one folder each, whole or not at all, and are not done twice.

In: a function of a module and small arguments. Out: ``FOLDER/NAME/`` with the files that the function wrote and, last, ``done.json``: its
value, its digest, the sizes of its files and a seal over all that. A task is pure: the same arguments give the same files and value
wherever it runs. Its digest covers the spec and inputs (as the caller states them), its function and arguments, and all code of
`starchat` and `data_prep`; a folder with the same digest is taken as it is, one with another is thrown away. Where tasks run is not told
here (`data_prep.engines`).

What is being made lies in ``FOLDER/.making-RUN``, which the run owns: the next run takes that folder away first, so that whatever an
older one left, even a process that is still at work, can neither remain nor end up among the results. On this machine's disks and those
it shares, a finished folder is renamed into its place when all of it is on the disk. In a store of objects ``done.json`` is written last.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep import remote_files
from data_prep.remote_files import is_remote, join, local_path
from starchat.errors import UserError
from starchat.files import digest_bytes, digest_json, sync, sync_tree

DONE = "done.json"
MAKING = ".making-"
SWEPT = ".swept-"
PACKAGES = ("data_prep", "starchat")


class WorkKept(UserError):
    """What the user must change before the same command goes on: what is done stays."""


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A piece of work: ``function(folder, *arguments)`` writes files into an empty local folder and returns a small JSON value.

    The function is one of a module. Arguments are numbers, texts, paths, functions, dataclasses, and lists, tuples and dicts of those;
    or have a method ``task_identity``, whose value of such kinds says all that the digest of the run does not.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What the tasks of one run have in common: their folder, the digests of spec with inputs and of the code, and where they are made.

    `stamp` is that of the files that `code` was read from: a worker that finds the same one need not read them all.
    """

    folder: str
    digest: str
    code: str
    making: str
    stamp: str = ""


@functools.cache
def code_digest() -> str:
    """Return the digest of all code and tables of both packages, as they are when first asked."""
    root = Path(__file__).parent.parent
    return digest_json({path.relative_to(root).as_posix(): digest_bytes(path.read_bytes()) for path in _code_files(root)})


@functools.cache
def code_stamp() -> str:
    """Return what changes whenever a file of both packages is written: their places, sizes and times, as they are when first asked."""
    found = sorted((str(path), path.stat()) for path in _code_files(Path(__file__).parent.parent))
    return digest_json([socket.gethostname(), [[path, stat.st_size, stat.st_mtime_ns] for path, stat in found]])


def _code_files(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for folder, inner, names in os.walk(root / package):
            inner[:] = [name for name in inner if name != "__pycache__"]
            yield from (Path(folder, name) for name in names)


def job_digest(spec: Any, inputs: Any) -> str:
    """Return the digest of what all tasks of a run depend on: two JSON values and the Python version. `Run` adds the code."""
    return digest_json({"spec": spec, "inputs": inputs, "python": sys.version.split()[0]})


def task_digest(task: Task, run: Run) -> str:
    """Return the digest of everything that a task's result depends on."""
    name = f"{task.function.__module__}.{task.function.__qualname__}"
    return digest_json([run.digest, run.code, name, _module_digest(task.function.__module__), _stated(task.arguments)])


@functools.cache
def _module_digest(name: str) -> str | None:
    """Return the digest of a module outside of both packages."""
    file = None if name.split(".")[0] in PACKAGES else getattr(sys.modules[name], "__file__", None)
    return digest_bytes(Path(file).read_bytes()) if file else None


def _stated(value: Any) -> Any:
    """Return an argument as a JSON value that equals another's only if the arguments are equal."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return {"bytes": digest_bytes(value)}
    if isinstance(value, os.PathLike | range):
        return {type(value).__name__: str(value)}
    if isinstance(value, list | tuple):
        return [_stated(each) for each in value]
    if isinstance(value, dict):
        return {"dict": [[_stated(key), _stated(each)] for key, each in value.items()]}
    if isinstance(value, set | frozenset):
        return {"set": sorted(digest_json(_stated(each)) for each in value)}
    if hasattr(value, "task_identity"):
        return {f"{type(value).__module__}.{type(value).__qualname__}": _stated(value.task_identity())}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _stated(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {f"{type(value).__module__}.{type(value).__qualname__}": fields}
    if callable(value) and hasattr(value, "__qualname__"):
        return {"function": f"{value.__module__}.{value.__qualname__}", "module": _module_digest(value.__module__)}
    raise TypeError(f"{value!r}: is a {type(value).__name__}, which a task cannot have among its arguments")


def begin_run(folder: str, digest: str) -> Run:
    """Return a run of its own in a folder, and take away what earlier runs left half-made."""
    making = MAKING + uuid.uuid4().hex
    remote_files.sweep_temporary()
    if is_remote(folder):
        for name in {path.split("/", 1)[0] for path in remote_files.sizes_bytes(folder)}:
            if name.startswith(MAKING):
                remote_files.remove(join(folder, name))
        remote_files.write_object(join(folder, making, "begun.json"), b"{}\n")
    else:
        root = local_path(folder)
        root.mkdir(parents=True, exist_ok=True)
        for entry in [entry for entry in root.iterdir() if entry.name.startswith((MAKING, SWEPT))]:
            _throw_away(entry, root)
        (root / making).mkdir()
    return Run(str(folder), digest, code_digest(), making, code_stamp())


def end_run(run: Run) -> None:
    """Remove what a run made things in."""
    remote_files.remove(join(run.folder, run.making))


def write_beside(path: str, data: bytes) -> None:
    """Write a small file of the run's own, whole or not at all."""
    if is_remote(path):
        remote_files.write_object(path, data)
        return
    target = local_path(path)
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(data)
    os.replace(temporary, target)


def run_task(task: Task, run: Run) -> Any:
    """Return a task's value, having done it unless its result is there."""
    if run.stamp != code_stamp() and run.code != code_digest():
        host = socket.gethostname()
        what = f"its code of {' and '.join(PACKAGES)} is not that of the run"
        raise UserError(f"{host}: {what}; install the same version everywhere, or run again if it was changed meanwhile")
    digest = task_digest(task, run)
    if (done := find_done([task], run).get(task.name)) is not None:
        return done["value"]
    if not is_remote(run.folder):
        return _make(task, run, digest, local_path(run.folder) / run.making / f"{task.name}-{uuid.uuid4().hex}")
    with remote_files.temporary_folder() as temporary:
        return _make(task, run, digest, temporary / task.name)


def do_ordered(ordered: tuple[Task, Run]) -> Any:
    """Return a task's value; it is what the workers of all engines call."""
    return run_task(*ordered)


def _make(task: Task, run: Run, digest: str, temporary: Path) -> Any:
    """Do a task in a folder that is not there yet, put the result in its place and return the value."""
    temporary.mkdir()  # and not its parents: if the run's own folder is gone, another run has begun
    try:
        stated = json.dumps(task.function(temporary, *task.arguments), allow_nan=False)
        sizes = dict(_written(temporary))
        if DONE in sizes:
            raise ValueError(f"{task.function.__qualname__} wrote {DONE}, a name that is not its own")
        done = {"task": task.name, "digest": digest, "value": json.loads(stated), "files": dict(sorted(sizes.items()))}
        (temporary / DONE).write_bytes(_sealed(done))
        if is_remote(run.folder):
            _upload(task, run, temporary, sizes)
        else:
            _take_place(task, run, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return done["value"]


def _written(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the path and size of each file in a folder."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.name}: a task may write files and folders only")
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.stat().st_size


def _take_place(task: Task, run: Run, temporary: Path) -> None:
    """Rename a whole folder, once it is on the disk, to where it belongs."""
    root = local_path(run.folder)
    sync_tree(temporary)
    for _ in range(3):
        try:
            os.rename(temporary, root / task.name)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            if find_done([task], run):  # another process did the same task, and was sooner
                return
            _throw_away(root / task.name, root / run.making)
    else:
        raise UserError(f"{root / task.name}: other processes keep writing it; end them, or choose another folder with --work")
    sync(root)


def _throw_away(path: Path, beside: Path) -> None:
    """Remove a file or folder that a process may still write into: it has no name any more before its content goes."""
    unnamed = beside / f"{SWEPT}{uuid.uuid4().hex}"
    os.rename(path, unnamed)
    remote_files.remove(unnamed)


def _upload(task: Task, run: Run, temporary: Path, names: Iterable[str]) -> None:
    """Copy a result to a store, its marker last."""
    place = join(run.folder, task.name)
    remote_files.remove(place, first=DONE)
    remote_files.put_files(temporary, names, place)
    if not remote_files.read_all([join(run.folder, run.making, "begun.json")]):
        raise UserError(f"{run.folder}: another run has begun there; let one at a time work in a folder")
    remote_files.put_files(temporary, [DONE], place)


def find_done(tasks: Sequence[Task], run: Run) -> dict[str, Mapping[str, Any]]:
    """Return what ``done.json`` says, by name, of each task whose result is there, whole and of this run's digest."""
    marks = remote_files.read_all(join(run.folder, task.name, DONE) for task in tasks)
    # A store lists all files of all tasks for little more than those of one.
    listed = _by_task(remote_files.sizes_bytes(run.folder)) if is_remote(run.folder) and len(marks) > 1 else None
    found: dict[str, Mapping[str, Any]] = {}
    for task in tasks:
        data = marks.get(join(run.folder, task.name, DONE))
        done = _unsealed(data) if data is not None else None
        if done is not None and done.get("digest") == task_digest(task, run):
            sizes = remote_files.sizes_bytes(join(run.folder, task.name)) if listed is None else listed.get(task.name, {})
            if {name: size for name, size in sizes.items() if name != DONE} == done.get("files"):
                found[task.name] = done
    return found


def _by_task(sizes: Mapping[str, int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for path, size in sizes.items():
        name, _, inner = path.partition("/")
        found.setdefault(name, {})[inner] = size
    return found


def _sealed(done: Mapping[str, Any]) -> bytes:
    """Return the bytes of a ``done.json``."""
    return json.dumps({**done, "seal": digest_json(done)}, indent=1).encode() + b"\n"


def _unsealed(data: bytes) -> dict[str, Any] | None:
    """Return what a ``done.json`` says, or None if it is not what was once written."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    value.pop("seal", None)
    return value if _sealed(value) == data else None
