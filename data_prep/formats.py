"""Rows of the known dialogue formats as drafts: turns and tools, read but not yet cleaned.

In: the rows of `data_prep.sources`. Out: `Draft`, or a `RowProblem` that names why the row cannot be one. Which
format a table has is detected from the keys of its first rows. OASST, whose rows are trees, is in `data_prep.oasst`;
pairs of answers are in `data_prep.preferences`.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from data_prep.dirt import clean_page_text, without_wiki_marks
from data_prep.drafts import (
    Draft,
    RowProblem,
    json_list,
    optional_text,
    read_arguments,
    read_role,
    read_tools,
    required_text,
    wrong_type,
)
from data_prep.messages import MESSAGES_ROLES, is_trained, message_turns
from data_prep.oasst import is_oasst
from data_prep.preferences import is_preference, read_preference
from data_prep.sources import parse_json
from starchat.dialogue import ToolCall, Turn

FORMATS = ("messages", "sharegpt", "alpaca", "dolly", "oasst", "prompt_completion", "preference")

SHAREGPT_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "observation": "tool",
    **MESSAGES_ROLES,
}
SHAREGPT_CALLS = ("function_call", "tool_call")
NO_INPUT = frozenset({"<noinput>", "<no input>", "noinput", "no input"})


def detect(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the format that the keys of most rows show, or None if no row shows any.

    >>> detect([{"instruction": "Add.", "input": "1, 2", "output": "3"}])
    'alpaca'
    """
    votes = collections.Counter(found for row in rows if (found := detect_row(row)) is not None)
    return votes.most_common(1)[0][0] if votes else None


