"""The matrix family x method x engine: does every cell make the update of one process, and is what it saves what it trained?

    python benchmarks/parity.py                                                   # everything; 40 minutes on two cores
    python benchmarks/parity.py --families starcoder --engines ddp,zero3 --methods lora
    python benchmarks/parity.py --render docs/parity.md                           # the table of all results so far

In: nothing; tiny random bases of every family (tests/families.py) and small datasets are made in ``--folder``. Out: one line a cell in
``FOLDER/results``, which later calls add to; with ``--render`` the table. Exit status 1 if a cell of this call fails.

A cell is one run of `starchat.train.train`, the whole of it but its gate. It is compared with the run of one process on the same global
batch: the loss of each of four steps, and the weights that were saved, as a share of how far training moved them (law 6). This process,
which never saw the model, then loads what was saved and runs the reload gate (law 7), merges adapters (law 7), and compares packed rows
with lone ones (law 4). All cells of an engine run in one launch, since importing the libraries takes longer than a cell.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]  # the tests' tiny bases and datasets are this benchmark's too

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
from parity_table import ENGINES, render  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from families import FAMILIES, write_family  # noqa: E402
from runs import prepare_dialogues, prepare_documents, read_lines, write_recipe  # noqa: E402
from starchat import export  # noqa: E402
from starchat import merge as merging  # noqa: E402
from starchat.collate import batch_tensors  # noqa: E402
from starchat.errors import UserError  # noqa: E402
from starchat.export import saved_tokens  # noqa: E402
from starchat.hub import resolve_model  # noqa: E402
from starchat.model import load_saved  # noqa: E402
from starchat.recipe import load_recipe  # noqa: E402
from starchat.rows import read_encoded  # noqa: E402
from starchat.tokens import load_tokens  # noqa: E402
from starchat.train import make_model, train  # noqa: E402
from starchat.verify import verify  # noqa: E402

LORA = {"r": 4, "alpha": 8}
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": LORA},
    "rslora": {"lora": {**LORA, "rslora": True}},
    "dora": {"lora": {**LORA, "dora": True}},
    "qlora": {"lora": LORA, "quantization": "nf4"},
    "cpt": {"kind": "cpt", "fim": {"rate": 0.5}},
}
"""What differs in the recipe. A kind of training is one line here."""

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": True},
    "checkpointing": {"gradient_checkpointing": True},
}
STEPS = {"max_steps": 4, "adam_epsilon": 1e-4}
"""Epsilon stands above the rounding of gradients that are zero in theory: Adam would turn their noise into whole steps."""

LENGTH = 165
MOST = {"fp32": (1e-4, 2e-3), "checkpointing": (1e-4, 2e-3), "bf16": (3e-2, 0.5)}
"""How far (losses, update) may be off, as shares of themselves. In bfloat16 DeepSpeed holds the weights in it and the others autocast, so
there a step differs in its third digit; a missing or a doubled gradient would move the update by 1."""

MOST_OF_EXPERTS = (2e-3, 2e-2)
"""The same where experts are balanced: that part of the loss is measured in each micro-batch and is no sum over them, so one process with
two rows at once and two processes with one each differ in it. Seen: losses by 3e-4, updates by 3e-3."""

MOST_PACKED = 1e-3
PATIENCE_S = 170


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cells that are asked for, or render what was found."""
    parser = argparse.ArgumentParser(description="The parity matrix: family x method x engine.")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--variants", default="fp32", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--folder", type=Path, default=Path("parity"))
    parser.add_argument("--render", type=Path, help="write the table of all results here, and run nothing")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        return work(options.worker)
    if options.render:
        options.render.write_text(render(read_results(options.folder), list(FAMILIES), list(METHODS), STEPS["max_steps"]), encoding="utf-8")
        return 0
    asked = {name: getattr(options, name).split(",") for name in ("families", "methods", "engines", "variants")}
    unknown = [w for name, known in zip(asked, (FAMILIES, METHODS, ENGINES, VARIANTS), strict=True) for w in asked[name] if w not in known]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    cells = [f"{f}/{m}/{v}" for v in asked["variants"] for f in asked["families"] for m in asked["methods"]]
    prepare(options.folder, asked["families"])
    engines = ["one", *(engine for engine in ENGINES if engine in asked["engines"] and engine != "one")]
    bad = sum(run_engine(options.folder, engine, cells) for engine in engines)
    print(f"{bad} cells failed")
    return 1 if bad else 0


