"""How training processes are started: their environment, and ``accelerate launch``. Imports nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

# glibc's malloc gives every large tensor back to the kernel when it is freed, and each new one is paged in again, 4 kB at a
# time. Kept, and in huge pages, the embedded base trains 4 to 5 times as fast on two cores (626 against 3,320 tokens/s with
# torch.compile, bf16, 4 x 1,024 tokens a step). Other C libraries ignore the variable.
GLIBC_TUNABLES = ":".join(
    [
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=8589934592",
        "glibc.malloc.trim_threshold=8589934592",
        "glibc.malloc.top_pad=268435456",
    ]
)


def allocator_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to set for training on a CPU; empty if they are set, or if the user chose an allocator.

    >>> allocator_environment({"LD_PRELOAD": "libjemalloc.so.2"})
    {}
    """
    chosen = any(name in environment for name in ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_"))
    return {} if chosen or not sys.platform.startswith("linux") else {"GLIBC_TUNABLES": GLIBC_TUNABLES}


def recipes_folder() -> Path:
    """Return the folder of recipes: in the wheel beside this package, in a checkout at its top."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "recipes"


def threads(environment: Mapping[str, str]) -> int:
    """Return how many threads a lone process on the CPU should use: as the user says, or one for each core that it may use.

    >>> threads({"OMP_NUM_THREADS": "3"})
    3
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(environment.get("OMP_NUM_THREADS") or min(allowed, psutil.cpu_count(logical=False) or allowed))


def launch_training(config: Path, recipe: Path, overrides: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run ``accelerate launch ... -m starchat.train`` in one process and return its exit status; its output goes to standard error."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["--num_cpu_threads_per_process", str(threads(environment)), "-m", "starchat.train"]
    variables = {**environment, **allocator_environment(environment)}
    return subprocess.run([*command, str(recipe), *overrides], env=variables, stdout=sys.stderr, check=False).returncode
