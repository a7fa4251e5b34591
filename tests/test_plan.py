"""Plans: what fits, what ZeRO shares, what is recommended, and what cannot be planned."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from hostile import write_tokenizer
from runs import write_recipe
from starchat.cli import main
from starchat.engine import Engine
from starchat.errors import UserError
from starchat.flops import Flops
from starchat.gpus import GPUS, find_gpu, gpu_of_device
from starchat.memory import KINDS, Footprint, StepShape
from starchat.plan import Cell, Plan, plan_recipe, shared_memory
from starchat.plan_text import command, render_plan
from starchat.predict import read_subject, step_footprint
from starchat.recipe import load_recipe
from starchat.speed import ASSUMPTIONS, Load, hardware_flops, update_seconds

GIB = 2**30

SEVEN_B = {
    "model_type": "starcoder2", "hidden_size": 4608, "intermediate_size": 18432, "num_hidden_layers": 32, "num_attention_heads": 36,
    "num_key_value_heads": 4, "vocab_size": 49152, "max_position_embeddings": 16384, "sliding_window": 4096, "tie_word_embeddings": True,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def seven_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """StarCoder2-7B's configuration beside a tokenizer: no weights."""
    folder = tmp_path_factory.mktemp("seven_b")
    write_tokenizer(folder, "starcoder2")
    (folder / "config.json").write_text(json.dumps(SEVEN_B))
    return folder


@pytest.fixture(scope="module")
def few_layers(tmp_path_factory: pytest.TempPathFactory, seven_b: Path) -> Path:
    """The same with six layers: quicker to plan."""
    folder = tmp_path_factory.mktemp("few_layers")
    shutil.copytree(seven_b, folder, dirs_exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**SEVEN_B, "num_hidden_layers": 6}))
    return folder


ONCE: dict[str, Any] = {"trainer": {"gradient_accumulation_steps": 1}}
"""One micro-batch an update: one size to try."""


def plan(folder: Path, base: Path, dataset: Path, gpu: str, count: int, price: float | None = None, **keys: Any) -> Plan:
    trainer = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, **keys.pop("trainer", {})}
    path = write_recipe(folder / "r.yaml", base, dataset, folder / "run", max_length_tokens=2048, trainer=trainer, **keys)
    return plan_recipe(load_recipe(path), find_gpu(gpu), count, price)


def test_all_weights_of_7b_want_many_gpus(seven_b: Path, dataset: Path, tmp_path: Path) -> None:
    found = plan(tmp_path, seven_b, dataset, "h100", 8, price=2.0, **ONCE)
    assert found.parameters == pytest.approx(7.17e9, rel=0.01), "as its card says"
    whole = [cell for cell in found.cells if not cell.engine.zero_stage]
    assert not any(cell.fits for cell in whole), "16 bytes a weight and more do not go onto 80 GB"
    assert found.best is not None and found.best.engine.zero_stage in (1, 2, 3) and not found.best.engine.offload_optimizer
    money = found.money(found.best)
    assert money is not None and found.best.seconds is not None and money == pytest.approx(found.best.seconds / 3600 * 8 * 2.0)
    text = render_plan(found, "r.yaml", ASSUMPTIONS)
    assert f"zero{found.best.engine.zero_stage}.yaml --num_processes 8 -m starchat.train r.yaml per_device_train_batch_size=" in text


def test_what_needs_offloading_says_how_many_gpus_would_do_without(few_layers: Path, dataset: Path, tmp_path: Path) -> None:
    found = plan(tmp_path, few_layers, dataset, "l4", 1, price=1.0, **ONCE)
    assert found.best is not None and found.best.engine.offload_optimizer and found.best.host_bytes > 12 * found.trained
    assert found.enough is not None and found.enough[0] > 1 and found.enough[1].fits and not found.enough[1].engine.offload_optimizer
    assert f"without offloading: {found.enough[0]} GPUs" in render_plan(found, "r.yaml", ASSUMPTIONS)


def test_nothing_fits(seven_b: Path, dataset: Path, tmp_path: Path) -> None:
    found = plan(tmp_path, seven_b, dataset, "l4", 1, optimizer="muon", **ONCE)
    assert found.best is None and found.enough is None, "Muon cannot be shared out"
    assert "nothing fits on 1 x l4, nor on any number of them; shorten max_length_tokens" in render_plan(found, "r.yaml", ASSUMPTIONS)


