"""A run on two machines, of which one dies: two network namespaces of this host, ZeRO-3 over the wire between them.

    sudo python benchmarks/two_machines.py [--steps 12] [--config recipes/accelerate/zero3.yaml] [--folder FOLDER]

1. Both machines train to the end: the reference.
2. The same again. In the middle of it every process of the second machine is killed; the first must end by itself, with a message.
3. Both are started again with the same command: they go on from the last whole checkpoint, and end with the reference's weights.

Each namespace has its own loopback and one end of a cable; nothing else leads out. The file system is the same for both, as shared
storage is for the machines of a cluster. Needs Linux, root, and ``ip`` (Debian's iproute2). Prints what happened, and exits 1 if
a machine hung, an example was lost, or the weights differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from starchat.files import read_manifest
from starchat.launch import recipes_folder

PORT = 29500
END_S = 600
"""A start of two machines takes half a minute of imports on a slow machine; a hang is what this is to notice."""

ALONE_S = 120
"""How long the machine that is left may take to notice that it is alone."""

MAX_WEIGHT_DIFFERENCE = 0.0
"""The sums of two processes are made in the same order each time."""


class Machine:
    """A network namespace with an address of its own, and the processes in it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"starchat-{os.getpid()}-{number}"
        self.interface = f"sc{os.getpid()}-{number}"
        self.address = f"10.77.0.{number + 1}"

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command in the namespace; its output is added to `log`."""
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface, "OMP_NUM_THREADS": "1"}
        with open(log, "ab") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command], env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def die(self) -> int:
        """Kill every process in the namespace at once; return how many there were."""
        pids = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True).stdout.split()
        if pids:
            subprocess.run(["kill", "-KILL", *pids], check=False)
        return len(pids)


Machines = tuple[Machine, Machine]


@contextlib.contextmanager
def two_machines() -> Iterator[Machines]:
    """Give two machines with a cable between them."""
    machines = (Machine(0), Machine(1))
    first, second = machines
    try:
        for machine in machines:
            _ip("netns", "add", machine.name)
        _ip("link", "add", first.interface, "netns", first.name, "type", "veth", "peer", "name", second.interface, "netns", second.name)
        for machine in machines:
            _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", machine.interface)
            for interface in ("lo", machine.interface):
                _ip("-n", machine.name, "link", "set", interface, "up")
        yield machines
    finally:
        for machine in machines:
            machine.die()
            _ip("netns", "delete", machine.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def launch(machines: Machines, config: Path, recipe: Path, overrides: Sequence[str], logs: Path) -> list[subprocess.Popen[bytes]]:
    """Start a run on both machines, one process each, and return the two launchers. Logs are added to ``logs/machine-N.log``."""
    started = []
    for machine in machines:
        command = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(config),
            "--deepspeed_multinode_launcher",
            "standard",
        ]
        command += ["--num_machines", "2", "--num_processes", "2", "--machine_rank", str(machine.number)]
        command += ["--main_process_ip", machines[0].address, "--main_process_port", str(PORT)]
        started.append(machine.start([*command, "-m", "starchat.train", str(recipe), *overrides], logs / f"machine-{machine.number}.log"))
    return started


def statuses(launchers: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> list[int | None]:
    """Return the exit statuses of launchers, None of one that had not ended in time."""
    deadline = time.monotonic() + timeout_s
    ended: list[int | None] = []
    for launcher in launchers:
        try:
            ended.append(launcher.wait(max(0.1, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            ended.append(None)
    return ended


def logged_steps(run: Path) -> list[int]:
    """Return the numbers of the training steps that a run has logged, in order."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line["step"] for line in map(json.loads, lines) if "loss" in line]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Return whether a condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def tell(text: str) -> None:
    """Print a line at once, for those who watch."""
    print(text, flush=True)


def saved_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return what a run saved, by name."""
    files = [*run.glob("model/*.safetensors"), *run.glob("adapter/*.safetensors")]
    return {name: weight.float() for file in files for name, weight in load_file(file).items()}


def weight_difference(one: Path, other: Path) -> float:
    """Return the largest difference between the weights of two runs; infinite if they have not the same names."""
    first, second = saved_weights(one), saved_weights(other)
    if first.keys() != second.keys() or not first:
        return math.inf
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def show(folder: Path, config: Path, recipe: Path, overrides: Sequence[str], steps: int) -> dict[str, Any]:
    """Train on two machines, kill one, start both again; return ``{"ok", "killed_at", "weight_difference", ...}``."""
    reference, run = folder / "reference", folder / "run"
    keys = [*overrides, f"max_steps={steps}", "save_strategy=steps", "save_steps=2"]
    found: dict[str, Any] = {"ok": False}
    with two_machines() as machines:
        tell(f"machines {machines[0].address} and {machines[1].address}, {config.name}")
        ended = statuses(launch(machines, config, recipe, [*keys, f"output={reference}"], folder), END_S)
        tell(f"uninterrupted: exit {ended}, steps {logged_steps(reference)}")
        if ended != [0, 0]:
            return found
        launchers = launch(machines, config, recipe, [*keys, f"output={run}"], folder)
        half = steps // 2 + 1
        if not wait_until(lambda: max(logged_steps(run), default=0) >= half or launchers[0].poll() is not None, END_S):
            tell("the run never came half way")
            return found
        found["killed_at"] = max(logged_steps(run), default=0)
        count, before = machines[1].die(), time.monotonic()
        tell(f"step {found['killed_at']}: all {count} processes of the second machine killed")
        alone = statuses(launchers[:1], ALONE_S)[0]
        found["alone"] = alone
        tell(
            f"the first machine ended {'by itself' if alone is not None else 'NOT'}, exit {alone}, after {time.monotonic() - before:.0f} s"
        )
        if alone in (None, 0):
            return found
        ended = statuses(launch(machines, config, recipe, [*keys, f"output={run}"], folder), END_S)
        tell(f"started again: exit {ended}, steps {logged_steps(run)}")
    manifest = read_manifest(run) or {}
    found["resumed"] = manifest.get("training", {}).get("resumed")
    found["weight_difference"] = weight_difference(reference, run)
    tell(f"went on from step {found['resumed']}; largest difference of a weight from the uninterrupted run: {found['weight_difference']}")
    whole = logged_steps(run) == logged_steps(reference) == list(range(1, steps + 1))
    found["ok"] = ended == [0, 0] and whole and bool(found["resumed"]) and found["weight_difference"] <= MAX_WEIGHT_DIFFERENCE
    return found


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--config", type=Path, default=recipes_folder() / "accelerate" / "zero3.yaml")
    parser.add_argument("--folder", type=Path, help="where the runs and logs stay (default: a temporary folder)")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        prepared = folder / "dataset"
        nano = recipes_folder() / "nano"
        command = [sys.executable, "-m", "starchat", "prepare", str(nano / "data.yaml"), f"output={prepared}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        found = show(folder, options.config.resolve(), nano / "sft.yaml", [f"dataset={prepared}"], options.steps)
    print("holds" if found["ok"] else "FAILS")
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
