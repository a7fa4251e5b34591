"""Records of every kind, damaged, through all steps of curation: each is kept, repaired or dropped with a reason, and nothing ends the run.

python tests/fuzz_curate.py --count 10000 --seed 1
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.curate import Curation, curate_item, open_curation
from data_prep.detect import Detector
from data_prep.item_files import ITEMS, LINES, ItemWriter, read_line
from data_prep.kinds import Setting
from data_prep.preferred import compared_text, rank_of
from data_prep.record_texts import code_of, texts_of
from data_prep.records import Dropped, Item, Kept
from fuzzing import run_mutants
from made_up_benchmark import ROWS, write_problems
from secret_cases import labelled_cases
from starchat.dialogue import Part, Record, Source, Turn, from_row, to_row

HOSTILE = (
    *("\0", "\ufdd0", "\u2028", "\r", "\x1b[A", "＂", "\U0001f600", "<|end|>", "<EMAIL>", "```", "```python\n", "'''", "\\", "%s"),
    *("-----BEGIN", "@", "://"),
)
MARKERS = (
    *("", "<filename>", "<reponame>", "<gh_stars>", "<file_sep>", "<repo_name>"),
    *("<commit_before>", "<commit_msg>", "<commit_after>", "<issue_start>"),
)
NAMES = (None, "", "a.py", "x/y.json", "node_modules/a.js", "o/r", "github.com/O/R.git", "ada/x", "é\n.md", "a" * 5000)
DATES = (None, "2026-01-01T00:00:00Z", "2026-01-01", "soon", "0000-99-99", "9999-12-31T23:59:59+14:00")
LICENSES = (None, "MIT", "GPL-3.0-only OR MIT", "NOASSERTION", "()", "LicenseRef-x", "MIT AND", "\0")


def write_items(folder: Path, items: Iterable[Item]) -> None:
    """Write items to a folder, each kept one to be written once to the train split."""
    with ItemWriter(folder) as writer:
        for item in items:
            if isinstance(item, Kept):
                writer.keep(item, to_row(item.record), 0, 1, is_test=False)
            else:
                writer.drop(item)


def read_items(folder: Path) -> Iterator[Item]:
    """Yield the items of a folder."""
    with open(folder / ITEMS, "rb") as file:
        for line in np.load(folder / LINES):
            value = read_line(file, line)
            yield Kept(from_row(value["row"]), tuple(value["repairs"])) if "row" in value else Dropped(**value["dropped"])


def opened(folder: Path) -> Curation:
    """Return a curation with all steps that look at records one by one."""
    (folder / "asked.txt").write_text("ada\nbob/engine\n", encoding="utf-8")
    filters = {"preset": "starcoder2", "refusals": "drop", "unfilled_templates": "drop", "empty_code": "drop", "max_comments": 0.9}
    steps: dict[str, Any] = {
        "opt_out": {"lists": [str(folder / "asked.txt")]},
        "licenses": {"allow": ["permissive", "none", "unknown"]},
        "filters": filters,
        "decontaminate": {"benchmarks": [{"name": "posts", "problems": write_problems(folder)}]},
        "redact": {"drop": ["private_key"]},
    }
    return open_curation(steps, "fuzz", Setting(workers=1))


def text(rng: random.Random, secrets: list[str]) -> str:
    """Return a text of pieces: words, secrets, code, problems of a benchmark, and what breaks things."""
    pieces = []
    for _ in range(rng.choice((0, 1, 1, 2, 4, 8))):
        kind = rng.randrange(7)
        if kind == 0:
            pieces.append(rng.choice(HOSTILE) * rng.choice((1, 1, 2, 50)))
        elif kind == 1:
            pieces.append(rng.choice(secrets))
        elif kind == 2:
            row = rng.choice(ROWS)
            pieces.append(row[rng.choice(("prompt", "canonical_solution", "test"))])
        elif kind == 3:
            pieces.append("".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x3000, 0x9FFF)))) for _ in range(rng.randrange(40))))
        else:
            pieces.append(f"def f{rng.randrange(9)}(x):\n    return x + {rng.randrange(99)}\n" * rng.choice((1, 3, 30)))
    whole = rng.choice(("", "\n", " ")).join(pieces)
    return whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.2 else whole


def mutant(rng: random.Random, secrets: list[str]) -> Item:
    """Return a damaged item."""
    if rng.random() < 0.1:
        return Dropped("broken", rng.choice(NAMES) or "x", text(rng, secrets), text(rng, secrets), fault=rng.random() < 0.5)
    stars, people = rng.choice((None, 0, -5, 10**12)), ("a",) * rng.randrange(3)
    places = [rng.choice(NAMES) for _ in range(4)]
    source = Source(places[0] or "x", *places[1:], None, stars, rng.choice(DATES), people)
    license = rng.choice(LICENSES)
    if rng.random() < 0.5:
        parts = tuple(Part(rng.choice(MARKERS), text(rng, secrets)) for _ in range(rng.randrange(5)))
        return Kept(Record(source, parts=parts, license=license), ("made",))
    roles = rng.choices(("system", "user", "assistant", "tool"), k=rng.randrange(1, 5))
    turns = tuple(Turn(role, text(rng, secrets)) for role in roles)
    rejected = Turn("assistant", text(rng, secrets)) if rng.random() < 0.2 else None
    return Kept(Record(source, turns, license=license, rejected=rejected))


def check(item: Item, curation: Curation, folder: Path) -> str:
    """Send an item through the steps, hold the laws, and return what became of it."""
    found, _ = curate_item(item, curation)
    if isinstance(item, Dropped):
        assert isinstance(found, Dropped)
        assert (found.reason, found.place, found.fault) == (item.reason, item.place, item.fault)
    detector = Detector(curation.secrets.redact if curation.secrets else ())
    if isinstance(found, Kept):
        assert isinstance(item, Kept)
        assert len(texts_of(found.record)) == len(texts_of(item.record))
        assert not any(detector.find(one) for one in texts_of(found.record))
        assert set(item.repairs) <= set(found.repairs)
        assert 0 <= rank_of(found.record, ("license", "stars", "newest")) < 1 << 62
        compared_text(found.record)
        code_of(found.record)
        json.dumps(to_row(found.record))
    else:
        assert not detector.find(found.raw)
        assert not detector.find(found.detail)
    write_items(folder, [found])
    (again,) = read_items(folder)
    assert again == found
    return found.reason if isinstance(found, Dropped) else ", ".join(found.repairs) or "kept"


SECRETS = [case.text for case in labelled_cases(0)]


def main() -> int:
    """Make mutants and count what became of them."""
    with tempfile.TemporaryDirectory() as name:
        steps = opened(Path(name))
        return run_mutants(__doc__, lambda rng: [check(mutant(rng, SECRETS), steps, Path(name))])


if __name__ == "__main__":
    sys.exit(main())
