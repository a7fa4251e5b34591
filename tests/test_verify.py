"""Law 7: what was saved is what was trained. One finished run of each kind, and every way to spoil a copy of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runs import finish, verify_here, write_recipe
from spoil import (
    ROWS,
    Spoil,
    adapter_edit,
    base_of_another_size,
    change_one,
    drop,
    edit_json,
    edit_template,
    edit_tensors,
    empty,
    head_of_its_own,
    initial_rows,
    model_edit,
    named_case,
    never_trained,
    restore_the_base,
    shortened,
    tokenizer_of_the_base,
    unused_position,
    without,
)
from starchat import export
from starchat.dialogue import Turn, to_message
from starchat.encode import encode_prompt
from starchat.errors import UserError
from starchat.files import read_manifest
from starchat.generate import Assistant, Reply, load_assistant
from starchat.model import load_base
from starchat.recipe import load_recipe
from starchat.sampling import Sampling
from starchat.template import find_template
from starchat.tokens import load_tokens
from starchat.train import main as train_main
from starchat.train import train
from starchat.verify import _replies_stop, verify
from starchat.verify import main as verify_main

SIX_STEPS = {"max_steps": 6, "per_device_train_batch_size": 4}


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, dataset: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verify_in_fresh_process", verify_here)
        return finish(tmp_path_factory.mktemp("runs"), "full", tiny_base, dataset, trainer=SIX_STEPS)


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, dataset: Path) -> Path:
    """The gate of this run is a real fresh process."""
    return finish(tmp_path_factory.mktemp("runs"), "lora", tiny_base, dataset, lora={"r": 4, "alpha": 8}, trainer=SIX_STEPS)


def gate(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, set[str], str]:
    """Return the exit status of the gate, the names of the findings that do not hold, and standard error."""
    capsys.readouterr()
    status = verify_main([str(run), "--json"])
    printed = capsys.readouterr()
    failed = {f["check"] for f in json.loads(printed.out)["findings"] if not f["ok"]} if status != 2 else set()
    assert "Traceback" not in printed.err
    return status, failed, "\n".join(line for line in printed.err.splitlines() if line.startswith("starchat: "))


BOTH = [
    named_case(tokenizer_of_the_base, 1, "same_ids_through_jinja", id="tokenizer of the base"),
    named_case(edit_template, 1, "files_are_as_recorded", id="chat template changed since"),
    named_case(edit_template, 1, "same_ids_through_jinja", id="chat template edited"),
    named_case(without("golden.json"), 1, "files_are_whole", id="golden cases missing"),
    named_case(without("golden.safetensors"), 1, "files_are_whole", id="golden logits missing"),
    named_case(shortened("golden.json"), 1, "files_are_whole", id="golden cases truncated"),
    named_case(shortened("golden.safetensors"), 1, "files_are_whole", id="golden logits truncated"),
    named_case(without("recipe.yaml"), 2, "no recipe.yaml", id="recipe missing"),
]

LORA = [
    *BOTH,
    named_case(adapter_edit(drop(ROWS)), 2, "does not fit its base", id="token rows removed"),
    named_case(adapter_edit(change_one("c_attn.lora_B", 0.5)), 1, "same_logits", id="one weight changed"),
    named_case(adapter_edit(change_one(ROWS, 2.0)), 1, "same_logits", id="one token row changed"),
    named_case(restore_the_base, 1, "adapter_is_not_base", id="adapter changes nothing"),
    named_case(adapter_edit(never_trained("h.1.mlp.c_fc.lora_B")), 1, "every_matrix_moved", id="a matrix without gradient"),
    named_case(adapter_edit(change_one("c_attn.lora_A", float("nan"))), 1, "weights_are_finite", id="nan"),
    named_case(adapter_edit(empty("lora_A")), 1, "files_are_whole", id="empty tensor"),
    named_case(shortened("adapter/adapter_model.safetensors"), 1, "files_are_whole", id="adapter truncated"),
    named_case(shortened("adapter/tokenizer.json"), 1, "files_are_whole", id="tokenizer truncated"),
    named_case(shortened("adapter/adapter_config.json"), 1, "files_are_whole", id="adapter configuration truncated"),
    named_case(base_of_another_size, 2, "does not fit its base", id="rank edited"),
    *(
        named_case(without(f"adapter/{name}"), 1, "files_are_whole", id=f"no {name}")
        for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    ),
]

FULL = [
    *BOTH,
    named_case(model_edit(change_one("h.1.attn.c_attn.weight", 1.0)), 1, "same_logits", id="one weight changed"),
    named_case(model_edit(unused_position), 1, "files_are_as_recorded", id="a weight that no golden case needs"),
    named_case(model_edit(head_of_its_own), 1, "tied_as_stated", id="head of its own"),
    named_case(model_edit(change_one("h.0.mlp.c_fc.weight", float("nan"))), 1, "weights_are_finite", id="nan"),
    named_case(model_edit(change_one("h.0.mlp.c_fc.weight", float("nan"))), 1, "same_logits", id="nan is no match"),
    named_case(model_edit(empty("h.0.mlp.c_fc.weight")), 1, "files_are_whole", id="empty tensor"),
    named_case(model_edit(drop("h.0.mlp.c_fc.weight")), 2, "weights missing for transformer.h.0.mlp.c_fc.weight", id="weight missing"),
    named_case(shortened("model/model.safetensors"), 1, "files_are_whole", id="weights truncated"),
    named_case(shortened("model/config.json"), 1, "files_are_whole", id="configuration truncated"),
    named_case(shortened("model/generation_config.json"), 1, "files_are_whole", id="generation configuration truncated"),
    named_case(
        lambda run: edit_json(run / "model" / "generation_config.json", eos_token_id=0),
        1,
        "end_token_in_generation_config",
        id="no end token",
    ),
    named_case(
        lambda run: edit_json(run / "model" / "generation_config.json", eos_token_id=None),
        1,
        "end_token_in_generation_config",
        id="no stop at all",
    ),
    named_case(
        lambda run: edit_json(run / "model" / "config.json", tie_word_embeddings=False),
        2,
        "weights missing for lm_head.weight",
        id="tie flag flipped",
    ),
    *(
        named_case(without(f"model/{name}"), 1, "files_are_whole", id=f"no {name}")
        for name in (
            "model.safetensors",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        )
    ),
]


@pytest.mark.parametrize(("kind", "checks"), [("full_run", 9), ("lora_run", 10)])
def test_a_finished_run_passes(kind: str, checks: int, request: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = request.getfixturevalue(kind)
    assert gate(run, capsys)[:2] == (0, set())
    result = verify(run)
    assert result["max_logit_difference"] <= 1e-5
    assert len(result["findings"]) == checks


def spoiled(run: Path, folder: Path, spoil: Spoil) -> Path:
    copy = shutil.copytree(run, folder / "run")
    spoil(copy)
    return copy


@pytest.mark.parametrize(("spoil", "status", "expected"), LORA)
def test_planted_faults_of_an_adapter(spoil: Spoil, status: int, expected: str, lora_run: Path, tmp_path: Path, capsys: Any) -> None:
    found, failed, message = gate(spoiled(lora_run, tmp_path, spoil), capsys)
    assert (found, expected in (failed if status == 1 else message)) == (status, True), (failed, message)


@pytest.mark.parametrize(("spoil", "status", "expected"), FULL)
def test_planted_faults_of_a_model(spoil: Spoil, status: int, expected: str, full_run: Path, tmp_path: Path, capsys: Any) -> None:
    found, failed, message = gate(spoiled(full_run, tmp_path, spoil), capsys)
    assert (found, expected in (failed if status == 1 else message)) == (status, True), (failed, message)


def test_another_base_is_seen(lora_run: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The base that the recipe names was replaced after the training."""
    copy = spoiled(lora_run, tmp_path, lambda run: None)
    base = shutil.copytree(tiny_base, tmp_path / "base")
    text = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(text.replace(f"model: {tiny_base}", f"model: {base}"))
    assert gate(copy, capsys)[:2] == (0, set())
    assert load_assistant(str(copy)).name == f"{tmp_path.name}/run"
    edit_tensors(base / "model.safetensors", change_one("h.0.mlp.c_fc.weight", 1.0))
    assert gate(copy, capsys)[:2] == (1, {"same_logits"})
    with pytest.raises(UserError, match=f"loaded, it gives other logits than it was trained to; the weights of {base} or of the run"):
        load_assistant(str(copy))


