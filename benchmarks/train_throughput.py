"""How fast the embedded base is fine-tuned, against ``trl sft`` on the same model, data and machine.

    starchat prepare recipes/nano/data.yaml
    python benchmarks/train_throughput.py [--steps 60] [--rounds 2] [--peers defaults packed] [--overrides bf16=true torch_compile=true]

Ours: ``starchat train`` with all weights (recipes/nano/sft.yaml). TRL's: its own script in its own process, on the same weights with the
chat tokens' rows already added and the tokenizer and chat template that our run would save, so that both train the same ids. The runs
take turns. LoRA is left out: with trained token rows TRL 1.16 fails on a tied model, and without them it trains something else.

A rate is answer tokens by second, from when a step's log line says how much of an epoch is done, without imports, data and the first steps
(a quarter of them). So a run that also trains on questions, or computes padding, gets nothing for it. "defaults" is TRL as it
comes, on the CPU: batches of 8, activation checkpointing, bf16 autocast, loss on all tokens, learning rate 2e-5. The other peers have our
recipe's learning rate, schedule, length and float32, loss on answers alone, no checkpointing, and the allocator's settings of
`starchat.launch`, which by themselves make TRL several times as fast. Held-out loss is of all results, by the same code.

Where other programs hold the cores, time says nothing and the ratio of processor time does, on one core with one thread:
``OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/train_throughput.py``. Runs on Linux.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from transformers import AutoTokenizer

from starchat.dialogue import Record, to_message
from starchat.encode import Row, encode_dialogues
from starchat.files import write_text
from starchat.hub import resolve_model
from starchat.launch import allocator_environment
from starchat.model import fit_vocabulary, load_base
from starchat.recipe import Recipe, load_recipe
from starchat.rows import read_records
from starchat.score import answer_loss
from starchat.tokens import Tokens, load_tokens, save_tokens

RECIPE = Path(__file__).parent.parent / "recipes" / "nano" / "sft.yaml"

TRL_TEMPLATE = (
    "{%- for message in messages -%}{{- '<|' ~ message.role ~ '|>' -}}{%- if message.role == 'assistant' -%}"
    "{%- generation -%}{{- message.content ~ '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message.content ~ '<|end|>' -}}{%- endif -%}{%- endfor -%}"
)
"""Our template with the marks by which TRL finds answers; `make_task` compares its ids with ours, and what it trains, on every dialogue."""

WANTED = {"defaults": 3.0, "best": 1.3}

LIKE_OURS = ["--gradient_checkpointing", "False", "--bf16", "False", "--assistant_only_loss", "True"]
PEERS = {
    "defaults": [],
    "packed": [*LIKE_OURS, "--packing", "True", "--per_device_train_batch_size", "1"],
    "packed2": [*LIKE_OURS, "--packing", "True", "--per_device_train_batch_size", "2"],
    "split": [*LIKE_OURS, "--packing", "True", "--packing_strategy", "bfd_split", "--per_device_train_batch_size", "1"],
    "rows": [*LIKE_OURS, "--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "2"],
    "bf16": [*LIKE_OURS, "--bf16", "True", "--packing", "True", "--per_device_train_batch_size", "1"],
    "bf16-compile": [*LIKE_OURS, "--bf16", "True", "--torch_compile", "True", "--packing", "True", "--per_device_train_batch_size", "1"],
}
"""Settings of ``trl sft`` by name. "rows" has no padding and about as many rows in an update as a packed group."""


class Line(NamedTuple):
    """A logged step: seconds by the clock and of processor time until then, and epochs done."""

    wall_s: float
    processor_s: float
    epochs: float


@dataclasses.dataclass(frozen=True)
class Task:
    """What both sides train: our recipe, and for TRL the same base with the chat tokens' rows, and the dialogues as messages."""

    recipe: Recipe
    recipe_file: Path
    base: Path
    messages: Path
    tokens: Tokens
    held_out: tuple[Record, ...]
    answer_tokens: int


