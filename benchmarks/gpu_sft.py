"""How well a GPU is used and what memory it takes: full fine-tuning, LoRA and QLoRA, beside TRL's own script.

    python benchmarks/gpu_sft.py --folder /scratch/gpu_sft

Needs: one NVIDIA GPU with bfloat16 (80 GB for LoRA of the 7B shape, 141 GB for all its weights; what does not fit is reported, and the
rest goes on); 128 GB of memory; 60 GB of disk in ``--folder``; no network; about half an hour. It runs unattended and prints a line for
each run as it ends. ``--cpu-trial`` runs the same code on a CPU with a tiny shape, to see that it works; its figures mean nothing.

Shapes: StarCoder2-3B and -7B with random weights. Rows: the embedded dialogues, packed to 2,048 tokens, as many epochs as the steps take.
bfloat16 autocast, weights that are trained in float32, activation checkpointing (``--no-checkpointing`` for none). The two sides train
the same ids on the same weights, in processes of their own. TRL's has the chat tokens' rows already and, with LoRA, leaves them as they
are: training them fails in TRL 1.16 on a tied model.

MFU: operations that the model needs for its rows, by the time of the steps after the first third, as a share of the dense bfloat16 peak.
Needed is: 6 for each weight and token (4 for a frozen one: no weight gradient), the head at trained positions alone, and attention within
rows and to earlier tokens. Not counted: what checkpointing computes twice, padding, masked scores. Memory: the allocator's peak (on a
CPU the process's), to be held against ``starchat plan`` of the ``recipe.yaml`` that each of our runs leaves.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from data_prep.prepare import prepare
from starchat.dialogue import to_message
from starchat.encode import Row, encode_dialogues
from starchat.files import write_text
from starchat.hub import resolve_model
from starchat.launch import allocator_environment
from starchat.rows import read_records
from starchat.template import find_template
from starchat.tokens import load_tokens, save_tokens

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125, "4090": 165}
"""Dense bfloat16, from NVIDIA's data sheets."""

COMMON = {"model_type": "starcoder2", "sliding_window": 4096, "max_position_embeddings": 16384, "rope_theta": 1e6}
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
SHAPES = {
    "starcoder2-3b": (3072, 12288, 30, 24, 2, 49152),
    "starcoder2-7b": (4608, 18432, 32, 36, 4, 49152),
    "tiny": (64, 128, 2, 4, 2, 8448),
}
METHODS = ("full", "lora", "qlora")
SIDES = ("ours", "trl")
LORA = {"r": 16, "alpha": 32}
WANTED_MFU = 0.55


@dataclasses.dataclass(frozen=True)
class Data:
    """The rows of an epoch in numbers: tokens, trained tokens, and pairs of a token with itself or an earlier one of its row."""

    tokens: int
    trained: int
    pairs: int


