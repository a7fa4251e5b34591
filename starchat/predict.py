"""The memory of a recipe's step on one process, before any weight exists: what `starchat.trial` measures, predicted.

In: a recipe and its model's configuration. Out: bytes by kind at the peak. `starchat.plan` shares them out over GPUs.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from starchat.arguments import training_arguments
from starchat.errors import UserError
from starchat.hub import base_folder, read_config, start_folder
from starchat.memory import KINDS, WEIGHTS, Footprint, StepShape, footprint, in_four_bits, shallow
from starchat.model import add_lora, train_in_float32
from starchat.muon import split_parameters
from starchat.recipe import Recipe
from starchat.tokens import Tokens, load_tokens

OPTIMIZER = "optimizer"

STATE_BYTES = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_anyprecision", "stable_adamw", "paged_adamw_32bit"), 8.0),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "adamw_torch_8bit", "paged_adamw_8bit"), 2.0),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit", "rmsprop", "adagrad"), 4.0),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit", "adamw_torch_4bit"), 1.0),
    "adafactor": 0.0,
    "sgd": 0.0,
}
"""Bytes of state for each trained weight: two moments in float32, or in 8 bits. Adafactor keeps a row and a column of a matrix.
Paged ones are counted whole, though what does not fit moves to the host."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is planned: a recipe, its model's configuration grown to the tokenizer, and the parameters without their content."""

    recipe: Recipe
    config: Any
    tokens: Tokens
    model: Any
    """On the meta device: shapes and which of them are trained."""

    @property
    def layers(self) -> int:
        """The model's depth."""
        return int(self.config.num_hidden_layers)

    @property
    def trained(self) -> list[Any]:
        """The parameters that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]


def read_subject(recipe: Recipe) -> Subject:
    """Return a recipe's model from its ``config.json`` and tokenizer alone."""
    folder = base_folder(recipe.model, weights=False)
    keys = dict(recipe.architecture or {}) if recipe.from_nothing else read_config(folder)
    kind = keys.pop("model_type", None)
    tokens = load_tokens(start_folder(recipe.model, weights=False), recipe.dialogue_template)
    try:
        config = AutoConfig.for_model(kind, **keys)
    except ValueError as error:
        where = "architecture" if recipe.from_nothing else f"{folder}/config.json"
        raise UserError(f"{where}: {' '.join(str(error).split())[:200]}") from None
    config.vocab_size = tokens.size if recipe.from_nothing else max(config.vocab_size, tokens.size)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    with torch.device("meta"):
        model = build_model(recipe, config, tokens, half=True)(config.num_hidden_layers)
    return Subject(recipe, config, tokens, model)


def build_model(recipe: Recipe, config: Any, tokens: Tokens, half: bool) -> Callable[[int], Any]:
    """Return what builds the recipe's model at any depth, as `starchat.train.make_model` does; `half`: the run computes in bfloat16."""
    dtype = torch.bfloat16 if half and recipe.lora else torch.float32

    def build(layers: int) -> Any:
        model = AutoModelForCausalLM.from_config(shallow(config, layers), dtype=dtype)
        if recipe.quantization:
            in_four_bits(model, dtype)
        if recipe.lora:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by names that are to change
                model = add_lora(model, recipe.lora, tokens)
            train_in_float32(model)
        return model

    return build


def step_footprint(subject: Subject, shape: StepShape) -> Footprint:
    """Return the memory of a step of this shape, the optimizer's state apart."""
    build = build_model(subject.recipe, subject.config, subject.tokens, half=shape.compute != "float32")
    return footprint(build, shape, subject.layers)


def optimizer_bytes(subject: Subject, optim: str) -> float:
    """Return the bytes of the optimizer's state for all that is trained."""
    if subject.recipe.optimizer == "muon":
        matrices, others = split_parameters(subject.model)
        return 4.0 * sum(p.numel() for p in matrices) + 8.0 * sum(p.numel() for p in others)
    if optim not in STATE_BYTES:
        raise UserError(f"trainer.optim: the memory of {optim} is not known here; expected one of {', '.join(STATE_BYTES)}")
    factors = sum(4.0 * sum(p.shape) for p in subject.trained if p.ndim == 2) if optim == "adafactor" else 0.0
    return STATE_BYTES[optim] * sum(p.numel() for p in subject.trained) + factors


def predict_here(recipe: Recipe) -> Mapping[str, float]:
    """Return bytes by kind at the peak of a recipe's steps in one process on this machine, without DeepSpeed."""
    arguments = training_arguments(recipe)
    subject = read_subject(recipe)
    shape = StepShape(
        batch=arguments.per_device_train_batch_size,
        length_tokens=recipe.max_length_tokens,
        checkpointing=bool(arguments.activation_checkpointing),
        compute="autocast" if arguments.bf16 else "float32",
        accumulates=arguments.gradient_accumulation_steps > 1,
        on_gpu=torch.cuda.is_available(),
        pairs=recipe.of_pairs,
    )
    found = step_footprint(subject, shape)
    peak = found.peak()
    return {**{kind: peak[kind] for kind in KINDS}, OPTIMIZER: optimizer_bytes(subject, str(arguments.optim.value))}


def weights_bytes(found: Footprint) -> float:
    """Return the bytes of the weights as they are held."""
    return next(iter(found.kept.values()))[WEIGHTS]
