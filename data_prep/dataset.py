"""A dataset made by tasks: all sources read and built, judged together, and written, on this machine or on many.

In: opened sources, and where to work. Out: the files of a dataset folder, its counts, and what was read. Three steps of tasks, of which
none is done twice (`data_prep.tasks`), and what lies between them is decided here, from a few bytes of each item:

==============  ======================================  ================================================================
``shards``      `data_prep.build_shards`                the pieces of all sources to items, curated one by one
``near``        `data_prep.near_duplicates`             near-duplicates among them, where the spec asks for it
``files``       `data_prep.write_portions`              the items, as `data_prep.verdicts` judges them, to tables
==============  ======================================  ================================================================
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.arrays import save_array
from data_prep.build_shards import MATCHES, Job, build_shard, cut_shards, write_pickle
from data_prep.census import Census
from data_prep.curate import Curation
from data_prep.decontaminate import write_matcher
from data_prep.duplicate_tasks import Text
from data_prep.engines import Engine, run_tasks_on
from data_prep.input_files import changed_inputs, is_unchanged
from data_prep.item_files import ITEMS, LINES, read_line
from data_prep.kinds import Opened, Setting
from data_prep.near_duplicates import find_near_duplicates
from data_prep.near_miss import NearMisses
from data_prep.preferred import DuplicateRules, compared_text
from data_prep.tasks import Task
from data_prep.verdicts import Verdicts
from data_prep.write_portions import CENSUS, lines_of, shard_folder, write_portion, write_tasks
from starchat.dialogue import from_row
from starchat.errors import UserError, counted
from starchat.files import digest_bytes, digest_json

MAX_FAULTS_SHOWN = 20

RESULT = "result.pickle"

SMALL_BYTES = 8 << 20
"""So much text is not worth the start of other processes."""


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A source, and how often its train records are written."""

    opened: Opened
    weight: float


@dataclasses.dataclass(frozen=True)
class Work:
    """Where a run keeps what is done, who does it, and the digest of all that it depends on, `inputs` too, but what its pieces tell."""

    folder: Path
    engine: Engine
    digest: str
    setting: Setting
    progress: bool
    pieces_of_a_shard: int
    inputs: Sequence[dict[str, Any]] = ()

    @property
    def shards(self) -> str:
        """How the folders of shards are called."""
        return str(self.folder / "shards" / "shard-{:06d}")

    def own(self, name: str) -> Path:
        """Return a folder in the work folder."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def is_local(self) -> bool:
        """Whether all work is done by this machine."""
        return self.engine.kind in ("pool", "here")

    def engine_for(self, size_bytes: int) -> Engine:
        """Return who does work on so much text."""
        alone = self.engine.kind == "pool" and (self.engine.workers == 1 or size_bytes <= SMALL_BYTES)
        return dataclasses.replace(self.engine, kind="here") if alone else self.engine

    def run(
        self,
        step: str,
        bar: str,
        tasks: Iterable[Task],
        size_bytes: int | None = None,
        is_current: Callable[[Any], bool] = lambda value: True,
    ) -> list[Any]:
        """Return the values of the tasks of a step, which work on so much text, if that is known."""
        stream = iter(tasks)
        first = list(itertools.islice(stream, 2))
        engine = self.engine_for((SMALL_BYTES + 1 if first[1:] else 0) if size_bytes is None else size_bytes)
        together = itertools.chain(first, stream)
        return run_tasks_on(engine, together, self.folder / step, self.digest, bar if self.progress else None, is_current)


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """One argument of a shop's work, or the file that holds it, and its number: the digest of a run covers all the rest."""

    function: Callable[[Path, Any], Any]
    number: int
    argument: Any
    is_file: bool

    def task_identity(self) -> Any:
        """Return what tells this argument from others of its step."""
        return self.number


def do_given(folder: Path, given: Given) -> None:
    """Do a shop's work for one argument; the result lies beside its files."""
    argument = pickle.loads(Path(given.argument).read_bytes()) if given.is_file else given.argument
    (folder / RESULT).write_bytes(pickle.dumps(given.function(folder, argument)))


@dataclasses.dataclass(frozen=True)
class TaskShop:
    """A source's shop (`data_prep.kinds.Shop`): work done by tasks. `elsewhere` holds what processes elsewhere are given, if any."""

    work: Work
    source: int
    elsewhere: Path | None

    def run(self, name: str, function: Callable[[Path, Any], Any], arguments: Iterable[Any]) -> Iterator[tuple[Path, Any]]:
        """Yield what each argument gives, and its folder."""
        step = f"source-{self.source}-{name}"
        given = (self._given(step, function, number, argument) for number, argument in enumerate(arguments))
        values = self.work.run(step, f"{name} first", (Task(f"{name}-{one.number:06d}", do_given, (one,)) for one in given))
        for number in range(len(values)):
            folder = self.work.folder / step / f"{name}-{number:06d}"
            yield folder, pickle.loads((folder / RESULT).read_bytes())

    def _given(self, step: str, function: Callable[[Path, Any], Any], number: int, argument: Any) -> Given:
        if self.elsewhere is None:
            return Given(function, number, argument, is_file=False)
        place = write_pickle(self.elsewhere / f"{step}-{number:06d}.pickle", argument)
        return Given(function, number, str(place), is_file=True)


