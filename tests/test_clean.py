"""Golden cases: each kind of known dirt has an input file and the items that it must give."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import data_prep.clean
from data_prep.clean import clean, python_fault
from data_prep.control_tokens import CHAT_TOKENS, PLACEHOLDERS, STARCODER_TOKENS, find_control_token
from data_prep.dialogues import DialoguesSpec, build_dialogues, find_dialogues
from data_prep.dirt import clean_page_text, without_wiki_marks
from data_prep.drafts import Draft, RowProblem
from data_prep.records import Dropped, Item
from starchat.config import from_mapping
from starchat.dialogue import ToolCall, Turn, to_message

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name.removesuffix(".expected.json") for path in CASES.glob("*.expected.json"))

CODE = """Use this:

```python
import openai



client = openai.OpenAI()
```

<div class="box"><span>kept</span></div>

| a | b |   trailing spaces stay  \n
\ttabs too [1]
"""


def as_json(item: Item) -> dict[str, Any]:
    if isinstance(item, Dropped):
        return {"place": item.place, "dropped": item.reason, "fault": item.fault, "detail": item.detail}
    record = item.record
    value = {"place": record.source.place, "messages": [to_message(turn) for turn in record.turns], "repairs": list(item.repairs)}
    return {**value, "tools": record.tools} if record.tools else value


@pytest.mark.parametrize("name", NAMES)
def test_golden_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES)
    expected = json.loads((CASES / f"{name}.expected.json").read_text(encoding="utf-8"))
    spec = from_mapping(DialoguesSpec, {"path": f"{name}.jsonl", **expected["spec"]}, name)
    assert [as_json(item) for item in build_dialogues(spec, find_dialogues(spec))] == expected["items"]


def test_every_case_has_its_input_and_every_input_its_case() -> None:
    assert [path.stem for path in sorted(CASES.glob("*.jsonl"))] == NAMES


def test_every_reason_of_the_docstring_is_seen_in_a_case() -> None:
    documented = {line.split("``")[1] for line in (data_prep.clean.__doc__ or "").splitlines() if line.startswith("``")}
    seen: set[str] = set()
    for name in NAMES:
        for item in json.loads((CASES / f"{name}.expected.json").read_text(encoding="utf-8"))["items"]:
            seen |= {item["dropped"]} if "dropped" in item else set(item["repairs"])
    assert documented <= seen


def test_code_is_not_touched() -> None:
    draft = Draft((Turn("user", CODE), Turn("assistant", CODE)))
    assert clean(draft) == draft
    assert clean_page_text(CODE) == (CODE, ())
    assert without_wiki_marks(CODE, CODE) == (CODE, CODE, ())


def test_a_clean_dialogue_is_clean_again() -> None:
    draft = Draft((Turn("assistant", "a"), Turn("user", "b\0"), Turn("user", "c"), Turn("assistant", "d"), Turn("user", "e")))
    once = clean(draft)
    assert once.repairs == ("nul", "starts_with_assistant", "ends_with_user", "merged_user_turns")
    assert clean(Draft(once.turns, once.tools)).repairs == ()


QUESTION = Turn("user", "a")
CALLING = Turn("assistant", "", tool_calls=(ToolCall("f", "{}", "1"), ToolCall("g", "{}", "2")))
RESULTS = (Turn("tool", "x", name="f", tool_call_id="1"), Turn("tool", "y", name="g", tool_call_id="2"))


def test_the_results_of_two_calls_stand_in_a_row() -> None:
    draft = Draft((QUESTION, CALLING, *RESULTS, Turn("assistant", "b")))
    assert clean(draft) == draft


@pytest.mark.parametrize("field", ["content", "name", "tool_call_id", "call name", "call arguments", "tools"])
def test_every_text_is_made_sound_and_holds_no_control_token(field: str) -> None:
    """Except ids: they are matched, and never rendered."""

    def draft(text: str) -> Draft:
        call = ToolCall("f" + text * (field == "call name"), "{}" + text * (field == "call arguments"), "1")
        result = dataclasses.replace(RESULTS[0], **{field: f"1{text}"}) if field in ("content", "name", "tool_call_id") else RESULTS[0]
        first = dataclasses.replace(call, id=result.tool_call_id)
        tools = f"[{text}]" if field == "tools" else None
        return Draft((QUESTION, dataclasses.replace(CALLING, tool_calls=(first,)), result, Turn("assistant", "b")), tools)

    once = clean(draft("\0\ufdd0\ud800"))
    assert once.repairs == ("nul", "noncharacter", "lone_surrogate")
    assert clean(Draft(once.turns, once.tools)).repairs == ()
    if field != "tool_call_id":
        with pytest.raises(RowProblem, match=r"holds the control token <\|end\|>"):
            clean(draft("<|end|>"))


def test_what_is_joined_is_trained_as_its_turns_were() -> None:
    context, trained = Turn("assistant", "b", train=False), Turn("assistant", "b")
    assert clean(Draft((QUESTION, context, trained))).turns == (QUESTION, trained)
    with pytest.raises(RowProblem, match="two different answers in a row"):
        clean(Draft((QUESTION, context, CALLING)))


@pytest.mark.parametrize("token", [*CHAT_TOKENS, *STARCODER_TOKENS])
def test_every_control_token_is_found_but_placeholders(token: str) -> None:
    assert find_control_token(f"before {token}after") == (None if token in PLACEHOLDERS else token)


@pytest.mark.parametrize("text", ["a < b > c", "<|notatoken|>", "< |end|>", "List[int]", "<div>", "<s>old</s>", "<pr>"])
def test_ordinary_text_holds_no_control_token(text: str) -> None:
    assert find_control_token(text) is None


def test_a_removed_character_cannot_hide_a_control_token() -> None:
    items = clean(Draft((Turn("user", "a"), Turn("assistant", "<|e\ufdd0nd|>"))), control_tokens="keep")
    assert items.turns[1].content == "<|end|>"
    with pytest.raises(Exception, match=r"holds the control token <\|end\|>"):
        clean(Draft((Turn("user", "a"), Turn("assistant", "<|e\ufdd0nd|>"))))


def test_an_answer_that_begins_like_an_error_page_and_goes_on_is_kept() -> None:
    answer = "Too many requests, please wait, says the server with status 429. " + "Count the requests of each client. " * 10
    assert clean_page_text(answer) == (answer, ())


def test_python_fault_looks_only_at_python() -> None:
    assert python_fault("Write it in Rust.", "fn def f(") is None
    assert python_fault("Write it in Python.", "No code, but def is a word.") is None
    assert python_fault("", "```js\nlet = \n```") is None
    assert python_fault("", "```py\nx = = 1\n```") == "line 1: invalid syntax"
    assert python_fault("", "```python\nx = '\0'\n```") is not None