def test_an_update_of_the_recipe_is_kept(tiny_base: Path, dataset: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", train_batch_size=4)
    found = plan_recipe(load_recipe(path), find_gpu("l4"), 4)
    assert {cell.micro_batch * cell.accumulation * 4 for cell in found.cells} == {4}
    assert "gradient_accumulation_steps" not in render_plan(found, "r.yaml", ASSUMPTIONS)
    with pytest.raises(UserError, match="4 sequences do not divide by --count 5"):
        plan_recipe(load_recipe(path), find_gpu("l4"), 5)


def test_qlora_holds_a_quarter(few_layers: Path, dataset: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"lora": {"r": 16, "alpha": 16}, "quantization": "nf4"}
    subject = read_subject(load_recipe(write_recipe(tmp_path / "r.yaml", few_layers, dataset, tmp_path / "run", **keys)))
    held = step_footprint(subject, StepShape(1, 128, True, "autocast")).peak()["weights"]
    rows = 49152 * 4608
    trained, matrices = (sum(p.numel() for p in subject.model.parameters() if p.requires_grad is on) for on in (True, False))
    packed = matrices - rows
    assert held == pytest.approx(2 * rows + packed * (1 + 2 / 64) + 4 * trained, rel=0.01), "half a byte and a scale for each weight"


def of(**bytes_of: float) -> Footprint:
    peak = dict.fromkeys(KINDS, 0.0) | bytes_of
    return Footprint({"backward": peak}, {"backward": peak | {"gradients": 0.0}})


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer"),
    [(0, 2e9, 2e9, 8e9), (1, 2e9, 2e9, 12e9 / 4), (2, 2e9, 2e9 / 4, 12e9 / 4), (3, 2e9 / 4 + 2e9, 2e9 / 4, 12e9 / 4)],
)
def test_what_zero_shares_by_hand(stage: int, weights: float, gradients: float, optimizer: float) -> None:
    memory, host = shared_memory(of(weights=2e9, gradients=2e9, activations=5e9), Engine(4, stage), int(1e9), 8e9)
    assert (memory["weights"], memory["gradients"], memory["optimizer"]) == (weights, gradients, optimizer)
    assert host == 0


def test_offloading_moves_to_the_host() -> None:
    memory, host = shared_memory(of(weights=2e9, gradients=2e9, activations=5e9), Engine(4, 2, offload_optimizer=True), int(1e9), 8e9)
    assert memory["optimizer"] == memory["gradients"] == 0 and host == 12e9 + 2e9


def test_speed_by_hand() -> None:
    gpu, flops = find_gpu("h100"), Flops(2e9, 4e9, 0.0, 0.0, 0.0, ())
    load = Load(1, 1, 1000, False, 1, 0, False, int(1e9), int(1e9))
    assert hardware_flops(load, flops) == 6e12
    assert update_seconds(load, flops, gpu) == pytest.approx(6e12 / (989e12 * 0.5) + 28e9 / 3350e9)
    slow = Load(1, 1, 10, False, 8, 3, False, int(1e9), int(1e9))
    assert update_seconds(slow, flops, gpu) >= 6e9 * 7 / 8 / 450e9, "few tokens wait for the weights of ZeRO-3"


@pytest.mark.parametrize("gpu", [gpu.name for gpu in GPUS])
def test_no_card_is_faster_than_its_own_peak(gpu: str) -> None:
    one = Load(1, 1, 2048, False, 1, 0, False, int(7e9), int(7e9))
    flops = Flops(14e9, 28e9, 0.0, 0.0, 4.0 * 4608, (None,) * 32)
    model = flops.of_step(2048, 2048, 2048 * 2049 / 2 * 32)
    assert 0 < model / update_seconds(one, flops, find_gpu(gpu)) / (find_gpu(gpu).bf16_tflops * 1e12) < 0.5


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80"), ("NVIDIA A100-PCIE-40GB", "a100-40"), ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200"), ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", None), ("NVIDIA A10", "a10"), ("NVIDIA A10G", None), ("Tesla T4", None),
    ],
)  # fmt: skip
def test_cards_by_the_name_that_torch_gives(name: str, gpu: str | None) -> None:
    found = gpu_of_device(name)
    assert (found.name if found else None) == gpu


def test_command_that_offloads() -> None:
    cell = Cell(Engine(2, 3, 0, True, True), True, 2, 4, {}, 0.0, True, False, 1.0, 0.1, None)
    text = command(cell, 2, "my recipe.yaml")
    assert "zero3_offload.yaml --num_processes 2 -m starchat.train 'my recipe.yaml'" in text
    half = dataclasses.replace(cell, engine=Engine(2, 2, offload_optimizer=True))
    assert "zero2.yaml --num_processes 2 --offload_optimizer_device cpu -m" in command(half, 2, "r.yaml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "h1000"], "--gpu h1000: unknown; did you mean h100? expected one of a10, l4, a100-40"),
        (["--gpu", "h100", "--count", "0"], "--count 0; expected at least 1"),
        (["--gpu", "h100", "--price", "-1"], "--price -1.0; expected the price of one GPU"),
        ([], "name a card with --gpu, such as --gpu h100 --count 8, or try this machine with --measure"),
        (["--gpu", "h100", "bf16=false"], "a plan is for bfloat16"),
        (["--gpu", "h100", "optim=rmsprop_bnb"], "trainer.optim: the memory of rmsprop_bnb is not known here"),
    ],
)
def test_bad_input(arguments: list[str], said: str, tiny_base: Path, dataset: Path, tmp_path: Path, capsys: Any) -> None:
    path = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run")
    assert main(["plan", str(path), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_model_without_configuration(tiny_base: Path, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = write_recipe(tmp_path / "r.yaml", tmp_path / "empty", dataset, tmp_path / "run")
    with pytest.raises(UserError, match=r"empty: has no config\.json"):
        plan_recipe(load_recipe(path), find_gpu("l4"), 1)


def test_nano_and_json(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "r.yaml"
    keys = {"model": "nano", "dataset": str(dataset), "output": str(tmp_path / "run"), "max_length_tokens": 256}
    path.write_text(yaml.safe_dump(keys))
    assert main(["plan", str(path), "--gpu", "l4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"]["fits"] and found["best"]["seconds"] > 0 and found["best"]["money"] is None
    assert found["tokens"] > 500 and found["trained"] == found["parameters"] < 10e6
    assert not (tmp_path / "run").exists()
