"""Verdicts over lines that no builder made: many sources, and records whose copies say in which of them they are written."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.item_files import CLAIM, CLAIMS, LINE, LINES, judged_digest
from data_prep.verdicts import Verdicts


def write_lines(folder: Path, ids: list[int], copies: list[int]) -> Path:
    """Write lines of kept records to a folder of a shard."""
    folder.mkdir()
    lines = np.zeros(len(ids), LINE)
    lines["id"][:, 1], lines["copies"], lines["kept"] = ids, copies, True
    np.save(folder / LINES, lines)
    np.save(folder / CLAIMS, np.zeros(0, CLAIM))
    return folder


def value(source: int, folder: Path) -> dict[str, object]:
    return {"source": source, "reasons": [], "reads": [], "lines": len(np.load(folder / LINES)), "judged": judged_digest(folder)}


@pytest.mark.parametrize(
    ("copies", "written", "dropped"),
    [
        ([2, 3], [2, 0], [{}, {"duplicate": 1}]),
        ([0, 3], [0, 3], [{"mixture_weight": 1}, {}]),
        ([0, 0], [0, 0], [{"mixture_weight": 1}, {"mixture_weight": 1}]),
    ],
)
def test_a_record_is_written_where_a_weight_first_keeps_it(
    copies: list[int], written: list[int], dropped: list[dict[str, int]], tmp_path: Path
) -> None:
    folders = [write_lines(tmp_path / str(number), [7], [count]) for number, count in enumerate(copies)]
    verdicts = Verdicts(folders, list(map(value, (0, 1), folders)))
    verdicts.mark_copies()
    found = [verdicts.counts(source) for source in (0, 1)]
    assert [one["written"] for one in found] == written
    assert [one["dropped"] for one in found] == dropped
    assert all(one["read"] == 1 for one in found)


def test_a_source_without_lines_has_counts(tmp_path: Path) -> None:
    folders = [write_lines(tmp_path / "some", [1, 2], [1, 1]), write_lines(tmp_path / "none", [], [])]
    verdicts = Verdicts(folders, list(map(value, (0, 2), folders)))
    verdicts.mark_copies()
    assert [verdicts.counts(source)["read"] for source in range(4)] == [2, 0, 0, 0]


def test_thousands_of_sources_take_time_by_their_lines_alone(tmp_path: Path) -> None:
    """A pass over all lines for each source took 12 s for as many."""
    folder = write_lines(tmp_path / "shard", list(range(500)), [1] * 500)
    verdicts = Verdicts([folder] * 2_000, [value(source, folder) for source in range(2_000)])
    begin = time.process_time()
    assert sum(verdicts.counts(source)["read"] + len(verdicts.faults(source)) for source in range(2_000)) == 1_000_000
    assert time.process_time() - begin < 4
