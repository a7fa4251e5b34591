"""Invariances of a model's gradient, tried on a padded batch: accumulation, checkpointing, repetition, and that all of it moves.

In: a model in evaluation, a batch, what the recipe asks. Out: findings. The last of them changes the weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from starchat.collate import run_model
from starchat.encode import IGNORED
from starchat.finding import Finding, judged, verdict
from starchat.loss import summed_loss
from starchat.tokens import Tokens

MAX_GRADIENT_DIFFERENCE = 1e-4
"""As a share of the gradient's length, in float32: sums in another order differ by 1e-6 and less."""

MAX_HALF_GRADIENT_DIFFERENCE = 5e-2

STEPS = 2
"""LoRA's A gets a gradient only once its B has moved."""

MIN_MOVED = 0.5
"""The share of weights with a gradient that two updates must change: in float32 nearly all, in bfloat16 at 1e-5 some 2 %."""

MIN_WEIGHTS = 16
"""Tensors of fewer weights, such as an expert's gate, are only asked whether anything of them moved."""

Batch = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a recipe asks of training, as far as it is tried here."""

    learning_rate: float
    bf16: bool
    checkpointing: bool


def training_findings(model: Any, tokens: Tokens, batch: Batch, asked: Asked, half: bool) -> Iterator[Finding]:
    """Yield the findings on a model's gradients; `half` if it computes in bfloat16."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    allowed = MAX_HALF_GRADIENT_DIFFERENCE if half else MAX_GRADIENT_DIFFERENCE
    whole = _gradient(model, trained, [batch])
    if tokens.new:
        yield new_rows_get_gradient(model, tokens, batch)
    yield _same(
        "accumulation_is_one_update", "a batch of 4 rows and 4 batches of 1", whole, _gradient(model, trained, _lines(batch)), allowed
    )
    model.train()
    once = _seeded(model, trained, batch)
    yield _same("steps_repeat", "the same step twice", once, _seeded(model, trained, batch), allowed)
    if asked.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        again = _seeded(model, trained, batch)
        model.activation_checkpointing_disable()
        yield _same("checkpointing_changes_nothing", "with and without activation checkpointing", once, again, allowed)
    yield every_tensor_moves(model, trained, batch, asked.learning_rate)
    model.zero_grad()


def _lines(batch: Batch) -> list[Batch]:
    return [{name: tensor[n : n + 1] for name, tensor in batch.items()} for n in range(len(batch["labels"]))]


def _gradient(model: Any, trained: dict[str, Any], batches: list[Batch]) -> dict[str, torch.Tensor]:
    """Return the gradient of the mean loss over the trained tokens of all batches, one backward pass for each."""
    model.zero_grad()
    count = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)
    for batch in batches:
        loss = summed_loss(run_model(model, batch), batch["labels"]) / count
        if loss.requires_grad:  # else nothing that is trained reaches it, which is for the caller to see
            loss.backward()
    return {name: p.grad.detach().float().clone() for name, p in trained.items() if p.grad is not None}


def _seeded(model: Any, trained: dict[str, Any], batch: Batch) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _gradient(model, trained, [batch])


def _same(check: str, what: str, one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], allowed: float) -> Finding:
    """Compare two gradients; a tensor that has one in one of them only is a difference."""
    length = _length(one)
    apart = _length({name: one[name] - other[name] for name in one.keys() & other.keys()}) / max(length, 1e-30)
    missing = sorted(one.keys() ^ other.keys())
    ok = apart <= allowed and not missing
    lost = f"; {len(missing)} tensors get a gradient in one only, such as {missing[0]}" if missing else ""
    return judged(check, ok, f"{what}: gradients differ by {apart:.1e} of their length, at most {allowed:.0e}{lost}")


def _length(gradient: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([value.norm() for value in gradient.values()]).norm()) if gradient else 0.0


def new_rows_get_gradient(model: Any, tokens: Tokens, batch: Batch) -> Finding:
    """Look at the gradient of the rows of new tokens that the batch holds, as rows of an embedding or as PEFT's own; it must be there."""
    used = [n for n, id in enumerate(tokens.new_ids) if bool((batch["input_ids"][:, :-1] == id).any() or (batch["labels"] == id).any())]
    faults = []
    rows = {name: p for name, p in model.named_parameters() if "trainable_tokens" in name}
    whole = {"embedding": model.get_input_embeddings().weight, "head": model.get_output_embeddings().weight} if not rows else {}
    for name, weight in {**rows, **whole}.items():
        grad = weight.grad
        numbers = used if rows else [tokens.new_ids[n] for n in used]
        dead = numbers if grad is None else [n for n in numbers if not bool(grad[n].any())]
        faults += [f"{name}: no gradient for the row of {tokens.new[n if rows else tokens.new_ids.index(n)]}" for n in dead]
    return verdict(
        "new_rows_get_gradient", faults, f"the rows of {len(used)} new tokens, in {len(rows) or len(whole)} places, get a gradient"
    )


def every_tensor_moves(model: Any, trained: dict[str, Any], batch: Batch, rate: float) -> Finding:
    """Take two steps of Adam at the recipe's learning rate and look at every trained tensor."""
    optimizer = torch.optim.AdamW(list(trained.values()), lr=rate, weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in trained.items()}
    reached = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in trained.items()}
    for _ in range(STEPS):
        for name, gradient in _gradient(model, trained, [batch]).items():
            reached[name] |= gradient != 0
        optimizer.step()
    faults = []
    for name, p in trained.items():
        count = int(reached[name].sum())
        moved = int(((p.detach() != before[name]) & reached[name]).sum())
        if not count:
            faults.append(f"{name} gets no gradient")
        elif moved < (MIN_MOVED * count if count >= MIN_WEIGHTS else 1):
            faults.append(f"{name}: {moved:,} of {count:,} weights with a gradient moved at learning rate {rate:g} in {p.dtype}")
    return verdict(
        "every_tensor_moves", faults, f"{len(trained):,} trained tensors, each moved by {STEPS} steps at the recipe's learning rate"
    )
