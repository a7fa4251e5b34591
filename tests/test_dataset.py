"""A dataset of every kind of source and step: the same bytes however it is cut, whoever makes it, and whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

import fuzz_dataset
import mixed_sources
from data_prep import dataset
from data_prep.engines import Engine
from data_prep.prepare import prepare
from mixed_sources import prepare_small, write_spec
from starchat.errors import UserError
from test_task_engines import ROOT, contents, descendants, wait_until


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spec(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def calm(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes in one piece after the other, undisturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("calm"))
        prepare_small(spec, "out", Engine("here", workers=1))
        return contents(Path("out"))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """End what a test that fails leaves at work."""
    yield
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if mixed_sources.__file__ in process.cmdline():
                process.kill()


def start(spec: Path, engine: str = "Engine(workers=2)", **variables: str) -> subprocess.Popen[str]:
    """Start a process that prepares the spec in the current folder."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **variables}
    command = [sys.executable, mixed_sources.__file__, str(spec), "out", engine]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def done(step: str) -> set[str]:
    """The tasks of a step that are done."""
    return set(marks(step))


def marks(step: str) -> dict[str, int]:
    """When the tasks of a step were done."""
    found = {}
    with contextlib.suppress(FileNotFoundError):  # the run has just ended
        for path in Path(".out.work", step).glob("*/done.json"):
            found[path.parent.name] = path.stat().st_mtime_ns
    return found


