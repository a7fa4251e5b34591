"""The engine before its first step: does it have the loss of one process on the same rows?

In: a trainer whose model is still whole, and a few rows. Out: a callback that, when the engine has taken the model over, asks the
trainer for its loss on the same rows. An engine that lost weights, changed them, or counts tokens wrongly gives another. Both losses
are taken without dropout, before the first update.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from starchat.catalogue import BY_NAME
from starchat.collate import batch_tensors, run_model
from starchat.encode import IGNORED, Row
from starchat.errors import UserError
from starchat.loss import summed_loss
from starchat.probe import Sample, choose_samples
from starchat.rows import Encoded

MAX_LOSS_DIFFERENCE = 1e-4
"""As a share of the loss, in float32: sums in another order differ by 1e-6 and less."""

MAX_HALF_LOSS_DIFFERENCE = 2e-2
"""The same where the engine computes in bfloat16."""

LOOKED_AT_ROWS = 256


@contextlib.contextmanager
def _bare(trainer: Any) -> Iterator[None]:
    """Have a trainer of a model of experts leave their balance out of its loss: it is a mean over each batch, and none over tokens."""
    balanced, trainer.aux_loss_enabled = trainer.aux_loss_enabled, False
    yield
    trainer.aux_loss_enabled = balanced


def first_samples(rows: Encoded) -> tuple[Sample, ...]:
    """Return pieces of a few of the first rows that are trained."""
    numbers = range(min(LOOKED_AT_ROWS, len(rows)))
    return choose_samples([Row(rows.row_ids[n], *rows.row(n)) for n in numbers])


class FirstLoss(TrainerCallback):
    """Raises `UserError` if the engine's loss is not that of the model alone. Made in every process; the first one has the reference.

    The reference has each row in a batch of its own; the engine gets them as it will train them, with `packing` in one group.
    """

    def __init__(self, trainer: Any, samples: Sequence[Sample], pad_id: int, packing: bool) -> None:
        self.trainer = trainer
        self.batches = [batch_tensors([[sample]], pad_id, len(sample[0])) for sample in samples]
        self.packed = [batch_tensors([list(samples)], pad_id, sum(len(ids) for ids, _ in samples))] if packing else self.batches
        self.labels = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in self.batches)
        self.plain = trainer.args.loss_type == "nll" and not trainer.args.label_smoothing_factor
        self.alone = self._alone(trainer.model) if self.plain and trainer.args.process_index == 0 else math.nan

    def _alone(self, model: Any) -> float:
        training = model.training
        model.eval()
        half = self.trainer.args.bf16
        with torch.no_grad(), torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=half):
            total = sum(float(summed_loss(run_model(model, batch), batch["labels"])) for batch in self.batches)
        model.train(training)
        return total / self.labels

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the loss through the engine; every process takes part.

        A run that is gone on with has other weights by now, and a recipe that asks for another loss than the plain one has no reference.
        """
        if state.global_step or not self.plain:
            return
        engine = self.trainer.model_wrapped
        training = engine.training
        engine.eval()
        found = 0.0
        with torch.no_grad(), self.trainer.compute_loss_context_manager(), torch.compiler.set_stance("force_eager"), _bare(self.trainer):
            for batch in self.packed:
                inputs = {name: tensor.to(args.device) for name, tensor in batch.items()}
                found += float(self.trainer.compute_loss(engine, inputs, num_items_in_batch=torch.tensor(self.labels, device=args.device)))
        engine.train(training)
        if args.process_index == 0:
            # Each process had all the rows, and the trainer averages over processes what it multiplied by their number.
            self._compare(found / args.world_size, half=args.bf16 or args.fp16)

    def _compare(self, found: float, half: bool) -> None:
        allowed = (MAX_HALF_LOSS_DIFFERENCE if half else MAX_LOSS_DIFFERENCE) * max(abs(self.alone), 1e-3)
        if not abs(found - self.alone) <= allowed:
            name = "first_loss_is_as_alone"
            what = f"before the first step the loss of {len(self.batches)} rows is {found:.6g}, in one process it was {self.alone:.6g}"
            raise UserError(f"{what} ({name}); nothing was trained; {BY_NAME[name].remedy}")