@dataclasses.dataclass(frozen=True)
class Made:
    """What a dataset is made of, besides its tables; `reads` are the inputs that pieces told, by source."""

    counts: dict[str, Any]
    census: Census
    reads: Mapping[int, list[dict[str, Any]]]
    near_misses: NearMisses | None


def make_dataset(spec: Any, sources: Sequence[Weighted], curation: Curation | None, work: Work, folder: Path) -> Made:
    """Write the tables of a dataset to a folder, and its attribution, and return the rest. `spec` is a `data_prep.prepare.PrepareSpec`."""
    values = _read(spec, sources, curation, work)
    folders = [shard_folder(work.shards, number) for number in range(len(values))]
    verdicts = Verdicts(folders, values)
    near_misses = _near_misses(curation, folders, verdicts)
    _refuse_faults(spec.max_bad_fraction, verdicts, len(sources), work)
    if curation is not None and curation.duplicates is not None:
        _mark_near(curation.duplicates, folders, values, verdicts, work)
    verdicts.mark_copies()
    counts = [verdicts.counts(number) for number in range(len(sources))]
    _refuse_nothing(counts)
    repaired, census = _write(verdicts, work, folder, tuple(source.weight for source in sources))
    reads: dict[int, list[dict[str, Any]]] = collections.defaultdict(list)
    for value in values:
        reads[value["source"]] += value["reads"]
    return Made(_counts(sources, counts, repaired), census, reads, near_misses)


def _read(spec: Any, sources: Sequence[Weighted], curation: Curation | None, work: Work) -> list[dict[str, Any]]:
    """Read, build and curate all sources in shards; return the values of these."""
    matcher_file = None
    if curation is not None and curation.matcher is not None:
        matcher_file = str(work.own("steps") / "matcher")
        write_matcher(curation.matcher, Path(matcher_file))
    weights = tuple(source.weight for source in sources)
    stated = None if curation is None else curation.stated
    job = Job(work.setting, spec.test_fraction, weights, stated, matcher_file)
    elsewhere = None if work.is_local else work.own("given")
    streams = ((number, source.opened.pieces(TaskShop(work, number, elsewhere))) for number, source in enumerate(sources))
    shards = cut_shards(job, streams, work.pieces_of_a_shard, elsewhere)
    tasks = (Task(f"shard-{shard.number:06d}", build_shard, (shard,)) for shard in shards)
    try:
        return work.run("shards", "reading", tasks, is_current=_is_current)
    finally:
        _require_unchanged(work)


def _is_current(value: Mapping[str, Any]) -> bool:
    """Return whether the files that a shard read by itself are what they were."""
    return all(read["sha256"] and is_unchanged(read) for read in value["reads"])


def _require_unchanged(work: Work) -> None:
    """Raise `UserError` if an input is not what it was when the digest was made; then what was read is not what the digest tells."""
    changed = changed_inputs(work.inputs)
    if not changed:
        return
    for folder in (work.folder / "shards", *work.folder.glob("source-*")):
        shutil.rmtree(folder, ignore_errors=True)
    told = [f"{entry['path']}: changed while it was read" for entry in changed[:MAX_FAULTS_SHOWN]]
    more = f" ({len(changed):,} inputs changed)" if changed[1:] else ""
    raise UserError("\n".join(told) + f"; nothing was written{more}; run again when nothing writes to the sources")


def _near_misses(curation: Curation | None, folders: Sequence[Path], verdicts: Verdicts) -> NearMisses | None:
    """Return the report on benchmarks, of all items that came to be."""
    if curation is None or curation.matcher is None:
        return None
    report = NearMisses(curation.matcher.items, curation.matcher.unused)
    for folder, start in zip(folders, verdicts.starts, strict=False):
        if (folder / MATCHES).is_file():
            for line, place, matches in pickle.loads((folder / MATCHES).read_bytes()):
                if verdicts.alive[start + line]:
                    report.add(place, matches)
    return report


@dataclasses.dataclass(frozen=True, slots=True)
class ComparedShard:
    """A shard's folder, the file that says which of its lines are compared, and the digest of both."""

    folder: str
    compared: str
    digest: str

    def task_identity(self) -> Any:
        """Return what tells this shard from others, of its run and of an earlier one whose inputs were others."""
        return self.digest


