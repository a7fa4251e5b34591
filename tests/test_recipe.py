"""Recipes: every fault at once, overrides, and what is saved runs again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from starchat.config import from_mapping, read_yaml
from starchat.errors import UserError
from starchat.launch import recipes_folder
from starchat.recipe import Lora, Recipe, load_recipe, resolved

LEAST = {"model": "nano", "dataset": "dataset/", "output": "runs/a", "max_length_tokens": 1024}


def write(folder: Path, **keys: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**LEAST, **keys}))
    return path


def test_the_smallest_recipe(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path)) == Recipe("nano", "dataset/", "runs/a", 1024)


def test_what_is_saved_runs_again(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, lora={"r": 4, "target_modules": ["c_attn"]}, trainer={"learning_rate": "2e-4"}))
    assert recipe.lora == Lora(r=4, target_modules=("c_attn",))
    saved = tmp_path / "saved.yaml"
    saved.write_text(yaml.safe_dump(dict(resolved(recipe))))
    assert load_recipe(saved) == recipe


def test_overrides_without_a_recipe_key_are_the_trainers(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path), ["max_steps=20", "lora.r=4", "trainer.seed=1", "output=b", "learning_rate=3e-4"])
    assert (recipe.trainer, recipe.lora, recipe.output) == ({"max_steps": 20, "seed": 1, "learning_rate": 3e-4}, Lora(r=4), "b")


@pytest.mark.parametrize("override", ["max_length_tokns=512", "tempalte=chatml", "packng=false"])
def test_a_misspelt_recipe_key_is_no_trainer_key(tmp_path: Path, override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(UserError, match=f"unknown key '{key}'; did you mean"):
        load_recipe(write(tmp_path), [override])


def test_no_key_of_the_trainer_is_taken_for_a_misspelt_recipe_key() -> None:
    import dataclasses

    from trl import SFTConfig

    from starchat.recipe import _full_key

    own = {field.name for field in dataclasses.fields(Recipe)}
    for name in {field.name for field in dataclasses.fields(SFTConfig)} - own:
        assert _full_key(f"{name}=1") == f"trainer.{name}=1"


FAULTS = [
    ({"max_length_tokens": 4}, "max_length_tokens: 4; expected at least 8"),
    ({"max_length_tokns": 4}, "unknown key 'max_length_tokns'; did you mean 'max_length_tokens'?"),
    ({"max_set_aside_fraction": 2}, "max_set_aside_fraction: 2.0; expected 0 to 1"),
    ({"max_set_aside_fraction": float("nan")}, "max_set_aside_fraction: nan; expected 0 to 1"),
    ({"min_stop_rate": -0.1}, "min_stop_rate: -0.1; expected 0 to 1"),
    ({"lora": {"r": 0}}, "lora: r and alpha must be at least 1"),
    ({"lora": {"rank": 8}}, "unknown key 'lora.rank'"),
    ({"lora": {"target_modules": []}}, "lora.target_modules: names no layer"),
    ({"output": str(Path(__file__).parent), "dataset": __file__}, "which a run may replace; choose another output"),
    ({"output": str(Path(__file__).parent), "model": str(Path(__file__).parent)}, "which a run may replace; choose another output"),
    ({"kind": "rlhf"}, "kind: 'rlhf'; expected one of cpt, dpo, pretrain, sft"),
    ({"template": "chatlm"}, "did you mean 'chatml'?"),
    ({"architecture": {"model_type": "gpt_bigcode"}}, "architecture: only for kind: pretrain"),
    ({"kind": "pretrain"}, "architecture: kind: pretrain needs the model's configuration"),
    ({"kind": "pretrain", "architecture": {"model_type": "gpt_bigcode"}, "lora": {"r": 8}}, "lora: a model that is pretrained"),
    ({"kind": "pretrain", "architecture": {"model_type": "gpt_bigcode"}, "fim": {"rate": 2}}, "fim: rate and spm_rate"),
    ({"trainer": "fast"}, "trainer: 'fast' is of type str; expected a mapping"),
    ({"output": None}, "output: None is of type NoneType; expected a text"),
]


@pytest.mark.parametrize(("keys", "expected"), FAULTS, ids=[expected for _, expected in FAULTS])
def test_each_fault_has_its_message(tmp_path: Path, keys: dict[str, object], expected: str) -> None:
    path = write(tmp_path, **keys)
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert expected in str(caught.value)
    assert all(line.startswith(str(path)) for line in str(caught.value).splitlines())


def test_two_faults_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(write(tmp_path, max_length_tokens=4, lora={"r": 0}))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("path", sorted(recipes_folder().glob("nano/*.yaml")), ids=lambda path: path.name)
def test_the_recipes_that_ship_are_sound(path: Path) -> None:
    if "sources" in yaml.safe_load(path.read_text(encoding="utf-8")):
        from data_prep.prepare import PrepareSpec

        assert from_mapping(PrepareSpec, read_yaml(path), str(path)).sources
    else:
        assert 0 < load_recipe(path).max_length_tokens <= 1024  # the context of the embedded base
