"""Notebooks to documents: this builder against nbformat and datasets.map, and its memory against the size of the input.

    python benchmarks/notebooks.py --folder NOTEBOOKS --times 8 --runs 5
    python benchmarks/notebooks.py --count 2000        # notebooks made on the spot

Both sides read the same files with the same number of processes and make the same: SHA-256 of each file, and its text, which is compared:
structured documents, outputs as a terminal shows them, cut at 1,000 characters, images gone. The plain side is what one would write in an
hour, with ``nbformat`` and ``datasets.map``. All counts that a call costs: processes that start, a cache that is written. Both sides find
their modules compiled, as after an installation: a first run of each, which is not counted, keeps the bytecode in a folder of its own.
Runs alternate, so that a busy machine slows both; the ratio is the median of the rounds. A small folder is read `--times` over.
Memory is the peak of this builder alone on the input once and four times over, in processes of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from data_prep.records import Item

WORDS = ("data", "column", "mean", "of", "the", "each", "model", "shows", "measured", "far", "from", "and", "is", "read")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FIGURE = re.compile(r"<(?:matplotlib\.figure\.)?Figure\b.*>")
_REPR = re.compile(r"<[A-Za-z_].*>")
_INLINE = re.compile(r"(;base64,)[A-Za-z0-9+/=%_-]{40,}")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{1024,}={0,2}")


def main() -> int:
    """Measure and print; the exit status is 1 where the ratio is below what is asked for."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, default=None, help="a folder of notebooks; without it they are made")
    arguments.add_argument("--times", type=int, default=1, help="how often the folder is read")
    arguments.add_argument("--count", type=int, default=2000, help="how many are made")
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--min-ratio", type=float, default=5.0)
    arguments.add_argument("--side", choices=("ours", "plain", "memory"), help="one run on the folder, which prints what it found")
    options = arguments.parse_args()
    if options.side == "memory":
        print(peak_bytes(options.folder, options.workers))
        return 0
    if options.side:
        texts = {"ours": build_ours, "plain": build_plainly}[options.side](options.folder, options.workers)
        print(json.dumps([hashlib.sha256(text.encode()).hexdigest() for text in texts]))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or make_folder(Path(scratch) / "made", options.count)
        folder = several(folder, options.times, Path(scratch) / "input")
        files = sorted(folder.rglob("*.ipynb"))
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        print(f"{len(files)} notebooks, {megabytes:.1f} MB, {options.workers} processes, {options.runs} runs of each")
        runs: dict[str, list[float]] = {"ours": [], "plain": []}
        digests = {}
        os.environ.update(PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=f"{scratch}/bytecode")
        for side in runs:
            timed(side, folder, options.workers)
        for turn in range(options.runs):
            for side in ("ours", "plain") if turn % 2 == 0 else ("plain", "ours"):
                seconds, digests[side] = timed(side, folder, options.workers)
                runs[side].append(seconds)
        same = sum(map(str.__eq__, digests["ours"], digests["plain"]))
        print(f"{same} of {len(digests['plain'])} texts are the same on both sides")
        for name, times in runs.items():
            middle = statistics.median(times)
            spread = f"{min(times):.2f} to {max(times):.2f} s"
            print(f"{name:>12}: {middle:6.2f} s ({spread}), {megabytes / middle:7.1f} MB/s, {len(files) / middle:8.1f} notebooks/s")
        ratio = statistics.median(plain / ours for ours, plain in zip(runs["ours"], runs["plain"], strict=True))
        print(f"{'ratio':>12}: {ratio:.1f}")
        once, four_times = (int(run("memory", several(folder, times, Path(scratch) / str(times)), options.workers)) for times in (1, 4))
        print(f"{'peak memory':>12}: {once / 1e6:.0f} MB of {megabytes:.0f} MB, {four_times / 1e6:.0f} MB of {4 * megabytes:.0f} MB")
    return 0 if ratio >= options.min_ratio else 1


def timed(side: str, folder: Path, workers: int) -> tuple[float, list[str]]:
    """Return the seconds that a side takes as a command, and the digests of the texts that it makes."""
    begin = time.perf_counter()
    printed = run(side, folder, workers)
    return time.perf_counter() - begin, json.loads(printed)


def run(side: str, folder: Path, workers: int) -> str:
    """Return what one run prints."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--workers", str(workers)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def build_ours(folder: Path, workers: int) -> list[str]:
    """Return the documents of a folder, an empty one for a notebook that gives none."""
    from data_prep.records import Kept

    found = items(folder, workers)
    return ["".join(part.marker + part.text for part in item.record.parts) if isinstance(item, Kept) else "" for item in found]


def items(folder: Path, workers: int) -> Iterator[Item]:
    """Yield what this builder makes of a folder."""
    from data_prep.pool import start_server

    start_server(["data_prep.notebooks"], workers)
    from data_prep.kinds import Setting, open_kind

    mapping = {"kind": "notebooks", "path": str(folder), "rules": {"preset": "none"}}
    return open_kind("notebooks", mapping, "benchmark", Setting(workers=workers)).items()


def build_plainly(folder: Path, workers: int) -> list[str]:
    """Return the documents of a folder by nbformat and datasets.map; nothing is taken from a cache."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        paths = datasets.Dataset.from_dict({"path": [str(path) for path in sorted(folder.rglob("*.ipynb"))]})
        cache = {"load_from_cache_file": False, "cache_file_name": f"{scratch}/cache.arrow"}
        return paths.map(plain_document, num_proc=workers, **cache)["text"][:]


