"""What a run is watched for while it trains: numbers that are none, and weights that no gradient reaches.

Both end the run at once. TRL and transformers go on: a loss that is not a number is by default averaged away in the log, and an
adapter that gets no gradient trains to its last step and is saved.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from starchat.errors import UserError

WATCHED_STEPS = 3
"""A first step may have learning rate 0, and LoRA's A gets a gradient only once its B has moved."""

SHOWN = 5


class Watch(TrainerCallback):
    """Raises `UserError` when a logged loss or gradient is no number, or when a trained tensor had no gradient for `WATCHED_STEPS` steps.

    DeepSpeed keeps gradients to itself: there `gradients` is false, only the numbers are watched, and the reload gate looks at the adapter.
    """

    def __init__(self, gradients: bool) -> None:
        self.gradients = gradients
        self.without: dict[str, Any] | None = None
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
                    "lower learning_rate, lengthen the warm-up, or look at the rows of this step with starchat check --html"
                )

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Strike off the tensors that have a gradient."""
        if not self.gradients or state.global_step >= self.until:
            return
        if self.without is None:
            self.without = {name: p for name, p in parts["model"].named_parameters() if p.requires_grad}
        self.without = {name: p for name, p in self.without.items() if p.grad is None or not bool(p.grad.any())}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """After the watched steps, refuse to go on with tensors that nothing trains."""
        if state.global_step == self.until and self.without:
            names = list(self.without)
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise UserError(
                f"step {state.global_step}: no gradient has reached {', '.join(names[:SHOWN])}{more}; they would be saved as they began; "
                "leave their layers out of lora.target_modules, or turn activation checkpointing off"
            )
