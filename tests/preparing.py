"""Specs written and prepared in the current folder, and what must hold of every dataset, for the tests of prepare."""

from __future__ import annotations

import collections
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from data_prep.prepare import prepare
from starchat.dialogue import Record, from_row


def chat(question: str, answer: str = "An answer.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_rows(name: str, rows: list[Any]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def write_spec(*sources: dict[str, Any], **keys: Any) -> Path:
    path = Path("spec.yaml")
    path.write_text(yaml.safe_dump({"sources": [{"kind": "dialogues", **s} for s in sources], "output": "dataset", **keys}))
    return path


def run(*sources: dict[str, Any], overwrite: bool = False, workers: int | None = None, **keys: Any) -> dict[str, Any]:
    return prepare(write_spec(*sources, **keys), overwrite=overwrite, progress=False, workers=workers)


def records(folder: str = "dataset", split: str = "") -> list[Record]:
    files = sorted(Path(folder).glob(f"{split or '*'}-*.parquet"))
    return [from_row(row) for file in files for row in pq.read_table(file).to_pylist()]


def assert_conserved(manifest: dict[str, Any]) -> None:
    counts = manifest["counts"]
    for part in (counts, *counts["sources"]):
        assert part["read"] == part["kept"] + sum(part["dropped"].values())
    assert counts["read"] == sum(source["read"] for source in counts["sources"])
    rows = records(manifest["folder"])
    assert counts["written"] == len(rows) == sum(counts["splits"].values())
    assert counts["kept"] == len({row.id for row in rows}) == counts["written"] - counts["copies"]
    found: collections.Counter[str] = collections.Counter()
    for path in Path(manifest["folder"], "dropped").glob("*.parquet"):
        found[path.stem.partition("-")[0]] += pq.read_metadata(path).num_rows
    assert found == counts["dropped"]


def digests(folder: str) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(folder).rglob("*")) if p.is_file()}
