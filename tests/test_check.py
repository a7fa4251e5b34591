"""Every detector against a planted fault that it must catch, and clean data of every kind that none may complain of."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import FAMILIES, dialogues
from planted import PLANTS, RECIPE, RECORDS, make
from starchat import detect_rows
from starchat.check import check_recipe
from starchat.dialogue import Part, Record, Source, Turn, to_row
from starchat.errors import UserError
from starchat.recipe import Recipe
from starchat.template import TEMPLATES


@pytest.fixture
def case(all_tokens):
    return make(all_tokens["starcoder", "starchat"])


def faults(report):
    return {finding.check for finding in report.findings if not finding.ok}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_clean_data_has_no_fault(all_tokens, family, template):
    case = make(all_tokens[family, template])
    report = case.report()
    assert not faults(report)
    assert all(finding.remedy == "" for finding in report.findings if finding.ok)
    assert json.loads(json.dumps(report.stats)) == report.stats
    assert sum(row.piece > 0 for row in case.rows) >= 1, "the case has a split dialogue"


@pytest.mark.parametrize("key", [("starcoder", "starchat"), ("qwen", "chatml"), ("starcoder", "native")])
def test_hostile_data_has_no_fault(all_tokens, key):
    tokens = all_tokens[key]
    quiet = {"no_empty_answers", "duplicate_rows", "lengths", "texts_survive_the_tokenizer", "no_endless_runs", "trained_share"}
    # these speak of the data, and hostile data has them

    @given(st.lists(dialogues(), min_size=1, max_size=4), st.integers(40, 300))
    @settings(max_examples=30, deadline=None)
    def check(records, max_length_tokens):
        recipe = dataclasses.replace(RECIPE, max_length_tokens=max_length_tokens)
        case = make(tokens, records, recipe)
        if case.rows:
            report = case.report()
            assert not faults(report) - quiet, [f for f in report.findings if not f.ok]

    check()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__.removeprefix("plant_"))
@pytest.mark.filterwarnings("ignore:invalid value")
def test_each_planted_fault_is_found(case, plant):
    assert not faults(case.report())
    wanted = plant(case)
    report = case.report()
    assert wanted in faults(report)
    finding = next(finding for finding in report.findings if finding.check == wanted)
    assert finding.remedy
    assert finding.detail


def test_copies_of_a_mixture_are_no_duplicates(case):
    case.records.append(dataclasses.replace(case.records[0], copy=1))
    case.rows.append(case.rows[0])
    report = case.report()
    assert not faults(report)
    assert report.stats["rows"]["train"] == len(case.rows) - 1


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[0, 1], [2]], "3 rows in 2 groups, each once"),
        ([[0, 1]], "row 2 is in 0 groups"),
        ([[0, 1], [2], [0]], "row 0 is in 2 groups"),
        ([[0, 1, 2]], "group 0 has 12 tokens; the maximum is 9"),
        ([[0, 1], [2, 3]], "row 3 is in 1 groups, and there is no such row"),
    ],
)
def test_packing_that_loses_doubles_or_overfills_is_found(groups, message):
    finding = detect_rows.packing(np.array([5, 4, 3]), groups, 9)
    assert message in finding.detail
    assert finding.ok == (message.endswith("each once"))


def test_an_end_token_at_which_nothing_stops_is_found():
    assert not detect_rows.end_token_stops(7, [0], 4, True).ok
    assert detect_rows.end_token_stops(7, [7, 0], 4, True).ok
    assert not detect_rows.end_token_stops(7, [7], 7, True).ok
    assert detect_rows.end_token_stops(7, [7], 7, False).ok


def test_numbers_of_the_report(case):
    stats = case.report().stats
    assert stats["records"] == len(RECORDS)
    assert stats["rows"] == {"train": len(case.rows) - 1, "test": 1}
    assert stats["roles"]["user"]["trained"] == stats["roles"]["system"]["trained"] == stats["roles"]["tool"]["trained"] == 0
    assert stats["roles"]["assistant"]["trained"] == stats["trained_tokens"] == sum(int(row.trained.sum()) for row in case.rows)
    parts = sum(n["header"] + n["content"] + n["end"] for n in stats["roles"].values())
    assert parts == stats["tokens"] == sum(len(row.ids) for row in case.rows)
    assert stats["split"]["records"] == 1
    assert stats["split"]["repeated_tokens"] > 0
    assert stats["set_aside"]["over_long"]["places"] == ["a.jsonl:7"]
    assert stats["set_aside"]["nothing_trained"] | {"tokens": 0} == {"count": 1, "tokens": 0, "trained_tokens": 0, "places": ["a.jsonl:6"]}
    assert sum(stats["length_histogram"]["rows"]) == len(case.rows)
    assert stats["steps_per_epoch_with_one_process"] == stats["packed_groups"]


def write_dataset(folder: Path, records) -> Path:
    """Write records as ``starchat prepare`` does."""
    folder.mkdir()
    for split in ("train", "test"):
        rows = [to_row(record) for record in records if record.split == split]
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000.parquet")
    splits = {split: sum(record.split == split for record in records) for split in ("train", "test")}
    (folder / "manifest.json").write_text(json.dumps({"stage": "prepare", "counts": {"splits": splits}}))
    return folder


def test_check_recipe_returns_report_and_rows(bases, tmp_path):
    dataset = write_dataset(tmp_path / "data", [*RECORDS, Record(Source("d:1"), parts=(Part("", "x"),))])
    recipe = dataclasses.replace(RECIPE, model=str(bases["starcoder"]), dataset=str(dataset))
    report, rows = check_recipe(recipe, progress=False)
    assert report.ok
    assert report.stats["records_of_another_kind"] == 1
    assert [len(rows[split]) for split in ("train", "test")] == [report.stats["rows"][split] for split in ("train", "test")]
    assert len({finding.check for finding in report.findings}) == len(report.findings)


def test_check_recipe_on_documents(bases, tmp_path):
    text = "".join(f"value = {n}\n" for n in range(40))
    records = [Record(Source(f"s:{n}"), parts=(Part("<filename>", f"a{n}.py"), Part("", f"\n{n}{text}"))) for n in range(8)]
    dataset = write_dataset(tmp_path / "data", records)
    architecture = {"model_type": "gpt_bigcode", "n_positions": 64}
    recipe = Recipe(str(bases["starcoder"]), str(dataset), "run", 64, kind="pretrain", architecture=architecture)
    report, rows = check_recipe(recipe, progress=False)
    assert report.ok
    assert len(rows["train"]) == report.stats["rows"]["train"] > len(records)
    with pytest.raises(UserError, match="context of 64 tokens"):
        check_recipe(dataclasses.replace(recipe, max_length_tokens=65), progress=False)


@pytest.mark.parametrize(
    ("changes", "records", "message"),
    [
        ({}, [], "no dialogue in its train split"),
        ({}, [Record(Source("d:1"), parts=(Part("", "x"),))], "1 documents in all"),
        ({}, [RECORDS[5]], "all 1 records were set aside"),
        ({"max_length_tokens": 4000}, RECORDS, "has a context of 1,024 tokens"),
        ({"dataset": "/nowhere"}, RECORDS, "dataset: '/nowhere'"),
        ({"model": "/nowhere"}, RECORDS, "no such folder"),
        ({"template": "starchatt"}, RECORDS, "did you mean 'starchat'"),
        ({"trainer": {"gradient_accumulation_steps": "two"}}, RECORDS, "expected a whole number"),
    ],
)
def test_what_the_user_must_change_is_one_message(bases, tmp_path, changes, records, message):
    dataset = write_dataset(tmp_path / "data", records)
    recipe = dataclasses.replace(RECIPE, **{"model": str(bases["starcoder"]), "dataset": str(dataset)} | changes)
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        check_recipe(recipe, progress=False)


def test_a_model_without_configuration_is_one_message(bases, tmp_path):
    shutil.copytree(bases["starcoder"], tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    dataset = write_dataset(tmp_path / "data", RECORDS)
    with pytest.raises(UserError, match=r"has no config\.json"):
        check_recipe(dataclasses.replace(RECIPE, model=str(tmp_path / "bare"), dataset=str(dataset)), progress=False)


def test_checking_imports_no_torch(bases, tmp_path):
    dataset = write_dataset(tmp_path / "data", RECORDS)
    code = (
        "import sys, starchat.xray\nfrom starchat.check import check_recipe\nfrom starchat.recipe import Recipe\n"
        f"report, rows = check_recipe(Recipe({str(bases['starcoder'])!r}, {str(dataset)!r}, 'run', 120, max_set_aside_fraction=0.9))\n"
        "assert report.ok\nassert not {'torch', 'transformers', 'trl', 'peft'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(
    ("keys", "sequences"), [({}, 1), ({"trainer": {"gradient_accumulation_steps": 4}}, 4), ({"train_batch_size": 6}, 6)]
)
def test_steps_are_those_of_the_run(keys, sequences, bases, tmp_path, monkeypatch):
    from starchat.arguments import training_arguments

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    dataset = write_dataset(tmp_path / "data", RECORDS)
    recipe = dataclasses.replace(RECIPE, model=str(bases["starcoder"]), dataset=str(dataset), **keys)
    stats = check_recipe(recipe, progress=False)[0].stats
    arguments = training_arguments(recipe)
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == sequences
    assert stats["sequences_per_step_with_one_process"] == sequences


def test_a_piece_as_long_as_its_record_is_no_whole_dialogue(all_tokens):
    tokens = all_tokens["starcoder", "starchat"]
    turns = (Turn("assistant", "<|system|>" * 6), Turn("user", "hi"), Turn("assistant", "ho"))
    record = Record(Source("h:1"), turns=turns, tools="[{}]")
    case = make(tokens, [record], dataclasses.replace(RECIPE, max_length_tokens=40))
    assert [row.piece for row in case.rows] == [0, 1]
    assert "jinja_gives_the_same_ids" not in faults(case.report())
