"""Preference tuning: the loss is DPO's own, the reference is the model that training begins with, and what was trained is found again."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import log_softmax, logsigmoid
from trl import DPOConfig

from families import write_family
from runs import finish, prepare_dialogues, read_lines, write_pairs, write_recipe
from starchat import dpo
from starchat import train as training
from starchat.arguments import PAIR_LOSSES, training_arguments
from starchat.cli import main
from starchat.engine import require_engine
from starchat.errors import UserError
from starchat.export import saved_tokens
from starchat.files import read_manifest
from starchat.flops import count_flops
from starchat.generate import load_assistant
from starchat.hub import base_folder
from starchat.recipe import Recipe, load_recipe
from starchat.rows import read_encoded
from starchat.telemetry import summary
from starchat.train import make_model, make_trainer, train
from test_resume import Kill, Killed

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

LORA = {"r": 4, "alpha": 8}
STEPS: dict[str, Any] = {"max_steps": 6, "per_device_train_batch_size": 2, "lr_scheduler_type": "constant", "beta": 0.2}
PLAIN = Recipe("model", "data", "run", 160, kind="dpo")
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all weights": ({}, {}),
    "a new adapter": ({}, {"lora": LORA}),
    "the adapter of an SFT": ({"lora": {**LORA, "dropout": 0.05}}, {"lora": LORA}),
}


@pytest.fixture(scope="module", params=["starcoder", pytest.param("starcoder2-untied", marks=pytest.mark.slow)])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model with dropout in its configuration, as both StarCoders are released."""
    folder = write_family(tmp_path_factory.mktemp("family") / request.param, request.param)
    config = json.loads((folder / "config.json").read_text())
    config |= {key: 0.1 for key in config if key.endswith(("_dropout", "pdrop"))}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def begun(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that gives the finished SFT that a method goes on from; each is trained once."""
    folder = tmp_path_factory.mktemp("sft")
    data = prepare_dialogues(folder)
    done: dict[str, Path] = {}

    def run(method: str) -> Path:
        name = "lora" if METHODS[method][0] else "full"
        if name not in done:
            done[name] = finish(folder, name, base, data, **METHODS[method][0])
        return done[name]

    return run


def recipe_of(folder: Path, method: str, model: Path, pairs: Path, **trainer: Any) -> Path:
    keys = METHODS[method][1]
    return write_recipe(folder / "dpo.yaml", model, pairs, folder / "dpo", kind="dpo", trainer={**STEPS, **trainer}, **keys)


@pytest.mark.parametrize("method", METHODS)
def test_the_margin_grows_and_what_was_trained_is_found_again(
    method: str, begun: Callable[[str], Path], pairs: Path, tmp_path: Path
) -> None:
    sft = begun(method)
    run = finish(tmp_path, "dpo", sft, pairs, kind="dpo", trainer=STEPS, **METHODS[method][1])
    lines = read_lines(run)
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert lines[0]["rewards/chosen"] == lines[0]["rewards/rejected"] == 0
    assert lines[-1]["rewards/margins"] > 1
    assert lines[-1]["rewards/accuracies"] == 1
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest["verify"]["ok"]
    assert manifest["verify"]["max_logit_difference"] <= 1e-5
    preferences = manifest["training"]["preferences"]
    assert preferences["first"] == {"step": 1, "loss": lines[0]["loss"], "margin": 0, "accuracy": 0}
    assert preferences["last"]["margin"] == lines[-1]["rewards/margins"]
    card = (run / "README.md").read_text()
    assert f"| reference | {sft} as it was before the first step" in card
    assert "| beta, loss | 0.2, sigmoid" in card
    assert "nats per trained token |" not in card.split("infilling")[0]
    part = "adapter" if METHODS[method][1] else "model"
    if part == "adapter":
        saved = load_file(run / "adapter" / "adapter_model.safetensors")
        assert not (run / "adapter" / dpo.REFERENCE).exists(), "the frozen copy is no part of the result"
        assert sum(value.numel() for value in saved.values()) == manifest["training"]["trained_parameters"]
    if method == "the adapter of an SFT":
        before = load_file(sft / "adapter" / "adapter_model.safetensors")
        assert saved.keys() == before.keys()
        assert any("token_adapter" in name for name in saved)
        assert all(not torch.equal(saved[name], before[name]) for name in saved), "matrices and token rows go on from where they were"
        sft_manifest = read_manifest(sft)
        assert sft_manifest is not None
        assert manifest["training"]["parameters"] == sft_manifest["training"]["parameters"]
        named = json.loads((run / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert named == load_recipe(sft / "recipe.yaml").model
    assert load_assistant(str(run)).tokens.new_ids == saved_tokens(run, load_recipe(run / "recipe.yaml")).new_ids


@pytest.mark.parametrize("method", METHODS)
def test_an_epoch_counts_both_sides_of_every_pair_once(method: str, begun: Callable[[str], Path], pairs: Path, tmp_path: Path) -> None:
    epoch = {**STEPS, "max_steps": -1, "num_train_epochs": 1, "gradient_accumulation_steps": 2}
    run = finish(tmp_path, "dpo", begun(method), pairs, kind="dpo", trainer=epoch, **METHODS[method][1])
    encoded, found = read_encoded(next(run.glob("encoded-*")), "train"), summary(read_lines(run))
    rows = [encoded.row(int(number)) for group in encoded.groups for number in group]
    assert found["tokens"] == sum(len(ids) for ids, _ in rows)
    assert found["trained_tokens"] == sum(int(trained[1:].sum()) for _, trained in rows)
    assert found["attention_pairs"] == 2 * sum(len(ids) * (len(ids) + 1) // 2 for ids, _ in rows), "of two layers"
    assert found["padding_tokens"] > 0
    recipe = load_recipe(run / "recipe.yaml")
    alone = count_flops(make_model(recipe, base_folder(recipe.model), saved_tokens(run, recipe)))
    work = found["tokens"], found["trained_tokens"], found["attention_pairs"]
    assert found["model_flops"] == pytest.approx(alone.of_step(*work) + alone.of_forward(*work)), "the reference runs forward only"
    assert "tokens/s, of which trained" in (run / "README.md").read_text()


def trainer_of(recipe_path: Path) -> tuple[Any, Any]:
    """Return the trainer of a recipe whose run was begun, and its rows."""
    recipe = load_recipe(recipe_path)
    run = Path(recipe.output)
    rows = read_encoded(next(run.glob("encoded-*")), "train")
    tokens = saved_tokens(run, recipe)
    folder = dpo.base_folder(recipe.model)
    return make_trainer(recipe, make_model(recipe, folder, tokens), tokens, rows, "identity"), rows


def own_loss(model: Any, reference: Callable[[torch.Tensor], torch.Tensor], rows: Any, numbers: list[int], beta: float) -> float:
    """Return DPO's loss (Rafailov and others 2023, equation 7) of pairs, one row at a time, from whole logits."""

    def log_probability(logits: torch.Tensor, ids: torch.Tensor, trained: torch.Tensor) -> torch.Tensor:
        chosen = log_softmax(logits[0, :-1].double(), dim=-1).gather(1, ids[1:, None])[:, 0]
        return chosen[trained[1:]].sum()

    losses = []
    for number in numbers:
        ratios = []
        for row in rows.groups[number]:
            ids, trained = (torch.tensor(value) for value in rows.row(row))
            ids = ids.long()
            with torch.no_grad():
                live = log_probability(model(input_ids=ids[None], use_cache=False).logits, ids, trained)
                ratios.append(live - log_probability(reference(ids[None]), ids, trained))
        losses.append(-logsigmoid(beta * (ratios[0] - ratios[1])))
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_that_of_the_paper(method: str, begun: Callable[[str], Path], pairs: Path, tmp_path: Path) -> None:
    path = recipe_of(tmp_path, method, begun(method), pairs, max_steps=1)
    assert train(path)["ok"]
    trainer, rows = trainer_of(path)
    original, _ = trainer_of(path)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    trainer.state.global_step = 1  # past the look at the first step
    trainer.model.train()
    numbers = [0, 3, 5]
    with torch.no_grad():
        found = float(trainer.compute_loss(trainer.model, trainer.data_collator([{"group": n} for n in numbers])))
    expected = own_loss(trainer.model, lambda ids: original.model(input_ids=ids, use_cache=False).logits, rows, numbers, 0.2)
    assert abs(expected - math.log(2)) > 0.01, "the models differ"
    assert found == pytest.approx(expected, rel=2e-5)


def test_half_precision_begins_at_the_reference_too(begun: Callable[[str], Path], pairs: Path, tmp_path: Path) -> None:
    run = finish(
        tmp_path,
        "dpo",
        begun("a new adapter"),
        pairs,
        kind="dpo",
        lora=LORA,
        trainer={**STEPS, "max_steps": 1, "bf16": True, "activation_checkpointing": True},
    )
    first = read_lines(run)[0]
    assert (first["rewards/chosen"], first["rewards/rejected"]) == (0, 0)


@pytest.mark.slow
def test_accumulation_makes_the_same_update(begun: Callable[[str], Path], pairs: Path, tmp_path: Path) -> None:
    weights = []
    for name, batch, steps in (("batch", 4, 1), ("accumulated", 1, 4)):
        keys = {**STEPS, "max_steps": 2, "per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "adam_epsilon": 1e-4}
        run = finish(tmp_path, name, begun("all weights"), pairs, kind="dpo", trainer=keys)
        weights.append(load_file(run / "model" / "model.safetensors"))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_goes_on_with_its_first_reference(
    method: str, begun: Callable[[str], Path], pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"kind": "dpo", **METHODS[method][1], "trainer": {**STEPS, "save_strategy": "steps", "save_steps": 2}}
    whole = finish(tmp_path, "whole", begun(method), pairs, **keys)
    make = training.make_trainer

    def killed(*parts: Any) -> Any:
        trainer = make(*parts)
        trainer.add_callback(Kill(3))
        return trainer

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "make_trainer", killed)
        finish(tmp_path, "stopped", begun(method), pairs, **keys)
    stopped = finish(tmp_path, "stopped", begun(method), pairs, **keys)
    assert json.loads((stopped / "manifest.json").read_text())["training"]["resumed"][0]["step"] == 2
    for one, other in zip(read_lines(whole), read_lines(stopped), strict=True):
        assert [other[key] for key in ("loss", "rewards/margins")] == [one[key] for key in ("loss", "rewards/margins")]
    before, after = (load_file(next(run.glob("*/*model.safetensors"))) for run in (whole, stopped))
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_an_empty_pair_has_no_gradient_and_no_trained_token(begun: Callable[[str], Path], pairs: Path, tmp_path: Path) -> None:
    path = recipe_of(tmp_path, "all weights", begun("all weights"), pairs, max_steps=1)
    assert train(path)["ok"]
    trainer, rows = trainer_of(path)
    batch = trainer.data_collator([{"group": len(rows.groups)}, {"group": 0}])
    assert batch["completion_mask"].sum(dim=1).tolist()[::2] == [0, 0]
    chosen, rejected = (rows.row(number) for number in rows.groups[0])
    assert batch["input_ids"][1, : len(chosen[0])].tolist() == chosen[0].tolist()
    assert batch["completion_mask"][3, : len(rejected[0])].tolist() == rejected[1].astype(int).tolist()
    assert batch["attention_mask"].sum(dim=1).tolist() == [1, len(chosen[0]), 1, len(rejected[0])]
    trainer.compute_loss(trainer.model, trainer.data_collator([{"group": len(rows.groups)}] * 2)).backward()
    assert all(p.grad is None or not p.grad.any() for p in trainer.model.parameters())


def spoil_reference(patch: pytest.MonkeyPatch) -> None:
    """A reference whose embedding is off by a little noise; the model is loaded before it."""
    load = dpo.load_base

    def off(*parts: Any, **keys: Any) -> Any:
        model = load(*parts, **keys)
        with torch.no_grad():
            weight = model.get_input_embeddings().weight
            weight += 0.01 * len(seen) * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        seen.append(1)
        return model

    seen: list[int] = []
    patch.setattr(dpo, "load_base", off)


WRONG: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "token rows left out by TRL's copy": ("the adapter of an SFT", lambda patch: patch.setattr(dpo, "copy_adapter", lambda model: None)),
    "dropout in a new adapter's model": ("a new adapter", lambda patch: patch.setattr(dpo, "without_dropout", lambda model: None)),
    "dropout in a model of all weights": ("all weights", lambda patch: patch.setattr(dpo, "without_dropout", lambda model: None)),
    "an adapter that does not begin at zero": (
        "the adapter of an SFT",
        lambda patch: patch.setattr(dpo, "copy_adapter", lambda model: model.get_parameter(first_matrix(model)).data.add_(0.01)),
    ),
    "another reference": ("all weights", spoil_reference),
}


