"""Formats: detected by keys, obeyed when named, and all readers hold on hostile rows."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.clean import clean
from data_prep.dialogues import DialoguesSpec, build_dialogues, find_dialogues
from data_prep.drafts import Draft, RowProblem
from data_prep.formats import FORMATS, READERS, detect, rename_columns
from data_prep.oasst import Tree, Unit, read_trees, units_of
from data_prep.records import Dropped, Item, Kept
from data_prep.sources import Row
from starchat.dialogue import ToolCall, Turn
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
    ("alpaca", {"instruction": "a", "context": "", "response": "", "output": "b"}),
    ("oasst", {"message_tree_id": "1", "tree_state": "ready", "prompt": {"text": "a", "role": "prompter"}}),
    ("oasst", {"message_id": "1", "parent_id": None, "text": "a", "role": "prompter"}),
    ("oasst", {"thread_id": "1", "thread": []}),
    ("prompt_completion", {"prompt": "a", "completion": "b"}),
    (None, {"text": "<|im_start|>user"}),
    (None, {"messages": "hi"}),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "c"}),
    ("preference", {"prompt": "a", "messages": [MESSAGE], "chosen": [MESSAGE], "rejected": [MESSAGE]}),
    (None, {"prompt": "a", "chosen": "b", "rejected": None}),
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
    with pytest.raises(UserError, match="columns: two columns are mapped to 'prompt'; map one of them"):
        build(DialoguesSpec(path, columns={"question": "prompt", "answer": "prompt"}))
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


def test_rows_of_another_format_are_faults_and_lose_nothing(tmp_path: Path) -> None:
    alpaca = [{"instruction": f"{n}", "input": "", "output": "b"} for n in range(2)]
    dolly = {"instruction": "a", "context": "The passage.", "response": "b"}
    path = write(tmp_path / "alpaca.jsonl", *alpaca, dolly)
    (*_, last) = build(DialoguesSpec(path))
    assert isinstance(last, Dropped)
    assert (last.reason, last.fault) == ("wrong_type", True)
    assert last.detail.startswith("the row looks like format dolly; the file is read as alpaca (its first rows show it)")
    path = write(tmp_path / "dolly.jsonl", dolly, dolly, {"instruction": "a", "response": "b"}, alpaca[0])
    items = build(DialoguesSpec(path))
    assert [item.reason if isinstance(item, Dropped) else "" for item in items] == ["", "", "", "wrong_type"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"prompt": "a"}'.encode("utf-16"), r"a.jsonl:1: byte 0xff at position 1 is not valid UTF-8; convert the file"),
        ("a.jsonl", b'[{"prompt": "a", "completion": "b"}]', r"a.jsonl:1: the row is of type list; expected a JSON object"),
        ("a.jsonl", b"{,", r"a.jsonl:1: not valid JSON .*; none of the file's first rows can be read"),
        ("a.json", b"[null]", r"a.json:1: the row is of type NoneType"),
    ],
    ids=["utf-16", "array", "broken", "null"],
)
def test_a_file_of_which_no_row_can_be_read_says_why(name: str, text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(UserError, match=message):
        build(DialoguesSpec(str(tmp_path / name)))


def test_a_licence_is_made_sound(tmp_path: Path) -> None:
    (item,) = build(DialoguesSpec(write(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b", "license": "M\ud800IT"})))
    assert isinstance(item, Kept)
    assert (item.record.license, item.repairs) == ("M\ufffdIT", ("lone_surrogate",))


def calls(function: Any) -> dict[str, Any]:
    return {"messages": [MESSAGE, {"role": "assistant", "tool_calls": [function]}]}


@pytest.mark.parametrize("value", [b"\xff", datetime.date(2020, 1, 1), math.nan, [{"deep": math.inf}]], ids=repr)
def test_values_that_json_has_not_are_faults(value: Any) -> None:
    for row in (calls({"function": {"name": "f", "arguments": {"a": value}}}), {"messages": [MESSAGE], "tools": [{"a": value}]}):
        with pytest.raises(RowProblem, match=r"^(arguments|tools) cannot be JSON .*; expected JSON values") as problem:
            READERS["messages"](row, {})
        assert problem.value.fault


def test_calls_without_a_function_and_in_odd_case() -> None:
    (_, turn) = READERS["messages"](calls({"function": None, "name": "f", "arguments": "{}"}), {}).turns
    assert turn.tool_calls == (ToolCall("f", "{}"),)
    row = {"conversations": [{"from": "Human", "value": "a"}, {"from": "Function_Call", "value": '{"name": "f", "arguments": "{}"}'}]}
    (_, turn) = READERS["sharegpt"](row, {}).turns
    assert (turn.content, turn.tool_calls) == ("", (ToolCall("f", "{}"),))


def test_oasst_messages_of_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "messages.csv"
    rows = ("1,,a,prompter,,False,", "2,1,worse,assistant,1.0,False,", "3,1,best,assistant,0.0,False,", "4,1,gone,assistant,,True,")
    spam = '5,1,spam,assistant,,,"{""spam"": {""value"": 0.75}}"'
    path.write_text("\n".join(["message_id,parent_id,text,role,rank,deleted,labels", *rows, spam]))
    (item,) = build(DialoguesSpec(str(path)))
    assert isinstance(item, Kept)
    assert [turn.content for turn in item.record.turns] == ["a", "best"]
    reasons = {item.reason for item in build(DialoguesSpec(str(path), paths="all")) if isinstance(item, Dropped)}
    assert reasons == {"oasst_deleted", "oasst_spam"}


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


def read_oasst(rows: list[Row], paths: str) -> list[Unit | Dropped]:
    return [unit for tree in read_trees(rows) for unit in (units_of(tree, paths, {}) if isinstance(tree, Tree) else [tree])]


@given(st.lists(HOSTILE_ROWS, min_size=1, max_size=4), st.sampled_from(["best", "all"]))
def test_oasst_gives_at_least_one_unit_for_each_tree(rows: list[dict[str, Any]], paths: str) -> None:
    units = read_oasst([Row(f"f:{n}", row) for n, row in enumerate(rows)], paths)
    trees = [row for row in rows if "prompt" in row or "thread" in row or "message_id" not in row]
    assert len(units) >= len(trees)


def test_an_oasst_id_that_is_given_twice_is_read_once(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"message_id": "1", "parent_id": None, "text": "a", "role": "prompter"},
        {"message_id": "2", "parent_id": "1", "text": "b", "role": "assistant"},
        {"message_id": "2", "parent_id": "1", "text": "c", "role": "assistant"},
        {"message_id": "3", "parent_id": "2", "text": "d", "role": "prompter"},
        {"message_id": "4", "parent_id": "3", "text": "e", "role": "assistant"},
        {"message_id": "4", "parent_id": "4", "text": "its own parent", "role": "assistant"},
    ]
    items = build(DialoguesSpec(write(tmp_path / "messages.jsonl", *rows), paths="all"))
    answers = [[turn.content for turn in item.record.turns if turn.role == "assistant"] for item in items if isinstance(item, Kept)]
    assert answers == [["b", "e"], ["c"]]


def test_a_malformed_message_drops_its_oasst_tree(tmp_path: Path) -> None:
    rows = [
        {"message_id": "1", "parent_id": None, "text": "a", "role": "prompter"},
        {"message_id": "2", "parent_id": "1", "text": "b", "role": "bot"},
        {"message_id": "3", "parent_id": "1", "text": "c", "role": "assistant"},
    ]
    (item,) = build(DialoguesSpec(write(tmp_path / "messages.jsonl", *rows)))
    assert isinstance(item, Dropped)
    assert (item.reason, item.fault) == ("unknown_role", True)


def test_sharegpt_weights_and_the_other_key() -> None:
    call = {"from": "function_call", "value": '{"name": "f", "arguments": "{}"}', "weight": 0}
    row = {
        "conversation": [{"from": "human", "value": "a"}, call, {"from": "gpt", "value": "b", "weight": 0}, {"from": "gpt", "value": "c"}]
    }
    assert [turn.train for turn in READERS["sharegpt"](row, {}).turns] == [True, False, False, True]


def test_the_id_of_a_call_is_a_text() -> None:
    with pytest.raises(RowProblem, match=r"tool_calls.id is 7; expected a text"):
        READERS["messages"](calls({"id": 7, "function": {"name": "f", "arguments": "{}"}}), {})


def test_calls_of_a_user_are_a_fault() -> None:
    row = {"messages": [{**MESSAGE, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]}
    with pytest.raises(RowProblem, match="role 'user' has tool_calls; expected them in assistant messages only"):
        READERS["messages"](row, {})


def test_a_rank_that_is_no_number_comes_last() -> None:
    replies = [{"text": f"{rank}", "role": "assistant", "rank": rank} for rank in (math.nan, None, 2, 0.75, 0.5)]
    tree = {"message_tree_id": "1", "prompt": {"text": "a", "role": "prompter", "replies": replies}}
    (unit,) = read_oasst([Row("f:1", tree)], "best")
    assert isinstance(unit, Unit)
    assert isinstance(unit.result, Draft)
    assert unit.result.turns[1].content == "0.5"


NODES = st.fixed_dictionaries(
    {"text": st.sampled_from(["a", " "]), "role": st.sampled_from(["prompter", "assistant"])},
    optional={
        "rank": st.one_of(SCALARS, st.just(10**400)),
        "deleted": SCALARS,
        "review_result": SCALARS,
        "labels": st.one_of(
            HOSTILE,
            st.fixed_dictionaries({"spam": st.fixed_dictionaries({"value": st.one_of(SCALARS, st.just(10**400))})}),
            st.fixed_dictionaries({"name": st.lists(HOSTILE, max_size=3), "value": st.lists(HOSTILE, max_size=3)}),
        ),
    },
)


@given(NODES, st.lists(NODES, max_size=4), st.sampled_from(["best", "all"]))
def test_oasst_trees_with_hostile_metadata(root: dict[str, Any], replies: list[dict[str, Any]], paths: str) -> None:
    units = read_oasst([Row("f:1", {"message_tree_id": "1", "prompt": {**root, "replies": replies}})], paths)
    assert len(units) == 1 if paths == "best" else len(units) >= 1
