"""The cache of compiled kernels (torch's ``torch_extensions``), which a killed process leaves locked.

DeepSpeed compiles and loads its kernels through that cache. torch's lock there is a file that is made and removed again; a process that is
killed between the two leaves it, and every later process on the machine waits for it for ever, without a word. Imports no torch.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

STALE_S = 600
"""A kernel compiles in about a minute. So old, a lock is taken for left behind where its owner may be on another machine."""


def cache_folder() -> Path:
    """Return where torch compiles extensions: what ``TORCH_EXTENSIONS_DIR`` names, or its folder in the user's cache."""
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch_extensions"


def free_left_locks() -> None:
    """Remove the cache's locks that no living process holds, and say so; the first process of each machine does it.

    On one machine the holder is looked for: torch keeps the file open. Where several share the cache, only an old lock is removed.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) != 0:
        return
    alone = os.environ.get("WORLD_SIZE", "1") == os.environ.get("LOCAL_WORLD_SIZE", "1")
    for lock in cache_folder().glob("**/lock"):
        left = not _is_open(lock) if alone and sys.platform.startswith("linux") else _age_s(lock) > STALE_S
        if left:
            print(f"starchat: {lock}: a process that was killed left this lock; removed", file=sys.stderr)
            lock.unlink(missing_ok=True)


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime if path.exists() else 0.0


def _is_open(path: Path) -> bool:
    """Whether a process of this machine has the file open. Those of other users cannot be looked into, and do not write to this cache."""
    return any(target == str(path.resolve()) for target in _open_files())


def _open_files() -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            entries = list(folder.iterdir())
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
        for entry in entries:
            try:
                yield os.readlink(entry)
            except (PermissionError, FileNotFoundError, ProcessLookupError):
                continue