def prepare(folder: Path, families: Sequence[str]) -> None:
    """Make bases and datasets, once."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dataset" / "manifest.json").is_file():
        prepare_dialogues(folder)
    if not (folder / "documents" / "manifest.json").is_file():
        prepare_documents(folder)
        without_markers(folder / "documents", folder / "plain")
    for name in families:
        base = folder / "bases" / name
        if not base.is_dir():
            write_family(base, name)


def without_markers(documents: Path, target: Path) -> None:
    """Write the same documents as text alone, for tokenizers that lack StarCoder's markers."""
    shutil.copytree(documents, target)
    for path in target.glob("*.parquet"):
        table = pq.read_table(path)
        rows = [{**row, "document": [part for part in row["document"] if not part["marker"]]} for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def dataset_of(folder: Path, family: str, keys: dict[str, Any]) -> Path:
    """Return what a cell trains on."""
    if keys.get("kind") != "cpt":
        return folder / "dataset"
    marked = "<filename>" in (folder / "bases" / family / "tokenizer.json").read_text(encoding="utf-8")
    return folder / ("documents" if marked else "plain")


def run_engine(folder: Path, engine: str, cells: Sequence[str]) -> int:
    """Run cells on an engine and judge them; return how many failed. What ``one`` has done before is not done again."""
    results = read_results(folder)
    waiting = [cell for cell in cells if not (engine == "one" and results.get(f"{cell}/one", {}).get("status") == "ok")]
    waiting = [cell for cell in waiting if engine == "one" or results.get(f"{cell}/one", {}).get("status") == "ok"]
    for cell in waiting:  # a finished run of the same recipe would be taken as it is, also where the code has changed since
        shutil.rmtree(run_folder(folder, cell, engine), ignore_errors=True)
    started = time.monotonic()
    for cell, outcome in (run_here if engine in ("one", "accumulated") else run_launched)(folder, engine, waiting):
        try:
            found = outcome if outcome["status"] != "ok" else judge(folder, cell, engine)
        except UserError as error:
            found = {"status": "failed", "reason": str(error)}
        results[f"{cell}/{engine}"] = found
        print(f"{cell:36} {engine:14} {describe(found)}", flush=True)
        write_results(folder, engine, results)
    print(f"{engine}: {len(waiting)} cells in {time.monotonic() - started:.0f} s", flush=True)
    return sum(results[f"{cell}/{engine}"]["status"] == "failed" for cell in waiting)


def run_here(folder: Path, engine: str, cells: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run cells in this process."""
    for cell in cells:
        yield cell, run_cell(folder, cell, engine)


def run_launched(folder: Path, engine: str, cells: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run cells in as few launches of two processes as their faults allow; each is given as soon as it has ended."""
    waiting = list(cells)
    while waiting:
        ended: list[dict[str, Any]] = []
        task, done = folder / f"{engine}.task.json", folder / f"{engine}.done.jsonl"
        done.write_text("", encoding="utf-8")
        task.write_text(json.dumps({"folder": str(folder), "engine": engine, "cells": waiting, "done": str(done)}), encoding="utf-8")
        with open(task.with_suffix(".log"), "w", encoding="utf-8") as log, launch(engine, task, log) as process:
            try:
                last = time.monotonic()
                running = True
                while running:
                    running = process.poll() is None and time.monotonic() - last < PATIENCE_S
                    for line in done.read_text(encoding="utf-8").splitlines()[len(ended) :]:
                        ended.append(json.loads(line))
                        yield ended[-1]["cell"], ended[-1]["outcome"]
                        last = time.monotonic()
                    time.sleep(0.2)
            finally:
                process.terminate()
        waiting = waiting[len(ended) :]
        if waiting and not (
            ended and ended[-1]["outcome"]["status"] == "failed"
        ):  # died, or fell silent, without a word in the first that waits
            text = task.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
            last_error = [line for line in text.splitlines() if "Error" in line][-1:] or [
                f"silent for {PATIENCE_S} s, or ended without a word"
            ]
            yield waiting[0], {"status": "failed", "reason": last_error[0][-300:]}
            waiting = waiting[1:]


def launch(engine: str, task: Path, log: Any) -> subprocess.Popen[bytes]:
    """Start two processes on a task."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes" / "accelerate" / f"{engine}.yaml")]
    command += ["--num_processes", "2", "--main_process_port", str(port), str(Path(__file__).resolve()), "--worker", str(task)]
    return subprocess.Popen(command, stdout=log, stderr=log)


def work(task: Path) -> int:
    """Run a task's cells in this process of a launch. A refusal is every process's; any other fault ends the launch."""
    import faulthandler

    faulthandler.dump_traceback_later(PATIENCE_S - 30, exit=False)
    asked = json.loads(task.read_text(encoding="utf-8"))
    folder, first = Path(asked["folder"]), os.environ.get("RANK", "0") == "0"
    keep_process_group()
    for number, cell in enumerate(asked["cells"]):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)  # to the processes, each cell is a launch of its own
        try:
            outcome = run_cell(folder, cell, asked["engine"])
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError, NotImplementedError) as error:
            outcome = {"status": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            if first:
                with open(asked["done"], "a", encoding="utf-8") as done:
                    done.write(json.dumps({"cell": cell, "outcome": outcome}) + "\n")
            raise
        if first:
            with open(asked["done"], "a", encoding="utf-8") as done:
                done.write(json.dumps({"cell": cell, "outcome": outcome}) + "\n")
        faulthandler.dump_traceback_later(PATIENCE_S - 30, exit=False)
        forget_the_last_trainer()
    return 0


def keep_process_group() -> None:
    """Let the end of a run leave the process group to the next."""
    from accelerate.state import PartialState

    PartialState.destroy_process_group = lambda self, group=None: None


def forget_the_last_trainer() -> None:
    """Put the libraries back to where a new process begins."""
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    unset_hf_deepspeed_config()


def run_cell(folder: Path, cell: str, engine: str) -> dict[str, Any]:
    """Train a cell; return ``{status, reason}``. Its gate is left to `judge`."""
    family, method, variant = cell.split("/")
    run = run_folder(folder, cell, engine)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    keys = dict(METHODS[method])
    dataset = dataset_of(folder, family, keys)
    batch = {"per_device_train_batch_size": 1 if engine == "accumulated" else 2 // processes}
    trainer = {**STEPS, **VARIANTS[variant], **batch}
    name = run.with_name(f"{run.name}.{os.environ.get('RANK', '0')}.yaml")
    run.parent.mkdir(parents=True, exist_ok=True)
    write_recipe(name, folder / "bases" / family, dataset, run, max_length_tokens=LENGTH, train_batch_size=2, trainer=trainer, **keys)
    export.verify_in_fresh_process = lambda _: {"ok": True, "findings": []}
    try:
        held = train(name, overwrite=True).get("ok", True)  # in other processes than the first it says nothing
    except UserError as error:
        return {"status": "refused", "reason": str(error)}
    return {"status": "ok", "reason": ""} if held else {"status": "failed", "reason": "starchat check found a fault"}


def run_folder(folder: Path, cell: str, engine: str) -> Path:
    return folder / "runs" / engine / cell.replace("/", "-")


def judge(folder: Path, cell: str, engine: str) -> dict[str, Any]:
    """Return what a finished cell is: its differences, and whether they are allowed."""
    run, reference = run_folder(folder, cell, engine), run_folder(folder, cell, "one")
    recipe = load_recipe(run / "recipe.yaml")
    family, _, variant = cell.split("/")
    most_loss, most_update = max(MOST[variant], MOST_OF_EXPERTS) if "num_experts" in FAMILIES[family].config else MOST[variant]
    faults = []
    found: dict[str, Any] = {}
    if engine != "one":
        found["loss"] = largest_loss_difference(reference, run)
        found["update"] = update_difference(reference, run)
        faults += [name for name, most in (("loss", most_loss), ("update", most_update)) if not found[name] <= most]
    gate = verify(run)
    found["reload"] = gate["max_logit_difference"]
    faults += [f"reload gate: {f['check']}: {f['detail']}" for f in gate["findings"] if not f["ok"]]
    if engine == "one":
        found["packed"] = packed_difference(run)
        faults += ["packed"] if found["packed"] > MOST_PACKED else []
    if recipe.lora:
        merged = merge_here(run, run.with_name(f"{run.name}-merged"))
        found["merge"] = merged["divergences"][0]["max_logit_difference"]
        faults += [f"merge: {f['check']}: {f['detail']}" for f in merged["findings"] if not f["ok"]]
    if engine != "one":
        shutil.rmtree(run)
    return {"status": "failed" if faults else "ok", "reason": "; ".join(faults), **found}


def largest_loss_difference(reference: Path, run: Path) -> float:
    """Return the largest difference of a step's loss, as a share of it."""
    losses = [[line["loss"] for line in read_lines(one)] for one in (reference, run)]
    return max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))


