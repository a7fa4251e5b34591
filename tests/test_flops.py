"""The count of a model's arithmetic, against torch's own counter on real models, and attention by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from families import FAMILIES
from starchat.flops import Flops, attention_windows, count_flops, count_pairs
from starchat.model import linear_names

TOKENS = 48
ATTENTION = "bmm"
"""Eager attention multiplies in batches, one for each head; everything else multiplies matrices."""


def tiny(family: str, **keys: Any) -> Any:
    """A family's model with random weights; embeddings wide enough that the head is a good part of the count."""
    config = dict(FAMILIES[family].config) | keys
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}  # the only kinds that torch's counter sees whole
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), vocab_size=300, **config), **eager)


def counted(model: Any) -> tuple[float, float]:
    """Torch's count of a forward and backward pass over one row: (matrices, attention)."""
    ids = torch.randint(0, 300, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    found = counter.get_flop_counts()["Global"]
    attention = sum(count for op, count in found.items() if ATTENTION in str(op))
    return sum(found.values()) - attention, attention


def of_matrices(flops: Flops) -> float:
    return flops.of_step(tokens=TOKENS, scored=TOKENS, pairs=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights(family: str) -> None:
    model = tiny(family)
    matrices, _ = counted(model)
    assert of_matrices(count_flops(model)) == pytest.approx(matrices, rel=0.01)


@pytest.mark.parametrize("family", ["starcoder", "starcoder2", "codellama", "qwen3"])
def test_lora(family: str) -> None:
    model = tiny(family)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=linear_names(model)))
    wrapped.enable_input_require_grads()
    matrices, _ = counted(wrapped)
    assert of_matrices(count_flops(wrapped)) == pytest.approx(matrices, rel=0.01)


def test_a_frozen_first_layer_is_counted_too_high_by_its_input_gradients() -> None:
    model = tiny("codellama")
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"]))
    matrices, _ = counted(wrapped)
    unneeded = 64 * (64 + 32 + 32) + 4 * 64  # q, k and v of layer 0, and the adapter's first matrix there
    assert of_matrices(count_flops(wrapped)) - matrices == pytest.approx(2 * unneeded * TOKENS, rel=1e-6)


@pytest.mark.parametrize("family", ["starcoder", "starcoder2", "codellama", "qwen3-coder"])
def test_attention(family: str) -> None:
    """Torch counts the whole square, also what a mask leaves out; for each layer, tokens squared pairs."""
    model = tiny(family)
    flops = count_flops(model)
    _, attention = counted(model)
    layers = len(flops.windows)
    assert attention == pytest.approx(flops.of_step(tokens=0, scored=0, pairs=layers * TOKENS**2), rel=0.01)


def test_counts_work_without_weights() -> None:
    with torch.device("meta"):
        model = tiny("starcoder2")
    assert count_flops(model) == count_flops(tiny("starcoder2"))


def test_only_used_experts_count() -> None:
    few, all_of_them = tiny("qwen3-coder"), tiny("qwen3-coder", num_experts_per_tok=4)
    experts = sum(p.numel() for p in few.parameters() if p.ndim == 3)
    assert count_flops(all_of_them).forward - count_flops(few).forward == 2 * experts / 2


def test_pairs_of_packed_rows_by_hand() -> None:
    positions = torch.tensor([[0, 1, 2, 3, 0, 1]])  # rows of 4 and 2 tokens: 1+2+3+4 and 1+2 pairs
    assert int(count_pairs(positions, (None,))) == 13
    assert int(count_pairs(positions, (2, 2))) == 2 * (1 + 2 + 2 + 2 + 1 + 2)


def test_windows() -> None:
    assert attention_windows(AutoConfig.for_model("starcoder2", num_hidden_layers=2, sliding_window=256)) == (256, 256)
    assert attention_windows(AutoConfig.for_model("qwen2", num_hidden_layers=2, sliding_window=256)) == (None, None), "unless it is used"
    keys = {"num_hidden_layers": 3, "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1}
    assert attention_windows(AutoConfig.for_model("qwen2", **keys)) == (None, 64, 64)