def kill_a_worker(driver: subprocess.Popen[str]) -> None:
    """Kill the youngest process of a run that has none below it, if there still is one."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for worker in [each for each in descendants(driver) if not each.children()][-1:]:
            worker.kill()


def test_every_kind_and_step_is_in_it(spec: Path, calm: dict[str, bytes]) -> None:
    counts = json.loads(calm["manifest.json"])["counts"]
    assert all(source["written"] for source in counts["sources"])
    assert {"contaminated", "duplicate", "no_assistant_turn", "wrong_type", "near_duplicate"} <= set(counts["dropped"]), counts["dropped"]
    assert {"redacted_email"} <= set(counts["repaired"])
    assert counts["copies"] > 10
    assert len([name for name in calm if name.startswith("train-")]) > 3


@pytest.mark.parametrize(("engine", "pieces"), [(Engine(workers=1), 1_000), (Engine(workers=2), 2), (Engine(workers=4), 1)])
def test_the_same_bytes_in_any_number_of_shards(engine: Engine, pieces: int, spec: Path, calm: dict[str, bytes]) -> None:
    prepare_small(spec, "out", engine, pieces)
    assert contents(Path("out")) == calm
    assert os.listdir() == ["out"]


def test_a_killed_driver_begins_again_where_it_was(spec: Path, calm: dict[str, bytes]) -> None:
    driver = start(spec)
    wait_until(lambda: len(done("shards")) >= 5, 60)
    family = descendants(driver)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family), 5)
    before = marks("shards")
    assert 5 <= len(before) < 40
    seen: dict[str, int] = {}
    again = start(spec)
    while again.poll() is None:
        seen.update(marks("shards"))
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert {name: seen[name] for name in before if name in seen} == before, "what was done is not made again"
    assert contents(Path("out")) == calm
    assert os.listdir() == ["out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_from_where_it_goes_on(number: int, spec: Path, calm: dict[str, bytes]) -> None:
    """Ctrl-C in a terminal, Slurm and systemd tell the workers too."""
    driver = start(spec)
    wait_until(lambda: len(done("shards")) >= 5, 60)
    family = descendants(driver)
    os.killpg(driver.pid, number)
    out, err = driver.communicate(timeout=60)
    what, status = ("interrupted", 130) if number == signal.SIGINT else ("terminated", 143)
    kept = Path(".out.work").absolute()
    assert (driver.returncode, out) == (status, "")
    assert err == f"starchat: {what}; what is done is kept: the same command goes on from {kept}\n"
    wait_until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family), 5)
    assert os.listdir() == [".out.work"]
    before = marks("shards")
    assert len(before) >= 5
    again = start(spec)
    seen: dict[str, int] = {}
    while again.poll() is None:
        seen.update(marks("shards"))
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert {name: seen[name] for name in before if name in seen} == before, "what was done is not made again"
    assert contents(Path("out")) == calm


def test_killed_workers_cost_nothing_but_their_task(spec: Path, calm: dict[str, bytes]) -> None:
    driver = start(spec)
    for count in (2, 9):
        wait_until(lambda count=count: len(done("shards")) >= count or driver.poll() is not None, 60)
        kill_a_worker(driver)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert contents(Path("out")) == calm


@pytest.mark.slow
def test_killed_again_and_again(spec: Path, calm: dict[str, bytes]) -> None:
    """In every step, until a run ends; each does more than the one before."""
    for _ in range(40):
        before = sum(len(done(step)) for step in ("shards", "near/sign", "near/link", "near/resolve", "files"))
        driver = start(spec)

        def is_further(before: int = before, driver: subprocess.Popen[str] = driver) -> bool:
            found = sum(len(done(step)) for step in ("shards", "near/sign", "near/link", "near/resolve", "files"))
            return found > before + 9 or driver.poll() is not None

        wait_until(is_further, 60)
        driver.kill()
        _, err = driver.communicate()
        if driver.returncode == 0:
            break
        assert driver.returncode == -9, err
    assert contents(Path("out")) == calm


def rows() -> list[dict[str, Any]]:
    return [row for path in sorted(Path("out").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def killed(spec: Path) -> None:
    """Leave a work folder behind, with some shards done."""
    driver = start(spec)
    wait_until(lambda: len(done("shards")) >= 6, 60)
    driver.kill()
    driver.communicate()


@pytest.mark.slow
def test_a_changed_spec_or_notebook_never_meets_old_shards(tmp_path: Path) -> None:
    """Also a file that only its worker reads, changed between the kill and the next run."""
    spec = write_spec(tmp_path / "mixed")
    killed(spec)
    book = tmp_path / "mixed" / "books" / "00.ipynb"
    book.write_text(book.read_text().replace("Lesson 0", "Chapter 0"), encoding="utf-8")
    spec.write_text(spec.read_text().replace('"weight": 1.5', '"weight": 2.0'), encoding="utf-8")
    prepare_small(spec, "out", Engine(workers=2))
    found = contents(Path("out"))
    os.rename("out", "first")
    prepare_small(spec, "out", Engine("here", workers=1))
    assert contents(Path("out")) == found
    assert sum(b"Chapter 0" in json.dumps(row).encode() for row in rows()) == 1


@pytest.mark.slow
def test_a_notebook_that_changed_after_the_kill_is_read_again(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "mixed")
    killed(spec)
    assert "shard-000000" in done("shards"), "the notebooks of the first shard were read"
    (book := tmp_path / "mixed" / "books" / "00.ipynb").write_text(json.dumps({"nbformat": 4, "cells": []}), encoding="utf-8")
    prepare_small(spec, "out", Engine(workers=2))
    found = contents(Path("out"))
    described = {read["path"]: read["bytes"] for read in json.loads(found["manifest.json"])["inputs"] if "bytes" in read}
    assert described[str(book)] == book.stat().st_size
    os.rename("out", "first")
    prepare_small(spec, "out", Engine("here", workers=1))
    assert contents(Path("out")) == found


def test_two_runs_for_one_output_do_not_meet(spec: Path) -> None:
    driver = start(spec)
    wait_until(lambda: len(done("shards")) >= 2, 60)
    with pytest.raises(UserError, match="out: another process is at work in it"):
        prepare(spec, ["output=out"], progress=False)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err


@pytest.mark.parametrize("name", ["items.jsonl", "lines.npy"])
def test_a_bit_that_flips_in_what_is_done_is_found(name: str, spec: Path, calm: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes stay as they are; what is said is followed then, and only that shard is made again."""
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "_write", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            prepare_small(spec, "out", Engine("here", workers=1))
    damaged = next(path for path in sorted(Path(".out.work/shards").glob(f"*/{name}")) if path.stat().st_size > 300)
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(UserError) as error:
        prepare_small(spec, "out", Engine("here", workers=1))
    assert f"{damaged.absolute()}: is not as it was written" in str(error.value)
    assert f"remove {damaged.absolute().parent} and run again" in str(error.value)
    before = marks("shards")
    shutil.rmtree(damaged.parent)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "_write", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            prepare_small(spec, "out", Engine("here", workers=1))
    assert {name for name, time_ns in marks("shards").items() if time_ns != before[name]} == {damaged.parent.name}
    prepare_small(spec, "out", Engine("here", workers=1))
    assert contents(Path("out")) == calm


def test_nothing_is_left_after_an_error(spec: Path) -> None:
    with pytest.raises(UserError, match="1 of 296 units is malformed"):
        prepare(spec, ["output=out", "max_bad_fraction=0"], progress=False, workers=2)
    assert os.listdir() == []


def test_a_finished_dataset_is_not_made_again(spec: Path) -> None:
    """The digest is the same, whether inputs were described before the work or by those who did it."""
    first = prepare(spec, ["output=out"], progress=False)
    again = prepare(spec, ["output=out"], progress=False)
    assert again["skipped"] and again["digest"] == first["digest"]


@pytest.mark.parametrize("number", [0, fuzz_dataset.MUTANTS])
def test_damaged_sources_are_accounted_for(number: int, tmp_path: Path) -> None:
    """Some of the mutants that ``python tests/fuzz_dataset.py`` makes by the thousand."""
    assert "kept" in fuzz_dataset.check(random.Random(f"0:{number}"), tmp_path)