def test_the_card_may_be_edited(lora_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(spoiled(lora_run, tmp_path, lambda run: (run / "adapter" / "README.md").write_text("Mine.")), capsys)[:2] == (0, set())


def test_prompts_of_the_stop_rate_have_their_tools(full_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the prompts that were trained."""
    asked: list[list[int]] = []
    recipe = load_recipe(full_run / "recipe.yaml")
    tokens = export.saved_tokens(full_run, recipe)
    turns, tools = (Turn("user", "add"), Turn("assistant", "3")), '[{"name": "add"}]'
    case = {"messages": [to_message(t) for t in turns], "tools": tools, "prompt_ids": encode_prompt(turns[:-1], tokens, tools)}
    replies = Assistant._replies

    def watched(self: Assistant, prompts: list[list[int]], sampling: Sampling) -> list[Reply]:
        asked.extend(prompts)
        return replies(self, prompts, sampling)

    monkeypatch.setattr(Assistant, "_replies", watched)
    _replies_stop(load_base(full_run / "model", torch.float32), tokens, [case], recipe, 1.0)
    assert asked == [case["prompt_ids"]]


def leave_as_deepspeed_does(run: Path) -> None:
    """Make weights and golden logits those of a live model in bfloat16."""
    path = run / "model" / "model.safetensors"
    edit_tensors(path, lambda tensors: tensors.update({name: value.bfloat16() for name, value in tensors.items()}))
    (run / "manifest.json").unlink()
    cases = json.loads((run / "golden.json").read_text())["cases"]
    live = export._golden_logits(load_base(run / "model", torch.bfloat16).eval(), cases, "cpu", everywhere=True)
    assert {value.dtype for value in live} == {torch.bfloat16}
    save_file({f"logits_{number}": value for number, value in enumerate(live)}, run / "golden.safetensors")


def test_a_model_that_was_trained_in_half_precision_passes_but_for_a_lost_row(full_run: Path, tmp_path: Path, capsys: Any) -> None:
    copy = spoiled(full_run, tmp_path, leave_as_deepspeed_does)
    assert gate(copy, capsys)[:2] == (0, set())
    end = load_tokens(copy / "model", find_template("starchat")).control["<|end|>"]

    def lose_a_row(tensors: dict[str, torch.Tensor]) -> None:
        weight = tensors["transformer.wte.weight"]
        weight[end] = weight[:end].float().mean(dim=0).to(weight.dtype)

    edit_tensors(copy / "model" / "model.safetensors", lose_a_row)
    assert "same_logits" in gate(copy, capsys)[1]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe.yaml; give the folder that starchat train wrote"):
        verify(tmp_path)


def test_a_run_that_saved_nothing_is_refused(lora_run: Path, tmp_path: Path) -> None:
    copy = spoiled(lora_run, tmp_path, lambda run: shutil.rmtree(run / "adapter"))
    with pytest.raises(UserError, match="the run saved no adapter; it ended before its last step"):
        verify(copy)


def test_starchat_verify_in_a_fresh_process(lora_run: Path) -> None:
    command = [sys.executable, "-m", "starchat", "verify", str(lora_run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True


def test_the_adapter_holds_its_matrices_and_the_new_rows_and_nothing_else(lora_run: Path) -> None:
    path = lora_run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    matrices = {name for name in tensors if "lora_A" in name or "lora_B" in name}
    assert set(tensors) == {*matrices, ROWS}
    assert tensors[ROWS].shape == (4, 32)
    # For two layers and r = 4: c_attn 32 -> 48, attention's c_proj 32 -> 32, c_fc 32 -> 128, the other c_proj 128 -> 32.
    numbers = 2 * 4 * ((32 + 48) + (32 + 32) + (32 + 128) + (128 + 32)) + 4 * 32
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    assert path.stat().st_size == 4 * numbers + 8 + header


def test_the_new_rows_moved_from_where_they_began(lora_run: Path) -> None:
    moved = (load_file(lora_run / "adapter" / "adapter_model.safetensors")[ROWS] - initial_rows(lora_run)).abs().amax(dim=1)
    tokens = load_tokens(lora_run / "adapter", find_template("starchat"))
    assert tokens.control["<|end|>"] in range(tokens.size)
    # system, user, assistant and end each stand in the data; six steps of 1e-2 move each by more than a rounding.
    assert moved.shape == (4,)
    assert float(moved.min()) > 1e-3


def test_a_failed_gate_is_a_failed_run(
    tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random model of two steps stops in few replies, and the recipe asks for all. Each step is an epoch: below one nothing is judged."""
    monkeypatch.setattr(export, "verify_in_fresh_process", verify_here)
    whole_epochs = {"per_device_train_batch_size": 64}
    recipe = write_recipe(tmp_path / "strict.yaml", tiny_base, dataset, tmp_path / "run", min_stop_rate=1.0, trainer=whole_epochs)
    assert train_main([str(recipe)]) == 1
    run = tmp_path / "run"
    assert read_manifest(run) is None
    assert "greedy replies stop within" in (run / "FAILED").read_text()
    assert [f["check"] for f in json.loads((run / "verify.json").read_text())["findings"] if not f["ok"]] == ["replies_stop"]
    assert "verify failed" in capsys.readouterr().err
    assert not train(recipe)["ok"], "the same command tries again"


def test_a_gate_that_dies_is_a_failed_run(lora_run: Path, tmp_path: Path) -> None:
    """Verification that ends without a result is a fault, with its last words."""
    copy = spoiled(lora_run, tmp_path, lambda run: (run / "recipe.yaml").write_text("model: [\n"))
    result = export.verify_in_fresh_process(copy)
    assert result["ok"] is False
    assert "not valid YAML" in result["findings"][0]["detail"]


@pytest.mark.slow
def test_a_run_that_no_process_can_load_is_not_finished(tmp_path: Path) -> None:
    """The check `fresh_process`: the gate's own process ends without an answer."""
    from starchat.export import verify_in_fresh_process

    result = verify_in_fresh_process(tmp_path)
    assert not result["ok"]
    assert [finding["check"] for finding in result["findings"]] == ["fresh_process"]
    assert "no recipe.yaml" in result["findings"][0]["detail"]
