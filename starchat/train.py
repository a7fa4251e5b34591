"""The training run: a checked recipe to a verified model, through TRL's ``SFTTrainer``, or for pairs its ``DPOTrainer``.

In: a recipe. Out: the run folder (see `starchat.export`), its ``manifest.json`` last.

    starchat train RECIPE.yaml [key=value ...]
    accelerate launch --config_file recipes/accelerate/zero3.yaml -m starchat.train RECIPE.yaml [key=value ...]

The first process checks and encodes while the others wait for its word (`starchat.lead`). Every process then
runs the same linear story: model, trainer, engine check, steps, golden logits, save. The first process ends with the
reload gate in a fresh process: a run that fails it is not finished. A run that was stopped, by whatever, goes on from its newest
whole checkpoint when the same command is given again (`starchat.resume`).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from trl import DPOConfig, SFTConfig

from starchat import export
from starchat.arguments import require_arguments, training_arguments
from starchat.checkpoint import disk_needed_bytes, planned_saves, require_room
from starchat.collate import Collator
from starchat.dpo import PairCollator, PairTrainer, begin_model, reference_of
from starchat.engine import EngineProof, asked_engine, check_launch, configure_engine, require_engine, start_engine
from starchat.errors import UserError, guarded
from starchat.files import BEGUN, MANIFEST, alone_in, already_finished, digest_json, read_manifest, sweep, write_json, write_text
from starchat.fim import find_fim_tokens
from starchat.first_loss import FirstLoss, first_samples
from starchat.hub import base_folder, require_loadable, start_folder
from starchat.infill import InfillProbe, held_out_spans
from starchat.kernel_cache import free_left_locks
from starchat.lead import first_decides, noticing_the_lost
from starchat.loss import trainer_class
from starchat.metrics import MetricsLog, seconds_so_far
from starchat.model import add_lora, count_parameters, fit_vocabulary, load_base, new_model, train_in_float32
from starchat.muon import muon
from starchat.preflight import preflight
from starchat.recipe import Recipe, load_recipe
from starchat.resume import RESUMED, go_on, identity_of, record_begin, run_parts, unfinished
from starchat.rows import Encoded, encoded_digest, read_encoded, read_records, wait_for, write_encoded
from starchat.schedule import KeepsToSchedule
from starchat.stop_and_go import StopOnSignal, launch_of, stop_and_go
from starchat.telemetry import telling
from starchat.tokens import Tokens, load_tokens
from starchat.watch import Watch
from starchat.xray import render_text, write_html

STAGE = "train"


def train(recipe_path: str | Path, overrides: Sequence[str] = (), overwrite: bool = False) -> dict[str, Any]:
    """Run a recipe; return ``{"folder", "ok", ...}``. In other processes than the first, ``{}``.

    Raises `UserError` for what the user must change. ``ok`` is false if the checks before or the reload gate after found a fault.
    """
    recipe = load_recipe(recipe_path, overrides)
    run = Path(recipe.output)
    first = int(os.environ.get("RANK", "0")) == 0
    require_engine(recipe)
    require_arguments(recipe)
    if asked_engine().zero_stage:
        free_left_locks()
    check_launch(training_arguments(recipe))
    with alone_in(run) if first else contextlib.nullcontext():
        return _train(recipe, run, first, overwrite)


def _train(recipe: Recipe, run: Path, first: bool, overwrite: bool) -> dict[str, Any]:
    folder = base_folder(recipe.model)
    tokens = load_tokens(start_folder(recipe.model), recipe.dialogue_template)
    parts = run_parts(recipe, folder)
    digest = digest_json(list(parts.values()))
    encoded_folder = run / f"encoded-{encoded_digest(recipe, tokens)}"
    begun = {**parts, "rows": encoded_folder.name}
    if not first and (read_manifest(run) or {}).get("digest") == digest:
        return {}

    def begin() -> dict[str, Any]:
        """Return the checkpoint to start from, None for none; or the result, if there is nothing to train."""
        again = not overwrite and unfinished(run, begun)
        if not again and already_finished(run, STAGE, digest, overwrite):
            return {"result": {**(read_manifest(run) or {}), "folder": str(run), "ok": True, "skipped": True}}
        if not recipe.from_nothing:
            require_loadable(folder)
        checkpoint = _go_on(recipe, run, encoded_folder, begun) if again else None
        if checkpoint is None and not _begin(recipe, run, encoded_folder, tokens, begun, again):
            return {"result": {"folder": str(run), "ok": False}}
        return {"checkpoint": checkpoint}

    start = first_decides(begin)
    if "result" in start:
        return start["result"] if first else {}
    wait_for(encoded_folder)
    model = make_model(recipe, folder, tokens)
    rows = read_encoded(encoded_folder, "train")
    _require_room(recipe, run, model, len(rows.groups))
    trainer, stop = make_trainer(recipe, model, tokens, rows, identity_of(begun)), StopOnSignal()
    trainer.add_callback(stop)
    before, started = seconds_so_far(run), time.monotonic()
    try:
        with noticing_the_lost():
            with stop.listening():
                trainer.train(resume_from_checkpoint=start["checkpoint"])
            outcome = export.save_run(run, recipe, trainer, tokens, before + time.monotonic() - started)
    except SafetensorError as error:  # how safetensors says that a disk is full; no OSError
        raise UserError(f"{run}: weights could not be written ({error}); free some space, or choose an output elsewhere") from None
    if not first:
        return {}
    return export.finish_run(run, recipe, digest, outcome)


def _go_on(recipe: Recipe, run: Path, encoded_folder: Path, begun: dict[str, Any]) -> str | None:
    """Make an unfinished run's folder ready and return the checkpoint to start from; None if it has none, and begins again."""
    sweep(run)
    if not encoded_folder.is_dir():
        return None
    arguments = training_arguments(recipe)
    groups = even_groups(len(read_encoded(encoded_folder, "train").groups), arguments)
    found = go_on(run, identity_of(begun), launch_of(arguments, groups))
    if found is None:
        return None
    record_begin(run, begun)
    export.write_recipe(run, recipe)
    return str(found.path)


