"""Every recipe loads, is launched as its head says, and takes two steps on a tiny model of its own architecture."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from conftest import STARCODER_TOKENS, write_base_tokenizer, write_tiny_weights
from data_prep.prepare import PrepareSpec, prepare
from families import write_family
from runs import read_lines, verify_here, write_pairs
from starchat import export
from starchat.arguments import require_arguments, training_arguments
from starchat.config import from_mapping, read_yaml
from starchat.files import read_manifest
from starchat.hub import resolve_model
from starchat.launch import recipes_folder
from starchat.model import fit_vocabulary, load_base
from starchat.recipe import load_recipe
from starchat.template import find_template
from starchat.tokens import load_tokens, save_tokens
from starchat.train import train

FOLDER = recipes_folder()
FILES = sorted(p for p in FOLDER.glob("*/*.yaml") if p.parent.name not in ("accelerate", "launch"))
SPECS = [p for p in FILES if "sources" in yaml.safe_load(p.read_text())]
RECIPES = [p for p in FILES if p not in SPECS]
LAUNCHES = sorted((FOLDER / "accelerate").glob("*.yaml"))

STARCODER2_TOKENS = (
    "<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<repo_name>", "<file_sep>", "<issue_start>",
    "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>",
    "<jupyter_script>", "<empty_output>", "<code_to_intermediate>", "<intermediate_to_code>", "<pr>", "<pr_status>",
)  # fmt: skip
"""The first of StarCoder2's control tokens, in the order of their ids, which begin at 0."""

OTHERS = {
    "starcoder": "starcoder",
    "starchat_alpha": "starcoder",
    "starchat_beta": "starcoder",
    "octocoder": "starcoder",
    "wizardcoder": "starcoder",
    "qwen_coder": "qwen2.5-coder",
}
"""Folders of recipes, and the family of the tiny model that they are tried on."""

LIKE_OTHERS = ("starchat_alpha/sft.yaml", "starchat_beta/sft.yaml", "wizardcoder/sft.yaml", "starchat2/sft.yaml")

OVERRIDES = ["max_steps=2", "max_length_tokens=160", "min_stop_rate=0.0", "bf16=false", "torch_compile=false", "disable_tqdm=true"]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def slow_unless_alone(path: Path) -> Any:
    """Mark the recipes that take the same way through the code as one that is run each time."""
    return pytest.param(path, marks=[pytest.mark.slow] if name_of(path) in LIKE_OTHERS else [])


