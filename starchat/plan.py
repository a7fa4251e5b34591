"""What fits and what it costs, before any weight is loaded: memory, speed, time and money for each way to launch a recipe.

In: a recipe, a card and how many. Out: a `Plan`: a `Cell` for each engine, with and without activation checkpointing, at each
micro-batch that keeps the recipe's update. What a step needs is taken from `starchat.memory`; how ZeRO shares it out is here, in
`shared_memory`; how fast it is, in `starchat.speed`. Nothing is measured: `starchat.trial` does that.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from starchat.arguments import training_arguments
from starchat.encode import Row
from starchat.engine import Engine
from starchat.errors import UserError
from starchat.flops import count_flops
from starchat.gpus import Gpu
from starchat.memory import ACTIVATIONS, GRADIENTS, LOGITS, WEIGHTS, Compute, Footprint, StepShape
from starchat.predict import OPTIMIZER, Subject, optimizer_bytes, read_subject, step_footprint
from starchat.recipe import Recipe
from starchat.rows import encode_split, read_records
from starchat.speed import Load, update_seconds

BUFFERS, OVERHEAD = "buffers", "overhead"

BUCKET_WEIGHTS = 5e8
"""DeepSpeed 0.19's ``reduce_bucket_size``: gradients travel in a buffer of that many, allocated whole (``runtime/zero/config.py``)."""

LIVE_WEIGHTS = 1e9
"""DeepSpeed 0.19's ``stage3_max_live_parameters``: so many gathered weights stay on a GPU under ZeRO-3."""

CONTEXT_BYTES = 0.5 * 2**30
"""CUDA's context. Messages of torch about full cards, in which the process holds so much more than torch: 0.49 GiB on an RTX 4090
(3DTopia/Phidias-Diffusion issue 8) and on an L40 (NVlabs/Eagle issue 68). Not measured here."""

NCCL_BYTES = 0.5 * 2**30
"""NCCL's channels, with several GPUs. Assumed, not measured here."""

FRAGMENTS = 0.05
"""Share that the allocator holds beyond what is allocated: 1.5 % and 3.8 % in the same two messages. Not measured here."""

TIGHT = 0.9
"""Predictions may be off by a tenth (``benchmarks/plan_accuracy.py``): fuller cells are recommended only if nothing else fits."""

MICRO_BATCHES = (1, 2, 4, 8, 16, 32)

SAMPLED_RECORDS = 2000

GPUS_TRIED = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One way to run the recipe: bytes on each GPU by kind, in host memory, and what it costs. No dataset, no `seconds`."""

    engine: Engine
    checkpointing: bool
    micro_batch: int
    accumulation: int
    memory: Mapping[str, float]
    host_bytes: float
    fits: bool
    tight: bool
    """It fits, but not by much."""
    tokens_per_second: float
    mfu: float
    seconds: float | None

    @property
    def total_bytes(self) -> float:
        """Bytes on each GPU."""
        return sum(self.memory.values())


@dataclasses.dataclass(frozen=True)
class Plan:
    """All cells, the best that fits, and if none does without offloading, how many GPUs would do and how."""

    gpu: Gpu
    count: int
    price: float | None
    tokens: int | None
    parameters: int
    trained: int
    length_tokens: int
    fixed_update: bool
    """The recipe says how many sequences an update has, and not how many micro-batches."""
    cells: tuple[Cell, ...]
    best: Cell | None
    enough: tuple[int, Cell] | None

    def money(self, cell: Cell) -> float | None:
        """Return what a cell's run costs, or None without a price or a dataset."""
        return None if self.price is None or cell.seconds is None else cell.seconds / 3600 * self.count * self.price

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""

        def of(cell: Cell | None) -> dict[str, Any] | None:
            if cell is None:
                return None
            return {**dataclasses.asdict(cell), "total_bytes": cell.total_bytes, "money": self.money(cell)}

        head = {name: getattr(self, name) for name in ("count", "price", "tokens", "parameters", "trained", "length_tokens")}
        enough = {"gpus": self.enough[0], "cell": of(self.enough[1])} if self.enough else None
        return {"gpu": dataclasses.asdict(self.gpu), **head, "best": of(self.best), "enough": enough, "cells": [of(c) for c in self.cells]}


