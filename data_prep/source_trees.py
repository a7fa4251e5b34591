"""The files of a folder or of a commit, by name, and their bytes.

In: a folder, a clone or a bare repository. Out: `Leaf`, in an order that depends on the names alone, and what `read_leaves` reads of
them, in any process. A folder that is a repository is read from its commit: what is not committed, such as a file of passwords, is
not there. In a plain folder hidden files and folders are left out for the same reason, each by name.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.git import Oversize, is_repository, read_blobs, read_tree, resolve
from starchat.errors import UserError

SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "node_modules", "__pycache__"})
Fault = tuple[str, str]

_NO_FILE = {
    "120000": ("symbolic_link", "links are not followed"),
    "160000": ("submodule", "another repository; give it as a source of its own"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """A file: its path from the root with slashes, its size where it is known, its object where it has one; or why it is not read."""

    path: str
    bytes: int | None = None
    oid: str | None = None
    fault: Fault | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """Where leaves are read from: a folder, or a commit of a repository."""

    root: str
    commit: str | None = None


def open_tree(path: str, ref: str | None) -> Tree:
    """Return the tree that `path` and `ref` name; raise `UserError` if there is none."""
    if not Path(path).is_dir():
        what = "is a file" if Path(path).exists() else "no such folder"
        raise UserError(f"{path}: {what}; give a folder of source files, a git clone or bare repository, or 'installed'")
    if not is_repository(path):
        if ref is not None:
            raise UserError(f"{path}: ref: {ref!r}, but the folder is no git repository; leave ref out, or give the root of a clone")
        return Tree(path)
    commit = resolve(path, ref or "HEAD")
    if commit is None:
        raise UserError(f"{path}: the repository has no commits; commit something, or give a folder without .git")
    return Tree(path, commit)


def list_leaves(tree: Tree) -> Iterator[Leaf]:
    """Yield the files of a tree, sorted by name."""
    if tree.commit is None:
        yield from _walk(tree.root, "")
        return
    for entry in read_tree(tree.root, tree.commit):
        yield Leaf(entry.path, None, entry.oid, _NO_FILE.get(entry.mode))


def _walk(root: str, prefix: str) -> Iterator[Leaf]:
    try:
        with os.scandir(os.path.join(root, prefix)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Leaf(prefix.rstrip("/") or ".", fault=("unreadable", f"{error.strerror}; nothing below it is read"))
        return
    for entry in entries:
        path = prefix + entry.name
        if entry.is_symlink():
            yield Leaf(path, fault=_NO_FILE["120000"])
        elif entry.is_dir(follow_symlinks=False):
            if entry.name in SKIPPED_FOLDERS or (entry.name.startswith(".") and path != ".reuse"):
                yield Leaf(path, fault=("skipped_folder", "hidden, or made by a tool"))
            else:
                yield from _walk(root, f"{path}/")
        else:
            yield _folder_leaf(entry, path)


def _folder_leaf(entry: os.DirEntry[str], path: str) -> Leaf:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Leaf(path, fault=("unreadable", str(error.strerror)))
    if not stat.S_ISREG(status.st_mode):
        return Leaf(path, fault=("special_file", "a pipe, socket or device"))
    if entry.name.startswith("."):
        return Leaf(path, status.st_size, fault=("hidden_file", "not looked into in a folder that is no repository"))
    return Leaf(path, status.st_size)


def read_leaves(tree: Tree, leaves: Sequence[Leaf], max_bytes: int | None) -> Iterator[bytes | Fault]:
    """Yield the bytes of each leaf, or why they cannot be had; of a leaf with a fault, that."""
    wanted = [leaf for leaf in leaves if leaf.fault is None]
    contents = _folder_contents(tree, wanted, max_bytes) if tree.commit is None else _git_contents(tree, wanted, max_bytes)
    for leaf in leaves:
        yield next(contents) if leaf.fault is None else leaf.fault


def too_large(size: int, max_bytes: int | None) -> Fault:
    """Return the fault of a file that has more bytes than are kept."""
    return "too_large", f"{size} bytes; at most {max_bytes} are kept"


def _git_contents(tree: Tree, leaves: Sequence[Leaf], max_bytes: int | None) -> Iterator[bytes | Fault]:
    if not leaves:
        return
    for found in read_blobs(tree.root, [leaf.oid or "" for leaf in leaves], max_bytes):
        if found is None:
            yield "missing_object", "the repository lacks it: a partial clone? git fetch --refetch brings everything"
        else:
            yield too_large(found.bytes, max_bytes) if isinstance(found, Oversize) else found


def _folder_contents(tree: Tree, leaves: Sequence[Leaf], max_bytes: int | None) -> Iterator[bytes | Fault]:
    for leaf in leaves:
        if max_bytes is not None and leaf.bytes is not None and leaf.bytes > max_bytes:
            yield too_large(leaf.bytes, max_bytes)
            continue
        try:
            with open(os.path.join(tree.root, leaf.path), "rb") as file:
                data = file.read(-1 if max_bytes is None else max_bytes + 1)
        except FileNotFoundError:
            yield "missing_file", "listed, but not on disk"
        except OSError as error:
            yield "unreadable", str(error.strerror)
        else:
            yield too_large(len(data), max_bytes) if max_bytes is not None and len(data) > max_bytes else data