def plain_document(row: dict) -> dict:
    """Return a notebook's text, and the digest of its file, as the obvious program makes them."""
    import nbformat

    data = Path(row["path"]).read_bytes()
    text = ""
    for cell in nbformat.reads(data.decode(), as_version=4).cells:
        source = without_data(cell.source.replace("\r\n", "\n").replace("\r", "\n")).strip("\n").rstrip()
        if not source:
            continue
        if cell.cell_type != "code":
            text += f"<jupyter_text>{source}"
            continue
        shown = "\n".join(filter(None, map(plain_output, cell.outputs)))
        text += f"<jupyter_code>{source}" + (f"<jupyter_output>{shown}" if shown else "<empty_output>")
    return {"text": f"<jupyter_start>{text}" if text else "", "sha256": hashlib.sha256(data).hexdigest()}


def plain_output(output: dict) -> str:
    """Return an output's text."""
    kind = output["output_type"]
    text = output["text"] if kind == "stream" else ""
    if kind == "error":
        text = "\n".join(output["traceback"])
    elif kind != "stream":
        text = next((output["data"][mime] for mime in ("text/plain", "text/markdown", "text/latex") if mime in output["data"]), "")
        rich = any(mime.startswith(("image/", "application/")) or mime == "text/html" for mime in output["data"])
        if _FIGURE.fullmatch(text.strip()) or (rich and _REPR.fullmatch(text.strip())):
            return ""
    text = _ESCAPE.sub("", text)
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        row = ""
        for piece in line.split("\r"):
            row = piece + row[len(piece) :]
        lines.append(row)
    text = without_data("\n".join(lines)).strip("\n").rstrip()
    if len(text) <= 1000:
        return text
    return f"[...]{text[-1000:]}" if kind == "error" else f"{text[:1000]}[...]"


def without_data(text: str) -> str:
    """Return a text without base64: that of ``data:`` addresses, and long runs."""
    return _BASE64.sub("[...]", _INLINE.sub(r"\1[...]", text))


def several(folder: Path, times: int, target: Path) -> Path:
    """Return a folder that holds another one several times."""
    for number in range(times):
        shutil.copytree(folder, target / str(number))
    return target


def peak_bytes(folder: Path, workers: int) -> int:
    """Return the largest sum of the resident memory of this process and its children while it builds."""
    import threading

    import psutil

    stop, peak = threading.Event(), 0

    def watch() -> None:
        nonlocal peak
        process = psutil.Process()
        while not stop.wait(0.01):
            found = 0
            for member in (process, *process.children(recursive=True)):
                try:
                    found += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, found)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in items(folder, workers):
        pass
    stop.set()
    watcher.join()
    return peak


def make_folder(folder: Path, count: int) -> Path:
    """Return a folder of notebooks as people write them: text, code, tables, a plot in every third cell, a traceback now and then."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    for number in range(count):
        cells = [cell for step in range(rng.randint(5, 30)) for cell in make_cells(rng, step)]
        metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        notebook = {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": cells}
        (folder / f"{number:05}.ipynb").write_text(json.dumps(notebook, indent=1), encoding="utf-8")
    return folder


def make_cells(rng: random.Random, step: int) -> list[dict]:
    """Return a text cell and a code cell with its outputs, as Jupyter saves them: lists of lines."""
    text = [" ".join(rng.choices(WORDS, k=rng.randint(5, 40))) + "\n" for _ in range(rng.randint(1, 6))]
    code = [f"column_{rng.randint(0, 99)} = frame['{rng.choice(WORDS)}'].rolling({line}).mean()\n" for line in range(1, rng.randint(2, 15))]
    table = "\n".join("  ".join(f"{rng.random():8.4f}" for _ in range(6)) for _ in range(rng.randint(2, 30)))
    data = {"text/plain": table.splitlines(keepends=True), "text/html": [f"<tr><td>{row}</td></tr>\n" for row in table.splitlines()]}
    outputs = [{"output_type": "execute_result", "execution_count": step, "metadata": {}, "data": data}]
    if step % 3 == 0:
        image = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=rng.randint(5_000, 40_000)))
        figure = {"image/png": image, "text/plain": ["<Figure size 640x480 with 1 Axes>"]}
        outputs.append({"output_type": "display_data", "metadata": {}, "data": figure})
    if step % 9 == 8:
        lines = [f"\x1b[0;32m----> {n}\x1b[0m {line.rstrip()}" for n, line in enumerate(code)]
        outputs.append({"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": [*lines, "KeyError: 'x'"]})
    return [
        {"cell_type": "markdown", "metadata": {}, "source": text},
        {"cell_type": "code", "execution_count": step, "metadata": {}, "source": code, "outputs": outputs},
    ]


if __name__ == "__main__":
    sys.exit(main())