def rename_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a row with its columns named as the format names them; a renamed column replaces one of that name.

    >>> rename_columns({"question": "1+1?", "answer": "2"}, {"question": "prompt", "answer": "completion"})
    {'prompt': '1+1?', 'completion': '2'}
    """
    kept = {key: value for key, value in row.items() if key not in columns and key not in columns.values()}
    return {**kept, **{columns[key]: value for key, value in row.items() if key in columns}}


def read_messages(row: Mapping[str, Any], roles: Mapping[str, str]) -> Draft:
    """Return a row of HF or OpenAI ``messages``, with ``tools`` or the older ``functions``.

    >>> read_messages({"messages": [{"role": "user", "content": "hi"}]}, {}).turns[0].content
    'hi'
    """
    key = next((key for key in ("messages", "conversations", "conversation") if row.get(key) is not None), "messages")
    turns, repairs = message_turns(row.get(key), key, roles)
    tools = row.get("tools")
    if tools is None and row.get("functions") is not None:
        functions = json_list(row["functions"], "functions", "a list of functions")
        tools = [{"type": "function", "function": function} for function in functions]
        repairs = (*repairs, "legacy_functions")
    return Draft(turns, read_tools(tools), repairs)


def read_sharegpt(row: Mapping[str, Any], roles: Mapping[str, str]) -> Draft:
    """Return a ShareGPT row: ``conversations`` of ``from`` and ``value``, perhaps ``system`` and ``tools``."""
    turns: list[Turn] = []
    repairs: list[str] = []
    if system := optional_text(row, "system"):
        turns.append(Turn("system", system))
    key = "conversation" if row.get("conversation") is not None else "conversations"
    for entry in json_list(row.get(key), key, "a list of {from, value}"):
        if not isinstance(entry, dict):
            raise wrong_type(key, entry, "{from, value}")
        value = optional_text(entry, "value")
        role = read_role(entry.get("from"), roles, SHAREGPT_ROLES)
        if str(entry.get("from")).lower() in SHAREGPT_CALLS and role == "assistant":
            call, repair = _call_in_text(value)
            turns.append(Turn(role, "", train=is_trained(entry), tool_calls=(call,)))
            repairs += repair
        else:
            value, repair = clean_page_text(value) if role == "assistant" else (value, ())
            turns.append(Turn(role, value, train=role != "assistant" or is_trained(entry)))
            repairs += repair
    return Draft(tuple(turns), read_tools(row.get("tools")), tuple(repairs))


def read_alpaca(row: Mapping[str, Any], roles: Mapping[str, str]) -> Draft:
    """Return an Alpaca row; the answer is ``output``, or ``response`` where there is no output.

    >>> [t.content for t in read_alpaca({"instruction": "Add.", "input": "1, 2", "output": "3"}, {}).turns]
    ['Add.\\n\\n1, 2', '3']
    """
    given = optional_text(row, "input")
    marked = given.strip().lower() in NO_INPUT
    question = _joined(required_text(row, "instruction"), "" if marked else given)
    answer = optional_text(row, "output") or optional_text(row, "response")
    turns = [Turn("system", system)] if (system := optional_text(row, "system")) else []
    for pair in json_list(row.get("history") or [], "history", "pairs of question and answer"):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise wrong_type("history", pair, "pairs of question and answer")
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return Draft((*turns, Turn("user", question), Turn("assistant", answer)), repairs=("no_input_mark",) if marked else ())


def read_dolly(row: Mapping[str, Any], roles: Mapping[str, str]) -> Draft:
    """Return a Dolly row: the context, where there is one, follows the instruction after a blank line.

    A context is a passage of Wikipedia; its reference marks are removed there and in the answer drawn from it.
    """
    context, answer = optional_text(row, "context"), optional_text(row, "response")
    repairs: tuple[str, ...] = ()
    if context.strip():
        context, answer, repairs = without_wiki_marks(context, answer)
    question = _joined(required_text(row, "instruction"), context)
    return Draft((Turn("user", question), Turn("assistant", answer)), repairs=repairs)


def read_prompt_completion(row: Mapping[str, Any], roles: Mapping[str, str]) -> Draft:
    """Return a row of ``prompt`` and ``completion``, each a text or a list of messages."""
    turns: list[Turn] = []
    repairs: tuple[str, ...] = ()
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        value = row.get(key)
        if isinstance(value, list):
            made, repair = message_turns(value, key, roles)
            context = key == "prompt"  # TRL trains on the completion alone
            turns += [_context_only(turn) if context else turn for turn in made]
            repairs += repair
        else:
            turns.append(Turn(role, required_text(row, key)))
    return Draft(tuple(turns), read_tools(row.get("tools")), repairs)


READERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, str]], Draft]] = {
    "messages": read_messages,
    "sharegpt": read_sharegpt,
    "alpaca": read_alpaca,
    "dolly": read_dolly,
    "prompt_completion": read_prompt_completion,
    "preference": read_preference,
}


def detect_row(row: Mapping[str, Any]) -> str | None:
    """Return the format that the keys of one row show, or None."""
    if is_oasst(row):
        return "oasst"
    if is_preference(row):  # before messages, which UltraFeedback repeats the chosen side in
        return "preference"
    for key in ("messages", "conversations", "conversation"):
        entry = _first_entry(row.get(key))
        if "role" in entry:
            return "messages"
        if "from" in entry:
            return "sharegpt"
    keys = {key for key, value in row.items() if value is not None}
    if {"instruction", "response", "context"} <= row.keys() and "output" not in keys:
        return "dolly"
    if "instruction" in keys and keys & {"output", "response"}:
        return "alpaca"
    return "prompt_completion" if {"prompt", "completion"} <= keys else None


def mistaken_format(row: Mapping[str, Any], format: str) -> str | None:
    """Return the format that a row shows where reading it as `format` would go wrong or leave a text of it unread.

    >>> mistaken_format({"instruction": "a", "context": "lost", "response": "b"}, "alpaca")
    'dolly'
    """
    shown = detect_row(row)
    same = format == "dolly" and not row.get("input") and not row.get("output")  # Dolly without a context looks like Alpaca
    return None if shown == format or same else shown


def _first_entry(value: Any) -> Mapping[str, Any]:
    try:
        entries = json_list(value, "", "")
    except RowProblem:
        return {}
    return entries[0] if entries and isinstance(entries[0], dict) else {}


def _call_in_text(text: str) -> tuple[ToolCall, tuple[str, ...]]:
    """Return the call that a ShareGPT ``function_call`` turn holds as JSON text."""
    try:
        value = parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise RowProblem("tool_arguments_invalid", f"a function_call turn is no JSON ({error}): {text[:60]}") from None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise wrong_type("function_call", text, "{name, arguments} as JSON text")
    arguments, repairs = read_arguments(value.get("arguments"))
    return ToolCall(value["name"], arguments), repairs


def _context_only(turn: Turn) -> Turn:
    return dataclasses.replace(turn, train=False) if turn.role == "assistant" else turn


def _joined(question: str, given: str) -> str:
    return f"{question}\n\n{given}" if given.strip() else question
