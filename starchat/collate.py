"""Packed groups to tensors.

Positions start again at 0 with every row and there is no attention mask: from that, transformers builds the mask that
keeps rows of one group from seeing each other (eager and SDPA; ``use_cache`` must be off). Padding is a row of its own
at the end. Architectures that do without positions, or whose state runs on, let rows through: `require_isolation` tries it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from starchat.encode import IGNORED
from starchat.errors import UserError
from starchat.rows import Encoded

PROBE_TOKENS = 8

MAX_LEAK = 1e-3
"""As a share of the largest logit. Random models of 16 isolating architectures differ by 2e-7 of it; of those that leak, Bloom by 8e-3,
Qwen3-Next by 6e-2, OPT, MPT, Falcon and Mamba by 0.2 and more."""

MAX_LEAK_HALF = 4e-2
"""The same for a model in bfloat16, whose rounding hides smaller leaks."""


@dataclasses.dataclass(frozen=True)
class Collator:
    """Makes a batch from group numbers. `length_tokens` fixes the padded length; None pads to the longest group.

    A number beyond the last group is an empty group, padding alone: with it an epoch divides evenly by any number of
    processes, and no process repeats a group to keep the others company, as accelerate's sampler does.
    """

    encoded: Encoded
    pad_id: int
    length_tokens: int | None = None

    def __call__(self, examples: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
        """Return ``input_ids``, ``labels`` and ``position_ids``, each (batch, tokens) int64."""
        numbers = [example["group"] for example in examples]
        groups = [self.encoded.groups[n] if n < len(self.encoded.groups) else () for n in numbers]
        rows = [[self.encoded.row(number) for number in group] for group in groups]
        longest = max(2, *(sum(len(ids) for ids, _ in group) for group in rows))
        return batch_tensors(rows, self.pad_id, self.length_tokens or longest)


def batch_tensors(groups: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]], pad_id: int, length_tokens: int) -> dict[str, torch.Tensor]:
    """Return the tensors of groups of (ids, trained) rows, padded at the end to `length_tokens`."""
    shape = (len(groups), length_tokens)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    for number, group in enumerate(groups):
        at = 0
        for ids, trained in group:
            stop = at + len(ids)
            input_ids[number, at:stop] = ids
            labels[number, at:stop] = np.where(trained, ids, IGNORED)
            labels[number, at] = IGNORED  # the row before must not predict it
            positions[number, at:stop] = np.arange(len(ids))
            at = stop
        positions[number, at:] = np.arange(length_tokens - at)
    return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels), "position_ids": torch.from_numpy(positions)}


def require_isolation(model: Any) -> None:
    """Raise `UserError` if a row that is packed behind another has other logits than alone; the model stays as it was."""
    rows = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, PROBE_TOKENS))
    training, device = model.training, next(model.parameters()).device

    def last_row(*group: np.ndarray) -> torch.Tensor:
        tensors = batch_tensors([[(ids, np.ones(PROBE_TOKENS, dtype=np.bool_)) for ids in group]], 0, PROBE_TOKENS * len(group))
        inputs = {name: tensors[name].to(device) for name in ("input_ids", "position_ids")}
        return torch.as_tensor(model(**inputs, use_cache=False).logits[0, -PROBE_TOKENS:].float())

    model.eval()
    with torch.no_grad():
        alone, packed = last_row(rows[1]), last_row(*rows)
    model.train(training)
    leak = float((packed - alone).abs().max() / alone.abs().max())
    if leak > (MAX_LEAK if next(model.parameters()).dtype == torch.float32 else MAX_LEAK_HALF):
        raise UserError(
            f"packing: rows of one group see each other in a {model.config.model_type} model (logits differ by {leak:.1%}); "
            "set packing: false, or take a base model of another architecture"
        )
