"""The prepare stage: sources to one dataset folder.

In: a spec (YAML) that names sources. Out: a folder with ``train-*.parquet`` and ``test-*.parquet`` (rows of
`starchat.dialogue.to_row`, with the names of their `repairs` and their `origin`, the number of the spec's source, from 0),
``dropped/<reason>.parquet``, the data card (`data_prep.card`) and, last, ``manifest.json``.
Here a spec is opened, and the dataset becomes a folder; how it is made, by tasks of any engine: `data_prep.dataset`.

The same input gives the same bytes, whoever makes them. A source's units are the rows of its files, except for OASST
(`data_prep.oasst`) and the builders of `data_prep.kinds`, each of which says what its units are.

What is done stays in a work folder beside the output until all of it is: after a kill, Ctrl-C, SIGTERM, a full disk or any other end but a
fault of the sources, the next run does the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from data_prep import outputs, remote_files
from data_prep.build_shards import PIECES_ELSEWHERE, PIECES_OF_A_SHARD
from data_prep.card import told_reach, write_card
from data_prep.curate import Curation, open_curation
from data_prep.dataset import Made, Weighted, Work, make_dataset
from data_prep.engines import Engine, require_engine
from data_prep.git import is_repository
from data_prep.input_files import tokenizer_inputs, without_stamps
from data_prep.kinds import KINDS, Setting, open_kind
from data_prep.pool import default_workers, start_server
from data_prep.remote_files import is_remote, local_path
from data_prep.stopping import ending_in_order, has_done, telling_of
from data_prep.tasks import WorkKept
from starchat import __version__
from starchat.config import apply_overrides, closest, from_mapping, read_yaml, to_mapping
from starchat.errors import Faults, UserError
from starchat.files import alone_in, digest_json, place_of, placed, versions, write_json, write_manifest

STAGE = "prepare"
MAX_UNREAD_SHOWN = 20
DECONTAMINATION = "decontamination.json"
"""What the records share with benchmarks, dropped and nearly dropped: `data_prep.near_miss`."""

MAX_WEIGHT = 1000

WALKED = ("source", "notebooks")
"""The kinds that read all that lies below a folder, where it is no repository. Of a folder of tables only those in it are read."""

OURS = "made-by-starchat-prepare"
"""A work folder holds a file of this name. Another folder is nothing to work in, nor to take away."""


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


@ending_in_order()
def prepare(
    spec_path: Path,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = True,
    workers: int | None = None,
    engine: Engine | None = None,
    work: str | Path | None = None,
    pieces_of_a_shard: int | None = None,
) -> dict[str, Any]:
    """Return the manifest of the dataset that the spec describes, plus its ``folder``; ``skipped`` if it was there already.

    The bytes do not depend on the number of `workers` (processes; all cores by default), on the `engine`, nor on `pieces_of_a_shard`,
    how much a task has. Raises `UserError` for what the user must change; then the output folder is as it was. What is done lies in a
    folder in `work`, beside the output by default, until the dataset is whole; other machines must see it. Of two that make one output
    on this machine at a time, the second is refused.
    """
    engine = engine or Engine(workers=workers, stop=True)
    require_engine(engine)
    pieces_of_a_shard = pieces_of_a_shard or PIECES_OF_A_SHARD.get(engine.kind, PIECES_ELSEWHERE)
    spec, setting, sources, curation = open_spec(spec_path, overrides, default_workers() if workers is None else workers)
    output, work_folder = outputs.require_place(spec.output, f"{spec_path}: output"), _work_folder(spec.output, work)
    _require_outside(spec.sources, output, work_folder)
    resolved = {**to_mapping(spec), "sources": [{**source.opened.spec, "weight": source.weight} for source in sources]}
    if curation is not None:
        resolved["curate"] = curation.resolved
    found_versions = {"starchat": __version__, "python": sys.version.split()[0], **versions("pyarrow", "orjson", "datasets")}
    depends_on = {key: value for key, value in resolved.items() if key != "output"}

    @functools.cache
    def inputs_of(source: int) -> list[dict[str, Any]]:
        return sources[source].opened.inputs()

    def digest_of(inputs: list[dict[str, Any]]) -> str:
        return digest_json({"spec": depends_on, "inputs": without_stamps(inputs), "versions": found_versions})

    of_steps = [*tokenizer_inputs(spec.tokenizer), *(curation.inputs() if curation is not None else ())]
    with outputs.alone_at(output):
        if outputs.exists(output):
            inputs = [entry for number in range(len(sources)) for entry in inputs_of(number)]
            if (manifest := _finished(output, digest_of(inputs + of_steps), overwrite)) is not None:
                return {**manifest, "folder": output, "skipped": True}
        known = [list(source.opened.known) if source.opened.tells else inputs_of(n) for n, source in enumerate(sources)]
        before = [*itertools.chain.from_iterable(known), *of_steps]
        with _working(work_folder, engine), outputs.placing(output, work_folder, overwrite) as folder:
            digest = digest_json([digest_of(before), pieces_of_a_shard])
            with placed(work_folder):
                work_of_run = Work(work_folder, engine, digest, setting, progress, pieces_of_a_shard, before)
                made = make_dataset(spec, sources, curation, work_of_run, folder)
            if made.near_misses is not None and progress:
                print(made.near_misses.as_table(), file=sys.stderr)
            inputs = [entry for n, entries in enumerate(known) for entry in (*entries, *made.reads.get(n, ()))] + of_steps
            stated = {"spec": resolved, "inputs": without_stamps(inputs), "versions": found_versions}
            if curation is not None and curation.opt_outs is not None:
                stated["opt_out"] = dict[str, Any](made.census.reach(), unread=list(curation.opt_outs.unread))
            _write_rest(folder, made, digest_of(inputs), stated)
        return {**(outputs.manifest_of(output) or {}), "folder": output, "skipped": False}


def _finished(output: str, digest: str, overwrite: bool) -> dict[str, Any] | None:
    """Return the manifest of exactly this dataset, if it is there; raise `UserError` if anything else is, or less of it, that must stay."""
    if not outputs.is_finished(output, STAGE, digest, overwrite):
        return None
    manifest = outputs.manifest_of(output) or {}
    lost = outputs.lost_rows(output, manifest["counts"])
    if lost is not None and not overwrite:
        raise UserError(f"{lost}; files were lost, added or damaged: pass --overwrite to make it again, or choose another output")
    return manifest if lost is None else None


def _write_rest(folder: Path, made: Made, digest: str, known: Mapping[str, Any]) -> None:
    """Write what a dataset holds besides its tables, the manifest last."""
    if made.near_misses is not None:
        write_json(folder / DECONTAMINATION, made.near_misses.as_json())
    content = {**known, "counts": made.counts, "census": made.census.to_json()}
    write_card(folder, content, made.census)
    write_manifest(folder, STAGE, digest, content)


def _work_folder(output: str, parent: str | Path | None) -> Path:
    """Return the folder for what is done: in `parent`, by default beside the output, for a store in the current folder."""
    if parent is not None and is_remote(parent):
        raise UserError(f"--work: {str(parent)!r}: is an address in a store; name a folder of a disk, which each worker sees")
    if parent is None:
        parent = Path() if is_remote(output) else place_of(local_path(output)).parent
    name = output.rstrip("/").rsplit("/", 1)[-1]
    return (local_path(outputs.require_place(str(parent), "--work")) / f".{name}.work").absolute()


def _require_outside(sources: Sequence[Mapping[str, Any]], output: str, work: Path) -> None:
    """Raise `UserError` if a source is all of a folder that holds the output or the work folder: the run would read what it writes."""
    for number, source in enumerate(sources):
        path = str(source["path"])
        if source["kind"] not in WALKED or is_remote(path) or not Path(path).is_dir() or is_repository(path):
            continue
        for place, what in ((output, "output"), (work, "--work")):
            if not is_remote(place) and Path(place).resolve().is_relative_to(Path(path).resolve()):
                raise UserError(f"{what}: {str(place)!r} lies in the folder of sources[{number}], {path}; choose one outside of it")


@contextlib.contextmanager
def _working(folder: Path, engine: Engine) -> Iterator[None]:
    """Hold the folder for what is done, which vanishes when all is, where nothing is, or where the sources are at fault. Else it stays,
    as it does where work may go on elsewhere: the same command goes on from there.
    """

    def vanish(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, UserError):
            goes_on = isinstance(error, WorkKept)
        else:
            goes_on = error is not None and has_done(folder)
        if error is None or not (goes_on or engine.kind not in ("pool", "here")):
            _take_away(folder)

    with alone_in(folder), telling_of(folder), contextlib.ExitStack() as stack:
        if any(folder.iterdir()) and not (folder / OURS).is_file():
            raise UserError(
                f"{folder}: holds other files than those of starchat prepare; move them away, or name another folder with --work"
            )
        (folder / OURS).touch()
        stack.push(vanish)
        yield


def _take_away(folder: Path) -> None:
    """Remove a work folder. It is marked as long as anything else is in it, such as what a worker that is being ended has just written."""
    for entry in folder.iterdir():
        if entry.name != OURS:
            remote_files.remove(entry)
    if os.listdir(folder) == [OURS]:
        shutil.rmtree(folder, ignore_errors=True)


def _modules(spec: PrepareSpec) -> list[str]:
    """Return what the workers of a spec import."""
    named = [KINDS[str(source["kind"])] for source in spec.sources if str(source.get("kind")) in KINDS]
    steps = ["data_prep.loaded_kernels"] * ("near_duplicates" in spec.curate)
    return list(dict.fromkeys([*named, "data_prep.dataset", "data_prep.write_portions", *steps]))


def summary(manifest: Mapping[str, Any]) -> str:
    """Return the counts of a prepared dataset as lines for a terminal."""
    counts = manifest["counts"]
    lines = [f"already prepared: {manifest['folder']}"] if manifest.get("skipped") else []
    lines += [f"{source['place']} ({source['format']}): {_balance(source)}" for source in counts["sources"]]
    splits = ", ".join(f"{name} {count:,}" for name, count in counts["splits"].items())
    copies = f", of which copies {counts['copies']:,}" if counts["copies"] else ""
    lines += [f"{_balance(counts)}; repaired {_listed(counts['repaired'])}", f"written: {splits}{copies}"]
    reach = told_reach(manifest)
    unread = manifest.get("opt_out", {}).get("unread", [])
    lines += [f"warning: an opt-out request that somebody must read: {entry}" for entry in unread[:MAX_UNREAD_SHOWN]]
    if unread[MAX_UNREAD_SHOWN:]:
        lines.append(f"warning: and {len(unread) - MAX_UNREAD_SHOWN:,} more of them; manifest.json lists all")
    return "\n".join([*lines, f"warning: {reach}"] if reach else lines)


def _balance(counts: Mapping[str, Any]) -> str:
    return f"read {counts['read']:,} = kept {counts['kept']:,} + dropped {_listed(counts['dropped'])}"


def _listed(reasons: Mapping[str, int]) -> str:
    total = sum(reasons.values())
    return f"{total:,}" + (" (" + ", ".join(f"{name} {count:,}" for name, count in sorted(reasons.items())) + ")" if total else "")


def open_spec(spec_path: Path, overrides: Sequence[str], workers: int) -> tuple[PrepareSpec, Setting, list[Weighted], Curation | None]:
    """Return the spec in a YAML file, and its sources and steps, ready to be read; raise one `UserError` for all faults, in their order."""
    mapping, place = apply_overrides(read_yaml(spec_path), overrides), str(spec_path)
    least = {"sources": (), "output": ""}
    parts = {key: Faults() for key in mapping}
    sound = {key: parts[key].get(from_mapping, PrepareSpec, {**least, key: value}, place) for key, value in mapping.items()}
    spec = PrepareSpec(**{**least, **{key: getattr(part, key) for key, part in sound.items() if part is not None}})
    setting = Setting(spec.tokenizer, spec.seed, workers)
    start_server(_modules(spec), setting.workers)
    sources: list[Weighted | None] = []
    curation = None
    for key, faults in parts.items():
        if key == "sources" and sound[key] and not spec.sources:
            faults.add(f"{place}: sources is empty; name at least one, such as {{kind: dialogues, path: chats.jsonl}}")
        elif key == "sources" and isinstance(mapping[key], list):
            faults = parts[key] = Faults()  # each entry tells its own
            sources = [faults.get(_open, entry, f"{place}: sources[{number}]", setting) for number, entry in enumerate(mapping[key])]
        elif key == "curate" and spec.curate:
            curation = faults.get(open_curation, spec.curate, f"{place}: curate", setting)
        elif key == "seed" and spec.seed < 0:
            faults.add(f"{place}: seed: {spec.seed}; expected a whole number from 0")
        elif key in ("test_fraction", "max_bad_fraction") and not 0 <= getattr(spec, key) <= 1:
            faults.add(f"{place}: {key}: {getattr(spec, key)}; expected a number from 0 to 1")
    whole = Faults()
    for faults in parts.values():
        whole.get(faults.tell)
    whole.get(from_mapping, PrepareSpec, {key: value for key, value in least.items() if key in mapping}, place)
    whole.tell()
    return spec, setting, [source for source in sources if source is not None], curation


def _open(mapping: Any, place: str, setting: Setting) -> Weighted:
    """Return a source; raise one `UserError` for its faults."""
    if not isinstance(mapping, dict):
        raise UserError(f"{place}: {mapping!r} is of type {type(mapping).__name__}; expected a mapping")
    faults = Faults()
    weight = mapping.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
        faults.add(f"{place}: weight: {weight!r}; expected a number above 0, at most {MAX_WEIGHT}; 2 writes each record twice")
    kind, opened = mapping.get("kind"), None
    if not isinstance(kind, str) or kind not in KINDS:
        faults.add(f"{place}: kind: {kind!r}; {closest(str(kind), KINDS)}")
    elif mapping.get("path") == "":
        faults.add(f"{place}: path: is empty; name a file, a folder or a pattern")
    else:
        opened = faults.get(open_kind, kind, {key: value for key, value in mapping.items() if key != "weight"}, place, setting)
    faults.tell()
    assert opened is not None
    return Weighted(opened, float(weight))
