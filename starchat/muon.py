"""Muon for the matrices of the layers, AdamW for everything else, as one optimizer.

Pretraining from nothing takes fewer tokens with it (K. Jordan and others, "Muon: an optimizer for hidden layers in neural
networks", 2024). Embeddings, the head, biases and norms stay with AdamW, at the rate that the schedule gives; the matrices
move at `MATRIX_RATE` times that rate and without weight decay. For one process or data parallel; ZeRO partitions what Muon needs whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

MATRIX_RATE = 10.0
"""Muon's usual learning rate (0.02) against AdamW's for small models (0.002)."""


class MuonWithAdamW(torch.optim.Optimizer):
    """Steps two optimizers that share their parameter groups with this one, so that schedulers and checkpoints see one."""

    def __init__(self, matrices: Sequence[Any], others: Sequence[Any], lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=lr * MATRIX_RATE, weight_decay=0.0, momentum=0.95, nesterov=True),
            torch.optim.AdamW(others, lr=lr, betas=betas, weight_decay=weight_decay),
        ]
        super().__init__([{"params": [*matrices, *others]}], {"lr": lr})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step both."""
        loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return both states."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both states; the groups shown to schedulers are renewed with them."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def muon(model: Any, arguments: Any) -> MuonWithAdamW:
    """Return the optimizer of a model with the rates of the trainer's arguments."""
    matrices, others = split_parameters(model)
    betas = (arguments.adam_beta1, arguments.adam_beta2)
    return MuonWithAdamW(matrices, others, arguments.learning_rate, betas, arguments.weight_decay)


def split_parameters(model: Any) -> tuple[list[Any], list[Any]]:
    """Return (matrices of the layers, everything else) of what is trained. Neither an embedding nor the head is a layer's matrix."""
    rows = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    head = model.get_output_embeddings()
    if head is not None:
        rows.add(id(head.weight))
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim == 2 and id(p) not in rows]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in trained if id(p) not in chosen]
