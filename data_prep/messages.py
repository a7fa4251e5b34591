"""Chat messages as turns: what the formats that hold lists of messages share.

In: the value of a key such as ``messages``. Out: turns and the repairs that were needed, or a `RowProblem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep.drafts import RowProblem, json_list, optional_text, read_role, read_tool_calls, wrong_type
from starchat.dialogue import Turn

# OpenAI's ``developer`` took the place of ``system``; ``function`` is the older name of ``tool``.
MESSAGES_ROLES = {"developer": "system", "function": "tool"}


def message_turns(value: Any, key: str, roles: Mapping[str, str]) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """Return the turns of a list of messages, and the repairs that were needed.

    >>> message_turns([{"role": "developer", "content": "be brief"}], "messages", {})[0][0].role
    'system'
    """
    turns: list[Turn] = []
    repairs: list[str] = []
    for message in json_list(value, key, "a list of {role, content}"):
        if not isinstance(message, dict):
            raise wrong_type(key, message, "{role, content}")
        turn, repair = _message_turn(message, roles)
        turns.append(turn)
        repairs += repair
    return tuple(turns), tuple(repairs)


def _message_turn(message: Mapping[str, Any], roles: Mapping[str, str]) -> tuple[Turn, tuple[str, ...]]:
    role = read_role(message.get("role"), roles, MESSAGES_ROLES)
    content, repairs = _content(message)
    calls, call_repairs = read_tool_calls(message.get("tool_calls"))
    repairs += call_repairs
    legacy = message.get("function_call")
    if legacy is not None and not calls:
        calls, call_repairs = read_tool_calls([legacy])
        repairs += (*call_repairs, "legacy_function_call")
    if role != "assistant" and calls:
        raise RowProblem("wrong_type", f"role {role!r} has tool_calls; expected them in assistant messages only; correct the row", True)
    train = role != "assistant" or is_trained(message)
    identity = optional_text(message, "tool_call_id") or None
    return Turn(role, content, train, optional_text(message, "name") or None, calls, identity), repairs


def _content(message: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return a message's text; parts of a list are joined by line ends."""
    content = message.get("content")
    if content is None:
        refusal = optional_text(message, "refusal")
        return refusal, ("refusal_as_content",) if refusal else ()
    if isinstance(content, str):
        return content, ()
    texts = []
    for part in json_list(content, "content", "a text or a list of parts"):
        if isinstance(part, dict) and part.get("type") not in (None, "text", "input_text", "output_text"):
            raise RowProblem("not_text", f"content has a part of type {part.get('type')!r}; only text can be used")
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise wrong_type("content", part, "{type: text, text: ...}")
        texts.append(text)
    return "\n".join(texts), ("content_parts",)


def is_trained(message: Mapping[str, Any]) -> bool:
    """Return whether a message's ``weight``, where it has one, lets it be trained."""
    weight = message.get("weight")
    if weight is not None and (isinstance(weight, str) or weight not in (0, 1)):
        raise wrong_type("weight", weight, "0 or 1")
    return weight is None or bool(weight)
