"""Predicted against measured peak memory, for families x methods x activation checkpointing, on this machine.

    python benchmarks/plan_accuracy.py [--only TEXT] [--write docs/plan_accuracy.md]

Each cell is a model with random weights, wide enough that weights and activations both count. `starchat.trial` takes two worst-case
steps in a fresh process: the real trainer, loss, optimizer and checkpointing. Exit status 1 if a prediction is off by more than 10 %.
About a minute a cell on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from families import write_family
from runs import prepare_dialogues, write_recipe
from starchat.predict import predict_here
from starchat.recipe import load_recipe

ALLOWED = 0.10

WIDE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2}
WIDE_BIGCODE = {"n_embd": 512, "n_layer": 8, "n_head": 8, "n_inner": 2048}
WIDE_EXPERTS = {**WIDE, "head_dim": 64, "moe_intermediate_size": 512, "intermediate_size": 512}
SIZES = {
    "starcoder": WIDE_BIGCODE,
    "starcoder2": {**WIDE, "sliding_window": 256},
    "codellama": WIDE,
    "qwen2.5-coder": WIDE,
    "qwen3-coder": WIDE_EXPERTS,
    "granite-code": WIDE,
}
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": {"r": 16, "alpha": 32}},
    "qlora": {"lora": {"r": 16, "alpha": 32}, "quantization": "nf4"},
    "dpo": {"kind": "dpo"},
    "dpo lora": {"kind": "dpo", "lora": {"r": 16, "alpha": 32}},
}


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only cells whose name holds this text")
    parser.add_argument("--length", type=int, default=768)
    parser.add_argument("--write", type=Path, help="also write the table into this file")
    options = parser.parse_args()
    lines = ["| family | method | checkpointing | predicted MB | measured MB | predicted / measured |", "|---|---|---|---:|---:|---:|"]
    worst = 0.0
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = prepare_dialogues(folder)
        for family, method, checkpointing in itertools.product(SIZES, METHODS, (False, True)):
            if options.only in f"{family} {method} {'on' if checkpointing else 'off'}":
                predicted, measured = cell(folder, dataset, family, method, checkpointing, options.length)
                ratio = predicted / measured
                worst = max(worst, abs(ratio - 1))
                sizes = f"{predicted / 1e6:.0f} | {measured / 1e6:.0f}"
                lines.append(f"| {family} | {method} | {'on' if checkpointing else 'off'} | {sizes} | {ratio:.3f} |")
                print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"largest error {worst:.1%}; allowed {ALLOWED:.0%}")
    return int(worst > ALLOWED)


def cell(folder: Path, dataset: Path, family: str, method: str, checkpointing: bool, length: int) -> tuple[float, float]:
    """Return predicted and measured bytes."""
    base = folder / family
    if not base.is_dir():
        base.mkdir()
        write_family(base, family, **SIZES[family])
    trainer = {"activation_checkpointing": checkpointing, "per_device_train_batch_size": 2}
    path = write_recipe(folder / "recipe.yaml", base, dataset, folder / "run", max_length_tokens=length, trainer=trainer, **METHODS[method])
    predicted = sum(predict_here(load_recipe(path)).values())
    done = subprocess.run([sys.executable, "-m", "starchat.trial", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return predicted, json.loads(done.stdout)["peak_bytes"]


if __name__ == "__main__":
    sys.exit(main())
