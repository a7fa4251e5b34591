"""Dates and stars of source files: from the columns of tables or from the spec, and what they decide."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.code_columns import date_of
from data_prep.kinds import Setting, open_kind
from data_prep.records import Kept
from notebook_files import code, text
from preparing import records, run, write_rows

CODE = "".join(f"def function_{n}(first, second):\n    return first * {n} + second\n" for n in range(20))
WHEN = "2021-05-04T01:02:03Z"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2021-05-04T01:02:03Z", WHEN),
        ("2021-05-04T01:02:03.456789", WHEN),
        ("2021-05-03 21:02:03-04:00", WHEN),
        ("2021-05-04 01:02:03 UTC", WHEN),
        (datetime.datetime(2021, 5, 4, 1, 2, 3), WHEN),
        (datetime.datetime(2021, 5, 4, 3, 2, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=2))), WHEN),
        (datetime.date(2021, 5, 4), "2021-05-04T00:00:00Z"),
        *((value, None) for value in ("", "2021", "20210504", "2021-13-04", "0001-01-01T00:00:00+09:00", "2021-05-04" + "x" * 99)),
        *((value, None) for value in ("yesterday", 1620090123, None, [], {})),
    ],
)
def test_what_is_a_date(value: Any, expected: str | None) -> None:
    assert date_of({"date": value}) == expected
    assert date_of({"revision_date": value, "created_at": "2020-01-01"}) == (expected or "2020-01-01T00:00:00Z")


def sources_of(path: str, **keys: Any) -> list[Any]:
    mapping = {"kind": "source", "path": path, "view": "document", "rules": {"preset": "none"}, **keys}
    items = open_kind("source", mapping, "spec", Setting(workers=1)).items()
    return [item.record.source for item in items if isinstance(item, Kept)]


def test_rows_of_tables_have_the_date_of_their_column() -> None:
    when = datetime.datetime(2021, 5, 4, 1, 2, 3)
    pq.write_table(pa.table({"content": [CODE], "path": ["a.py"], "revision_date": pa.array([when], pa.timestamp("us"))}), "table.parquet")
    files = [{"path": "a.py", "content": "a = 1\n", "date": "2022-01-01"}, {"path": "b.py", "content": "b = 1\n"}]
    write_rows("files.jsonl", [{"repo_name": "o/r", "committer_date": WHEN, "visit_date": "2030-01-01", "files": files}])
    write_rows("none.jsonl", [{"content": CODE, "path": "a.py", "visit_date": "2030-01-01"}])
    assert [source.date for source in sources_of("table.parquet")] == [WHEN]
    assert [source.date for source in sources_of("files.jsonl")] == ["2022-01-01T00:00:00Z", WHEN]
    assert [source.date for source in sources_of("files.jsonl", form="repository")] == ["2022-01-01T00:00:00Z"], "the last change"
    assert [source.date for source in sources_of("none.jsonl")] == [None]


def test_notebooks_in_tables_have_it_too() -> None:
    cells = [text("# Lesson"), code("print(1)")]
    book = json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells})
    write_rows("books.jsonl", [{"content": book, "path": "a.ipynb", "date": WHEN}])
    mapping = {"kind": "notebooks", "path": "books.jsonl", "view": "document", "rules": {"preset": "none"}}
    (item,) = open_kind("notebooks", mapping, "spec", Setting(workers=1)).items()
    assert isinstance(item, Kept)
    assert item.record.source.date == WHEN


def test_the_stars_of_a_spec_are_those_of_a_tree_and_of_rows_that_tell_none() -> None:
    Path("tree").mkdir()
    Path("tree/a.py").write_text(CODE)
    write_rows("rows.jsonl", [{"content": CODE, "path": "a.py"}, {"content": CODE + "\n", "path": "b.py", "stars": 3}])
    assert [source.stars for source in sources_of("tree", stars=7)] == [7]
    assert [source.stars for source in sources_of("tree")] == [None]
    assert [source.stars for source in sources_of("rows.jsonl", stars=7)] == [7, 3]


@pytest.mark.parametrize(("stars", "expected"), [((None, None, None), "o/newest"), ((1, None, None), "o/older"), ((1, None, 5), "o/tree")])
def test_they_decide_which_near_duplicate_is_kept(stars: tuple[int | None, ...], expected: str) -> None:
    dates = ("2020-01-01", "2023-01-01")
    names = ("older", "newest")
    rows = [
        {"content": f"{CODE}x = {n}\n", "repo_name": f"o/{name}", "path": "a.py", "date": date, "stars": known}
        for n, (name, date, known) in enumerate(zip(names, dates, stars, strict=False))
    ]
    Path("tree").mkdir()
    Path("tree/a.py").write_text(f"{CODE}x = 9\n")
    source = {"kind": "source", "view": "document", "license": "MIT", "rules": {"preset": "none"}}
    of_tree = {**source, "path": "tree", "repository": "o/tree", **({"stars": stars[2]} if stars[2] is not None else {})}
    manifest = run(of_tree, {**source, "path": write_rows("rows.jsonl", rows)}, curate={"near_duplicates": {}}, test_fraction=0)
    assert manifest["counts"]["dropped"] == {"near_duplicate": 2}
    assert [record.source.repository for record in records()] == [expected]
