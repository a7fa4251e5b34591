"""Where a stage's result goes: a folder of this machine, whole or absent, or an address in a store, where the manifest comes last."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep import remote_files
from data_prep.remote_files import is_remote, join
from starchat.errors import UserError
from starchat.files import MANIFEST, already_finished, building, read_manifest


def exists(output: str) -> bool:
    """Return whether anything is where a result is to go, or could not go anywhere."""
    if is_remote(output):
        return bool(remote_files.sizes_bytes(output))
    return Path(output).exists() or Path(output).name in ("", "..")


def manifest_of(output: str) -> dict[str, Any] | None:
    """Return the manifest of a finished result, or None if there is none."""
    if not is_remote(output):
        return read_manifest(output)
    place = join(output, MANIFEST)
    data = remote_files.read_all([place]).get(place)
    try:
        found = None if data is None else json.loads(data)
    except ValueError:
        found = data
    if found is not None and not isinstance(found, dict):
        raise UserError(f"{place}: holds no manifest; it was damaged: remove what is there and run the stage again")
    return found


def is_finished(output: str, stage: str, digest: str, overwrite: bool) -> bool:
    """Return whether exactly this result is there; raise `UserError` if anything else is that may not be replaced."""
    if not is_remote(output):
        return already_finished(output, stage, digest, overwrite)
    if not exists(output):
        return False
    manifest = manifest_of(output)
    found = (manifest or {}).get("stage")
    if manifest is not None and found == stage and manifest.get("digest") == digest:
        return True
    if overwrite and found == stage:
        return False
    what = "other files, or a result that was not finished" if manifest is None else f"another {found} result"
    remedy = "choose another output or pass --overwrite" if found == stage else "choose another output, or remove what is there"
    raise UserError(f"{output}: holds {what}; {remedy}")


@contextlib.contextmanager
def placing(output: str, work: Path) -> Iterator[Path]:
    """Give an empty folder whose files are at the output when the block ends well; on the way to a store they lie in `work`."""
    if not is_remote(output):
        with building(output) as folder:
            yield folder
        return
    folder = work / "output"
    remote_files.remove(folder)
    folder.mkdir(parents=True)
    yield folder
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    remote_files.remove(output, first=MANIFEST)
    remote_files.put_files(folder, [name for name in names if name != MANIFEST], output)
    remote_files.put_files(folder, [MANIFEST], output)
