"""A corpus for `benchmarks/near_duplicates.py`: text files of this machine, each content once, and damaged copies whose truth is known.

    python benchmarks/near_duplicate_corpus.py FOLDER --megabytes 318

Writes ``part-0.jsonl`` and so on, rows of ``{"id": number, "text": text}`` in a random order, and ``truth.json``, the pairs of original
and copy. The files are the standard libraries of all Pythons beside the running one, its installed packages, C headers and documentation:
many are versions of each other, which is harder than what a crawl holds. A copy has 1 to 10 % of its lines changed, or a licence header
added, or some of its names changed throughout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

GROUPS = (
    (0.60, [f"{Path(sys.base_prefix).parent}/*/lib/python?.*", "/usr/lib/python3*"]),
    (0.15, [f"{sys.prefix}/lib/python*/site-packages"]),
    (0.15, ["/usr/include"]),
    (0.10, ["/usr/share/doc", "/usr/share/perl", "/usr/share/cmake*", "/usr/lib/node_modules"]),
)
"""Shares of the corpus, and the folders that they come from."""

SUFFIXES = {".py", ".h", ".hpp", ".c", ".js", ".ts", ".md", ".rst", ".txt", ".html", ".sh", ".pl", ".pm", ".cmake", ".pyi", ".json", ".css"}
MIN_BYTES, MAX_BYTES = 100, 100_000
HEADER = (
    "Copyright {year} the {name} authors, {name} foundation and whoever else took part",
    "This file is part of {name}. It may be used, changed and given away by anybody,",
    "as long as this notice stays with it; {name} comes without warranty of any kind,",
    "neither that it is fit for a purpose nor that it does no harm. See the file NOTICE.",
)
NAME = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]{3,}\b")


def main() -> int:
    """Write the corpus."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--megabytes", type=float, default=318)
    arguments.add_argument("--copies", type=int, default=5000)
    arguments.add_argument("--parts", type=int, default=8)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    rng = random.Random(options.seed)
    texts = list(gather(options.megabytes * 1e6 * 0.88))  # copies are the rest
    copies = inject(texts, options.copies, rng)
    order = list(range(len(texts)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    options.folder.mkdir(parents=True, exist_ok=True)
    for part in range(options.parts):
        chosen = range(len(order) * part // options.parts, len(order) * (part + 1) // options.parts)
        with open(options.folder / f"part-{part}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": new, "text": texts[order[new]]}, ensure_ascii=False) + "\n" for new in chosen)
    truth = sorted((place[original], place[copy]) for original, copy in copies)
    (options.folder / "truth.json").write_text(json.dumps(truth))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} files, {megabytes:.1f} MB, {len(copies):,} copies")
    return 0


def gather(max_bytes: float) -> Iterator[str]:
    """Yield the texts of files, each once; a group that has too few leaves its share to the next."""
    seen: set[bytes] = set()
    due = 0.0
    for share, patterns in GROUPS:
        due += share * max_bytes
        for path in (
            path for pattern in patterns for root in sorted(Path("/").glob(pattern[1:])) for path in files(root, "site-" in pattern)
        ):
            if due <= 0:
                break
            try:
                content = path.read_bytes()
                text = content.decode()
            except (OSError, UnicodeDecodeError):
                continue
            digest = hashlib.blake2b(content, digest_size=16).digest()
            if digest not in seen and "\0" not in text:
                seen.add(digest)
                due -= len(content)
                yield text


def files(root: Path, packages: bool) -> Iterator[Path]:
    """Yield the files of a folder, without installed packages unless they are meant."""
    for path in sorted(root.rglob("*")):
        below = path.relative_to(root).parts
        wanted = path.suffix in SUFFIXES and (packages or "site-packages" not in below) and path.is_file() and not path.is_symlink()
        if wanted and MIN_BYTES <= path.stat().st_size <= MAX_BYTES:
            yield path


def inject(texts: list[str], count: int, rng: random.Random) -> list[tuple[int, int]]:
    """Add damaged copies of some texts, and return the pairs of places."""
    seen = set(texts)
    fit = [number for number, text in enumerate(texts) if 1000 <= len(text) <= 30_000 and text.count("\n") >= 20]
    pairs = []
    for original in rng.sample(fit, min(count, len(fit))):
        copy = rng.choice((with_edits, with_header, with_renames))(texts[original], texts, rng)
        if copy not in seen:
            seen.add(copy)
            pairs.append((original, len(texts)))
            texts.append(copy)
    return pairs


def with_edits(text: str, texts: list[str], rng: random.Random) -> str:
    """Return a text with 1 to 10 % of its lines removed, doubled or taken from elsewhere."""
    lines = text.splitlines(keepends=True)
    elsewhere = rng.choice(texts).splitlines(keepends=True)
    for number in rng.sample(range(len(lines)), max(1, round(len(lines) * rng.uniform(0.01, 0.10)))):
        lines[number] = rng.choice(("", 2 * lines[number], rng.choice(elsewhere)))
    return "".join(lines)


def with_header(text: str, texts: list[str], rng: random.Random) -> str:
    """Return a text below a notice."""
    mark = rng.choice(("# ", "// ", " * ", "-- "))
    name = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7))
    return "".join(f"{mark}{line.format(year=rng.randint(1990, 2025), name=name)}\n" for line in HEADER) + "\n" + text


def with_renames(text: str, texts: list[str], rng: random.Random) -> str:
    """Return a text with one to three of its names changed throughout, which are in at most a fiftieth of its places."""
    counts = Counter(NAME.findall(text))
    rare = sorted(name for name, count in counts.items() if 2 <= count <= max(2, counts.total() / 50)) or sorted(counts)
    changed = {name: f"{name}_{rng.randrange(100)}" for name in rng.sample(rare, min(len(rare), rng.randint(1, 3)))}
    return NAME.sub(lambda found: changed.get(found[0], found[0]), text)


if __name__ == "__main__":
    sys.exit(main())
