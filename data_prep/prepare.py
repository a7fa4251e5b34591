"""The prepare stage: sources to one dataset folder.

In: a spec (YAML) that names sources. Out: a folder with ``train-*.parquet`` and ``test-*.parquet`` (rows of
`starchat.dialogue.to_row`, with the names of their `repairs` and their `origin`, the number of the spec's source, from 0),
``dropped/<reason>.parquet``, the data card (`data_prep.card`) and, last, ``manifest.json``.
The builders read and clean; here their items are deduplicated, split, weighted, counted and written.

The same input gives the same bytes. A source's units are the rows of its files, except for OASST (`data_prep.oasst`)
and the builders of `data_prep.kinds`, each of which says what its units are.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.card import write_card
from data_prep.census import Census
from data_prep.curate import open_curation
from data_prep.curate_all import CurateAll
from data_prep.item_files import Numbered
from data_prep.kinds import KINDS, Opened, Setting, open_kind
from data_prep.pool import default_workers, start_server
from data_prep.records import Dropped, Item, Kept
from data_prep.shards import DatasetWriter
from data_prep.sources import as_text
from starchat import __version__
from starchat.config import apply_overrides, closest, from_mapping, read_yaml, to_mapping
from starchat.dialogue import Record, Turn, first_user_text, to_row
from starchat.errors import UserError
from starchat.files import already_finished, building, digest_bytes, digest_json, read_manifest, versions, write_json, write_manifest

STAGE = "prepare"
DECONTAMINATION = "decontamination.json"
"""What the records share with benchmarks, dropped and nearly dropped: `data_prep.near_miss`."""

MAX_FAULTS_SHOWN = 20
MAX_WEIGHT = 1000


@dataclasses.dataclass(frozen=True)
class PrepareSpec:
    """What to prepare. A source has a `kind`, a mixture `weight` (1.0) and the keys of its kind.

    What several sources hold is kept from the first of them whose weight keeps it. `test_fraction` of the first user
    turns (of the ids, for documents) go to the test split, by hash. Up to `max_bad_fraction` of all units may be
    malformed; above it nothing is written. `curate` names the steps of `data_prep.curate`.
    """

    sources: tuple[dict[str, Any], ...]
    output: str
    seed: int = 0
    test_fraction: float = 0.05
    max_bad_fraction: float = 0.0
    tokenizer: str = "nano"
    curate: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A source, and how often its train records are written."""

    opened: Opened
    weight: float


@dataclasses.dataclass
class Tally:
    """The counts of one source while it is read."""

    read: int = 0
    kept: int = 0
    written: int = 0
    dropped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    repaired: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    splits: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    faults: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    first_faults: dict[str, Dropped] = dataclasses.field(default_factory=dict)


def prepare(
    spec_path: Path, overrides: Sequence[str] = (), overwrite: bool = False, progress: bool = True, workers: int | None = None
) -> dict[str, Any]:
    """Return the manifest of the dataset that the spec describes, plus its ``folder``; ``skipped`` if it was there already.

    The bytes do not depend on the number of `workers` (processes; all cores by default). Raises `UserError` for what the user must
    change; then the output folder is as it was.
    """
    spec = load_spec(spec_path, overrides)
    setting = Setting(spec.tokenizer, spec.seed, default_workers() if workers is None else workers)
    start_server(_modules(spec), setting.workers)
    curation = open_curation(spec.curate, f"{spec_path}: curate", setting) if spec.curate else None
    sources = _open_all(spec, str(spec_path), setting)
    inputs = [entry for source in sources for entry in source.opened.inputs]
    resolved = {**to_mapping(spec), "sources": [{**source.opened.spec, "weight": source.weight} for source in sources]}
    if curation is not None:
        inputs += curation.inputs
        resolved["curate"] = curation.resolved
    found_versions = {"starchat": __version__, "python": sys.version.split()[0], **versions("pyarrow", "orjson", "datasets")}
    depends_on = {k: v for k, v in resolved.items() if k != "output"}
    digest = digest_json({"spec": depends_on, "inputs": inputs, "versions": found_versions})
    if already_finished(spec.output, STAGE, digest, overwrite):
        return {**(read_manifest(spec.output) or {}), "folder": spec.output, "skipped": True}
    with building(spec.output) as folder:
        with DatasetWriter(folder) as writer:
            run = None if curation is None else CurateAll(curation)
            tallies, census = _write_all(spec, sources, run, writer, progress)
        if run is not None and run.near_misses is not None:
            write_json(folder / DECONTAMINATION, run.near_misses.as_json())
            if progress:
                print(run.near_misses.as_table(), file=sys.stderr)
        content = {
            "spec": resolved,
            "inputs": inputs,
            "counts": _counts(sources, tallies),
            "census": census.to_json(),
            "versions": found_versions,
        }
        write_card(folder, content, census)
        write_manifest(folder, STAGE, digest, content)
    return {**(read_manifest(spec.output) or {}), "folder": spec.output, "skipped": False}


