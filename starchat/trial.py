"""Two worst-case steps of a recipe, for real: what `starchat.plan` predicts, measured.

In: a recipe. Out: bytes at the peak. The model, the trainer, its loss, optimizer and checkpointing are those of
`starchat.train`; the rows are as long as the recipe allows, every token trained, and every micro-batch is full. Run it in
a fresh process: ``python -m starchat.trial RECIPE.yaml [key=value ...]`` prints one JSON object.

On a GPU the peak is that of the allocator. On a CPU it is what the model holds as the first step begins and, from then on, every
allocation and release that torch's profiler sees, those within operations included; the resident memory of the
process is printed beside it. Nothing is written but to a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from starchat.errors import UserError, guarded
from starchat.hub import base_folder, start_folder
from starchat.model import new_model
from starchat.pack import two_by_two
from starchat.recipe import Recipe, load_recipe
from starchat.rows import Encoded
from starchat.tokens import Tokens, load_tokens

ALLOWED = 0.10
"""How far a prediction may be off. The matrix of ``benchmarks/plan_accuracy.py`` is off by less."""

STEPS = 2
"""The optimizer's state exists from the first step's end on, so the second is the worst."""


def full_rows(recipe: Recipe, tokens: Tokens, groups: int) -> Encoded:
    """Return groups of two rows that together fill them: packed as in training, every token trained."""
    length = recipe.max_length_tokens
    ids = np.random.default_rng(0).integers(0, tokens.size, groups * length, dtype=np.int32)
    half = length // 2
    offsets = np.array([0, *(n * length + at for n in range(groups) for at in (half, length))], dtype=np.int64)
    return Encoded(ids, np.ones(len(ids), dtype=np.bool_), offsets, two_by_two(2 * groups), tuple(str(n) for n in range(2 * groups)))


def full_pairs(recipe: Recipe, tokens: Tokens, groups: int) -> Encoded:
    """Return pairs whose first rows are as long as the recipe allows and whose second are a token shorter, so that there is a mask.

    Every token but the first of a row is trained.
    """
    rows, length = 2 * groups, recipe.max_length_tokens
    offsets = np.array([0, *np.cumsum([length, length - 1] * groups)], dtype=np.int64)
    ids = np.random.default_rng(0).integers(0, tokens.size, offsets[-1], dtype=np.int32)
    trained = np.ones(len(ids), dtype=np.bool_)
    trained[offsets[:-1]] = False
    return Encoded(ids, trained, offsets, two_by_two(rows), tuple(str(n) for n in range(rows)))


def measure_steps(recipe: Recipe) -> dict[str, Any]:
    """Return the peak of two worst-case steps in bytes. Call it in a fresh process."""
    from starchat.arguments import training_arguments
    from starchat.train import make_model, make_trainer

    folder = base_folder(recipe.model)
    tokens = load_tokens(start_folder(recipe.model), recipe.dialogue_template)
    before = _resident_bytes()
    model = new_model(recipe, tokens) if recipe.from_nothing else make_model(recipe, folder, tokens)
    arguments = training_arguments(recipe)
    groups = STEPS * arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    rows = (full_pairs if recipe.of_pairs else full_rows)(recipe, tokens, groups)
    trainer = make_trainer(recipe, model, tokens, rows, "trial")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        trainer.train()
        peaks = {"peak_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved()}
        return {"device": torch.cuda.get_device_name(), **peaks}
    held = _held_bytes(model) + (_held_bytes(trainer.ref_model) if getattr(trainer, "ref_model", None) is not None else 0)
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        trainer.train()
    return {
        "device": "cpu",
        "peak_bytes": held + _highest(profile),
        "held_bytes": held,
        "resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
    }


def compare(recipe: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return predicted and measured peak of a recipe on this machine; ``ok`` if they differ by `ALLOWED` at most."""
    from starchat.predict import predict_here

    predicted = predict_here(load_recipe(recipe, overrides))
    command = [sys.executable, "-m", "starchat.trial", str(recipe), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        what = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise UserError(f"{recipe}: two steps could not be taken on this machine: {what[0].removeprefix('starchat: ')}")
    measured = dict(json.loads(done.stdout))
    ratio = sum(predicted.values()) / measured["peak_bytes"]
    predicted = {**predicted, "peak_bytes": sum(predicted.values())}
    return {"ok": abs(ratio - 1) <= ALLOWED, "predicted": predicted, "measured": measured, "ratio": ratio}


def render_comparison(found: Mapping[str, Any]) -> str:
    """Return a comparison as text."""
    predicted, measured = dict(found["predicted"]), found["measured"]
    total = predicted.pop("peak_bytes")
    parts = ", ".join(f"{kind} {size / 1e6:,.0f}" for kind, size in predicted.items())
    others = ", ".join(f"{name.removesuffix('_bytes')} {size / 1e6:,.0f} MB" for name, size in measured.items() if name.endswith("_bytes"))
    verdict = "within" if found["ok"] else "BEYOND"
    return (
        f"predicted {total / 1e6:,.0f} MB ({parts})\nmeasured on {measured['device']}: {others}\n"
        f"predicted / measured {found['ratio']:.3f}, {verdict} {ALLOWED:.0%}"
    )


def write_random_base(folder: Path, target: Path) -> Path:
    """Write a model of a folder's configuration with random weights beside its tokenizer; its steps take the same memory."""
    config = AutoConfig.from_pretrained(folder)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(target)
    for path in folder.iterdir():
        if path.suffix in (".json", ".jinja") and not (target / path.name).exists():
            shutil.copy(path, target)
    return target


def _held_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers, each storage once, and of what 4-bit weights keep beside them."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            parts = (state.absmax, state.code, state.offset, *((state.state2.absmax, state.state2.code) if state.nested else ()))
            tensors += [part for part in parts if part is not None]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _highest(profile: Any) -> int:
    """Return the highest sum of allocations less releases, in the order of time."""
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    changes = np.array([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())], dtype=np.int64)
    return int(np.cumsum(changes).max(initial=0))


def _resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split() if sys.platform.startswith("linux") else ["0", "0"]
    return int(fields[1]) * resource.getpagesize()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure a recipe and print the result as JSON."""
    parser = argparse.ArgumentParser(prog="starchat.trial", description="Measure two worst-case steps of a recipe.")
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(argv)

    def work() -> int:
        recipe = load_recipe(options.recipe, options.overrides)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            base = base_folder(recipe.model)
            if not recipe.from_nothing and not any(base.glob("*.safetensors")):
                recipe = dataclasses.replace(recipe, model=str(write_random_base(base, Path(folder) / "base")))
            settings = {"max_steps": STEPS, "save_strategy": "no", "report_to": "none"}
            trial = dataclasses.replace(recipe, output=f"{folder}/run", trainer={**recipe.trainer, **settings})
            found = measure_steps(trial)
        print(json.dumps(found))
        return 0

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
