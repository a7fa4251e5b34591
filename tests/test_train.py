"""The training run, in one process on a tiny model: the road from recipe to manifest, and laws 1 and 6 in what TRL computes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file, save_file

from runs import finish, read_lines, write_dialogues
from starchat.arguments import training_arguments
from starchat.dialogue import Part, Record, Source
from starchat.errors import UserError
from starchat.export import _golden_case, golden_cases
from starchat.files import read_manifest
from starchat.model import fit_vocabulary, load_base
from starchat.recipe import load_recipe
from starchat.rows import read_encoded
from starchat.template import find_template
from starchat.tokens import load_tokens
from starchat.train import main, run_digest, train

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

WHOLE = {"per_device_train_batch_size": 8, "max_steps": 3, "adam_epsilon": 1e-4}
"""All groups of the training split in each step. A bias of attention keys has no gradient but rounding (softmax cancels it);
epsilon stands far above that, or Adam would make whole steps of it and no two orders of summing would agree."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, dataset: Path) -> Path:
    """The folder of a run of three steps over all weights; its recipe lies beside it."""
    return finish(tmp_path_factory.mktemp("finished"), "full", tiny_base, dataset, trainer=WHOLE)


@pytest.fixture(scope="module")
def finished_lora(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, dataset: Path) -> Path:
    """The same with LoRA."""
    return finish(tmp_path_factory.mktemp("finished"), "lora", tiny_base, dataset, lora={"r": 4, "alpha": 8}, trainer=WHOLE)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(run / "model" / "model.safetensors"))


def losses_of(run: Path) -> list[float]:
    return [line["loss"] for line in read_lines(run)]


def assert_same_run(one: Path, other: Path) -> None:
    assert losses_of(other) == pytest.approx(losses_of(one), rel=1e-5)
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-5)


def test_a_finished_run_holds_what_the_manifest_lists(finished: Path) -> None:
    manifest = read_manifest(finished)
    assert manifest is not None
    files = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()}
    assert files - {"manifest.json"} == {file["path"] for file in manifest["files"]}
    assert files >= {"recipe.yaml", "check.json", "check.html", "metrics.jsonl", "loss.png", "verify.json", "README.md", "golden.json"}
    assert files >= {"model/model.safetensors", "model/tokenizer.json", "model/chat_template.jinja", "model/generation_config.json"}
    assert manifest["training"]["steps"] == 3
    assert manifest["verify"]["ok"]
    assert not (finished / "FAILED").exists()


def test_metrics_have_one_line_a_step_and_the_plot_is_a_picture(finished: Path) -> None:
    lines = read_lines(finished)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(line["seconds"] >= 0 and line["learning_rate"] >= 0 for line in lines)
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")


def by_hand_loss(run: Path, base: Path) -> float:
    """Return the mean loss of the base over the trained tokens of all training rows, each row alone and unpadded."""
    tokens = load_tokens(base, find_template("starchat"))
    model = load_base(base, torch.float32).eval()
    fit_vocabulary(model, tokens)
    rows = read_encoded(next(run.glob("encoded-*")), "train")
    total, count = 0.0, 0
    for number in range(len(rows)):
        ids, trained = (torch.tensor(array) for array in rows.row(number))
        with torch.no_grad():
            chances = model(input_ids=ids[None].long(), use_cache=False).logits[0].log_softmax(-1)
        for at in range(1, len(ids)):
            if trained[at]:
                total -= float(chances[at - 1, ids[at]])
                count += 1
    return total / count


@pytest.mark.parametrize("kind", ["finished", "finished_lora"])
def test_the_trainers_loss_is_the_mean_over_trained_tokens_of_rows_alone(kind: str, tiny_base: Path, request: Any) -> None:
    run = request.getfixturevalue(kind)
    assert losses_of(run)[0] == pytest.approx(by_hand_loss(run, tiny_base), rel=1e-5)


def test_a_finished_run_is_skipped(finished: Path) -> None:
    before = (finished / "manifest.json").stat().st_mtime_ns
    result = train(finished.parent / "full.yaml")
    assert result["ok"]
    assert result["skipped"]
    assert (finished / "manifest.json").stat().st_mtime_ns == before


