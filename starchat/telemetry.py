"""What a run tells of its speed: tokens a second, model-FLOP utilisation, memory, and where the time goes.

In: the batches and the clock of a training run. Out: fields beside every logged loss, in ``metrics.jsonl``, on the progress line
and to everything that ``report_to`` names; and of the whole run, `summary`, for the card and the manifest.

Each line stands for the steps since the line before, over all processes: tokens are summed, times are means, memory is the
largest. Every line holds counts, not only ratios, so lines can be added, and a run that was resumed adds up too.

The shares of the time (they sum to 1):

``time_input``          the device waited for the data loader
``time_optimizer``      the optimizer's step; DeepSpeed steps within backward, where it is part of the rest
``time_saving``         writing checkpoints
``time_communication``  with several processes: collectives that nothing hid, and waiting for a slower process (`starchat.collectives`)
``time_padding``        of the rest, the share of positions that hold padding
``time_recomputation``  of the rest, the share of operations that activation checkpointing does twice
``time_model``          on a GPU whose peak is known: the time that the model's operations take at the peak, which is the MFU
``time_other``          what is left: kernels below the peak
"""

from __future__ import annotations

import collections
import resource
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOTrainer

from starchat.collectives import COMMUNICATION, exposed_by_ddp, timed_collectives
from starchat.encode import IGNORED
from starchat.flops import Flops, count_flops, count_pairs
from starchat.gpus import gpu_of_device

COUNTS = ("tokens", "padding_tokens", "trained_tokens", "attention_pairs")
TIMES = ("input", "optimizer", "saving", COMMUNICATION)


def count_batch(inputs: Mapping[str, torch.Tensor], pad_id: int, windows: tuple[int | None, ...]) -> torch.Tensor:
    """Return what a batch of packed rows or of pairs holds, (4,) int64 in the order of `COUNTS`. Runs on its device and waits for nothing.

    Padding of packed rows is the last row of a sequence if all of it is `pad_id`, see `starchat.collate`; a row begins where positions
    are 0. Pairs say by a mask what is padding.
    """
    ids = inputs["input_ids"]
    places = torch.arange(ids.shape[1], device=ids.device)
    if "completion_mask" in inputs:
        attended = inputs["attention_mask"].bool()
        pairs = count_pairs(torch.where(attended, places, -1), windows)
        return _stacked(attended.sum(), (~attended).sum(), inputs["completion_mask"][:, 1:].sum(), pairs)
    positions, labels = inputs["position_ids"], inputs["labels"]
    last_row = places >= torch.where(positions == 0, places, 0).amax(dim=1, keepdim=True)
    padding = last_row & ((ids == pad_id) | ~last_row).all(dim=1, keepdim=True)
    pairs = count_pairs(positions, windows) - count_pairs(torch.where(padding, positions, -1), windows)
    return _stacked(ids.numel() - padding.sum(), padding.sum(), (labels[:, 1:] != IGNORED).sum(), pairs)


def _stacked(*counts: torch.Tensor) -> torch.Tensor:
    return torch.stack([count.to(torch.int64) for count in counts])


