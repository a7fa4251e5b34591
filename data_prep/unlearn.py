"""Requests against what exists already: the rows, datasets and finished runs that they touch, and the dataset without them.

In: lists of requests (`data_prep.opt_out`), datasets of prepare, runs. Out: a report (plain values), its text, and, if asked for, a dataset
folder without the rows that were named: the receipt ``unlearned.json`` in it tells ids, requests and the digests before and after.

A run is touched if its dataset is, byte for byte the one that was given, or if the run that it went on from is; of one whose dataset is
not given nothing is known. What a model has learned is not taken out of it: the report says which runs are to be done again. Of dropped
rows, which do not all tell whose they are, the new dataset keeps reason and place, and no text; which row one resembles stays, too.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.card import write_card
from data_prep.census import census_of
from data_prep.opt_out import OptOuts, Request, names_its_owner
from data_prep.prepare import DECONTAMINATION
from data_prep.prepared import open_parquet, prepared_files, prepared_rows, require_prepared
from data_prep.tables import dropped_schema
from starchat.dialogue import from_row, to_source
from starchat.errors import UserError
from starchat.files import (
    BEGUN,
    alone_at,
    already_finished,
    building,
    digest_json,
    read_manifest,
    read_object,
    sha256_file,
    write_json,
    write_manifest,
)

STAGE = "prepare"
RECEIPT = "unlearned.json"
REASON = "opt_out"
MAX_SHOWN_ROWS = 20
WEIGHTS = ".safetensors"
TOUCHED, UNKNOWN = "touched", "unknown"
_TWIN = re.compile(r"\b[0-9a-f]{32,64}\b")
"""The id of a row, the one thing that stays of a dropped row's detail."""


def find_touched(opt_outs: OptOuts, folders: Sequence[Path]) -> dict[str, Any]:
    """Return which rows of datasets, and which runs, the requests touch. `folders` are datasets and runs in any order."""
    datasets: list[Path] = []
    runs: list[Path] = []
    for folder in folders:
        stage = (read_manifest(folder) or {}).get("stage") if folder.is_dir() else None
        if stage not in ("prepare", "train"):
            raise UserError(f"{folder}: neither a finished dataset nor a finished run; give folders that starchat prepare or train wrote")
        (datasets if stage == "prepare" else runs).append(folder)
    found = [_touched_rows(opt_outs, folder) for folder in datasets]
    touched = {dataset["digest"] for dataset in found if dataset["rows"]}
    known = {dataset["digest"]: dataset["folder"] for dataset in found}
    return {
        "requests": len(opt_outs.requests),
        "unread": list(opt_outs.unread),
        "datasets": found,
        "runs": [_touched_run(folder, runs, touched, known) for folder in runs],
    }


def _touched_rows(opt_outs: OptOuts, folder: Path) -> dict[str, Any]:
    manifest = require_prepared(folder)
    rows = [
        {
            **{key: row[key] for key in ("id", "copy", "license")},
            "origin": row.get("origin"),
            **row["source"],
            "request": request.name,
            "asked_in": request.place,
        }
        for row, request in _matches(opt_outs, folder)
    ]
    ownerless = sum(not names_its_owner(to_source(row["source"])) for row in prepared_rows(folder))
    return {"folder": str(folder), "digest": _digest(folder), "of": manifest["counts"]["written"], "ownerless": ownerless, "rows": rows}


def _matches(opt_outs: OptOuts, folder: Path) -> Iterator[tuple[dict[str, Any], Request]]:
    for row in prepared_rows(folder):
        if (request := opt_outs.match(to_source(row["source"]))) is not None:
            yield row, request


def _digest(folder: Path) -> str:
    """Return the digest that runs record of their dataset."""
    from starchat.rows import dataset_digest

    return dataset_digest(str(folder))


def _touched_run(run: Path, runs: Sequence[Path], touched: set[str], known: Mapping[str, str]) -> dict[str, Any]:
    """Return what the requests mean for a run: its own dataset counts, and those of the runs that it went on from."""
    line = list(_line(run, runs))
    digests = [_begun(one).get("dataset") for one in line]
    state = TOUCHED if touched & set(digests) else UNKNOWN if any(digest not in known for digest in digests) else "not touched"
    unknown = [str(one) for one, digest in zip(line, digests, strict=True) if digest not in known] if state == UNKNOWN else []
    return {"folder": str(run), "state": state, "dataset": known.get(str(digests[0])), "from": list(map(str, line[1:])), "unknown": unknown}


