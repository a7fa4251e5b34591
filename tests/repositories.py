"""Small git repositories made by git itself, for tests and fuzzing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

QUIET = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "Ann"), ("EMAIL", "ann@example.org"))},
    **{f"GIT_{who}_DATE": "2024-05-01T12:00:00Z" for who in ("AUTHOR", "COMMITTER")},
}


def git(folder: Path, *arguments: str, given: bytes | None = None) -> str:
    """Run git in a folder, with no configuration of the machine's, and return what it says."""
    environment = {**os.environ, **QUIET}
    done = subprocess.run(["git", *arguments], cwd=folder, input=given, capture_output=True, check=True, env=environment)
    return done.stdout.decode("utf-8", "replace").strip()


def new(folder: Path) -> Path:
    """Return a new empty repository."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    return folder


def commit(folder: Path, message: str, files: Mapping[str, str | bytes | None], when: int = 0) -> str:
    """Write files (None removes one), commit them and return the commit's id."""
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    git(folder, "add", "-A")
    git(folder, "-c", "core.autocrlf=false", "commit", "-q", "--allow-empty", "--cleanup=verbatim", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def history(folder: Path, commits: Sequence[tuple[str, Mapping[str, str | bytes | None]]]) -> list[str]:
    """Return the ids of commits made one behind the other in a new repository."""
    new(folder)
    return [commit(folder, message, files) for message, files in commits]
