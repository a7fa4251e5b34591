"""Where a stage's result goes: a folder of this machine, whole or absent, or an address in a store, where the manifest comes last.

Whoever makes one holds its name (`alone_at`) from the first look at it until it has taken its place. Stores know no holding: there a
file says whose the result is that is being written, and it is looked at again before the manifest comes.
"""

from __future__ import annotations

import collections
import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep import remote_files
from data_prep.prepared import open_parquet
from data_prep.remote_files import is_remote, join
from data_prep.tasks import WorkKept
from starchat import files
from starchat.errors import UserError
from starchat.files import BEGUN, MANIFEST, already_finished, building, read_manifest, write_json


def require_place(path: str, what: str) -> str:
    """Return a path of this machine, or an address, as the rest of the program takes it; raise `UserError` for one with ``~``."""
    if path.startswith("~"):
        raise UserError(f"{what}: {path!r}; ~ stands for no folder here; write the whole path, or ./{path} for a folder of that name")
    return path if is_remote(path) else path.removeprefix("file://")


def alone_at(output: str) -> contextlib.AbstractContextManager[None]:
    """Hold an output for this process; raise `UserError` if another one holds it."""
    return contextlib.nullcontext() if is_remote(output) else files.alone_at(output)


def exists(output: str) -> bool:
    """Return whether anything is where a result is to go."""
    return bool(remote_files.sizes_bytes(output)) if is_remote(output) else Path(output).exists()


def manifest_of(output: str) -> dict[str, Any] | None:
    """Return the manifest of a finished result, or None if there is none."""
    return _object(output, MANIFEST) if is_remote(output) else read_manifest(output)


def _object(output: str, name: str) -> dict[str, Any] | None:
    """Return the JSON object of that name in a store, or None if there is none."""
    place = join(output, name)
    data = remote_files.read_all([place]).get(place)
    try:
        found = None if data is None else json.loads(data)
    except ValueError:
        found = data
    if found is not None and not isinstance(found, dict):
        raise UserError(f"{place}: holds no manifest; it was damaged: remove what is there and run the stage again")
    return found


def is_finished(output: str, stage: str, digest: str, overwrite: bool) -> bool:
    """Return whether exactly this result is there; raise `UserError` if anything else is that may not be replaced.

    In a store what the same command began, and did not finish, may be.
    """
    if not is_remote(output):
        return already_finished(output, stage, digest, overwrite)
    if not exists(output):
        return False
    manifest = manifest_of(output)
    state = manifest if manifest is not None else _object(output, BEGUN) or {}
    found = state.get("stage")
    if found == stage and state.get("digest") == digest:
        return manifest is not None
    if overwrite and found == stage:
        return False
    what = "other files" if found is None else f"another {found} result{'' if manifest is not None else ', unfinished'}"
    remedy = "choose another output or pass --overwrite" if found == stage else "choose another output, or remove what is there"
    raise UserError(f"{output}: holds {what}; {remedy}")


def lost_rows(output: str, counts: Mapping[str, Any]) -> str | None:
    """Return what a dataset lacks of the rows that its manifest counts, kept or dropped, or None if it has them all."""
    rows: collections.Counter[str] = collections.Counter()
    try:
        for name in remote_files.sizes_bytes(output):
            if name.endswith(".parquet"):
                with remote_files.open_to_read(join(output, name)) as data, open_parquet(join(output, name), data) as file:
                    folder, _, reason = name.rpartition("/")
                    rows[f"{folder}/{reason.removesuffix('.parquet').partition('-')[0]}" if folder else ""] += file.metadata.num_rows
    except UserError as error:
        return str(error)
    wanted = {"": counts["written"], **{f"dropped/{reason}": count for reason, count in counts["dropped"].items()}}
    wrong = (f"{rows[part]} {part} rows, its manifest says {count}" for part, count in wanted.items() if rows[part] != count)
    return next((f"{output}: holds {' '.join(each.split())}" for each in wrong), None)


@contextlib.contextmanager
def placing(output: str, work: Path, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder whose files are at the output when the block ends well; on the way to a store they lie in `work`.

    The block writes the manifest, and the output is looked at once more: what came there meanwhile stays.
    """
    if not is_remote(output):
        with building(output) as folder:
            yield folder
            _require_free(output, folder, work, overwrite)
        return
    folder = work / "output"
    remote_files.remove(folder)
    folder.mkdir(parents=True)
    yield folder
    _require_free(output, folder, work, overwrite)
    _upload(folder, output)


def _manifest_in(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    assert manifest is not None, "a result has one"
    return manifest


def _require_free(output: str, folder: Path, work: Path, overwrite: bool) -> None:
    manifest = _manifest_in(folder)
    try:
        is_finished(output, manifest["stage"], manifest["digest"], overwrite)
    except UserError as error:
        came = "it came there while this command was at work"
        raise WorkKept(f"{error}; {came}; what is done is kept: the same command goes on from {work}") from None


def _upload(folder: Path, output: str) -> None:
    """Copy a result to a store, its manifest last. Until then a file there says whose it is."""
    manifest = _manifest_in(folder)
    begun = {"stage": manifest["stage"], "digest": manifest["digest"], "run": uuid.uuid4().hex}
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    write_json(folder / BEGUN, begun)
    remote_files.put_files(folder, [BEGUN], output)
    remote_files.remove(output, first=MANIFEST, keep=BEGUN)
    remote_files.put_files(folder, [name for name in names if name != MANIFEST], output)
    if _object(output, BEGUN) != begun:
        raise WorkKept(f"{output}: another run writes there too; let one at a time write to an output")
    remote_files.put_files(folder, [MANIFEST], output)
    remote_files.remove(join(output, BEGUN))
