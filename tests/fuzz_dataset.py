"""Damaged sources of every kind through the whole of prepare, many in one run: units are kept or dropped, whatever the cuts are.

``python tests/fuzz_dataset.py --count 10000 --seed 0`` makes mutants by the thousand, a hundred to a dataset; the suite runs some of them.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

import fuzz_commits
import fuzz_issues
import fuzz_notebooks
import fuzz_pulls
import fuzz_source
import fuzz_source_tables
from data_prep.engines import Engine
from data_prep.kinds import LocalShop, Setting, found_in, open_kind
from data_prep.prepare import prepare
from data_prep.records import Claim, Dropped, Found, Item, Read, encodable
from fuzzing import run_mutants
from made_up_benchmark import PROMPT, SOLUTION, write_problems
from mixed_sources import MAIL, SMALL
from mutate import mutated_bytes, mutated_json
from starchat.dialogue import from_row, to_row
from starchat.errors import UserError

KINDS = {
    "issues": (fuzz_issues.mutant, 12),
    "notebooks": (fuzz_notebooks.mutant, 12),
    "pulls": (fuzz_pulls.mutant, 12),
    "commits": (fuzz_commits.mutant, 2),
    "source": (fuzz_source.mutant, 3),
    "source_tables": (fuzz_source_tables.mutant, 12),
}
"""Who makes damaged sources of a kind, and how many of a hundred mutants are such; the rest are dialogues."""

MUTANTS = 100
CUTS = {name: value for name, value in SMALL.items() if name.rpartition(".")[2] not in ("MAX_FILE_BYTES", "PARTITION_BYTES")}
"""Sizes that change no byte, unlike those of files, and of the partitions in whose order threads and pull requests come."""


def dialogues(rng: random.Random, folder: Path, count: int) -> dict[str, Any]:
    """Write a file of dialogues, some damaged, some alike, and return the mapping of its source."""
    lines = []
    for _ in range(count):
        number = rng.randrange(count)
        answer = rng.choice((f"Write to {MAIL}.", f"```python\n{PROMPT}{SOLUTION}```", f"It is {number}. " * rng.choice((1, 40))))
        row: Any = {"messages": [{"role": "user", "content": f"What is {number}?"}, {"role": "assistant", "content": answer}]}
        line = json.dumps(mutated_json(row, rng) if rng.random() < 0.3 else row).encode()
        lines.append(mutated_bytes(line, rng) if rng.random() < 0.1 else line)
    (folder / "chats.jsonl").write_bytes(b'{"messages": []}\n' + b"\n".join(lines))
    return {"kind": "dialogues", "path": str(folder / "chats.jsonl"), "format": "messages", "control_tokens": rng.choice(("keep", "drop"))}


def sources(rng: random.Random, folder: Path) -> list[tuple[dict[str, Any], list[Found]]]:
    """Return what a spec says of some damaged sources that can be read, and what is in each."""
    makers = [(name, make) for name, (make, share) in KINDS.items() for _ in range(share)]
    found = []
    for number, (name, make) in enumerate([*makers, ("dialogues", None)]):
        place = folder / f"{number:02}"
        place.mkdir()
        mapping = dialogues(rng, place, MUTANTS - len(makers)) if make is None else make(rng, place)
        mapping = {**mapping, "kind": name.partition("_")[0]}
        mapping.pop("tokenizer", None)
        with contextlib.suppress(UserError):  # it is refused whole
            opened = open_kind(mapping["kind"], mapping, "fuzz", Setting(workers=1))
            with tempfile.TemporaryDirectory() as shop:
                found.append((mapping, [one for piece in opened.pieces(LocalShop(Path(shop), 1)) for one in found_in(piece)]))
    return found


def rows(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of the tables of a dataset."""
    for path in sorted(folder.glob(pattern)):
        yield from pq.read_table(path).to_pylist()