def _modules(spec: PrepareSpec) -> list[str]:
    """Return what the workers of a spec import."""
    named = [KINDS[str(source["kind"])] for source in spec.sources if str(source.get("kind")) in KINDS]
    steps = ["data_prep.curate_all"] * bool(spec.curate) + ["data_prep.loaded_kernels"] * ("near_duplicates" in spec.curate)
    return list(dict.fromkeys([*named, *steps]))


def summary(manifest: Mapping[str, Any]) -> str:
    """Return the counts of a prepared dataset as lines for a terminal."""
    counts = manifest["counts"]
    lines = [f"already prepared: {manifest['folder']}"] if manifest.get("skipped") else []
    lines += [f"{source['place']} ({source['format']}): {_balance(source)}" for source in counts["sources"]]
    splits = ", ".join(f"{name} {count:,}" for name, count in counts["splits"].items())
    copies = f", of which copies {counts['copies']:,}" if counts["copies"] else ""
    return "\n".join([*lines, f"{_balance(counts)}; repaired {_listed(counts['repaired'])}", f"written: {splits}{copies}"])


def _balance(counts: Mapping[str, Any]) -> str:
    return f"read {counts['read']:,} = kept {counts['kept']:,} + dropped {_listed(counts['dropped'])}"


def _listed(reasons: Mapping[str, int]) -> str:
    total = sum(reasons.values())
    return f"{total:,}" + (" (" + ", ".join(f"{name} {count:,}" for name, count in sorted(reasons.items())) + ")" if total else "")


def load_spec(spec_path: Path, overrides: Sequence[str] = ()) -> PrepareSpec:
    """Return the spec in a YAML file, its numbers checked."""
    spec = from_mapping(PrepareSpec, apply_overrides(read_yaml(spec_path), overrides), str(spec_path))
    if not spec.sources:
        raise UserError(f"{spec_path}: sources is empty; name at least one, such as {{kind: dialogues, path: chats.jsonl}}")
    for key, value in (("test_fraction", spec.test_fraction), ("max_bad_fraction", spec.max_bad_fraction)):
        if not 0 <= value <= 1:
            raise UserError(f"{spec_path}: {key}: {value}; expected a number from 0 to 1")
    return spec


def _open_all(spec: PrepareSpec, place: str, setting: Setting) -> list[Weighted]:
    """Return every source, ready to be read; the faults of all of them are raised together."""
    opened, faults = [], []
    for number, mapping in enumerate(spec.sources):
        try:
            opened.append(_open(mapping, f"{place}: sources[{number}]", setting))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    return opened


def _open(mapping: Mapping[str, Any], place: str, setting: Setting) -> Weighted:
    kind = mapping.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{place}: kind: {kind!r}; {closest(str(kind), KINDS)}")
    if mapping.get("path") == "":
        raise UserError(f"{place}: path: is empty; name a file, a folder or a pattern")
    weight = mapping.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
        raise UserError(f"{place}: weight: {weight!r}; expected a number above 0, at most {MAX_WEIGHT}; 2 writes each record twice")
    return Weighted(open_kind(kind, {k: v for k, v in mapping.items() if k != "weight"}, place, setting), float(weight))


def _write_all(
    spec: PrepareSpec, sources: Sequence[Weighted], run: CurateAll | None, writer: DatasetWriter, progress: bool
) -> tuple[list[Tally], Census]:
    from tqdm import tqdm

    seen: set[bytes] = set()
    census = Census()
    tallies = [Tally() for _ in sources]
    with tqdm(unit=" units", disable=not progress, file=sys.stderr) as bar:
        items = _items(sources, bar)
        for index, item in items if run is None else run.items(items):
            _write_item(item, index, sources[index], spec, seen, writer, tallies[index], census)
    for source, tally in zip(sources, tallies, strict=True):
        assert tally.read == tally.kept + tally.dropped.total(), source.opened.place
    _refuse_faults(spec, tallies)
    _refuse_nothing(tallies)
    return tallies, census


def _items(sources: Sequence[Weighted], bar: Any) -> Iterator[Numbered]:
    """Yield the items of all sources, each with the index of its own."""
    for index, source in enumerate(sources):
        bar.set_description_str(source.opened.place)
        for item in source.opened.items():
            yield index, item
            bar.update()


