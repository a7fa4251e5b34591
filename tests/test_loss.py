"""Law 6: the loss from trained positions is TRL's, and its gradient too, on every base family, with all weights and with LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from families import FAMILIES, write_family
from starchat.attention import PROVED, attends_by_row, row_lengths, use_attention_by_row
from starchat.collate import batch_tensors
from starchat.encode import IGNORED
from starchat.loss import trained_loss
from starchat.model import add_lora, fit_vocabulary, load_base
from starchat.recipe import Lora
from starchat.template import find_template
from starchat.tokens import load_tokens

LINES = ((5, 9, 2), (20,))
"""Row lengths of two lines; the second fills its line, the first is padded."""

CLOSE = 2e-5
"""Losses are about 7 nats a token and gradients of order one, in float32."""


def batch(vocabulary: int, lines: tuple[tuple[int, ...], ...] = LINES, trained_share: float = 0.6) -> dict[str, torch.Tensor]:
    """Return tensors of random rows, some of whose tokens are trained."""
    rng = np.random.default_rng(3)
    rows = [[(rng.integers(0, vocabulary, n), rng.random(n) < trained_share) for n in line] for line in lines]
    return batch_tensors(rows, 0, max(map(sum, lines)))


def keys_of(model: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    keys: dict[str, Any] = {"input_ids": tensors["input_ids"], "position_ids": tensors["position_ids"], "use_cache": False}
    return keys | ({"row_lengths": row_lengths(tensors["position_ids"])} if attends_by_row(model) else {})


def loss_and_gradients(model: Any, total: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return float(total.detach()), gradients


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: write_family(root / name, name) for name in FAMILIES}


@pytest.mark.parametrize("lora", [None, Lora(r=4, alpha=8)], ids=["all", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_those_of_trl(bases, family, lora):
    tokens = load_tokens(bases[family], find_template("starchat"))
    model: Any = load_base(bases[family], torch.float32)
    fit_vocabulary(model, tokens)
    model.train()
    if lora is not None:
        model = add_lora(model, lora, tokens)
    tensors = batch(tokens.size)
    add_fused_lm_head(model.get_base_model() if lora is not None else model)
    keys = keys_of(model, tensors)
    theirs = loss_and_gradients(model, -model(**keys, labels=tensors["labels"], fused_lm_head=True).log_probs.sum())
    whole = model(**keys).logits[:, :-1].float()
    plain = cross_entropy(whole.transpose(1, 2), tensors["labels"][:, 1:], reduction="sum", ignore_index=IGNORED)
    use_attention_by_row(model)
    assert attends_by_row(model)
    ours = loss_and_gradients(model, trained_loss(model, tensors["labels"], keys_of(model, tensors))[0])
    assert ours[0] == pytest.approx(theirs[0], rel=CLOSE) == pytest.approx(float(plain.detach()), rel=CLOSE)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-3, atol=CLOSE * max(1.0, float(gradient.abs().max())), msg=name)


def test_every_family_attends_by_row(bases):
    kinds = {AutoModelForCausalLM.from_pretrained(folder).config.model_type for folder in bases.values()}
    assert kinds == set(PROVED)


def test_rows_are_kept_apart_by_their_lengths_alone(bases):
    """The planted fault: with the lengths of other rows the logits are others."""
    model = load_base(bases["starcoder"], torch.float32).eval()
    tensors = batch(300)
    use_attention_by_row(model)
    keys = keys_of(model, tensors)
    assert keys["row_lengths"] == ((5, 9, 2, 4), (20,))
    with torch.no_grad():
        right, without = model(**keys).logits, model(**{k: v for k, v in keys.items() if k != "row_lengths"}).logits
        wrong = model(**{**keys, "row_lengths": ((14, 2, 4), (20,))}).logits
    torch.testing.assert_close(right, without, rtol=1e-4, atol=1e-4)
    assert float((wrong - right)[0, 5:14].abs().max()) > 1e-2
    assert torch.equal(wrong[1], right[1])


def test_a_row_longer_than_a_sliding_window_is_masked(bases):
    model = load_base(bases["starcoder2"], torch.float32).eval()
    assert model.config.sliding_window == 256
    tensors = batch(300, lines=((300, 40),))
    with torch.no_grad():
        masked = model(**keys_of(model, tensors)).logits
        use_attention_by_row(model)
        torch.testing.assert_close(model(**keys_of(model, tensors)).logits, masked)


def test_a_batch_without_trained_tokens_has_a_loss_of_zero_that_reaches_the_weights(bases):
    model = load_base(bases["starcoder"], torch.float32)
    tensors = batch(300, trained_share=0.0)
    total, gradients = loss_and_gradients(model, trained_loss(model, tensors["labels"], keys_of(model, tensors))[0])
    assert total == 0.0
    assert gradients and not any(bool(gradient.any()) for gradient in gradients.values())
