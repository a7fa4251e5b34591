"""A dataset of every kind of source made on a real Ray cluster of two nodes and on a real Slurm: the bytes are those of one process."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from clusters import RayNodes
from slurm import Slurm
from test_dataset import calm, done, in_a_folder, nothing_runs_on, spec, start
from test_task_clusters import cluster, needs_ray, needs_slurm, slurm
from test_task_engines import contents, descendants, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
__all__ = ["calm", "cluster", "in_a_folder", "nothing_runs_on", "slurm", "spec"]


def finished(spec: Path, engine: str, calm: dict[str, bytes]) -> None:
    """Prepare to the end, and hold every byte against what one process made."""
    driver = start(spec, engine)
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    assert contents(Path("out")) == calm
    assert os.listdir() == ["out"]


def begun(spec: Path, engine: str, shards: int) -> set[str]:
    """Kill a driver on its way; return which shards are done."""
    driver = start(spec, engine)
    wait_until(lambda: len(done("shards")) >= shards or driver.poll() is not None, 120)
    assert driver.poll() is None, driver.communicate()
    family = descendants(driver)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family), 20)
    return done("shards")


@needs_ray
def test_ray(cluster: RayNodes, spec: Path, calm: dict[str, bytes]) -> None:
    finished(spec, f"Engine('ray', address={cluster.address!r})", calm)


@needs_ray
def test_ray_with_a_worker_and_the_driver_killed(cluster: RayNodes, spec: Path, calm: dict[str, bytes]) -> None:
    engine = f"Engine('ray', address={cluster.address!r})"
    assert begun(spec, engine, 4)
    driver = start(spec, engine)
    wait_until(lambda: len(done("shards")) >= 8 or driver.poll() is not None, 120)
    for node in cluster.nodes:
        for worker in cluster.workers(node)[:1]:
            worker.kill()
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    assert contents(Path("out")) == calm


@needs_slurm
def test_slurm(slurm: Slurm, spec: Path, calm: dict[str, bytes]) -> None:
    finished(spec, "Engine('slurm', workers=2)", calm)


@needs_slurm
def test_slurm_with_an_index_and_the_driver_killed(slurm: Slurm, spec: Path, calm: dict[str, bytes]) -> None:
    engine = "Engine('slurm', workers=2)"
    assert begun(spec, engine, 4)
    running = slurm.run("squeue", "--noheader", "--states=RUNNING", "--format=%A", "--array").split()
    if running:
        slurm.run("scancel", "--signal=KILL", "--full", running[0])
    finished(spec, engine, calm)


@needs_slurm
def test_slurm_begun_and_ended_on_this_machine_alone(slurm: Slurm, spec: Path, calm: dict[str, bytes]) -> None:
    """What an array did is not done again by a pool."""
    before = begun(spec, "Engine('slurm', workers=2)", 4)
    wait_until(lambda: not slurm.run("squeue", "--noheader").strip(), 120)
    assert before <= done("shards")
    finished(spec, "Engine(workers=2)", calm)