def _begin(recipe: Recipe, run: Path, encoded_folder: Path, tokens: Tokens, begun: dict[str, Any], again: bool) -> bool:
    """Check the recipe, and write recipe, report and, if it holds, encoded rows into a clean run folder; return whether it holds.

    A finished run is replaced only by one that may begin. At every moment of it, the folder says whose it is. `again` if it is the
    same run, which was stopped before it had a checkpoint.
    """
    report, rows = preflight(recipe, make_model)
    print(render_text(report), file=sys.stderr)
    if not report.ok and read_manifest(run) is not None:
        print(f"{run}: the finished run in it was not replaced", file=sys.stderr)
        return False
    run.mkdir(parents=True, exist_ok=True)
    keep = {encoded_folder.name, BEGUN, *([RESUMED] if again else [])}
    if report.ok:
        (run / MANIFEST).unlink(missing_ok=True)
        record_begin(run, begun)
    for entry in run.iterdir():
        if entry.name not in keep or not report.ok:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    export.write_recipe(run, recipe)
    write_json(run / "check.json", report.to_json())
    write_html(run / "check.html", report, rows["train"], tokens)
    if not report.ok:
        write_text(run / "FAILED", "starchat check found a fault; nothing was trained. See check.json and check.html.\n")
        return False
    if not encoded_folder.is_dir():
        write_encoded(encoded_folder, recipe, rows)
    return True


def run_digest(recipe: Recipe, folder: Path) -> str:
    """Return the digest of everything that a run depends on."""
    return digest_json(list(run_parts(recipe, folder).values()))


def make_model(recipe: Recipe, folder: Path, tokens: Tokens) -> Any:
    """Return the model to train. Made before any DeepSpeed configuration exists, so no layer is met in pieces:
    growing the vocabulary and PEFT's token rows both fail on weights that ZeRO-3 has already partitioned.

    Weights that are trained are held in float32; those that LoRA leaves as they are, in bfloat16 if the run computes in it.
    """
    if recipe.from_nothing:
        return new_model(recipe, tokens)
    dtype = torch.bfloat16 if recipe.lora is not None and training_arguments(recipe).bf16 else torch.float32
    if recipe.of_pairs:
        return begin_model(recipe, tokens, dtype)
    model = load_base(folder, dtype, quantization=recipe.quantization)
    fit_vocabulary(model, tokens)
    torch.manual_seed(int(recipe.trainer.get("seed", 42)))  # half of LoRA's matrices begin at random, before the trainer sets its seed
    return add_lora(model, recipe.lora, tokens) if recipe.lora else model


