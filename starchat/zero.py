"""The DeepSpeed configuration, made from the recipe.

In: the arguments of the recipe and what the launch says (a file of accelerate, or DeepSpeed's own JSON). Out: the whole configuration.
From the launch come the stage, offloading and how ZeRO moves its pieces. Batch, accumulation, clipping, precision, optimizer and
schedule are the recipe's; a launch that says otherwise is refused with both values.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starchat.errors import UserError
from starchat.files import read_object

NAME = "deepspeed.json"
"""Where a run keeps the configuration that it was trained with."""

STAGES = (1, 2, 3)
DEVICES = ("none", "cpu")

# Keys that neither change what is computed nor belong to the recipe.
TUNING = {
    *("zero_optimization", "communication_data_type", "steps_per_print", "wall_clock_breakdown", "dump_state", "comms_logger"),
    *("flops_profiler", "tensorboard", "csv_monitor", "checkpoint", "aio", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer"),
}
REPLACED = {
    "optimizer": "trainer.optim, trainer.learning_rate and trainer.weight_decay",
    "scheduler": "trainer.lr_scheduler_type and trainer.warmup_steps",
}
"""What accelerate would use instead of the recipe's optimizer and schedule."""


def owned_settings(arguments: Any) -> dict[str, Any]:
    """Return DeepSpeed's settings that the recipe decides, by their path in its configuration."""
    micro, accumulation = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    return {
        "train_batch_size": micro * accumulation * arguments.world_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": float(arguments.max_grad_norm),
        "bf16.enabled": bool(arguments.bf16),
        "fp16.enabled": bool(arguments.fp16),
    }


def live_settings(engine: Any) -> dict[str, Any]:
    """Return the same settings as a running DeepSpeed engine has them."""
    return {
        "train_batch_size": engine.train_batch_size(),
        "train_micro_batch_size_per_gpu": engine.train_micro_batch_size_per_gpu(),
        "gradient_accumulation_steps": engine.gradient_accumulation_steps(),
        "gradient_clipping": float(engine.gradient_clipping()),
        "bf16.enabled": bool(engine.bfloat16_enabled()),
        "fp16.enabled": bool(engine.fp16_enabled()),
    }


def live_offloading(engine: Any) -> tuple[bool, bool]:
    """Return whether a running DeepSpeed engine keeps optimizer and parameters in host memory."""
    parts = (engine.zero_offload_optimizer(), engine.zero_offload_param())
    optimizer, parameters = (part is not None and str(getattr(part.device, "value", part.device)) != "none" for part in parts)
    return optimizer, parameters


def path_of_configuration() -> str:
    """Return the name of the DeepSpeed JSON of a launch, or else what to call the settings of accelerate's own file."""
    return os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE") or "the accelerate configuration"


def launched_configuration() -> dict[str, Any]:
    """Return what the launch says to DeepSpeed: its JSON, or accelerate's variables in the same shape."""
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    if path:
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file, and the launch names it as its DeepSpeed configuration; correct deepspeed_config_file")
        return read_object(Path(path), "a DeepSpeed configuration", "correct it, or use a configuration of recipes/accelerate")
    zero: dict[str, Any] = {"stage": int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))}
    for key, name in (("offload_optimizer", "OFFLOAD_OPTIMIZER"), ("offload_param", "OFFLOAD_PARAM")):
        zero[key] = {"device": os.environ.get(f"ACCELERATE_DEEPSPEED_{name}_DEVICE", "none")}
    found: dict[str, Any] = {"zero_optimization": zero}
    for key in ("gradient_accumulation_steps", "gradient_clipping"):
        value = os.environ.get(f"ACCELERATE_{key.upper()}", "auto")
        found[key] = value if value == "auto" else float(value)
    return found


def zero_configuration(arguments: Any) -> dict[str, Any]:
    """Return the whole DeepSpeed configuration of a run; raise `UserError` where the launch and the recipe disagree.

    Left to accelerate, a JSON without ``gradient_clipping`` does not clip; and an optimizer that is offloaded is exchanged for DeepSpeed's
    CPU Adam, whatever the recipe's was. That one is faster than torch's and the same for AdamW, so there it stays, on machines with a GPU.
    """
    launched, owned = launched_configuration(), owned_settings(arguments)
    faults = [*_faults(launched, owned), *_zero_faults(launched.get("zero_optimization") or {})]
    if faults:
        raise UserError("\n".join(f"{path_of_configuration()}: {fault}" for fault in faults))
    made: dict[str, Any] = {key: value for key, value in launched.items() if key in TUNING}
    for path, value in owned.items():
        section, _, key = path.rpartition(".")
        if section:
            made[section] = {**(launched.get(section) or {}), key: value}
        else:
            made[key] = value
    zero = {key: value for key, value in launched["zero_optimization"].items() if not _is_off(key, value)}
    if zero["stage"] == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    made["zero_optimization"] = zero
    made["zero_allow_untested_optimizer"] = True
    made["zero_force_ds_cpu_optimizer"] = not arguments.use_cpu and str(arguments.optim).startswith("adamw_torch")
    return made


def use_configuration(arguments: Any, configuration: Mapping[str, Any]) -> None:
    """Put the made configuration where the trainer and accelerate read it."""
    said = arguments.deepspeed_plugin.hf_ds_config.config
    said.clear()
    said.update(configuration)


def _is_off(key: str, value: Any) -> bool:
    return key.startswith("offload_") and (not value or value.get("device", "none") == "none")


def _faults(launched: Mapping[str, Any], owned: Mapping[str, Any]) -> list[str]:
    """Return where a launch sets what the recipe decides."""
    taken = {key: where for key, where in REPLACED.items() if key in launched}
    faults = [f"{key}: {json.dumps(launched[key])[:80]}; set by {where} in the recipe; remove it" for key, where in taken.items()]
    sections = {path.split(".")[0] for path in owned}
    for key, value in launched.items():
        if key in sections or key in TUNING or key in REPLACED:
            continue
        faults.append(f"{key}: {json.dumps(value)[:80]}; nothing was proved with it; remove it")
    for path, asked in owned.items():
        section, _, key = path.rpartition(".")
        inner = launched.get(section) or {} if section else launched
        said = inner.get(key, "auto")
        if said not in ("auto", asked):
            faults.append(f"{path} is {json.dumps(said)}, the recipe asks for {json.dumps(asked)}; remove it, or make it auto")
    return faults


def _zero_faults(zero: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the part that is the launch's own."""
    faults = []
    stage = zero.get("stage", 0)
    if stage not in STAGES:
        faults.append(f"zero_optimization.stage: {stage!r}; expected 1, 2 or 3; without sharding launch with ddp.yaml")
    for key in ("offload_optimizer", "offload_param"):
        device = (zero.get(key) or {}).get("device") or "none"
        if device not in DEVICES:
            faults.append(f"zero_optimization.{key}.device: {device!r}; nothing was proved with it; expected cpu or none")
        elif device != "none" and (stage < 3 if key == "offload_param" else stage < 2):
            faults.append(f"zero_optimization.{key}.device: {device!r} under ZeRO-{stage}, which cannot; launch with zero3_offload.yaml")
    return faults
