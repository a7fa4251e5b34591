"""The data card: what it counts, that it is the same on every run, and that no name in it becomes markup."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from data_prep.card import render_card, render_page
from data_prep.card_plots import plot_svg
from data_prep.census import census_of, main_language, shares
from data_prep.prepare import prepare
from starchat.dialogue import Part, Record, Source, Turn
from tests.repositories import commit, new

HOSTILE = "<script>alert(1)</script>|`x`"


def record(text: str, path: str | None = None, license: str | None = None) -> Record:
    """Return a document."""
    return Record(Source("x", "o/r", path), parts=(Part("", text),), license=license)


def test_a_census_counts_what_there_is() -> None:
    """Languages by path or fence, licences with their classes, lengths by powers of two."""
    dialogue = Record(Source("y"), (Turn("user", "q"), Turn("assistant", "```\nx\n```\n```go\ny\n```")))
    counted = census_of(
        [record("x" * 8, "a.py", "MIT"), record("x" * 7, "b.py", "GPL-3.0-only"), record("", "c.unknown"), dialogue]
    ).to_json()
    assert counted["languages"] == {"Python": 2, "Go": 1, "no code": 1}
    assert counted["license_classes"] == {"none": 2, "copyleft": 1, "permissive": 1}
    assert counted["characters_below"] == {"1": 1, "8": 1, "16": 1, "32": 1}
    assert counted["kinds"] == {"document": 3, "dialogue": 1}
    assert main_language(Record(Source("z"), (Turn("user", "```py\nx\n```"), Turn("assistant", "yes")))) is None


def test_what_does_not_fit_is_summed_up() -> None:
    """No count is left out of a plot."""
    counts = {str(n): n for n in range(1, 20)}
    assert sum(count for _, count in shares(counts, 9)) == sum(counts.values())
    assert shares({}, 9) == []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of a repository with a hostile name, in which something is dropped."""
    folder = tmp_path_factory.mktemp("card")
    clone = new(folder / "clone")
    commit(clone, "Begin", {"a.py": "def f(x):\n    return x\n" * 9, "b.go": "package b\n" * 9, "LICENSE": "no licence", "c.bin": "x"})
    source = {"kind": "source", "path": str(clone), "repository": f"o/{HOSTILE}", "view": "document", "license": "MIT"}
    spec = folder / "spec.yaml"
    spec.write_text(json.dumps({"sources": [source], "output": str(folder / "dataset"), "test_fraction": 0}), encoding="utf-8")
    prepare(spec, progress=False)
    return folder / "dataset"


def test_the_files_of_a_card(dataset: Path) -> None:
    """A head for the Hub, a picture that is XML, a page without scripts, and whom the data is from."""
    card = (dataset / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head == {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}],
        "license": "mit",
    }
    assert "![What the dataset is made of](card.svg)" in card
    picture = (dataset / "card.svg").read_text(encoding="utf-8")
    texts = [element.text for element in ET.fromstring(picture).iter() if element.text]
    assert {"Python", "Go", "MIT", "records kept by language"} <= set(texts)
    page = (dataset / "card.html").read_text(encoding="utf-8")
    assert picture.strip() in page
    assert "<script" not in page
    lines = [json.loads(line) for line in (dataset / "attribution.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [{"repository": f"o/{HOSTILE}", "url": None, "license": "MIT", "class": "permissive", "rows": 2}]


def test_names_are_text(dataset: Path) -> None:
    """A place, a licence or a reason with signs of markup shows them."""
    content = json.loads((dataset / "manifest.json").read_text(encoding="utf-8"))
    content["counts"]["sources"][0]["place"] = HOSTILE
    content["census"]["licenses"] = {HOSTILE: 2}
    assert "<script" not in render_page(content)
    assert "<script" not in plot_svg(content)
    rows = [line for line in render_card(content).splitlines() if "alert" in line and line.startswith("|")]
    assert rows
    assert all("\\<script\\>alert(1)\\</script\\>\\|\\`x\\`" in line for line in rows)


def test_a_card_of_nothing_much() -> None:
    """Empty tables and plots are told as such, and divide by nothing."""
    counts = {"read": 0, "kept": 0, "dropped": {}, "repaired": {}, "written": 0, "copies": 0, "splits": {}, "sources": []}
    content = {"counts": counts, "census": census_of([]).to_json(), "versions": {"starchat": "0"}, "spec": {}}
    assert "records kept by language: none" in plot_svg(content)
    assert "# Data card" in render_card(content)
