"""The whole road on the embedded base model: what ``make demo`` runs.

In: nothing but the package. Out: a folder with the dataset, the run and ``quickstart.json``: loss on held-out answers and
stop rate, of the base and of the fine-tuned model, with intervals.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from data_prep.prepare import prepare, summary
from starchat.dialogue import Record
from starchat.files import already_finished, read_manifest, write_json
from starchat.generate import Assistant
from starchat.hub import resolve_model
from starchat.infill import read_infilling
from starchat.launch import launch_training, recipes_folder
from starchat.model import fit_vocabulary, load_base
from starchat.recipe import load_recipe
from starchat.rows import read_records
from starchat.score import AnswerLoss, Interval, answer_loss, paired_difference, stop_rate
from starchat.template import find_template
from starchat.tokens import load_tokens


def quickstart(folder: Path, overwrite: bool = False) -> dict[str, Any]:
    """Prepare, train through ``accelerate launch``, verify, and score base against fine-tuned; return the numbers."""
    started = time.monotonic()
    dataset, run, recipes = folder / "dataset", folder / "run", recipes_folder()
    if overwrite:
        for part, stage in ((dataset, "prepare"), (run, "train")):
            already_finished(part, stage, "", overwrite)  # raises if it holds anything but an earlier result
            shutil.rmtree(part, ignore_errors=True)
    _say(f"1. prepare: dialogues into {dataset}")
    _say(summary(prepare(recipes / "nano" / "data.yaml", [f"output={dataset}"], progress=False)))
    _say("2. check, 3. train, 4. verify: LoRA on the embedded base, through accelerate launch")
    overrides = [f"dataset={dataset}", f"output={run}"]
    status = launch_training(recipes / "accelerate" / "cpu.yaml", recipes / "nano" / "lora.yaml", overrides, os.environ)
    manifest = read_manifest(run)
    if status or manifest is None:
        return {"ok": False, "table": f"training ended with status {status}; see {run}", "run": str(run)}
    _say("5. score: base against fine-tuned, on held-out dialogues")
    result = _scores(run, list(read_records(str(dataset), "test")))
    result |= {"ok": True, "run": str(run), "seconds": round(time.monotonic() - started, 1)}
    write_json(folder / "quickstart.json", result)
    return result


def _scores(run: Path, records: list[Record]) -> dict[str, Any]:
    from starchat.export import load_run

    recipe = load_recipe(run / "recipe.yaml")
    base_folder = resolve_model(recipe.model)
    base_tokens = load_tokens(base_folder, find_template(recipe.template))
    base = load_base(base_folder, torch.float32).eval()
    fit_vocabulary(base, base_tokens)
    tuned, tokens = load_run(run)
    before = answer_loss(base, base_tokens, records, recipe.max_length_tokens)
    after = answer_loss(tuned, tokens, records, recipe.max_length_tokens)
    stops = [stop_rate(Assistant(model, tokens, "scored"), records) for model in (base, tuned)]
    infilling = read_infilling(run)
    return {
        "held_out_dialogues": len(records),
        "answer_loss": {"base": _plain(before.interval()), "fine_tuned": _plain(after.interval())},
        "answer_loss_change": _plain(paired_difference(before, after)),
        "stop_rate": {"base": _plain(stops[0]), "fine_tuned": _plain(stops[1])},
        "infilling": infilling,
        "table": _table(before, after, stops, infilling, len(records)),
    }


def _table(before: AnswerLoss, after: AnswerLoss, stops: list[Interval], infilling: dict[str, Any], dialogues: int) -> str:
    rows = [
        ("", "base", "fine-tuned"),
        ("loss on answers, nats per token", str(before.interval()), str(after.interval())),
        ("replies that stop", str(stops[0]), str(stops[1])),
    ]
    if {"before", "after"} <= set(infilling):
        untrained, trained = (str(Interval(**infilling[when]["loss"])) for when in ("before", "after"))
        rows.append(("loss on infilled code", untrained, trained))
    lines = [f"{name:34} {base:26} {tuned:26}".rstrip() for name, base, tuned in rows]
    change = f"paired change of the loss: {paired_difference(before, after)}"
    return "\n".join([f"{dialogues} held-out dialogues, 95 % intervals", *lines, change])


def _plain(interval: Interval) -> dict[str, float]:
    return {key: round(value, 4) for key, value in dataclasses.asdict(interval).items()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