def check(rng: random.Random, folder: Path) -> list[str]:
    """Make a dataset of mutants twice, hold the laws, and return what became of the units."""
    found = sources(rng, folder)
    (folder / "asked.txt").write_text("carol-dev\n\nada/*\n", encoding="utf-8")
    steps = {
        "opt_out": {"lists": [str(folder / "asked.txt")]},
        "filters": {"preset": "starcoder2"},
        "decontaminate": {"benchmarks": [{"name": "posts", "problems": write_problems(folder)}]},
        "redact": {"drop": ["private_key"]},
        "near_duplicates": {},
    }
    listed = [{**mapping, "weight": rng.choice((0.001, 0.5, 1, 1, 1, 2.5))} for mapping, _ in found]
    spec = {"sources": listed, "max_bad_fraction": 1, "test_fraction": 0.2, "curate": steps if rng.random() < 0.7 else {}}
    path = folder / "spec.yaml"
    path.write_text(json.dumps({**spec, "output": "unset"}), encoding="utf-8")
    made, again = folder / "made" / "out", folder / "again" / "out"
    pieces, cuts = rng.choice((1, 2, 5)), {name: max(1, value // rng.choice((1, 3))) for name, value in CUTS.items()}
    engine = Engine("here", workers=1)
    counts = prepare(path, [f"output={made}"], progress=False, workers=1, engine=engine)["counts"]
    with contextlib.ExitStack() as stack:
        for name, value in cuts.items():
            stack.enter_context(mock.patch(name, value))
        prepare(path, [f"output={again}"], progress=False, workers=1, engine=engine, pieces_of_a_shard=pieces)
    one, other = contents(made), contents(again)
    differ = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    assert not differ, f"the cuts change {differ}"
    require_accounted(made, counts, [units for _, units in found])
    assert os.listdir(folder / "made") == ["out"], "nothing else is left"
    return [outcome for outcome, count in {"kept": counts["kept"], **counts["dropped"]}.items() for _ in range(count)]


def require_accounted(made: Path, counts: dict[str, Any], sources: list[list[Found]]) -> None:
    """Raise unless every unit of every source is in the dataset or among the dropped, by its place, and every row is a record."""
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    places: collections.Counter[tuple[int, str]] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    for row in rows(made, "*.parquet"):
        record = from_row(row)
        assert to_row(record)["id"] == row["id"] == record.id
        places[row["origin"], row["source"]["place"]] += row["copy"] == 0
    for path in sorted((made / "dropped").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            places[row["source"], row["place"]] += 1
            reasons[path.stem.partition("-")[0]] += 1
    assert dict(reasons) == counts["dropped"]
    assert places.total() == counts["read"]
    for number, found in enumerate(sources):
        claims: dict[bytes, set[bool]] = {}
        for one in sorted(found, key=lambda one: isinstance(one, Claim)):
            if isinstance(one, Read):
                continue
            items = list(one.items) if isinstance(one, Claim) else [one]
            wanted = collections.Counter((number, place_of(item)) for item in items)
            if isinstance(one, Claim):
                claims.setdefault(one.key, set()).add(stands := wanted <= places)
                wanted = wanted if stands else collections.Counter([(number, place_of(one.otherwise))])
            assert wanted <= places, wanted - places
            places -= wanted
        assert all(True in stood for stood in claims.values()), "of those that claim a key, one has it"
    assert not places, places


def place_of(item: Item) -> str:
    """Return where an item was read."""
    return encodable(item.place if isinstance(item, Dropped) else item.record.source.place)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a dataset; in its card and manifest without its name."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads(found.pop("manifest.json"))
    manifest["spec"].pop("output")
    card = found.pop("card.html").replace(str(folder).encode(), b"")
    return {**found, "card.html": card, "manifest.json": json.dumps(manifest).encode()}


def one(rng: random.Random) -> list[str]:
    """Return what became of the units of a dataset of mutants in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        return check(rng, Path(name))


if __name__ == "__main__":
    sys.exit(run_mutants(__doc__, one, MUTANTS))
