"""Law 8: a run that was killed and started again sees every example as if it never stopped, and ends with the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from runs import write_recipe
from starchat import train as training
from starchat.checkpoint import MARK, checkpoint_folders
from starchat.collate import Collator
from starchat.files import read_manifest
from starchat.metrics import read_metrics
from starchat.train import main, train

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

STEPS = {
    "max_steps": -1,
    "num_train_epochs": 3,
    "save_strategy": "steps",
    "save_steps": 3,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
}
"""Seven groups, two an update: four updates an epoch, the last of them of one group; saved at 3, 6, 9 and 12, of which only 12 ends an epoch."""


class Killed(BaseException):
    """What no code catches."""


class Kill(TrainerCallback):
    """Ends the process, as far as one can within it, behind a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Killed


class Ledger:
    """What the trainer was given: the group numbers of each life."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lives: list[list[int]] = []
        ledger = self

        class Noting(Collator):
            def __call__(self, examples: Any) -> Any:
                ledger.lives[-1] += [example["group"] for example in examples]
                return super().__call__(examples)

        monkeypatch.setattr(training, "Collator", Noting)

    def new_life(self) -> None:
        self.lives.append([])


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """A function that runs a recipe, killed behind a step if one is given, and returns the groups that it saw."""
    ledger, make = Ledger(monkeypatch), training.make_trainer

    def run(recipe: Path, *overrides: str, kill: int | None = None) -> list[int]:
        def make_mortal(*parts: Any) -> Any:
            trainer = make(*parts)
            if kill is not None:
                trainer.add_callback(Kill(kill))
            return trainer

        ledger.new_life()
        monkeypatch.setattr(training, "make_trainer", make_mortal)
        if kill is None:
            assert train(recipe, overrides)["ok"]
        else:
            with pytest.raises(Killed):
                train(recipe, overrides)
        return ledger.lives[-1]

    return run


Live = Callable[..., list[int]]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(next(p for p in run.glob("*/*.safetensors") if p.parent.name in ("model", "adapter"))))


def lines_of(run: Path) -> list[dict[str, Any]]:
    """Return the log but for times."""
    return [{k: v for k, v in line.items() if k not in ("seconds", "train_runtime")} for line in read_metrics(run) if "loss" in line]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


KINDS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "LoRA with dropout": {"lora": {"r": 4, "alpha": 8, "dropout": 0.3}},
    "Muon": {"optimizer": "muon"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_as_if_it_never_was(kind: str, tiny_base: Path, dataset: Path, tmp_path: Path, live: Live) -> None:
    """Killed twice: in the middle of the first epoch, and in the second, of which two steps are done again."""
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "one", trainer=STEPS, **KINDS[kind])
    other = tmp_path / "other"
    whole = live(recipe)
    live(recipe, f"output={other}", kill=4)
    torch.manual_seed(99)
    resumed = live(recipe, f"output={other}", kill=8)
    assert resumed == whole[6 : 6 + len(resumed)]
    last = live(recipe, f"output={other}")
    assert last == whole[-len(last) :]
    assert len(last) == 3 + 7, "one update and a half of the second epoch, and the third"
    assert_same_weights(tmp_path / "one", other)
    assert lines_of(tmp_path / "one") == lines_of(other)