class Stopwatch:
    """Adds up the time between `start` and `stop`, by name.

    On a GPU the marks are events in its queue of work: what is added is how long the device itself stood between them, so
    that a host which is ahead of the device does not count as waiting.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.open: dict[str, Any] = {}
        self.pairs: list[tuple[str, Any, Any]] = []

    def start(self, name: str) -> None:
        """Set a mark."""
        self.open[name] = self._mark()

    def stop(self, name: str) -> None:
        """Set a mark; without `start` before, nothing happens."""
        if name in self.open:
            self.pairs.append((name, self.open.pop(name), self._mark()))

    def _mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def take(self) -> dict[str, float]:
        """Return seconds by name, and begin anew."""
        if self.cuda:
            torch.cuda.synchronize()
        found: dict[str, float] = dict.fromkeys(TIMES, 0.0)
        for name, begin, end in self.pairs:
            found[name] += begin.elapsed_time(end) / 1000 if self.cuda else end - begin
        self.pairs.clear()
        return found


class Meter:
    """Counts and times since the last logged line of one process; `compared`: a frozen reference reads each batch as well."""

    def __init__(self, model: Any, pad_id: int, device: torch.device, checkpointing: bool, compared: bool = False) -> None:
        self.flops: Flops = count_flops(model)
        self.compared = compared
        self.pad_id, self.device, self.checkpointing = pad_id, device, checkpointing
        self.watch = Stopwatch(device)
        self.counts = torch.zeros(len(COUNTS), dtype=torch.int64, device=device)
        self.since = time.perf_counter()
        self.updates = 0

    def see(self, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
        """Add an update's micro-batches."""
        self.updates += 1
        for inputs in batches:
            self.counts += count_batch(inputs, self.pad_id, self.flops.windows).to(self.device)

    def take(self, accelerator: Any, reduced_seconds: float = 0.0) -> dict[str, float]:
        """Return the fields of a line over all processes, and begin anew. Every process calls this.

        `reduced_seconds`: communication of each update that the stopwatch does not see.
        """
        times = self.watch.take()
        now = time.perf_counter()
        left = max(0.0, now - self.since - sum(times.values()))
        times[COMMUNICATION] += min(left, reduced_seconds * self.updates)
        self.updates = 0
        mine = [*self.counts.tolist(), now - self.since, *(times[name] for name in TIMES), float(_memory_bytes(self.device))]
        self.since = now
        self.counts.zero_()
        everyone = accelerator.gather(torch.tensor([mine], dtype=torch.float64, device=self.device)).cpu()
        total, mean, most = everyone.sum(dim=0), everyone.mean(dim=0), everyone.amax(dim=0)
        counts = dict(zip(COUNTS, total[: len(COUNTS)].tolist(), strict=True))
        seconds, *spent = mean[len(COUNTS) : -1].tolist()
        peak = peak_flops(self.device)
        found = {**counts, "interval_seconds": seconds, "memory_peak_bytes": float(most[-1]), "processes": float(len(everyone))}
        found["model_flops"] = self.flops.of_step(counts["tokens"], counts["trained_tokens"], counts["attention_pairs"], self.compared)
        found |= {f"{name}_seconds": value for name, value in zip(TIMES, spent, strict=True)}
        found["repeated_flops"] = self._repeated(counts) if self.checkpointing else 0.0
        if peak:
            found["peak_flops_per_second"] = peak * len(everyone)
        return found

    def _repeated(self, counts: Mapping[str, float]) -> float:
        """Return the operations that checkpointing every layer does twice: the forward pass without the head."""
        return self.flops.of_forward(counts["tokens"], 0, counts["attention_pairs"])


def derived(line: Mapping[str, float]) -> dict[str, float]:
    """Return rates and shares from the counts of a line, or of several that were added up."""
    seconds = max(line["interval_seconds"], 1e-9)
    places = max(line["tokens"] + line["padding_tokens"], 1)
    done = {name: line[f"{name}_seconds"] / seconds for name in TIMES}
    rest = max(0.0, 1 - sum(done.values()))
    padding = rest * line["padding_tokens"] / places
    repeated = (rest - padding) * line["repeated_flops"] / max(line["model_flops"] + line["repeated_flops"], 1)
    found = {
        "tokens_per_second": line["tokens"] / seconds,
        "trained_tokens_per_second": line["trained_tokens"] / seconds,
        "model_tflops_per_second": line["model_flops"] / seconds / 1e12,
        "padding_share": line["padding_tokens"] / places,
        **{f"time_{name}": share for name, share in done.items()},
        "time_padding": padding,
        "time_recomputation": repeated,
    }
    if line.get("peak_flops_per_second"):
        found["mfu"] = found["time_model"] = line["model_flops"] / seconds / line["peak_flops_per_second"]
    found["time_other"] = rest - padding - repeated - found.get("time_model", 0.0)
    return found


