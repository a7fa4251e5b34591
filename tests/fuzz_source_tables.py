"""Damaged tables of source files for ``benchmarks/fuzz_builders.py``: Parquet, JSON Lines, JSON, CSV."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.code_columns import COMMIT_COLUMNS, FILES_COLUMN, LICENSE_COLUMNS, PATH_COLUMNS, REPOSITORY_COLUMNS, STARS_COLUMNS
from fuzz_source import FILES, NAMES, starcoder2
from mutate import HOSTILE_TEXTS, mutated_bytes, mutated_json, mutated_text

LICENSES = ("MIT", "mit", "GPL-3.0-only", "no_license", "see the file", "MIT OR ISC", ["MIT"], ["MIT", "0BSD"], [], [None], None, 7)
STARS = (None, 0, 12, 12.0, "7", -1, 2**70, 1e308, float("nan"), True, "many")


def mutant(rng: random.Random, folder: Path) -> dict[str, Any]:
    """Write a damaged table, or some, and return the mapping of its source."""
    rows: Any = [_repository(rng) if rng.random() < 0.2 else _file(rng) for _ in range(rng.randint(0 if rng.random() < 0.05 else 1, 9))]
    if rng.random() < 0.5:
        rows = mutated_json(rows, rng)
    shape = rng.choice(["one", "one", "folder", "pattern"])
    names = [_write(rng, folder, f"t{number}", rows) for number in range(1 if shape == "one" else rng.randint(1, 3))]
    if shape == "folder" and rng.random() < 0.2:
        (folder / rng.choice(["a.py", "README.md", "x.bin", ".gitattributes", "state.json"])).write_text(FILES["src/a.py"])
    path = {"one": folder / names[0], "folder": folder, "pattern": folder / rng.choice(["*", "t*.*", "*.parquet", "**/*.jsonl*"])}[shape]
    return {"path": str(path), **_keys(rng)}


def _file(rng: random.Random) -> dict[str, Any]:
    name = rng.choice(NAMES) if rng.random() < 0.2 else rng.choice(sorted(FILES))
    content: Any = FILES.get(name, FILES["src/a.py"])
    if rng.random() < 0.4:
        content = mutated_text(content, rng)
    if rng.random() < 0.1:
        content = rng.choice([None, 1, "", {}, [], "\ud800", rng.choice(HOSTILE_TEXTS) * 3 + content])
    return {
        "content": content,
        rng.choice(PATH_COLUMNS): rng.choice(["", "/"]) + name,
        rng.choice(REPOSITORY_COLUMNS): rng.choice(["o/r", "o/r", "o/s", "", None, "<file_sep>\n"]),
        rng.choice(LICENSE_COLUMNS): rng.choice(LICENSES),
        rng.choice(STARS_COLUMNS): rng.choice(STARS),
        rng.choice(COMMIT_COLUMNS): rng.choice(["ab" * 20, None, 5]),
    }


def _repository(rng: random.Random) -> dict[str, Any]:
    files: Any = [{**_file(rng), "license_type": "permissive"} for _ in range(rng.randint(0, 4))]
    if rng.random() < 0.1:
        files = rng.choice([None, {}, "files", [None], [files], 3])
    return {"repo_path": rng.choice(["o/r", None]), FILES_COLUMN: files, "star_events_count": rng.choice(STARS)}


def _write(rng: random.Random, folder: Path, stem: str, rows: Any) -> str:
    """Write rows as one kind of table, or as JSON Lines where that kind cannot hold them; return the name of the file."""
    suffix = rng.choice([".parquet", ".parquet", ".jsonl", ".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet.gz"])
    path = folder / (stem + suffix)
    if ".parquet" in suffix and not _write_parquet(rng, path, rows):
        path = folder / f"{stem}.jsonl"
    listed = rows if isinstance(rows, list) else [rows]
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        _write_csv(path, [row for row in listed if isinstance(row, dict)])
    elif ".jsonl" in path.name:
        path.write_bytes("".join(f"{json.dumps(row)}\n" for row in listed).encode())
    data = path.read_bytes()
    if rng.random() < 0.2:
        data = mutated_bytes(data, rng)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path.name


def _write_parquet(rng: random.Random, path: Path, rows: Any) -> bool:
    sound = json.loads(json.dumps(rows).encode("utf-8", "replace").replace(b"\\ud", b"?"))
    try:
        table = pa.Table.from_pylist(sound)
        if "content" in table.column_names and rng.random() < 0.2 and table.schema.field("content").type == pa.string():
            column = table.schema.get_field_index("content")
            table = table.set_column(column, "content", table.column(column).cast(pa.binary()))
        pq.write_table(table, path, row_group_size=rng.choice([1, 2, 100]), compression=rng.choice(["none", "snappy", "zstd"]))
    except (pa.ArrowException, TypeError, AttributeError, KeyError, OverflowError, ValueError):
        path.unlink(missing_ok=True)
        return False
    return True


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = sorted({str(key) for row in rows for key in row})
    with open(path, "w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _keys(rng: random.Random) -> dict[str, Any]:
    view = rng.choice(["document", "dialogue"])
    most = {"max_file_bytes": rng.choice([1, 100, None])} if rng.random() < 0.1 else {}
    return {
        "view": view,
        "tokenizer": rng.choice(["nano", starcoder2()]),
        "rules": {"preset": rng.choice(["starcoder", "starcoder2", "none", "none"]), **most},
        "form": rng.choice(["file", "repository"]) if view == "document" else "file",
        "metadata": rng.choice(["path", "all", "published", "none"]),
        "licenses": rng.choice(["any", "any", "any", "permissive"]),
        "max_document_chars": rng.choice([1, 300, 200_000]),
        **({"column": rng.choice(["content", "text", "path", "files"])} if rng.random() < 0.1 else {}),
        **({"stars": rng.choice([0, 11])} if rng.random() < 0.3 else {}),
        **({"license": "MIT"} if rng.random() < 0.1 else {}),
        **({"repository": "a/b"} if rng.random() < 0.3 else {}),
        **({"ref": "HEAD"} if rng.random() < 0.02 else {}),
    }