def plan_recipe(recipe: Recipe, gpu: Gpu, count: int, price: float | None = None) -> Plan:
    """Return the plan of a recipe on `count` cards; raise `UserError` for what cannot be planned."""
    if count < 1:
        raise UserError(f"--count {count}; expected at least 1")
    if price is not None and price < 0:
        raise UserError(f"--price {price}; expected the price of one GPU for one hour, 0 or more")
    if recipe.trainer.get("bf16") is False or recipe.trainer.get("fp16"):
        raise UserError("trainer: a plan is for bfloat16, which is the default on a GPU; set bf16: true")
    subject = read_subject(recipe)
    tokens = dataset_tokens(recipe, subject)
    with tqdm(desc="plan: steps taken without computing", unit="", leave=False, disable=None) as bar:
        planner = _Planner(subject, gpu, tokens, bar)
        cells = tuple(planner.cells(count))
        if not cells:
            raise UserError(f"train_batch_size: {recipe.train_batch_size} sequences do not divide by --count {count}; change one of them")
        best = _fastest(cells)
        enough = None
        if best is None or best.engine.offload_optimizer:
            further = ((n, _fastest(tuple(planner.cells(n, offload=False)))) for n in GPUS_TRIED if n > count)
            enough = next(((n, cell) for n, cell in further if cell is not None), None)
    total = sum(_weights(p) for p in subject.model.parameters())
    trained = sum(p.numel() for p in subject.trained)
    fixed = recipe.train_batch_size is not None
    return Plan(gpu, count, price, tokens, total, trained, recipe.max_length_tokens, fixed, cells, best, enough)


def dataset_tokens(recipe: Recipe, subject: Subject) -> int | None:
    """Return the tokens of an epoch, from a sample of the records if there are many; None where the dataset is not on this machine."""
    if not Path(recipe.dataset).is_dir():
        return None
    records = sum(1 for _ in read_records(recipe.dataset, "train"))
    rows = itertools.islice(encode_split(recipe, subject.tokens, "train"), SAMPLED_RECORDS)
    found = [(row.id, len(row.ids)) for row in rows if isinstance(row, Row)]
    seen = len({id for id, _ in found})
    total = sum(length for _, length in found)
    return round(total * (records / seen if len(found) >= SAMPLED_RECORDS * 0.9 else 1)) if seen else None


def _fastest(cells: tuple[Cell, ...]) -> Cell | None:
    """Return the fastest cell that fits well, or else fits; of equals, that of the simplest engine, which comes first."""
    return max((cell for cell in cells if cell.fits), key=lambda cell: (not cell.tight, round(cell.mfu, 3)), default=None)


def _weights(parameter: Any) -> int:
    """Return how many weights a parameter stands for; two to a byte where they are packed."""
    return int(parameter.numel()) * (1 if parameter.is_floating_point() else 2)