def test_the_other_processes_of_a_launch_skip_a_finished_run_too(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process ends at once; one that went on would wait for it without end."""
    monkeypatch.setenv("RANK", "1")
    assert train(finished.parent / "full.yaml") == {}


def test_another_recipe_does_not_replace_a_run_unless_told(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(finished.parent / "full.yaml")
    assert main([recipe, "learning_rate=0.5"]) == 2
    error = capsys.readouterr().err
    assert "holds another train result; choose another output or pass --overwrite" in error
    assert "Traceback" not in error
    assert read_manifest(finished) is not None


def test_overwrite_replaces_a_run(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "run")
    recipe = str(finished.parent / "full.yaml")
    assert main([recipe, f"output={copy}", "max_steps=1", "--overwrite"]) == 0
    assert len(losses_of(copy)) == 1
    manifest = read_manifest(copy)
    assert manifest is not None
    assert manifest["training"]["steps"] == 1


def test_a_fault_of_the_data_leaves_the_finished_run(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "run")
    assert main([str(finished.parent / "full.yaml"), f"output={copy}", "max_length_tokens=50", "--overwrite"]) == 1
    assert {p.name for p in copy.iterdir()} == {p.name for p in finished.iterdir()}
    assert read_manifest(copy) == read_manifest(finished)


def test_another_base_of_the_same_size_is_another_run(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    recipe = dataclasses.replace(load_recipe(finished.parent / "full.yaml"), model=str(base))
    before, size = run_digest(recipe, base), (base / "model.safetensors").stat().st_size
    assert run_digest(recipe, base) == before
    tensors = load_file(base / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, base / "model.safetensors", metadata={"format": "pt"})
    assert (base / "model.safetensors").stat().st_size == size
    assert run_digest(recipe, base) != before


def test_weights_that_the_model_has_no_place_for_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    save_file({**tensors, "transformer.h.2.ln_1.weight": torch.ones(32)}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="no place for transformer.h.2.ln_1.weight; the files do not fit config.json"):
        load_base(base, torch.float32)


def question(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("kind", ["end with a question", "are all split"])
def test_dialogues_that_are_no_golden_case_as_they_are(kind: str, finished: Path, tmp_path: Path, tiny_base: Path) -> None:
    """The gate has its cases from their beginnings."""
    rows = [[question(f"copy {n}"), answer(f"use copy {n}"), question(f"thanks {n}")] for n in range(6)]
    if kind == "are all split":
        rows = [[*row, answer(f"{row[0]['content']} " * 12), question("more?"), answer(f"{row[0]['content']} " * 12)] for row in rows]
    Dataset.from_list([{"messages": row} for row in rows]).save_to_disk(tmp_path / "dialogues")
    tokens, recipe = load_tokens(tiny_base, find_template("starchat")), load_recipe(finished.parent / "full.yaml")
    recipe = dataclasses.replace(recipe, dataset=str(tmp_path / "dialogues"), max_length_tokens=100)
    cases = golden_cases(recipe, tokens)
    assert len(cases) == 6
    assert all(case["messages"][-1]["role"] == "assistant" and len(case["ids"]) <= 100 for case in cases)


def test_golden_cases_of_documents_fit_into_the_context(finished: Path, tiny_base: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(load_recipe(finished.parent / "full.yaml"), kind="pretrain", max_length_tokens=32)
    record = Record(Source("a.py"), parts=(Part("", "x = 1\n" * 300),))
    case = _golden_case(record, recipe, load_tokens(tiny_base, None))
    assert case is not None
    assert len(case["ids"]) == 32


def test_a_folder_of_other_files_is_never_touched(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other files; choose another output"):
        train(finished.parent / "full.yaml", [f"output={tmp_path}"], overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unfinished_run_that_does_not_say_what_it_depends_on_is_not_gone_on_with(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "run")
    (copy / "manifest.json").unlink()
    (copy / "begun.json").unlink()
    with pytest.raises(UserError, match="holds an unfinished run; choose another output or pass --overwrite"):
        train(finished.parent / "full.yaml", [f"output={copy}"])


def test_the_resolved_recipe_runs_again_to_the_same_weights(finished: Path, tmp_path: Path) -> None:
    assert train(finished / "recipe.yaml", [f"output={tmp_path / 'again'}"])["ok"]
    assert_same_run(finished, tmp_path / "again")


def test_the_same_recipe_gives_the_same_adapter(finished_lora: Path, tmp_path: Path) -> None:
    """Also where LoRA's matrices, half of which begin at random, are made in another state of torch's generator."""
    torch.manual_seed(987)
    assert train(finished_lora.parent / "lora.yaml", [f"output={tmp_path / 'run'}"])["ok"]
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(finished_lora), rel=1e-6)


def test_accumulation_is_the_same_update(finished: Path, tmp_path: Path) -> None:
    """Law 6: one batch of eight groups, and eight of one, although the groups hold different numbers of trained tokens."""
    keys = ["per_device_train_batch_size=1", "gradient_accumulation_steps=8", f"output={tmp_path / 'run'}"]
    assert train(finished.parent / "full.yaml", keys)["ok"]
    assert_same_run(finished, tmp_path / "run")


def test_unpacked_is_the_same_update(finished: Path, tmp_path: Path) -> None:
    """Law 6: rows packed into groups, and each row padded in a line of its own."""
    keys = ["packing=false", "per_device_train_batch_size=64", f"output={tmp_path / 'run'}"]
    assert train(finished.parent / "full.yaml", keys)["ok"]
    assert_same_run(finished, tmp_path / "run")


def test_a_fault_of_the_data_stops_training(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main([str(finished.parent / "full.yaml"), "max_length_tokens=50", f"output={run}"]) == 1
    assert {p.name for p in run.iterdir()} == {"recipe.yaml", "check.json", "check.html", "FAILED"}
    report = json.loads((run / "check.json").read_text())
    assert [f["check"] for f in report["findings"] if not f["ok"]] == ["lengths"]
    assert "Traceback" not in capsys.readouterr().err


def test_tensorboard_events_are_written(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(finished.parent / "full.yaml", ["report_to=tensorboard", "max_steps=1", f"output={run}"])["ok"]
    (events,) = run.rglob("events.out.tfevents.*")
    assert b"train/loss" in events.read_bytes()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rte=1", "unknown key 'trainer.learning_rte'; did you mean 'learning_rate'?"),
        ("trainer.max_length=9", "trainer.max_length: set by max_length_tokens; remove it here"),
        ("trainer.deepspeed=x.json", "trainer.deepspeed: set by the accelerate configuration"),
        ("lr_scheduler_type=cosin", "trainer: cosin is not a valid SchedulerType, please select one of"),
        ("learning_rate=fast", "trainer.learning_rate: 'fast' is of type str; expected a number"),
        ("learning_rate=-1", "trainer.learning_rate: -1; expected 0 or more"),
        ("max_steps=2.5", "trainer.max_steps: 2.5 is of type float; expected a whole number"),
        ("bf16=maybe", "trainer.bf16: 'maybe' is of type str; expected true or false"),
        ("optim=adamm", "trainer: adamm is not a valid OptimizerNames"),
        ("eval_strategy=steps", "trainer.eval_strategy: there is no evaluation during training"),
        (
            "resume_from_checkpoint=true",
            "trainer.resume_from_checkpoint: an unfinished run goes on by itself",
        ),
        ("save_only_model=true", "trainer.save_only_model: a run cannot be gone on with from weights alone"),
        ("save_total_limit=0", "trainer.save_total_limit: 0; expected at least 1"),
        ("average_tokens_across_devices=false", "trainer.average_tokens_across_devices: set by the loss, which is the same"),
        ("max_steps=0", "trainer.max_steps: 0; expected a whole number from 1, or -1 for whole epochs"),
        ("num_train_epochs=0", "trainer.num_train_epochs: 0; expected a number above 0"),
        ("report_to=paper", "trainer: paper is not supported, only"),
        ("lr_scheduler_type=cosine_with_min_lr", "trainer: One of min_lr or min_lr_rate should be set"),
        ("optim=lomo", "trainer: You need to install `lomo_optim`"),
        ("per_device_train_batch_size=0", "trainer.per_device_train_batch_size: 0; expected at least 1"),
        ("max_length_tokens=2048", "max_length_tokens: 2,048; model .* has a context of 1,024 tokens"),
        ("dataset=/nowhere", "dataset: '/nowhere': neither a folder nor a data set"),
        ("model=/nowhere", "model: '/nowhere': no such folder"),
        (
            "lora={target_modules: [q_proj]}",
            "lora.target_modules: q_proj matches no layer; the model's linear layers are c_attn, c_proj, c_fc",
        ),
        ("lora={target_modules: [attn]}", "lora.target_modules: attn is not a linear layer; the model's linear"),
        ("lora={target_modules: [wte]}", "lora.target_modules: wte holds token rows, of which LoRA trains the new ones whole"),
        ("lora={target_modules: [lm_head]}", "lora.target_modules: lm_head holds token rows"),
    ],
)
def test_what_the_user_must_change_is_one_message(override: str, message: str, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        train(finished.parent / "full.yaml", [override, f"output={tmp_path / 'run'}"])


def test_the_old_name_of_activation_checkpointing_is_obeyed(finished: Path) -> None:
    for key in ("gradient_checkpointing", "activation_checkpointing"):
        arguments = training_arguments(load_recipe(finished.parent / "full.yaml", [f"{key}=true"]))
        assert arguments.activation_checkpointing is True
    assert training_arguments(load_recipe(finished.parent / "full.yaml")).activation_checkpointing is torch.cuda.is_available()


def test_checkpointing_activations_changes_no_update(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(finished.parent / "full.yaml", ["activation_checkpointing=true", f"output={run}"])["ok"]
    assert_same_run(finished, run)


def test_a_dataset_without_dialogues_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="an empty folder; give a folder that starchat prepare wrote"):
        train(finished.parent / "full.yaml", [f"dataset={tmp_path / 'empty'}", f"output={tmp_path / 'run'}"])


def test_a_datasets_folder_is_read(finished: Path, tmp_path: Path) -> None:
    """What the datasets library saved trains as it is: its only split is the training split."""
    from datasets import Dataset

    lines = [json.loads(line) for line in write_dialogues(tmp_path / "chats.jsonl").read_text().splitlines()]
    Dataset.from_list(lines).save_to_disk(str(tmp_path / "saved"))
    keys = [f"dataset={tmp_path / 'saved'}", f"output={tmp_path / 'run'}", "max_steps=1"]
    assert train(finished.parent / "full.yaml", keys)["ok"]
    assert json.loads((tmp_path / "run" / "check.json").read_text())["stats"]["rows"] == {"train": 32, "test": 0}


def test_the_saved_recipe_is_the_resolved_one(finished: Path) -> None:
    saved = yaml.safe_load((finished / "recipe.yaml").read_text())
    assert saved["template"] == "starchat"
    assert saved["packing"] is True
    assert load_recipe(finished / "recipe.yaml") == load_recipe(finished.parent / "full.yaml")
