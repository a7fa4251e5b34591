"""The DeepSpeed configuration is the recipe's: a launch that says otherwise is refused, and so is an engine that runs otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runs import write_recipe
from starchat.arguments import accumulation_steps, training_arguments
from starchat.engine import Engine, EngineProof, asked_engine, assert_engine, check_launch, require_engine
from starchat.errors import UserError
from starchat.recipe import load_recipe
from starchat.zero import owned_settings, zero_configuration

ARGUMENTS: Any = SimpleNamespace(
    per_device_train_batch_size=2, gradient_accumulation_steps=4, world_size=8, max_grad_norm=1.0, bf16=True, fp16=False,
    use_cpu=False, optim="adamw_torch_fused",
)  # fmt: skip


def changed(**keys: Any) -> Any:
    return SimpleNamespace(**{**vars(ARGUMENTS), **keys})


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes this process one of a DeepSpeed launch with a JSON."""

    def name(**configuration: Any) -> Path:
        path = tmp_path / "ds.json"
        path.write_text(json.dumps(configuration))
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
        return path

    return name


def test_everything_that_the_recipe_decides_is_in_it(launch: Any) -> None:
    launch(zero_optimization={"stage": 2, "reduce_bucket_size": 1000}, gradient_clipping="auto", bf16={"enabled": "auto"}, aio={})
    assert zero_configuration(ARGUMENTS) == {
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 1000},
        "aio": {},
        "train_batch_size": 64,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
        "fp16": {"enabled": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": True,
    }


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"train_batch_size": 32}, "train_batch_size is 32, the recipe asks for 64; remove it, or make it auto"),
        ({"train_micro_batch_size_per_gpu": 1}, "train_micro_batch_size_per_gpu is 1, the recipe asks for 2"),
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps is 1, the recipe asks for 4"),
        ({"gradient_clipping": 0.5}, "gradient_clipping is 0.5, the recipe asks for 1.0"),
        ({"bf16": {"enabled": False}}, "bf16.enabled is false, the recipe asks for true"),
        ({"fp16": {"enabled": True}}, "fp16.enabled is true, the recipe asks for false"),
        ({"optimizer": {"type": "Adam"}}, r'optimizer: {"type": "Adam"}; set by trainer.optim, .* in the recipe; remove it'),
        ({"scheduler": {"type": "WarmupLR"}}, r'scheduler: {"type": "WarmupLR"}; set by trainer.lr_scheduler_type'),
        ({"curriculum_learning": {"enabled": True}}, "curriculum_learning: .*; nothing was proved with it; remove it"),
        ({"zero_optimization": {"stage": 0}}, "zero_optimization.stage: 0; expected 1, 2 or 3; without sharding launch with ddp.yaml"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, "offload_param.device: 'nvme'; nothing was proved"),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            "'cpu' under ZeRO-2, which cannot; launch with zero3",
        ),
    ],
)
def test_planted_launch_that_says_otherwise(configuration: dict[str, Any], message: str, launch: Any) -> None:
    path = launch(**{"zero_optimization": {"stage": 2}, **configuration})
    with pytest.raises(UserError, match=message) as caught:
        check_launch(ARGUMENTS)
    assert str(caught.value).startswith(f"{path}: ")


def test_all_of_it_is_told_at_once(launch: Any) -> None:
    launch(zero_optimization={"stage": 0}, gradient_clipping=2.0, optimizer={})
    with pytest.raises(UserError) as caught:
        zero_configuration(ARGUMENTS)
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_of_accelerate_is_held_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "1")
    assert zero_configuration(ARGUMENTS)["zero_optimization"] == {"stage": 1}
    monkeypatch.setenv("ACCELERATE_GRADIENT_CLIPPING", "0.1")
    with pytest.raises(UserError, match="the accelerate configuration: gradient_clipping is 0.1, the recipe asks for 1.0"):
        zero_configuration(ARGUMENTS)


def test_a_configuration_that_is_missing_or_broken(launch: Any) -> None:
    path = launch()
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        asked_engine()
    path.unlink()
    with pytest.raises(UserError, match="no such file, and the launch names it as its DeepSpeed configuration"):
        asked_engine()


def test_an_offloaded_optimizer_stays_the_recipe_s(launch: Any) -> None:
    """accelerate exchanges whatever optimizer it is for DeepSpeed's CPU Adam, silently."""
    launch(zero_optimization={"stage": 3, "offload_optimizer": {"device": "cpu"}})
    assert zero_configuration(ARGUMENTS)["zero_force_ds_cpu_optimizer"] is True
    assert zero_configuration(changed(optim="sgd"))["zero_force_ds_cpu_optimizer"] is False
    assert zero_configuration(changed(use_cpu=True))["zero_force_ds_cpu_optimizer"] is False


