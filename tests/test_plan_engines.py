"""What DeepSpeed holds on each of two processes is what the plan says that ZeRO shares."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from families import write_family
from runs import write_recipe
from starchat.engine import Engine
from starchat.launch import recipes_folder
from starchat.memory import StepShape
from starchat.plan import shared_memory
from starchat.predict import optimizer_bytes, read_subject, step_footprint
from starchat.recipe import load_recipe

PROGRAM = Path(__file__).parent / "zero_partitions.py"


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_partitions(stage: int, dataset: Path, tmp_path: Path) -> None:
    base = write_family(tmp_path / "base", "starcoder2", hidden_size=128, intermediate_size=512, num_hidden_layers=3)
    path = write_recipe(tmp_path / "r.yaml", base, dataset, tmp_path / "run", trainer={"bf16": True})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = recipes_folder() / "accelerate" / f"zero{stage}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2"]
    command += ["--main_process_port", str(port), str(PROGRAM), str(path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=500)
    assert done.returncode == 0, [line for line in done.stderr.splitlines() if "Error" in line]
    subject = read_subject(load_recipe(path))
    found = step_footprint(subject, StepShape(1, 160, False, "bfloat16", on_gpu=False))
    trained = sum(p.numel() for p in subject.trained)
    planned, _ = shared_memory(found, Engine(2, stage), trained, optimizer_bytes(subject, "adamw_torch_fused"))
    for rank in (0, 1):
        held = json.loads((tmp_path / f"{rank}.json").read_text())
        assert held["optimizer"] == pytest.approx(planned["optimizer"], rel=0.03)
        gathered = found.peak(freed=True)["weights"] if stage == 3 else 0  # so small a model stays gathered whole
        assert held["weights"] == pytest.approx(planned["weights"] - gathered, rel=0.03)
        if held["gradients"] is not None:
            assert held["gradients"] == pytest.approx(planned["gradients"], rel=0.03)