def _line(run: Path, runs: Sequence[Path]) -> Iterator[Path]:
    """Yield a run and those that it went on from, the nearest first: by the address in its recipe, or by the files of their models."""
    seen: set[Path] = set()
    waiting = [run]
    while waiting:
        one = waiting.pop(0)
        if one.resolve() in seen:
            continue
        seen.add(one.resolve())
        yield one
        begun = _begun(one)
        named = _run_of_model(Path(str(begun.get("recipe", {}).get("model") or "-")))
        weights = {digest for name, digest in begun.get("base", ()) if name.endswith(WEIGHTS)}
        waiting += named or [other for other in runs if weights & set(_weights(other))]


def _run_of_model(model: Path) -> list[Path]:
    """Return the run that a folder is, lies in, or was merged from, if it is one's."""
    for folder in (model, model.parent) if model.is_dir() else ():
        manifest = read_manifest(folder) or {}
        if manifest.get("stage") == "train":
            return [folder]
        if manifest.get("stage") == "merge":
            return [Path(manifest["from"]["run"])]
    return []


def _begun(run: Path) -> dict[str, Any]:
    return read_object(run / BEGUN, "what a run depends on", "the run was damaged") if (run / BEGUN).is_file() else {}


def _weights(run: Path) -> Iterator[str]:
    """Yield the digests of the weights that a run has saved."""
    yield from (sha256_file(path) for folder in ("model", "adapter") for path in sorted((run / folder).glob(f"*{WEIGHTS}")))


def write_without(report: Mapping[str, Any], output: Path, overwrite: bool = False) -> dict[str, Any]:
    """Write the one dataset of a report without the rows that were named, and return its manifest, plus its ``folder``."""
    if len(report["datasets"]) != 1:
        raise UserError(f"--output: {len(report['datasets'])} datasets are named; give exactly one, and write the others one by one")
    before = report["datasets"][0]
    folder = Path(before["folder"])
    manifest = require_prepared(folder)
    gone = {(row["id"], row["copy"]) for row in before["rows"]}
    digest = digest_json({"from": before["digest"], "without": sorted(map(list, gone))})
    with alone_at(output):
        if already_finished(output, STAGE, digest, overwrite):
            return {**(read_manifest(output) or {}), "folder": str(output), "skipped": True}
        _write_without(manifest, before, gone, output, digest)
    return {**(read_manifest(output) or {}), "folder": str(output), "skipped": False}


def _write_without(manifest: Mapping[str, Any], before: Mapping[str, Any], gone: set[tuple[str, int]], output: Path, digest: str) -> None:
    folder = Path(before["folder"])
    with building(output) as target:
        _copy_rows(folder, target, gone)
        _copy_dropped(folder, target, before["rows"])
        _copy_report(folder, target, before["rows"])
        counts = _counts_without(manifest["counts"], before["rows"], target)
        receipt = {**{key: before[key] for key in ("folder", "digest", "rows")}, "digest_after": _digest(target)}
        write_json(target / RECEIPT, receipt)
        content = {**{key: manifest[key] for key in ("spec", "inputs", "versions")}, "counts": counts}
        census = census_of(from_row(row) for row in prepared_rows(target) if row["copy"] == 0)
        content["census"], content["opt_out"] = census.to_json(), {**manifest.get("opt_out", {}), **census.reach()}
        content["unlearned"] = {"rows": len(before["rows"]), "receipt_sha256": sha256_file(target / RECEIPT)}
        write_card(target, content, census)
        write_manifest(target, STAGE, digest, content)


