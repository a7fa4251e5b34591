"""Law 8 on real launches: two processes that are killed, or told to stop, end as if they never were."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from accelerate import PartialState, skip_first_batches
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, SeedableRandomSampler
from safetensors.torch import load_file
from torch.utils.data import BatchSampler

from runs import prepare_dialogues, write_recipe
from starchat.checkpoint import checkpoint_folders, step_of
from starchat.files import read_manifest
from starchat.launch import recipes_folder
from starchat.metrics import read_metrics
from starchat.stop_and_go import stop_and_go
from starchat.train import main

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

TRAINER: dict[str, Any] = {"max_steps": 40, "save_strategy": "steps", "save_steps": 6, "per_device_train_batch_size": 1}
SEVEN_GROUPS = 165
"""Four updates an epoch of two processes, one group of them empty: checkpoints at 6, 18, 30 lie in the middle of an epoch."""

PATIENCE_S = 240


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    folder = tmp_path_factory.mktemp("stop")
    dataset = prepare_dialogues(folder)
    return write_recipe(folder / "r.yaml", tiny_base, dataset, folder / "unused", trainer=TRAINER, max_length_tokens=SEVEN_GROUPS)


def start(config: str, *arguments: str) -> subprocess.Popen[str]:
    """Start ``accelerate launch`` with two processes on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = recipes_folder() / "accelerate" / f"{config}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(engine), "--num_processes", "2"]
    command += ["--main_process_port", str(port), "-m", "starchat.train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def assert_finishes(process: subprocess.Popen[str]) -> str:
    """Return what a launch says on standard error; it must end well."""
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 0, said[-3000:]
    return said


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
    for act in ("suspend", "kill"):
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # a compiler, say, that was done meanwhile
                getattr(member, act)()
    process.communicate()


def newest_step(run: Path) -> int:
    return step_of(checkpoint_folders(run)[-1])


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(run / "model" / "model.safetensors"))


def losses_of(run: Path) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(run) if "loss" in line]


class Trainer:
    """What transformers does with the loader of an epoch that is resumed behind two batches."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(global_step=6, max_steps=8)
        self.seen: list[list[int]] = []

    def _run_epoch(self, *, train_dataloader: Any, epoch: int) -> None:
        rest = skip_first_batches(train_dataloader, 2)
        rest.set_epoch(epoch)
        self.seen.append([int(number) for number in rest])


def loader_of_two() -> Any:
    """Return the loader that the first of two processes has over eight groups."""
    PartialState(cpu=True)
    batches = BatchSampler(SeedableRandomSampler(range(8), data_seed=42), 1, False)
    return DataLoaderShard(range(8), batch_sampler=BatchSamplerShard(batches, 2, 0))


def test_a_resumed_epoch_of_several_processes_has_its_own_order() -> None:
    """Left to itself, transformers gives the rest of the second epoch from the order of the first."""
    whole = loader_of_two()
    orders = []
    for epoch in range(2):
        whole.set_epoch(epoch)
        orders.append([int(number) for number in whole])
    left, ours = Trainer(), stop_and_go(Trainer, "a run", SimpleNamespace(save_total_limit=2))()
    for trainer in (left, ours):
        trainer._run_epoch(train_dataloader=loader_of_two(), epoch=1)
    assert left.seen == [orders[0][2:]]
    assert ours.seen == [orders[1][2:]]
    ours.state.global_step = 8
    ours._run_epoch(train_dataloader=loader_of_two(), epoch=2)
    assert len(ours.seen) == 1, "a run that has had all its steps takes no more"


@pytest.mark.slow
def test_zero3_killed_and_resumed_is_bit_for_bit_the_same(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One process alone may not go on with what two wrote."""
    whole, other = tmp_path / "whole", tmp_path / "other"
    assert_finishes(start("zero3", str(recipe), f"output={whole}"))
    process = start("zero3", str(recipe), f"output={other}")
    wait_for_step(other, 20, process)
    kill(process)
    assert newest_step(other) >= 18
    assert main([str(recipe), f"output={other}", "gradient_accumulation_steps=2"]) == 2
    said = capsys.readouterr().err
    assert "its optimizer is in the parts of another engine (processes 2, zero_stage 3" in said
    assert "launch with 2 processes and the same configuration, or pass --overwrite to begin anew" in said
    said = assert_finishes(start("zero3", str(recipe), f"output={other}"))
    assert said.count("an unfinished run; going on from step") == 1
    assert losses_of(whole) == losses_of(other)
    first, second = weights_of(whole), weights_of(other)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.slow
def test_told_to_stop_and_gone_on_with_by_one_process(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM to the launcher: both processes end behind the same step. One process with batches twice as large makes the same updates."""
    whole, other = tmp_path / "whole", tmp_path / "other"
    assert main([str(recipe), f"output={whole}", "per_device_train_batch_size=2"]) == 0
    process = start("ddp", str(recipe), f"output={other}")
    wait_for_step(other, 9, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode not in (0, None)
    newest = newest_step(other)
    assert f"SIGTERM: stopped after step {newest} of 40, saved {other}/checkpoint-{newest}" in said
    assert read_manifest(other) is None
    assert main([str(recipe), f"output={other}"]) == 2
    expected = "an update had 2 sequences of an epoch of 8, and would have 1 of 7 now; launch with 2 processes, or set"
    assert expected in capsys.readouterr().err
    assert main([str(recipe), f"output={other}", "per_device_train_batch_size=2"]) == 0
    assert "is of 2 processes, 1 go on: the same updates but for rounding; dropout draws anew" in capsys.readouterr().err
    assert [step for step, _ in losses_of(other)] == list(range(1, 41))
    assert [loss for _, loss in losses_of(other)] == pytest.approx([loss for _, loss in losses_of(whole)], rel=1e-3)