def running(
    stage: int = 3, optimizer: str = "none", parameters: str = "none", precision: str = "bf16", processes: int = 2, **settings: Any
) -> Any:
    """A trainer as far as the proof looks at it, whose DeepSpeed runs as the arguments say or with other `settings`."""
    arguments = changed(world_size=processes)
    live = {**owned_settings(arguments), **settings}
    engine = SimpleNamespace(
        zero_optimization_stage=lambda: stage,
        zero_offload_optimizer=lambda: SimpleNamespace(device=optimizer),
        zero_offload_param=lambda: SimpleNamespace(device=parameters),
        train_batch_size=lambda: live["train_batch_size"],
        train_micro_batch_size_per_gpu=lambda: live["train_micro_batch_size_per_gpu"],
        gradient_accumulation_steps=lambda: live["gradient_accumulation_steps"],
        gradient_clipping=lambda: live["gradient_clipping"],
        bfloat16_enabled=lambda: live["bf16.enabled"],
        fp16_enabled=lambda: live["fp16.enabled"],
    )
    accelerator = SimpleNamespace(
        distributed_type="DEEPSPEED",
        num_processes=processes,
        mixed_precision=precision,
        deepspeed_engine_wrapped=SimpleNamespace(engine=engine),
    )
    return SimpleNamespace(accelerator=accelerator, args=arguments)


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (
            {"stage": 2},
            "asked for 2 processes with ZeRO-3, optimizer in host memory, the trainer got 2 processes with ZeRO-2",
        ),
        ({"optimizer": "none"}, "the trainer got 2 processes with ZeRO-3; see"),
        ({"parameters": "cpu"}, "the trainer got 2 processes with ZeRO-3, optimizer and parameters in host memory"),
        ({"processes": 1}, "the trainer got 1 process with ZeRO-3"),
        ({"precision": "fp16"}, "the recipe asks for mixed precision 'bf16', the launch for 'fp16'"),
        ({"train_batch_size": 8}, "train_batch_size is 8, the recipe asks for 16"),
        ({"train_micro_batch_size_per_gpu": 1}, "train_micro_batch_size_per_gpu is 1, the recipe asks for 2"),
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps is 1, the recipe asks for 4"),
        ({"gradient_clipping": 0.0}, "gradient_clipping is 0.0, the recipe asks for 1.0"),
        ({"bf16.enabled": False}, "bf16.enabled is False, the recipe asks for True"),
        ({"fp16.enabled": True}, "fp16.enabled is True, the recipe asks for False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_planted_engine_that_runs_otherwise(planted: dict[str, Any], message: str, launch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(zero_optimization={"stage": 3, "offload_optimizer": {"device": "cpu"}})
    monkeypatch.setenv("WORLD_SIZE", "2")
    state: Any = None
    proof = EngineProof()
    proof.trainer = running(optimizer="cpu")
    proof.on_train_begin(proof.trainer.args, state, state)
    proof.trainer = running(**{"optimizer": "cpu", **planted})
    with pytest.raises(UserError, match=message):
        proof.on_train_begin(proof.trainer.args, state, state)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"},
            "fsdp_state_dict_type is 'SHARDED_STATE_DICT'; checkpoints were proved with whole",
        ),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading is 'true'; the model is grown and wrapped whole"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "the recipe decides, by trainer.gradient_checkpointing; set it to 'false'"),
        ({"FSDP_VERSION": "1"}, "asks for FSDP1, with which nothing was proved; launch with fsdp2.yaml"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero3_init_flag is not set; set it to 'false'"),
        (
            {
                "ACCELERATE_USE_DEEPSPEED": "true",
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
                "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true",
            },
            "zero3_init_flag is 'true'; the model is grown and wrapped whole before it is partitioned",
        ),
    ],
)
def test_planted_launch_that_partitions_otherwise(
    variables: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", tmp_path / "m", tmp_path / "d", tmp_path / "o"))
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        require_engine(recipe)


@pytest.mark.parametrize("keys", [{"optimizer": "muon"}, {"lora": {"r": 2, "alpha": 4}, "quantization": "nf4"}], ids=["muon", "qlora"])
def test_what_fsdp_cannot_hold(keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", tmp_path / "m", tmp_path / "d", tmp_path / "o", **keys))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(UserError, match="the launch asks for 1 process with FSDP2; launch with"):
        require_engine(recipe)


def test_fsdp_that_became_data_parallel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerate 1.15 does on a machine without GPU."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert asked_engine() == Engine(2, fsdp=2)
    trainer: Any = SimpleNamespace(accelerator=SimpleNamespace(distributed_type="MULTI_CPU", num_processes=2))
    with pytest.raises(UserError, match="the launch asked for 2 processes with FSDP2, the trainer got 2 processes with no sharding"):
        assert_engine(trainer)


@pytest.mark.parametrize(("processes", "per_device", "accumulation"), [(1, 1, 12), (2, 3, 2), (4, 3, 1), (6, 2, 1)])
def test_an_update_is_the_same_on_any_number_of_processes(
    processes: int, per_device: int, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert accumulation_steps(12, per_device) == accumulation


@pytest.mark.parametrize(
    ("processes", "size", "message"),
    [
        (5, 12, r"train_batch_size: 12 sequences do not divide by 5 processes x 1 \(per_device_train_batch_size\); take 10 or 15, another"),
        (8, 4, "4 sequences do not divide by 8 processes x 1 .*; take 8, another number of processes"),
    ],
)
def test_a_number_of_processes_that_does_not_divide_the_batch(
    processes: int, size: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(UserError, match=message):
        accumulation_steps(size, 1)


def test_the_accumulation_follows_from_the_batch(tmp_path: Path) -> None:
    trainer = {"per_device_train_batch_size": 3}
    recipe = load_recipe(
        write_recipe(tmp_path / "r.yaml", tmp_path / "m", tmp_path / "d", tmp_path / "o", train_batch_size=12, trainer=trainer)
    )
    assert training_arguments(recipe).gradient_accumulation_steps == 4


def test_a_batch_that_is_said_twice(tmp_path: Path) -> None:
    trainer = {"gradient_accumulation_steps": 2}
    path = write_recipe(tmp_path / "r.yaml", tmp_path / "m", tmp_path / "d", tmp_path / "o", train_batch_size=4, trainer=trainer)
    with pytest.raises(UserError, match="train_batch_size: decides trainer.gradient_accumulation_steps; remove one of them"):
        load_recipe(path)
    path = write_recipe(tmp_path / "r.yaml", tmp_path / "m", tmp_path / "d", tmp_path / "o", train_batch_size=0)
    with pytest.raises(UserError, match="train_batch_size: 0; expected at least 1"):
        load_recipe(path)