def _write_item(
    item: Item, index: int, source: Weighted, spec: PrepareSpec, seen: set[bytes], writer: DatasetWriter, tally: Tally, census: Census
) -> None:
    """Write one unit and count it. `seen` collects the ids of what was kept."""
    tally.read += 1
    placed = item if isinstance(item, Dropped) else _place(item.record, source.weight, spec, seen)
    if isinstance(placed, Dropped):
        tally.dropped[placed.reason] += 1
        if placed.fault:
            tally.faults[placed.reason] += 1
            tally.first_faults.setdefault(placed.reason, placed)
        writer.drop(placed, index)
        return
    assert isinstance(item, Kept)
    record = item.record
    turns = (*record.turns, *([record.rejected] if record.rejected else []))
    size_bytes = len(record.tools or "") + sum(map(_turn_bytes, turns)) + sum(len(part.text) for part in record.parts)
    for row in placed:
        writer.keep({**row, "repairs": item.repairs, "origin": index}, size_bytes)
    tally.kept += 1
    tally.written += len(placed)
    tally.splits[placed[0]["split"]] += len(placed)
    tally.repaired.update(item.repairs)
    census.add(record)


def _turn_bytes(turn: Turn) -> int:
    return len(turn.content) + sum(len(call.arguments) for call in turn.tool_calls)


def _place(record: Record, weight: float, spec: PrepareSpec, seen: set[bytes]) -> list[dict[str, Any]] | Dropped:
    """Return the rows to write for a record, one for each copy, or why it is dropped after all."""
    row = to_row(record)
    identity = row["id"]
    key = bytes.fromhex(identity)
    if key in seen:
        return Dropped("duplicate", record.source.place, f"same content as the earlier record {identity}", as_text(row))
    is_test = _fraction(f"split:{spec.seed}:{first_user_text(record.turns) or identity}") < spec.test_fraction
    copies = 1 if is_test else _copies(identity, weight, spec.seed)
    if copies == 0:
        return Dropped("mixture_weight", record.source.place, f"not in the share that weight {weight:g} keeps", as_text(row))
    seen.add(key)
    return [{**row, "split": "test" if is_test else "train", "copy": copy} for copy in range(copies)]


def _fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int(digest_bytes(text.encode("utf-8", "surrogatepass"))[:13], 16) / 16**13


def _copies(identity: str, weight: float, seed: int) -> int:
    """Return how often a train record is written: on average `weight` times."""
    whole = int(weight)
    return whole + (_fraction(f"mixture:{seed}:{identity}") < weight - whole)


def _refuse_faults(spec: PrepareSpec, tallies: Sequence[Tally]) -> None:
    """Raise `UserError` if more units are malformed than the spec admits."""
    read, bad = sum(t.read for t in tallies), sum(t.faults.total() for t in tallies)
    if not bad or bad / read <= spec.max_bad_fraction:  # a product would refuse some of the shares that the message names
        return
    faults = [(tally.first_faults[reason], count) for tally in tallies for reason, count in tally.faults.most_common()]
    lines = [f"{first.place}: {first.detail} ({first.reason}: {count})" for first, count in faults[:MAX_FAULTS_SHOWN]]
    share = math.ceil(bad / read * 1e4) / 1e4
    lines.append(
        f"{bad} of {read} units are malformed; max_bad_fraction admits {spec.max_bad_fraction:g}; nothing was written; "
        f"correct them, or set them aside with max_bad_fraction={share:g}"
    )
    raise UserError("\n".join(lines))


def _refuse_nothing(tallies: Sequence[Tally]) -> None:
    if not any(tally.written for tally in tallies):
        dropped = sum((tally.dropped for tally in tallies), collections.Counter())
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())
        raise UserError(f"no record is left; dropped: {reasons or 'nothing'}; look at the format and the sources")


def _counts(sources: Sequence[Weighted], tallies: Sequence[Tally]) -> dict[str, Any]:
    """Return the counts of the manifest, in all and for each source."""
    dropped = sum((tally.dropped for tally in tallies), collections.Counter())
    repaired = sum((tally.repaired for tally in tallies), collections.Counter())
    read, kept, written = (sum(getattr(tally, name) for tally in tallies) for name in ("read", "kept", "written"))
    assert read == kept + dropped.total()
    return {
        "read": read,
        "kept": kept,
        "dropped": dict(sorted(dropped.items())),
        "repaired": dict(sorted(repaired.items())),
        "written": written,
        "copies": written - kept,
        "splits": {split: sum(tally.splits[split] for tally in tallies) for split in ("train", "test")},
        "sources": [
            {
                "place": source.opened.place,
                "format": source.opened.format,
                "weight": source.weight,
                "read": tally.read,
                "kept": tally.kept,
                "dropped": dict(sorted(tally.dropped.items())),
                "repaired": dict(sorted(tally.repaired.items())),
                "written": tally.written,
            }
            for source, tally in zip(sources, tallies, strict=True)
        ],
    }