def read_compared(shard: ComparedShard) -> Iterator[tuple[Text, int]]:
    """Yield text and rank of each item of a shard that is compared."""
    with open(Path(shard.folder, ITEMS), "rb") as file:
        for line in np.load(Path(shard.folder, LINES))[np.load(shard.compared)]:
            yield compared_text(from_row(read_line(file, line)["row"])), int(line["rank"])


def _mark_near(rules: DuplicateRules, folders: Sequence[Path], values: Sequence[Mapping[str, Any]], verdicts: Verdicts, work: Work) -> None:
    shards = []
    for number, (folder, value) in enumerate(zip(folders, values, strict=True)):
        compared = verdicts.compared(slice(verdicts.starts[number], verdicts.starts[number + 1]))
        path = str(work.own("compared") / f"{number:06d}.npy")
        save_array(path, compared)
        shards.append(ComparedShard(str(folder), path, digest_json([value["judged"], digest_bytes(compared.tobytes())])))
    engine = work.engine_for(int(verdicts.lines["size"].sum()))
    digest = digest_json([work.digest, [shard.digest for shard in shards]])
    verdicts.mark_near(find_near_duplicates(engine, shards, read_compared, work.folder / "near", rules, digest))


def _write(
    verdicts: Verdicts, work: Work, folder: Path, weights: tuple[float, ...]
) -> tuple[Mapping[int, collections.Counter[str]], Census]:
    """Write all tables; return the repairs of what is kept, by source, and the counts of it."""
    portions = write_tasks(verdicts.portions(), work.own("entries"), work.shards, weights)
    tasks = [Task(portion.name.removesuffix(".parquet"), write_portion, (portion,)) for portion in portions]
    values = work.run("files", "writing", tasks, int(verdicts.lines["size"].sum()))
    repaired: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    census = Census()
    for task, value in zip(tasks, values, strict=True):
        made, (portion,) = work.folder / "files" / task.name, task.arguments
        if portion.split is not None:
            census.merge(pickle.loads((made / CENSUS).read_bytes()))
        for source, counts in value.items():
            repaired[int(source)].update(counts)
        target = folder if portion.split is not None else folder / "dropped"
        target.mkdir(exist_ok=True)
        shutil.move(made / portion.name, target / portion.name)
    return repaired, census


def _refuse_faults(max_bad_fraction: float, verdicts: Verdicts, sources: int, work: Work) -> None:
    """Raise `UserError` if more units are malformed than the spec admits."""
    found = [(source, reason, count) for source in range(sources) for reason, count in verdicts.faults(source).most_common()]
    read, bad = int(verdicts.alive.sum()), sum(count for _, _, count in found)
    if not bad or bad / read <= max_bad_fraction:  # a product would refuse some of the shares that the message names
        return
    lines = []
    for source, reason, count in found[:MAX_FAULTS_SHOWN]:
        entry = verdicts.first_fault(source, reason)
        ((_, value),) = lines_of(np.array([entry]), work.shards)
        lines.append(f"{value['dropped']['place']}: {value['dropped']['detail']} ({reason}: {count})")
    share = math.ceil(bad / read * 1e4) / 1e4
    be, them = ("is", "it") if bad == 1 else ("are", "them")
    lines.append(
        f"{bad:,} of {counted(read, 'unit')} {be} malformed; max_bad_fraction admits {max_bad_fraction:g}; nothing was written; "
        f"correct {them}, or set {them} aside with max_bad_fraction={share:g}"
    )
    raise UserError("\n".join(lines))


def _refuse_nothing(counts: Sequence[Mapping[str, Any]]) -> None:
    if not any(count["written"] for count in counts):
        dropped = sum((collections.Counter(count["dropped"]) for count in counts), collections.Counter())
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())
        raise UserError(f"no record is left; dropped: {reasons or 'nothing'}; look at the format and the sources")


def _counts(sources: Sequence[Weighted], counts: Sequence[Mapping[str, Any]], repaired: Mapping[int, Mapping[str, int]]) -> dict[str, Any]:
    """Return the counts of the manifest, in all and for each source."""
    dropped = sum((collections.Counter(count["dropped"]) for count in counts), collections.Counter())
    read, kept, written = (sum(count[name] for count in counts) for name in ("read", "kept", "written"))
    assert read == kept + dropped.total(), "every unit is kept or dropped"
    return {
        "read": read,
        "kept": kept,
        "dropped": dict(sorted(dropped.items())),
        "repaired": dict(sorted(sum(map(collections.Counter, repaired.values()), collections.Counter()).items())),
        "written": written,
        "copies": written - kept,
        "splits": {split: sum(count["splits"][split] for count in counts) for split in ("train", "test")},
        "sources": [
            {
                "place": source.opened.place,
                "format": source.opened.format,
                "weight": source.weight,
                **{name: count[name] for name in ("read", "kept", "dropped")},
                "repaired": dict(sorted(repaired[number].items())),
                "written": count["written"],
            }
            for number, (source, count) in enumerate(zip(sources, counts, strict=True))
        ],
    }
