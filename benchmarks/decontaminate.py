"""Decontamination beside others: speed of each matcher on one core, what each finds of changed problems, and what it takes of honest code.

    python benchmarks/decontaminate.py --benchmarks FOLDER --megabytes 60 --rounds 3 [--datatrove PYTHON]

FOLDER holds problems as published (HumanEval.jsonl.gz, HumanEvalPlus.jsonl.gz, MbppPlus.jsonl.gz, humanevalpack-*.jsonl.gz); without it
made-up ones are taken, which say nothing of recall. The texts are Python files of what is installed. All sides are measured in turns, by
processor time, on the same texts, in one thread; slow ones on the first part of them. ``--datatrove`` names a Python that has datatrove and
spaCy: its filter runs there, with an index of the same texts.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_prep.benchmark_items import Benchmark, Item, read_benchmark
from data_prep.decontaminate import DecontaminationRules, Matcher, build_matcher
from data_prep.verbatim import MIN_BYTES, bare

MADE_UP = str(Path(__file__).parent.parent / "tests")
FILES = {
    "humaneval": "HumanEval.jsonl.gz",
    "humaneval+": "HumanEvalPlus.jsonl.gz",
    "mbpp+": "MbppPlus.jsonl.gz",
    "humanevalpack": "humanevalpack-*.jsonl.gz",
}
SLOW_BYTES = 1_000_000
"""What the slow peers are measured on."""

DATATROVE = """
import json, sys, tempfile, time
import numpy as np
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.utils.text import ngrams, simplify_text
given = json.load(sys.stdin)
folder, config = tempfile.mkdtemp(), NGramsDecontConfig()
step = NGramsDecontFilter(folder, config)
words = lambda text: step.tokenizer.word_tokenize(simplify_text(text, config.norm_config))
hashes = {step.hash_func(" ".join(gram)) for text in given["needles"] for gram in ngrams(words(text), config.n_grams)}
np.array(sorted(hashes), dtype=config.hash_config.np_descr).tofile(folder + "/all.index.hashes")
step.filter(Document(text="one", id="0"))
begin = time.process_time()
hits = sum(step.filter(Document(text=text, id="0")) is not True for text in given["texts"])
print(json.dumps([time.process_time() - begin, hits]))
"""


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--benchmarks", type=Path, default=os.environ.get("STARCHAT_BENCHMARKS"))
    arguments.add_argument("--megabytes", type=int, default=60)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--datatrove")
    arguments.add_argument("--corpus", type=Path, nargs="*", default=[Path(sysconfig.get_paths()["purelib"])])
    options = arguments.parse_args()
    items = problems(options.benchmarks)
    texts = corpus(options.corpus, options.megabytes * 1_000_000)
    begin = time.process_time()
    matcher = build_matcher(DecontaminationRules((Benchmark("any", "any"),)), items)
    size = sum(len(text.encode()) for text in texts)
    took_s = time.process_time() - begin
    print(f"{len(items):,} problems, {len(matcher.unused):,} of their texts not looked for by some matcher; {took_s:.1f} s to build")
    print(f"{len(texts):,} files, {size / 1e6:.0f} MB\n")
    speed(matcher, items, texts, options.rounds, options.datatrove)
    print()
    recall(items)
    print()
    honest(matcher, texts)


def problems(folder: Path | None) -> list[Item]:
    """Return the published problems in a folder, or a few made-up ones."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made_up:
            return read_benchmark(Benchmark("humaneval", made_up_benchmark().write_problems(Path(made_up))), "benchmark")
    return [item for name, file in FILES.items() for item in read_benchmark(Benchmark(name, str(Path(folder) / file)), "benchmark")]


def made_up_benchmark() -> Any:
    """Return the tests' module with problems of our own and a way to rename Python."""
    if MADE_UP not in sys.path:
        sys.path.insert(0, MADE_UP)
    return importlib.import_module("made_up_benchmark")


