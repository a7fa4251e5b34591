"""Formats: detected by keys, obeyed when named, and all readers hold on hostile rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.clean import clean
from data_prep.dialogues import DialoguesSpec, build_dialogues, find_dialogues
from data_prep.drafts import RowProblem
from data_prep.formats import FORMATS, READERS, detect, rename_columns
from data_prep.oasst import read_oasst
from data_prep.records import Dropped, Item, Kept
from data_prep.sources import Row
from starchat.dialogue import Turn
from starchat.errors import UserError

MESSAGE = {"role": "user", "content": "hi"}

SHAPES: list[tuple[str | None, dict[str, Any]]] = [
    ("messages", {"messages": [MESSAGE]}),
    ("messages", {"prompt": "hi", "messages": [MESSAGE]}),
    ("messages", {"conversations": [MESSAGE]}),
    ("messages", {"messages": json.dumps([MESSAGE])}),
    ("sharegpt", {"id": "1", "conversations": [{"from": "human", "value": "hi"}]}),
    ("alpaca", {"instruction": "a", "input": "", "output": "b"}),
    ("alpaca", {"instruction": "a", "input": "b", "output": "c", "response": "c"}),
    ("alpaca", {"instruction": "a", "response": "c"}),
    ("dolly", {"instruction": "a", "context": "", "response": "b", "category": "qa"}),
    ("oasst", {"message_tree_id": "1", "tree_state": "ready", "prompt": {"text": "a", "role": "prompter"}}),
    ("oasst", {"message_id": "1", "parent_id": None, "text": "a", "role": "prompter"}),
    ("oasst", {"thread_id": "1", "thread": []}),
    ("prompt_completion", {"prompt": "a", "completion": "b"}),
    (None, {"text": "<|im_start|>user"}),
    (None, {"messages": "hi"}),
    (None, {"prompt": "a", "chosen": "b", "rejected": "c"}),
    (None, {}),
]


@pytest.mark.parametrize(("format", "row"), SHAPES)
def test_detection(format: str | None, row: dict[str, Any]) -> None:
    assert detect([row]) == format


def test_detection_looks_at_most_rows_and_survives_odd_ones() -> None:
    rows: list[dict[str, Any]] = [
        {"text": "x"},
        {"messages": None},
        {"instruction": "a", "output": "b"},
        {"instruction": "a", "output": "b"},
        {"messages": [MESSAGE]},
    ]
    assert detect(rows) == "alpaca"


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def build(spec: DialoguesSpec) -> list[Item]:
    return list(build_dialogues(spec, find_dialogues(spec)))


def test_undetectable_format_lists_keys_and_formats(tmp_path: Path) -> None:
    path = write(tmp_path / "chats.jsonl", {"text": "a", "meta": 1})
    with pytest.raises(UserError) as error:
        build(DialoguesSpec(path))
    assert "not recognised by its keys (meta, text)" in str(error.value)
    for format in FORMATS:
        assert format in str(error.value)


def test_a_named_format_is_obeyed(tmp_path: Path) -> None:
    path = write(tmp_path / "chats.jsonl", {"instruction": "a", "context": "b", "response": "c", "output": ""})
    (item,) = build(DialoguesSpec(path, format="dolly"))
    assert isinstance(item, Kept)
    assert [turn.content for turn in item.record.turns] == ["a\n\nb", "c"]


def test_each_file_of_a_folder_has_its_own_format(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b"})
    write(tmp_path / "b.jsonl", {"instruction": "a", "output": "b"})
    spec = DialoguesSpec(str(tmp_path))
    assert [table.format for table in find_dialogues(spec)] == ["prompt_completion", "alpaca"]
    assert len(build(spec)) == 2


def test_columns_and_roles_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "chats.jsonl", {"question": "a", "answer": "b"})
    with pytest.raises(UserError, match="no column 'anser' in the first rows; did you mean 'answer'?"):
        build(DialoguesSpec(path, columns={"question": "prompt", "anser": "completion"}))
    with pytest.raises(UserError, match="roles: 'asistant' is no role of ours; did you mean 'assistant'?"):
        build(DialoguesSpec(path, roles={"bot": "asistant"}))
    assert rename_columns({"question": "a", "prompt": "old"}, {"question": "prompt"}) == {"prompt": "a"}


def test_the_licence_of_a_row_counts_where_the_spec_has_none(tmp_path: Path) -> None:
    path = write(
        tmp_path / "chats.jsonl", {"prompt": "a", "completion": "b", "license": "MIT"}, {"prompt": "c", "completion": "d", "license": 5}
    )
    items = build(DialoguesSpec(path)) + build(DialoguesSpec(path, license="Apache-2.0"))
    assert [item.record.license for item in items if isinstance(item, Kept)] == ["MIT", None, "Apache-2.0", "Apache-2.0"]


def test_alpaca_with_system_and_history() -> None:
    row = {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]}
    assert [(t.role, t.content) for t in READERS["alpaca"](row, {}).turns] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]


def test_sharegpt_system_and_tools_columns() -> None:
    row = {"system": "s", "tools": '[{"name": "f"}]', "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    draft = READERS["sharegpt"](row, {})
    assert draft.turns[0] == Turn("system", "s")
    assert draft.tools == '[{"name": "f"}]'


def test_parquet_nulls_do_not_enter_tools() -> None:
    row = {
        "messages": [{**MESSAGE, "tool_calls": None, "weight": None}],
        "tools": [{"type": "function", "function": {"name": "f", "strict": None}}],
    }
    draft = READERS["messages"](row, {})
    assert draft.tools == '[{"type": "function", "function": {"name": "f"}}]'
    assert draft.turns == (Turn("user", "hi"),)


def test_oasst_trees_deeper_than_the_recursion_limit(tmp_path: Path) -> None:
    roles = ("prompter", "assistant")
    rows = [{"message_id": str(n), "parent_id": str(n - 1) if n else None, "text": f"t{n}", "role": roles[n % 2]} for n in range(5_000)]
    path = write(tmp_path / "messages.jsonl", *rows)
    for paths in ("best", "all"):
        (item,) = build(DialoguesSpec(path, paths=paths))
        assert isinstance(item, Kept)
        assert len(item.record.turns) == 5_000


def test_oasst_circles_and_odd_ids_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"message_id": "a", "parent_id": "b", "text": "t", "role": "prompter"},
        {"message_id": "b", "parent_id": "a", "text": "t", "role": "assistant"},
        {"message_id": ["c"], "parent_id": None, "text": "t", "role": "prompter"},
    ]
    items = build(DialoguesSpec(write(tmp_path / "messages.jsonl", *rows)))
    assert sorted(item.reason for item in items if isinstance(item, Dropped)) == ["oasst_orphan", "oasst_orphan", "wrong_type"]


KEYS = st.sampled_from(
    [  # keys that formats are detected by
        "messages",
        "conversations",
        "role",
        "content",
        "from",
        "value",
        "instruction",
        "input",
        "output",
        "response",
        "context",
        "prompt",
        "completion",
        "tools",
        "tool_calls",
        "function",
        "function_call",
        "name",
        "arguments",
        "id",
        "tool_call_id",
        "weight",
        "type",
        "text",
        "message_id",
        "parent_id",
        "message_tree_id",
        "thread_id",
        "thread",
        "replies",
        "rank",
        "deleted",
        "labels",
        "spam",
        "history",
        "system",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.floats(),
    st.sampled_from(
        ["user", "assistant", "system", "tool", "human", "gpt", "prompter", "function_call", "", " ", "{}", "[", "<|end|>", "\0", "\ud800"]
    ),
    st.text(st.characters(), max_size=8),
)
HOSTILE = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25)
HOSTILE_ROWS = st.dictionaries(KEYS, HOSTILE, max_size=6)


@given(HOSTILE_ROWS, st.sampled_from(sorted(READERS)))
def test_readers_give_a_draft_or_a_named_problem(row: Mapping[str, Any], format: str) -> None:
    detect([row])
    try:
        drafted = clean(READERS[format](row, {}))
    except RowProblem as problem:
        assert problem.reason.isidentifier()
        assert problem.detail
    else:
        assert any(turn.trained for turn in drafted.turns)
        assert drafted.turns[-1].role == "assistant"


@given(st.lists(HOSTILE_ROWS, min_size=1, max_size=4), st.sampled_from(["best", "all"]))
def test_oasst_gives_at_least_one_unit_for_each_tree(rows: list[dict[str, Any]], paths: str) -> None:
    units = list(read_oasst([Row(f"f:{n}", row) for n, row in enumerate(rows)], paths, {}))
    trees = [row for row in rows if "prompt" in row or "thread" in row or "message_id" not in row]
    assert len(units) >= len(trees)
