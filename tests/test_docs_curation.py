"""The spec and the commands of docs/curation.md, run as they stand in a folder that has what they name."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from starchat.cli import main
from starchat.rows import dataset_digest
from tests.made_up_benchmark import ROWS
from tests.repositories import commit, new

DOC = (Path(__file__).parent.parent / "docs" / "curation.md").read_text(encoding="utf-8")
BLOCKS = {language: re.findall(rf"```{language}\n(.*?)```", DOC, re.DOTALL) for language in ("yaml", "bash")}


def make_inputs(folder: Path) -> None:
    """Write everything that the spec names."""
    header = "# Kept by grace.hopper@navy.mil\n"
    files = {
        f"{name}.py": f"{header}def {name}(value):\n    '''Return it.'''\n    return value + {len(name)}\n" for name in ("one", "three")
    }
    commit(new(folder / "tool"), "Begin", {**files, "LICENSE": "x"})
    work = folder / "work"
    (work / "exports").mkdir(parents=True)
    said = [
        {"user": {"login": "bob"}, "body": "Because of the cache: clear it, and it works again. " * 4, "created_at": "2026-01-02T00:00:00Z"}
    ]
    issue = {"number": 1, "title": "Why?", "user": {"login": "ada"}, "body": "It fails at once, and I cannot see why. " * 8}
    issues = [{**issue, "created_at": "2026-01-01T00:00:00Z", "comments": said, "html_url": "https://github.com/o/tool/issues/1"}]
    (work / "exports" / "issues.json").write_text(json.dumps(issues), encoding="utf-8")
    (work / "requests.txt").write_text("carol\n", encoding="utf-8")
    (work / "renamed.txt").write_text("carol caroline\n", encoding="utf-8")
    (work / "HumanEval.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    (work / "exam.jsonl").write_text(json.dumps({"id": "1", "question": ROWS[0]["prompt"], "answer": "x" * 99}) + "\n", encoding="utf-8")


def test_the_spec_and_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command ends well; where the page shows an id, a row's own is taken."""
    make_inputs(tmp_path)
    monkeypatch.chdir(tmp_path / "work")
    (spec,) = BLOCKS["yaml"]
    Path("data.yaml").write_text(spec, encoding="utf-8")
    assert main(["prepare", "data.yaml"]) == 0
    rows = pq.read_table("dataset/train-00000.parquet").to_pylist()
    run = Path("runs/mine")
    run.mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"stage": "train", "digest": "x"}), encoding="utf-8")
    (run / "begun.json").write_text(json.dumps({"dataset": dataset_digest("dataset")}), encoding="utf-8")
    commands = [line.split("#")[0].strip() for block in BLOCKS["bash"] for line in block.splitlines() if line.startswith("starchat")]
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command)[1:]
        if "--reason" in words:
            continue  # of so few rows none is a near-duplicate
        capsys.readouterr()
        assert main([rows[0]["id"] if word == "3f2a9c" else word for word in words]) == 0, command
        assert capsys.readouterr().out.strip(), command
    assert Path("dataset-2/unlearned.json").is_file()
