"""How fast and how tightly rows are packed, against TRL's ``pack_dataset`` on the same rows.

    python benchmarks/packing.py [--rows 100000] [--capacity 2048] [--runs 3]

Four kinds of lengths: dialogues (lognormal, median 363), code files (lognormal, median 987, over a quarter above 2,048), uniform, and
those of the standard library's files and the embedded dialogues under the embedded tokenizer, drawn with repetition. Ours and TRL's
take turns. Rates are of rows before cutting.

"groups": rows above the capacity are cut, all rows are packed at once. That is what a run does: its collator reads packed rows where
they lie. "copied": the tokens are then copied together, into memory that was there before; TRL's ``bfd_split`` does so too, 1,000 rows at
a time. TRL's default, ``bfd``, is there for the tokens that it loses. Fills are held against the most that
any packing of these rows can have.
"""

from __future__ import annotations

import argparse
import collections
import os
import statistics
import sysconfig
import time
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from trl import pack_dataset

from starchat.hub import resolve_model
from starchat.pack import Groups, pack
from starchat.template import find_template
from starchat.tokens import load_tokens

TARGET_RATIO = 15.0
TARGET_FILL = 0.9997
CODE_FILES = 600

Lengths = npt.NDArray[np.int64]


def length_kinds(rows: int, capacity: int) -> dict[str, Lengths]:
    """Return the lengths of `rows` rows of each kind, those of code above the capacity too."""
    rng = np.random.default_rng(0)
    real = real_lengths()
    return {
        "dialogues": np.maximum(1, rng.lognormal(np.log(363), 1.0, rows)).astype(np.int64),
        "code": np.maximum(1, rng.lognormal(np.log(987), 1.25, rows)).astype(np.int64),
        "uniform": rng.integers(1, capacity + 1, rows),
        "real": rng.choice(real, rows),
    }


def real_lengths() -> Lengths:
    """Return the token counts of the standard library's files and of the embedded dialogues' lines."""
    nano = resolve_model("nano")
    tokens = load_tokens(nano, find_template("starchat"))
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:CODE_FILES]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    for file in sorted((nano.parent / "dialogues").glob("*.jsonl")):
        texts += file.read_text(encoding="utf-8").splitlines()
    return np.array([len(ids) for ids in tokens.encode_texts([text for text in texts if text])])


def cut(lengths: Lengths, capacity: int) -> Lengths:
    """Return the lengths of the pieces of rows that are cut at every `capacity` tokens."""
    pieces = -(-lengths // capacity)
    out = np.full(int(pieces.sum()), capacity, dtype=np.int64)
    out[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * capacity
    return out


def fewest_groups(pieces: Lengths, capacity: int) -> int:
    """Return a number of groups that no packing goes below: the bound L2 of Martello and Toth (Knapsack Problems, 1990, section 8.3.2).

    Rows above half the capacity share no group with each other, and what of the small rows has no room beside them needs groups too. A
    row counts as small from each length tried.
    """
    counts = np.bincount(pieces, minlength=capacity + 1)
    tokens = counts * np.arange(capacity + 1)
    half = capacity // 2
    bounds = []
    for small in range(half + 1):
        large = counts[half + 1 :].sum()
        beside = slice(half + 1, capacity - small + 1)  # large rows that leave room for small ones
        room = counts[beside].sum() * capacity - tokens[beside].sum()
        bounds.append(large + max(0, -(-(tokens[small : half + 1].sum() - room) // capacity)))
    return int(max(bounds))


def copy(tokens: npt.NDArray[np.int32], pieces: Lengths, groups: Groups, whole: npt.NDArray[np.int32]) -> None:
    """Copy the tokens of all packed rows one after the other into `whole`."""
    stops = np.cumsum(pieces)
    starts = (stops - pieces)[groups.rows].tolist()
    np.concatenate([tokens[start:stop] for start, stop in zip(starts, stops[groups.rows].tolist(), strict=True)], out=whole)


def compare(name: str, lengths: Lengths, capacity: int, runs: int) -> bool:
    """Print the rates, fills and losses on one kind of lengths; return whether ours reaches what is wanted."""
    total, rows = int(lengths.sum()), len(lengths)
    flat = np.arange(total, dtype=np.int32)
    column = pa.LargeListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]), pa.array(flat))
    # A map over a table in memory keeps its result in memory; one over files would be served from datasets' cache the second time.
    table = datasets.Dataset(pa.table({"input_ids": column}))
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    packed: dict[str, tuple[int, int]] = {}  # groups and tokens
    whole = np.zeros_like(flat)
    for _ in range(runs):
        started = time.perf_counter()
        pieces = cut(lengths, capacity)
        groups = pack(pieces, capacity)
        seconds["groups"].append(time.perf_counter() - started)
        copy(flat, pieces, groups, whole)
        seconds["copied"].append(time.perf_counter() - started)
        packed["groups"] = packed["copied"] = (len(groups), len(whole))
        assert np.array_equal(np.sort(whole), flat), "a token is lost or doubled"
        assert np.add.reduceat(pieces[groups.rows], groups.offsets[:-1]).max() <= capacity, "a group is above the capacity"
        for strategy in ("bfd_split", "bfd"):
            started = time.perf_counter()
            theirs = pack_dataset(table, capacity, strategy)
            seconds[f"TRL {strategy}"].append(time.perf_counter() - started)
            packed[f"TRL {strategy}"] = (len(theirs), count_tokens(theirs))
    print(f"{name}: {rows:,} rows, median {int(np.median(lengths)):,}, {np.mean(lengths > capacity):.1%} above {capacity:,} tokens")
    fills = {which: tokens / (count * capacity) for which, (count, tokens) in packed.items()}
    for which, spent in seconds.items():
        rate = rows / statistics.median(spent)
        print(f"  {which:13}{rate:12,.0f} rows/s   fill {fills[which]:.5f}   tokens lost {1 - packed[which][1] / total:.1%}")
    ratios = {which: statistics.median(np.array(seconds["TRL bfd_split"]) / seconds[which]) for which in ("groups", "copied")}
    least = fewest_groups(cut(lengths, capacity), capacity)
    print(f"  of bfd_split's rows/s: groups {ratios['groups']:.1f} times, copied {ratios['copied']:.1f} times", end="; ")
    most = total / (least * capacity)
    print(
        f"{packed['groups'][0] - least} of {packed['groups'][0]:,} groups above the bound, no packing fills more than {most:.5f}",
        flush=True,
    )
    return ratios["groups"] >= TARGET_RATIO and fills["groups"] >= min(TARGET_FILL, most)


def count_tokens(packed: datasets.Dataset) -> int:
    """Return how many tokens a packed data set holds."""
    return int(pc.sum(pc.list_value_length(packed.with_format("arrow")[:]["input_ids"])).as_py())


def main() -> None:
    """Compare on each kind of lengths."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--capacity", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    kinds = length_kinds(options.rows, options.capacity)
    reached = [name for name, lengths in kinds.items() if compare(name, lengths, options.capacity, options.runs)]
    print(
        f"wanted: {TARGET_RATIO:.0f} times bfd_split, fill {TARGET_FILL}; reached on {', '.join(reached) or 'none'} of {', '.join(kinds)}"
    )


if __name__ == "__main__":
    main()
