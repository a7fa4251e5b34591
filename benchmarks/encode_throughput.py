"""How fast dialogues are read and encoded, against HF tokenizers alone on the same texts.

    python benchmarks/encode_throughput.py [--dialogues 20000] [--runs 5]

Ours: JSON Lines of ``messages`` through the reader of ``starchat prepare`` (checks and repairs included), the renderer and the
encoder, to rows of ids and labels. Alone: HF tokenizers' ``encode_batch_fast`` over all the messages' texts at once, to ids. Engine:
the same texts to the same ids as our encoder gets them, from fastokens where it is installed, proof included. All take turns, so
that a busy machine slows each; MB are of the texts in UTF-8. Where other programs hold the cores, wall time says little and the
ratio of processor time says more; ``RAYON_NUM_THREADS=1 taskset -c 1`` pins all to one core.

The dialogues are the embedded ones with a fifth of their words exchanged at random, so that no cache sees a text twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from data_prep.dialogues import DialoguesSpec, build_dialogues, find_dialogues
from data_prep.records import Kept
from data_prep.sources import Row, find_tables, read_table
from starchat.encode import encode_dialogues
from starchat.faster_tokenizer import by_hf
from starchat.hub import resolve_model
from starchat.template import find_template
from starchat.tokens import Tokens, load_tokens

TARGET_RATIO, TARGET_ENGINE_RATIO = 0.8, 2.0
EXCHANGED = 0.2
MAX_LENGTH_TOKENS = 1024
WORD = re.compile(r"\b[a-z]{4,}\b")


def write_dialogues(path: Path, count: int) -> None:
    """Write `count` dialogues made from the embedded ones."""
    tables = find_tables(str(Path(str(resolve_model("nano"))).parent / "dialogues" / "*.jsonl"))
    sources = [row.value["messages"] for table in tables for row in read_table(table) if isinstance(row, Row)]
    words = sorted({word for messages in sources for m in messages for word in WORD.findall(m["content"])})
    rng = random.Random(0)

    def varied(text: str) -> str:
        return WORD.sub(lambda match: rng.choice(words) if rng.random() < EXCHANGED else match[0], text)

    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            messages = [{**m, "content": varied(m["content"])} for m in sources[number % len(sources)]]
            file.write(json.dumps({"messages": messages}) + "\n")


def read_texts(path: Path) -> list[str]:
    """Return the text of every message."""
    with path.open(encoding="utf-8") as file:
        return [message["content"] for line in file for message in json.loads(line)["messages"]]


def encode_all(path: Path, tokens: Tokens) -> int:
    """Read and encode the file; return the number of rows."""
    spec = DialoguesSpec(path=str(path))
    records = (item.record for item in build_dialogues(spec, find_dialogues(spec)) if isinstance(item, Kept))
    return sum(1 for _ in encode_dialogues(records, tokens, MAX_LENGTH_TOKENS))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall time and processor time of all threads, in seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def report(name: str, rates: list[float], unit: str) -> str:
    """Return a line with median, least and greatest of some runs."""
    return f"{name:34} median {statistics.median(rates):6.2f}{unit}   {min(rates):.2f} to {max(rates):.2f}"


def main() -> None:
    """Run both in turns and print rates and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dialogues", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    tokens = load_tokens(resolve_model("nano"), find_template("starchat"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chats.jsonl"
        write_dialogues(path, options.dialogues)
        texts = read_texts(path)
        megabytes = sum(len(text.encode("utf-8")) for text in texts) / 1e6
        cores = len(os.sched_getaffinity(0))
        sizes = f"{options.dialogues:,} dialogues, {len(texts):,} texts, {megabytes:.1f} MB"
        print(f"{sizes}, {cores} cores, load {os.getloadavg()[0]:.1f}", flush=True)
        encode_all(path, tokens)
        assert tokens.encode_texts(texts) == by_hf(tokens.plain, texts), "other ids than HF tokenizers'"
        alone, engine, ours = [], [], []
        for _ in range(options.runs):
            alone.append(timed(lambda: by_hf(tokens.plain, texts)))
            engine.append(timed(lambda: tokens.encode_texts(texts)))
            ours.append(timed(lambda: encode_all(path, tokens)))
    for name, spent in (("HF tokenizers alone", alone), ("engine", engine), ("read and encode", ours)):
        print(report(name, [megabytes / wall for wall, _ in spent], " MB/s"))
    for name, spent in (("engine", engine), ("read and encode", ours)):
        for clock, which in (("time", 0), ("processor time", 1)):
            print(report(f"{name} of alone, {clock}", [a[which] / o[which] for a, o in zip(alone, spent, strict=True)], ""))
    has = "fastokens" if tokens.engine is not None else "HF tokenizers"
    print(f"the engine is {has}; wanted: engine {TARGET_ENGINE_RATIO:.1f}, read and encode {TARGET_RATIO:.1f}")


if __name__ == "__main__":
    main()
