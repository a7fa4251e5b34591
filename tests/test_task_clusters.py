"""Tasks on a real Ray cluster of two nodes, a real Slurm and a real S3 server, with workers, children, nodes and drivers killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters import RayNodes, ray_nodes, s3_server
from data_prep import remote_files
from data_prep.engines import DIED, Engine, run_tasks_on
from data_prep.tasks import DONE, Task, begin_run, find_done
from slurm import Slurm, slurm_of_one_node
from starchat.errors import UserError
from task_work import add_up, die, die_once, double_in_children, refuse
from test_task_engines import DIGEST, ROOT, descendants, outputs, squares, start_driver, wait_until

WITH_TESTS = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
needs_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs the package ray")
needs_s3 = pytest.mark.skipif(
    not (importlib.util.find_spec("s3fs") and importlib.util.find_spec("moto")), reason="needs s3fs and moto[server]"
)
needs_slurm = pytest.mark.skipif(not shutil.which("slurmctld") or os.getuid() != 0, reason="needs root and Debian's slurm-wlm")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    with ray_nodes(1, 1, **WITH_TESTS) as nodes, pytest.MonkeyPatch.context() as patch:
        for name, value in nodes.variables.items():
            patch.setenv(name, value)
        yield nodes


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm_of_one_node(tmp_path_factory.mktemp("slurm") / "daemons") as found, pytest.MonkeyPatch.context() as patch:
        for name, value in {**found.environment, **WITH_TESTS}.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield "s3://bucket"


def calm(tmp_path: Path, count: int) -> tuple[list[object], dict[str, bytes]]:
    """What one worker makes of the squares, and nobody disturbs it."""
    values = run_tasks_on(Engine(workers=1), squares(count), tmp_path / "calm", DIGEST)
    return values, outputs(tmp_path / "calm")


def all_sorts(engine: Engine, folder: str, tmp_path: Path) -> None:
    """Same bytes, processes and children killed, failures told when the others have ended."""
    killed = [Task("dies-once", die_once, (5, str(tmp_path / "mark"))), Task("children", double_in_children, (str(tmp_path / "inner"),))]
    values = run_tasks_on(engine, [*squares(6), *killed], folder, DIGEST)
    assert values[6:] == [5, [2 * n for n in range(8)]]
    assert (tmp_path / "mark").exists() and (tmp_path / "inner").exists()
    wanted, files = calm(tmp_path, 6)
    assert values[:6] == wanted
    with remote_files.at_hand(folder) as found:
        assert {name: data for name, data in outputs(found).items() if name.startswith("part-")} == files
    with pytest.raises(UserError) as caught:
        run_tasks_on(engine, [Task("dies", die, (1,)), Task("refuses", refuse, (3,)), *squares(8)], folder, DIGEST)
    told = str(caught.value)
    assert "task refuses: part 3: is not right; expected another; change it" in told and f"task dies: {DIED}" in told
    assert "2 of 10 tasks failed" in told
    assert len(find_done(squares(8), begin_run(folder, DIGEST))) == 8
    places = tuple(remote_files.join(folder, task.name) for task in squares(8))
    assert run_tasks_on(engine, [Task("sum", add_up, (places,))], folder, DIGEST) == [sum(n * n for n in range(80))]


def driver_killed(engine: str, folder: Path, tmp_path: Path, **variables: str) -> set[str]:
    """Kill the driver in the middle, run again, and return the names of the tasks that were done by then."""
    log = tmp_path / "begun"
    driver = start_driver(engine, folder, f"squares(12, 0.5, {str(log)!r})", **variables)
    wait_until(lambda: len(list(folder.glob("part-*"))) >= 3 or driver.poll() is not None, 90)
    assert driver.poll() is None, driver.communicate()
    family = descendants(driver)
    driver.kill()
    driver.communicate()
    wait_until(lambda: not any(each.is_running() and each.status() != "zombie" for each in family), 20)
    return {path.name for path in folder.glob("part-*")}


def rest_is_done(engine: str, folder: Path, tmp_path: Path, done: set[str], **variables: str) -> None:
    """Run again: what was done is not begun again, and the bytes are those of a calm run."""
    log = tmp_path / "begun"
    before = len(log.read_text().split())
    driver = start_driver(engine, folder, f"squares(12, 0.5, {str(log)!r})", **variables)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    again = {f"part-{int(number) // 10:02d}" for number in log.read_text().split()[before:]}
    assert not again & done
    values, files = calm(tmp_path, 12)
    assert out.strip().endswith(str(values)) and outputs(folder) == files


@needs_ray
def test_ray_of_two_nodes(cluster, tmp_path):
    all_sorts(Engine("ray", address=cluster.address), str(tmp_path / "run"), tmp_path)


@needs_ray
def test_ray_driver_killed(cluster, tmp_path):
    engine, folder = f"Engine('ray', address={cluster.address!r})", tmp_path / "run"
    done = driver_killed(engine, folder, tmp_path)
    assert 3 <= len(done) < 12
    rest_is_done(engine, folder, tmp_path, done)


@needs_ray
def test_ray_worker_and_whole_node_killed(cluster, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "begun"
    driver = start_driver(f"Engine('ray', address={cluster.address!r})", folder, f"squares(16, 0.5, {str(log)!r})")
    wait_until(lambda: all(cluster.workers(node) for node in cluster.nodes), 60)
    cluster.workers(cluster.nodes[0])[0].kill()
    wait_until(lambda: len(list(folder.glob("part-*"))) >= 5, 60)
    for each in descendants_of_node(cluster):
        each.kill()
    out, err = driver.communicate(timeout=180)
    assert driver.returncode == 0, err
    values, files = calm(tmp_path, 16)
    assert out.strip().endswith(str(values)) and outputs(folder) == files


def descendants_of_node(cluster: RayNodes) -> list:
    import psutil

    node = psutil.Process(cluster.nodes[-1].pid)
    return [node, *node.children(recursive=True)]


@needs_ray
def test_ray_in_this_process_alone(tmp_path, monkeypatch):
    for name, value in WITH_TESTS.items():
        monkeypatch.setenv(name, value)
    driver = start_driver("Engine('ray', 2)", tmp_path / "run", "squares(5)")
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert out.strip() == str(calm(tmp_path, 5)[0])


@needs_slurm
def test_slurm(slurm, tmp_path):
    all_sorts(Engine("slurm", workers=3), str(tmp_path / "run"), tmp_path)


@needs_slurm
def test_slurm_index_killed_and_driver_killed(slurm, tmp_path):
    """A killed index is submitted again; the array outlives its driver, and the next one joins it."""
    engine, folder = "Engine('slurm', workers=2)", tmp_path / "run"
    done = driver_killed(engine, folder, tmp_path)
    first = slurm.run("squeue", "--noheader", "--format=%A").split()
    killed = slurm.run("squeue", "--noheader", "--states=RUNNING", "--format=%A", "--array").split()[0]
    slurm.run("scancel", "--signal=KILL", "--full", killed)
    time.sleep(1)
    rest_is_done(engine, folder, tmp_path, done)
    assert first, "the array was still at work when the driver was gone"


@needs_slurm
def test_slurm_array_of_another_spec_is_not_joined(slurm, tmp_path):
    folder = tmp_path / "run"
    driver = start_driver("Engine('slurm', workers=2)", folder, "squares(4, 3.0)")
    wait_until(lambda: bool(list(folder.glob(".making-*/job.json"))), 60)
    driver.kill()
    driver.communicate()
    for engine in (Engine("slurm"), Engine("pool")):
        with pytest.raises(UserError, match=r"Slurm job \d+ is at work there; wait until it has ended, or end it: scancel"):
            run_tasks_on(engine, squares(4), folder, DIGEST)
    job = next(folder.glob(".making-*/job.json")).read_text().strip('"')
    slurm.run("scancel", job)
    wait_until(lambda: not slurm.ask("squeue", "--noheader", f"--jobs={job}").strip(), 60)
    assert run_tasks_on(Engine("slurm", workers=2), squares(4), folder, DIGEST) == calm(tmp_path, 4)[0]


@needs_s3
def test_s3(bucket, tmp_path):
    all_sorts(Engine(workers=2), f"{bucket}/run", tmp_path)
    assert remote_files.describe_input(f"{bucket}/run/part-00/{DONE}")["bytes"] > 100


@needs_s3
def test_s3_driver_killed(bucket, tmp_path):
    folder, log = f"{bucket}/killed", tmp_path / "begun"
    driver = start_driver("Engine(workers=2)", folder, f"squares(12, 0.5, {str(log)!r})")
    wait_until(lambda: len([name for name in remote_files.sizes_bytes(folder) if name.endswith(DONE)]) >= 3, 60)
    driver.kill()
    driver.communicate()
    before = len(log.read_text().split())
    done = {name.split("/")[0] for name in remote_files.sizes_bytes(folder) if name.endswith(DONE)}
    values = run_tasks_on(Engine(workers=2), squares(12, 0.5, str(log)), folder, DIGEST)
    again = {f"part-{int(number) // 10:02d}" for number in log.read_text().split()[before:]}
    assert not again & done and len(again) < 12
    wanted, files = calm(tmp_path, 12)
    with remote_files.at_hand(folder) as found:
        assert outputs(found) == files
    assert values == wanted


@needs_ray
@needs_s3
def test_s3_from_ray(bucket, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", WITH_TESTS["PYTHONPATH"])
        assert run_tasks_on(Engine("ray", 2, "local"), squares(3), f"{bucket}/ray", DIGEST) == calm(tmp_path, 3)[0]


@needs_slurm
@needs_s3
def test_s3_from_slurm(slurm, bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_tasks_on(Engine("slurm", 2), squares(3), f"{bucket}/slurm", DIGEST) == calm(tmp_path, 3)[0]
