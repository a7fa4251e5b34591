"""How much arithmetic a model needs for a token: the numerator of model-FLOP utilisation (MFU).

In: a model (on any device, the meta device too). Out: `Flops`. Counted from the model's own matrices, not from a table of
names: a matrix (n, m) costs 2nm for a token, experts of shape (experts, n, m) cost 2nm for each one that is used, an
embedding is looked up and costs nothing. So multi-query attention, an MLP of two or of three matrices, and adapters count right.

The convention is that of PaLM (Chowdhery and others 2022, appendix B), 6N and attention, with three stricter choices:
attention counts only the pairs that a causal, windowed row needs (half of PaLM's square, none between packed rows); the
head counts only for tokens that are scored; matrices that are not trained cost 4 and not 6 for each weight (no weight
gradient). What is computed again (activation checkpointing, flash attention's backward), padding and the masked part of
a dense attention square are not counted: they are hardware's work, not the model's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from starchat.model import REFERENCE

BACKWARD_ATTENTION = 2.0
"""Two products forward, four backward."""

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""How configurations name the number of experts of a layer."""


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating-point operations, forward and backward apart.

    `forward` and `backward` are for each token of a row and leave the head out; `head_forward` and `head_backward` are for each
    token that is scored; `pair_forward` is for each pair of query and key in one layer of attention, `windows` says for
    each layer how many keys a query sees at most (None: all before it).
    """

    forward: float
    backward: float
    head_forward: float
    head_backward: float
    pair_forward: float
    windows: tuple[int | None, ...]

    def of_step(self, tokens: float, scored: float, pairs: float, compared: bool = False) -> float:
        """Return the model's operations for an update; `pairs` are summed over layers, see `count_pairs`.

        `compared`: with those of the forward pass of a frozen reference, as in DPO.
        """
        reference = self.of_forward(tokens, scored, pairs) if compared else 0.0
        linear = tokens * (self.forward + self.backward) + scored * (self.head_forward + self.head_backward)
        return linear + pairs * self.pair_forward * (1 + BACKWARD_ATTENTION) + reference

    def of_forward(self, tokens: float, scored: float, pairs: float) -> float:
        """Return the operations of the forward pass alone."""
        return tokens * self.forward + scored * self.head_forward + pairs * self.pair_forward


def count_flops(model: Any) -> Flops:
    """Return the operations of a causal language model of transformers, perhaps wrapped by PEFT; a frozen copy of its adapter is left out.

    Gradients are taken to reach the embedding. Where nothing is trained there, the projections that read the first
    layer's input need none, which is over-counted: 2nm of them in one layer.
    """
    config = model.config.get_text_config()
    forward = backward = head = head_trained = 0.0
    of_head = {id(parameter) for parameter in model.get_output_embeddings().parameters()}
    looked_up = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        if REFERENCE in name.split("."):
            continue
        size = _multiplied(name, parameter, config)
        if id(parameter) in of_head:
            head += size
            head_trained += size * parameter.requires_grad
        elif id(parameter) not in looked_up:
            forward += 2 * size
            backward += 2 * size * (1 + parameter.requires_grad)
    width = getattr(config, "qk_head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    values = getattr(config, "v_head_dim", None) or width
    pair = 2.0 * config.num_attention_heads * (width + values)
    return Flops(forward, backward, 2 * head, 2 * (head + head_trained), pair, attention_windows(config))


def _multiplied(name: str, parameter: Any, config: Any) -> float:
    """Return how many weights of a parameter a token is multiplied with: none of PEFT's token rows, which stand in place of others."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None) or getattr(parameter, "ds_shape", parameter.shape)
    size = float(torch.Size(shape).numel())
    if len(shape) == 3:
        experts = next(count for key in EXPERTS if (count := getattr(config, key, None)))
        assert shape[0] == experts, f"{name}: {tuple(shape)} is no matrix for each of {experts} experts"
        return size * config.num_experts_per_tok / experts
    return size if len(shape) == 2 and "trainable_tokens" not in name else 0.0


def attention_windows(config: Any) -> tuple[int | None, ...]:
    """Return for each layer how many keys a query sees at most, itself included; None: all before it."""
    layers = int(config.num_hidden_layers)
    window = getattr(config, "sliding_window", None)
    if window is None or not getattr(config, "use_sliding_window", True):
        return (None,) * layers
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    return tuple(int(window) if kind == "sliding_attention" else None for kind in kinds)


def count_pairs(positions: torch.Tensor, windows: tuple[int | None, ...]) -> torch.Tensor:
    """Return the pairs of query and key, summed over layers, of tokens at these positions of their rows.

    A token at position p sees p + 1 keys, itself among them, or as many as the window holds.

    >>> int(count_pairs(torch.tensor([0, 1, 2, 0, 1]), (None, 2)))
    17
    """
    seen = positions + 1
    return sum(
        ((seen if window is None else seen.clamp(max=window)).sum() * windows.count(window) for window in set(windows)),
        start=torch.zeros((), dtype=torch.int64, device=positions.device),
    )
