"""Secrets: precision and recall of each kind on the labelled set, and speed on installed source files, beside peers.

    python benchmarks/secret_detection.py --megabytes 60 --rounds 3 --peers /path/of/peers/bin/python --bigcode bigcode-dataset/pii
    python benchmarks/secret_detection.py --fuzz 10000

The labelled set is made by ``tests/secret_cases.py``. A secret counts as found where a find covers at least half of it, for everybody; a
find that touches no secret is wrong. Times are of one process, on processor time; tools take turns, the median of the rounds counts. Peers
that are slower than 1 MB/s get a sample of the corpus.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import statistics
import subprocess
import sys
import sysconfig
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent))

from data_prep.detect import Detector, installed_engines
from secret_cases import Case, labelled_cases

ENDINGS = (
    ".py",
    ".pyi",
    ".js",
    ".ts",
    ".h",
    ".hpp",
    ".c",
    ".cpp",
    ".css",
    ".json",
    ".md",
    ".rst",
    ".txt",
    ".yaml",
    ".yml",
    ".toml",
    ".html",
)
SUFFIXES = {
    "Python": ".py",
    "JavaScript": ".js",
    "YAML": ".yaml",
    "INI": ".ini",
    "JSON": ".json",
    "Java": ".java",
    "Go": ".go",
    "Shell": ".sh",
}
MAX_FILE_BYTES = 2_000_000
Finds = Sequence[Sequence[int]]


def corpus(megabytes: float, seed: int = 0) -> list[str]:
    """Return installed source files in a fixed random order, until there are as many characters as wanted."""
    roots = {sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), "/usr/include", "/usr/share"}
    paths = sorted(path for root in roots for path in Path(root).rglob("*") if path.suffix in ENDINGS)
    random.Random(seed).shuffle(paths)
    texts, total = [], 0
    for path in paths:
        if total >= megabytes * 1e6:
            break
        if path.is_file() and not path.is_symlink() and 0 < path.stat().st_size < MAX_FILE_BYTES:
            texts.append(path.read_bytes().decode("utf-8", "replace"))
            total += len(texts[-1])
    return texts


def own_finds(texts: Sequence[str], engine: str) -> tuple[list[Finds], float]:
    """Return our finds of each text, and the seconds that they took."""
    detector = Detector(engine=engine)
    detector.find("x")
    begin = time.process_time()
    finds = [detector.find(text) for text in texts]
    return [[span[:2] for span in found] for found in finds], time.process_time() - begin


def peer_finds(texts: Sequence[str], suffixes: Sequence[str], peer: str, python: str, folder: str | None) -> tuple[list[Finds], float]:
    """Return a peer's finds of each text, and the seconds that they took; texts that it failed at have none."""
    rows = "".join(json.dumps({"text": text, "suffix": suffix}) + "\n" for text, suffix in zip(texts, suffixes, strict=True))
    program = [python, str(Path(__file__).with_name("secret_peers.py").resolve()), peer]
    done = subprocess.run(program, input=rows, capture_output=True, text=True, check=True, cwd=folder)
    *lines, spent = done.stdout.splitlines()
    finds = [json.loads(line) for line in lines]
    failed = [found for found in finds if found and found[0][0] == "failed"]
    if failed:
        print(f"  {peer} failed at {len(failed)} texts, first: {failed[0][0][1]}", file=sys.stderr)
    return [[] if found in failed else found for found in finds], float(spent)


def score(cases: Sequence[Case], finds: Sequence[Finds]) -> dict[str, tuple[int, int, int]]:
    """Return hits, misses and wrong finds of each kind; wrong finds in a negative count for the shape that it has."""
    table: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for case, found in zip(cases, finds, strict=True):
        for start, end in case.spans:
            hit = any(min(end, span[1]) - max(start, span[0]) >= (end - start) / 2 for span in found)
            table[case.kind][not hit] += 1
        touching = [any(span[0] < end and start < span[1] for start, end in case.spans) for span in found]
        table[case.kind][2] += touching.count(False)
    return {kind: (row[0], row[1], row[2]) for kind, row in sorted(table.items())}


