"""Mutated folders and repositories of source files for `benchmarks/fuzz_builders.py`."""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import repositories
from hostile import write_tokenizer
from mutate import HOSTILE_TEXTS, mutated_bytes, mutated_text

PYTHON = '"""A module."""\n\n\ndef add(a, b):\n    """Return the sum of both numbers."""\n    return a + b\n'
FILES = {
    "src/a.py": PYTHON,
    "src/b.go": "// Read reads all the rows.\nfunc Read(n int) []Row {\n\tif n > 0 {\n\t\treturn nil\n\t}\n\treturn rows[:n]\n}\n",
    "src/c.js": "/**\n * Join all the parts.\n */\nfunction join(a) {\n  return `${a}`;\n}\n",
    "lib/d.rs": "/// Returns the longest of them.\npub fn longest<'a>(x: &'a str) -> &'a str {\n    x\n}\n",
    "lib/e.rb": "# Return the first row of all.\ndef first(rows)\n  rows[0]\nend\n",
    "lib/COPYING": "This is under the GNU General Public License, version 2 or any later version.\n",
    "LICENSE": "Permission is hereby granted, free of charge, to any person obtaining a copy\n" * 3,
    "REUSE.toml": 'version = 1\n[[annotations]]\npath = "src/**"\nSPDX-License-Identifier = "MIT"\n',
    ".reuse/dep5": "Format: x\n\nFiles: *.c\nLicense: MIT\n",
    "pyproject.toml": '[project]\nlicense = "MIT"\n',
    "package.json": '{"license": "ISC", "name": "x"}',
    "page.html": "<html><body><p>" + "Some words to read. " * 20 + "</p></body></html>",
    "data.json": '{"name": "value", "other": ["text", "more text"]}',
    "README": "Read this before all else.\n",
    "run": "#!/usr/bin/env python3\nprint(1)\n",
    "test/t.py": PYTHON.replace("add", "sub"),
    "x_pb2.py": PYTHON.replace("add", "pb"),
}
NAMES = (
    "\udcff.py",
    "a b.py",
    "ü.go",
    "n\nl.py",
    ".env",
    "node_modules/x.js",
    "a/../b.py",
    "x" * 200 + ".c",
    "con.py",
    "<file_sep>.py",
    "A.PY",
)


def mutant(rng: random.Random, folder: Path) -> dict[str, Any]:
    """Write a damaged folder or repository and return the mapping of its source."""
    root = folder / "r"
    is_repository = rng.random() < 0.12
    repositories.new(root) if is_repository else root.mkdir()
    for name in rng.sample(sorted(FILES), rng.randint(0 if rng.random() < 0.05 else 3, 9)):
        _write(root, rng.choice(NAMES) if rng.random() < 0.1 else name, _content(FILES[name], rng))
    if rng.random() < 0.2:
        _odd_entry(root, rng)
    if is_repository:
        repositories.git(root, "add", "-A")
        if rng.random() < 0.9:
            repositories.git(root, "commit", "-q", "--allow-empty", "-m", "x")
        if rng.random() < 0.3:
            _damage(root, rng)
    return {"path": str(root), **_keys(rng)}


def _keys(rng: random.Random) -> dict[str, Any]:
    view = rng.choice(["document", "dialogue"])
    rules = {
        "preset": rng.choice(["starcoder", "starcoder2", "none", "none"]),
        **({"tests": "drop", "generated": "drop"} if rng.random() < 0.2 else {}),
        **({"languages": rng.choice([["Python"], ["Go", "Rust"], ["Ruby"], rng.choice([[], ["Pyhton"]])])} if rng.random() < 0.1 else {}),
        **({"max_file_bytes": rng.choice([1, 100, 200, None])} if rng.random() < 0.1 else {}),
    }
    return {
        "view": view,
        "tokenizer": rng.choice(["nano", starcoder2()]),
        "rules": rules,
        "form": rng.choice(["file", "repository"]) if view == "document" or rng.random() < 0.02 else "file",
        "metadata": rng.choice(["path", "all", "published", "none"]),
        "licenses": rng.choice(["any", "any", "any", "permissive"]),
        "answer_docs": rng.choice(["keep", "remove"]),
        "max_document_chars": rng.choice([1, 300, 200_000]),
        **({"stars": rng.choice([0, 11])} if rng.random() < 0.3 else {}),
        **({"license": rng.choice(["MIT", "MIT OR ISC", "ISC", "see the file"])} if rng.random() < 0.1 else {}),
        **({"ref": rng.choice(["HEAD", "main", "-x", "nowhere"])} if rng.random() < 0.02 else {}),
    }


@functools.cache
def starcoder2() -> str:
    """Return a folder with a tokenizer that has StarCoder2's tokens."""
    folder = tempfile.mkdtemp(prefix="starcoder2-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_tokenizer(Path(folder), "starcoder2")
    return folder


def _content(text: str, rng: random.Random) -> bytes:
    act = rng.randrange(6)
    if act == 0:
        return text.encode()
    if act == 1:
        return mutated_text(text, rng).encode("utf-8", "surrogatepass")
    if act == 2:
        return mutated_bytes(text.encode(), rng)
    if act == 3:
        return text.replace("\n", rng.choice(["\r\n", "\r", "\n\n", "\u2028"])).encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"]))
    if act == 4:
        return (text + "# caf\xe9 \xfc\n").encode("latin-1")
    return (rng.choice(HOSTILE_TEXTS) * rng.randint(1, 3) + text).encode("utf-8", "surrogatepass")


def _write(root: Path, name: str, content: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        path.write_bytes(content)


def _odd_entry(root: Path, rng: random.Random) -> None:
    """Make something that is no plain file."""
    place = root / f"odd{rng.randrange(3)}.py"
    if place.exists():
        return
    act = rng.randrange(5)
    if act == 0:
        place.symlink_to(rng.choice([root, Path("/etc/passwd"), Path("absent"), place]))
    elif act == 1:
        os.mkfifo(place)
    elif act == 2:
        place.mkdir()
        (place / "loop").symlink_to("..")
    elif act == 3:
        place.write_bytes(b"")
    else:
        place.write_bytes(rng.randbytes(2000))


def _damage(root: Path, rng: random.Random) -> None:
    """Take an object or a reference away from a repository, or change bytes of one."""
    files = sorted(
        path for path in (root / ".git").rglob("*") if path.is_file() and ("objects" in path.parts or path.name in ("main", "HEAD"))
    )
    victim = rng.choice(files)
    content = victim.read_bytes()
    victim.unlink()
    if rng.random() < 0.6:
        victim.write_bytes(mutated_bytes(content, rng))
