"""The search for near-duplicates as tasks: what it finds in one process it finds on any engine, and nothing is made twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import fuzz_near_duplicates
from data_prep.engines import Engine
from data_prep.near_duplicates import NearDuplicateRules, find_near_duplicates
from data_prep.tasks import job_digest
from fuzz_near_duplicates import read
from starchat.errors import UserError

RULES = NearDuplicateRules()


def test_the_same_is_found(tmp_path: Path) -> None:
    rng = random.Random(5)
    documents = [document for _ in range(12) for document in fuzz_near_duplicates.mutant(rng)]
    wanted = find_near_duplicates(Engine("here"), [documents], read, tmp_path / "one", RULES, "")
    assert len(wanted) > 10
    shards = [documents[:7], [], documents[7:60], documents[60:]]
    digest = job_digest(len(documents), [])
    assert find_near_duplicates(Engine(workers=2), shards, read, tmp_path / "run", RULES, digest) == wanted
    marks = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("done.json")}
    assert find_near_duplicates(Engine(workers=1), shards, read, tmp_path / "run", RULES, digest) == wanted
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("done.json")} == marks
    assert find_near_duplicates(Engine(), [], read, tmp_path / "none", RULES, digest) == []


def test_a_store_of_objects_is_refused() -> None:
    with pytest.raises(UserError, match="s3://bucket/run: near-duplicates are found by random access; expected a folder on a disk"):
        find_near_duplicates(Engine(), [], read, "s3://bucket/run", RULES, "")