def make_trainer(recipe: Recipe, model: Any, tokens: Tokens, rows: Encoded, identity: str) -> Any:
    """Return TRL's trainer over encoded rows, on the engine that the launch asked for; `identity` is the run's, for its checkpoints."""
    model.config.use_cache = False
    reference = {"ref_model": reference_of(recipe, tokens)} if recipe.of_pairs else {}  # before there are arguments, see `make_model`
    arguments, engine = training_arguments(recipe), asked_engine()
    configure_engine(arguments, Path(recipe.output))
    proof, watch = EngineProof(), Watch(gradients=not engine.zero_stage and not engine.fsdp)
    padded = recipe.max_length_tokens if arguments.torch_compile else None
    kind: Any
    collator: PairCollator | Collator
    if isinstance(arguments, DPOConfig):
        kind, collator = PairTrainer, PairCollator(rows, tokens.pad_id, padded)
    else:
        kind = trainer_class(arguments, engine.sharded, recipe.lora is not None and bool(tokens.new))
        collator = Collator(rows, tokens.pad_id, padded)
    kind = stop_and_go(telling(kind), identity, arguments)
    trainer = kind(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=Dataset.from_dict({"group": list(range(even_groups(len(rows.groups), arguments)))}),
        processing_class=export.transformers_tokenizer(tokens, recipe),
        callbacks=[proof, MetricsLog(Path(recipe.output)), watch, *_probes(recipe, tokens)],
        optimizers=(muon(model, arguments) if recipe.optimizer == "muon" else None, None),
        **reference,
    )
    proof.trainer = trainer
    train_in_float32(model)
    if not recipe.of_pairs:  # there, the first rewards are zero: `starchat.dpo`
        trainer.add_callback(FirstLoss(trainer, first_samples(rows), tokens.pad_id, recipe.packing))
    trainer.add_callback(KeepsToSchedule())
    start_engine(trainer)
    return trainer


def _require_room(recipe: Recipe, run: Path, model: Any, groups: int) -> None:
    """Raise `UserError` if the disk cannot hold the checkpoints and the result. In every process, so that all end alike."""
    arguments, size = training_arguments(recipe), count_parameters(model)
    steps = arguments.max_steps
    if steps <= 0:
        together = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        steps = math.ceil(arguments.num_train_epochs * -(-groups // together))
    weights = size.trained if recipe.lora else size.total
    saves = planned_saves(arguments.save_strategy, arguments.save_steps, steps, math.ceil(arguments.num_train_epochs))
    require_room(run, disk_needed_bytes(weights, size.trained, asked_engine().zero_stage, saves, arguments.save_total_limit))


def _probes(recipe: Recipe, tokens: Tokens) -> list[InfillProbe]:
    """Return the infilling probe, unless there is no base model whose infilling could be lost."""
    if recipe.from_nothing or find_fim_tokens(tokens.control) is None:
        return []
    spans = held_out_spans(read_records(recipe.dataset, "test"))
    return [InfillProbe(Path(recipe.output), tokens, spans)] if spans else []


def even_groups(groups: int, arguments: SFTConfig | DPOConfig) -> int:
    """Return the number of groups, empty ones included, that makes an epoch a whole number of updates.

    It depends on the size of an update alone, so the order of groups is the same on every engine, and however an update is divided into
    micro-batches.
    """
    together = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return -(-groups // together) * together


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m starchat.train``; the form that ``accelerate launch`` starts."""
    parser = argparse.ArgumentParser(prog="starchat.train", description="Train a recipe in every process of a launch.")
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_intermixed_args(argv)

    def work() -> int:
        with contextlib.redirect_stdout(sys.stderr):
            result = train(options.recipe, options.overrides, options.overwrite)
        if result.get("folder"):
            print(result["folder"])
        return 0 if result.get("ok", True) else 1

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