def _copy_rows(folder: Path, target: Path, gone: set[tuple[str, int]]) -> None:
    """Copy the files of a dataset without some rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in prepared_files(folder):
        with open_parquet(path) as file, pq.ParquetWriter(target / path.name, file.schema_arrow, compression="zstd") as writer:
            for batch in file.iter_batches(batch_size=512):
                keys = zip(batch.column("id").to_pylist(), batch.column("copy").to_pylist(), strict=True)
                kept = batch.filter(pa.array([key not in gone for key in keys], pa.bool_()))
                writer.write_table(pa.Table.from_batches([kept], schema=file.schema_arrow))


def _copy_dropped(folder: Path, target: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Copy what was dropped, without its text, and add the records that were taken out now."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (target / "dropped").mkdir()
    now = [
        {"place": row["place"], "detail": f"{row['request']}, asked for in {row['asked_in']}", "raw": "", "source": None}
        for row in rows
        if row["copy"] == 0
    ]
    earlier = sorted((folder / "dropped").glob("*.parquet"))
    for path in dict.fromkeys([*(path.name for path in earlier), *([f"{REASON}.parquet"] if now else [])]):
        with pq.ParquetWriter(target / "dropped" / path, dropped_schema(), compression="zstd") as writer:
            if folder / "dropped" / path in earlier:
                with open_parquet(folder / "dropped" / path) as file:
                    for batch in file.iter_batches(batch_size=512):
                        twins = [" ".join(_TWIN.findall(detail)) for detail in batch.column("detail").to_pylist()]
                        for column, texts in (("raw", [""] * batch.num_rows), ("detail", twins)):
                            batch = batch.set_column(batch.schema.get_field_index(column), column, pa.array(texts, pa.string()))
                        writer.write_batch(batch)
            if path == f"{REASON}.parquet":
                writer.write_table(pa.Table.from_pylist(now, schema=dropped_schema()))


def _copy_report(folder: Path, target: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Copy what the records share with benchmarks, without the excerpts of rows that are gone."""
    if not (folder / DECONTAMINATION).is_file():
        return
    report = read_object(folder / DECONTAMINATION, "what the records share with benchmarks", "prepare the dataset again")
    gone = {row["place"] for row in rows}
    write_json(target / DECONTAMINATION, {**report, "nearest": [near for near in report["nearest"] if near["place"] not in gone]})


def _counts_without(counts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], target: Path) -> dict[str, Any]:
    """Return the counts of a manifest after rows were taken out: what was kept is dropped by request, in all and for each source.

    Rows of datasets that tell no `origin` change the sums alone.
    """
    splits = collections.Counter(row["split"] for row in prepared_rows(target))
    sources = [_without(source, [row for row in rows if row["origin"] == number]) for number, source in enumerate(counts["sources"])]
    whole = _without(counts, rows)
    known = {"splits": {split: splits[split] for split in counts["splits"]}, "sources": sources}
    return {**whole, **known, "copies": whole["written"] - whole["kept"]}


def _without(counts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    records = sum(row["copy"] == 0 for row in rows)
    dropped = {**counts["dropped"], **({REASON: counts["dropped"].get(REASON, 0) + records} if records else {})}
    changed = {"kept": counts["kept"] - records, "dropped": dict(sorted(dropped.items())), "written": counts["written"] - len(rows)}
    return {**counts, **changed}


def render_touched(report: Mapping[str, Any]) -> str:
    """Return a report as text for a terminal."""
    lines = [f"{report['requests']:,} names are asked for"]
    lines += [f"read by nobody: {place}" for place in report["unread"]]
    for dataset in report["datasets"]:
        rows = dataset["rows"]
        lines.append(f"{dataset['folder']}: {len(rows):,} of {dataset['of']:,} rows")
        if dataset["ownerless"]:
            lines.append(
                f"  {dataset['ownerless']:,} rows tell no owner/repository: no request for one can find them; "
                "state it with repository: in the spec's source, and prepare again"
            )
        for row in rows[:MAX_SHOWN_ROWS]:
            where = row["repository"] or row["url"] or row["place"]
            lines.append(f"  {row['id'][:12]} {where} {row['path'] or ''} ({row['license'] or 'no licence stated'}): {row['asked_in']}")
        lines += [f"  and {len(rows) - MAX_SHOWN_ROWS:,} more; --json names all"] * (len(rows) > MAX_SHOWN_ROWS)
    for run in report["runs"]:
        again = "; train it again on the dataset without these rows" if run["state"] == TOUCHED else ""
        again += f"; give the dataset of {', '.join(run['unknown'])}" if run["unknown"] else ""
        origin = f" (it went on from {', '.join(run['from'])})" if run["from"] else ""
        lines.append(f"{run['folder']}: {run['state']}{origin}{again}")
    return "\n".join(lines)
