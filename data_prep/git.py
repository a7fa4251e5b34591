"""Read a git repository, bare or a clone, without a work tree: commits, trees and blobs, streamed.

In: a folder. Out: commit ids, changes, entries of a tree, contents. Git itself reads (``rev-list``, ``diff-tree``, ``ls-tree``,
``cat-file --batch``): packs, alternates, worktrees and both hash functions are its trade.

Somebody's repository is data, not configuration. Objects are read from an empty repository of our own that borrows the other's object
folder, by plumbing commands: no hook, filter, external program or remote is known there. Nothing is fetched; what a partial clone
lacks, and what is damaged, is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from data_prep.remote_files import temporary_folder
from starchat.errors import UserError
from starchat.files import digest_bytes

SKIPPED_BYTES = 1 << 20
"""How much of a blob that is too large is read at a time, to come past it."""

_ADDRESS = re.compile(r"^(?:\w+://[^/]+/|[\w.-]+@[\w.-]+:)(?:.*/)?(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?$")
"""An address on a server: of a clone from a folder the folder says nothing."""


_NUL = b"\0"
_ID_LINE = re.compile(rb"\n([0-9a-f]{64}|[0-9a-f]{40})\0")
_ID_LINE_BYTES = 66


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """Where the objects of a repository lie, and how: what every reading of them needs. `path` names the repository in messages."""

    path: str
    objects: str
    shallow: str | None
    object_format: str
    partial: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Oversize:
    """A blob of more bytes than were asked for."""

    bytes: int


Content = bytes | Oversize | None
"""What is read of an object: None where the repository lacks it."""

Place = str | Path | Store
"""A repository; its `Store` spares many small readings the asking."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A file in a tree: `mode` is git's (``100644``, ``100755`` executable, ``120000`` symbolic link, ``160000`` submodule)."""

    mode: str
    oid: str
    path: str


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A file that a commit changed: `status` is git's letter (``A``, ``D``, ``M``, ``R``, ``T``); `old_path` differs for renames."""

    status: str
    old_mode: str
    new_mode: str
    old_oid: str
    new_oid: str
    old_path: str
    path: str


