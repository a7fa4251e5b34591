"""What a run is watched for while it trains: numbers that are none, and weights that no gradient reaches.

Both end the run at once. TRL and transformers go on: a loss that is not a number is by default averaged away in the log, and an
adapter that gets no gradient trains to its last step and is saved.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from starchat.catalogue import BY_NAME
from starchat.errors import UserError

WATCHED_STEPS = 3
"""A first step may have learning rate 0, and LoRA's A gets a gradient only once its B has moved."""

SHOWN = 5

MAX_SKIPPED = 25
"""Updates that float16 may skip in a row: its scale begins at 65,536 and is halved each time, so that some fifteen are nothing unusual."""


class Watch(TrainerCallback):
    """Raises `UserError` when a logged loss or gradient is no number, or when a trained tensor had no gradient for `WATCHED_STEPS` steps.

    DeepSpeed keeps gradients to itself: there `gradients` is false, only the numbers are watched, and the reload gate looks at the adapter.
    """

    def __init__(self, gradients: bool) -> None:
        self.gradients = gradients
        self.without: dict[str, Any] | None = None
        self.skipped = 0
        self.until = WATCHED_STEPS

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Watch the first steps of this process, also where it goes on with a run."""
        self.until = state.global_step + WATCHED_STEPS

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Look at the numbers of a step."""
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(float(value)):
                raise UserError(
                    f"step {state.global_step}: the {name} is {value}; nothing was saved since the last checkpoint; "
                    f"{BY_NAME['loss_is_a_number'].remedy}"
                )

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Strike off the tensors that have a gradient."""
        if not self.gradients or state.global_step >= self.until:
            return
        if self.without is None:
            self.without = {name: p for name, p in parts["model"].named_parameters() if p.requires_grad}
        self.without = {name: p for name, p in self.without.items() if p.grad is None or not bool(p.grad.any())}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Refuse to go on with updates that are always skipped and, after the watched steps, with tensors that nothing trains."""
        self.skipped = self.skipped + 1 if args.fp16 and parts["optimizer"].step_was_skipped else 0
        if self.skipped == MAX_SKIPPED:
            raise UserError(
                f"step {state.global_step}: the last {MAX_SKIPPED} updates were skipped, their gradients overflow in float16 "
                f"(updates_are_not_skipped); {BY_NAME['updates_are_not_skipped'].remedy}"
            )
        if state.global_step == self.until and self.without:
            names = list(self.without)
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise UserError(
                f"step {state.global_step}: no gradient has reached {', '.join(names[:SHOWN])}{more}; they would be saved as they began; "
                f"{BY_NAME['gradients_reach_what_is_trained'].remedy}"
            )
