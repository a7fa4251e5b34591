"""The base model's files: each fault planted in a copy of a sound base is found by the check that is named for it, without a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from families import FAMILIES, write_family
from starchat import detect_base
from starchat.detect_base import base_findings
from starchat.hub import read_config
from starchat.template import find_template
from starchat.tokens import load_tokens
from starchat.weights import not_finite, read_folder, rows

USED = np.arange(300, dtype=np.int32)
Tensors = dict[str, torch.Tensor]


def found(folder: Path, ids: np.ndarray = USED) -> set[str]:
    """Return the names of the checks that find a fault in a base model."""
    findings = list(base_findings(folder, read_config(folder), load_tokens(folder, find_template("starchat")), ids))
    assert all(bool(finding.remedy) != finding.ok for finding in findings)
    return {finding.check for finding in findings if not finding.ok}


def change(folder: Path, alter: Callable[[Tensors], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    alter(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, name: str = "config.json", **keys: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def shard(folder: Path) -> dict[str, str]:
    """Cut a model's weights into two files with an index, and return the index's map."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    placed = {}
    for number, some in enumerate((names[::2], names[1::2]), 1):
        save_file({name: tensors[name] for name in some}, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
        placed |= dict.fromkeys(some, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return placed


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_sound(family: str, tmp_path: Path) -> None:
    base = write_family(tmp_path, family)
    assert not found(base)
    if family == "starcoder2":
        shard(base)
        assert not found(base)


def plant_file_cut_off(base: Path) -> str:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return "base_files_are_whole"


def plant_header_cut_off(base: Path) -> str:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    return "base_files_are_whole"


def plant_header_that_is_none(base: Path) -> str:
    path = base / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:8] + b"[" + data[9:])
    return "base_files_are_whole"


def plant_shape_of_another_size(base: Path) -> str:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"shape":[32,128]', b'"shape":[32,127]', 1))
    return "base_files_are_whole"


def plant_shard_missing(base: Path) -> str:
    shard(base)
    (base / "model-2.safetensors").unlink()
    return "base_files_are_whole"


def plant_shards_exchanged(base: Path) -> str:
    shard(base)
    for old, new in (("1", "0"), ("2", "1"), ("0", "2")):
        (base / f"model-{old}.safetensors").rename(base / f"model-{new}.safetensors")
    return "base_files_are_whole"


def plant_index_that_is_none(base: Path) -> str:
    shard(base)
    (base / "model.safetensors.index.json").write_text("{}")
    return "base_files_are_whole"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_numbers_that_are_none(dtype: torch.dtype, value: float, base: Path) -> None:
    change(base, lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    assert not found(base)
    change(base, lambda tensors: tensors["transformer.h.1.mlp.c_fc.weight"][3].fill_(value))
    assert found(base) == {"base_weights_are_finite"}


def plant_weights_in_few_bits(base: Path) -> str:
    change(base, lambda tensors: tensors.update({"transformer.h.0.mlp.c_fc.qweight": torch.zeros(4, 4, dtype=torch.uint8)}))
    return "base_is_not_quantized"


def plant_stated_quantization(base: Path) -> str:
    configure(base, quantization_config={"quant_method": "gptq", "bits": 4})
    return "base_is_not_quantized"


def plant_tied_head_of_its_own(base: Path) -> str:
    configure(base, tie_word_embeddings=True)
    change(base, lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"] + 1}))
    return "head_is_as_stated"


def plant_untied_head_that_is_missing(base: Path) -> str:
    configure(base, tie_word_embeddings=False)
    return "head_is_as_stated"


def plant_tokenizer_of_a_larger_model(base: Path) -> str:
    def cut(tensors: Tensors) -> None:
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][:200].clone()

    change(base, cut)
    configure(base, vocab_size=200)
    return "tokenizer_fits_the_weights"


def plant_tokenizer_of_a_smaller_model(base: Path) -> str:
    def grow(tensors: Tensors) -> None:
        tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"].repeat(4, 1)

    change(base, grow)
    configure(base, vocab_size=read_config(base)["vocab_size"] * 4)
    return "tokenizer_fits_the_weights"


def plant_vocabulary_of_another_size(base: Path) -> str:
    configure(base, vocab_size=read_config(base)["vocab_size"] + 1)
    return "tokenizer_fits_the_weights"


def plant_row_that_was_never_trained(base: Path) -> str:
    change(base, lambda tensors: tensors["transformer.wte.weight"][7].mul_(1e-9))
    return "used_rows_are_trained"


def plant_other_end_of_text(base: Path) -> str:
    configure(base, eos_token_id=3)
    configure(base, "generation_config.json", eos_token_id=[3, 5])
    return "end_of_text_agrees"


def plant_end_of_text_beyond_the_vocabulary(base: Path) -> str:
    configure(base, "generation_config.json", eos_token_id=[0, 70_000])
    return "end_of_text_agrees"


PLANTS = [value for name, value in sorted(globals().items()) if name.startswith("plant_")]


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__.removeprefix("plant_"))
def test_each_planted_fault_is_found(plant: Callable[[Path], str], base: Path) -> None:
    assert not found(base)
    wanted = plant(base)
    assert found(base) == {wanted}


def test_rows_that_no_text_uses_may_be_anything(base: Path) -> None:
    plant_row_that_was_never_trained(base)
    assert not found(base, USED[USED != 7])


def test_a_large_model_is_read_in_stretches_and_says_so(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect_base, "MAX_READ_BYTES", 40_000)
    tensors, _ = read_folder(base)
    finding = detect_base.base_weights_are_finite(tensors)
    assert finding.ok
    assert "% of the numbers, evenly chosen, are finite" in finding.detail


def test_a_folder_without_weights_has_nothing_to_look_at(bases: dict[str, Path]) -> None:
    assert not found(bases["starcoder"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_read_as_torch_reads_them(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(6, 5).to(dtype)
    save_file({"wte.weight": matrix}, tmp_path / "model.safetensors")
    (stored,), faults = read_folder(tmp_path)
    assert not faults
    assert np.array_equal(rows(stored, np.array([4, 1])), matrix[[4, 1]].float().numpy())
    assert not_finite(stored.values, stored.dtype) == 0