def summary(lines: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the rates and shares of a whole run from the lines of ``metrics.jsonl``; empty if it logged none."""
    sums: collections.Counter[str] = collections.Counter()
    largest: dict[str, float] = {}
    for line in lines:
        if "interval_seconds" in line:
            sums.update({name: line.get(name, 0.0) for name in _SUMMED})
            largest |= {name: max(line[name], largest.get(name, 0.0)) for name in _LARGEST if name in line}
    return {**sums, **largest, **derived({**sums, **largest})} if sums else {}


_SUMMED = (*COUNTS, "interval_seconds", "model_flops", "repeated_flops", *(f"{name}_seconds" for name in TIMES))
_LARGEST = ("memory_peak_bytes", "processes", "peak_flops_per_second")


def peak_flops(device: torch.device) -> float | None:
    """Return a GPU's dense bfloat16 peak. None where no data sheet gives one: a CPU's is shared and varies, so a CPU has no MFU."""
    if device.type != "cuda":
        return None
    gpu = gpu_of_device(torch.cuda.get_device_name(device))
    return gpu.bf16_tflops * 1e12 if gpu else None


def _memory_bytes(device: torch.device) -> int:
    """Return the most memory so far: what torch allocated on the GPU, or what the process held resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def telling(kind: type[Any]) -> type[Any]:
    """Return the trainer class `kind` with a `Meter`, whose line goes wherever the loss goes."""
    return type(kind.__name__, (_Telling, kind), {})


class _Telling:
    """Times and counts what a trainer does; mixed into its class, since callbacks see neither batches nor waiting."""

    meter: Meter

    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        pad_id = self.processing_class.pad_token_id
        checkpointing = bool(self.args.activation_checkpointing)
        self.meter = Meter(self.model, pad_id, self.args.device, checkpointing, compared=isinstance(self, DPOTrainer))
        self.add_callback(_OptimizerMarks(self.meter.watch))
        if self.pop_callback(ProgressCallback):
            self.add_callback(ProgressLine)
        with timed_collectives(self.meter.watch):
            return super().train(*args, **kwargs)  # type: ignore[misc]

    def get_batch_samples(self: Any, *args: Any) -> Any:
        self.meter.watch.start("input")
        found = super().get_batch_samples(*args)  # type: ignore[misc]
        self.meter.watch.stop("input")
        self.meter.see(found[0])
        return found

    def _save_checkpoint(self: Any, *args: Any, **kwargs: Any) -> None:
        self.meter.watch.start("saving")
        super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]
        self.meter.watch.stop("saving")

    def log(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            line = self.meter.take(self.accelerator, exposed_by_ddp(self.model_wrapped))
            logs.update({name: round(value, 6) for name, value in {**line, **derived(line)}.items()})
        super().log(logs, start_time)  # type: ignore[misc]


class _OptimizerMarks(TrainerCallback):
    """Marks where the optimizer's step begins and ends."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.watch.start("optimizer")

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.watch.stop("optimizer")


class ProgressLine(ProgressCallback):
    """Shows loss, speed and utilisation beside the bar, where transformers prints every logged field on a line of its own."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Renew the text beside the bar."""
        if state.is_world_process_zero and self.training_bar is not None and logs and "tokens_per_second" in logs:
            self.training_bar.set_postfix_str(live_line(logs))


def live_line(logs: Mapping[str, float]) -> str:
    """Return what a run shows while it trains.

    >>> live_line({"loss": 1.5, "tokens_per_second": 1234.5, "trained_tokens_per_second": 400.0, "mfu": 0.41})
    'loss 1.500, 1,234 tokens/s, 400 trained/s, MFU 41%'
    """
    speed = f"{logs['tokens_per_second']:,.0f} tokens/s, {logs['trained_tokens_per_second']:,.0f} trained/s"
    return f"loss {logs['loss']:.3f}, {speed}" + (f", MFU {logs['mfu']:.0%}" if "mfu" in logs else "")
