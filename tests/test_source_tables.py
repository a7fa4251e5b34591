"""Tables of source files to records: every row is kept or named, and tells whence its file is."""

from __future__ import annotations

import collections
import gzip
import json
import os
import random
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fuzz_source_tables
import repositories
from data_prep import source_tables, sources
from data_prep.code_columns import license_of, path_of, stars_of
from data_prep.documents import parse_repository
from data_prep.json_lines import bytes_of
from data_prep.kinds import Setting, open_kind
from data_prep.records import Dropped, Item, Kept
from fuzzing import outcome_of, require_sound
from preparing import assert_conserved, digests, run
from starchat.errors import UserError

CODE = "def add(first, second):\n    return first + second\n"
STACK = {
    "hexsha": "00",
    "max_stars_repo_path": "src/a.py",
    "max_stars_repo_name": "o/r",
    "max_stars_repo_head_hexsha": "ab" * 20,
    "max_stars_repo_licenses": ["MIT"],
    "max_stars_count": 12,
    "content": CODE,
}
STACK_2 = {
    "path": "/src/a.py",
    "repo_name": "o/r",
    "revision_id": "ab" * 20,
    "detected_licenses": ["MIT"],
    "license_type": "permissive",
    "star_events_count": 12,
    "content": CODE,
}
PLAIN = {"path": "src/a.py", "repository": "o/r", "commit_id": "ab" * 20, "license": "mit", "stars": 12, "content": CODE}


def code(number: int) -> str:
    return f"def f{number}():\n    return {number}\n"


def rows_of(count: int, repositories: int = 1) -> list[dict[str, Any]]:
    each = count // repositories
    return [{"content": code(n), "path": f"p{n % 5}/m{n}.py", "repo_name": f"o/r{n // each}", "license": "MIT"} for n in range(count)]


