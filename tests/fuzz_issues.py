"""Damaged inputs of ``kind: issues`` (`benchmarks/fuzz_builders.py`)."""

from __future__ import annotations

import atexit
import functools
import gzip
import json
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from issue_inputs import archive, bigcode_row, comment, event, graphql_page, issue, old_events, thread_events
from mutate import HOSTILE_TEXTS, mutated_bytes, mutated_json, mutated_text

MAIL = (
    "Yes.\n\nOn Tue, Jul 3, 2018 at 10:36 PM, X Y <notifications@github.com>\nwrote:\n\n> old\n"
    ">\n> —\n> You are receiving this because\n\nNo.\n"
)
OUTLOOK = (
    "Top.\n\nFrom: X <x@reply.github.com>\nSent: Monday\nTo: a/b\nSubject: Re\n\nOld.\n\n-- \nSig\n```\n-- \n@al @kai42\n```\n<!-- a -->"
)
RULES: tuple[dict[str, Any], ...] = (
    {},
    {"preset": "none"},
    {"preset": "none", "min_english": 0.5, "closed": "required"},
    {"min_characters": 10, "max_comment_lines": 3, "bots": "keep"},
)


@functools.cache
def starcoder2() -> str:
    """The folder of a small tokenizer with StarCoder2's tokens for files and issues."""
    from conftest import write_base_tokenizer

    folder = Path(tempfile.mkdtemp(prefix="starcoder2-"))
    atexit.register(shutil.rmtree, folder)
    write_base_tokenizer(folder, ("<|endoftext|>", "<repo_name>", "<file_sep>", "<issue_start>", "<issue_comment>", "<issue_closed>"))
    return str(folder)


def mutant(rng: random.Random, folder: Path) -> dict[str, Any]:
    """Write one damaged input into a folder, and return the mapping of its source."""
    shape = rng.choice((_hours, _hours, _rest, _graphql, _bigcode))
    path = shape(rng, folder)
    mapping: dict[str, Any] = {
        "path": str(path),
        "view": rng.choice(("document", "dialogue")),
        "tokenizer": "nano" if rng.random() < 0.8 else starcoder2(),
        "rules": rng.choice(RULES),
    }
    if rng.random() < 0.2:
        mapping["format"] = rng.choice(("gharchive", "rest", "graphql", "bigcode"))
    if rng.random() < 0.1:
        mapping["repository"] = rng.choice(("acme/lib", "", "/", "\0", "a b"))
    return mapping


def _hours(rng: random.Random, folder: Path) -> Path:
    events = thread_events() + old_events()
    events.append(event(9, "IssueCommentEvent", rng.choice(("edited", "deleted")), 9, issue=issue(), comment=comment(31, "maint", MAIL, 9)))
    events.append(event(10, "IssueCommentEvent", "created", 10, issue=issue(9), comment=comment(40, "renovate", OUTLOOK, 10)))
    rows = [mutated_json(row, rng) if rng.random() < 0.4 else row for row in events]
    rng.shuffle(rows)
    rows += rng.choices(rows, k=rng.randint(0, 3))
    for hour in range(rng.randint(1, 3)):
        _write(folder / f"2020-01-01-{hour}.json{rng.choice(('', '.gz'))}", rows[hour::3] if hour else rows, rng)
    return folder if rng.random() < 0.7 else folder / "*.json*"


def _rest(rng: random.Random, folder: Path) -> Path:
    issues = [issue(body=_text(rng)), issue(8, pull_request={"url": "x"}), issue(9, comments=[comment(1, "maint", _text(rng), 1)])]
    comments = [comment(31, "maint", _text(rng), 1), comment(32, None, _text(rng), 2)]
    _write_json(folder / "issues.json", mutated_json(issues, rng), rng)
    _write(folder / "comments.jsonl", [mutated_json(row, rng) if rng.random() < 0.5 else row for row in comments], rng)
    return folder


def _graphql(rng: random.Random, folder: Path) -> Path:
    value = archive() if rng.random() < 0.5 else graphql_page()
    if rng.random() < 0.5:
        _write_json(folder / "archive.json", mutated_json(value, rng), rng)
    else:
        _write(folder / "pages.jsonl", [mutated_json(value, rng), value], rng)
    return folder


def _bigcode(rng: random.Random, folder: Path) -> Path:
    _write(folder / "rows.jsonl", [mutated_json(bigcode_row(), rng), bigcode_row()], rng)
    return folder / "rows.jsonl"


def _text(rng: random.Random) -> str:
    text = rng.choice((MAIL, OUTLOOK, *HOSTILE_TEXTS))
    for _ in range(rng.randint(0, 2)):
        text = mutated_text(text, rng)
    return text


def _write(path: Path, rows: list[Any], rng: random.Random) -> None:
    data = b"".join(json.dumps(row).encode() + rng.choice((b"\n", b"\r\n", b"\n\n", b"\n")) for row in rows)
    if rng.random() < 0.3:
        data = mutated_bytes(data, rng)
    if path.suffix == ".gz":
        data = gzip.compress(data, 1)
        data = mutated_bytes(data, rng) if rng.random() < 0.05 else data
    path.write_bytes(data)
    if rng.random() < 0.03:
        os.symlink(path.name, path.with_name(f"link-{path.name}"))
        os.symlink(f"loop-{path.name}", path.with_name(f"loop-{path.name}"))


def _write_json(path: Path, value: Any, rng: random.Random) -> None:
    data = json.dumps(value, indent=rng.choice((None, 1))).encode()
    path.write_bytes(mutated_bytes(data, rng) if rng.random() < 0.2 else data)
