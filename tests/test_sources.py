"""Rows from every kind of file, compressed and not, and one clear error for each kind of bad input."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_prep.compressed import open_bytes
from data_prep.records import Dropped
from data_prep.sources import Row, find_tables, parse_json, read_table
from starchat.errors import UserError

ROWS = [{"prompt": f"question {n} é", "completion": f"line\n{n}, 'x'"} for n in range(5)]


def write_bytes(path: Path, data: bytes) -> Path:
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def as_bytes(kind: str, folder: Path) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    if kind == "json":
        return json.dumps(ROWS).encode()
    plain = folder / f"plain.{kind}.tmp"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), plain)
    else:
        with open(plain, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["prompt", "completion"])
            writer.writeheader()
            writer.writerows(ROWS)
    return plain.read_bytes()


def read_all(path: str | Path, split: str = "train") -> list[Row | Dropped]:
    return [row for table in find_tables(str(path), split) for row in read_table(table)]


def values(path: str | Path) -> list[dict[str, object]]:
    rows = read_all(path)
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.value for row in rows if isinstance(row, Row)]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_file_kind_gives_the_same_rows(kind: str, compression: str, tmp_path: Path) -> None:
    path = write_bytes(tmp_path / f"rows.{kind}{compression}", as_bytes(kind, tmp_path))
    assert values(path) == ROWS
    assert [row.place for row in read_all(path)] == [f"{path}:{n}" for n in range(1, 6)]


@pytest.mark.parametrize(
    "text",
    ['{"version": 1, "data": [{"a": 1}, {"a": 2}]}', '[{"a": 1}, {"a": 2}]', '{"a": 1}\n{"a": 2}\n', '\ufeff[{"a": 1}, {"a": 2}]'],
    ids=["object", "array", "lines", "mark"],
)
def test_json_shapes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    assert values(path) == [{"a": 1}, {"a": 2}]


def test_one_dialogue_in_a_json_file_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text('{"messages": [{"role": "user", "content": "hi"}]}')
    assert len(values(path)) == 1


def test_places_count_lines_and_a_mark_at_the_start_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n{"a": 2}\r\n{"a": 3}')
    assert [row.place for row in read_all(path)] == [f"{path}:1", f"{path}:4", f"{path}:5"]


def test_lone_surrogates_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "\\ud83d"}\n')
    assert values(path) == [{"a": "\ud83d"}]


def test_glob_and_folder_are_sorted(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text(json.dumps({"name": name}))
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / ".c.jsonl").write_text("hidden")
    assert [value["name"] for value in values(tmp_path / "*.jsonl")] == ["a.jsonl", "b.jsonl"]
    assert [value["name"] for value in values(tmp_path)] == ["a.jsonl", "b.jsonl"]


def test_saved_datasets_folder_with_and_without_splits(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "plain")
    datasets.DatasetDict({"train": data, "extra": data.select([0])}).save_to_disk(tmp_path / "splits")
    assert values(tmp_path / "plain") == ROWS
    assert len(read_all(tmp_path / "splits", "extra")) == 1
    with pytest.raises(UserError, match="no split 'dev'; it has extra, train; name one with hub_split"):
        read_all(tmp_path / "splits", "dev")


def test_a_damaged_datasets_folder(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "plain")
    (tmp_path / "plain" / "state.json").write_text("{}")
    with pytest.raises(UserError, match="plain: datasets cannot load this folder"):
        read_all(tmp_path / "plain")


def test_hub_id_without_network_is_one_clear_error(tmp_path: Path) -> None:
    program = (
        "from data_prep.sources import *\n"
        "try:\n    list(read_table(find_tables('some-org/some-data')[0]))\n"
        "except UserError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("some-org/some-data: no such path, and as a Hub id it could not be loaded")
    assert done.stdout.count("\n") == 1


def test_bad_lines_are_faults_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n{"a": "\xff"}\n[1]\n{"a": NaN}\n"text"\n')
    rows = read_all(path)
    found = [(row.reason, row.place.rpartition(":")[2], row.fault) for row in rows if isinstance(row, Dropped)]
    assert found == [
        ("invalid_json", "2", True),
        ("invalid_utf8", "3", True),
        ("wrong_type", "4", True),
        ("invalid_json", "5", True),
        ("wrong_type", "6", True),
    ]


@pytest.mark.parametrize(
    "text",
    [b'{"a": ' + b"[" * 100_000, b'{"a": "\\u00e9", "b": ' + b"[" * 100_000, b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}"],
    ids=["endless", "escape", "sound"],
)
def test_deep_nesting_is_a_fault(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text + b"\n")
    (row,) = read_all(path)
    assert isinstance(row, Dropped)
    assert row.reason == "invalid_json"


def test_numbers_that_json_does_not_have_are_refused() -> None:
    for text in (b"NaN", b'{"a": Infinity, "b": "\\ud800"}'):
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)


def test_csv_faults(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt,completion\na,b\na\na,b,c\na,\xff\n" + b"a," + b"x" * 200_000 + b"\n")
    rows = read_all(path)
    assert [row.reason if isinstance(row, Dropped) else "" for row in rows] == ["", "wrong_type", "wrong_type", "invalid_utf8", ""]
    path.write_bytes(b'prompt,completion\na,"b\n')
    with pytest.raises(UserError, match=r"rows.csv: not valid CSV at line \d+"):
        read_all(path)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_truncated_and_damaged_compression(kind: str, compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}{compression}"
    whole = write_bytes(path, as_bytes(kind, tmp_path)).read_bytes()
    for size in (len(whole) // 2, len(whole) - 1, 5):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"the {compression} stream is truncated; copy or download the file again"):
            read_all(path)
    path.write_bytes(b"no such thing at all")
    with pytest.raises(UserError, match=f"not a sound {compression} file"):
        read_all(path)


def test_zst_of_several_frames_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(zstandard.compress(b'{"a": 1}\n') + zstandard.compress(b'{"a": 2}\n'))
    assert values(path) == [{"a": 1}, {"a": 2}]


def test_zst_of_much_the_same_takes_no_longer_than_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(zstandard.compress(b'{"a": 1}\n' + b" \n" * (1 << 26)))
    begin = time.process_time()
    with open_bytes(path) as file:
        assert sum(len(piece) for piece in iter(lambda: file.read(1 << 17), b"")) == 9 + (2 << 26)
    assert time.process_time() - begin < 10


def test_zst_with_a_long_window_is_read(tmp_path: Path) -> None:
    compressor = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=31)).compressobj()
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(compressor.compress(b'{"a": 1}\n') + compressor.flush())
    assert values(path) == [{"a": 1}]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion,completion\na,b,c\n")
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["prompt", "completion", "completion"])
    pq.write_table(table, tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.parquet"):
        with pytest.raises(UserError, match=f"{name}: two columns are named 'completion'; rename or remove one"):
            read_all(tmp_path / name)
    (tmp_path / "rows.csv").write_text("a,,\n1,,\n")
    assert values(tmp_path / "rows.csv") == [{"a": "1", "": ""}]


def test_parquet_maps_are_objects_and_dates_beyond_python_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string()))}), path)
    assert values(path) == [{"a": {"k": "v"}}]
    pq.write_table(pa.table({"a": pa.array([[("k", "v"), ("k", "w")]], pa.map_(pa.string(), pa.string()))}), path)
    with pytest.raises(UserError, match="a value after row 0 cannot be read"):
        read_all(path)
    pq.write_table(pa.table({"a": pa.array([2**62], pa.timestamp("us"))}), path)
    with pytest.raises(UserError, match=r"a value after row 0 cannot be read \(.*\); convert or remove its column"):
        read_all(path)


@pytest.mark.parametrize("text", ['{"files": [{"name": "a.jsonl"}], "stage": "ours"}', '[{"a": 2}]'], ids=["object", "array"])
def test_the_manifest_of_somebody_else_is_a_file_like_any_other(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}')
    (tmp_path / "manifest.json").write_text(text)
    assert len(values(tmp_path)) == 2


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(as_bytes("parquet", tmp_path)[:-20])
    with pytest.raises(UserError, match="not a sound Parquet file after row 0"):
        read_all(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.jsonl.gz", "rows.csv.zst"])
def test_empty_file(name: str, tmp_path: Path) -> None:
    path = write_bytes(tmp_path / name, b"")
    with pytest.raises(UserError, match="holds no rows; remove it from the spec"):
        read_all(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.jsonl", "missing.jsonl: no such file or folder; paths are relative to the current folder"),
        ("*.jsonl", "no file matches; check the pattern"),
        ("rows.xml", "extension '.xml' is not known; expected one of .jsonl"),
        ("empty", "no data file in this folder"),
        ("array.json", "not valid JSON"),
        ("object.json", "expected an array of objects, or an object that holds exactly one"),
        ("broken.json", r"broken.json: not valid JSON .*line 1 column 2"),
        ("org/data.jsonl", "no such file or folder"),
    ],
)
def test_bad_paths(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.xml").write_text("<a/>")
    (tmp_path / "array.json").write_text('[{"a": 1}')
    (tmp_path / "object.json").write_text('{"a": 1}')
    (tmp_path / "broken.json").write_text("{broken")
    with pytest.raises(UserError, match=message):
        read_all(path)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "x" * 2_000, "completion": "y"}) + "\n"
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for _ in range(10_000):
            file.write(line)
    (table,) = find_tables(str(path))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_table(table))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 10_000
    assert peak_bytes < 2_000_000 < len(line) * count
