"""The files that a dataset depends on: what manifests say of them, and whether they are still what was said.

In: entries for a manifest's ``inputs`` (`data_prep.remote_files.describe_input`), and names of models. Out: the entries that are no longer
true. What reads a file reads it after it was described, in another process perhaps: rows are those of the digest only if the file was
not changed in between. Size and time tell that; a file is read once more only where they differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_prep.remote_files import STAMP, describe_input, is_remote, stamp_of
from starchat.errors import UserError

ASKED_AT_ONCE = 16
"""Objects of a store that are asked for at a time."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
"""What `starchat.tokens.load_tokens` reads of a model's folder."""


def without_stamps(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return entries as manifests have them: the same files have the same, whenever they were written."""
    return [{key: value for key, value in entry.items() if key != STAMP} for entry in entries]


def is_unchanged(entry: Mapping[str, Any]) -> bool:
    """Return whether a file, or an object of a store, is what it was when it was described."""
    place = entry[STAMP][0] if STAMP in entry else entry["path"]
    try:
        if STAMP in entry and stamp_of(place) == list(entry[STAMP]):
            return True
        return without_stamps([describe_input(place, entry["path"])]) == without_stamps([entry])
    except (OSError, UserError):
        return False


def changed_inputs(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of files that are no longer what they were; other entries, such as those of commits, name what cannot change."""
    told = list(entries)
    objects = [entry for entry in told if STAMP not in entry and is_remote(entry.get("path", ""))]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        same = dict(zip(map(id, objects), pool.map(is_unchanged, objects), strict=True))
    return [entry for entry in told if not (is_unchanged(entry) if STAMP in entry else same.get(id(entry), True))]


def tokenizer_inputs(name: str) -> list[dict[str, Any]]:
    """Return the entries of a tokenizer that is named by its folder, or that of a finished run; another's name says all that is known."""
    from starchat.hub import start_folder

    folder = start_folder(name) if Path(name).is_dir() else Path()
    files = [folder / file for file in TOKENIZER_FILES] if Path(name).is_dir() else []
    return [describe_input(file) for file in files if file.is_file()]


def model_inputs(name: str) -> list[dict[str, Any]]:
    """Return the entries of all files of a model that is named by its folder."""
    folder = Path(name)
    return [describe_input(file) for file in sorted(folder.iterdir()) if file.is_file()] if folder.is_dir() else []
