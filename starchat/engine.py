"""The engine that a launch asked for, and the proof that it is the one that runs."""

from __future__ import annotations

import os
from typing import Any

from starchat.errors import UserError


def asked_engine() -> tuple[int, int]:
    """Return (processes, ZeRO stage) that ``accelerate launch`` put into the environment; stage 0 is no DeepSpeed."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")) if deepspeed else 0
    return processes, stage


def running_engine(trainer: Any) -> tuple[int, int]:
    """Return (processes, ZeRO stage) of a trainer's accelerator."""
    accelerator = trainer.accelerator
    plugin = accelerator.state.deepspeed_plugin if str(accelerator.distributed_type).endswith("DEEPSPEED") else None
    return int(accelerator.num_processes), int(plugin.zero_stage) if plugin is not None else 0


def assert_engine(trainer: Any) -> None:
    """Raise `UserError` if the trainer runs on another engine than the launch asked for.

    ``ACCELERATE_USE_CPU=true`` makes accelerate ignore a DeepSpeed configuration and run plain data parallel, exit 0.
    """
    asked, running = asked_engine(), running_engine(trainer)
    if asked != running:
        hint = "unset ACCELERATE_USE_CPU" if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" else "see recipes/accelerate"
        raise UserError(f"engine: the launch asked for {_engine(*asked)}, the trainer got {_engine(*running)}; {hint}")


def _engine(processes: int, stage: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''} with {f'ZeRO-{stage}' if stage else 'no DeepSpeed'}"
