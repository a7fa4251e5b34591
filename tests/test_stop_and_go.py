"""Law 8 on real launches: two processes that are killed, or told to stop, end as if they never were."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from runs import prepare_dialogues, write_recipe
from starchat.checkpoint import checkpoint_folders
from starchat.files import read_manifest
from starchat.launch import recipes_folder
from starchat.metrics import read_metrics

pytestmark = pytest.mark.slow

TRAINER: dict[str, Any] = {"max_steps": 40, "save_strategy": "steps", "save_steps": 6, "per_device_train_batch_size": 1}
SEVEN_GROUPS = 165
"""Four updates an epoch of two processes, one group of them empty: checkpoints at 6, 18, 30 lie in the middle of an epoch."""

PATIENCE_S = 240


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    folder = tmp_path_factory.mktemp("stop")
    dataset = prepare_dialogues(folder)
    return write_recipe(folder / "r.yaml", tiny_base, dataset, folder / "unused", trainer=TRAINER, max_length_tokens=SEVEN_GROUPS)


def command(config: str, *arguments: str) -> list[str]:
    if config == "one":
        return [sys.executable, "-m", "starchat.train", *arguments]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(recipes_folder() / "accelerate" / f"{config}.yaml"),
    ]
    return [*launcher, "--num_processes", "2", "--main_process_port", str(port), "-m", "starchat.train", *arguments]


def start(config: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command(config, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def finish(config: str, *arguments: str) -> tuple[int, str]:
    process = start(config, *arguments)
    said = process.communicate(timeout=PATIENCE_S)[1]
    return process.returncode, said


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Return when a step was logged."""
    stop, log = time.monotonic() + PATIENCE_S, run / "metrics.jsonl"
    while not log.is_file() or f'"step": {step},' not in log.read_text():
        assert process.poll() is None
        assert time.monotonic() < stop
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the launcher and to its processes, which are in sessions of their own."""
    root = psutil.Process(process.pid)
    family = [root, *root.children(recursive=True)]
    for member in family:
        member.suspend()
    for member in family:
        member.kill()
    process.wait()


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(run / "model" / "model.safetensors"))


def losses_of(run: Path) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(run) if "loss" in line]


@pytest.mark.parametrize("config", ["zero3", "ddp"])
def test_killed_and_resumed_is_bit_for_bit_the_same(config: str, recipe: Path, tmp_path: Path) -> None:
    whole, other = tmp_path / "whole", tmp_path / "other"
    status, said = finish(config, str(recipe), f"output={whole}")
    assert status == 0, said[-3000:]
    process = start(config, str(recipe), f"output={other}")
    wait_for_step(other, 20, process)
    kill(process)
    steps = [int(folder.name.rpartition("-")[2]) for folder in checkpoint_folders(other)]
    assert max(steps) >= 18
    status, said = finish(config, str(recipe), f"output={other}")
    assert status == 0, said[-3000:]
    assert said.count("an unfinished run; going on from step") == 1
    assert losses_of(whole) == losses_of(other)
    first, second = weights_of(whole), weights_of(other)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_told_to_stop_and_gone_on_with_by_one_process(recipe: Path, tmp_path: Path) -> None:
    """SIGTERM to the launcher: both processes end behind the same step. One process with twice the accumulation makes the same updates."""
    whole, other = tmp_path / "whole", tmp_path / "other"
    shared = ["per_device_train_batch_size=2"]
    assert finish("one", str(recipe), f"output={whole}", *shared)[0] == 0
    process = start("ddp", str(recipe), f"output={other}")
    wait_for_step(other, 9, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode not in (0, None)
    newest = int(checkpoint_folders(other)[-1].name.rpartition("-")[2])
    assert f"SIGTERM: stopped after step {newest} of 40, saved {other}/checkpoint-{newest}" in said
    assert read_manifest(other) is None
    status, said = finish("one", str(recipe), f"output={other}")
    assert status == 2
    assert "an update had 2 sequences of an epoch of 8, and would have 1 of 7 now; launch with 2 processes, or set" in said
    status, said = finish("one", str(recipe), f"output={other}", *shared)
    assert status == 0, said[-3000:]
    assert "is of 2 processes, 1 go on: the same updates but for rounding; dropout draws anew" in said
    assert [step for step, _ in losses_of(other)] == list(range(1, 41))
    assert [loss for _, loss in losses_of(other)] == pytest.approx([loss for _, loss in losses_of(whole)], rel=1e-3)


def test_parts_of_zero_are_not_gone_on_with_by_other_processes(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("zero3", str(recipe), f"output={run}")
    wait_for_step(run, 7, process)
    kill(process)
    status, said = finish("one", str(recipe), f"output={run}", "gradient_accumulation_steps=2")
    assert status == 2
    assert "its optimizer is in the parts of another engine (processes 2, zero_stage 3" in said
    assert "launch with 2 processes and the same configuration, or pass --overwrite to begin anew" in said
