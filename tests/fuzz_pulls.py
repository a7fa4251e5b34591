"""Damaged exports of pull requests, and damaged clones, for `benchmarks/fuzz_builders.py`."""

from __future__ import annotations

import functools
import gzip
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pull_rows
from hostile import write_tokenizer
from mutate import HOSTILE_TEXTS, mutated_bytes, mutated_json

SHAPES = ("rest", "apart", "graphql", "archive", "events", "webhooks")


@functools.cache
def _fixed() -> tuple[Path, Path, dict[str, str]]:
    """Return a tokenizer and a clone that all mutants share, and the clone's commits."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-pulls-fixed-"))
    write_tokenizer(folder / "starcoder2", "starcoder2")
    return folder / "starcoder2", folder / "clone", pull_rows.make_clone(folder / "clone")


def mutant(rng: random.Random, folder: Path) -> dict[str, Any]:
    """Write a damaged export and return the mapping of its source."""
    tokenizer, clone, commits = _fixed()
    shape = rng.choice(SHAPES)
    keys: dict[str, Any] = {
        "view": rng.choice(["document", "document", "dialogue"]),
        "task": rng.choice(["review", "suggest", "both"]),
        "rules": {"preset": rng.choice(["none", "none", "own", "starcoder2"])},
        "tokenizer": rng.choice([*[str(tokenizer)] * 9, "nano"]),
    }
    if rng.random() < 0.1:
        keys["format"] = rng.choice(["gharchive", "webhooks", "rest", "graphql"])
    if rng.random() < 0.3:
        keys["clone"] = str(clone)
        if rng.random() < 0.15:
            keys["clone"] = str(_damaged(clone, folder / "clone", rng))
    tables = {name: pull_rows.with_commits(rows, commits) for name, rows in _tables(shape, rng).items()}
    (folder / "export").mkdir()
    for name, rows in tables.items():
        _write(folder / "export" / name, [mutated_json(row, rng) if rng.random() < 0.7 else row for row in rows], shape, rng)
    return {"path": str(folder / "export"), **keys}


def _tables(shape: str, rng: random.Random) -> dict[str, list[Any]]:
    if shape == "apart":
        return dict(pull_rows.apart(_hunted(pull_rows.pull_row(), rng)))
    if shape == "archive":
        return {"archive": [pull_rows.archive()]}
    if shape in ("events", "webhooks"):
        rows: list[Any] = getattr(pull_rows, shape)()
        rng.shuffle(rows)
        return {"one": rows[:5], "two": rows[3:]}
    row = pull_rows.graphql_row() if shape == "graphql" else _hunted(pull_rows.pull_row(), rng)
    return {"pulls": [row, rng.choice([None, [], 5, "x", {}, {"number": 1, "title": "an issue"}, row]), row]}


def _hunted(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return a row whose texts that are parsed, patches, hunks and bodies, are more often damaged than others."""
    if rng.random() < 0.5:
        return row
    spoil = mutated_json([row["files"][0]["patch"], row["review_comments"][0]["diff_hunk"], row["review_comments"][0]["body"]], rng)
    if isinstance(spoil, list) and len(spoil) == 3:
        row["files"][0]["patch"], row["review_comments"][0]["diff_hunk"], row["review_comments"][0]["body"] = spoil
    if rng.random() < 0.3:
        row["review_comments"][0]["body"] = rng.choice(HOSTILE_TEXTS) + "\n```suggestion\n" + rng.choice(HOSTILE_TEXTS) + "\n```"
    return row


def _write(path: Path, rows: list[Any], shape: str, rng: random.Random) -> None:
    if shape == "archive" or (shape != "events" and rng.random() < 0.3):
        value = rows[0] if shape == "archive" else rows
        data, suffix = json.dumps(value, indent=rng.choice([None, 1])).encode(), ".json"
    else:
        end = rng.choice([b"\n", b"\n", b"\r\n", b"\n\n"])
        data, suffix = b"".join(json.dumps(row).encode() + end for row in rows), rng.choice([".jsonl", ".json"])
    if rng.random() < 0.3:
        data = mutated_bytes(data, rng)
    if rng.random() < 0.2:
        data, suffix = gzip.compress(data), suffix + ".gz"
        if rng.random() < 0.2:
            data = mutated_bytes(data, rng)
    path.with_name(path.name + suffix).write_bytes(data)


def _damaged(clone: Path, target: Path, rng: random.Random) -> Path:
    """Return a copy of a clone of which some objects are gone or changed."""
    shutil.copytree(clone, target, symlinks=True)
    objects = [path for path in sorted((target / ".git" / "objects").glob("??/*")) if path.is_file()]
    for path in rng.sample(objects, min(len(objects), rng.randint(1, 3))):
        path.chmod(0o644)
        if rng.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(mutated_bytes(path.read_bytes(), rng))
    return target
