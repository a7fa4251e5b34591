"""What is handed to the tasks of one dataset does not grow with how many shards and sources there are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import near_duplicates
from data_prep.engines import Engine, run_tasks_on
from data_prep.near_duplicates import NearDuplicateRules, find_near_duplicates
from data_prep.tasks import Task
from data_prep.verdicts import ENTRY, Portion
from data_prep.write_portions import write_tasks
from fuzz_near_duplicates import read

TEXT = " ".join(f"word{number}" for number in range(40))


def sizes_of_tasks(folder: Path, shards: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes of the largest task of each step that finds near-duplicates."""
    found: dict[str, int] = {}

    def run(engine: Engine, tasks: list[Task], place: Path, *rest: Any) -> list[Any]:
        found[place.name] = max(len(pickle.dumps(task.arguments)) for task in tasks)
        return run_tasks_on(engine, tasks, place, *rest)

    monkeypatch.setattr(near_duplicates, "run_tasks_on", run)
    given = [[(f"{TEXT} {number % 7}", 0)] for number in range(shards)]
    assert len(find_near_duplicates(Engine("here"), given, read, folder, NearDuplicateRules(), "")) == shards - 1
    return found


def test_tasks_that_find_near_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = sizes_of_tasks(tmp_path / "few", 2, monkeypatch)
    many = sizes_of_tasks(tmp_path / "many", 120, monkeypatch)
    for step in ("link", "resolve", "deal"):
        assert many[step] < few[step] + 50, step


def test_tasks_that_write(tmp_path: Path) -> None:
    entries = np.zeros(3, ENTRY)
    sizes = []
    for sources in (1, 10_000):
        portions = iter([Portion("train-00000.parquet", "train", None, entries), Portion("dropped.parquet", None, "mixture", entries)])
        sizes += [len(pickle.dumps(task)) for task in write_tasks(portions, tmp_path, "shard-{:06d}", tuple([0.5] * sources))]
    assert sizes[:2] == sizes[2:]
