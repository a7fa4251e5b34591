"""The ``trainer`` part of a recipe as TRL's arguments.

In: a recipe. Out: an ``SFTConfig``, for pairs a ``DPOConfig``, or every fault of the part at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import typing
from typing import Any

import torch
from transformers import Trainer, get_scheduler
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from trl import DPOConfig, SFTConfig

from starchat.config import closest
from starchat.errors import UserError
from starchat.recipe import MICRO_BATCH, Recipe

# Keys of SFTConfig and DPOConfig that the recipe decides elsewhere, with the place where.
OWNED = {
    "output_dir": "output",
    **dict.fromkeys(("max_length", "truncation_mode"), "max_length_tokens"),
    "packing": "packing",
    "eval_packing": "packing",
    **dict.fromkeys(("packing_strategy", "padding_free", "pad_to_multiple_of"), "packing"),
    **dict.fromkeys(("assistant_only_loss", "completion_only_loss", "chat_template_path", "eos_token", "pad_token"), "template"),
    **dict.fromkeys(("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "shuffle_dataset"), "dataset"),
    **dict.fromkeys(("remove_unused_columns", "label_names", "train_sampling_strategy"), "dataset"),
    **dict.fromkeys(("model_init_kwargs", "trust_remote_code"), "model"),
    **dict.fromkeys(("deepspeed", "fsdp", "fsdp_config", "parallelism_config"), "the accelerate configuration"),
    "disable_dropout": "kind: dpo, which compares models without dropout",
    "average_tokens_across_devices": "the loss, which is the same on every engine",
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_token", "hub_strategy"), "starchat push, after the run"),
}

# Keys of both that nothing here would obey, with what to do instead.
UNUSED = {
    **dict.fromkeys(
        ("eval_strategy", "eval_steps", "eval_delay", "do_eval", "eval_on_start", "load_best_model_at_end", "metric_for_best_model"),
        "there is no evaluation during training; starchat scores held-out records after it",
    ),
    **dict.fromkeys(
        ("precompute_ref_log_probs", "precompute_ref_batch_size", "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
        "the reference is the model that the run begins with, held beside the one that is trained",
    ),
    "resume_from_checkpoint": "an unfinished run goes on by itself when the same command is given again",
    "ignore_data_skip": "a resumed run sees every example once",
    "save_only_model": "a run cannot be gone on with from weights alone",
    "save_on_each_node": "all machines share the output folder",
    "enable_jit_checkpoint": "SIGTERM always saves a checkpoint",
    "restore_callback_states_from_checkpoint": "a resumed run is what it was",
}

PAIR_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down"),
    *("discopop", "sft", "sigmoid_norm"),
)
"""Values of DPOConfig's ``loss_type``; a test compares them with TRL's own list."""

# Keys whose least value is checked nowhere before the first step.
LEAST = {
    **dict.fromkeys(("beta", "learning_rate", "weight_decay"), 0),
    **dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps", "save_total_limit"), 1),
}
POSITIVE = {"num_train_epochs": "a number above 0", "max_steps": "a whole number from 1, or -1 for whole epochs"}


def require_arguments(recipe: Recipe) -> None:
    """Raise `UserError` for keys under ``trainer`` that TRL does not know or that the recipe decides elsewhere."""
    kind = config_class(recipe)
    known = {field.name for field in dataclasses.fields(kind)}
    faults = []
    for key in recipe.trainer:
        if key in OWNED and key in known:
            faults.append(f"trainer.{key}: set by {OWNED[key]}; remove it here")
        elif key in UNUSED and key in known:
            faults.append(f"trainer.{key}: {UNUSED[key]}; remove it here")
        elif key not in known:
            recipe_keys = [field.name for field in dataclasses.fields(Recipe)]
            where = recipe_keys if difflib.get_close_matches(key, recipe_keys, n=1, cutoff=0.8) else known - {*OWNED, *UNUSED}
            hint = closest(key, where)
            faults.append(
                f"unknown key {'trainer.' + key!r}; {hint if hint.startswith('did') else f'see trl.{kind.__name__} for its keys'}"
            )
    faults += _value_faults({key: value for key, value in recipe.trainer.items() if key in known}, kind)
    if recipe.of_pairs:
        faults += _loss_faults(recipe.trainer.get("loss_type", []))
    if faults:
        raise UserError("\n".join(faults))


def config_class(recipe: Recipe) -> type[SFTConfig] | type[DPOConfig]:
    """Return the class whose keys a recipe's ``trainer`` has."""
    return DPOConfig if recipe.of_pairs else SFTConfig