def is_repository(path: str | Path) -> bool:
    """Return whether a folder is the root of a clone, or a bare repository."""
    folder = Path(path)
    return (folder / ".git").exists() or ((folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir())


def repository_name(path: str | Path) -> str:
    """Return ``owner/name`` of the address that a clone came from, or the name of its folder; an address may hold a password: the rest
    of it is not used."""
    done = _run(path, "config", "--get", "remote.origin.url")
    url = done.stdout.decode("utf-8", "replace").strip()
    if found := _ADDRESS.search(url):
        return f"{found['owner']}/{found['name']}"
    folder = Path(path).resolve()
    return (folder.parent if folder.name == ".git" else folder).name.removesuffix(".git")


def resolve(repository: str | Path, ref: str = "HEAD") -> str | None:
    """Return the id of the commit that `ref` means, or None in a repository without commits; raise `UserError` for an unknown one."""
    if ref.startswith("-") or "\0" in ref:
        raise UserError(f"{repository}: ref: {ref!r}; expected a branch, a tag or a commit, such as main")
    done = _run(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if done.returncode == 0:
        return done.stdout.decode().strip()
    if done.returncode > 1:  # 1 is git's word for a name that means nothing
        raise _fault(repository, done.stderr)
    if ref == "HEAD" and not _run(repository, "for-each-ref", "--count=1").stdout:
        return None
    if ref == "HEAD":
        raise UserError(f"{repository}: HEAD names a branch that does not exist; name one with the key ref")
    raise UserError(f"{repository}: ref: no branch, tag or commit {ref!r}; git -C {repository} branch -a lists them")


def open_store(repository: Place) -> Store:
    """Return where the objects of a repository lie; raise `UserError` if git cannot read it."""
    if isinstance(repository, Store):
        return repository
    objects, shallow = (_inner(repository, name) for name in ("objects", "shallow"))
    object_format = _run(repository, "rev-parse", "--show-object-format").stdout.decode().strip() or "sha1"
    partial = any((objects / "pack").glob("*.promisor"))
    return Store(str(repository), str(objects), str(shallow) if shallow.is_file() else None, object_format, partial)


def references(repository: str | Path) -> str:
    """Return a digest of all references with their commits: it tells whether something was fetched since."""
    return digest_bytes(_run(repository, "for-each-ref", "--format=%(objectname) %(refname)").stdout)


def shallow_commits(repository: Place) -> frozenset[str]:
    """Return the commits at which the history of a shallow clone is cut off: their parents are not there."""
    shallow = open_store(repository).shallow
    return frozenset(Path(shallow).read_text(encoding="ascii").split()) if shallow else frozenset()


def list_commits(repository: Place, commit: str) -> Iterator[str]:
    """Yield the ids of a commit and all that lie before it, the newest first."""
    with _reading(repository, None, "rev-list", commit) as output:
        for line in output:
            yield line.decode().strip()


def read_tree(repository: Place, commit: str) -> Iterator[Entry]:
    """Yield the files of a commit's tree, in git's order."""
    with _reading(repository, None, "ls-tree", "-r", "-z", "--full-tree", commit) as output:
        for record in _split(output, b"\0"):
            about, _, path = record.partition(b"\t")
            mode, _, oid = about.decode().split()
            yield Entry(mode, oid, os.fsdecode(path))


def read_changes(repository: Place, commits: Sequence[str]) -> Iterator[tuple[str, list[Change]]]:
    """Yield each commit with the files that it changed against its only parent, renames found by content; none for merges."""
    listing = "\n".join(commits).encode() + b"\n"
    store = open_store(repository)
    renames = "-M100%" if store.partial else "-M"  # to compare contents git would need them all
    with _reading(store, listing, "diff-tree", "--stdin", "-r", "-z", "--root", "--always", renames, "-l400", "--no-abbrev") as output:
        commit = ""
        changes: list[Change] = []
        fields = _split(output, b"\0")
        for field in fields:
            if field[:1] != b":":
                if commit:
                    yield commit, changes
                commit, changes = field.decode().strip(), []
                continue
            old_mode, new_mode, old_oid, new_oid, status = field[1:].decode().split()
            old_path = path = os.fsdecode(next(fields))
            if status[0] in "RC":
                path = os.fsdecode(next(fields))
            changes.append(Change(status[0], old_mode, new_mode, old_oid, new_oid, old_path, path))
        if commit:
            yield commit, changes


def read_blobs(repository: Place, oids: Iterable[str], max_bytes: int | None = None) -> Iterator[Content]:
    """Yield the content of each object, in order: an `Oversize` above `max_bytes`, None where the repository lacks it."""
    with tempfile.TemporaryFile() as listing:  # a pipe would fill up in both directions
        listing.writelines(f"{oid}\n".encode() for oid in oids)
        listing.seek(0)
        with _reading(repository, listing, "cat-file", "--batch", "--buffer") as output:
            while header := output.readline():
                _, _, size = header.rstrip(b"\n").rpartition(b" ")
                if not size.isdigit():  # "<id> missing"
                    yield None
                    continue
                yield _read_object(output, int(size), max_bytes)
                output.read(1)


def find_commits(repository: Place, names: Iterable[str]) -> dict[str, str]:
    """Return the whole id of each commit that a repository has; `names` are ids in hexadecimal, perhaps abbreviated."""
    asked = list(dict.fromkeys(names))
    listing = "".join(f"{name}\n" for name in asked).encode()
    with _reading(repository, listing, "cat-file", "--batch-check=%(objecttype) %(objectname)", "--buffer") as output:
        answers = [line.decode().split() for line in output]
    return {name: answer[1] for name, answer in zip(asked, answers, strict=True) if answer[0] == "commit"}


def read_patches(
    repository: Place, pairs: Iterable[tuple[str, str]], context: int, max_bytes: int
) -> Iterator[tuple[list[Change], bytes | Oversize]]:
    """Yield the files that changed between the commits of each pair (whole ids), and the patch of them all, in the same order.

    A file that became another kind (a link, a submodule) has two sections in the patch: its end and its beginning.
    """
    listing = "".join(f"{new} {old}\n" for old, new in pairs).encode()
    arguments = ("--stdin", "--always", "-r", "-z", "--raw", "-p", "-M", "-l400", "--no-abbrev", "--full-index", f"-U{context}")
    with _reading(repository, listing, "diff-tree", *arguments, "--no-ext-diff", "--no-textconv", "--no-color") as output:
        stream = _Marked(output)
        field = stream.until(_NUL)
        while field:  # the id of the second commit
            changes: list[Change] = []
            patch: bytes | Oversize = b""
            while (field := stream.until(_NUL))[:1] == b":":
                old_mode, new_mode, old_oid, new_oid, status = field[1:].decode().split()
                old_path = path = os.fsdecode(stream.until(_NUL))
                if status[0] in "RC":
                    path = os.fsdecode(stream.until(_NUL))
                changes.append(Change(status[0], old_mode, new_mode, old_oid, new_oid, old_path, path))
            if changes and not field:
                patch, field = stream.until_id(max_bytes)
            yield changes, patch


def merge_base(repository: Place, one: str, other: str) -> str | None:
    """Return the commit at which two commits parted, or None where they have nothing in common that is there."""
    with contextlib.suppress(UserError), _reading(repository, None, "merge-base", one, other) as output:
        return output.readline().decode().strip() or None
    return None


class _Marked:
    """A stream that is read up to marks in it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._held = bytearray()

    def until(self, mark: bytes) -> bytes:
        """Return what stands before the next mark, or before the end."""
        seen = 0
        while (place := self._held.find(mark, seen)) < 0:
            seen = max(0, len(self._held) - len(mark) + 1)
            if not self._more():
                return self._take(len(self._held), 0)
        return self._take(place, len(mark))

    def until_id(self, max_bytes: int) -> tuple[bytes | Oversize, bytes]:
        """Return what stands before the next line that is an id and a NUL, and the id; none at the end. No line of a patch begins so."""
        seen = dropped = 0
        while (found := _ID_LINE.search(self._held, seen)) is None:
            seen = max(0, len(self._held) - _ID_LINE_BYTES)
            if len(self._held) > max_bytes:
                dropped += seen
                del self._held[:seen]
                seen = 0
            if not self._more():
                break
        id = found[1] if found else b""
        size = found.start() + 1 if found else len(self._held)
        text = self._take(size, len(id) + 1 if found else 0)
        return (Oversize(dropped + size) if dropped or size > max_bytes else text), bytes(id)

    def _more(self) -> bool:
        chunk = self._stream.read(1 << 16)
        self._held += chunk
        return bool(chunk)

    def _take(self, size: int, mark: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[: size + mark]
        return taken


def _read_object(output: IO[bytes], size: int, max_bytes: int | None) -> bytes | Oversize:
    if max_bytes is None or size <= max_bytes:
        content = output.read(size)
        if len(content) < size:
            raise _ended(size)
        return content
    left = size
    while left:
        skipped = len(output.read(min(left, SKIPPED_BYTES)))
        if not skipped:
            raise _ended(size)
        left -= skipped
    return Oversize(size)


def _ended(size: int) -> UserError:
    return UserError(f"git ended in the middle of an object of {size} bytes; look at the repository with git fsck")


def _split(stream: IO[bytes], end: bytes) -> Iterator[bytes]:
    """Yield what stands before each `end` in a stream."""
    rest = b""
    while chunk := stream.read(1 << 16):
        *whole, rest = (rest + chunk).split(end)
        yield from whole
    if rest:
        yield rest


def _program(repository: str | Path) -> str:
    program = shutil.which("git")
    if program is None:
        raise UserError(f"{repository}: git is needed to read a repository, and is not on the PATH; install it")
    return program


def _environment() -> dict[str, str]:
    """Return the environment without what would point git elsewhere, and with what keeps it from asking, fetching and locking."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    quiet = {"GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_REPLACE_OBJECTS": "1"}
    return {**kept, **quiet, "LC_ALL": "C"}


def _run(repository: str | Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command that asks the repository itself, for its references and paths; never one around it."""
    command = [_program(repository), "-C", str(repository), "-c", "protocol.allow=never", "-c", "core.fsmonitor=false", *arguments]
    environment = {**_environment(), "GIT_CEILING_DIRECTORIES": str(Path(repository).resolve().parent)}
    return subprocess.run(command, capture_output=True, env=environment, check=False)


def _inner(repository: str | Path, name: str) -> Path:
    """Return the path of something inside a repository's own folder; raise `UserError` if git cannot read the repository."""
    done = _run(repository, "rev-parse", "--git-path", name)
    if done.returncode:
        raise _fault(repository, done.stderr)
    return Path(repository).resolve() / os.fsdecode(done.stdout.rstrip(b"\n"))


def _borrow(store: Store, folder: Path) -> dict[str, str]:
    """Make an empty repository in `folder` and return the environment in which git reads the objects of another one in it.

    Attributes and settings of the machine and of the caller, which change patches, are not known there either.
    """
    (folder / "objects").mkdir()
    (folder / "refs").mkdir()
    (folder / "HEAD").write_text("ref: refs/heads/none\n", encoding="ascii")
    settings = f"[core]\n\trepositoryformatversion = 1\n\tbare = true\n\tattributesFile = {os.devnull}\n[extensions]\n\tobjectFormat = "
    (folder / "config").write_text(f"{settings}{store.object_format}\n", encoding="ascii")
    quoted = '"' + store.objects.replace("\\", "\\\\").replace('"', '\\"') + '"'
    borrowed = {"GIT_DIR": str(folder), "GIT_ALTERNATE_OBJECT_DIRECTORIES": quoted}
    borrowed |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
    return {**_environment(), **borrowed, **({"GIT_SHALLOW_FILE": store.shallow} if store.shallow else {})}


@contextlib.contextmanager
def _reading(repository: Place, given: bytes | IO[bytes] | None, *arguments: str) -> Iterator[IO[bytes]]:
    """Give the output of a git command on the objects of a repository; raise `UserError` if git fails."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        errors = stack.enter_context(tempfile.TemporaryFile())
        if isinstance(given, bytes):
            listing = stack.enter_context(tempfile.TemporaryFile())
            listing.write(given)
            listing.seek(0)
            given = listing
        store = open_store(repository)
        environment = _borrow(store, folder)
        source = subprocess.DEVNULL if given is None else given
        command = [_program(store.path), *arguments]
        process = subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=errors, env=environment)
        assert process.stdout is not None
        finished = False
        try:
            yield process.stdout
            finished = not process.stdout.read(1)
        finally:
            process.stdout.close()
            if not finished:  # whoever reads has stopped: git would write on into a closed pipe
                process.kill()
            status = process.wait()
        if finished and status:
            errors.seek(0)
            raise _fault(store.path, errors.read())


def _fault(repository: str | Path, errors: bytes) -> UserError:
    lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    what = " ".join(lines[:3])[:300] or "git ended without a word"
    return UserError(f"{repository}: git cannot read it ({what}); give a clone or a bare repository that git log reads")
