"""The same bytes of one dataset, whoever makes it and whatever is killed: a table, and what was done again after each kill.

    python benchmarks/same_bytes.py --folder FOLDER
    python benchmarks/same_bytes.py --folder FOLDER --ray --slurm      # on clusters that it begins on this machine, as the tests do

The spec has a source of every kind and all steps of curation (`tests/mixed_sources.py`). A row: engine, workers, pieces of input in a
shard, seconds, how many shards there were, and the digest of all files of the dataset. For a kill the driver and its processes are killed
when some shards are done, and the same command is given again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psutil

from clusters import ray_nodes
from mixed_sources import write_spec
from slurm import slurm_of_one_node


def main() -> int:
    """Make the dataset in all ways and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, required=True, help="an empty folder to work in")
    arguments.add_argument("--ray", action="store_true")
    arguments.add_argument("--slurm", action="store_true")
    options = arguments.parse_args()
    spec = write_spec(options.folder.absolute() / "sources")
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    found = []
    with clusters(options) as engines:
        print(f"{'made by':<44} {'kills':>5} {'shards':>6} {'done again':>10} {'seconds':>8}  digest")
        for number, (engine, pieces, kills) in enumerate(engines):
            folder = options.folder / str(number)
            folder.mkdir()
            found.append(made(spec.absolute(), folder, engine, pieces, kills))
    print(f"{len(set(found))} different digests of {len(found)}")
    return 0 if len(set(found)) == 1 else 1


@contextlib.contextmanager
def clusters(options: argparse.Namespace) -> Iterator[list[tuple[str, int, int]]]:
    """Give the engines, each with the pieces in a shard and how often its driver is killed; their clusters are up meanwhile."""
    engines = [
        ("Engine('here', 1)", 1000, 0),
        ("Engine(workers=1)", 1, 0),
        ("Engine(workers=4)", 1, 0),
        ("Engine(workers=4)", 2, 0),
        ("Engine(workers=2)", 7, 0),
        ("Engine(workers=2)", 1, 1),
        ("Engine(workers=2)", 2, 3),
    ]
    with contextlib.ExitStack() as stack:
        if options.ray:
            nodes = stack.enter_context(ray_nodes(1, 1, PYTHONPATH=os.environ["PYTHONPATH"]))
            os.environ.update(nodes.variables)
            engines += [(f"Engine('ray', address={nodes.address!r})", 2, kills) for kills in (0, 2)]
        if options.slurm:
            os.environ.update(stack.enter_context(slurm_of_one_node(options.folder.absolute() / "daemons")).environment)
            engines += [("Engine('slurm', workers=2)", 2, kills) for kills in (0, 2)]
        yield engines


def made(spec: Path, folder: Path, engine: str, pieces: int, kills: int) -> str:
    """Make the dataset, with kills on the way, print a row and return the digest of all files."""
    begin, again = time.perf_counter(), 0
    for turn in range(kills + 1):
        before = shards(folder)
        driver = start(spec, folder, engine, pieces)
        most = dict(before)
        while driver.poll() is None and (turn == kills or len(most) < len(before) + 3):
            most.update(shards(folder))
            time.sleep(0.005)
        again += sum(most[name] != stamp for name, stamp in before.items() if name in most)
        if turn < kills:
            kill(driver)
        elif driver.returncode:
            sys.exit(f"{engine}: exit status {driver.returncode}")
    digest = hashlib.sha256()
    for path in sorted((folder / "out").rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    seconds = time.perf_counter() - begin
    print(
        f"{f'{engine}, {pieces} a shard':<44} {kills:>5} {len(most):>6} {again:>10} {seconds:>8.1f}  {digest.hexdigest()[:16]}", flush=True
    )
    return digest.hexdigest()


def start(spec: Path, folder: Path, engine: str, pieces: int) -> subprocess.Popen[bytes]:
    """Start a process that prepares the spec in a folder."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom data_prep.engines import Engine\nfrom mixed_sources import prepare_small\n"
        f"prepare_small(Path({str(spec)!r}), 'out', {engine}, {pieces})\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], cwd=folder, start_new_session=True)


def shards(folder: Path) -> dict[str, int]:
    """Return when each shard that is done was."""
    found = {}
    for path in folder.glob(".out.work/shards/*/done.json"):
        with contextlib.suppress(FileNotFoundError):
            found[path.parent.name] = path.stat().st_mtime_ns
    return found


def kill(driver: subprocess.Popen[bytes]) -> None:
    """Kill a driver, whose own processes end with it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
        driver.wait()
        psutil.wait_procs(family, 20)


if __name__ == "__main__":
    sys.exit(main())
