"""What a GPU can do, from its vendor's data sheet. Imports nothing heavy.

Dense peaks in bfloat16 with float32 accumulation; data sheets print twice as much "with sparsity" for Ampere and later, which
no training reaches. ``memory_gib`` is what torch reports as a card's capacity, which is less than the number in its name.
"""

from __future__ import annotations

import dataclasses
import difflib

from starchat.errors import UserError


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A card: memory, peak, memory bandwidth, and how fast it talks to the next card in one machine (one direction)."""

    name: str
    memory_gib: float
    bf16_tflops: float
    memory_gb_s: float
    link_gb_s: float
    in_name: tuple[str, ...]
    """Parts of ``torch.cuda.get_device_name()``, all of which must occur."""
    source: str


PCIE4_GB_S = 32.0
"""x16, one direction; also what an H100's host sees at least."""

GPUS = (
    Gpu("a10", 22.0, 125.0, 600.0, PCIE4_GB_S, ("A10",), "NVIDIA A10 data sheet"),
    Gpu("l4", 22.0, 121.0, 300.0, PCIE4_GB_S, ("L4",), "NVIDIA L4 data sheet: 242 with sparsity"),
    Gpu("a100-40", 39.4, 312.0, 1555.0, 300.0, ("A100", "40GB"), "NVIDIA A100 data sheet, SXM"),
    Gpu("a100-80", 79.1, 312.0, 2039.0, 300.0, ("A100", "80GB"), "NVIDIA A100 data sheet, SXM"),
    Gpu("h100-pcie", 79.1, 756.0, 2000.0, 64.0, ("H100", "PCIe"), "NVIDIA H100 data sheet: 1,513 with sparsity"),
    Gpu("h100", 79.1, 989.0, 3350.0, 450.0, ("H100",), "NVIDIA H100 data sheet, SXM: 1,979 with sparsity"),
    Gpu("h200", 139.8, 989.0, 4800.0, 450.0, ("H200",), "NVIDIA H200 data sheet, SXM: 1,979 with sparsity"),
    Gpu("rtx-4090", 23.6, 165.2, 1008.0, PCIE4_GB_S, ("RTX 4090",), "NVIDIA Ada architecture white paper, table 2"),
)

ALIASES = {"a100": "a100-80", "4090": "rtx-4090", "rtx4090": "rtx-4090", "h100-sxm": "h100", "a100-80gb": "a100-80", "a100-40gb": "a100-40"}


def find_gpu(name: str) -> Gpu:
    """Return the card of this name; case, spaces and underscores do not matter.

    >>> find_gpu("RTX 4090").bf16_tflops
    165.2
    """
    key = name.lower().replace(" ", "-").replace("_", "-")
    by_name = {gpu.name: gpu for gpu in GPUS}
    found = by_name.get(ALIASES.get(key, key))
    if found is None:
        near = difflib.get_close_matches(key, [*by_name, *ALIASES], n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"--gpu {name}: unknown; {hint}expected one of {', '.join(by_name)}")
    return found


def gpu_of_device(device_name: str) -> Gpu | None:
    """Return the card that torch calls by this name, or None if it is not in the table.

    >>> gpu_of_device("NVIDIA H100 80GB HBM3").name, gpu_of_device("NVIDIA A10G")
    ('h100', None)
    """
    words = device_name.replace("-", " ").split()
    for gpu in GPUS:
        parts = [part.split() for part in gpu.in_name]
        if all(any(words[n : n + len(part)] == part for n in range(len(words))) for part in parts):
            return gpu
    return None
