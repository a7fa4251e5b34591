"""Mutated repositories and CommitPack rows for `benchmarks/fuzz_builders.py`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import repositories
from mutate import HOSTILE_TEXTS, mutated_bytes, mutated_json

PERSON = b"committer Ann <ann@example.org> %d +0000\n"
MODES = (b"100644", b"100644", b"100644", b"100755", b"120000", b"160000")
CONTENTS = (
    b"",
    b"a\n",
    b"a\nb\nc\n",
    b"\0\1\2",
    b"caf\xe9\n",
    "é\u2028\n".encode(),
    b"a\r\nb\r\n",
    b"x" * 5000,
    b"\xff\xfea\0",
    b"```\n<commit_after>\n",
)
ROW = {
    **{"commit": "c0ffee", "old_file": "a.py", "new_file": "a.py", "old_contents": "x = 1\n", "new_contents": "x = 2\ny\n"},
    **{"subject": "Change x", "message": "Change x\n\nWhy: because.", "lang": "Python", "license": "mit", "repos": "a/b,c/d"},
}


def data(content: bytes) -> bytes:
    """Return content as ``git fast-import`` reads it."""
    return b"data %d\n%s\n" % (len(content), content)


def linear_history(commits: int, lines: int = 60) -> bytes:
    """Return a history for ``git fast-import``: one file is added, then a line of it changes with each commit."""
    stream, content = [], [b"line %d of the file\n" % n for n in range(lines)]
    for number in range(commits):
        content[(7 * number) % lines] = b"commit %d wrote this\n" % number
        message = b"Write the line of commit %d" % number
        stream.append(b"commit refs/heads/main\n" + PERSON % (1_700_000_000 + number) + data(message))
        stream.append(b"M 100644 inline src/file.py\n" + data(b"".join(content)))
    return b"".join(stream)


def mutant(rng: random.Random, folder: Path) -> dict[str, Any]:
    """Write a damaged repository or table and return the mapping of its source."""
    keys: dict[str, Any] = {
        "view": rng.choice(["document", "dialogue"]),
        "form": rng.choice(["published", "full", "window", "diff"]),
        "rules": {"preset": rng.choice(["none", "none", "starcoder", "commitpackft"])},
    }
    if rng.random() < 0.5:
        rows = [mutated_json(ROW, rng) if rng.random() < 0.9 else rng.choice([None, [], "x", {}]) for _ in range(rng.randint(1, 4))]
        content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        (folder / "rows.jsonl").write_bytes(mutated_bytes(content, rng) if rng.random() < 0.3 else content)
        return {"path": str(folder / "rows.jsonl"), **keys}
    clone = repositories.new(folder / "r")
    repositories.git(clone, "fast-import", "--quiet", "--force", given=hostile_history(rng))
    if rng.random() < 0.3:
        _damage(clone, rng)
    return {"path": str(clone), **keys}


def hostile_history(rng: random.Random) -> bytes:
    """Return a history with odd names, modes, contents, messages and encodings, merges and empty commits."""
    stream, contents = [], {}
    for number in range(1, rng.randint(2, 8)):
        message = rng.choice(HOSTILE_TEXTS).encode("utf-8", "surrogatepass") + rng.choice(
            [b"", b"Fix a thing in it", b"\n\nSigned-off-by: x\n"]
        )
        stream.append(b"commit refs/heads/%s\nmark :%d\n" % (rng.choice([b"main", b"main", b"side"]), number))
        stream.append(PERSON % rng.choice([0, 1_700_000_000 + number, 2**33]))
        stream.append(rng.choice([b"", b"", b"encoding latin-1\n", b"encoding nonsense\n"]) + data(message))
        if number > 2 and rng.random() < 0.2:
            stream.append(b"merge :%d\n" % rng.randint(1, number - 1))
        for _ in range(rng.randint(0, 3)):
            name = rng.choice([b"a.py", b"b/c.json", b"sp ace", b"caf\xe9.c", b"\xf0\x9f\x98\x80", b'"q"', b"x.unknown", b"Makefile"])
            if rng.random() < 0.1 and contents:
                stream.append(b"D %s\n" % _quoted(rng.choice(sorted(contents))))
                continue
            mode = rng.choice(MODES)
            if mode == b"160000":
                stream.append(b"M 160000 %s %s\n" % (b"1" * 40, _quoted(name)))
                continue
            contents[name] = mutated_bytes(contents.get(name) or rng.choice(CONTENTS), rng)
            stream.append(b"M %s inline %s\n%s" % (mode, _quoted(name), data(contents[name])))
    return b"".join(stream)


def _quoted(name: bytes) -> bytes:
    return b'"' + name.replace(b'"', b'\\"') + b'"'


def _damage(clone: Path, rng: random.Random) -> None:
    """Change or remove one of the repository's own files."""
    files = sorted(p for p in (clone / ".git").rglob("*") if p.is_file() and p.suffix != ".sample")
    victim = rng.choice(files)
    victim.chmod(0o644)
    if rng.random() < 0.3:
        victim.unlink()
    else:
        victim.write_bytes(mutated_bytes(victim.read_bytes(), rng))
