"""Preference data: two answers to one prompt, of which one was preferred.

In: rows with ``chosen`` and ``rejected`` in the shapes that TRL and the sets on the Hub have. Out: `Draft` with both conversations
whole, and from that, cleaned, a prompt and its two answers. The shapes:

=================================  ==========================================================================================
``prompt``, two texts              TRL, standard; ``question`` (orca_dpo_pairs) is a prompt too, and ``system`` may stand beside it
``prompt``, two lists of messages  TRL, conversational: the prompt a list and the answers behind it, or the prompt a text that both
                                   lists repeat (UltraFeedback, which also has scores)
two lists of messages              TRL, implicit prompt: both conversations whole
two texts, no prompt               Anthropic HH: ``\\n\\nHuman:`` and ``\\n\\nAssistant:`` mark the turns
=================================  ==========================================================================================

Both sides are cleaned as dialogues are (`data_prep.clean`); a reason to drop either drops the pair. Besides:

==========================  ==========================================================================================
``not_preferred``           drop: the row's own scores do not put the chosen answer above the rejected one
``no_last_answer``          drop: a side does not end with an assistant turn
``different_prompts``       drop: the sides differ before their last turn, so that they answer different questions
``identical_answers``       drop: chosen and rejected are the same
==========================  ==========================================================================================
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.clean import clean
from data_prep.drafts import Draft, RowProblem, optional_text, read_tools, required_text, wrong_type
from data_prep.messages import message_turns
from starchat.dialogue import Turn, first_user_text

_MARK = re.compile(r"\n\n(Human|Assistant):")
_SIDES = ("chosen", "rejected")


def is_preference(row: Mapping[str, Any]) -> bool:
    """Return whether a row has both answers of a pair.

    >>> is_preference({"prompt": "2+2?", "chosen": "4", "rejected": "5"})
    True
    """
    return all(row.get(side) is not None for side in _SIDES)


def read_preference(row: Mapping[str, Any], roles: Mapping[str, str]) -> Draft:
    """Return both conversations of a row; the prompt may be a column of its own, a part of both sides, or both.

    >>> draft = read_preference({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, {})
    >>> [turn.content for turn in draft.turns], [turn.content for turn in draft.rejected]
    (['2+2?', '4'], ['2+2?', '5'])
    """
    prompt, repairs = _prompt(row, roles)
    chosen, of_chosen = _side(row, "chosen", prompt, roles)
    rejected, of_rejected = _side(row, "rejected", prompt, roles)
    _require_preferred(row)
    return Draft(chosen, read_tools(row.get("tools")), (*repairs, *of_chosen, *of_rejected), rejected)


def clean_pair(draft: Draft, control_tokens: str = "stop", python_must_parse: bool = False) -> tuple[Draft, Turn]:
    """Return the prompt with the chosen answer, and the rejected answer; raise `RowProblem` if the two are no pair.

    Turns of the prompt are context: none of them is trained. Python must parse in the chosen answer only: that it does not may be
    why the other one was rejected.

    >>> prompt = Turn("user", "2+2?")
    >>> clean_pair(Draft((prompt, Turn("assistant", "4")), rejected=(prompt, Turn("assistant", "5"))))[1].content
    '5'
    """
    for name, turns in zip(_SIDES, (draft.turns, draft.rejected), strict=True):
        if not turns or turns[-1].role != "assistant":
            raise RowProblem("no_last_answer", f"{name} ends with {turns[-1].role if turns else 'nothing'}; expected an assistant turn")
    one = _cleaned_side("chosen", draft, draft.turns, control_tokens, python_must_parse)
    other = _cleaned_side("rejected", draft, draft.rejected, control_tokens, False)
    prompt, answer, worse = [_as_context(turn) for turn in one.turns[:-1]], one.turns[-1], other.turns[-1]
    if prompt != [_as_context(turn) for turn in other.turns[:-1]]:
        raise RowProblem("different_prompts", _first_difference(one.turns[:-1], other.turns[:-1]))
    if (answer.content, answer.tool_calls) == (worse.content, worse.tool_calls):
        raise RowProblem("identical_answers", "chosen and rejected are the same answer")
    repairs = tuple(dict.fromkeys((*one.repairs, *other.repairs)))
    return Draft((*prompt, answer), one.tools, repairs), worse


def _prompt(row: Mapping[str, Any], roles: Mapping[str, str]) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """Return the turns that stand in columns of their own; none if the prompt is a part of both sides."""
    key = "prompt" if row.get("prompt") is not None or row.get("question") is None else "question"
    value = row.get(key)
    if value is None:
        return (), ()
    system = (Turn("system", text),) if (text := optional_text(row, "system")) else ()
    if isinstance(value, list):
        turns, repairs = message_turns(value, key, roles)
        return (*system, *turns), repairs
    return (*system, Turn("user", required_text(row, key))), ()


def _side(row: Mapping[str, Any], key: str, prompt: tuple[Turn, ...], roles: Mapping[str, str]) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """Return one conversation whole. A list that does not begin with an assistant turn holds its prompt already."""
    value = row.get(key)
    if isinstance(value, str) and prompt:
        return (*prompt, Turn("assistant", value)), ()
    if isinstance(value, str):
        return _transcript(value, key), ()
    if not isinstance(value, list):
        raise wrong_type(key, value, "a text or a list of {role, content}")
    turns, repairs = message_turns(value, key, roles)
    if not prompt or not turns or isinstance(row.get("prompt"), list) or turns[0].role == "assistant":
        return (*prompt, *turns), repairs
    if first_user_text(turns) != first_user_text(prompt):
        raise RowProblem("different_prompts", f"{key} holds another first question than the column prompt")
    return turns, repairs


def _transcript(text: str, key: str) -> tuple[Turn, ...]:
    """Return the turns of a text of Anthropic's kind, one space behind each mark left out."""
    before, *pieces = _MARK.split(text)
    if not pieces or before.strip():
        raise wrong_type(key, text, "a text with \\n\\nHuman: and \\n\\nAssistant:, where there is no prompt beside it")
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Turn(roles[mark], said.removeprefix(" ")) for mark, said in zip(pieces[::2], pieces[1::2], strict=True))


def _require_preferred(row: Mapping[str, Any]) -> None:
    """Raise `RowProblem` if the row has scores, as UltraFeedback has, and they do not prefer the chosen answer."""
    chosen, rejected = (row.get(f"score_{side}") for side in _SIDES)
    if isinstance(chosen, int | float) and isinstance(rejected, int | float) and not chosen > rejected:
        raise RowProblem("not_preferred", f"score_chosen is {chosen:g}, score_rejected {rejected:g}")


def _cleaned_side(name: str, draft: Draft, turns: tuple[Turn, ...], control_tokens: str, python_must_parse: bool) -> Draft:
    trained = tuple(dataclasses.replace(turn, train=True) for turn in turns)
    try:
        return clean(Draft(trained, draft.tools, draft.repairs), control_tokens, python_must_parse)
    except RowProblem as problem:
        raise RowProblem(problem.reason, f"{name}: {problem}", problem.fault) from None


def _as_context(turn: Turn) -> Turn:
    return dataclasses.replace(turn, train=False) if turn.role == "assistant" else turn


def _first_difference(one: Sequence[Turn], other: Sequence[Turn]) -> str:
    if len(one) != len(other):
        return f"chosen has {len(one)} turns before its answer, rejected {len(other)}"
    number = next(n for n, (a, b) in enumerate(zip(one, other, strict=True), 1) if a != b)
    return f"chosen and rejected differ at turn {number}, before their last"
