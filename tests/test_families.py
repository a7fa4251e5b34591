"""Every base family goes the whole road: encoded, trained with all weights and with LoRA, saved, and found again by the gate."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from families import FAMILIES, write_family
from runs import finish, read_lines
from starchat.files import read_manifest

pytestmark = pytest.mark.usefixtures("gate_in_this_process")


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("family") / request.param, request.param)


@pytest.mark.parametrize("template", ["starchat", "chatml"])
def test_lora_trains_and_saves_its_matrices_and_the_new_rows(base: Path, template: str, dataset: Path, tmp_path: Path) -> None:
    run = finish(tmp_path, "lora", base, dataset, template=template, lora={"r": 2, "alpha": 4})
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest["verify"]["max_logit_difference"] < 1e-3
    weights = load_file(run / "adapter" / "adapter_model.safetensors")
    others = [name for name in weights if "lora_" not in name and "trainable_tokens_delta" not in name]
    assert others == []
    assert sum(value.numel() for value in weights.values()) == manifest["training"]["trained_parameters"]


def test_all_weights_are_trained_and_saved(base: Path, dataset: Path, tmp_path: Path) -> None:
    run = finish(tmp_path, "full", base, dataset)
    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest["verify"]["max_logit_difference"] < 1e-3
    losses = [line["loss"] for line in read_lines(run)]
    assert losses[1] < losses[0]