def write(path: Path, rows: list[Any], **keys: Any) -> Path:
    """Write rows as what the file is called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, **keys)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def items(path: Path | str, workers: int = 1, tokenizer: str = "nano", **keys: Any) -> list[Item]:
    return list(open_kind("source", {"path": str(path), **keys}, "spec", Setting(tokenizer=tokenizer, workers=workers)).items())


def kept(found: list[Item]) -> list[Kept]:
    return [item for item in found if isinstance(item, Kept)]


def reasons(found: list[Item]) -> list[str]:
    return ["kept" if isinstance(item, Kept) else item.reason for item in found]


def text(item: Kept) -> str:
    return "".join(part.marker + part.text for part in item.record.parts)


@pytest.mark.parametrize("row", [STACK, STACK_2, PLAIN])
@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.json", "t.jsonl.gz"])
def test_a_row_tells_whence_its_file_is(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    path = write(tmp_path / name, [row])
    (item,) = kept(items(path))
    source = item.record.source
    assert text(item) == f"<filename>src/a.py\n{CODE}" and item.record.license == "MIT"
    assert (source.place, source.repository, source.path, source.commit) == (f"{path}:1", "o/r", "src/a.py", "ab" * 20)
    assert source.stars == 12
    (item,) = kept(items(path, metadata="all"))
    assert text(item) == f"<reponame>o/r<filename>src/a.py<gh_stars>10-100\n{CODE}"


def test_csv_holds_texts_alone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('content,path,stars,license\n"first = 1\nsecond = 2\n",a.py,7,apache-2.0\n')
    (item,) = kept(items(tmp_path / "t.csv"))
    assert (item.record.source.stars, item.record.license, text(item)) == (7, "Apache-2.0", "<filename>a.py\nfirst = 1\nsecond = 2\n")


def test_a_row_may_be_a_repository(tmp_path: Path) -> None:
    files = [
        {"content": CODE, "file_path": "a.py", "license_type": "permissive", "detected_licenses": ["ISC"]},
        {"content": "package a\n", "file_path": "a.go", "license_type": "no_license", "detected_licenses": []},
        {"content": "a,b\n", "file_path": "a.csv", "license_type": "no_license", "detected_licenses": []},
    ]
    rows = [{"repo_path": "o/r", "license": "MIT", "stars": 3, "files": files}, {"repo_path": "o/empty", "files": []}]
    for name in ("t.parquet", "t.jsonl"):
        found = items(write(tmp_path / name, rows))
        assert reasons(found) == ["kept", "kept", "other_language", "empty_repository"]
        first, second = kept(found)
        assert (first.record.license, second.record.license) == ("ISC", "MIT"), "the file's own before the repository's"
        assert (first.record.source.place, first.record.source.repository) == (f"{tmp_path / name}:1/a.py", "o/r")
        assert second.record.source.stars == 3
        assert kept(items(tmp_path / name, license="0BSD"))[1].record.license == "MIT", "the row's before the spec's"
    rows = [{"repo_path": "o/r", "files": [None, 3, {"file_path": "a.py"}, {"content": CODE}]}, {"repo_path": "o/s", "files": "a"}]
    found = items(write(tmp_path / "bad.jsonl", rows))
    assert reasons(found) == ["wrong_type", "wrong_type", "wrong_type", "unknown_language", "wrong_type"]
    assert all(item.fault == (item.reason == "wrong_type") for item in found if isinstance(item, Dropped))


PLANTED: list[tuple[dict[str, Any], str]] = [
    ({"content": None}, "no_content"),
    ({"content": 7}, "wrong_type"),
    ({"content": ["x"]}, "wrong_type"),
    ({"path": None}, "unknown_language"),
    ({"path": "a.csv"}, "other_language"),
    ({"path": "third_party/z.c"}, "vendored"),
    ({"path": "yarn.lock"}, "generated_code"),
    ({"path": "left/out.py"}, "excluded"),
    ({"content": "x = 1\n" * 170_000}, "too_large"),
    ({"content": "é" * 600_000}, "too_large"),
    ({"content": "x\n"}, "too_small"),
    ({"content": "x = 1\0\n" * 3}, "binary"),
    ({"content": " \n" * 9}, "empty_file"),
    ({"content": "def f(:\n    pass\n"}, "does_not_parse"),
    ({"content": "# Code generated by x. DO NOT EDIT.\nx = 1\n"}, "generated_code"),
    ({"content": "x = 1\n" * 20 + "y = '" + "y z " * 300 + "'\n"}, "long_line"),
    ({"license": "GPL-3.0-only"}, "licence_not_permissive"),
    ({"license": "no_license"}, "licence_unknown"),
    ({"content": "# SPDX-License-Identifier: GPL-3.0-only\nx = 1\n"}, "licence_not_permissive"),
]
"""What is wrong with a row that is else sound, and why it is then dropped."""


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_every_row_is_kept_or_named(tmp_path: Path, name: str) -> None:
    sound = {"content": CODE, "path": "a.py", "license": "MIT", "repo_name": "o/r"}
    rows = [{**sound, **fault} for fault, _ in PLANTED] + [{"path": "a.py"}, sound, sound]
    found = items(write(tmp_path / name, rows), licenses="permissive", without=["left/*"], rules={"min_file_bytes": 10})
    assert reasons(found) == [*(reason for _, reason in PLANTED), "wrong_type", "kept", "exact_duplicate"]
    for number, item in enumerate(found, 1):
        require_sound(item)
        if isinstance(item, Dropped):
            assert item.place == f"{tmp_path / name}:{number}" and set(json.loads(item.raw)) == {"repository", "path"}, (
                "its text is not kept"
            )


def test_repairs_are_those_of_files(tmp_path: Path) -> None:
    latin = "# Größe prüfen\nx = 1\n"
    rows = [{"content": "\ufeffx = 1\r\n", "path": "a.py"}, {"content": "x = '\ud800'\n", "path": "a.py"}]
    first, second = items(write(tmp_path / "t.jsonl", rows), rules={"preset": "none"})
    assert (first.repairs, text(first)) == (("byte_order_mark", "line_ends"), "<filename>a.py\nx = 1\n")
    assert (second.repairs, text(second)) == (("lone_surrogate",), "<filename>a.py\nx = '\ufffd'\n")
    (item,) = kept(items(write(tmp_path / "t.parquet", [{"content": latin.encode("latin-1"), "path": "a.c"}])))
    assert (item.repairs, text(item)) == (("charset_cp1252",), f"<filename>a.c\n{latin}"), "a column of bytes"


def test_values_of_rows_that_are_not_what_they_should_be() -> None:
    assert [license_of({"licenses": value}) for value in (["MIT OR ISC", "mit"], [None, "bsd-3-clause"], ["none"], {}, "", "x y")] == [
        *("MIT AND (MIT OR ISC)", "BSD-3-Clause", None, None, None, "LicenseRef-x-y"),
    ]
    assert license_of({"license": None, "detected_licenses": ["0BSD"]}) == "0BSD", "the first that states one"
    assert [stars_of({"stars": value}) for value in (3, 3.0, "3", "3.0", True, -1, 2**63, float("nan"), 0.5, "x", None, [3])] == [3] * 4 + [
        None
    ] * 8
    assert [path_of({"path": value}) for value in ("/a", ["a"], ["a", "b"], "", "/", 3)] == ["a", "a", None, None, None, None]


def test_what_a_spec_says_is_of_rows_that_do_not(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl", [{"text": CODE, "path": "a.py"}, {"text": code(1), **{k: PLAIN[k] for k in PLAIN if k != "content"}}]
    )
    first, second = kept(items(path, column="text", repository="x/y", license="ISC", stars=1, metadata="all"))
    assert (first.record.license, first.record.source.repository) == ("ISC", "x/y")
    assert (second.record.license, second.record.source.repository) == ("MIT", "o/r")
    assert text(first).startswith("<reponame>x/y<filename>a.py<gh_stars>1-10\n")
    assert text(second).startswith("<reponame>o/r<filename>src/a.py<gh_stars>10-100\n")


def test_documented_functions_of_rows(tmp_path: Path) -> None:
    function = 'def one(a):\n    """Return one more than the number."""\n    return a + 1\n'
    path = write(tmp_path / "t.parquet", [{**STACK, "content": "import os\n\n\n" + function}, {**STACK, "content": CODE}])
    found = items(path, view="dialogue")
    assert reasons(found) == ["kept", "no_documented_function"]
    (item,) = kept(found)
    assert item.record.source.place == f"{path}:1:4" and item.record.turns[1].content == f"```python\n{function}```"


def test_rows_of_a_repository_that_stand_together_are_documents(tmp_path: Path) -> None:
    rows = [*rows_of(20, repositories=4), {"content": CODE, "path": "x.py"}, {"content": "def f(:\n", "path": "y.py", "repo_name": "o/r3"}]
    found = items(write(tmp_path / "t.parquet", rows, row_group_size=3), form="repository")
    documents = [parse_repository(item.record.parts) for item in kept(found)]
    assert [document.name for document in documents] == ["o/r0", "o/r1", "o/r2", "o/r3"]
    assert [file for document in documents for file in document.files] == [(row["path"], row["content"]) for row in rows[:20]]
    assert sorted(reasons(found)) == ["does_not_parse", *["kept"] * 4, "no_repository"]
    assert len(kept(items(tmp_path / "t.parquet", form="repository", max_document_chars=150))) == 8
    files = [{"file_path": row["path"], "content": row["content"]} for row in rows[:20]]
    (item,) = items(write(tmp_path / "r.jsonl", [{"repo_path": "o/r", "files": files}]), form="repository")
    drawn = [path for path, _ in parse_repository(item.record.parts).files]
    assert sorted(drawn) == sorted(file["file_path"] for file in files) and drawn != [file["file_path"] for file in files]
    folders = [path.split("/")[0] for path in drawn]
    assert len(set(folders)) == sum(a != b for a, b in zip(folders, ["", *folders], strict=False)), "folders stand together"


@pytest.mark.parametrize("keys", [{}, {"view": "dialogue"}, {"form": "repository", "max_document_chars": 300}])
@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.jsonl.gz", "t.json"])
def test_the_number_of_workers_and_the_cut_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], name: str
) -> None:
    """Law 10, on a table of many stretches, with row groups below, at and above what one process reads whole."""
    function = 'def f{n}(a):\n    """Return the number {n} more."""\n    return a + {n}\n'
    rows = [{**row, "content": function.format(n=n // 2)} for n, row in enumerate(rows_of(80, repositories=8))]
    path = write(tmp_path / name, rows, **({"row_group_size": 7} if name == "t.parquet" else {}))
    whole = items(path, **keys)
    assert sum(isinstance(item, Dropped) and item.reason == "exact_duplicate" for item in whole) == 40
    for stretch, group, count in ((1000, 2000, 512), (1000, 100, 3), (1, 1, 1)):
        monkeypatch.setattr(source_tables, "STRETCH_BYTES", stretch)
        monkeypatch.setattr(source_tables, "GROUP_BYTES", group)
        monkeypatch.setattr(source_tables, "STRETCH_ROWS", count)
        monkeypatch.setattr(sources, "PARQUET_BYTES", group)
        assert len(list(source_tables.stretches(sources.find_tables(str(path)), "content"))) >= 2
        assert items(path, **keys) == whole
        if stretch == 1000:
            assert items(path, workers=3, **keys) == whole


def test_stretches_hold_no_more_than_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory does not grow with a table or a row group; only the columns that are read count."""
    monkeypatch.setattr(source_tables, "STRETCH_BYTES", 40_000)
    monkeypatch.setattr(source_tables, "GROUP_BYTES", 100_000)
    rng = random.Random(0)
    small, large = (
        [{"content": rng.randbytes(500).hex(), "path": "a.py", "other": rng.randbytes(90_000)} for _ in range(n)] for n in (10, 150)
    )
    schema = pa.Table.from_pylist(small).schema
    with pq.ParquetWriter(tmp_path / "t.parquet", schema) as writer:
        for rows in (small, small, small, small, large, small):
            writer.write_table(pa.Table.from_pylist(rows, schema))
    found = list(source_tables.stretches(sources.find_tables(str(tmp_path / "t.parquet")), "content"))
    shapes = [stretch.groups if isinstance(stretch, source_tables.Groups) else len(stretch) for stretch in found]
    assert shapes == [(0, 1, 2), (3,), 40, 40, 40, 30, (5,)]
    assert [stretch.number for stretch in found if isinstance(stretch, source_tables.Groups)] == [0, 30, 190]
    (first, *_), *_ = (stretch for stretch in found if isinstance(stretch, tuple))
    assert first.place.endswith("t.parquet:41") and set(first.value) == {"content", "path"}
    many = write(tmp_path / "t.json", [{"content": "x"}] * 600)
    assert [len(stretch) for stretch in source_tables.stretches(sources.find_tables(str(many)), "content")] == [512, 88]
    lines = list(source_tables.stretches(sources.find_tables(str(write(tmp_path / "t.jsonl", [{"content": "x" * 30_000}] * 5))), "content"))
    assert [(stretch.first, bytes_of(stretch).count(b"\n")) for stretch in lines] == [(1, 2), (3, 2), (5, 1)]