def write_starcoder2(folder: Path) -> None:
    """Write a random StarCoder2 (grouped queries, sliding window, tied embeddings, dropout as its configuration has it)."""
    import torch
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    write_base_tokenizer(folder, STARCODER2_TOKENS)
    torch.manual_seed(7)
    config = Starcoder2Config(
        vocab_size=load_tokens(folder, None).size, hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, sliding_window=256, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
        attention_dropout=0.1, residual_dropout=0.1, embedding_dropout=0.1, tie_word_embeddings=True,
    )  # fmt: skip
    Starcoder2ForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def bases_by_family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny base model for each folder of recipes."""
    folder = tmp_path_factory.mktemp("bases")
    (folder / "nano").mkdir()
    write_base_tokenizer(folder / "nano", STARCODER_TOKENS)
    write_tiny_weights(folder / "nano", load_tokens(folder / "nano", None).size)
    (folder / "starcoder2").mkdir()
    write_starcoder2(folder / "starcoder2")
    shutil.copytree(folder / "starcoder2", folder / "starchat2")
    for name, family in OTHERS.items():
        write_family(folder / name, family)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of pairs of answers."""
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def chat_model(folder: Path, base: Path, template: str) -> Path:
    """Write a base model that knows a template's tokens, as a fine-tune leaves it."""
    model, tokens = load_base(base, torch.float32), load_tokens(base, find_template(template))
    fit_vocabulary(model, tokens)
    model.save_pretrained(folder)
    save_tokens(tokens, folder, 1024)
    return folder


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of Python files."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "code").mkdir()
    for number in range(40):
        body = f"    return value * {number} + {number + 1}\n"
        text = f'"""Module {number}."""\n\n\ndef scale_{number}(value):\n{body}\n\ndef shift_{number}(value):\n{body}'
        (folder / "code" / f"module_{number}.py").write_text(text)
    source = {"kind": "source", "path": str(folder / "code")}
    spec = folder / "data.yaml"
    spec.write_text(yaml.safe_dump({"sources": [source], "output": str(folder / "dataset"), "test_fraction": 0.1}))
    prepare(spec, progress=False)
    return folder / "dataset"


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_loads_and_trl_knows_its_keys(path: Path) -> None:
    recipe = load_recipe(path)
    require_arguments(recipe)
    arguments = training_arguments(load_recipe(path, ["bf16=false", "torch_compile=false"]))
    assert arguments.learning_rate == recipe.trainer["learning_rate"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_head_holds_the_command_that_runs_it(path: Path) -> None:
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    relative = f"recipes/{name_of(path)}"
    what = f"starchat prepare {relative}" if path in SPECS else rf"(starchat train|-m starchat\.train) {relative}"
    assert re.search(what, head), f"no command for {relative} in its head"
    for named in re.findall(r"recipes/[\w/]+\.yaml", head):
        assert (FOLDER.parent / named).is_file() or "alignment-handbook" in head, f"{relative} names {named}, which is not there"


@pytest.mark.parametrize("path", SPECS, ids=name_of)
def test_a_data_spec_loads(path: Path) -> None:
    spec = from_mapping(PrepareSpec, read_yaml(path), str(path))
    assert spec.output.endswith("/")
    assert all(source["kind"] in ("dialogues", "source") for source in spec.sources)


def test_every_folder_of_recipes_has_a_readme_that_names_its_files() -> None:
    for folder in sorted(p for p in FOLDER.iterdir() if p.is_dir()):
        text = (folder / "README.md").read_text()
        missing = [p.name for p in folder.glob("*.yaml") if p.name not in text]
        assert not missing, f"{folder.name}/README.md does not name {missing}"


@pytest.mark.parametrize("path", [slow_unless_alone(path) for path in RECIPES], ids=name_of)
def test_a_recipe_takes_two_steps(
    path: Path,
    bases_by_family: dict[str, Path],
    dataset: Path,
    documents: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "verify_in_fresh_process", verify_here)
    recipe = load_recipe(path)
    kind, model = recipe.kind, bases_by_family[path.parent.name]
    if kind == "dpo":
        model = chat_model(tmp_path / "chat", model, recipe.template)
    data = {"sft": dataset, "dpo": pairs}.get(kind, documents)
    overrides = [*OVERRIDES, f"model={model}", f"dataset={data}", f"output={tmp_path / 'run'}"]
    if kind == "pretrain":
        overrides += ["architecture.n_embd=32", "architecture.n_layer=2", "architecture.n_head=4", "architecture.n_inner=64"]
    result = train(path, [*overrides, "gradient_accumulation_steps=1", "logging_steps=1"])
    assert result["ok"]
    manifest = read_manifest(tmp_path / "run")
    assert manifest is not None
    assert manifest["training"]["steps"] == 2
    assert manifest["verify"]["ok"] is True
    assert manifest["verify"]["max_logit_difference"] <= 1e-5
    assert [line["step"] for line in read_lines(tmp_path / "run")] == [1, 2]


@pytest.mark.parametrize("path", LAUNCHES, ids=lambda p: p.name)
def test_an_accelerate_configuration_is_one_for_accelerate(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config: Any = load_config_from_file(str(path))
    named = {"cpu": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP"}.get(path.stem, "DEEPSPEED")
    assert str(config.distributed_type).rsplit(".", 1)[-1] == named
    assert config.num_processes == (1 if path.stem == "cpu" else 2)
    assert config.mixed_precision == "no"
    if named == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == int(path.stem.removeprefix("zero").removesuffix("_offload"))
    if path.stem.startswith("zero3"):
        assert config.deepspeed_config["zero3_init_flag"] is False
        assert config.deepspeed_config["zero3_save_16bit_model"] is True


def test_the_numbers_that_are_called_published_are() -> None:
    """alignment-handbook, recipes/starchat2-15b/sft/config_v0.1.yaml: 8 sequences x 2 x 8 GPUs."""
    sft = load_recipe(FOLDER / "starcoder2" / "sft.yaml")
    keys = sft.trainer
    assert (sft.model, sft.max_length_tokens, keys["num_train_epochs"]) == ("bigcode/starcoder2-15b", 2048, 3)
    assert (keys["learning_rate"], keys["lr_scheduler_type"], keys["warmup_steps"]) == (2e-5, "cosine", 0.1)
    assert keys["per_device_train_batch_size"] * keys["gradient_accumulation_steps"] * 8 == 8 * 2 * 8


@pytest.mark.parametrize(
    ("name", "sequences", "rate", "epochs"),
    [
        ("starchat_alpha/sft.yaml", 256, 2e-5, 3),  # bigcode-project/starcoder, chat/config.yaml: 4 x 8 x 8
        ("starchat2/sft.yaml", 128, 2e-5, 3),  # alignment-handbook, recipes/starchat2-15b/sft: 8 x 2 x 8
        ("starchat2/dpo.yaml", 128, 5e-7, 2),  # the same, dpo: 2 x 8 x 8
        ("wizardcoder/sft.yaml", 512, 2e-5, 3),  # WizardLM's README
    ],
)
def test_updates_are_of_the_published_size(name: str, sequences: int, rate: float, epochs: int) -> None:
    keys = load_recipe(FOLDER / name).trainer
    assert keys["per_device_train_batch_size"] * keys["gradient_accumulation_steps"] * 8 == sequences
    assert (keys["learning_rate"], keys["num_train_epochs"]) == (rate, epochs)


def test_nano_is_where_the_recipes_look_for_it() -> None:
    assert (resolve_model("nano") / "tokenizer.json").is_file()
