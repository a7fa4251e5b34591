"""The engine that a launch asked for, and the proof that it is the one that runs."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from starchat.errors import UserError

ENGINES = ("NO", "DEEPSPEED")
"""Besides data parallel (``MULTI_...``), the kinds of accelerate's engines that saving and verifying know."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """What trains together, and how it holds the weights. `zero_stage` 0 is no DeepSpeed."""

    processes: int = 1
    zero_stage: int = 0

    def __str__(self) -> str:
        plural = "es" if self.processes > 1 else ""
        return f"{self.processes} process{plural} with {f'ZeRO-{self.zero_stage}' if self.zero_stage else 'no DeepSpeed'}"


def asked_engine() -> Engine:
    """Return the engine that ``accelerate launch`` put into the environment."""
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    return Engine(int(os.environ.get("WORLD_SIZE", "1")), _asked_stage() if deepspeed else 0)


def _asked_stage() -> int:
    """Return the stage of the DeepSpeed configuration that a launch names, or else of accelerate's own."""
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if path and Path(path).is_file():
        return int(json.loads(Path(path).read_text(encoding="utf-8")).get("zero_optimization", {}).get("stage", 0))
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))


def running_engine(trainer: Any) -> Engine:
    """Return the engine of a trainer's accelerator."""
    accelerator = trainer.accelerator
    plugin = accelerator.state.deepspeed_plugin if str(accelerator.distributed_type).endswith("DEEPSPEED") else None
    return Engine(int(accelerator.num_processes), int(plugin.zero_stage) if plugin is not None else 0)


def assert_engine(trainer: Any) -> None:
    """Raise `UserError` if the trainer runs on another engine than the launch asked for.

    ``ACCELERATE_USE_CPU=true`` makes accelerate ignore a DeepSpeed configuration and run plain data parallel, exit 0.
    """
    kind = str(getattr(trainer.accelerator.distributed_type, "value", trainer.accelerator.distributed_type))
    if kind not in ENGINES and not kind.startswith("MULTI_"):
        raise UserError(f"engine: the launch asked for {kind}, with which nothing was proved; use a configuration of recipes/accelerate")
    asked, running = asked_engine(), running_engine(trainer)
    if asked != running:
        hint = "unset ACCELERATE_USE_CPU" if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" else "see recipes/accelerate"
        raise UserError(f"engine: the launch asked for {asked}, the trainer got {running}; {hint}")