def test_a_folder_is_of_tables_if_it_holds_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "t/b.parquet", rows_of(2))
    write(tmp_path / "t/data/a.jsonl.gz", [STACK])
    (tmp_path / "t/.gitattributes").write_text("x\n")
    (tmp_path / "t/link.jsonl").symlink_to(write(tmp_path / "other.jsonl", [PLAIN | {"content": code(7)}]))
    found = items(tmp_path / "t")
    assert [item.record.source.place for item in kept(found)] == [
        f"{tmp_path}/t/{name}" for name in ("b.parquet:1", "b.parquet:2", "data/a.jsonl.gz:1", "link.jsonl:1")
    ]
    for name in ("x/a.py", "README.md", "x.bin", "config.json"):
        extra = tmp_path / "t" / name
        extra.parent.mkdir(exist_ok=True)
        extra.write_text(CODE)
        found = items(tmp_path / "t", rules={"preset": "none"})
        assert all(":" not in (item.record.source.place if isinstance(item, Kept) else item.place) for item in found), "a tree, by file"
        assert len(kept(items(tmp_path / "t" / "*.parquet"))) == 2, "but what is named is read as a table"
        shutil.rmtree(extra) if extra.is_dir() else extra.unlink()
    os.mkfifo(tmp_path / "t/pipe.jsonl")
    assert "special_file" in reasons(items(tmp_path / "t")), "what may not be read is named"
    (tmp_path / "t/pipe.jsonl").unlink()
    repositories.new(tmp_path / "t")
    repositories.commit(tmp_path / "t", "one", {"b.jsonl": json.dumps(PLAIN) + "\n"})
    found = items(tmp_path / "t", rules={"preset": "none"})
    assert "b.jsonl" in {item.record.source.path for item in kept(found)}, "a clone is a clone"


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    import datasets

    saved = datasets.Dataset.from_list(rows_of(3))
    datasets.DatasetDict({"train": saved, "valid": saved.select([1])}).save_to_disk(tmp_path / "d")
    assert [item.record.source.place for item in kept(items(tmp_path / "d"))] == [f"{tmp_path}/d:{n}" for n in (1, 2, 3)]
    assert len(kept(items(tmp_path / "d", hub_split="valid"))) == 1
    with pytest.raises(UserError, match=r"no split 'test'; it has train, valid; name one with hub_split"):
        items(tmp_path / "d", hub_split="test")
    (tmp_path / "d/a.py").write_text(CODE)
    assert "a.py" in {item.record.source.path for item in kept(items(tmp_path / "d"))}, "beside source it is data"


