"""A run ends at once when its numbers are none, or when no gradient reaches what it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runs import finish, write_recipe
from starchat import train
from starchat.errors import UserError

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

STEPS = {"max_steps": 4, "warmup_steps": 1}


def spoiled(monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    """Have `spoil` change the model before it is trained."""
    make = train.make_model

    def make_and_spoil(*parts: Any) -> Any:
        model = make(*parts)
        spoil(model)
        return model

    monkeypatch.setattr(train, "make_model", make_and_spoil)


@pytest.mark.parametrize("logging_steps", [1, 2])
def test_a_loss_that_is_no_number(
    logging_steps: int, tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: Any) -> None:
        norm = model.transformer.ln_f
        norm.register_forward_hook(lambda module, args, out: out * float("nan") if torch.is_grad_enabled() else out)

    spoiled(monkeypatch, spoil)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", trainer={**STEPS, "logging_steps": logging_steps})
    with pytest.raises(UserError, match=rf"step {logging_steps}: the (loss|grad_norm) is nan; .* lower learning_rate"):
        train.train(recipe)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_an_adapter_that_no_gradient_reaches(tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(model: Any) -> None:
        attention = model.get_base_model().transformer.h[1].attn
        attention.register_forward_hook(lambda module, args, out: (out[0].detach(), *out[1:]))

    spoiled(monkeypatch, spoil)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", lora={"r": 2, "alpha": 4}, trainer=STEPS)
    with pytest.raises(UserError, match=r"step 3: no gradient .*h\.1\.attn\.c_attn\.lora_A.*; they would be saved as they began"):
        train.train(recipe)


def test_a_sound_run_is_left_alone(tiny_base: Path, dataset: Path, tmp_path: Path) -> None:
    finish(tmp_path, "lora", tiny_base, dataset, lora={"r": 2, "alpha": 4}, trainer=STEPS)
    finish(tmp_path, "full", tiny_base, dataset, trainer=STEPS)
