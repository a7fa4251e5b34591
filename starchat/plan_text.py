"""How a plan looks in the terminal, and the command that it recommends. Imports nothing heavy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starchat.engine import Engine
    from starchat.plan import Cell, Plan

SHOWN = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "overhead")
SHORT = ("weights", "grads", "optim.", "activ.", "logits", "buffers", "other")
GIB = 2.0**30


def render_plan(plan: Plan, recipe: str, assumptions: Sequence[str]) -> str:
    """Return the plan as text: for each engine the largest micro-batch that fits, or the smallest that does not."""
    gpus = f"{plan.count} x {plan.gpu.name}"
    lines = [
        f"{plan.parameters / 1e9:.2f} B parameters, {plan.trained / 1e6:,.1f} M trained; rows of {plan.length_tokens:,} tokens; "
        f"{gpus} with {plan.gpu.memory_gib:.1f} GiB each",
        "",
        _row(("engine", "checkp.", "batch", *SHORT, "GiB", "", "tokens/s", "MFU", "time", "money")),
    ]
    chosen = [_shown(cells) for cells in _by_engine(plan.cells)]
    lines += [_row(_fields(plan, cell)) for cell in chosen]
    lines += ["", *_verdict(plan, recipe), ""]
    lines += [f"assumed: {text}" for text in assumptions]
    lines += ["assumed: allocator, CUDA context and NCCL as in starchat.plan; --measure on the card itself tells"]
    lines += [f"card: {plan.gpu.source}"]
    return "\n".join(lines)


def _row(fields: Sequence[str]) -> str:
    widths = (15, 7, 8, *(7 for _ in SHOWN), 7, 5, 10, 5, 9, 9)
    return "  ".join(f"{text:<{w}}" if n < 3 else f"{text:>{w}}" for n, (text, w) in enumerate(zip(fields, widths, strict=True))).rstrip()


def _by_engine(cells: Sequence[Cell]) -> list[list[Cell]]:
    groups: dict[tuple[Engine, bool], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.engine, cell.checkpointing), []).append(cell)
    return list(groups.values())


def _shown(cells: Sequence[Cell]) -> Cell:
    fitting = [cell for cell in cells if cell.fits]
    return max(fitting, key=lambda cell: cell.mfu) if fitting else cells[0]


def _fields(plan: Plan, cell: Cell) -> tuple[str, ...]:
    memory = [f"{cell.memory[name] / GIB:.1f}" for name in SHOWN]
    batch = f"{cell.micro_batch} x {cell.accumulation}"
    head = (short_name(cell.engine), "on" if cell.checkpointing else "off", batch, *memory, f"{cell.total_bytes / GIB:.1f}")
    if not cell.fits:
        return (*head, "no", "", "", "", "")
    speed = (f"{cell.tokens_per_second:,.0f}", f"{cell.mfu:.0%}", _time(cell.seconds), _money(plan.money(cell)))
    return (*head, "tight" if cell.tight else "fits", *speed)


def short_name(engine: Engine) -> str:
    """Return an engine in a table's column."""
    kind = f"ZeRO-{engine.zero_stage}" if engine.zero_stage else "DDP" if engine.processes > 1 else "one process"
    return f"{kind} offload" if engine.offload_optimizer else kind


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"


def _money(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:,.2f}"


def _verdict(plan: Plan, recipe: str) -> list[str]:
    if plan.best is None:
        return [_none_fits(plan, recipe)]
    cell = plan.best
    more = f"  without offloading: {plan.enough[0]} GPUs, {plan.enough[1].engine}" if plan.enough else ""
    how = f"{cell.engine}, checkpointing {'on' if cell.checkpointing else 'off'}"
    lines = [f"best that fits: {how}", f"  {command(cell, plan.count, recipe, plan.fixed_update)}"]
    if cell.host_bytes:
        lines.append(f"  needs {cell.host_bytes / GIB:,.0f} GiB of host memory, for all processes together")
    lines += [more] if more else []
    if cell.seconds is None:
        lines.append("  no time: the dataset is not on this machine; prepare it first")
    if plan.price is None:
        lines.append("  no money: give the price of one GPU for one hour with --price")
    return lines


def _none_fits(plan: Plan, recipe: str) -> str:
    gpus = f"{plan.count} x {plan.gpu.name}"
    if plan.enough is None:
        return f"nothing fits on {gpus}, nor on any number of them; shorten max_length_tokens, or train with lora or quantization"
    count, cell = plan.enough
    return f"nothing fits on {gpus}; {count} would do, with {cell.engine}:\n  {command(cell, count, recipe, plan.fixed_update)}"


def command(cell: Cell, count: int, recipe: str, fixed_update: bool = False) -> str:
    """Return the command that launches a cell; with `fixed_update` the recipe's ``train_batch_size`` decides the accumulation."""
    overrides = [f"per_device_train_batch_size={cell.micro_batch}"]
    overrides += [] if fixed_update else [f"gradient_accumulation_steps={cell.accumulation}"]
    overrides.append(f"activation_checkpointing={'true' if cell.checkpointing else 'false'}")
    if count == 1 and not cell.engine.zero_stage:
        return shlex.join(["starchat", "train", recipe, *overrides])
    engine = cell.engine
    name = "zero3_offload" if engine.offload_parameters else f"zero{engine.zero_stage}" if engine.zero_stage else "ddp"
    offload = ["--offload_optimizer_device", "cpu"] if engine.offload_optimizer and not engine.offload_parameters else []
    launch = ["accelerate", "launch", "--config_file", f"recipes/accelerate/{name}.yaml", "--num_processes", str(count), *offload]
    return shlex.join([*launch, "-m", "starchat.train", recipe, *overrides])
