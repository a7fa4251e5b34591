"""Law 6 on real launches: two processes under every engine make the update that one process makes of the same global batch."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config
from trl import SFTTrainer

from runs import prepare_dialogues, read_lines, verify_here, write_recipe
from starchat import export
from starchat.engine import Engine, asked_engine, assert_engine
from starchat.errors import UserError
from starchat.files import read_manifest
from starchat.launch import recipes_folder
from starchat.loss import LogitsTrainer, trainer_class
from starchat.model import load_base
from starchat.telemetry import summary
from starchat.train import train
from starchat.verify import verify

# Epsilon stands above the rounding of gradients that are zero in theory (tests/test_train.py says which).
FOUR_STEPS = {"max_steps": 4, "adam_epsilon": 1e-4}
SEVEN_GROUPS = 165
"""Rows of at most so many tokens make seven groups: four steps of two, an empty group among them. Without it accelerate would repeat a
group at the end of the epoch, so that two processes get as many, and their last update would differ from that of one."""

LORA = {"r": 4, "alpha": 8}
RUNNING = {
    "ddp": "2 processes with no sharding",
    "zero1": "2 processes with ZeRO-1",
    "zero2": "2 processes with ZeRO-2",
    "zero3": "2 processes with ZeRO-3",
    "zero3_offload": "2 processes with ZeRO-3, optimizer and parameters in host memory",
    "fsdp2": "2 processes with FSDP2",
}
SLOW_ENGINES = [pytest.param(name, marks=pytest.mark.slow) for name in RUNNING if name != "ddp"]

Launch = Callable[[str, bool], Path]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> dict[bool, Path]:
    """Recipes of four steps on all weights (False) and with LoRA (True)."""
    folder = tmp_path_factory.mktemp("engines")
    dataset = prepare_dialogues(folder)
    keys: dict[str, Any] = {"trainer": FOUR_STEPS, "max_length_tokens": SEVEN_GROUPS}
    return {
        False: write_recipe(folder / "full.yaml", tiny_base, dataset, folder / "unused", **keys),
        True: write_recipe(folder / "lora.yaml", tiny_base, dataset, folder / "unused", lora=LORA, **keys),
    }


@pytest.fixture(scope="module")
def one_process(recipes: dict[bool, Path]) -> Callable[[bool], Path]:
    """A function that gives the run of one process with the batch of two, made once of each kind."""

    @functools.cache
    def run(lora: bool) -> Path:
        output = recipes[lora].with_name(f"one-{lora}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export, "verify_in_fresh_process", verify_here)
            assert train(recipes[lora], [f"output={output}", "per_device_train_batch_size=2"])["ok"]
        return output

    return run


def accelerate(config: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``accelerate launch`` with two processes on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(recipes_folder() / "accelerate" / f"{config}.yaml")]
    command += ["--num_processes", "2", "--main_process_port", str(port), "-m", "starchat.train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=540)


@pytest.fixture(scope="module")
def launched(recipes: dict[bool, Path]) -> Launch:
    """A function that gives the run of two processes under an engine, launched once of each kind."""

    @functools.cache
    def run(config: str, lora: bool) -> Path:
        output = recipes[lora].with_name(f"{config}-{lora}")
        done = accelerate(config, str(recipes[lora]), f"output={output}")
        assert done.returncode == 0, done.stderr[-4000:]
        assert str(output) in done.stdout.splitlines()
        return output

    return run


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(next(run.glob("*/*model.safetensors"))))


def assert_same_update(one: Path, other: Path) -> None:
    """Compare the losses of each step and what was saved at the end."""
    losses = [[line["loss"] for line in read_lines(run)] for run in (one, other)]
    assert json.loads((one / "check.json").read_text())["stats"]["packed_groups"] == 7
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    told = [summary(read_lines(run)) for run in (one, other)]
    for key in ("tokens", "trained_tokens", "attention_pairs", "model_flops"):
        assert told[1][key] == told[0][key], "every process's tokens are counted, once"
    assert told[0]["time_communication"] == 0 < told[1]["time_communication"] < 1
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def assert_finished(run: Path, engine: str) -> None:
    manifest = read_manifest(run)
    assert manifest is not None
    assert (manifest["training"]["engine"], manifest["training"]["steps"]) == (engine, 4)
    assert manifest["verify"]["ok"] is True
    assert verify(run)["ok"]


@pytest.mark.parametrize("config", ["ddp", *SLOW_ENGINES])
def test_all_weights(config: str, launched: Launch, one_process: Callable[[bool], Path]) -> None:
    run = launched(config, False)
    assert_finished(run, RUNNING[config])
    assert_same_update(one_process(False), run)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp", "zero3"])
def test_lora(config: str, launched: Launch, one_process: Callable[[bool], Path]) -> None:
    run = launched(config, True)
    assert_finished(run, RUNNING[config])
    assert_same_update(one_process(True), run)


@pytest.mark.slow
def test_half_precision_under_zero_passes_the_gate(recipes: dict[bool, Path], tmp_path: Path) -> None:
    """DeepSpeed then computes in bfloat16 and saves that; the gate loads it in float32."""
    done = accelerate("zero3", str(recipes[False]), f"output={tmp_path / 'run'}", "bf16=true")
    assert done.returncode == 0, done.stderr[-4000:]
    assert {value.dtype for value in weights_of(tmp_path / "run").values()} == {torch.bfloat16}
    assert {value.dtype for value in load_file(tmp_path / "run" / "golden.safetensors").values()} == {torch.bfloat16}


@pytest.mark.slow
def test_a_finished_run_is_skipped_by_every_process(launched: Launch, recipes: dict[bool, Path]) -> None:
    run = launched("ddp", False)
    before = (run / "manifest.json").stat().st_mtime_ns
    assert accelerate("ddp", str(recipes[False]), f"output={run}").returncode == 0
    assert (run / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_planted_variable_that_turns_zero_into_plain_data_parallel(recipes: dict[bool, Path], tmp_path: Path) -> None:
    """The check `engine_is_as_asked`."""
    done = accelerate("zero2", str(recipes[False]), f"output={tmp_path / 'run'}", ACCELERATE_USE_CPU="true")
    assert done.returncode != 0
    assert "engine: the launch asked for 2 processes with ZeRO-2, the trainer got 2 processes with no sharding" in done.stderr
    assert "unset ACCELERATE_USE_CPU" in done.stderr
    assert read_manifest(tmp_path / "run") is None


@pytest.mark.slow
def test_planted_weights_that_zero_3_changes(recipes: dict[bool, Path], tmp_path: Path) -> None:
    """Each process multiplies the weights when the first has its reference: `first_loss_is_as_alone` ends the run before its first step."""
    (tmp_path / "sitecustomize.py").write_text(
        "from starchat.first_loss import FirstLoss\nreal = FirstLoss.__init__\n"
        "def changed(self, trainer, *parts):\n    real(self, trainer, *parts)\n"
        "    [p.data.mul_(1.05) for p in trainer.model.parameters()]\nFirstLoss.__init__ = changed\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(export.__file__).parents[1])])
    done = accelerate("zero3", str(recipes[False]), f"output={tmp_path / 'run'}", PYTHONPATH=path)
    assert done.returncode != 0
    assert "before the first step the loss of 4 rows is" in done.stderr
    assert "(first_loss_is_as_alone); nothing was trained" in done.stderr
    assert read_manifest(tmp_path / "run") is None


@pytest.mark.slow
def test_the_same_in_one_process_ends_with_status_2(recipes: dict[bool, Path], tmp_path: Path) -> None:
    variables = {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    variables["ACCELERATE_DEEPSPEED_ZERO3_INIT"] = "false"
    command = [sys.executable, "-m", "starchat.train", str(recipes[False]), f"output={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})
    assert done.returncode == 2
    assert "engine: the launch asked for 1 process with ZeRO-3, the trainer got 1 process with no sharding; unset" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_planted_launch_that_clips_otherwise_ends_before_anything_is_written(recipes: dict[bool, Path], tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 2}, "gradient_clipping": 0.5}))
    variables = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "ds.json")}
    command = [sys.executable, "-m", "starchat.train", str(recipes[False]), f"output={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})
    assert done.returncode == 2
    assert "ds.json: gradient_clipping is 0.5, the recipe asks for 1.0; remove it, or make it auto" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_ran_is_in_the_run(launched: Launch) -> None:
    made = json.loads((launched("zero2", False) / "deepspeed.json").read_text())
    assert (made["train_batch_size"], made["gradient_clipping"], made["zero_optimization"]) == (2, 1.0, {"stage": 2})


@pytest.mark.slow
def test_fsdp2_goes_on_from_its_checkpoint(recipes: dict[bool, Path], tmp_path: Path) -> None:
    saving = ["save_strategy=steps", "save_steps=2", f"output={tmp_path / 'run'}"]
    assert accelerate("fsdp2", str(recipes[False]), *saving).returncode == 0
    before = weights_of(tmp_path / "run")
    for name in ("model", "checkpoint-4"):
        shutil.rmtree(tmp_path / "run" / name)
    (tmp_path / "run" / "manifest.json").unlink()
    done = accelerate("fsdp2", str(recipes[False]), *saving)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "going on from step 2" in done.stderr
    after = weights_of(tmp_path / "run")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_an_engine_that_nothing_was_proved_with_is_refused() -> None:
    trainer: Any = SimpleNamespace(accelerator=SimpleNamespace(distributed_type="MEGATRON_LM"))
    with pytest.raises(UserError, match="the launch asked for MEGATRON_LM, with which nothing was proved; use a configuration of"):
        assert_engine(trainer)


def test_the_stage_is_read_from_the_deepspeed_configuration_that_a_launch_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert asked_engine() == Engine(1, 2)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "ds.json"))
    assert asked_engine() == Engine(1, 3)


def test_a_loss_that_the_engine_does_not_have_is_refused() -> None:
    plain: Any = SimpleNamespace(loss_type="nll", label_smoothing_factor=0.0, use_cpu=False)
    other: Any = SimpleNamespace(loss_type="dft", label_smoothing_factor=0.0, use_cpu=True)
    assert trainer_class(plain, True, True) is LogitsTrainer
    assert trainer_class(plain, False, True) is trainer_class(other, False, True) is SFTTrainer
    assert trainer_class(SimpleNamespace(**{**vars(plain), "use_cpu": True}), False, False) is LogitsTrainer  # the faster one there
    with pytest.raises(UserError, match="loss_type dft, label_smoothing_factor 0.0; LoRA with new tokens under ZeRO-3 or FSDP2 has"):
        trainer_class(other, True, True)


def test_another_number_of_processes_than_asked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator

    trainer: Any = SimpleNamespace(accelerator=Accelerator(cpu=True), args=SimpleNamespace(bf16=False, fp16=False))
    assert_engine(trainer)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="the launch asked for 2 processes with no sharding, the trainer got 1 process with no sharding"):
        assert_engine(trainer)


def test_no_model_is_loaded_under_a_zero_3_configuration(tiny_base: Path) -> None:
    """With transformers 5.23 the tied embedding of DPO's reference came out as whatever lay in memory: NaN, in every launch."""
    live = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    try:
        with pytest.raises(AssertionError, match="before a ZeRO-3 configuration exists"):
            load_base(tiny_base, torch.float32)
    finally:
        del live
        unset_hf_deepspeed_config()
    assert load_base(tiny_base, torch.float32)
