"""The loss where TRL's fused one cannot go: a head with trained token rows under ZeRO-3 or FSDP2.

There TRL 1.16 takes the head's merged weight, which is no parameter, from pieces of it and fails. The model's own
forward gathers what it needs, so the loss is taken from its logits: the same sum over trained tokens, divided by the same
count over all processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trl import SFTConfig, SFTTrainer

from starchat.encode import IGNORED
from starchat.errors import UserError


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of logits, (batch, tokens, vocabulary), summed over the labels, (batch, tokens), each predicted by the
    token before it."""
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    return cross_entropy(flat, labels[:, 1:].reshape(-1).to(logits.device), reduction="sum", ignore_index=IGNORED)


class LogitsTrainer(SFTTrainer):
    """`SFTTrainer` with the loss from whole logits, (batch, tokens, vocabulary) in float32."""

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the summed loss over trained tokens, divided by their number in the whole update."""
        labels = inputs["labels"]
        outputs = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False)
        total = summed_loss(outputs.logits, labels)
        if num_items_in_batch is None:
            loss = total / (labels[:, 1:] != IGNORED).sum().clamp(min=1)
        else:
            loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def trainer_class(arguments: SFTConfig, sharded: bool, lora_rows: bool) -> type[SFTTrainer]:
    """Return the trainer whose loss works on this engine."""
    if not sharded or not lora_rows:
        return SFTTrainer
    if arguments.loss_type != "nll" or arguments.label_smoothing_factor:
        asked = f"loss_type {arguments.loss_type}, label_smoothing_factor {arguments.label_smoothing_factor}"
        raise UserError(
            f"trainer: {asked}; LoRA with new tokens under ZeRO-3 or FSDP2 has the plain loss only; remove them, or launch with zero2.yaml"
        )
    return LogitsTrainer
