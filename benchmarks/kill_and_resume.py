"""Kill a training run at random moments, start it again until it is finished, and compare it with one that was never stopped.

    python benchmarks/kill_and_resume.py --engine one --kills 20 --log kill-one.log
    python benchmarks/kill_and_resume.py --engine zero3 --kills 20 --log kill-zero3.log --folder /tmp/zero3

A small random model with dropout is trained with all its weights on embedded dialogues; one step in eight writes a checkpoint.
SIGKILL goes to every process of the launch at once. A fifth of the moments lie before the first step of a life, a sixth behind the last,
in saving and the reload gate, the others within steps and the writing of checkpoints. After `--kills-a-run` kills a run is left to
finish, and the next begins. Wanted: no group of examples repeated or left out by any process, the same log and the same weights, bit
for bit. What the processes were given is noted where batches are made (`--worker`), outside the run's folder. With `--folder` the work
can be spread over several calls: the run that is never stopped is made once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from starchat.checkpoint import MARK, checkpoint_folders
from starchat.files import read_manifest
from starchat.hub import resolve_model
from starchat.launch import recipes_folder
from starchat.metrics import read_metrics
from starchat.resume import read_resumed
from starchat.rows import read_encoded

PROCESSES = {"one": 1, "ddp": 2, "zero1": 2, "zero2": 2, "zero3": 2, "fsdp2": 2}
BEFORE_FIRST_STEP, BEHIND_LAST_STEP = 0.2, 0.15
POLL_S = 0.01
ONE_STEP_S = 0.3
"""A step and, behind each eighth, the writing of a checkpoint take about as long."""

TOLD = ("step", "epoch", "loss", "grad_norm", "learning_rate", "entropy", "num_tokens", "tokens", "trained_tokens")

TRAINER: dict[str, Any] = {
    "max_steps": 80,
    "learning_rate": 1.0e-3,
    "gradient_accumulation_steps": 2,
    "save_steps": 8,
    "disable_tqdm": True,
}


@dataclasses.dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds behind the start of the program, or behind a step."""

    step: int | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Life:
    """One start of the program: when it was killed (None: it finished), in which phase, and from which step it had gone on."""

    killed_s: float | None
    phase: str
    begun_at: int | None
    reached: int


