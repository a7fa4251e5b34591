"""What a training run is: the keys of a recipe, their defaults and their meaning.

In: a recipe YAML and overrides. Out: a `Recipe`, every fault of it reported at once. Imports neither torch nor TRL;
the keys under ``trainer`` are checked against TRL's ``SFTConfig`` or ``DPOConfig`` by `starchat.arguments`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from starchat.config import apply_overrides, closest, from_mapping, read_yaml, to_mapping
from starchat.errors import UserError
from starchat.hub import run_with_adapter
from starchat.template import TEMPLATES, Template, find_template

MICRO_BATCH = 1
"""``per_device_train_batch_size`` where a recipe says nothing: a packed sequence holds many rows. Transformers' own is 8."""

NEARLY = 0.85
"""How alike two keys are that differ by a typing error. No key of SFTConfig is that much like one of ours; a test compares."""


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank adaptation, with PEFT's meaning of each key. `target_modules` None: every linear layer but the head.

    `rslora` scales by alpha / sqrt(r) instead of alpha / r; `dora` trains a magnitude for each output beside the matrices.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    target_modules: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Fim:
    """Fill-in-the-middle: the share of documents permuted, and of those the share in suffix-prefix-middle order."""

    rate: float = 0.5
    spm_rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training run. `trainer` holds keys of ``trl.SFTConfig``, or with `kind` dpo of ``trl.DPOConfig``."""

    model: str
    """``nano`` (the embedded base), a folder, a Hub id, or a finished run's folder. With `kind` pretrain only its tokenizer is used."""
    dataset: str
    """What ``starchat prepare`` wrote, a ``datasets`` folder with a ``messages`` column, or a Hub id of one."""
    output: str
    max_length_tokens: int
    """Rows never exceed this. Over-long dialogues are split at turns, see `starchat.encode`."""
    kind: Literal["pretrain", "cpt", "sft", "dpo"] = "sft"
    """``sft``: dialogues. ``dpo``: pairs of answers, with a model that chats. ``cpt``: documents, with the base model's weights.
    ``pretrain``: documents, from random weights."""
    template: str = "starchat"
    lora: Lora | None = None
    """Absent: all weights are trained."""
    quantization: Literal["nf4"] | None = None
    """``nf4``: the base model's linear layers are held in 4 bits (bitsandbytes), which makes LoRA QLoRA."""
    fim: Fim | None = None
    """Documents are permuted to be filled in. With `kind` sft: the dataset's documents are trained beside its dialogues, so that the
    model keeps filling in; how many there are is the mixture's part."""
    architecture: dict[str, Any] | None = None
    """With `kind` pretrain: the keys of the model's configuration, ``model_type`` among them."""
    optimizer: Literal["trainer", "muon"] = "trainer"
    """``trainer``: what ``trainer.optim`` names. ``muon``: see `starchat.muon`; one process or data parallel."""
    train_batch_size: int | None = None
    """The sequences of one update, all processes together, as DeepSpeed names it; ``gradient_accumulation_steps`` follows from it, so the
    recipe trains the same on any number of processes that divides it. Absent: what ``trainer`` says, times the processes."""
    packing: bool = True
    """Several rows in one sequence, none of which sees another. With `kind` dpo never."""
    max_set_aside_fraction: float = 0.01
    """The share of trained tokens that may be lost to over-long exchanges before the run is refused."""
    min_stop_rate: float = 0.5
    """The share of sample replies that must stop by themselves for the reload gate to hold, once an epoch was trained."""
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def of_dialogues(self) -> bool:
        """Whether rows are dialogues, those of pairs among them."""
        return self.kind in ("sft", "dpo")

    @property
    def of_pairs(self) -> bool:
        """Whether rows come in twos: two answers to one prompt."""
        return self.kind == "dpo"

    @property
    def of_documents(self) -> bool:
        """Whether rows are documents: all of them, or those that an SFT replays beside its dialogues (`fim`)."""
        return not self.of_dialogues or self.fim is not None

    @property
    def from_nothing(self) -> bool:
        """Whether the run begins with random weights; otherwise with those of `model`."""
        return self.kind == "pretrain"

    @property
    def dialogue_template(self) -> Template | None:
        """The template of the rows, or None where they are documents."""
        return find_template(self.template) if self.of_dialogues else None


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file. An override that begins with no recipe key means a key of ``trainer``."""
    mapping = read_yaml(path)
    asked = apply_overrides(mapping, [_full_key(o) for o in overrides])
    recipe = from_mapping(Recipe, asked, str(path))
    faults = list(_faults(recipe))
    if recipe.of_pairs and asked.get("packing") is True:
        faults.append("packing: the two answers of a pair are compared as whole rows; remove it")
    if faults:
        raise UserError("\n".join(f"{path}: {fault}" for fault in faults))
    return dataclasses.replace(recipe, packing=recipe.packing and not recipe.of_pairs)


def _full_key(override: str) -> str:
    """Return an override with the key's place in a recipe; what is nearly a recipe key is a typing error and no trainer key."""
    known = [field.name for field in dataclasses.fields(Recipe)]
    first = override.partition("=")[0].split(".")[0]
    if first in known or not first:
        return override
    if difflib.get_close_matches(first, known, n=1, cutoff=NEARLY):
        raise UserError(f"override {override!r}: unknown key {first!r}; {closest(first, known)}")
    return f"trainer.{override}"


