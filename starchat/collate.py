"""Packed groups to tensors.

Positions start again at 0 with every row and there is no attention mask: from that, transformers builds the mask that
keeps rows of one group from seeing each other (eager and SDPA; ``use_cache`` must be off). Padding is a row of its own
at the end. Architectures that do without positions, or whose state runs on, let rows through: `starchat.probe` tries it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from starchat.encode import IGNORED
from starchat.rows import Encoded


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


def run_model(model: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of a batch, (batch, tokens, vocabulary), as training asks for them: by positions, without mask and cache."""
    device = next(model.parameters()).device
    inputs = {name: tensors[name].to(device) for name in ("input_ids", "position_ids")}
    return torch.as_tensor(model(**inputs, use_cache=False).logits)
