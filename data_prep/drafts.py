"""A dialogue as its row has it, before cleaning, and why a row does not become one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from data_prep.sources import parse_json
from starchat.dialogue import ROLES, ToolCall, Turn, canonical_json


class RowProblem(Exception):
    """Why a unit is dropped: a reason, its detail, and whether the input is malformed (a fault)."""

    def __init__(self, reason: str, detail: str, fault: bool = False) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.fault = reason, detail, fault


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """Turns and tools as a format's reader found them; `repairs` names what was changed to read them.

    `rejected` is the whole other conversation of a pair, of which `turns` is the one that was preferred.
    """

    turns: tuple[Turn, ...]
    tools: str | None = None
    repairs: tuple[str, ...] = ()
    rejected: tuple[Turn, ...] = ()


def wrong_type(key: str, value: Any, expected: str) -> RowProblem:
    """Return the fault for a value that is not what its key should hold."""
    shown = canonical_json(value) if isinstance(value, str | int | float | bool) else f"of type {type(value).__name__}"
    shown = "absent or null" if value is None else shown
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return RowProblem("wrong_type", f"{key} is {shown}; expected {expected}; correct or remove the row", fault=True)


def optional_text(row: Mapping[str, Any], key: str) -> str:
    """Return the text of a key that may be absent or null.

    >>> optional_text({"input": None}, "input")
    ''
    """
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong_type(key, value, "a text")
    return value


def required_text(row: Mapping[str, Any], key: str) -> str:
    """Return the text of a key that must be there; null is a fault."""
    if not isinstance(row.get(key), str):
        raise wrong_type(key, row.get(key), "a text")
    return str(row[key])


def json_list(value: Any, key: str, expected: str) -> list[Any]:
    """Return a list, also where it stands as JSON text, as in a CSV cell.

    >>> json_list('[{"role": "user"}]', "messages", "a list")
    [{'role': 'user'}]
    """
    if isinstance(value, str):
        try:
            value = parse_json(value.encode("utf-8", "surrogatepass"))
        except ValueError:
            raise wrong_type(key, value, expected) from None
    if not isinstance(value, list):
        raise wrong_type(key, value, expected)
    return value


def read_role(name: Any, roles: Mapping[str, str], known: Mapping[str, str]) -> str:
    """Return our role for a file's role name: first by the spec's `roles`, then by the format's `known` names."""
    if not isinstance(name, str):
        raise wrong_type("role", name, "a text")
    role = roles.get(name) or known.get(name.lower()) or name
    if role not in ROLES:
        shown = name if name.isidentifier() else json.dumps(name, ensure_ascii=False)
        expected = f"expected {', '.join(ROLES[:-1])} or {ROLES[-1]}"
        raise RowProblem("unknown_role", f"role {name!r}; {expected}; map it with roles: {{{shown}: assistant}}", fault=True)
    return role


def read_tools(value: Any) -> str | None:
    """Return a row's ``tools`` as JSON text; null, absent and empty mean none.

    >>> read_tools([{"type": "function", "function": {"name": "now"}}])
    '[{"type": "function", "function": {"name": "now"}}]'
    """
    if value is None or value in ("", "[]", []):
        return None
    tools = json_list(value, "tools", "a list of functions")
    return _as_json([without_nulls(tool) for tool in tools], "tools")


def without_nulls(value: Any) -> Any:
    """Return a JSON value without null keys, which Parquet adds to every row for the keys of any row."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def _as_json(value: Any, key: str) -> str:
    """Return a value as JSON text; dates, bytes and NaN, which Parquet has and JSON has not, are a fault."""
    try:
        text = canonical_json(value)
        parse_json(text.encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError) as error:
        raise RowProblem("wrong_type", f"{key} cannot be JSON ({error}); expected JSON values; correct or remove the row", True) from None
    return text


def read_tool_calls(value: Any) -> tuple[tuple[ToolCall, ...], tuple[str, ...]]:
    """Return a message's ``tool_calls``, and the repairs that were needed."""
    if value is None:
        return (), ()
    calls: list[ToolCall] = []
    repairs: list[str] = []
    for entry in json_list(value, "tool_calls", "a list of calls"):
        function = (entry.get("function") or entry) if isinstance(entry, dict) else entry
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise wrong_type("tool_calls", entry, "{id, type, function: {name, arguments}}")
        identity = entry.get("id")
        if identity is not None and not isinstance(identity, str):
            raise wrong_type("tool_calls.id", identity, "a text")
        arguments, repair = read_arguments(function.get("arguments"))
        calls.append(ToolCall(function["name"], arguments, identity))
        repairs += repair
    return tuple(calls), tuple(repairs)


def read_arguments(value: Any) -> tuple[str, tuple[str, ...]]:
    """Return a call's arguments as JSON text, and the repairs that were needed.

    >>> read_arguments({"city": "Bern"})
    ('{"city": "Bern"}', ('tool_arguments_object',))
    """
    if value is None or value == "":
        return "{}", ("tool_arguments_missing",)
    if not isinstance(value, str):
        return _as_json(without_nulls(value), "arguments"), ("tool_arguments_object",)
    try:
        parse_json(value.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise RowProblem("tool_arguments_invalid", f"the arguments of a tool call are no JSON ({error}): {value[:60]}") from None
    return value, ()