def test_what_cannot_be_read_is_one_clear_message(tmp_path: Path) -> None:
    sound = write(tmp_path / "sound.parquet", rows_of(400), row_group_size=20, compression="none")
    data = sound.read_bytes()
    at = data.index(b"def f200") - 100
    (tmp_path / "damaged.parquet").write_bytes(data[:at] + b"\xff" * 400 + data[at + 400 :])
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(STACK).encode() * 500)[:-20])
    (tmp_path / "nothing.parquet").touch()
    (tmp_path / "nothing.jsonl").touch()
    (tmp_path / "blank.jsonl").write_bytes(b"\xef\xbb\xbf\n \n")
    write(tmp_path / "none.parquet", [{**STACK}])
    pq.write_table(pq.read_table(tmp_path / "none.parquet").slice(0, 0), tmp_path / "none.parquet")
    write(tmp_path / "ids.parquet", [{"blob_id": "x", "path": "a.py"}])
    write(tmp_path / "other.parquet", [{"text": CODE}])
    for name, keys, message in (
        ("damaged.parquet", {}, r"damaged.parquet: .* after row \d+"),
        ("cut.parquet", {}, "cut.parquet: not a sound Parquet file after row 0"),
        ("cut.jsonl.gz", {}, "the .gz stream is truncated"),
        *((name, {}, "holds no rows; remove it") for name in ("nothing.parquet", "nothing.jsonl", "blank.jsonl", "none.parquet")),
        ("ids.parquet", {}, "no column 'content'; this table only names files; their texts lie at Software Heritage"),
        ("other.parquet", {}, r"no column 'content'; name the one .* it has text"),
        ("sound.parquet", {"ref": "main"}, "ref: 'main': is about git repositories"),
        ("absent.parquet", {}, "no such folder; give a folder of source files"),
        ("*.csv", {}, "no file matches"),
        ("*", {}, "not known|no column"),
        (".", {"column": "text"}, "names none; leave it out"),
    ):
        (tmp_path / "file.py").write_text(CODE)
        with pytest.raises(UserError, match=message):
            items(tmp_path / name, **keys)
    with pytest.raises(UserError, match="damaged.parquet"):
        items(tmp_path / "damaged.parquet", workers=3)