class _Planner:
    """Makes cells, and remembers the footprints, which do not depend on the number of GPUs."""

    def __init__(self, subject: Subject, gpu: Gpu, tokens: int | None, bar: Any) -> None:
        self.subject, self.gpu, self.tokens, self.bar = subject, gpu, tokens, bar
        self.arguments = training_arguments(subject.recipe)
        self.flops = count_flops(subject.model)
        self.state = optimizer_bytes(subject, str(self.arguments.optim.value))
        self.found: dict[StepShape, Footprint] = {}

    def sequences(self, count: int) -> int:
        """Return the sequences that a GPU has in an update; 0 if the recipe's do not divide."""
        together = self.subject.recipe.train_batch_size
        if together is None:
            return int(self.arguments.per_device_train_batch_size * self.arguments.gradient_accumulation_steps)
        return together // count if together % count == 0 else 0

    def cells(self, count: int, offload: bool = True) -> Iterator[Cell]:
        """Yield a cell for each engine, checkpointing and micro-batch, up to the first micro-batch that does not fit."""
        sequences = self.sequences(count)
        engines = [engine for engine in self.engines(count) if offload or not engine.offload_optimizer]
        for engine, checkpointing in itertools.product(engines, (False, True)):
            for batch in MICRO_BATCHES:
                if not sequences or sequences % batch:
                    break
                cell = self.cell(engine, checkpointing, batch, sequences // batch)
                yield cell
                if not cell.fits:
                    break

    def engines(self, count: int) -> list[Engine]:
        """Return the engines that can hold the recipe."""
        recipe = self.subject.recipe
        if recipe.optimizer == "muon":
            return [Engine(count)]
        sharded = [Engine(count, stage) for stage in (1, 2, 3)] if count > 1 else []
        offloaded = [Engine(count, 2, offload_optimizer=True), Engine(count, 3, offload_optimizer=True, offload_parameters=True)]
        return [engine for engine in (Engine(count), *sharded, *offloaded) if not (recipe.quantization and engine.sharded)]

    def cell(self, engine: Engine, checkpointing: bool, batch: int, accumulation: int) -> Cell:
        """Return one cell."""
        count = engine.processes
        length = self.subject.recipe.max_length_tokens
        pairs = self.subject.recipe.of_pairs
        compute: Compute = "bfloat16" if engine.zero_stage else "autocast"
        shape = StepShape(batch, length, checkpointing, compute, accumulation > 1, pairs=pairs)
        if shape not in self.found:
            self.found[shape] = step_footprint(self.subject, shape)
            self.bar.update()
        trained = sum(p.numel() for p in self.subject.trained)
        memory, host = shared_memory(self.found[shape], engine, trained, self.state)
        filled = sum(memory.values()) / (self.gpu.memory_gib * 2**30)
        total = sum(_weights(p) for p in self.subject.model.parameters())
        rows = batch * (1 + pairs)
        load = Load(rows, accumulation, length, checkpointing, count, engine.zero_stage, engine.offload_optimizer, total, trained, pairs)
        seconds = update_seconds(load, self.flops, self.gpu)
        tokens = rows * accumulation * count * length
        model = self.flops.of_step(tokens, tokens, tokens * (length + 1) / 2 * len(self.flops.windows), compared=pairs)
        return Cell(
            engine,
            checkpointing,
            batch,
            accumulation,
            memory,
            host,
            fits=filled <= 1,
            tight=TIGHT < filled <= 1,
            tokens_per_second=tokens / seconds,
            mfu=model / seconds / (count * self.gpu.bf16_tflops * 1e12),
            seconds=self._run_seconds(seconds, tokens),
        )

    def _run_seconds(self, update: float, tokens: int) -> float | None:
        if self.arguments.max_steps > 0:
            return update * self.arguments.max_steps
        return None if self.tokens is None else update * math.ceil(math.ceil(self.tokens / tokens) * self.arguments.num_train_epochs)


def shared_memory(found: Footprint, engine: Engine, trained: int, state: float) -> tuple[dict[str, float], float]:
    """Return bytes on each GPU by kind, and bytes in the host's memory of all processes together.

    ZeRO (Rajbhandari and others 2020, section 5): from stage 1 the optimizer's state and the float32 copy of what is trained are
    shared, from 2 the gradients, from 3 the weights. Without DeepSpeed, DDP holds gradients once more in its buckets.
    """
    stage, count = engine.zero_stage, engine.processes
    peak = found.peak(freed=stage >= 2)
    memory = {kind: float(peak[kind]) for kind in (WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOGITS) if kind in peak}
    memory[OPTIMIZER] = state
    memory[BUFFERS] = 0.0
    host = 0.0
    if stage == 0 and count > 1:
        memory[BUFFERS] = 4.0 * trained
    if stage >= 1:
        memory[OPTIMIZER] = (state + 4.0 * trained) / count
        memory[BUFFERS] = 2.0 * BUCKET_WEIGHTS
    if stage >= 2:
        memory[GRADIENTS] = 2.0 * trained / count
    if stage == 3:
        whole = memory[WEIGHTS]
        memory[WEIGHTS] = whole / count + min(whole, 2.0 * LIVE_WEIGHTS) * (count > 1 or engine.offload_parameters)
    if engine.offload_optimizer:
        host = (memory[OPTIMIZER] + memory[GRADIENTS]) * count
        memory[OPTIMIZER] = memory[GRADIENTS] = 0.0
        if engine.offload_parameters:
            host += whole
            memory[WEIGHTS] -= whole / count
    memory[BUFFERS] += _step_excess(memory, trained, count) if stage and not engine.offload_optimizer else 0.0
    memory[OVERHEAD] = FRAGMENTS * sum(memory.values()) + CONTEXT_BYTES + (NCCL_BYTES if count > 1 else 0.0)
    return memory, host


def _step_excess(memory: Mapping[str, float], trained: int, count: int) -> float:
    """Return by how much DeepSpeed's step, which has the shared gradients once more in float32, is above the peak of the backward pass."""
    return max(0.0, 4.0 * trained / count - memory[ACTIVATIONS] - memory[LOGITS] - memory[BUFFERS])
