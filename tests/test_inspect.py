"""Looking at a dataset: the figures are those of its rows, the text shows them, the picture has content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.inspect import inspect, plot, quantiles, render_text
from data_prep.prepare import prepare
from starchat.errors import UserError


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    rows = [chat(f"q{n:02}", "x" * n) for n in range(1, 41)] + [
        chat("q41", ""),
        chat("q42", " "),
        {"messages": []},
        chat("\x1b[2J", "y" * 5_000),
    ]
    rows[0]["messages"][1]["tool_calls"] = [{"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "code").mkdir()
    (folder / "code" / "a.py").write_text("# A file that is long enough to be kept.\n" + "value = 1\n" * 30)
    spec = {
        "sources": [
            {"kind": "dialogues", "path": str(folder / "chats.jsonl"), "license": "MIT"},
            {"kind": "source", "path": str(folder / "code")},
        ],
        "output": str(folder / "dataset"),
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    prepare(folder / "spec.yaml", progress=False)
    return folder / "dataset"


def test_the_report_counts_what_is_there(dataset: Path) -> None:
    report = inspect(dataset)
    assert report["kinds"] == {"dialogue": 41, "document": 1}
    assert report["licenses"] == {"MIT": 41, "not stated": 1}
    assert report["roles"]["assistant"] == {"turns": 41, "characters": sum(range(1, 41)) + 5_000}
    assert report["turns"] == {"mean": 2.0, "0%": 2, "25%": 2, "50%": 2, "75%": 2, "95%": 2, "100%": 2}
    assert report["characters"]["100%"] == 5_004
    assert report["characters"]["0%"] == 4
    assert len(report["samples"]) == 3
    assert {name: len(rows) for name, rows in report["dropped_samples"].items()} == {"empty_answer": 2, "empty_dialogue": 1}
    json.dumps(report)


def test_the_text_shows_it_and_drives_no_terminal(dataset: Path) -> None:
    text = render_text(inspect(dataset, samples=50))
    assert "45 read = 42 kept + 3 dropped; 42 rows written (0 copies)" in text
    assert "dropped: empty_answer: " in text
    assert 'look({"at": 1})' in text
    assert "(3800 more characters)" in text
    assert "<filename>a.py" in text
    assert "\x1b" not in text
    assert "\\x1b[2J" in text


def test_names_licences_and_details_drive_no_terminal_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (name, arguments) in enumerate((("f\x1b[2J", "{}"), ("f", "{\x1b[2J"))):
        call = {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}
        row = {"messages": [{"role": "user", "content": "q"}, call], "license": "MIT\x1b[2J"}
        Path(f"chats\x1b[2J{number}.jsonl").write_text(json.dumps(row))
    Path("spec.yaml").write_text(yaml.safe_dump({"sources": [{"kind": "dialogues", "path": "*.jsonl"}], "output": "dataset"}))
    prepare(Path("spec.yaml"), progress=False)
    text = render_text(inspect(Path("dataset")))
    assert "\x1b" not in text
    for shown in ("calls f\\x1b[2J({})", "MIT\\x1b[2J", "are no JSON", "chats\\x1b[2J0.jsonl:1"):
        assert shown in text


def test_one_reason(dataset: Path) -> None:
    assert list(inspect(dataset, reason="empty_answer")["dropped_samples"]) == ["empty_answer"]
    with pytest.raises(UserError, match="nothing was dropped for 'empty_anser'; did you mean 'empty_answer'?"):
        inspect(dataset, reason="empty_anser")


def test_no_samples(dataset: Path) -> None:
    report = inspect(dataset, samples=0)
    assert report["samples"] == []
    assert report["dropped_samples"] == {"empty_answer": [], "empty_dialogue": []}


def test_the_picture_has_content(dataset: Path, tmp_path: Path) -> None:
    import matplotlib.image

    plot(dataset, tmp_path / "data.png")
    image = matplotlib.image.imread(tmp_path / "data.png")
    assert image.shape[:2] == (700, 1100)
    colours = {tuple(int(255 * value) for value in pixel[:3]) for row in image[::5, ::5] for pixel in row}
    assert {(0x4C, 0x72, 0xB0), (0x1F, 0x77, 0xB4), (0x2C, 0xA0, 0x2C), (0xC4, 0x4E, 0x52)} <= colours


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; give a folder that starchat prepare wrote"):
        inspect(tmp_path / "gone")
    with pytest.raises(UserError, match="not a finished dataset of starchat prepare"):
        inspect(tmp_path)


@pytest.mark.parametrize("path", ["train-00000.parquet", "dropped/empty_answer.parquet"])
def test_a_damaged_dataset_is_refused(path: str, dataset: Path, tmp_path: Path) -> None:
    whole = (dataset / path).read_bytes()
    pages = bytes(byte ^ 0x5A for byte in whole[4 : len(whole) // 2])
    for damaged in (whole[:100], whole[:4] + pages + whole[len(whole) // 2 :], None):
        copy = Path(shutil.copytree(dataset, tmp_path / "copy", dirs_exist_ok=True))
        if damaged is None:
            (copy / path).unlink()
        else:
            (copy / path).write_bytes(damaged)
        with pytest.raises(UserError, match=r"missing or damaged|files were lost or added"):
            inspect(copy)


def test_quantiles_of_nothing() -> None:
    assert quantiles([]) == {}
