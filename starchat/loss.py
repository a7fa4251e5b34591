"""The loss where TRL's fused one is slow or cannot go: from the logits of trained positions, by the model's own forward.

On a CPU TRL 1.16 takes the head of every position, trained or not, and its statistics twice. And with trained token rows under ZeRO-3 or
FSDP2 it takes the head's merged weight, which is no parameter, from pieces of it and fails; the model's own forward gathers what it
needs. The loss is the same sum over trained tokens, divided by the same count over all processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trl import SFTConfig, SFTTrainer

from starchat.attention import attends_by_row, row_lengths, use_attention_by_row
from starchat.encode import IGNORED
from starchat.errors import UserError


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of logits, (batch, tokens, vocabulary), summed over the labels, (batch, tokens), each predicted by the
    token before it."""
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    return cross_entropy(flat, labels[:, 1:].reshape(-1).to(logits.device), reduction="sum", ignore_index=IGNORED)


class LogitsTrainer(SFTTrainer):
    """`SFTTrainer` with the loss from the logits of trained positions, (trained tokens, vocabulary) in float32."""

    def __init__(self, *, model: Any, args: SFTConfig, **parts: Any) -> None:
        if args.use_cpu and not args.torch_compile:  # a compiled model wants lines of one shape
            use_attention_by_row(model)
        super().__init__(model=model, args=args, **parts)

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the summed loss over trained tokens, divided by their number in the whole update."""
        keys: dict[str, Any] = {"input_ids": inputs["input_ids"], "position_ids": inputs["position_ids"], "use_cache": False}
        if attends_by_row(self.model):
            keys["row_lengths"] = row_lengths(inputs["position_ids"])
        if self.aux_loss_enabled:
            keys["output_router_logits"] = True
        total, outputs = trained_loss(model, inputs["labels"], keys)
        if num_items_in_batch is None:
            loss = total / (inputs["labels"][:, 1:] != IGNORED).sum().clamp(min=1)
        else:
            loss = total / num_items_in_batch * self.accelerator.num_processes
        if self.aux_loss_enabled:  # of experts: a mean over each micro-batch, as in TRL
            steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / steps
        return (loss, outputs) if return_outputs else loss


def trained_loss(model: Any, labels: torch.Tensor, keys: Mapping[str, Any]) -> tuple[torch.Tensor, Any]:
    """Return the cross-entropy summed over the labels, (batch, tokens), and the outputs, whose logits are of the tokens before them.

    `keys` are the arguments of the model's forward.
    """
    before = torch.zeros_like(labels, dtype=torch.bool)
    before[:, :-1] = labels[:, 1:] != IGNORED
    outputs = model(**keys, logits_to_keep=before)
    return cross_entropy(outputs.logits.float(), labels[:, 1:][before[:, :-1]], reduction="sum"), outputs


def trainer_class(arguments: SFTConfig, sharded: bool, lora_rows: bool) -> type[SFTTrainer]:
    """Return the trainer whose loss works on this engine, and is the fastest of those that do."""
    plain = arguments.loss_type == "nll" and not arguments.label_smoothing_factor
    if not sharded or not lora_rows:
        return LogitsTrainer if arguments.use_cpu and plain else SFTTrainer
    if not plain:
        asked = f"loss_type {arguments.loss_type}, label_smoothing_factor {arguments.label_smoothing_factor}"
        raise UserError(
            f"trainer: {asked}; LoRA with new tokens under ZeRO-3 or FSDP2 has the plain loss only; remove them, or launch with zero2.yaml"
        )
    return LogitsTrainer
