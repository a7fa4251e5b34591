"""All checks before a run: of its data, its base model's files, its schedule and disk, and of the model itself at work.

In: a recipe, and how a run makes its model. Out: a report and the encoded rows. What needs no torch is `starchat.check`'s part.

A model that does not fit beside a run is tried in small: two layers of its own width, random weights. Its findings say so. For preference
tuning the base with a new adapter is tried, and not the adapter that the run goes on with: what is proved is of the architecture.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from starchat.arguments import training_arguments
from starchat.catalogue import BY_NAME
from starchat.check import check_recipe
from starchat.checkpoint import disk_needed_bytes, planned_saves
from starchat.detect_schedule import Schedule, disk_findings, schedule_findings
from starchat.encode import Row
from starchat.engine import asked_engine
from starchat.finding import Finding, Report, merged
from starchat.hub import base_folder, start_folder
from starchat.model import Size, add_lora, count_parameters, fit_vocabulary
from starchat.probe import probe_findings
from starchat.probe_training import Asked
from starchat.recipe import Recipe
from starchat.schedule import plan_updates
from starchat.tokens import Tokens, load_tokens

MAX_PARAMETERS = 500_000_000
"""Of a model that is tried as it is on a CPU: some thirty passes over 200 tokens take it a minute on two cores."""

MEMORY_SHARE = 0.25
"""Of the free memory, what a model to be tried may take: it is made once more for the run itself."""

BYTES_PER_WEIGHT = 4
BYTES_PER_TRAINED_WEIGHT = 20
"""Gradients of two passes, two moments, and the weight as it was."""

SMALL_LAYERS = 2

MakeModel = Callable[[Recipe, Path, Tokens], Any]


def preflight(recipe: Recipe, make_model: MakeModel, progress: bool = True) -> tuple[Report, dict[str, list[Row]]]:
    """Return what all checks found, and the rows by split. `make_model` makes the model of a recipe from the base in a folder.

    Raises `UserError` where there is nothing to check. The model is not made if its files have a fault.
    """
    report, rows = check_recipe(recipe, progress)
    folder, engine = base_folder(recipe.model), asked_engine()
    tokens = load_tokens(start_folder(recipe.model), recipe.dialogue_template)
    groups = int(report.stats["packed_groups"])
    schedule = plan_updates(training_arguments(recipe), groups, engine.processes)
    findings = [*report.findings, *schedule_findings(schedule, sum(int(row.trained.sum()) for row in rows["train"]))]
    if not any(BY_NAME[f.check].group == "base model" and not f.ok for f in findings):
        with _on_meta(recipe, folder, tokens) as whole:
            size = count_parameters(whole)
        findings += disk_findings(Path(recipe.output), _disk_needed(recipe, size, schedule, engine.zero_stage))
        findings += _at_work(recipe, make_model, folder, tokens, rows["train"], size)
    return Report(merged(findings), report.stats | {"schedule": schedule.to_json()}), rows


def _disk_needed(recipe: Recipe, size: Size, schedule: Schedule, zero_stage: int) -> int:
    arguments = training_arguments(recipe)
    epochs = math.ceil(schedule.updates / schedule.updates_an_epoch)
    saves = planned_saves(arguments.save_strategy, arguments.save_steps, schedule.updates, epochs)
    return disk_needed_bytes(size.trained if recipe.lora else size.total, size.trained, zero_stage, saves, arguments.save_total_limit)


def _asked(recipe: Recipe) -> Asked:
    """Return what is asked for, without the arguments: while they live under ZeRO-3, transformers makes every model in pieces."""
    arguments = training_arguments(recipe)
    return Asked(arguments.learning_rate, bool(arguments.bf16), bool(arguments.activation_checkpointing))


def _at_work(recipe: Recipe, make_model: MakeModel, folder: Path, tokens: Tokens, rows: list[Row], size: Size) -> Iterator[Finding]:
    """Yield the findings on the model, tried as it is or in small."""
    with contextlib.ExitStack() as stack:
        note, asked = "", _asked(recipe)
        if recipe.of_pairs:
            recipe = dataclasses.replace(recipe, kind="sft", trainer={})
        if not _fits(size):
            recipe, folder, layers = _in_small(recipe, folder, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            note = f" (tried in small: {SMALL_LAYERS} of {layers} layers, random weights)"
        with torch.random.fork_rng(devices=[]):
            model = make_model(recipe, folder, tokens)
            if torch.cuda.is_available() and not recipe.quantization:
                model.to("cuda")
            model.config.use_cache = False
            for finding in probe_findings(model, tokens, rows, asked, recipe.packing):
                yield dataclasses.replace(finding, detail=finding.detail + note)


def _fits(size: Size) -> bool:
    """Whether a model can be tried as it is."""
    needed = size.total * BYTES_PER_WEIGHT + size.trained * BYTES_PER_TRAINED_WEIGHT
    if torch.cuda.is_available():
        return needed <= MEMORY_SHARE * torch.cuda.mem_get_info()[0]
    return size.total <= MAX_PARAMETERS and needed <= MEMORY_SHARE * psutil.virtual_memory().available


def _configuration(recipe: Recipe, folder: Path) -> Any:
    if recipe.architecture is not None:
        keys = dict(recipe.architecture)
        return AutoConfig.for_model(keys.pop("model_type"), **keys)
    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextlib.contextmanager
def _on_meta(recipe: Recipe, folder: Path, tokens: Tokens) -> Iterator[Any]:
    """Give the model of a recipe without its numbers, to count them."""
    config = _configuration(recipe, folder)
    if recipe.from_nothing:
        config.vocab_size = tokens.size
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        fit_vocabulary(model, tokens)
        yield add_lora(model, recipe.lora, tokens) if recipe.lora else model


def _in_small(recipe: Recipe, folder: Path, target: Path) -> tuple[Recipe, Path, int]:
    """Return recipe and base folder of the same model with few layers, and how many it has. Weights are written to `target`."""
    config = _configuration(recipe, folder)
    layers = int(config.num_hidden_layers)
    if recipe.architecture is not None:
        name = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
        return dataclasses.replace(recipe, architecture={**recipe.architecture, name: SMALL_LAYERS}), folder, layers
    config.num_hidden_layers = SMALL_LAYERS
    if isinstance(getattr(config, "layer_types", None), list):
        config.layer_types = config.layer_types[:SMALL_LAYERS]
    with torch.random.fork_rng(devices=[]):
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(target)
    return recipe, target, layers
