"""Attention of packed rows without a mask: each row attends to itself, in a call of its own.

In: queries, keys and values of packed lines, and the lengths of their rows. Out: what SDPA gives with the mask that transformers builds
from positions, to rounding. On a CPU that mask makes SDPA compute all of a line's scores, (tokens, tokens), and throw most of them away:
those between rows, and those of later tokens.

Where no lengths are given (generation, evaluation), or a row is longer than a sliding window, this is transformers' own SDPA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_by_row"

PROVED = ("gpt_bigcode", "granite", "llama", "qwen2", "qwen3", "qwen3_moe", "starcoder2")
"""Architectures whose layers attend to all earlier tokens of a row, or of a window that they name: `tests/test_loss.py` tries each. Others
may shape their attention by the mask alone, which is not looked at here."""


def attend_by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    row_lengths: Sequence[Sequence[int]] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention of (batch, heads, tokens, width) as (batch, tokens, heads, width); `row_lengths` has those of each line."""
    window = kwargs.get("sliding_window")
    if row_lengths is None or (window and max(map(max, row_lengths)) > window):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    dropout, scale = kwargs.get("dropout", 0.0), kwargs.get("scaling")
    lines = []
    for number, lengths in enumerate(row_lengths):
        q, k, v = (whole[number : number + 1].split(list(lengths), dim=2) for whole in (query, key, value))
        rows = [
            scaled_dot_product_attention(*row, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=True)
            for row in zip(q, k, v, strict=True)
        ]
        lines.append(torch.cat(rows, dim=2))
    return torch.cat(lines).transpose(1, 2).contiguous(), None


def row_lengths(position_ids: torch.Tensor) -> tuple[tuple[int, ...], ...]:
    """Return the lengths of the rows of each line, by where positions, (batch, tokens), start again at 0.

    >>> row_lengths(torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]]))
    ((3, 2), (1, 4))
    """
    end = torch.tensor([position_ids.shape[1]])
    starts = [torch.cat([line.eq(0).nonzero()[:, 0], end]) for line in position_ids]
    return tuple(tuple(line.diff().tolist()) for line in starts)


def use_attention_by_row(model: Any) -> None:
    """Make a model attend by row where it is told the rows' lengths, if it attends by SDPA and its architecture is among `PROVED`."""
    if model.config._attn_implementation == "sdpa" and model.config.model_type in PROVED:
        AttentionInterface.register(NAME, attend_by_row)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def attends_by_row(model: Any) -> bool:
    """Whether `use_attention_by_row` changed a model."""
    return bool(model.config._attn_implementation == NAME)
