"""The page of `benchmarks/parity.py`: a table of families and methods by engine for each variant, and the reasons of what was refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ENGINES = ("one", "accumulated", "ddp", "zero1", "zero2", "zero3", "zero3_offload", "fsdp2")
"""``one`` process with a batch of two is what the others are compared with; ``accumulated``: one process, twice one row."""

TITLES = {"fp32": "float32", "bf16": "bfloat16", "checkpointing": "float32, activations recomputed"}
HEAD = """# Parity: the same update on every engine

Written by `python benchmarks/parity.py --render docs/parity.md` from runs of {steps} steps on tiny random models; {cells} cells, {failed}
failed. Column `one` is one process; its number is the largest logit difference of the reload gate. `accumulated` is one process too, in
two halves a step; all others are two processes under the file of that name in `recipes/accelerate`. Their number is how far the saved
weights are from those of one process, as a share of how far training moved them. Every cell passed the reload gate (law 7), gave the
losses of one process (law 6; to 1e-4, with experts 2e-3, in bfloat16 3e-2), and, with an adapter, merged into a plain model with the same
logits (law 7); every base gives packed rows the logits that they have alone (law 4; to 1e-3). An empty field was not
run. A number in brackets is a refusal before training, or a failure; the reasons are below. In bfloat16 DeepSpeed and FSDP2 hold all
weights in it and the others compute in it, so a step of all weights differs in its third digit there (allowed: half of the update).
"""


def render(results: Mapping[str, dict[str, Any]], families: Sequence[str], methods: Sequence[str], steps: int) -> str:
    """Return the page of all results, by ``family/method/variant/engine``, as Markdown."""
    reasons: list[str] = []
    failed = sum(found["status"] == "failed" for found in results.values())
    lines = [HEAD.format(steps=steps, cells=len(results), failed=failed)]
    for variant in TITLES:
        cells = {key: found for key, found in results.items() if key.split("/")[2] == variant}
        engines = [engine for engine in ENGINES if any(key.endswith(f"/{engine}") for key in cells)]
        if not cells:
            continue
        lines += [f"## {TITLES[variant]}", "", f"| family | method | {' | '.join(engines)} |", "|---" * (2 + len(engines)) + "|"]
        for family in families:
            for method in methods:
                row = [_cell(cells.get(f"{family}/{method}/{variant}/{engine}"), reasons) for engine in engines]
                if any(row[1:]) or (row[0] and "[" in row[0]):  # what was compared with nothing tells nothing
                    lines.append(f"| {family} | {method} | {' | '.join(row)} |")
        lines.append("")
    if reasons:
        lines += ["## Refused and failed", "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)), ""]
    return "\n".join(lines)


def _cell(found: dict[str, Any] | None, reasons: list[str]) -> str:
    if found is None:
        return ""
    if found["status"] == "ok":
        return f"{found.get('update', found['reload']):.0e}"
    reason = found["reason"].splitlines()[0]
    if reason not in reasons:
        reasons.append(reason)
    return f"{found['status']} [{reasons.index(reason) + 1}]"