class Clock(TrainerCallback):
    """Notes when steps end, with the device's work done."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time and how much of an epoch is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append((time.perf_counter(), float(state.epoch)))


def write_base(folder: Path, shape: str) -> None:
    """Write a base model of random weights in bfloat16, with the embedded base's tokenizer."""
    keys: dict[str, Any] = {**COMMON, **dict(zip(SIZES, SHAPES[shape], strict=True))}
    tokens = load_tokens(resolve_model("nano"), None)
    config = AutoConfig.for_model(keys.pop("model_type"), **keys, bos_token_id=0, eos_token_id=0, tie_word_embeddings=True)
    save_tokens(tokens, folder, max_length=16384)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def write_data(folder: Path, length: int) -> Data:
    """Write the embedded dialogues as a prepared dataset and as messages; return what is in them."""
    spec = {"sources": [{"kind": "dialogues", "path": "nano", "license": "apache-2.0"}], "output": str(folder / "dataset")}
    write_text(folder / "data.yaml", yaml.safe_dump({**spec, "test_fraction": 0.1}))
    if not (folder / "dataset" / "manifest.json").is_file():
        prepare(folder / "data.yaml", progress=False)
    (folder / "messages").mkdir(exist_ok=True)
    records = list(read_records(str(folder / "dataset"), "train"))
    lines = [json.dumps({"messages": [to_message(turn) for turn in record.turns]}) + "\n" for record in records]
    write_text(folder / "messages" / "train.jsonl", "".join(lines))
    tokens = load_tokens(resolve_model("nano"), find_template("starchat"))
    rows = [row for row in encode_dialogues(records, tokens, length) if isinstance(row, Row)]
    pairs = sum(len(row.ids) * (len(row.ids) + 1) // 2 for row in rows)
    return Data(sum(len(row.ids) for row in rows), sum(int(row.trained.sum()) for row in rows), pairs)


def epoch_flops(shape: str, method: str, data: Data) -> float:
    """Return the operations that the model needs for an epoch; rows are shorter than the sliding window."""
    hidden, inner, layers, heads, key_heads, vocabulary = SHAPES[shape]
    key_width = hidden // heads * key_heads
    matrices = [(hidden, hidden), (hidden, key_width), (hidden, key_width), (hidden, hidden), (hidden, inner), (inner, hidden)]
    frozen = method != "full"
    linear = sum(n * m * (4 if frozen else 6) for n, m in matrices)
    adapters = sum((n + m) * LORA["r"] * 6 for n, m in matrices) if frozen else 0
    head = hidden * vocabulary * (4 if frozen else 6)
    return float(data.tokens * layers * (linear + adapters) + data.trained * head + data.pairs * layers * hidden * 12)


def child(options: argparse.Namespace) -> None:
    """Train one side's run in this process, and write its steps and its peak of memory into ``measured.json``."""
    import transformers

    clock = Clock()
    made = transformers.Trainer.__init__

    def with_clock(self: Any, *arguments: Any, **keys: Any) -> None:
        made(self, *arguments, **keys)
        self.add_callback(clock)

    transformers.Trainer.__init__ = with_clock  # the one place through which both sides go
    with contextlib.suppress(SystemExit):  # ours ends with 1 where random weights do not stop
        run_ours(options) if options.child == "ours" else run_trl(options)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    write_text(options.folder / "measured.json", json.dumps({"ends": clock.ends, "peak_bytes": peak}))


def run_ours(options: argparse.Namespace) -> None:
    """Train through ``starchat train``'s own function."""
    from starchat.train import train

    trainer = {
        "learning_rate": 1e-4, "max_steps": options.steps, "per_device_train_batch_size": options.batch, "save_strategy": "no",
        "bf16": not options.cpu_trial, "activation_checkpointing": not options.no_checkpointing, "disable_tqdm": True,
    }  # fmt: skip
    recipe = {
        "kind": "sft", "model": str(options.base), "dataset": str(options.data / "dataset"), "output": str(options.folder / "run"),
        "max_length_tokens": options.length, "min_stop_rate": 0.0, "trainer": trainer,
    }  # fmt: skip
    if options.method != "full":
        recipe["lora"] = LORA
    if options.method == "qlora":
        recipe["quantization"] = "nf4"
    write_text(options.folder / "recipe.yaml", yaml.safe_dump(recipe))
    train(options.folder / "recipe.yaml", overwrite=True)


def run_trl(options: argparse.Namespace) -> None:
    """Train through TRL's script, packed, in the same precision, with what of it is the same."""
    flags: dict[str, Any] = {
        "model_name_or_path": options.base, "dataset_name": options.data / "messages", "output_dir": options.folder / "run",
        "max_steps": options.steps, "learning_rate": 1e-4, "per_device_train_batch_size": options.batch, "max_length": options.length,
        "packing": True, "assistant_only_loss": True, "bf16": not options.cpu_trial, "use_cpu": options.cpu_trial, "save_strategy": "no",
        "gradient_checkpointing": not options.no_checkpointing, "report_to": "none", "disable_tqdm": True,
        "dtype": "float32" if options.method == "full" else "bfloat16",
    }  # fmt: skip
    if options.method != "full":
        flags |= {"use_peft": True, "lora_r": LORA["r"], "lora_alpha": LORA["alpha"], "lora_target_modules": "all-linear"}
    if options.method == "qlora":
        flags |= {"load_in_4bit": True, "use_bnb_nested_quant": True}
    if options.cpu_trial and options.method != "full":
        flags["dtype"] = "float32"
    sys.argv = ["sft.py", *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]
    runpy.run_module("trl.scripts.sft", run_name="__main__")


def trl_base(base: Path, folder: Path) -> None:
    """Write `base` with the chat template's tokens, whose rows it has to spare, and the template with TRL's marks."""
    tokens = load_tokens(base, find_template("starchat"))
    folder.mkdir(exist_ok=True)
    for file in base.iterdir():
        target = folder / file.name
        if not target.exists():
            target.symlink_to(file.resolve())
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    save_tokens(tokens, folder, max_length=16384)
    from train_throughput import TRL_TEMPLATE  # beside this file

    (folder / "chat_template.jinja").unlink()
    write_text(folder / "chat_template.jinja", TRL_TEMPLATE)


def measure(options: argparse.Namespace, shape: str, method: str, side: str, data: Data, peak_flops: float) -> str:
    """Run one side in a process of its own; return its line."""
    folder = options.folder / f"{shape}-{method}-{side}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measured.json").unlink(missing_ok=True)
    base = options.folder / (shape if side == "ours" else f"{shape}-trl")
    command = [sys.executable, __file__, "--child", side, "--method", method, "--base", str(base), "--data", str(options.folder)]
    command += ["--folder", str(folder), "--steps", str(options.steps), "--batch", str(options.batch), "--length", str(options.length)]
    command += [flag for flag, on in (("--cpu-trial", options.cpu_trial), ("--no-checkpointing", options.no_checkpointing)) if on]
    with (folder / "log").open("w", encoding="utf-8") as log:
        environment = {**os.environ, **(allocator_environment(os.environ) if options.cpu_trial else {})}
        subprocess.run(command, stdout=log, stderr=log, check=False, env=environment)
    name = f"{shape:14}{method:6}{side:5}"
    text = (folder / "log").read_text(encoding="utf-8")
    if not (folder / "measured.json").is_file():
        why = "out of memory" if "OutOfMemoryError" in text else f"failed: {' '.join(text.strip().splitlines()[-1:])[:150]}"
        return f"{name} {why}; see {folder / 'log'}"
    measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    ends = measured["ends"]
    if len(ends) < 3:
        return f"{name} ended after {len(ends)} steps; see {folder / 'log'}"
    (start, before), *_, (stop, after) = ends[len(ends) // 3 :]
    share = (after - before) / (stop - start)
    step = statistics.median(b[0] - a[0] for a, b in zip(ends[len(ends) // 3 :], ends[len(ends) // 3 + 1 :], strict=False))
    mfu = share * epoch_flops(shape, method, data) / peak_flops
    return (
        f"{name}{share * data.tokens:10,.0f} tokens/s {share * data.trained:10,.0f} trained tokens/s   step {step:.3f} s   "
        f"MFU {mfu:.1%}   peak {measured['peak_bytes'] / 2**30:.2f} GiB"
    )


def peak_of_device(options: argparse.Namespace) -> tuple[str, float]:
    """Return the device's name and its peak in operations by second; end if there is none or it is not known."""
    if options.cpu_trial:
        return "CPU, a trial: the figures mean nothing", 1e12
    if not torch.cuda.is_available():
        sys.exit("gpu_sft: no NVIDIA GPU is seen by torch; run it where there is one, or with --cpu-trial to try the code on a CPU")
    name = torch.cuda.get_device_name()
    known = next((peak for part, peak in PEAK_TFLOPS.items() if part in name), options.peak_tflops)
    if known is None:
        sys.exit(f"gpu_sft: the peak of {name!r} is not known; give its dense bfloat16 figure with --peak-tflops")
    return f"{name}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB", (options.peak_tflops or known) * 1e12


def main() -> None:
    """Write bases and data, and run every shape, method and side in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4, help="packed groups in a step")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--cpu-trial", action="store_true")
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    device, peak_flops = peak_of_device(options)
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = write_data(options.folder, options.length)
    print(f"{device}; torch {torch.__version__}; {data.tokens:,} tokens an epoch, packed to {options.length:,}", flush=True)
    for shape in options.shapes or (["tiny"] if options.cpu_trial else ["starcoder2-3b", "starcoder2-7b"]):
        if not (options.folder / shape / "config.json").is_file():
            write_base(options.folder / shape, shape)
        trl_base(options.folder / shape, options.folder / f"{shape}-trl")
        for method in options.methods:
            for side in options.sides:
                print(measure(options, shape, method, side, data, peak_flops), flush=True)
    print(f"wanted: MFU {WANTED_MFU:.0%} with all weights; memory within 10% of what starchat plan predicts for ours")


if __name__ == "__main__":
    main()
