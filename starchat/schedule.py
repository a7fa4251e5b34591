"""A run's updates before it begins: how many, of how much data, each at which learning rate.

In: the trainer's arguments, the number of packed groups, and of processes. Out: `Schedule`, for which `starchat.detect_schedule` has
checks; and `KeepsToSchedule`, which holds the running trainer to the same curve.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, get_scheduler

from starchat.catalogue import BY_NAME
from starchat.detect_schedule import Schedule
from starchat.errors import UserError

SIMULATED = 4000
"""Updates at which the rate is looked at, evenly chosen: all of them in most runs."""

MAX_RATE_DIFFERENCE = 1e-6
"""Of the planned rate; what the trainer logs has float64's precision."""


def plan_updates(arguments: Any, groups: int, processes: int) -> Schedule:
    """Return the schedule of a run on so many packed groups: the trainer's own arithmetic, and its scheduler's own curve."""
    together = arguments.per_device_train_batch_size * processes
    an_epoch = max(1, math.ceil(math.ceil(groups / together) / arguments.gradient_accumulation_steps))
    by_epochs = arguments.max_steps <= 0
    updates = math.ceil(arguments.num_train_epochs * an_epoch) if by_epochs else arguments.max_steps
    return Schedule(
        kind=str(getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)),
        asked_rate=arguments.learning_rate,
        warmup_updates=arguments.get_warmup_steps(updates),
        updates=updates,
        by_epochs=by_epochs,
        rates=rates(arguments, updates),
        groups=groups,
        processes=processes,
        sequences_per_batch=together,
        sequences_per_update=together * arguments.gradient_accumulation_steps,
    )


def rates(arguments: Any, updates: int, wanted: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
    """Return the learning rates of a run's updates, or of those `wanted`, from the real scheduler; of at most `SIMULATED` in all."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=arguments.get_warmup_steps(updates),
        num_training_steps=updates,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    if wanted is None:
        wanted = np.unique(np.linspace(0, updates - 1, min(updates, SIMULATED)).astype(np.int64))
    if not isinstance(scheduler, LambdaLR):  # one that follows a measure and has no curve
        return np.full(len(wanted), float(arguments.learning_rate))
    return np.array([arguments.learning_rate * scheduler.lr_lambdas[0](int(step)) for step in wanted])


class KeepsToSchedule(TrainerCallback):
    """Raises `UserError` when a logged learning rate is not the planned one of its update.

    A scheduler that every process steps, or one that a DeepSpeed configuration brings along, ends the rate long before the run. In
    float16 the rate waits for updates that are skipped, and is not compared.
    """

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **parts: Any
    ) -> None:
        """Compare the rate of the update just made."""
        rate = (logs or {}).get("learning_rate")
        if args.fp16 or rate is None or state.global_step < 1 or "loss" not in (logs or {}):
            return
        planned = float(rates(args, state.max_steps, np.array([state.global_step - 1]))[0]) * _scale(args, parts["optimizer"])
        if abs(rate - planned) > MAX_RATE_DIFFERENCE * max(abs(planned), abs(rate)):
            name = "learning_rate_is_as_planned"
            what = f"step {state.global_step}: the learning rate is {rate:.4g}, the recipe's schedule has {planned:.4g} there"
            raise UserError(f"{what} ({name}); {BY_NAME[name].remedy}")


def _scale(args: TrainingArguments, optimizer: Any) -> float:
    """Return the rate of the optimizer's first group as a multiple of the recipe's: Muon's matrices have their own."""
    first = float(optimizer.param_groups[0].get("initial_lr", args.learning_rate))
    return first / args.learning_rate if args.learning_rate else 1.0
