"""Every method trains what it should, saves it, and is found again: rsLoRA, DoRA, QLoRA, half precision, continued pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from data_prep.prepare import prepare
from families import write_family
from runs import finish, prepare_documents, read_lines, write_dialogues, write_recipe
from starchat import verify
from starchat.cli import main
from starchat.errors import UserError
from starchat.export import load_run
from starchat.files import read_manifest
from starchat.recipe import load_recipe
from starchat.train import require_engine

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

LORA = {"r": 4, "alpha": 8}
METHODS: dict[str, dict[str, Any]] = {
    "rslora": {"lora": {**LORA, "rslora": True}},
    "dora": {"lora": {**LORA, "dora": True}},
    "qlora": {"lora": LORA, "quantization": "nf4"},
    "lora in bfloat16": {"lora": LORA, "trainer": {"bf16": True}},
    "qlora in bfloat16": {"lora": LORA, "quantization": "nf4", "trainer": {"bf16": True}},
}


@pytest.fixture(scope="module", params=["starcoder", "starcoder2-untied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("family") / request.param, request.param)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_documents(tmp_path_factory.mktemp("documents"))


def test_four_bits_loaded_in_another_type_than_they_were_trained_in(
    base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the gate did before it took the type from the golden logits."""
    run = finish(tmp_path, "run", base, dataset, **METHODS["qlora in bfloat16"])
    monkeypatch.setattr(verify, "live_dtype", lambda golden: torch.float32)
    assert [f["check"] for f in verify.verify(run)["findings"] if not f["ok"]] == ["same_logits"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_and_is_found_again(method: str, base: Path, dataset: Path, tmp_path: Path) -> None:
    run = finish(tmp_path, "run", base, dataset, **METHODS[method])
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest["verify"]["ok"]
    assert manifest["verify"]["max_logit_difference"] <= 1e-5, "loaded in the type that the run computed in"
    assert load_run(run)
    weights = load_file(run / "adapter" / "adapter_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}, "an adapter in bfloat16 would not move"
    assert sum(value.numel() for value in weights.values()) == manifest["training"]["trained_parameters"]
    losses = [line["loss"] for line in read_lines(run)]
    assert losses[1] != losses[0]


def test_four_bits_are_counted_as_the_weights_that_they_are(base: Path, dataset: Path, tmp_path: Path) -> None:
    sizes = []
    for name, keys in (("lora", {"lora": LORA}), ("qlora", {"lora": LORA, "quantization": "nf4"})):
        manifest = read_manifest(finish(tmp_path, name, base, dataset, **keys))
        assert manifest is not None
        sizes.append(manifest["training"]["parameters"])
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("keys", [{}, {"lora": LORA}, {"lora": LORA, "quantization": "nf4"}], ids=["all", "lora", "qlora"])
def test_continued_pretraining(keys: dict[str, Any], documents: Path, tmp_path: Path) -> None:
    base = write_family(tmp_path / "base", "starcoder")
    run = finish(tmp_path, "cpt", base, documents, kind="cpt", fim={"rate": 0.5}, **keys)
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest["verify"]["ok"]
    assert not (run / ("adapter" if keys else "model") / "chat_template.jinja").exists()
    before = load_file(base / "model.safetensors")
    if not keys:
        after = load_file(run / "model" / "model.safetensors")
        assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}
        assert any(not torch.equal(after[name], before[name]) for name in before)


def test_dialogues_with_replayed_documents(documents: Path, tmp_path: Path) -> None:
    source = {"kind": "source", "path": str(documents.parent / "code"), "license": "MIT"}
    chats = {"kind": "dialogues", "path": str(write_dialogues(tmp_path / "chats.jsonl"))}
    (tmp_path / "data.yaml").write_text(
        yaml.safe_dump({"sources": [chats, source], "output": str(tmp_path / "dataset"), "test_fraction": 0.2})
    )
    prepare(tmp_path / "data.yaml", progress=False)
    base = write_family(tmp_path / "base", "starcoder")
    manifest = read_manifest(finish(tmp_path, "run", base, tmp_path / "dataset", fim={"rate": 0.5}, lora=LORA))
    assert manifest is not None
    assert manifest["verify"]["ok"]
    infilling = manifest["training"]["infilling"]
    assert infilling["before"]["spans"] == infilling["after"]["spans"] > 0
    assert infilling["before"]["loss"] != infilling["after"]["loss"]
    assert "infilling" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"quantization": "nf4"}, "quantization: weights in 4 bits cannot be trained themselves; add lora"),
        ({"quantization": "int3", "lora": LORA}, "quantization"),
        ({"kind": "cpt", "architecture": {"model_type": "llama"}}, "architecture: only for kind: pretrain"),
        ({"fim": {"rate": 0.5}}, "no document in its train split (32 dialogues in all); fim replays documents"),
    ],
)
def test_what_does_not_go_together(keys: dict[str, Any], message: str, base: Path, dataset: Path, tmp_path: Path, capsys: Any) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", base, dataset, tmp_path / "run", **keys)
    assert main(["check", str(recipe)]) == 2
    assert message in capsys.readouterr().err


def test_an_engine_that_cannot_hold_the_method(base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", base, dataset, tmp_path / "run", lora=LORA, quantization="nf4"))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    require_engine(recipe)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    with pytest.raises(UserError, match=r"quantization: weights in 4 bits .* asks for 1 process with ZeRO-3; launch with zero2\.yaml"):
        require_engine(recipe)


def test_without_bitsandbytes_it_says_what_to_install(base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starchat.model.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'starchat\[quantize\]'"):
        finish(tmp_path, "run", base, dataset, lora=LORA, quantization="nf4")
