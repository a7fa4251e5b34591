"""The schedule and the disk: numbers as the real trainer has them, and each check against a planted fault."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runs import write_recipe
from starchat import train
from starchat.arguments import training_arguments
from starchat.detect_schedule import Schedule, disk_findings, disk_has_room, schedule_findings
from starchat.model import count_parameters
from starchat.preflight import _on_meta
from starchat.recipe import Recipe, load_recipe
from starchat.schedule import plan_updates
from starchat.tokens import load_tokens

RECIPE = Recipe(model="base", dataset="data", output="run", max_length_tokens=120)
SOUND = {"learning_rate": 1e-3, "num_train_epochs": 3, "gradient_accumulation_steps": 2}


def plan(groups: int = 100, processes: int = 1, **trainer: Any) -> Schedule:
    return plan_updates(training_arguments(dataclasses.replace(RECIPE, trainer={**SOUND, **trainer})), groups, processes)


def faults(schedule: Schedule) -> set[str]:
    findings = list(schedule_findings(schedule, 10_000))
    assert len(findings) == 5
    assert all(bool(finding.remedy) != finding.ok for finding in findings)
    return {finding.check for finding in findings if not finding.ok}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"lr_scheduler_type": "cosine", "warmup_steps": 0.1},
        {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 10},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.05}},
        {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 5},
        {"lr_scheduler_type": "polynomial"},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 3}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 15}},
        {"max_steps": 1},
        {"max_steps": 2, "warmup_steps": 20},
        {"max_steps": 100_000, "lr_scheduler_type": "cosine", "warmup_steps": 100},
    ],
)
def test_schedules_that_are_meant_have_no_fault(keys: dict[str, Any]) -> None:
    assert not faults(plan(**keys))


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"learning_rate": 0.0}, "learning_rate_reaches_its_peak"),
        ({"warmup_steps": 500}, "learning_rate_reaches_its_peak"),
        ({"max_steps": 20, "warmup_steps": 100}, "learning_rate_reaches_its_peak"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 20.0}}, "learning_rate_is_not_spent_early"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 0.1}}, "learning_rate_falls_to_its_end"),
        ({"gradient_accumulation_steps": 64}, "updates_are_many_enough"),
        ({"per_device_train_batch_size": 32, "processes": 8}, "processes_share_the_data"),
    ],
)
def test_each_planted_fault_is_found(keys: dict[str, Any], name: str) -> None:
    assert not faults(plan())
    assert name in faults(plan(**keys))


@pytest.mark.usefixtures("gate_in_this_process")
def test_the_numbers_are_those_of_the_trainer(tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real trainer's number of updates and its logged rates, with a last update of fewer batches than the others."""
    keys = {"max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": 4, "lr_scheduler_type": "cosine", "warmup_steps": 2}
    path = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", trainer=keys, max_length_tokens=64)
    recipe, trainers = load_recipe(path), []
    make = train.make_trainer

    def make_and_keep(*parts: Any) -> Any:
        trainers.append((make(*parts), parts[3]))
        return trainers[-1][0]

    monkeypatch.setattr(train, "make_trainer", make_and_keep)
    train.train(path)
    trainer, rows = trainers[0]
    schedule = plan_updates(training_arguments(recipe), len(rows.groups), 1)
    assert schedule.updates == trainer.state.max_steps
    assert schedule.updates == 2 * schedule.updates_an_epoch
    assert len(rows.groups) % 4
    logged = [line["learning_rate"] for line in trainer.state.log_history if "loss" in line]
    assert np.allclose(logged, schedule.rates, rtol=1e-9)


@pytest.mark.parametrize(("groups", "accumulation", "processes"), [(1, 1, 1), (10, 4, 2), (7, 3, 1), (9, 1, 4), (130, 8, 2)])
def test_updates_of_an_epoch(groups: int, accumulation: int, processes: int) -> None:
    schedule = plan(groups, processes, gradient_accumulation_steps=accumulation, num_train_epochs=1)
    assert schedule.updates == schedule.updates_an_epoch == -(-groups // (accumulation * processes))


def test_a_disk_without_room() -> None:
    assert disk_has_room(1000, 1000).ok
    finding = disk_has_room(10**12, 10**9)
    assert finding.check == "disk_has_room"
    assert not finding.ok
    assert finding.remedy


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    named = {f.check: f for f in disk_findings(tmp_path / "file" / "run", 0)}
    assert not named["output_can_be_written"].ok
    assert all(f.ok for f in disk_findings(tmp_path / "a" / "b", 0))


def test_the_whole_model_is_counted(tiny_base: Path) -> None:
    recipe = dataclasses.replace(RECIPE, model=str(tiny_base))
    tokens = load_tokens(tiny_base, recipe.dialogue_template)
    with _on_meta(recipe, tiny_base, tokens) as model:
        counted = count_parameters(model)
    assert counted == count_parameters(train.make_model(recipe, tiny_base, tokens))
