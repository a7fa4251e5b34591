"""How long an update takes on a card: a roofline with its assumptions named. Imports nothing heavy but `starchat.flops`.

Arithmetic at a share of the card's peak, memory traffic at its bandwidth, messages at its link's, and of these what can run at
the same time counts by the longest. Kernels that are launched too slowly to keep a card busy (tiny models) are not
modelled, nor the unpacking of 4-bit weights: both make a run slower than said here.
"""

from __future__ import annotations

import dataclasses

from starchat.flops import Flops
from starchat.gpus import PCIE4_GB_S, Gpu

EFFICIENCY = 0.5
"""Share of the dense peak that matrix products and attention reach together, without torch.compile. torchtune's README gives a 3B
model 7,075 tokens/s on an A100, packed to 4,096 and not compiled: 48 % of the peak; compiled 63 %."""

FLASH_BACKWARD = 2.5
"""Flash attention computes the scores once more in its backward: five products for the forward's two (Dao 2023, section 3.1)."""

OPTIMIZER_TRAFFIC = 28.0
"""Bytes that AdamW moves for a weight: gradient read, weight and two moments read and written, in float32."""

HOST_GB_S = 100.0
"""Memory bandwidth of a host for its processor's Adam. Assumed: eight channels of DDR4-3200 have twice that."""

ASSUMPTIONS = (
    f"kernels reach {EFFICIENCY:.0%} of the dense bf16 peak; packed attention computes the whole square",
    "messages overlap with arithmetic; all GPUs are as close as those of one machine",
)


@dataclasses.dataclass(frozen=True)
class Load:
    """What an update does; `weights` and `trained` are counts of all processes together; `compared`: a reference runs forward too."""

    micro_batch: int
    accumulation: int
    length_tokens: int
    checkpointing: bool
    count: int
    stage: int
    offload: bool
    weights: int
    trained: int
    compared: bool = False


def hardware_flops(load: Load, flops: Flops) -> float:
    """Return the operations that a GPU does for one micro-batch, what is computed twice included."""
    tokens = load.micro_batch * load.length_tokens
    squares = tokens * load.length_tokens * len(flops.windows)
    forward = flops.of_forward(tokens, 0, squares)
    linear = tokens * (flops.forward + flops.backward + 2 * flops.head_forward + flops.head_backward)  # TRL computes logits again
    again = (forward if load.checkpointing else 0.0) + (flops.of_forward(tokens, tokens, squares) if load.compared else 0.0)
    return linear + squares * flops.pair_forward * (1 + FLASH_BACKWARD) + again


def update_seconds(load: Load, flops: Flops, gpu: Gpu) -> float:
    """Return the seconds of an update of all processes."""
    others = (load.count - 1) / load.count
    compute = hardware_flops(load, flops) / (gpu.bf16_tflops * 1e12 * EFFICIENCY)
    passes = 3 + load.compared
    traffic = passes * 2.0 * load.weights / (gpu.memory_gb_s * 1e9)
    link = gpu.link_gb_s * 1e9
    gathered = passes * 2.0 * load.weights * others / link if load.stage == 3 else 0.0  # twice to compute, once to reduce
    reduced = 2.0 * load.trained * others / link if load.stage == 2 else 0.0
    fetched = 2 * 2.0 * load.weights / load.count / (PCIE4_GB_S * 1e9) if load.stage == 3 and load.offload else 0.0
    micro = max(compute, traffic, gathered, reduced, fetched)
    bytes_each = 4.0 if load.stage == 0 else 2.0
    message = 2 * bytes_each * load.trained * others / link if load.stage < 2 else 2.0 * load.trained * others / link
    share = load.trained / load.count if load.stage else load.trained
    step = OPTIMIZER_TRAFFIC * share / (gpu.memory_gb_s * 1e9)
    if load.offload:
        moved = 2 * 2.0 * share / (PCIE4_GB_S * 1e9)
        step = OPTIMIZER_TRAFFIC * load.trained / (HOST_GB_S * 1e9) + moved
    return load.accumulation * micro + max(0.0, message - compute) + step
