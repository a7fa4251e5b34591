"""Ways to spoil a finished run, each what some real failure leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from starchat.model import fit_vocabulary, load_base
from starchat.recipe import load_recipe
from starchat.template import find_template
from starchat.tokens import load_tokens

ROWS = "base_model.model.transformer.wte.token_adapter.trainable_tokens_delta"

Spoil = Callable[[Path], None]


def edit_tensors(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = dict(load_file(path))
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def edit_json(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without(*names: str) -> Spoil:
    def spoil(run: Path) -> None:
        for name in names:
            (run / name).unlink()

    return spoil


def shortened(name: str) -> Spoil:
    return lambda run: cut(run / name)


def adapter_edit(edit: Callable[[dict[str, torch.Tensor]], None]) -> Spoil:
    return lambda run: edit_tensors(run / "adapter" / "adapter_model.safetensors", edit)


def model_edit(edit: Callable[[dict[str, torch.Tensor]], None]) -> Spoil:
    return lambda run: edit_tensors(run / "model" / "model.safetensors", edit)


def initial_rows(run: Path) -> torch.Tensor:
    """Return the embedding rows of the new tokens before the first step."""
    base = Path(load_recipe(run / "recipe.yaml").model)
    tokens = load_tokens(base, find_template("starchat"))
    model = load_base(base, torch.float32)
    fit_vocabulary(model, tokens)
    rows: torch.Tensor = model.get_input_embeddings().weight[list(tokens.new_ids)].detach()
    return rows


def restore_the_base(run: Path) -> None:
    """Make the adapter one that changes nothing."""
    rows = initial_rows(run)

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            tensors[name] = rows.clone() if name == ROWS else torch.zeros_like(tensors[name])

    adapter_edit(edit)(run)


def tokenizer_of_the_base(run: Path) -> None:
    kind = "adapter" if (run / "adapter").is_dir() else "model"
    shutil.copy(Path(load_recipe(run / "recipe.yaml").model) / "tokenizer.json", run / kind / "tokenizer.json")


def edit_template(run: Path) -> None:
    path = next(run.glob("*/chat_template.jinja"))
    text = path.read_text()
    assert "<|assistant|>" in text
    path.write_text(text.replace("<|assistant|>", "<|user|>"))


def change_one(name: str, by: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        key = next(key for key in tensors if name in key)
        tensors[key].view(-1)[0] += by

    return edit


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if name in key]:
            del tensors[key]

    return edit


def empty(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        key = next(key for key in tensors if name in key)
        tensors[key] = tensors[key][:0].clone()

    return edit


def never_trained(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        key = next(key for key in tensors if name in key)
        tensors[key] = torch.zeros_like(tensors[key])

    return edit


def unused_position(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transformer.wpe.weight"][-1] = 7.0


def head_of_its_own(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1.0


def base_of_another_size(run: Path) -> None:
    edit_json(run / "adapter" / "adapter_config.json", r=8)


def named_case(spoil: Spoil, status: int, expected: str, *, id: str) -> Any:
    """Return a planted fault: exit status 1 and the finding that must be among the failed ones, or 2 and what the message says."""
    return pytest.param(spoil, status, expected, id=id)
