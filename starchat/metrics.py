"""What a run tells while it runs: ``metrics.jsonl``, one line for each logged step, and at the end ``loss.png``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class MetricsLog(TrainerCallback):
    """Appends what the trainer logs, with seconds since the start, to ``metrics.jsonl``. First process only."""

    def __init__(self, run: Path) -> None:
        self.path = run / "metrics.jsonl"
        self.started = time.monotonic()
        self.before = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock; that of a resumed run stands where its checkpoint was written."""
        self.before = seconds_so_far(self.path.parent) if state.global_step else 0.0
        self.started = time.monotonic()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Append one line."""
        if state.is_world_process_zero and logs:
            line = {"step": state.global_step, "seconds": round(self.before + time.monotonic() - self.started, 2), **logs}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Return the lines of ``metrics.jsonl``."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def seconds_so_far(run: Path) -> float:
    """Return the seconds of training behind the last line of a run's log, 0 before the first."""
    lines = read_metrics(run)
    return float(lines[-1]["seconds"]) if lines else 0.0


def reward_change(run: Path) -> dict[str, dict[str, float]]:
    """Return what preference tuning logged first and last: loss, reward margin, and the share of pairs whose chosen answer is ahead."""
    names = {"step": "step", "loss": "loss", "margin": "rewards/margins", "accuracy": "rewards/accuracies"}
    lines = [line for line in read_metrics(run) if names["margin"] in line]
    ends = {"first": lines[0], "last": lines[-1]} if lines else {}
    return {when: {name: line[key] for name, key in names.items()} for when, line in ends.items()}


def plot_loss(run: Path, title: str, unit: str) -> None:
    """Write ``loss.png``: training loss against steps, with a running mean, and the learning rate below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [m for m in read_metrics(run) if "loss" in m]
    if not lines:
        return
    steps, losses = [m["step"] for m in lines], [m["loss"] for m in lines]
    window = max(1, len(losses) // 20)
    smooth = [sum(losses[max(0, n - window + 1) : n + 1]) / (n + 1 - max(0, n - window + 1)) for n in range(len(losses))]
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(8, 5.5), sharex=True, height_ratios=(3, 1), layout="constrained")
    top.plot(steps, losses, color="#9db8d9", linewidth=0.8, label="loss")
    top.plot(steps, smooth, color="#1f4e8c", linewidth=1.8, label=f"mean of {window} steps")
    top.set(ylabel=f"loss ({unit})", title=title)
    top.legend(frameon=False)
    bottom.plot(steps, [m.get("learning_rate", float("nan")) for m in lines], color="#c2702d", linewidth=1.2)
    bottom.set(xlabel="optimizer step", ylabel="learning rate")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(run / "loss.png", dpi=120)
    pyplot.close(figure)
