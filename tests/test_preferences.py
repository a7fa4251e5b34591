"""Pairs of answers in the shapes that TRL and the sets on the Hub have: read, kept or dropped under a name, found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.inspect import inspect, render_text
from data_prep.prepare import prepare
from starchat.dialogue import Record, Source, Turn, from_row, to_row
from starchat.errors import UserError
from starchat.rows import read_records

ASKED = {"role": "user", "content": "Sort a list."}
GOOD, BAD = {"role": "assistant", "content": "\n    items.sort()"}, {"role": "assistant", "content": "Sorry."}
SYSTEM = {"role": "system", "content": "Be brief."}
EARLIER = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
HUMAN = "\n\nHuman: Sort a list.\n\nAssistant: "

SHAPES: dict[str, tuple[dict[str, Any], list[dict[str, str]]]] = {
    "texts": ({"prompt": "Sort a list.", "chosen": GOOD["content"], "rejected": BAD["content"]}, [ASKED]),
    "messages": ({"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}, [ASKED]),
    "several turns": ({"prompt": [SYSTEM, *EARLIER, ASKED], "chosen": [GOOD], "rejected": [BAD]}, [SYSTEM, *EARLIER, ASKED]),
    "implicit prompt": ({"chosen": [*EARLIER, ASKED, GOOD], "rejected": [*EARLIER, ASKED, BAD]}, [*EARLIER, ASKED]),
    "ultrafeedback": (
        {
            "prompt": "Sort a list.",
            "prompt_id": "x",
            "chosen": [ASKED, GOOD],
            "rejected": [ASKED, BAD],
            "messages": [ASKED, GOOD],
            "score_chosen": 9.0,
            "score_rejected": 4.5,
        },
        [ASKED],
    ),
    "ultrafeedback with a system turn": (
        {"prompt": "Sort a list.", "chosen": [SYSTEM, ASKED, GOOD], "rejected": [SYSTEM, ASKED, BAD]},
        [SYSTEM, ASKED],
    ),
    "orca": (
        {"system": "Be brief.", "question": "Sort a list.", "chosen": GOOD["content"], "rejected": BAD["content"]},
        [SYSTEM, ASKED],
    ),
    "answers as lists, prompt as text": ({"prompt": "Sort a list.", "chosen": [GOOD], "rejected": [BAD]}, [ASKED]),
    "anthropic": ({"chosen": HUMAN + GOOD["content"], "rejected": HUMAN + BAD["content"]}, [ASKED]),
}

DROPPED: dict[str, dict[str, Any]] = {
    "identical_answers": {"prompt": "a?", "chosen": "b", "rejected": "b"},
    "empty_answer": {"prompt": "a?", "chosen": "b", "rejected": " "},
    "empty_prompt": {"prompt": " ", "chosen": "b", "rejected": "c"},
    "different_prompts": {"chosen": [ASKED, GOOD], "rejected": [{**ASKED, "content": "other"}, BAD]},
    "no_last_answer": {"chosen": [ASKED, GOOD, ASKED], "rejected": [ASKED, BAD]},
    "not_preferred": {"prompt": "a?", "chosen": "b", "rejected": "c", "score_chosen": 3, "score_rejected": 3.0},
}


def prepared(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    """Prepare rows; return the manifest."""
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    spec = folder / "data.yaml"
    sources = [{"kind": "dialogues", "path": str(path), **keys}]
    spec.write_text(yaml.safe_dump({"sources": sources, "output": str(folder / "dataset"), "test_fraction": 0.0}))
    return prepare(spec, progress=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_recognised_and_read(shape: str, tmp_path: Path) -> None:
    row, prompt = SHAPES[shape]
    manifest = prepared(tmp_path, [row])
    assert manifest["counts"]["sources"][0]["format"] == "preference"
    (record,) = read_records(str(tmp_path / "dataset"), "train")
    assert record.kind == "pair"
    assert [(turn.role, turn.content) for turn in record.turns] == [(m["role"], m["content"]) for m in [*prompt, GOOD]]
    assert [turn.trained for turn in record.turns] == [False] * len(prompt) + [True], "turns of the prompt are context"
    assert record.rejected == Turn("assistant", BAD["content"])


@pytest.mark.parametrize("reason", DROPPED)
def test_what_is_no_pair_is_dropped_under_a_name(reason: str, tmp_path: Path) -> None:
    counts = prepared(tmp_path, [SHAPES["texts"][0], DROPPED[reason]])["counts"]
    assert counts["read"] == 2
    assert counts["kept"] == 1
    assert counts["dropped"] == {reason: 1}


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    row = {"instruction": "Sort a list.", "chosen_response": "a", "rejected_response": "b"}
    columns = {"instruction": "prompt", "chosen_response": "chosen", "rejected_response": "rejected"}
    prepared(tmp_path, [row], columns=columns)
    (record,) = read_records(str(tmp_path / "dataset"), "train")
    assert (record.turns[0].content, record.turns[1].content, record.rejected and record.rejected.content) == ("Sort a list.", "a", "b")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "no marks", "rejected": "none"}, r"chosen is \"no marks\"; expected a text with .*Human"),
        ({"prompt": "a?", "chosen": 3, "rejected": "c"}, "chosen is 3; expected a text or a list"),
        ({"prompt": "a?", "chosen": "<|end|>", "rejected": "c"}, "chosen: assistant turn 2 holds the control token"),
        ({"prompt": "a?", "chosen": "b", "rejected": "<|end|>"}, "rejected: assistant turn 2 holds the control token"),
    ],
)
def test_malformed_pairs_stop_the_run(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, [row])


def test_a_pair_among_dialogues_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the row looks like format preference; the file is read as messages"):
        prepared(tmp_path, [{"messages": [ASKED, GOOD]}, {"messages": [ASKED, BAD]}, SHAPES["messages"][0]])


def test_python_must_parse_in_the_chosen_answer_only(tmp_path: Path) -> None:
    broken = "```python\ndef f(:\n```"
    rows = [{"prompt": "a?", "chosen": "fine", "rejected": broken}, {"prompt": "b?", "chosen": broken, "rejected": "fine"}]
    assert prepared(tmp_path, rows, python_must_parse=True)["counts"]["dropped"] == {"code_does_not_parse": 1}


def test_two_pairs_that_share_the_chosen_answer_are_two_records(tmp_path: Path) -> None:
    rows = [{"prompt": "a?", "chosen": "b", "rejected": "c"}, {"prompt": "a?", "chosen": "b", "rejected": "d"}]
    assert prepared(tmp_path, [*rows, rows[0]])["counts"]["dropped"] == {"duplicate": 1}


def test_a_pair_is_shown_with_both_answers(tmp_path: Path) -> None:
    prepared(tmp_path, [SHAPES["several turns"][0]])
    report = inspect(tmp_path / "dataset")
    assert report["kinds"] == {"pair": 1}
    assert report["roles"]["rejected"] == {"turns": 1, "characters": len(BAD["content"])}
    text = render_text(report)
    assert text.index("      items.sort()") < text.index("[rejected]\n  Sorry.")


def test_a_row_is_read_back_and_an_older_dataset_has_no_such_column() -> None:
    record = Record(Source("a:1"), turns=(Turn("user", "q"), Turn("assistant", "good")), rejected=Turn("assistant", "bad"))
    assert from_row(to_row(record)) == record
    dialogue = Record(Source("a:1"), turns=record.turns)
    assert dialogue.id != record.id
    row = to_row(dialogue)
    del row["rejected"]
    assert from_row(row) == dialogue