def corpus(folders: Sequence[Path], size_bytes: int) -> list[str]:
    """Return installed Python files, in an order that depends on their names alone, up to a size."""
    paths = sorted(path for folder in folders for path in folder.rglob("*.py"))
    random.Random(0).shuffle(paths)
    texts, total = [], 0
    for path in paths:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        total += len(texts[-1])
        if total >= size_bytes:
            break
    return texts


def speed(matcher: Matcher, items: Sequence[Item], texts: Sequence[str], rounds: int, datatrove: str | None) -> None:
    """Print MB/s of every way, measured in turns."""
    needles = [needle.text for item in items for needle in item.needles]
    ways: dict[str, tuple[Callable[[str], bool], bool]] = {
        "verbatim": (lambda text: bool(matcher.verbatim.found(text.encode())), False),
        "verbatim, without numba": (lambda text: bool(matcher.verbatim.found(text.encode(), "numpy")), False),
        "verbatim, ahocorasick_rs": (aho_corasick(matcher), False),
        "verbatim, a loop of substrings": (substrings(matcher), True),
        "n-grams": (lambda text: bool(matcher.words.shared(text.encode(), 0.05)), False),
        "n-grams, without numba": (lambda text: bool(matcher.words.shared(text.encode(), 0.05, "numpy")), True),
        "n-grams, a Python set": (python_grams(needles), True),
        "canonical Python": (lambda text: bool(list(matcher._functions(text, None))), False),
        "all three": (lambda text: bool(matcher.match(text, [text])), False),
        "all three, without numba": (lambda text: bool(matcher.match(text, [text], "numpy")), True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (way, slow) in ways.items():
            part = few(texts) if slow else texts
            way("a first text, for which kernels are compiled")
            begin = time.process_time()
            for text in part:
                way(text)
            times[name].append(sum(len(text.encode()) for text in part) / (time.process_time() - begin) / 1e6)
        if datatrove:
            given = json.dumps({"needles": needles, "texts": few(texts)})
            done = subprocess.run([datatrove, "-c", DATATROVE], input=given, capture_output=True, text=True, check=True)
            seconds, _ = json.loads(done.stdout.strip().splitlines()[-1])
            times.setdefault("n-grams, datatrove", []).append(sum(len(text.encode()) for text in few(texts)) / seconds / 1e6)
    print(f"MB/s of one core by processor time, median of {rounds} (range)")
    for name, found in times.items():
        base = "verbatim" if name.startswith("verbatim") else "all three" if name.startswith("all") else "n-grams"
        ratio = statistics.median(ours / theirs for ours, theirs in zip(times[base], found, strict=True))
        compared = "" if name == base or name == "canonical Python" else f"  {base} is {ratio:.1f} times as fast"
        print(f"  {name:<32}{statistics.median(found):8.1f}  ({min(found):.1f} to {max(found):.1f}){compared}")


def few(texts: Sequence[str]) -> Sequence[str]:
    """Return as many of the first texts as the slow ways are measured on."""
    total, count = 0, 0
    while count < len(texts) and total < SLOW_BYTES:
        total += len(texts[count])
        count += 1
    return texts[:count]


def aho_corasick(matcher: Matcher) -> Callable[[str], bool]:
    """Return the same search by an automaton, white space taken out of the text first."""
    import ahocorasick_rs

    automaton = ahocorasick_rs.BytesAhoCorasick(list(matcher.verbatim.needles))
    return lambda text: bool(automaton.find_matches_as_indexes(bare(text.encode())))


def substrings(matcher: Matcher) -> Callable[[str], bool]:
    """Return the search that asks for one needle after the other, as bigcode-dataset does."""
    needles = [needle.decode("utf-8", "surrogatepass").lower() for needle in matcher.verbatim.needles]

    def way(text: str) -> bool:
        lowered = "".join(text.split()).lower()
        return any(needle in lowered for needle in needles)

    return way


def python_grams(needles: Sequence[str]) -> Callable[[str], bool]:
    """Return the search for 12-grams of words in a Python set."""
    word = re.compile(r"\w+")

    def grams(text: str) -> set[tuple[str, ...]]:
        words = word.findall(text.lower())
        return set(zip(*(words[i:] for i in range(12)), strict=False))

    wanted = set().union(*map(grams, needles))
    return lambda text: not wanted.isdisjoint(grams(text))


def recall(items: Sequence[Item]) -> None:
    """Print the share of problems that each matcher finds of changed texts, by the field that is changed."""
    rng = random.Random(0)
    forms: dict[str, Callable[[Item, str, str], str | None]] = {
        "as it is": lambda item, field, text: text,
        "re-indented": lambda item, field, text: "\n".join("      " + line for line in text.splitlines()),
        "5 % of words changed": lambda item, field, text: edited(text, 0.05, rng),
        "10 % of words changed": lambda item, field, text: edited(text, 0.10, rng),
        "first half": lambda item, field, text: text[: len(text) // 2],
        "laid out by ast.unparse": lambda item, field, text: ast.unparse(ast.parse(item.programs[0])) if is_program(item, field) else None,
        "renamed": lambda item, field, text: made_up_benchmark().renamed(item.programs[0]) if is_program(item, field) else None,
    }
    for size in (12, 8):
        matcher = build_matcher(DecontaminationRules((Benchmark("any", "any"),), ngram_words=size), items)
        print(f"recall in %: verbatim / n-grams of {size} words / canonical Python / any; of all texts of a field, short ones too")
        for field in ("prompt", "solution", "tests"):
            for name, form in forms.items():
                print(f"  {field:<9} {name:<24} {recalled(matcher, items, field, form)}")


def recalled(matcher: Matcher, items: Sequence[Item], field: str, form: Callable[[Item, str, str], str | None]) -> str:
    """Return in how many texts of a field each matcher finds the problem after a change."""
    total, counts = 0, dict.fromkeys(("verbatim", "ngrams", "python", "any"), 0)
    for item in items:
        for needle in item.needles:
            changed = form(item, field, needle.text) if needle.field == field else None
            if changed is None:
                continue
            program = f"def solution():\n{changed}" if field == "solution" and changed[:1] in " \t" else changed
            matches = matcher.match(f"Some words before.\n{changed}\nAnd after.", [program])
            found = {
                match.matcher for match in matches if match.contaminated and (match.benchmark, match.item) == (item.benchmark, item.id)
            }
            total += 1
            for name in (*found, *(["any"] if found else [])):
                counts[name] += 1
    return " / ".join(f"{100 * count / total:3.0f}" for count in counts.values()) + f"  of {total:,}" if total else "none"


def edited(text: str, share: float, rng: random.Random) -> str:
    """Return a text with some of its words, as white space parts them, replaced."""
    return re.sub(r"\S+", lambda match: f"other{rng.randrange(99)}" if rng.random() < share else match[0], text)


def is_program(item: Item, field: str) -> bool:
    """Return whether a solution is Python with a function."""
    return field == "solution" and bool(item.programs) and "def " in item.programs[0]


def honest(matcher: Matcher, texts: Sequence[str]) -> None:
    """Print what is found in installed code, which holds no problems but by chance: each is to be looked at."""
    dropped, near = 0, 0
    assert all(len(needle) >= MIN_BYTES for needle in matcher.verbatim.needles)
    for text in texts:
        matches = matcher.match(text, [text])
        dropped += any(match.contaminated for match in matches)
        near += bool(matches) and not matches[0].contaminated
        for match in matches:
            if match.contaminated:
                print(f"  {match.detail()}")
    print(f"of {len(texts):,} installed files {dropped} would be dropped, {near} are near misses")


if __name__ == "__main__":
    main()