def prepare(folder: Path) -> Path:
    """Write base model, dataset and recipe; return the recipe."""
    recipe = folder / "recipe.yaml"
    if recipe.is_file():
        return recipe
    import torch
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    from data_prep.prepare import prepare as prepare_data

    nano = resolve_model("nano")
    shutil.copytree(nano, folder / "base", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(0)
    rows = json.loads((nano / "config.json").read_text(encoding="utf-8"))
    shape = {"n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "multi_query": True, "resid_pdrop": 0.1, "attn_pdrop": 0.1}
    ends = {key: rows[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    GPTBigCodeForCausalLM(GPTBigCodeConfig(**shape, **ends)).save_pretrained(folder / "base")
    dialogues = min((nano.parent / "dialogues").glob("*.jsonl"), key=lambda path: path.stat().st_size)
    spec = {"sources": [{"kind": "dialogues", "path": str(dialogues)}], "output": str(folder / "dataset")}
    (folder / "data.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    prepare_data(folder / "data.yaml", progress=False)
    content = {
        "kind": "sft",
        "model": str(folder / "base"),
        "dataset": str(folder / "dataset"),
        "output": str(folder / "unused"),
        "max_length_tokens": 128,
        "max_set_aside_fraction": 1.0,
        "min_stop_rate": 0.0,
        "trainer": TRAINER,
    }
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    return recipe


def start(engine: str, recipe: Path, run: Path, notes: Path) -> subprocess.Popen[bytes]:
    """Start training into `run`; what each process is given goes to ``notes-<rank>``."""
    worker = [str(Path(__file__).resolve()), "--worker", str(notes), str(recipe), f"output={run}"]
    command = [sys.executable, *worker]
    if PROCESSES[engine] > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = recipes_folder() / "accelerate" / f"{engine}.yaml"
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
        command = [*launcher, "--num_processes", str(PROCESSES[engine]), "--main_process_port", str(port), *worker]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(Path(__file__).parents[1])}
    with open(run.parent / "messages.txt", "ab") as messages:
        return subprocess.Popen(command, stdout=messages, stderr=messages, env=environment, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that came of it, at once: a launcher puts its workers into sessions of their own."""
    root = psutil.Process(process.pid)
    family = [root, *root.children(recursive=True)]
    for act in ("suspend", "kill"):  # so that none sees another die
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # a compiler, say, that was done meanwhile
                getattr(member, act)()
    process.wait()
    psutil.wait_procs(family, timeout=30)


def phase_of(run: Path, steps: int) -> str:
    """Return what a run that was just killed was doing, from what lies in its folder."""
    if read_manifest(run) is not None:
        return "finished"
    if (run / "model").is_dir():
        return "saving, gate"
    if any(not (folder / MARK).is_file() for folder in checkpoint_folders(run)):
        return "writing a checkpoint"
    return "training" if read_metrics_torn(run) < steps else "saving, gate"


def read_metrics_torn(run: Path) -> int:
    """Return the last logged step; the last line may be cut."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return max((json.loads(line)["step"] for line in lines), default=0)


def live(engine: str, recipe: Path, run: Path, notes: Path, moment: Moment | None) -> Life:
    """Start the program and kill it at a moment; None lets it finish."""
    before, started = len(read_resumed(run)), time.monotonic()
    process = start(engine, recipe, run, notes)
    try:
        while moment and moment.step is not None and process.poll() is None and read_metrics_torn(run) < moment.step:
            time.sleep(POLL_S)
        status = process.wait(moment.seconds if moment else None)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        if process.poll() is None:
            kill(process)
    if status not in (0, None):
        raise SystemExit(f"the run ended with status {status}; see {run.parent / 'messages.txt'}")
    resumed = read_resumed(run)
    seen = notes_of(notes, 0)
    begun_at = None if not seen else resumed[-1]["step"] if len(resumed) > before else 0
    phase = "finished" if status == 0 else phase_of(run, TRAINER["max_steps"]) if seen else "start-up"
    return Life(time.monotonic() - started if status is None else None, phase, begun_at, read_metrics_torn(run))


def notes_of(notes: Path, rank: int) -> list[int]:
    """Return the groups that a process was given in one life."""
    path = notes.with_name(f"{notes.name}-{rank}")
    return [int(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]] if path.is_file() else []


def ledger_faults(engine: str, whole: Path, notes: Sequence[tuple[Path, Life]], epoch: int) -> list[str]:
    """Return where a life was given other groups than the run that was never stopped was given from the same step on."""
    faults = []
    updates = -(-epoch // TRAINER["gradient_accumulation_steps"])
    for path, life in notes:
        for rank in range(PROCESSES[engine]):
            seen, all_groups = notes_of(path, rank), notes_of(whole, rank)
            at = life.begun_at or 0
            offset = at // updates * epoch + at % updates * TRAINER["gradient_accumulation_steps"]
            if seen != all_groups[offset : offset + len(seen)]:
                faults.append(f"{path.name}, process {rank}: other groups from step {at} on")
    return faults


def log_of(run: Path) -> list[dict[str, Any]]:
    """Return the steps' lines but for times and memory."""
    return [{key: line.get(key) for key in TOLD} for line in read_metrics(run) if "loss" in line]


def same_weights(one: Path, other: Path) -> bool:
    """Return whether two runs saved the same bytes."""
    return (one / "model" / "model.safetensors").read_bytes() == (other / "model" / "model.safetensors").read_bytes()


def first_step_s(engine: str, recipe: Path, folder: Path) -> tuple[float, float]:
    """Run without a stop; return the seconds to the first logged step and to the end."""
    timing = folder / f"{engine}-timing.json"
    if timing.is_file():
        return tuple(json.loads(timing.read_text(encoding="utf-8")))
    run = folder / f"{engine}-whole"
    process, started, first = start(engine, recipe, run, folder / f"{engine}-whole-notes"), time.monotonic(), 0.0
    try:
        while process.poll() is None:
            time.sleep(POLL_S)
            if not first and (run / "metrics.jsonl").is_file():
                first = time.monotonic() - started
    finally:
        if process.poll() is None:
            kill(process)
    if process.returncode:
        raise SystemExit(f"the run ended with status {process.returncode}; see {folder / 'messages.txt'}")
    found = first, time.monotonic() - started
    timing.write_text(json.dumps(found), encoding="utf-8")
    return found


def draw(rng: random.Random, first_s: float, end_s: float, done: int) -> Moment:
    """Return a moment of a life that has `done` steps behind it: before its first step, behind the last, or in one between."""
    steps, kind = int(TRAINER["max_steps"]), rng.random()
    if kind < BEFORE_FIRST_STEP:
        return Moment(None, rng.uniform(0.5, first_s))
    if kind < BEFORE_FIRST_STEP + BEHIND_LAST_STEP or done >= steps:
        return Moment(steps, rng.uniform(0, (end_s - first_s) / 2))
    return Moment(rng.randint(done + 1, steps), rng.uniform(0, ONE_STEP_S))


def worker(arguments: Sequence[str]) -> int:
    """Train, and note what this process is given."""
    from starchat import train

    notes, *rest = arguments
    path = f"{notes}-{os.environ.get('RANK', '0')}"
    Path(path).unlink(missing_ok=True)

    class Noting(train.Collator):
        def __call__(self, examples: Sequence[dict[str, int]]) -> Any:
            with open(path, "a", encoding="utf-8") as file:
                file.write("".join(f"{example['group']}\n" for example in examples))
            return super().__call__(examples)

    train.Collator = Noting  # type: ignore[misc]
    return train.main(rest)


def experiment(engine: str, folder: Path, kills: int, kills_a_run: int, seed: int, say: Any) -> bool:
    """Make the runs and print the table; return whether all are what they should be."""
    recipe, rng = prepare(folder), random.Random(seed)
    first_s, end_s = first_step_s(engine, recipe, folder)
    whole = folder / f"{engine}-whole"
    groups = len(read_encoded(next(whole.glob("encoded-*")), "train").groups)
    update = PROCESSES[engine] * TRAINER["gradient_accumulation_steps"]
    epoch = -(-groups // update) * update // PROCESSES[engine]
    say(f"engine {engine}, {groups} groups an epoch, {TRAINER['max_steps']} steps; first step after {first_s:.1f} s, end {end_s:.1f} s")
    phases: dict[str, int] = {}
    verdicts, done = [], 0
    while done < kills:
        number = len(verdicts)
        run, lives = folder / f"{engine}-{seed}-{number}", []
        for turn in range(min(kills_a_run, kills - done) + 1):
            last = turn == min(kills_a_run, kills - done)
            reached = lives[-1][1].reached if lives else 0
            notes = folder / f"{run.name}-notes-{turn}"
            life = live(engine, recipe, run, notes, None if last else draw(rng, first_s, end_s, reached))
            lives.append((notes, life))
            moment = "to the end" if life.killed_s is None else f"killed at {life.killed_s:5.1f} s in {life.phase}"
            begun = "no step" if life.begun_at is None else f"from step {life.begun_at:3}"
            say(f"  run {number}, life {turn}: {begun}, reached {life.reached:3}, {moment}")
            if life.killed_s is None:
                break
            phases[life.phase] = phases.get(life.phase, 0) + 1
        killed = sum(life.killed_s is not None for _, life in lives)
        done += killed
        ledger = ledger_faults(engine, folder / f"{engine}-whole-notes", lives, epoch)
        same = {"weights": same_weights(whole, run), "log": log_of(whole) == log_of(run), "groups": not ledger}
        verdicts.append(all(same.values()))
        say(f"  run {number}: {killed} kills; " + ", ".join(f"{name} {'equal' if ok else 'DIFFER'}" for name, ok in same.items()))
        for fault in ledger:
            say(f"    {fault}")
        if verdicts[-1]:
            shutil.rmtree(run)
    say(f"{done} kills in {len(verdicts)} runs: " + ", ".join(f"{count} in {name}" for name, count in sorted(phases.items())))
    say(f"verdict: {sum(verdicts)} of {len(verdicts)} runs are bit for bit what the run that was never stopped is")
    return all(verdicts)


def main() -> int:
    """Kill, resume, compare."""
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--engine", choices=PROCESSES, default="one")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-a-run", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="add what is printed to this file")
    parser.add_argument("--folder", type=Path, help="work here, and leave it")
    options = parser.parse_args()

    def say(text: str) -> None:
        print(text, flush=True)
        if options.log:
            with open(options.log, "a", encoding="utf-8") as file:
                file.write(text + "\n")

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and what was started ends too
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return 0 if experiment(options.engine, folder, options.kills, options.kills_a_run, options.seed, say) else 1


if __name__ == "__main__":
    sys.exit(main())
