"""One source of every kind with all steps of curation, for tests of where and how often the work is done.

``python tests/mixed_sources.py FOLDER OUTPUT [ENGINE ...]`` prepares them in the current folder, in many small pieces.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import issue_inputs
import notebook_files
import pull_rows
from data_prep.engines import Engine
from data_prep.prepare import prepare
from made_up_benchmark import PROMPT, SOLUTION, write_problems
from repositories import commit, new
from starchat.errors import guarded

SMALL = {
    "data_prep.commits.COMMITS_OF_A_TASK": 2,
    "data_prep.dialogues.STRETCH_BYTES": 2_000,
    "data_prep.notebook_inputs.BATCH_UNITS": 3,
    "data_prep.source_code.TASK_FILES": 2,
    "data_prep.spill.PARTITION_BYTES": 4_000,
    "data_prep.verdicts.MAX_FILE_BYTES": 20_000,
    "data_prep.dataset.SMALL_BYTES": 0,
}
"""Sizes of pieces and files at which a few hundred records make dozens of tasks."""

MAIL = "someone.real@gmail.com"


def program(seed: int, lines: int = 30) -> str:
    """Return a made-up program that resembles no other."""
    rng = random.Random(seed)
    names = [f"name_{rng.randrange(10**6)}" for _ in range(12)]
    return "".join(f"{rng.choice(names)} = {rng.choice(names)}({rng.choice(names)}, {rng.randrange(99)})\n" for _ in range(lines))


def write_sources(folder: Path) -> list[dict[str, Any]]:
    """Write a source of every kind to a folder and return what a spec says of them."""
    for number in range(20):
        cells = [notebook_files.text(f"# Lesson {number}"), notebook_files.code(program(1_000 + number % 15), notebook_files.stream("1\n"))]
        notebook_files.write_notebook(folder / "books" / f"{number:02}.ipynb", notebook_files.book(*cells))
    clone = new(folder / "clone")
    for number in range(8):
        files = {f"part_{number}_{n}.py": f"# {MAIL}\n" + program(10 * (number % 6) + n) for n in range(4)}
        commit(clone, f"Add the parts of number {number} to the program", {**files, "main.py": program(99_000 + number)})
    chats = [f"How do I write number {n}?" for n in range(120)]
    rows = [{"messages": [turn("user", q), turn("assistant", f"Like this: {program(5_000 + n % 90, 4)}")]} for n, q in enumerate(chats)]
    known = {"messages": [turn("user", "Which?"), turn("assistant", f"```python\n{PROMPT}{SOLUTION}```")]}
    issue_inputs.write_lines(folder / "chats.jsonl", [*rows, *rows[:10], {"messages": [turn("user", "No answer")]}, known, {"messages": 3}])
    events = [
        issue_inputs.event(n, "IssuesEvent", "opened", 0, issue=issue_inputs.issue(n, id=n, body=issue_inputs.LONG * 3 + program(n, 3)))
        for n in range(40)
    ]
    issue_inputs.write_lines(folder / "events.json", events)
    commits = pull_rows.make_clone(folder / "tool")
    asked = pull_rows.pull_row()
    hunk = pull_rows.HUNK.replace("a+b", "a + b")
    asked["review_comments"][0] |= {"body": f"{pull_rows.COMMENT}\n```suggestion\n    return a + b  # tested\n```", "diff_hunk": hunk}
    pull_rows.write(folder / "pulls.jsonl", pull_rows.with_commits(pull_rows.numbered(30, asked), commits))
    none = {"rules": {"preset": "none"}}
    return [
        {"kind": "notebooks", "path": str(folder / "books"), **none},
        {"kind": "source", "path": str(clone), "view": "document", "repository": "acme/parts", "license": "MIT", **none},
        {"kind": "commits", "path": str(clone), **none},
        {"kind": "dialogues", "path": str(folder / "chats.jsonl"), "weight": 1.5},
        {"kind": "issues", "path": str(folder / "events.json"), **none},
        {"kind": "pulls", "path": str(folder / "pulls.jsonl"), "view": "dialogue", "task": "suggest", **none},
    ]


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def write_spec(folder: Path, **keys: Any) -> Path:
    """Write the sources and a spec of all steps, and return the spec."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "opted-out.txt").write_text("carol-dev\n", encoding="utf-8")
    steps = {
        "opt_out": {"lists": [str(folder / "opted-out.txt")]},
        "licenses": {"allow": ["permissive", "none", "unknown"]},
        "filters": {"preset": "starcoder2"},
        "decontaminate": {"benchmarks": [{"name": "posts", "problems": write_problems(folder)}]},
        "redact": {},
        "near_duplicates": {},
    }
    spec = {"sources": write_sources(folder), "curate": steps, "max_bad_fraction": 0.1, "output": "out", **keys}
    path = folder / "spec.yaml"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def prepare_small(spec: Path, output: str, engine: Engine, pieces: int = 2) -> dict[str, Any]:
    """Prepare a spec in many small pieces."""
    with contextlib.ExitStack() as stack:
        for name, value in SMALL.items():
            stack.enter_context(mock.patch(name, value))
        return prepare(spec, [f"output={output}"], progress=False, workers=engine.workers, engine=engine, pieces_of_a_shard=pieces)


if __name__ == "__main__":
    engine = eval(sys.argv[3])  # given by a test
    sys.exit(guarded(lambda: print(prepare_small(Path(sys.argv[1]), sys.argv[2], engine)["digest"]) or 0))
