"""How long a process stands in collective operations: a part of what `starchat.telemetry` tells.

In: a stopwatch. Out: its time ``communication``: from the call of a collective to its return, and waiting for one that runs beside the
computation. Waiting for a process that is slower is in it.

On a GPU the marks are events in the stream that issues the operation. DeepSpeed has streams of its own for some, and there what computation
hides is counted too. DDP reduces gradients from C++; it keeps statistics of its first ten updates and of every hundredth, which
`exposed_by_ddp` reads.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from starchat.telemetry import Stopwatch

FUNCTIONS = (
    *("all_gather", "all_gather_coalesced", "all_gather_into_tensor", "all_gather_single"),
    *("all_reduce", "all_reduce_coalesced", "inference_all_reduce", "all_to_all_single", "broadcast"),
    *("reduce", "reduce_scatter", "reduce_scatter_single", "reduce_scatter_tensor"),
)
"""Of ``torch.distributed`` and of DeepSpeed's backend, as far as each has them."""

COMMUNICATION = "communication"


@contextlib.contextmanager
def timed_collectives(watch: Stopwatch) -> Iterator[None]:
    """Time collectives until the block ends, but for those within something that is timed already."""

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if watch.open:
                return function(*args, **kwargs)
            watch.start(COMMUNICATION)
            try:
                return function(*args, **kwargs)
            finally:
                watch.stop(COMMUNICATION)

        return call

    with contextlib.ExitStack() as undo:
        for owner, name in _places():
            own = vars(owner).get(name)
            real = getattr(owner, name)
            setattr(owner, name, timed(real))
            undo.callback(*((delattr, owner, name) if own is None else (setattr, owner, name, own)))
        yield


def _places() -> Iterator[tuple[Any, str]]:
    """Yield what holds a function, and its name; nothing where there is one process."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    deepspeed = sys.modules.get("deepspeed.comm.comm")
    for owner in (torch.distributed, getattr(deepspeed, "cdb", None)):
        yield from ((owner, name) for name in FUNCTIONS if hasattr(owner, name))
    yield torch.distributed.Work, "wait"


def exposed_by_ddp(model: Any) -> float:
    """Return the mean seconds of an update in which DDP reduced gradients and nothing was computed; 0 if the model is not DDP's."""
    if not isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return 0.0
    told = model._get_ddp_logging_data()
    reduced, hidden = told.get("avg_backward_comm_time", 0), told.get("avg_backward_compute_comm_overlap_time", 0)
    return float(max(0, reduced - hidden)) / 1e9