def test_faults_are_in_the_lines_where_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_tables, "STRETCH_BYTES", 50)
    lines = [json.dumps(PLAIN), "", "no json", json.dumps([1]), "", '{"content": "' + "x" * 99, json.dumps({**PLAIN, "content": code(1)})]
    (tmp_path / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\n\xff\n")
    found = items(tmp_path / "t.jsonl")
    assert reasons(found) == ["kept", "invalid_json", "wrong_type", "invalid_json", "kept", "invalid_utf8"]
    places = [item.place if isinstance(item, Dropped) else item.record.source.place for item in found]
    assert all(item.fault for item in found if isinstance(item, Dropped)), "malformed rows stop a run that does not admit them"
    assert [place.rpartition(":")[2] for place in places] == ["1", "3", "4", "6", "7", "8"]


def test_large_rows_of_parquet_are_decoded_few_at_a_time(tmp_path: Path) -> None:
    """Of a row group of 60 MB no more than a third is held as Python's texts."""
    path = write(tmp_path / "t.parquet", [{"content": f"{n}" + "x" * 500_000, "path": "a.py"} for n in range(120)])
    tracemalloc.start()
    try:
        with open(path, "rb") as file:
            assert sum(1 for _ in sources.parquet_rows(path, file)) == 120
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_row_of_many_megabytes(tmp_path: Path) -> None:
    """A file of 40 MB is set aside and the rows around it are kept."""
    rows = [{"content": code(1), "path": "a.py"}, {"content": "x = 1\n" * 7_000_000, "path": "b.py"}, {"content": code(2), "path": "c.py"}]
    for name in ("t.jsonl", "t.parquet"):
        assert reasons(items(write(tmp_path / name, rows), workers=2)) == ["kept", "too_large", "kept"]


def test_a_dataset_of_tables_has_the_same_bytes_with_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole stage: read = kept + dropped, and what is malformed is admitted or stops it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source_tables, "STRETCH_BYTES", 300)
    rows = [*rows_of(60), {"content": 3, "path": "a.py"}, {"content": None, "path": "a.py"}, *rows_of(2)]
    write(tmp_path / "shards/a.jsonl", rows)
    write(tmp_path / "shards/b.parquet", [{**row, "content": row["content"] * 2} for row in rows_of(60)], row_group_size=7)
    source = {"kind": "source", "path": "shards"}
    with pytest.raises(UserError, match=r"a.jsonl:61: column content is of type int(.|\n)*max_bad_fraction admits 0"):
        run(source, workers=1)
    manifest = run(source, workers=1, max_bad_fraction=0.1)
    assert_conserved(manifest)
    assert manifest["counts"]["read"] == 124 and manifest["counts"]["dropped"] == {"exact_duplicate": 2, "no_content": 1, "wrong_type": 1}
    first = digests("dataset")
    shutil.rmtree("dataset")
    run(source, workers=3, max_bad_fraction=0.1)
    assert digests("dataset") == first


def test_mutants_are_kept_or_dropped_with_a_reason(tmp_path: Path) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcomes += outcome_of(fuzz_source_tables.mutant(random.Random(f"test:{number}"), folder), "source", number)
        shutil.rmtree(folder)
    assert outcomes["kept"] and outcomes["dropped: wrong_type"] and outcomes["refused whole"], "mutants are of all kinds"
