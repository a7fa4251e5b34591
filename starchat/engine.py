"""The engine that a launch asked for, and the proof that it is the one that runs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from starchat.errors import UserError
from starchat.files import write_json
from starchat.fsdp import require_shardable, shard_without_gpu
from starchat.hub import run_with_adapter
from starchat.recipe import Recipe
from starchat.zero import (
    NAME,
    launched_configuration,
    live_offloading,
    live_settings,
    owned_settings,
    path_of_configuration,
    use_configuration,
    zero_configuration,
)

ENGINES = ("NO", "DEEPSPEED", "FSDP")
"""Besides data parallel (``MULTI_...``), the kinds of accelerate's engines that saving and verifying know."""


IN_PIECES = "the model is grown and wrapped whole before it is partitioned"
ZERO3_NEEDS = {"ACCELERATE_DEEPSPEED_ZERO3_INIT": ("zero3_init_flag", "false", IN_PIECES)}
FSDP_NEEDS = {
    "FSDP_CPU_RAM_EFFICIENT_LOADING": ("fsdp_cpu_ram_efficient_loading", "false", IN_PIECES),
    "FSDP_STATE_DICT_TYPE": ("fsdp_state_dict_type", "FULL_STATE_DICT", "checkpoints were proved with whole weights only"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("fsdp_activation_checkpointing", "false", "the recipe decides, by trainer.gradient_checkpointing"),
}
"""What a launch must not set otherwise: variable, then key of the accelerate configuration, value, and why."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """What trains together, how it holds the weights, and where. `zero_stage` 0: no DeepSpeed; `fsdp` 0: none. Offloaded to the host."""

    processes: int = 1
    zero_stage: int = 0
    fsdp: int = 0
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @property
    def sharded(self) -> bool:
        """Whether no process holds the whole model."""
        return self.zero_stage == 3 or bool(self.fsdp)

    def __str__(self) -> str:
        plural = "es" if self.processes > 1 else ""
        kind = f"ZeRO-{self.zero_stage}" if self.zero_stage else f"FSDP{self.fsdp}" if self.fsdp else "no sharding"
        places = [("optimizer", self.offload_optimizer), ("parameters", self.offload_parameters)]
        host = " and ".join(what for what, offloaded in places if offloaded)
        return f"{self.processes} process{plural} with {kind}{f', {host} in host memory' if host else ''}"


def asked_engine() -> Engine:
    """Return the engine that ``accelerate launch`` put into the environment."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        zero = launched_configuration().get("zero_optimization", {})
        return Engine(processes, int(zero.get("stage", 0)), 0, *_offloaded(zero))
    if _is_set("ACCELERATE_USE_FSDP"):
        offload = _is_set("FSDP_OFFLOAD_PARAMS")  # parameters, with their gradients and the optimizer's state
        return Engine(processes, 0, int(os.environ.get("FSDP_VERSION", "1")), offload, offload)
    return Engine(processes)


def require_engine(recipe: Recipe) -> None:
    """Raise `UserError` if the engine that the launch asks for cannot hold what the recipe asks for."""
    engine = asked_engine()
    stage = engine.zero_stage
    if recipe.optimizer == "muon" and (stage or engine.fsdp):
        raise UserError(
            f"optimizer: muon needs whole matrices, and the launch asks for {engine}; launch with ddp.yaml, or remove optimizer"
        )
    if recipe.quantization and engine.sharded:
        raise UserError(
            f"quantization: weights in 4 bits are packed and cannot be partitioned, and the launch asks for {engine}; "
            "launch with zero2.yaml or ddp.yaml"
        )
    if recipe.of_pairs and engine.fsdp:
        raise UserError(f"kind: dpo was not proved with {engine}; launch with zero3.yaml, zero2.yaml or ddp.yaml")
    if recipe.of_pairs and stage == 3 and run_with_adapter(recipe.model):
        raise UserError(
            f"kind: dpo goes on with the adapter of {recipe.model}, and its frozen copy cannot hold token rows that ZeRO-3 partitions; "
            "launch with zero2.yaml or ddp.yaml"
        )
    if engine.fsdp == 1:
        raise UserError("engine: the launch asks for FSDP1, with which nothing was proved; launch with fsdp2.yaml, or set fsdp_version: 2")
    faults = [
        f"engine: {key} is {os.environ[name]!r}; {why}; set it to {wanted!r} in the accelerate configuration"
        for name, (key, wanted, why) in (FSDP_NEEDS if engine.fsdp else ZERO3_NEEDS if stage == 3 else {}).items()
        if os.environ.get(name, wanted).lower() != wanted.lower()
    ]
    if stage == 3 and "ACCELERATE_DEEPSPEED_ZERO3_INIT" not in os.environ:  # accelerate then takes it for true
        faults.append("engine: zero3_init_flag is not set; set it to 'false' in the accelerate configuration")
    if faults:
        raise UserError("\n".join(faults))


def check_launch(arguments: Any) -> None:
    """Raise `UserError` if the launch says something else to DeepSpeed than the recipe."""
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        zero_configuration(arguments)


def configure_engine(arguments: Any, run: Path) -> None:
    """Give the arguments the DeepSpeed configuration that the recipe and the launch make; the first process writes it into the run."""
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        configuration = zero_configuration(arguments)
        use_configuration(arguments, configuration)
        if int(os.environ.get("RANK", "0")) == 0:
            write_json(run / NAME, configuration)


def start_engine(trainer: Any) -> None:
    """Make a trainer ready for its engine, and see that it got it."""
    if asked_engine().fsdp:
        require_shardable(trainer.model)
        if trainer.args.use_cpu:
            shard_without_gpu(trainer)
    assert_engine(trainer)


def running_engine(trainer: Any) -> Engine:
    """Return the engine of a trainer's accelerator; once it trains, as DeepSpeed itself tells it."""
    accelerator = trainer.accelerator
    kind, processes = _kind(trainer), int(accelerator.num_processes)
    if kind == "DEEPSPEED":
        live = accelerator.deepspeed_engine_wrapped
        if live is not None:
            return Engine(processes, int(live.engine.zero_optimization_stage()), 0, *live_offloading(live.engine))
        zero = accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
        return Engine(processes, int(zero["stage"]), 0, *_offloaded(zero))
    if kind == "FSDP":
        plugin = accelerator.state.fsdp_plugin
        offload = type(plugin.cpu_offload).__name__ == "CPUOffloadPolicy"
        return Engine(processes, 0, int(plugin.fsdp_version), offload, offload)
    return Engine(processes)


def assert_engine(trainer: Any) -> None:
    """Raise `UserError` if the trainer runs on another engine, or in another precision, than was asked for: `engine_is_as_asked`.

    ``ACCELERATE_USE_CPU=true`` makes accelerate ignore a DeepSpeed configuration and run plain data parallel, exit 0.
    """
    kind = _kind(trainer)
    if kind not in ENGINES and not kind.startswith("MULTI_"):
        raise UserError(f"engine: the launch asked for {kind}, with which nothing was proved; use a configuration of recipes/accelerate")
    asked, running = asked_engine(), running_engine(trainer)
    if asked != running:
        hint = "unset ACCELERATE_USE_CPU" if _is_set("ACCELERATE_USE_CPU") else "see recipes/accelerate"
        raise UserError(f"engine: the launch asked for {asked}, the trainer got {running}; {hint}")
    arguments = trainer.args
    precision = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "no"
    if trainer.accelerator.mixed_precision != precision:
        raise UserError(
            f"engine: the recipe asks for mixed precision {precision!r}, the launch for {trainer.accelerator.mixed_precision!r}; "
            "set bf16 under trainer, and leave mixed_precision of the launch at 'no'"
        )


class EngineProof(TrainerCallback):
    """Compares, when everything is built and before the first step, what runs with what launch and recipe asked for."""

    def __init__(self) -> None:
        self.trainer: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Read the live engine back."""
        assert_engine(self.trainer)
        if _kind(self.trainer) != "DEEPSPEED":
            return
        asked, live = owned_settings(args), live_settings(self.trainer.accelerator.deepspeed_engine_wrapped.engine)
        faults = [f"{key} is {live[key]}, the recipe asks for {asked[key]}" for key in live if live[key] != asked[key]]
        if faults:
            raise UserError(
                f"engine: DeepSpeed runs with other settings than the recipe's: {'; '.join(faults)}; see {path_of_configuration()}"
            )


def _kind(trainer: Any) -> str:
    kind = trainer.accelerator.distributed_type
    return str(getattr(kind, "value", kind))


def _offloaded(zero: dict[str, Any]) -> tuple[bool, bool]:
    """Return whether ZeRO keeps optimizer and parameters elsewhere than where it computes."""
    optimizer, parameters = ((zero.get(key) or {}).get("device") not in (None, "none") for key in ("offload_optimizer", "offload_param"))
    return optimizer, parameters


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"