def update_difference(reference: Path, run: Path) -> float:
    """Return how far the saved weights are apart, as a share of how far training moved those of one process."""
    before, one, other = initial_weights(reference), saved_weights(reference), saved_weights(run)
    if one.keys() != other.keys():
        return float("inf")
    apart = sum(float((other[name].float() - one[name].float()).square().sum()) for name in one)
    moved = sum(float((one[name].float() - before[name].float()).square().sum()) for name in one)
    return float((apart / moved) ** 0.5)


def saved_weights(run: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in sorted(run.glob("*/*model.safetensors")) for name, value in load_file(path).items()}


def initial_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a run began with, under the names under which it saved them."""
    folder = run / "initial"
    if not folder.is_dir():
        recipe = load_recipe(run / "recipe.yaml")
        base = resolve_model(recipe.model)
        model = make_model(recipe, base, load_tokens(base, recipe.dialogue_template))
        model.save_pretrained(folder / "weights", **({"save_embedding_layers": False} if recipe.lora else {}))
    return saved_weights(folder)


def packed_difference(run: Path) -> float:
    """Return how far the trained model's logits of packed rows are from those of each row alone, as a share of the largest."""
    recipe = load_recipe(run / "recipe.yaml")
    tokens = saved_tokens(run, recipe)
    model = load_saved(run, recipe, tokens, torch.float32)
    encoded = read_encoded(next(run.glob("encoded-*")), "train")
    group = max(encoded.groups, key=len)
    rows = [encoded.row(number) for number in group]

    def logits(*some: Any) -> torch.Tensor:
        length = sum(len(ids) for ids, _ in some)
        tensors = batch_tensors([some], tokens.pad_id, length)
        inputs = {name: tensors[name] for name in ("input_ids", "position_ids")}
        with torch.no_grad():
            return torch.as_tensor(model(**inputs, use_cache=False).logits[0].float())

    packed, alone = logits(*rows), torch.cat([logits(row) for row in rows])
    return float((packed - alone).abs().max() / alone.abs().max())


