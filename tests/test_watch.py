"""A run ends at once when its numbers are none, or when no gradient reaches what it trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from runs import finish, write_recipe
from starchat import train
from starchat.catalogue import BY_NAME
from starchat.errors import UserError
from starchat.loss import LogitsTrainer
from starchat.watch import MAX_SKIPPED, Watch

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

STEPS = {"max_steps": 4, "warmup_steps": 1}


def spoiled(monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    """Have `spoil` change the model before it is trained, and not the one that is tried before."""
    make, made = train.make_model, []

    def make_and_spoil(*parts: Any) -> Any:
        made.append(make(*parts))
        if len(made) == 2:
            spoil(made[-1])
        return made[-1]

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
    with pytest.raises(UserError, match=rf"step {logging_steps}: the (loss|grad_norm) is nan; .*{BY_NAME['loss_is_a_number'].remedy[:20]}"):
        train.train(recipe)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_an_adapter_that_no_gradient_reaches(tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(model: Any) -> None:
        attention = model.get_base_model().transformer.h[1].attn
        attention.register_forward_hook(lambda module, args, out: (out[0].detach(), *out[1:]))

    spoiled(monkeypatch, spoil)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", lora={"r": 2, "alpha": 4}, trainer=STEPS)
    with pytest.raises(
        UserError, match=r"step 3: no gradient .*h\.1\.attn\.c_attn\.lora_A.*; they would be saved as they began; leave"
    ) as caught:
        train.train(recipe)
    assert str(caught.value).endswith(BY_NAME["gradients_reach_what_is_trained"].remedy)


def test_weights_that_the_engine_changes(tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = train.make_trainer

    def make_and_change(recipe: Any, model: Any, *parts: Any) -> Any:
        trainer = make(recipe, model, *parts)
        model.transformer.h[0].mlp.c_fc.weight.data.mul_(1.05)  # the loss in one process is known by now
        return trainer

    monkeypatch.setattr(train, "make_trainer", make_and_change)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", trainer=STEPS)
    with pytest.raises(UserError, match=r"before the first step the loss of 4 rows is .*first_loss_is_as_alone.*; nothing was trained"):
        train.train(recipe)


def test_a_loss_that_is_scaled_wrongly(tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LogitsTrainer.compute_loss
    monkeypatch.setattr(LogitsTrainer, "compute_loss", lambda *parts, **keys: 2 * real(*parts, **keys))
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", trainer=STEPS)
    with pytest.raises(UserError, match="first_loss_is_as_alone"):
        train.train(recipe)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_schedule_that_is_stepped_twice(tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LambdaLR.step

    def twice(self: Any, *parts: Any) -> None:
        real(self, *parts)
        real(self, *parts)

    monkeypatch.setattr(LambdaLR, "step", twice)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", trainer=STEPS)
    with pytest.raises(UserError, match=r"step [12]: the learning rate is .*learning_rate_is_as_planned"):
        train.train(recipe)


def test_updates_that_are_always_skipped() -> None:
    watch = Watch(gradients=False)
    half, whole = SimpleNamespace(fp16=True), SimpleNamespace(fp16=False)
    optimizer = SimpleNamespace(step_was_skipped=True)
    for step in range(MAX_SKIPPED - 1):
        watch.on_step_end(half, SimpleNamespace(global_step=step), None, optimizer=optimizer)
    watch.on_step_end(half, SimpleNamespace(global_step=30), None, optimizer=SimpleNamespace(step_was_skipped=False))
    watch.on_step_end(whole, SimpleNamespace(global_step=31), None, optimizer=optimizer)
    assert watch.skipped == 0
    with pytest.raises(UserError, match=r"step 24: the last 25 updates were skipped.*updates_are_not_skipped"):
        for step in range(MAX_SKIPPED):
            watch.on_step_end(half, SimpleNamespace(global_step=step), None, optimizer=optimizer)


def test_a_sound_run_is_left_alone(tiny_base: Path, dataset: Path, tmp_path: Path) -> None:
    finish(tmp_path, "lora", tiny_base, dataset, lora={"r": 2, "alpha": 4}, trainer=STEPS)
    finish(tmp_path, "full", tiny_base, dataset, trainer=STEPS)
