"""Drafts made sound, or dropped by name: the rules that hold for dialogues of every format.

Pure: a `Draft` in, a `Draft` out, or a `RowProblem`. Repairs and drops, in the order in which they are looked for:

==========================  ==========================================================================================
``nul``                     repair: U+0000 is removed
``noncharacter``            repair: U+FDD0, which the tokenizer keeps for itself, is removed
``lone_surrogate``          repair: half of a UTF-16 pair becomes U+FFFD
``empty_system``            repair: a system turn without text is removed
``empty_dialogue``          drop: no turn, or no text and no call in any
``no_user_turn``            drop
``no_assistant_turn``       drop
``starts_with_assistant``   repair: turns before the first user turn are cut; they answer what is not there
``ends_with_user``          repair: turns behind the last assistant turn are cut; nobody answers them
``merged_user_turns``       repair: user turns in a row become one, with a blank line between
``repeated_answer``         repair: the same answer twice in a row stays once
``merged_tool_call``        repair: a call in a turn of its own joins the assistant turn before it
``not_alternating``         drop: two different answers in a row, or a tool's result behind no assistant turn
``empty_prompt``            drop: a user turn without text
``empty_answer``            drop: an assistant turn without text and without a call
``orphan_tool_call_id``     drop: a result for a call that nobody made
``nothing_trained``         drop: every assistant turn has weight 0
``forged_control_token``    fault (or drop, or nothing, as the spec says): text that holds a control token
``code_does_not_parse``     drop, where asked for: Python in an answer that ``ast.parse`` refuses
==========================  ==========================================================================================

Text is changed nowhere else: no trimming, no collapsed blank lines, no tags removed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from data_prep.control_tokens import find_control_token
from data_prep.drafts import Draft, RowProblem
from data_prep.python_syntax import snippet_fault
from starchat.dialogue import Turn, first_user_text
from starchat.fences import code_blocks

_UNSOUND = re.compile("[\0\ufdd0\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DEF = re.compile(r"^[ \t]*(?:async )?def \w+\(", re.MULTILINE)


def clean(draft: Draft, control_tokens: str = "stop", python_must_parse: bool = False) -> Draft:
    """Return a dialogue that is fit for training, with every repair named once; raise `RowProblem` if there is none.

    >>> clean(Draft((Turn("user", "hi"), Turn("assistant", "yes"), Turn("user", "thanks")))).repairs
    ('ends_with_user',)
    """
    repairs = list(draft.repairs)
    turns = [_sound_turn(turn, repairs) for turn in draft.turns]
    tools = None if draft.tools is None else sound_text(draft.tools, repairs)
    turns = _without_empty_system(turns, repairs)
    _require_roles(turns)
    turns = _cut(turns, repairs)
    turns = _merged(turns, repairs)
    _require_text(turns)
    _require_calls(turns)
    if not any(turn.trained for turn in turns):
        raise RowProblem("nothing_trained", "every assistant turn has weight 0")
    if control_tokens != "keep":
        _refuse_control_tokens(turns, tools, fault=control_tokens == "stop")
    if python_must_parse:
        _require_python(turns)
    return Draft(tuple(turns), tools, tuple(dict.fromkeys(repairs)))


def python_fault(question: str, answer: str) -> str | None:
    """Return why the Python in an answer does not parse, or None.

    Looked at: blocks fenced as Python, or a whole answer that defines a function to a question that names Python.

    >>> python_fault("Write it in Python.", "def f(:\\n    pass")
    'line 1: invalid syntax'
    """
    programs = [body for language, body in code_blocks(answer) if language in ("python", "py", "python3")]
    if "```" not in answer and "python" in question.lower() and _DEF.search(answer):
        programs = [answer]
    return next((fault for program in programs if (fault := snippet_fault(program)) is not None), None)


def _sound_turn(turn: Turn, repairs: list[str]) -> Turn:
    texts = [turn.content, turn.name, turn.tool_call_id]
    for call in turn.tool_calls:
        texts += (call.name, call.arguments, call.id)
    if not any(is_unsound(text) for text in texts if text):
        return turn
    calls = tuple(
        dataclasses.replace(
            call,
            name=sound_text(call.name, repairs),
            arguments=sound_text(call.arguments, repairs),
            id=None if call.id is None else sound_text(call.id, repairs),
        )
        for call in turn.tool_calls
    )
    return dataclasses.replace(
        turn,
        content=sound_text(turn.content, repairs),
        name=None if turn.name is None else sound_text(turn.name, repairs),
        tool_call_id=None if turn.tool_call_id is None else sound_text(turn.tool_call_id, repairs),
        tool_calls=calls,
    )


def is_unsound(text: str) -> bool:
    """Return whether `sound_text` would change a text."""
    return "\0" in text if text.isascii() else _UNSOUND.search(text) is not None


def sound_text(text: str, repairs: list[str]) -> str:
    """Return a text without characters that cannot be stored or encoded; append the names of the repairs to `repairs`."""
    if "\0" in text:
        repairs.append("nul")
        text = text.replace("\0", "")
    if "\ufdd0" in text:
        repairs.append("noncharacter")
        text = text.replace("\ufdd0", "")
    if _SURROGATE.search(text):
        repairs.append("lone_surrogate")
        text = _SURROGATE.sub("\ufffd", text)
    return text


def _without_empty_system(turns: Sequence[Turn], repairs: list[str]) -> list[Turn]:
    kept = [turn for turn in turns if turn.role != "system" or turn.content.strip()]
    if len(kept) < len(turns):
        repairs.append("empty_system")
    return kept


def _is_empty(turn: Turn) -> bool:
    return not turn.content.strip() and not turn.tool_calls


def _require_roles(turns: Sequence[Turn]) -> None:
    if all(_is_empty(turn) for turn in turns):
        raise RowProblem("empty_dialogue", f"{len(turns)} turns, none with text")
    roles = {turn.role for turn in turns}
    if "user" not in roles:
        raise RowProblem("no_user_turn", f"roles: {', '.join(turn.role for turn in turns[:10])}")
    if "assistant" not in roles:
        raise RowProblem("no_assistant_turn", f"roles: {', '.join(turn.role for turn in turns[:10])}")


def _cut(turns: Sequence[Turn], repairs: list[str]) -> list[Turn]:
    """Return the turns from the first user turn (and the system turns before it) to the last assistant turn."""
    first = next(n for n, turn in enumerate(turns) if turn.role == "user")
    last = max(n for n, turn in enumerate(turns) if turn.role == "assistant")
    if first > last:
        raise RowProblem("no_assistant_turn", "no assistant turn behind the first user turn")
    leading = [turn for turn in turns[:first] if turn.role == "system"]
    if len(leading) < first:
        repairs.append("starts_with_assistant")
    if last + 1 < len(turns):
        repairs.append("ends_with_user")
    return [*leading, *turns[first : last + 1]]


def _merged(turns: Iterable[Turn], repairs: list[str]) -> list[Turn]:
    merged: list[Turn] = []
    for number, turn in enumerate(turns, 1):
        before = merged[-1] if merged else None
        if turn.role == "tool" and (before is None or before.role not in ("assistant", "tool")):
            raise RowProblem("not_alternating", f"turn {number}: a tool's result behind no assistant turn")
        if before is not None and turn.role == before.role and turn.role in ("user", "assistant"):
            merged[-1] = _joined(before, turn, number, repairs)
        else:
            merged.append(turn)
    return merged


def _joined(before: Turn, turn: Turn, number: int, repairs: list[str]) -> Turn:
    """Return two turns of one role as one; raise `RowProblem` where that would make up an answer."""
    if turn.role == "user":
        repairs.append("merged_user_turns")
        texts = [text for text in (before.content, turn.content) if text.strip()]
        return dataclasses.replace(before, content="\n\n".join(texts))
    if (turn.content, turn.tool_calls) == (before.content, before.tool_calls):
        repairs.append("repeated_answer")
        return dataclasses.replace(before, train=before.train or turn.train)
    if turn.tool_calls and not turn.content.strip() and turn.train == before.train:
        repairs.append("merged_tool_call")
        return dataclasses.replace(before, tool_calls=(*before.tool_calls, *turn.tool_calls))
    raise RowProblem("not_alternating", f"turn {number}: two different answers in a row")


def _require_text(turns: Sequence[Turn]) -> None:
    for number, turn in enumerate(turns, 1):
        if turn.role == "user" and _is_empty(turn):
            raise RowProblem("empty_prompt", f"turn {number} of {len(turns)} is a user turn without text")
        if turn.role == "assistant" and _is_empty(turn):
            raise RowProblem("empty_answer", f"turn {number} of {len(turns)} is an assistant turn without text")


def _require_calls(turns: Sequence[Turn]) -> None:
    made: set[str | None] = set()
    for number, turn in enumerate(turns, 1):
        made.update(call.id for call in turn.tool_calls)
        if turn.tool_call_id is not None and turn.tool_call_id not in made:
            raise RowProblem(
                "orphan_tool_call_id", f"turn {number} answers call {turn.tool_call_id!r}, which no assistant turn before it made"
            )


def _refuse_control_tokens(turns: Sequence[Turn], tools: str | None, fault: bool) -> None:
    for number, turn in enumerate(turns, 1):
        texts = [turn.content, turn.name or "", *(text for call in turn.tool_calls for text in (call.name, call.arguments))]
        for text in texts:
            if (token := find_control_token(text)) is not None:
                raise _forged(f"{turn.role} turn {number}", token, fault)
    if tools is not None and (token := find_control_token(tools)) is not None:
        raise _forged("tools", token, fault)


def _forged(where: str, token: str, fault: bool) -> RowProblem:
    detail = (
        f"{where} holds the control token {token}; expected plain text: was the row rendered with a template already? "
        "Give it without, or say control_tokens: drop, or keep, which trains on it as plain text"
    )
    return RowProblem("forged_control_token", detail, fault)


def _require_python(turns: Sequence[Turn]) -> None:
    for number, turn in enumerate(turns, 1):
        if turn.role == "assistant" and (fault := python_fault(first_user_text(turns), turn.content)) is not None:
            raise RowProblem("code_does_not_parse", f"turn {number}: {fault}")
