"""Small datasets, recipes and finished runs, for the tests of training, verification and recipes."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.prepare import prepare
from starchat.train import train
from starchat.verify import verify

THINGS = ("list", "dict", "set", "tuple", "string", "file", "class", "loop")
QUESTIONS = ("How do I copy a {}?", "Why is my {} empty?", "Print each item of a {}.", "Is a {} ordered?")
ANSWERS = (
    "for item in {0}:\n    print(item)\n",
    "The {0} is made once, and every call shares it.",
    "Use `{0}.copy()`.",
    "\n    return {0}",
)


def write_dialogues(path: Path) -> Path:
    """Write 32 dialogues to a JSONL file: each fourth has a second exchange, each eighth a system turn."""
    lines = []
    for number in range(len(THINGS) * len(QUESTIONS)):
        thing, kind = THINGS[number % len(THINGS)], number // len(THINGS)
        messages = [
            {"role": "user", "content": QUESTIONS[kind].format(thing)},
            {"role": "assistant", "content": ANSWERS[(number + kind) % len(ANSWERS)].format(thing)},
        ]
        if number % 4 == 0:
            messages += [{"role": "user", "content": f"And of {number}?"}, {"role": "assistant", "content": f"{number} is a number."}]
        if number % 8 == 0:
            messages.insert(0, {"role": "system", "content": f"You help with every {thing}."})
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def prepare_dialogues(folder: Path) -> Path:
    """Return a prepared dataset of `write_dialogues`."""
    source = write_dialogues(folder / "chats.jsonl")
    spec = folder / "data.yaml"
    spec.write_text(
        yaml.safe_dump({"sources": [{"kind": "dialogues", "path": str(source)}], "output": str(folder / "dataset"), "test_fraction": 0.2})
    )
    prepare(spec, progress=False)
    return folder / "dataset"


def prepare_documents(folder: Path) -> Path:
    """Return a prepared dataset of 24 source files."""
    code = folder / "code"
    code.mkdir()
    for number in range(24):
        body = "\n".join(f"def f{number}_{n}(value):\n    return value + {n * number}\n" for n in range(8))
        (code / f"m{number}.py").write_text(body)
    source = {"kind": "source", "path": str(code), "license": "MIT"}
    spec = folder / "documents.yaml"
    spec.write_text(yaml.safe_dump({"sources": [source], "output": str(folder / "documents"), "test_fraction": 0.2}))
    prepare(spec, progress=False)
    return folder / "documents"


def write_recipe(path: Path, model: Path, dataset: Path, output: Path, **keys: Any) -> Path:
    """Write a recipe of two quick steps; `keys` replace its own, those under ``trainer`` one by one."""
    trainer = {"learning_rate": 1e-2, "max_steps": 2, "save_strategy": "no", "disable_tqdm": True, **keys.pop("trainer", {})}
    base = {
        "kind": "sft",
        "model": str(model),
        "dataset": str(dataset),
        "output": str(output),
        "max_length_tokens": 160,
        "min_stop_rate": 0.0,
    }
    path.write_text(yaml.safe_dump({**base, **keys, "trainer": trainer}), encoding="utf-8")
    return path


def finish(folder: Path, name: str, model: Path, dataset: Path, **keys: Any) -> Path:
    """Train a recipe, which stays at ``folder/name.yaml``; return the run's folder, ``folder/name``."""
    assert train(write_recipe(folder / f"{name}.yaml", model, dataset, folder / name, **keys))["ok"]
    return folder / name


def verify_here(run: Path) -> dict[str, Any]:
    """Return what the reload gate finds, in this process: all of the gate but the start of a new interpreter."""
    return verify(run)


@contextlib.contextmanager
def mounted_disk(folder: Path, size: str) -> Iterator[Path]:
    """Give a disk of that size, in memory; skip the test without the right to mount one."""
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # what failed in it may still hold files of it open


def read_lines(run: Path) -> list[dict[str, Any]]:
    """Return the logged training steps of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "loss" in line]


def write_pairs(folder: Path) -> Path:
    """Return a prepared dataset of 24 pairs; the rejected answers are all alike."""
    lines = []
    for number in range(24):
        thing, kind = THINGS[number % 8], number // 8
        row = {
            "prompt": QUESTIONS[kind].format(thing),
            "chosen": ANSWERS[number % 4].format(thing),
            "rejected": "I do not know." + " no" * kind,
        }
        lines.append(json.dumps(row))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    spec = {"sources": [{"kind": "dialogues", "path": str(folder / "pairs.jsonl")}], "output": str(folder / "pairs"), "test_fraction": 0.2}
    (folder / "pairs.yaml").write_text(yaml.safe_dump(spec))
    prepare(folder / "pairs.yaml", progress=False)
    return folder / "pairs"
