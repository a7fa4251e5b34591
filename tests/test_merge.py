"""An adapter becomes a plain model: the same logits and ids, the same ties, and nothing else may pass for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from families import write_family
from runs import finish
from starchat import merge as module
from starchat.cli import main
from starchat.errors import UserError
from starchat.export import saved_tokens
from starchat.files import read_manifest, sha256_file
from starchat.finding import Finding
from starchat.generate import load_assistant
from starchat.merge import merge, prove
from starchat.model import load_saved
from starchat.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

LORA = {"r": 4, "alpha": 8}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"lora": LORA},
    "dora": {"lora": {**LORA, "dora": True}},
    "qlora": {"lora": LORA, "quantization": "nf4"},
    "qlora in bfloat16": {"lora": LORA, "quantization": "nf4", "trainer": {"bf16": True}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Runs of each method on a tied base, and LoRA on an untied one: ``folder/lora``, ``folder/untied`` and so on."""
    root = tmp_path_factory.mktemp("merge")
    base = write_family(root / "base", "starcoder")
    for name, keys in METHODS.items():
        finish(root, name, base, dataset, **keys)
    finish(root, "untied", write_family(root / "untied-base", "starcoder2-untied"), dataset, lora=LORA)
    return root


@pytest.fixture
def without_new_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of the folder in this process; one test below starts the process."""

    def proved(draft: Path, proof: Path, cases: Any, logits: Any) -> list[Finding]:
        save_file({f"logits_{n}": value for n, value in enumerate(logits)}, proof / "golden.safetensors")
        (proof / "golden.json").write_text(json.dumps({"cases": cases}))
        return prove(draft, proof)

    monkeypatch.setattr(module, "_proved_in_fresh_process", proved)


@pytest.mark.usefixtures("without_new_interpreter")
@pytest.mark.parametrize("name", [*METHODS, "untied"])
def test_merged_is_the_adapter(name: str, folder: Path, tmp_path: Path) -> None:
    result = merge(folder / name, tmp_path / "merged")
    assert result["ok"], result["findings"]
    manifest = read_manifest(tmp_path / "merged")
    assert manifest is not None
    assert {f["check"] for f in manifest["findings"]} >= {
        "merged_is_adapter",
        "same_ids",
        "same_ids_through_jinja",
        "same_logits",
        "tied_as_stated",
    }
    assert {f["path"]: f["sha256"] for f in manifest["files"]} == {
        p.name: sha256_file(p) for p in (tmp_path / "merged").iterdir() if p.name != "manifest.json"
    }
    merged, recipe = load_assistant(str(tmp_path / "merged")), load_recipe(folder / name / "recipe.yaml")
    assert merged.tokens.template == load_assistant(str(folder / name)).tokens.template
    live = load_saved(folder / name, recipe, saved_tokens(folder / name, recipe), torch.float32)
    ids = torch.tensor([json.loads((folder / name / "golden.json").read_text())["cases"][0]["ids"]])
    with torch.no_grad():
        torch.testing.assert_close(merged.model(ids).logits, live(ids).logits, rtol=0, atol=1e-3)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert plain.config.tie_word_embeddings is (name != "untied")
    assert plain.generation_config.eos_token_id
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template


def test_of_a_base_in_four_bits_both_ways_are_measured_and_the_nearer_is_taken(folder: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["merge", str(folder / "qlora"), "--output", str(tmp_path / "merged"), "--dtype", "bfloat16"]) == 0
    shown = capsys.readouterr().out
    manifest = read_manifest(tmp_path / "merged")
    assert manifest is not None
    nearer, farther = manifest["divergences"]
    assert (nearer["base"], farther["base"]) == ("dequantized", "original")
    assert nearer["max_logit_difference"] < 1e-3
    assert farther["max_logit_difference"] > 100 * nearer["max_logit_difference"]
    assert farther["mean_kl"] > nearer["mean_kl"]
    assert f"original     logits differ by {farther['max_logit_difference']:.2g}" in shown
    assert shown.splitlines()[-1] == str(tmp_path / "merged")
    assert {value.dtype for value in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.bfloat16}
    assert "not chosen: original base" in (tmp_path / "merged" / "README.md").read_text()


@pytest.mark.usefixtures("without_new_interpreter")
def test_planted_merge_that_forgets_the_adapter(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._merge_into

    def base_alone(base: str, run: Path, *rest: Any) -> Any:
        model = real(base, run, *rest)
        with torch.no_grad():
            model.transformer.h[0].mlp.c_fc.weight.mul_(1.01)
        return model

    monkeypatch.setattr(module, "_merge_into", base_alone)
    result = merge(folder / "lora", tmp_path / "merged")
    assert not result["ok"]
    assert [f["check"] for f in result["findings"] if not f["ok"]] == ["merged_is_adapter"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_new_interpreter")
@pytest.mark.parametrize(
    ("fault", "check"), [("weights", "same_logits"), ("stop", "end_token_in_generation_config"), ("ids", "same_ids_through_jinja")]
)
def test_planted_fault_in_what_was_written(fault: str, check: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._proved_in_fresh_process

    def spoiled(draft: Path, *rest: Any) -> list[Finding]:
        if fault == "weights":
            weights = load_file(draft / "model.safetensors")
            weights["transformer.h.0.mlp.c_fc.weight"] *= 1.1
            save_file(weights, draft / "model.safetensors", metadata={"format": "pt"})
        elif fault == "stop":
            settings = json.loads((draft / "generation_config.json").read_text())
            (draft / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": 0}))
        else:
            path = draft / "tokenizer.json"
            path.write_text(path.read_text().replace('"add_prefix_space":false', '"add_prefix_space":true'))
        return list(real(draft, *rest))

    monkeypatch.setattr(module, "_proved_in_fresh_process", spoiled)
    result = merge(folder / "lora", tmp_path / "merged")
    assert check in [f["check"] for f in result["findings"] if not f["ok"]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_new_interpreter")
@pytest.mark.parametrize("name", ["lora", "untied"])
def test_planted_tie_that_is_not_as_stated(name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._proved_in_fresh_process

    def spoiled(draft: Path, *rest: Any) -> list[Finding]:
        settings = json.loads((draft / "config.json").read_text())
        (draft / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": name == "untied"}))
        return list(real(draft, *rest))

    monkeypatch.setattr(module, "_proved_in_fresh_process", spoiled)
    if name == "lora":
        with pytest.raises(UserError, match="weights missing for lm_head"):
            merge(folder / name, tmp_path / "merged")
    else:
        result = merge(folder / name, tmp_path / "merged")
        assert [f["check"] for f in result["findings"] if not f["ok"]] == ["tied_as_stated"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_new_interpreter")
def test_a_merge_is_done_once_and_never_replaces_something_else(folder: Path, tmp_path: Path) -> None:
    merge(folder / "lora", tmp_path / "merged")
    assert merge(folder / "lora", tmp_path / "merged")["skipped"]
    with pytest.raises(UserError, match=r"merged: holds another merge result; choose another output or pass --overwrite"):
        merge(folder / "dora", tmp_path / "merged")
    assert merge(folder / "dora", tmp_path / "merged", overwrite=True)["ok"]
    with pytest.raises(UserError, match=r"holds a train result; choose another output"):
        merge(folder / "lora", folder / "dora", overwrite=True)


def test_what_cannot_be_merged(folder: Path, tiny_base: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe.yaml; give the folder that starchat train wrote"):
        merge(tmp_path, tmp_path / "merged")
    full = finish(tmp_path, "full", tiny_base, dataset)
    with pytest.raises(UserError, match="trained all weights, so there is nothing to merge; the plain model is .*full/model"):
        merge(full, tmp_path / "merged")
    shutil.copytree(folder / "lora", tmp_path / "unfinished")
    (tmp_path / "unfinished" / "manifest.json").unlink()
    with pytest.raises(UserError, match="a run that did not finish"):
        merge(tmp_path / "unfinished", tmp_path / "merged")
    with pytest.raises(UserError, match="dtype: 'int8'; expected one of float32, bfloat16, float16"):
        merge(folder / "lora", tmp_path / "merged", dtype="int8")


def test_a_base_that_changed_since_is_found_before_merging(folder: Path, dataset: Path, tmp_path: Path) -> None:
    base = write_family(tmp_path / "base", "starcoder")
    run = finish(tmp_path, "run", base, dataset, lora=LORA)
    weights = load_file(base / "model.safetensors")
    weights["transformer.h.0.mlp.c_fc.weight"] *= 1.1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="gives other logits than it was trained to; the weights of one of them were changed; restore them"):
        merge(run, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