def merge_here(run: Path, output: Path) -> dict[str, Any]:
    """Merge; the folder is proved in this process, which did not train it."""

    def proved(draft: Path, proof: Path, cases: Any, logits: Any) -> Any:
        save_file({f"logits_{n}": value for n, value in enumerate(logits)}, proof / "golden.safetensors")
        (proof / "golden.json").write_text(json.dumps({"cases": cases}), encoding="utf-8")
        return merging.prove(draft, proof)

    merging._proved_in_fresh_process = proved
    result = merging.merge(run, output, "float32")
    shutil.rmtree(output, ignore_errors=True)
    return result


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of each ``family/method/variant/engine``."""
    return {key: found for path in sorted((folder / "results").glob("*.json")) for key, found in json.loads(path.read_text()).items()}


def write_results(folder: Path, engine: str, results: dict[str, dict[str, Any]]) -> None:
    """Write the results of an engine; each has a file, so that engines may run beside each other."""
    (folder / "results").mkdir(exist_ok=True)
    own = {key: found for key, found in results.items() if key.endswith(f"/{engine}")}
    (folder / "results" / f"{engine}.json").write_text(json.dumps(own, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def describe(found: dict[str, Any]) -> str:
    numbers = [f"{name} {found[name]:.1e}" for name in ("loss", "update", "reload", "packed", "merge") if found.get(name) is not None]
    return " ".join(part for part in (found["status"], *numbers, found["reason"]) if part)


if __name__ == "__main__":
    sys.exit(main())