def _faults(recipe: Recipe) -> list[str]:
    faults = []
    if recipe.max_length_tokens < 8:
        faults.append(f"max_length_tokens: {recipe.max_length_tokens}; expected at least 8")
    if not 0 <= recipe.max_set_aside_fraction <= 1:
        faults.append(f"max_set_aside_fraction: {recipe.max_set_aside_fraction}; expected 0 to 1")
    if not 0 <= recipe.min_stop_rate <= 1:
        faults.append(f"min_stop_rate: {recipe.min_stop_rate}; expected 0 to 1")
    if recipe.lora is not None and (recipe.lora.r < 1 or recipe.lora.alpha < 1 or not 0 <= recipe.lora.dropout < 1):
        faults.append("lora: r and alpha must be at least 1, dropout from 0 to below 1")
    if recipe.fim is not None and not (0 <= recipe.fim.rate <= 1 and 0 <= recipe.fim.spm_rate <= 1):
        faults.append("fim: rate and spm_rate must be from 0 to 1")
    if recipe.train_batch_size is not None and recipe.train_batch_size < 1:
        faults.append(f"train_batch_size: {recipe.train_batch_size}; expected at least 1")
    if recipe.train_batch_size is not None and "gradient_accumulation_steps" in recipe.trainer:
        faults.append("train_batch_size: decides trainer.gradient_accumulation_steps; remove one of them")
    if recipe.optimizer == "muon" and (recipe.lora is not None or "optim" in recipe.trainer):
        faults.append("optimizer: muon needs whole matrices and replaces trainer.optim; remove lora and trainer.optim, or optimizer")
    faults += [
        f"{key}: {name} lies in output {recipe.output}, which a run may replace; choose another output"
        for key, name in (("dataset", recipe.dataset), ("model", recipe.model))
        if Path(name).exists() and Path(name).resolve().is_relative_to(Path(recipe.output).resolve())
    ]
    if recipe.lora is not None and recipe.lora.target_modules == ():
        faults.append("lora.target_modules: names no layer; remove it to take every linear layer but the head")
    if recipe.quantization and (recipe.lora is None or recipe.from_nothing):
        faults.append("quantization: weights in 4 bits cannot be trained themselves; add lora, or remove quantization")
    return faults + _faults_of_kind(recipe) + _faults_of_start(recipe)


def _faults_of_kind(recipe: Recipe) -> list[str]:
    faults = []
    if recipe.of_dialogues and recipe.template not in TEMPLATES:
        try:
            find_template(recipe.template)
        except UserError as error:
            faults.append(str(error))
    if not recipe.from_nothing and recipe.architecture is not None:
        faults.append("architecture: only for kind: pretrain")
    if recipe.from_nothing and (recipe.architecture is None or "model_type" not in recipe.architecture):
        faults.append("architecture: kind: pretrain needs the model's configuration with model_type, such as gpt_bigcode")
    if recipe.from_nothing and recipe.lora is not None:
        faults.append("lora: a model that is pretrained from nothing trains all its weights; remove lora")
    if recipe.of_pairs and recipe.optimizer == "muon":
        faults.append("optimizer: muon is not for kind: dpo, whose learning rates are those of AdamW; remove it")
    if recipe.of_pairs and recipe.fim is not None:
        faults.append("fim: kind: dpo trains the answers of pairs only; remove fim")
    if recipe.of_pairs and recipe.lora is not None and recipe.lora.dropout:
        faults.append(f"lora.dropout: {recipe.lora.dropout}; kind: dpo compares the model with what it was, without dropout; remove it")
    return faults


def _faults_of_start(recipe: Recipe) -> list[str]:
    """Return what a recipe asks for that the run whose model it begins with does not have."""
    run = run_with_adapter(recipe.model)
    if run is None or recipe.from_nothing:
        return []
    if not recipe.of_pairs:
        return [f"model: {recipe.model} holds an adapter; starchat merge {recipe.model} makes a model of it to begin with"]
    asked, wanted = _of_adapter(recipe), _of_adapter(load_recipe(run / "recipe.yaml"))
    return [
        f"{key}: {asked[key] or 'absent'}; kind: dpo goes on with the adapter of {recipe.model}, which has {value or 'none'}; give "
        f"the same, or merge it first (starchat merge {recipe.model})"
        for key, value in wanted.items()
        if asked[key] != value
    ]


def _of_adapter(recipe: Recipe) -> dict[str, str | None]:
    """Return what decides how an adapter's weights are read, as a recipe writes it. Dropout does not."""
    lora = to_mapping(recipe.lora) if recipe.lora else {}
    keys = ", ".join(f"{key}: {value}" for key, value in lora.items() if value and key != "dropout")
    return {"lora": f"{{{keys}}}" if keys else None, "quantization": recipe.quantization, "template": recipe.template}


def resolved(recipe: Recipe) -> Mapping[str, Any]:
    """Return the recipe as the mapping that is saved beside the result and can be run again."""
    return {key: value for key, value in to_mapping(recipe).items() if value is not None}