def first_matrix(model: Any) -> str:
    return next(name for name, _ in model.named_parameters() if "lora_B.default" in name)


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_reference_stops_the_run(
    fault: str, begun: Callable[[str], Path], pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, spoil = WRONG[fault]
    spoil(monkeypatch)
    with pytest.raises(UserError, match=r"the reference is not the model .* nats\); nothing was trained") as error:
        train(recipe_of(tmp_path, method, begun(method), pairs))
    print(error.value)
    assert not (tmp_path / "dpo" / "manifest.json").exists()
    assert not (tmp_path / "dpo" / "model").exists()


def test_a_first_loss_that_is_not_log_2_stops_the_run() -> None:
    metrics = {"rewards/chosen": 0.0, "rewards/rejected": 0.0, "logps/chosen": -9.0, "logps/rejected": -9.0}
    plain: Any = training_arguments(PLAIN)
    dpo.require_same_beginning(metrics, math.log(2), plain)
    with pytest.raises(UserError, match=r"the first loss is 0.7, not log 2"):
        dpo.require_same_beginning(metrics, 0.7, plain)
    other: Any = training_arguments(dataclasses.replace(PLAIN, trainer={"loss_type": "ipo"}))
    dpo.require_same_beginning(metrics, 25.0, other)


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        ("all weights", {"packing": True}, "packing: the two answers of a pair are compared as whole rows; remove it"),
        ("all weights", {"fim": {"rate": 0.5}}, "fim: kind: dpo trains the answers of pairs only"),
        ("all weights", {"optimizer": "muon"}, "optimizer: muon is not for kind: dpo"),
        ("all weights", {"trainer": {"loss_type": "sigmod"}}, "trainer.loss_type: 'sigmod'; did you mean 'sigmoid'?"),
        ("all weights", {"trainer": {"beta": -1.0}}, "trainer.beta: -1.0; expected 0 or more"),
        ("all weights", {"trainer": {"betta": 1}}, "unknown key 'trainer.betta'; did you mean 'beta'?"),
        (
            "all weights",
            {"trainer": {"sync_ref_model": True}},
            "trainer.sync_ref_model: the reference is the model that the run",
        ),
        ("all weights", {"trainer": {"disable_dropout": False}}, "trainer.disable_dropout: set by kind: dpo"),
        ("all weights", {"trainer": {"truncation_mode": "keep_end"}}, "trainer.truncation_mode: set by max_length_tokens"),
        ("all weights", {"lora": {**LORA, "dropout": 0.1}}, "lora.dropout: 0.1; kind: dpo compares the model with what it was"),
        ("the adapter of an SFT", {"lora": None}, "lora: absent; kind: dpo goes on with the adapter of"),
        ("the adapter of an SFT", {"lora": {"r": 8, "alpha": 8}}, "which has {r: 4, alpha: 8}; give the same, or merge it first"),
        ("the adapter of an SFT", {"quantization": "nf4"}, "quantization: nf4; kind: dpo goes on with"),
        ("the adapter of an SFT", {"template": "chatml"}, "template: chatml; kind: dpo goes on with"),
        ("the adapter of an SFT", {"kind": "sft"}, "holds an adapter; starchat merge"),
        ("all weights", {"template": "chatml"}, "<|im_start|>, <|im_end|> are new to model"),
    ],
)
def test_what_the_user_must_change(
    method: str, keys: dict[str, Any], message: str, begun: Callable[[str], Path], pairs: Path, tmp_path: Path, capsys: Any
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", begun(method), pairs, tmp_path / "run", **{"kind": "dpo", **METHODS[method][1], **keys})
    assert main(["check", str(recipe)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_wrong_data_or_model_is_one_message(base: Path, begun: Callable[[str], Path], pairs: Path, tmp_path: Path, capsys: Any) -> None:
    data, sft = prepare_dialogues(tmp_path), begun("all weights")
    unfinished = shutil.copytree(sft, tmp_path / "unfinished")
    (unfinished / "manifest.json").unlink()
    for model, dataset, kind, message in (
        (sft, data, "dpo", "no pair in its train split (32 dialogues in all); kind dpo trains on pairs"),
        (sft, pairs, "sft", "no dialogue in its train split (24 pairs in all); kind sft trains on dialogues"),
        (base, pairs, "dpo", "are new to model"),
        (unfinished, pairs, "dpo", "a run that did not finish"),
    ):
        recipe = write_recipe(tmp_path / "r.yaml", model, dataset, tmp_path / "run", kind=kind)
        assert main(["check", str(recipe)]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("variables", "method", "message"),
    [
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
            "the adapter of an SFT",
            r"launch with zero2\.yaml or ddp",
        ),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "all weights", r"kind: dpo was not proved with 1 process with FSDP2"),
    ],
)
def test_an_engine_that_cannot_hold_it(
    variables: dict[str, str],
    method: str,
    message: str,
    begun: Callable[[str], Path],
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = load_recipe(recipe_of(tmp_path, method, begun(method), pairs))
    require_engine(recipe)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        require_engine(recipe)


def test_the_losses_are_those_of_trl() -> None:
    text = DPOConfig.__doc__ or ""
    listed = text.split("Possible values are: ")[1].split("If multiple")[0]
    assert sorted(name for name in listed.replace("`", "").replace("'", "").replace(".", "").replace(",", " ").split()) == sorted(
        PAIR_LOSSES
    )
