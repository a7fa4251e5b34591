"""Whether a run's learning rate and updates are what a recipe means, and whether its disk holds what it writes.

In: `Schedule`, numbers alone. Out: findings. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from starchat.finding import Finding, judged

PEAK = 0.99
"""Of the rate asked for: what a curve that is looked at in steps must come to."""

SPENT = 1e-3
"""Of the peak: a rate at which nothing more is learned."""

MAX_SPENT = 0.1
"""The share of updates that may be made at such a rate. Of a cosine 2 % are below it, of a line 0.1 %."""

FALLING = ("linear", "cosine", "polynomial", "cosine_with_restarts", "cosine_with_min_lr", "cosine_warmup_with_min_lr")
FALLEN = 0.5
SMALL_UPDATE = 8
"""Sequences: what transformers takes at a time on one device if nothing is said."""

MIN_JUDGED_UPDATES = 10
"""Fewer say nothing about a curve's shape, and are too few to learn from."""

MAX_EMPTY = 0.5

SHOWN_RATES = 60


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What a run will do. `rates` are those of all updates, or of some that are evenly chosen, first and last among them."""

    kind: str
    asked_rate: float
    warmup_updates: int
    updates: int
    by_epochs: bool
    rates: npt.NDArray[np.float64]
    groups: int
    processes: int
    sequences_per_batch: int
    sequences_per_update: int

    @property
    def updates_an_epoch(self) -> int:
        """Updates of one pass over the data; the last may be a smaller one."""
        batches = math.ceil(self.groups / self.sequences_per_batch)
        return max(1, math.ceil(batches * self.sequences_per_batch / self.sequences_per_update))

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, and at most `SHOWN_RATES` rates."""
        shown = np.unique(np.linspace(0, len(self.rates) - 1, min(len(self.rates), SHOWN_RATES)).astype(int))
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**plain, "rates": [float(rate) for rate in self.rates[shown]], "updates_an_epoch": self.updates_an_epoch}


def schedule_findings(schedule: Schedule, trained_tokens: int) -> Iterator[Finding]:
    """Yield the findings on a schedule; `trained_tokens` are those of an epoch."""
    yield learning_rate_reaches_its_peak(schedule)
    yield learning_rate_is_not_spent_early(schedule)
    yield learning_rate_falls_to_its_end(schedule)
    yield updates_are_many_enough(schedule, trained_tokens)
    yield processes_share_the_data(schedule)


def learning_rate_reaches_its_peak(schedule: Schedule) -> Finding:
    """Hold the highest rate against the one that the recipe asks for."""
    peak = float(schedule.rates.max())
    detail = f"{schedule.kind}: {peak:.3g} of {schedule.asked_rate:.3g} asked for, after {schedule.warmup_updates:,} updates of warm-up"
    # A warm-up of w updates begins at 0 and comes to its peak in update w + 1; a trial of fewer updates shows its beginning alone.
    ok = peak > 0 and (peak >= PEAK * schedule.asked_rate or (not schedule.by_epochs and schedule.updates < MIN_JUDGED_UPDATES))
    return judged("learning_rate_reaches_its_peak", ok, f"{detail}; {schedule.updates:,} updates in all")


def learning_rate_is_not_spent_early(schedule: Schedule) -> Finding:
    """Count the updates behind the peak whose rate is next to nothing."""
    top = int(schedule.rates.argmax())
    spent = int(np.count_nonzero(schedule.rates[top:] <= SPENT * schedule.rates[top]))
    share = spent / len(schedule.rates)
    ok = share <= MAX_SPENT or spent <= 1
    return judged("learning_rate_is_not_spent_early", ok, f"{share:.0%} of the updates have a rate below {SPENT:g} of the peak")


def learning_rate_falls_to_its_end(schedule: Schedule) -> Finding:
    """Hold the last rate of a schedule that is named for its fall against its peak."""
    last, peak = float(schedule.rates[-1]), float(schedule.rates.max())
    ok = schedule.kind not in FALLING or schedule.updates < MIN_JUDGED_UPDATES or last <= FALLEN * peak
    return judged("learning_rate_falls_to_its_end", ok, f"{schedule.kind}: the last update has {last:.3g}, the peak is {peak:.3g}")


def updates_are_many_enough(schedule: Schedule, trained_tokens: int) -> Finding:
    """Count the updates, and what each is made of. A recipe that states ``max_steps`` has stated their number, and where an update is small
    it is the dataset that is, which no batch mends."""
    an_update = trained_tokens / schedule.updates_an_epoch
    detail = (
        f"{schedule.updates:,} updates of {schedule.sequences_per_update:,} sequences, about {an_update:,.0f} trained tokens each; "
        f"an epoch has {schedule.groups:,} sequences"
    )
    ok = not schedule.by_epochs or schedule.updates >= MIN_JUDGED_UPDATES or schedule.sequences_per_update <= SMALL_UPDATE
    return judged("updates_are_many_enough", ok, detail if ok else f"{detail}; expected at least {MIN_JUDGED_UPDATES} updates")


def processes_share_the_data(schedule: Schedule) -> Finding:
    """Count the places of an epoch's batches that no sequence fills."""
    places = math.ceil(schedule.groups / schedule.sequences_per_batch) * schedule.sequences_per_batch
    empty = (places - schedule.groups) / places
    plural = "es" if schedule.processes > 1 else ""
    detail = f"{schedule.processes} process{plural}, {schedule.sequences_per_batch:,} sequences a batch: {empty:.1%} of an epoch is padding"
    return judged("processes_share_the_data", empty <= MAX_EMPTY or schedule.processes == 1, detail)


def disk_findings(output: Path, needed_bytes: int) -> Iterator[Finding]:
    """Yield the findings on the disk to which a run writes `needed_bytes`."""
    at = output.absolute()
    while not at.exists():
        at = at.parent
    held = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) if output.is_dir() else 0
    yield output_can_be_written(output, at)
    yield disk_has_room(needed_bytes, shutil.disk_usage(at).free + held)


def output_can_be_written(output: Path, at: Path) -> Finding:
    """Look at the folder of a run, or at the nearest one above it that exists."""
    ok = at.is_dir() and os.access(at, os.W_OK | os.X_OK)
    what = "is a folder that can be written to" if ok else "cannot be written to" if at.is_dir() else "is no folder"
    return judged("output_can_be_written", ok, f"{output}: {at} {what}")


def disk_has_room(needed_bytes: int, free_bytes: int) -> Finding:
    """Hold the room that checkpoints and the result take against what is free, the folder's present content included."""
    detail = f"checkpoints and result take about {needed_bytes / 1e9:,.2f} GB, {free_bytes / 1e9:,.2f} GB are free"
    return judged("disk_has_room", needed_bytes <= free_bytes, detail)
