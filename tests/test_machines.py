"""More than one machine: the job script on a real Slurm, the Kubernetes manifest against its schema, two network namespaces."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from runs import prepare_dialogues, read_lines, write_recipe
from slurm import slurm_of_one_node
from starchat.files import read_manifest
from starchat.launch import recipes_folder

LAUNCH = recipes_folder() / "launch"
KUBERNETES_VERSION = "1.31"


def objects() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))


def test_the_kubernetes_manifest_follows_its_schema() -> None:
    assert [item["kind"] for item in objects()] == ["Service", "PersistentVolumeClaim", "Job"]
    for item in objects():
        kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)


def test_a_planted_misspelt_key_does_not() -> None:
    job = copy.deepcopy(objects()[2])
    job["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 300
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriodSecond"):
        kubernetes_validate.validate(job, KUBERNETES_VERSION, strict=True)


def test_its_parts_agree() -> None:
    service, claim, job = objects()
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    values = {variable["name"]: variable["value"] for variable in container["env"]}
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert spec["completions"] == spec["parallelism"] == int(values["MACHINES"])
    assert int(values["PROCESSES"]) == spec["completions"] * gpus
    assert int(values["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert f"{job['metadata']['name']}-0.{pod['subdomain']} " in container["args"][0]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v] == [claim["metadata"]["name"]]
    words = container["args"][0].split()
    assert [Path(word).is_file() for word in words if word.startswith("recipes/")] == [True, True]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("slurmctld") or os.getuid() != 0, reason="needs root and Debian's slurm-wlm")
def test_a_slurm_job_that_is_stopped_goes_on_when_it_is_started_again(tiny_base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer = {"max_steps": 600, "save_strategy": "steps", "save_steps": 200, "logging_steps": 1}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_base, prepare_dialogues(tmp_path), run, trainer=trainer)
    log = tmp_path / "job.log"
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    variables = {"PATH": paths, "STARCHAT_PROCESSES": "2", "OMP_NUM_THREADS": "1", "STARCHAT_LAUNCH": "recipes/accelerate/ddp.yaml"}
    with slurm_of_one_node(tmp_path / "slurm") as slurm:
        sbatch = ("sbatch", "--parsable", "--overcommit", f"--output={log}", f"--chdir={recipes_folder().parent}")
        job = slurm.run(*sbatch, str(LAUNCH / "slurm.sh"), str(recipe), **variables).strip()
        slurm.wait(lambda: (run / "metrics.jsonl").is_file() and len(read_lines(run)) >= 20, 180, log)
        slurm.run("scancel", "--signal=TERM", "--batch", job)
        slurm.wait(lambda: "back into the queue" in log.read_text() and slurm.state(job) == "PENDING", 120, log)
        stopped = len(read_lines(run))
        assert 20 <= stopped < 600
        assert read_manifest(run) is None
        slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
        slurm.wait(lambda: slurm.state(job) in ("COMPLETED", "FAILED"), 400, log)
        assert slurm.state(job) == "COMPLETED", log.read_text()[-3000:]
    assert "start 1: 1 nodes, 2 processes each" in log.read_text()
    assert "start 2: 1 nodes, 2 processes each" in log.read_text()
    assert [line["step"] for line in read_lines(run)] == list(range(1, 601))
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest["training"]["processes"] == 2


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ip") or os.getuid() != 0, reason="needs root and Debian's iproute2")
def test_two_machines_of_which_one_dies(tmp_path: Path) -> None:
    program = Path(__file__).parent.parent / "benchmarks" / "two_machines.py"
    done = subprocess.run(
        [sys.executable, str(program), "--steps", "8", "--folder", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "the first machine ended by itself" in done.stdout
    assert done.stdout.splitlines()[-1] == "holds"
