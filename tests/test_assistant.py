"""From a repository to an assistant: every builder that applies, then a recipe that checks and trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from identify.vendor.licenses import LICENSES

import repositories
from data_prep.assistant import make_assistant, render_spec
from preparing import assert_conserved, records
from starchat.cli import main
from starchat.config import parse_yaml
from starchat.errors import UserError

VERBS = ("count", "join", "split", "sort", "filter", "merge", "reverse", "rotate", "clamp", "scale")
LICENSE = dict(LICENSES)["MIT"].replace("[year] [fullname]", "2024 Ann")


def module(verb: str, limit: int) -> str:
    functions = [
        f"def {verb}_{noun}(values, limit={limit}):\n"
        f'    """Return the {noun} of the values, {verb}ed up to a limit that the caller names."""\n'
        f"    kept = [value for value in values if value is not None]\n    return kept[:limit]\n"
        for noun in ("rows", "names", "sums")
    ]
    return "\n\n".join([f'"""Functions that {verb} tables of values for the reports of the shop."""\n', *functions])


def cell(kind: str, source: str, output: str | None = None) -> dict:
    outputs = [] if output is None else [{"output_type": "stream", "name": "stdout", "text": output}]
    code = {"outputs": outputs, "execution_count": 1} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source, **code}


NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 4,
    "metadata": {"language_info": {"name": "python"}},
    "cells": [
        cell("code", "from shop import count\nvalues = [1, None, 3]"),
        cell("markdown", "Let us count the rows of the table, without those that are empty."),
        cell("code", "rows = count.count_rows(values)\nprint(len(rows))", "2\n"),
        cell("markdown", "Now only the first of them, since the limit is one."),
        cell("code", "print(count.count_rows(values, limit=1))", "[1]\n"),
    ],
}


def issue(number: int) -> dict:
    body = f"When I call count_rows with {number} values and one of them is None, I get one row less than I gave. Is that meant to be so?"
    answer = "Yes, it is: what is None is not counted. If you want it to be, replace it before you call, as the notebook in the docs shows."
    author = {"login": f"ann{number}", "__typename": "User"}
    comment = {
        "author": {"login": "bob", "__typename": "User"},
        "authorAssociation": "OWNER",
        "body": answer,
        "createdAt": "2024-05-02T00:00:00Z",
    }
    return {
        **{"number": number, "title": f"Fewer rows than values, case {number}", "author": author, "body": body, "state": "CLOSED"},
        **{"createdAt": "2024-05-01T00:00:00Z", "closedAt": "2024-05-03T00:00:00Z", "comments": {"nodes": [comment]}},
        **{"url": f"https://github.com/acme/shop/issues/{number}", "authorAssociation": "NONE"},
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A repository with a licence, modules, a notebook and a history, and its issues."""
    root = tmp_path_factory.mktemp("shop")
    clone = repositories.new(root / "shop")
    files = {f"shop/{verb}.py": module(verb, 10) for verb in VERBS}
    repositories.commit(clone, "Begin the shop", {"LICENSE": LICENSE, "docs/count.ipynb": json.dumps(NOTEBOOK), **files})
    for number, verb in enumerate(VERBS):
        repositories.commit(
            clone, f"Raise the limits of these functions to {100 + number}", {f"shop/{verb}.py": module(verb, 100 + number)}
        )
    (root / "issues.json").write_text(json.dumps([issue(number) for number in range(1, 9)]))
    return root


@pytest.fixture(scope="module")
def made(shop):
    return make_assistant(str(shop / "shop"), str(shop / "issues.json"), str(shop / "assistant"), workers=1)


def test_every_builder_that_applies_is_in_the_spec(made, shop):
    spec = yaml.safe_load((shop / "assistant" / "data.yaml").read_text())
    assert [(source["kind"], source["view"]) for source in spec["sources"]] == [
        *(("source", "dialogue"), ("notebooks", "dialogue"), ("commits", "dialogue"), ("issues", "dialogue"), ("source", "document"))
    ]
    assert_conserved(made["manifest"])
    kept = {source["place"] + source["format"]: source["kept"] for source in made["manifest"]["counts"]["sources"]}
    assert all(kept.values()), kept
    found = records(str(shop / "assistant" / "dataset"))
    assert {(record.license, record.source.place) for record in found if record.source.path and record.license != "MIT"} == set()
    asked = [record.turns[0].content for record in found if record.turns]
    assert any("limits" in text for text in asked) and any("Fewer rows" in text for text in asked)


def test_the_recipe_holds_and_trains(made, shop, capsys):
    recipe = made["recipe"]
    assert main(["check", recipe, "--json"]) == 0, capsys.readouterr().out
    assert json.loads(capsys.readouterr().out)["ok"]


@pytest.mark.slow
def test_the_recipe_trains(made, shop):
    command = [sys.executable, "-m", "starchat", "train", made["recipe"], "max_steps=2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode == 0, done.stderr
    assert (shop / "assistant" / "run" / "manifest.json").is_file()


def test_the_same_command_again_does_nothing_and_a_changed_file_is_not_lost(made, shop):
    again = make_assistant(str(shop / "shop"), str(shop / "issues.json"), str(shop / "assistant"), workers=2)
    assert again["manifest"]["skipped"]
    recipe = Path(again["recipe"])
    text = recipe.read_text()
    recipe.write_text(text.replace("num_train_epochs: 2", "num_train_epochs: 9"))
    with pytest.raises(UserError, match=r"recipe.yaml: is not what would be written; .* --overwrite"):
        make_assistant(str(shop / "shop"), str(shop / "issues.json"), str(shop / "assistant"))
    assert "num_train_epochs: 9" in recipe.read_text()
    recipe.write_text(text)


def test_a_folder_without_git_and_without_issues(shop, tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    for verb in VERBS:
        (folder / f"{verb}.py").write_text(module(verb, 3))
    result = make_assistant(str(folder), None, str(tmp_path / "out"), workers=1)
    kinds = [source["kind"] for source in yaml.safe_load(Path(result["spec"]).read_text())["sources"]]
    assert kinds == ["source", "source"]


@pytest.mark.parametrize("name", ["on", "no", "null", "true", ".5", ".inf", "tool", "../tool.git", "a b", "a: b", "7"])
def test_a_path_in_the_spec_is_read_as_it_was_given(name):
    text = render_spec([{"kind": "source", "path": name, "view": "document"}], Path("out/dataset"), name, "nano")
    assert parse_yaml(text, "data.yaml")["sources"] == [{"kind": "source", "path": name, "view": "document"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a spec, such as recipes/nano/data.yaml, or a repository with --repo PATH"),
        (("--issues", "x.json"), "--issues goes with --repo"),
        (("spec.yaml", "--repo", "r"), "--repo writes a spec of its own"),
        (("--repo", "r", "--engine", "ray"), "--repo works on this machine; prepare the spec that it writes with --engine"),
        (("spec.yaml", "--sbatch=--mem=1G"), "--sbatch is about --engine slurm; the engine is pool"),
        (("spec.yaml", "--engine", "slurm", "--address", "auto"), "--address is about --engine ray; the engine is slurm"),
        (("--repo", "absent"), "absent: no such folder"),
        (("--repo", "empty"), "no source files, notebooks or commits"),
        (("--repo", "new"), "a repository without commits"),
        (("--repo", "code", "--model", "./absent"), "model: './absent': no such folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text(module(VERBS[0], 3))
    repositories.new(tmp_path / "new")
    assert main(["prepare", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "assistant").exists()