def _loss_faults(names: Any) -> list[str]:
    """Return what is wrong with the losses that a recipe of pairs asks for; TRL looks at their names in its first step."""
    asked = names if isinstance(names, list) else [names]
    return [f"trainer.loss_type: {name!r}; {closest(str(name), PAIR_LOSSES)}" for name in asked if name not in PAIR_LOSSES]


def _value_faults(trainer: dict[str, Any], kind: type[SFTConfig] | type[DPOConfig]) -> list[str]:
    """Return what is wrong with values where TRL expects a number or a flag: it stores them unchecked, and fails at its first step."""
    names = {float: "a number", int: "a whole number", bool: "true or false"}
    hints = typing.get_type_hints(kind)
    faults = []
    for key, value in trainer.items():
        kinds = list(typing.get_args(hints[key]) or (hints[key],))
        allowed = (*kinds, int) if float in kinds else tuple(kinds)
        if {*kinds} <= {*names, type(None)} and type(value) not in allowed:
            expected = next(names[kind] for kind in kinds if kind in names)
            faults.append(f"trainer.{key}: {value!r} is of type {type(value).__name__}; expected {expected}")
        elif key in LEAST and value is not None and value < LEAST[key]:
            faults.append(f"trainer.{key}: {value!r}; expected {f'at least {LEAST[key]}' if LEAST[key] else '0 or more'}")
        elif key in POSITIVE and value <= 0 and (key, value) != ("max_steps", -1):
            faults.append(f"trainer.{key}: {value!r}; expected {POSITIVE[key]}")
    return faults


def training_arguments(recipe: Recipe) -> SFTConfig | DPOConfig:
    """Return TRL's arguments for a recipe: its ``trainer`` keys over the few defaults that differ from TRL's."""
    cpu = not torch.cuda.is_available()
    settings: dict[str, Any] = {
        "use_cpu": cpu,
        "bf16": not cpu,
        "activation_checkpointing": recipe.trainer.get("gradient_checkpointing", not cpu),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "save_total_limit": 2,
        "per_device_train_batch_size": MICRO_BATCH,
        "dataloader_pin_memory": not cpu,
        **recipe.trainer,
    }
    if recipe.train_batch_size is not None:
        settings["gradient_accumulation_steps"] = accumulation_steps(recipe.train_batch_size, settings["per_device_train_batch_size"])
    if not recipe.of_pairs:
        settings["dataset_kwargs"] = {"skip_prepare_dataset": True}
    try:
        arguments = config_class(recipe)(output_dir=recipe.output, max_length=None, remove_unused_columns=False, **settings)
        _try_parts(arguments)
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())[:300]}") from None
    return arguments


def accumulation_steps(together: int, per_device: int) -> int:
    """Return how many micro-batches of all processes make one update of `together` sequences."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    at_once = processes * per_device
    if together % at_once:
        lower = together // at_once * at_once
        near = f"{lower} or {lower + at_once}" if lower else str(at_once)
        raise UserError(
            f"train_batch_size: {together} sequences do not divide by {processes} processes x {per_device} (per_device_train_batch_size); "
            f"take {near}, another number of processes, or another per_device_train_batch_size"
        )
    return together // at_once


def _try_parts(arguments: SFTConfig | DPOConfig) -> None:
    """Make what the trainer makes by name only after the data was read: reporters, the optimizer's class, the schedule."""
    for reporter in get_reporting_integration_callbacks(arguments.report_to):
        reporter()
    if not arguments.optim_target_modules:  # these are looked for in the model itself
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=arguments.get_warmup_steps(100),
        num_training_steps=100,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