def quality(cases: Sequence[Case], tools: dict[str, list[Finds]]) -> str:
    """Return the table of recall, of each kind and tool, with precision over all."""
    scores = {name: score(cases, finds) for name, finds in tools.items()}
    kinds = sorted({case.kind for case in cases if case.is_positive})
    lines = [f"{'recall of':28}{'cases':>7}" + "".join(f"{name:>16}" for name in tools)]
    for kind in kinds:
        count = sum(scores[next(iter(tools))][kind][:2])
        lines.append(f"{kind:28}{count:>7}" + "".join(f"{scores[name][kind][0] / count:>16.3f}" for name in tools))
    totals = {name: [sum(row[i] for row in scores[name].values()) for i in range(3)] for name in tools}
    lines.append(f"{'all: recall':35}" + "".join(f"{hit / (hit + miss):>16.3f}" for hit, miss, _ in totals.values()))
    lines.append(f"{'all: precision':35}" + "".join(f"{hit / max(1, hit + wrong):>16.3f}" for hit, _, wrong in totals.values()))
    lines.append(f"{'wrong finds':35}" + "".join(f"{wrong:>16}" for _, _, wrong in totals.values()))
    for name in tools:
        worst = sorted(((row[2], kind) for kind, row in scores[name].items() if row[2]), reverse=True)[:8]
        lines.append(f"wrong finds of {name}: {', '.join(f'{kind} {count}' for count, kind in worst) or 'none'}")
    return "\n".join(lines)


def speed(options: argparse.Namespace) -> str:
    """Return the table of MB/s, with the tools taking turns."""
    texts = corpus(options.megabytes)
    total = sum(map(len, texts)) / 1e6
    sample, size = [], 0.0
    for text in texts:
        if size >= options.sample_megabytes:
            break
        if len(text) < 100_000:
            sample.append(text)
            size += len(text) / 1e6
    times: dict[str, list[float]] = collections.defaultdict(list)
    results = {}
    for _ in range(options.rounds):
        for engine in installed_engines():
            results[engine], spent = own_finds(texts, engine)
            times[engine].append(total / spent)
        for peer, folder in peers_of(options).items():
            _, spent = peer_finds(sample, [".txt"] * len(sample), peer, options.peers, folder)
            times[peer].append(size / spent)
    assert all(found == results["plain"] for found in results.values()), "every engine finds the same"
    best = statistics.median(times[installed_engines()[0]])
    lines = [f"{total:.0f} MB in {len(texts):,} files, {sum(map(len, results['plain']))} finds; peers: {size:.1f} MB"]
    for name, rates in times.items():
        middle = statistics.median(rates)
        spread = f"({min(rates):.2f} to {max(rates):.2f})"
        lines.append(f"{name:16}{middle:>9.2f} MB/s a core {spread}; {installed_engines()[0]} is {best / middle:.1f} times")
    return "\n".join(lines)


def peers_of(options: argparse.Namespace) -> dict[str, str | None]:
    """Return the peers that can be run, and the folder of each."""
    peers: dict[str, str | None] = {"detect-secrets": None} if options.peers else {}
    return {**peers, "bigcode": options.bigcode} if options.peers and options.bigcode else peers


def fuzz(count: int, seed: int) -> int:
    """Hold the laws to damaged texts; return the number of failures."""
    from fuzz_secrets import mutant, require_sound

    failures, replaced, begin = 0, 0, time.monotonic()
    for number in range(count):
        text = mutant(random.Random(f"{seed}:{number}"))
        try:
            replaced += len(require_sound(text).replacements)
        except Exception:  # noqa: BLE001  # any escape at all is the finding
            failures += 1
            print(f"--- mutant {number} of seed {seed}: {text[:200]!r}", traceback.format_exc(), sep="\n", file=sys.stderr)
    spent = time.monotonic() - begin
    print(f"secrets: {count:,} mutants, seed {seed}, {failures} failures, {replaced:,} replacements, {spent:.0f} s")
    return failures


def main() -> int:
    """Print what was asked for."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=float, default=60)
    arguments.add_argument("--sample-megabytes", type=float, default=1, help="for peers")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--peers", default=None, help="a Python with detect-secrets, gibberish-detector and regex")
    arguments.add_argument("--bigcode", default=None, help="the folder pii of a checkout of bigcode-dataset")
    arguments.add_argument("--fuzz", type=int, default=None, help="only this: a number of damaged texts")
    options = arguments.parse_args()
    if options.fuzz is not None:
        return 1 if fuzz(options.fuzz, options.seed) else 0
    cases = labelled_cases(options.seed)
    texts, suffixes = [case.text for case in cases], [SUFFIXES.get(case.language, ".txt") for case in cases]
    tools = {"starchat": own_finds(texts, installed_engines()[0])[0]}
    for peer, folder in peers_of(options).items():
        tools[peer] = peer_finds(texts, suffixes, peer, options.peers, folder)[0]
    languages = len({case.language for case in cases if case.is_positive})
    print(f"{len(cases):,} cases, {sum(case.is_positive for case in cases):,} with a secret, {languages} languages and formats")
    print(quality(cases, tools))
    print(speed(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
