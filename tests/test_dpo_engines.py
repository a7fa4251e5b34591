"""Preference tuning under every engine: two processes make the update that one process makes of the same pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from families import write_family
from runs import finish, prepare_dialogues, read_lines, write_pairs, write_recipe
from starchat.files import read_manifest
from starchat.verify import verify
from test_engines import LORA, RUNNING, accelerate

STEPS: dict[str, Any] = {"max_steps": 3, "adam_epsilon": 1e-4, "beta": 0.2, "lr_scheduler_type": "constant"}
METHODS: dict[str, tuple[bool, dict[str, Any]]] = {
    "all weights": (False, {}),
    "a new adapter": (False, {"lora": LORA}),
    "the adapter of an SFT": (True, {"lora": LORA}),
}
CASES = [
    *(("ddp", method) for method in METHODS),
    ("zero1", "all weights"),
    ("zero2", "all weights"),
    ("zero2", "the adapter of an SFT"),
    ("zero3", "all weights"),
    ("zero3", "a new adapter"),
]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("gate_in_this_process")]


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory, gate_in_this_process: None) -> dict[bool, Path]:
    """Finished runs of an SFT on all weights (False) and with LoRA (True), a set of pairs beside them."""
    folder = tmp_path_factory.mktemp("starts")
    base, data = write_family(folder / "base", "starcoder"), prepare_dialogues(folder)
    write_pairs(folder)
    return {False: finish(folder, "full", base, data), True: finish(folder, "lora", base, data, lora=LORA)}


def keys_of(method: str, **trainer: Any) -> dict[str, Any]:
    return {"kind": "dpo", "trainer": {**STEPS, **trainer}, **METHODS[method][1]}


@pytest.mark.parametrize(("config", "method"), CASES)
def test_two_processes_make_the_update_of_one(config: str, method: str, starts: dict[bool, Path], tmp_path: Path) -> None:
    start = starts[METHODS[method][0]]
    pairs = start.parent / "pairs"
    one = finish(tmp_path, "one", start, pairs, **keys_of(method, per_device_train_batch_size=2))
    recipe = write_recipe(tmp_path / "two.yaml", start, pairs, tmp_path / "two", **keys_of(method))
    done = accelerate(config, str(recipe))
    assert done.returncode == 0, done.stderr[-4000:]
    two = tmp_path / "two"
    manifest = read_manifest(two)
    assert manifest is not None
    assert manifest["training"]["engine"] == RUNNING[config]
    assert verify(two)["ok"]
    for first, second in zip(read_lines(one), read_lines(two), strict=True):
        for key in ("loss", "rewards/margins", "rewards/chosen"):
            assert second[key] == pytest.approx(first[key], rel=1e-3, abs=1e-4)
    (first_weights, second_weights) = (load_file(next(run.glob("*/*model.safetensors"))) for run in (one, two))
    for name, weight in first_weights.items():
        torch.testing.assert_close(second_weights[name], weight, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