def make_task(folder: Path, dataset: str) -> Task:
    """Write recipe, base and messages into `folder`."""
    mapping = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**mapping, "dataset": str(Path(dataset).resolve()), "min_stop_rate": 0.0}))
    recipe = load_recipe(folder / "recipe.yaml")
    nano = resolve_model(recipe.model)
    tokens = load_tokens(nano, recipe.dialogue_template)
    model = load_base(nano, torch.float32)
    fit_vocabulary(model, tokens)
    model.save_pretrained(folder / "base")
    save_tokens(tokens, folder / "base", recipe.max_length_tokens)
    write_text(folder / "base" / "chat_template.jinja", TRL_TEMPLATE)
    (folder / "messages").mkdir()
    records = list(read_records(recipe.dataset, "train"))
    lines = [json.dumps({"messages": [to_message(turn) for turn in record.turns]}) + "\n" for record in records]
    (folder / "messages" / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    rows = [row for row in encode_dialogues(records, tokens, recipe.max_length_tokens) if isinstance(row, Row)]
    theirs = AutoTokenizer.from_pretrained(folder / "base")
    for row, record in zip(rows, records, strict=True):
        messages = [to_message(turn) for turn in record.turns]
        made = theirs.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        assert made["input_ids"] == row.ids.tolist() and made["assistant_masks"] == row.trained.astype(int).tolist(), record.source.place
    held_out = tuple(read_records(recipe.dataset, "test"))
    trained = sum(int(row.trained.sum()) for row in rows)
    return Task(recipe, folder / "recipe.yaml", folder / "base", folder / "messages", tokens, held_out, trained)


def run_ours(task: Task, output: Path, steps: int, overrides: list[str]) -> tuple[list[Line], Path]:
    """Train with ``starchat train``; return its log lines and the model's folder."""
    command = [sys.executable, "-u", "-m", "starchat", "train", str(task.recipe_file), f"output={output}", f"max_steps={steps}"]
    command += ["logging_steps=1", "disable_tqdm=true", *overrides]
    return run_quietly(command, output.with_suffix(".log"), dict(os.environ)), output / "model"


def run_trl(task: Task, output: Path, steps: int, peer: str) -> tuple[list[Line], Path]:
    """Train with TRL's script; return its log lines and the model's folder."""
    command = [sys.executable, "-u", "-m", "trl.scripts.sft", "--use_cpu", "True", "--model_name_or_path", str(task.base)]
    command += ["--dataset_name", str(task.messages), "--output_dir", str(output), "--max_steps", str(steps)]
    command += ["--logging_steps", "1", "--save_strategy", "no", "--report_to", "none", "--disable_tqdm", "True", *PEERS[peer]]
    environment = dict(os.environ)
    if peer != "defaults":
        trainer = task.recipe.trainer
        command += ["--max_length", str(task.recipe.max_length_tokens), "--learning_rate", str(trainer["learning_rate"])]
        command += ["--lr_scheduler_type", trainer["lr_scheduler_type"], "--warmup_steps", str(trainer["warmup_steps"])]
        environment |= allocator_environment(environment)
    return run_quietly(command, output.with_suffix(".log"), environment), output


def run_quietly(command: list[str], log: Path, environment: dict[str, str]) -> list[Line]:
    """Run a command, its output into `log`; return when it printed which epoch."""
    found = []
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        assert process.stdout is not None
        for text in process.stdout:
            file.write(text)
            values = logged(text)
            if "epoch" in values and "loss" in values:
                found.append(Line(time.monotonic() - started, processor_time(process.pid), float(values["epoch"])))
    if process.wait():
        sys.exit(f"{' '.join(command[:5])} ... ended with {process.returncode}; its output is:\n{log.read_text()[-3000:]}")
    return found


def processor_time(pid: int) -> float:
    """Return the seconds that a process and its threads have computed."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def logged(text: str) -> dict[str, Any]:
    """Return the mapping that transformers' trainer printed on a line, its values numbers or their text; empty if it is another line."""
    if not text.startswith("{'"):
        return {}
    return dict(pair.split(": ") for pair in text.strip().strip("{}").replace("'", "").split(", ") if pair.count(": ") == 1)


def rates_of(lines: list[Line], answer_tokens: int) -> tuple[float, float]:
    """Return answer tokens by second, by the clock and of processor time, after the first quarter of the steps."""
    first, last = lines[len(lines) // 4], lines[-1]
    done = (last.epochs - first.epochs) * answer_tokens
    return done / (last.wall_s - first.wall_s), done / (last.processor_s - first.processor_s)


def loss_of(task: Task, folder: Path) -> float:
    """Return the held-out loss on answers, in nats a token, of a saved model."""
    model = load_base(folder, torch.float32).eval()
    return answer_loss(model, task.tokens, task.held_out, task.recipe.max_length_tokens).interval().value


def main() -> None:
    """Run all in turns and print rates, losses and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dataset", default="dataset/", help="what starchat prepare recipes/nano/data.yaml wrote")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", nargs="*", default=["defaults", "packed"], choices=PEERS)
    parser.add_argument("--overrides", nargs="*", default=[], help="of our recipe")
    parser.add_argument("--folder", type=Path, help="for models and logs; a temporary one if absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        task = make_task(folder, options.dataset)
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ("ours", *options.peers)}
        for number in range(options.rounds):
            for name in rates:
                output = folder / f"{name}-{number}"
                steps = options.steps if name != "defaults" else max(8, options.steps // 6)  # its batches hold several times the tokens
                lines, model = run_ours(task, output, steps, options.overrides) if name == "ours" else run_trl(task, output, steps, name)
                rates[name].append(rates_of(lines, task.answer_tokens))
                print(
                    f"{name:13}{rates[name][-1][0]:8,.0f} answer tokens/s, {rates[name][-1][1]:8,.0f} by second of processor time   "
                    f"{len(lines)} steps, {lines[-1].epochs:.2f} epochs, "
                    f"held-out loss {loss_of(task, model):.3f}   load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
    for name in options.peers:
        wanted = WANTED["defaults" if name == "defaults" else "best"]
        for number, clock in enumerate(("time", "processor time")):
            ratios = [own[number] / peer[number] for own, peer in zip(rates["ours"], rates[name], strict=True)]
            print(f"ours / {name}, {clock}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); wanted {wanted}")


if __name__ == "__main__":
    main()
