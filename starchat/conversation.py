"""A conversation that grows, is retried, undone and edited; what the terminal and the page share.

In: a conversation and what the person did. Out: a new conversation, or the turns of a prompt that fits the context.
No model here; how many tokens turns take is asked of the caller's function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from starchat.dialogue import Turn
from starchat.errors import UserError


@dataclasses.dataclass(frozen=True, slots=True)
class Conversation:
    """What was said so far. `system` may change between turns and stands before all of them in a prompt."""

    system: str = ""
    turns: tuple[Turn, ...] = ()

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """The turns that the model sees, the system turn first if there is one."""
        return (Turn("system", self.system), *self.turns) if self.system.strip() else self.turns


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits: its turns, its length in tokens, and how many old exchanges were left out."""

    turns: tuple[Turn, ...]
    tokens: int
    dropped: int


def ask(conversation: Conversation, text: str) -> Conversation:
    """Return the conversation with a user turn behind it; an unanswered one before it is replaced.

    >>> [t.content for t in ask(ask(Conversation(), "one"), "two").turns]
    ['two']
    """
    turns = conversation.turns
    if turns and turns[-1].role == "user":
        turns = turns[:-1]
    return dataclasses.replace(conversation, turns=(*turns, Turn("user", text)))


def answer(conversation: Conversation, text: str) -> Conversation:
    """Return the conversation with an assistant turn behind it, unless the reply is empty.

    >>> answer(ask(Conversation(), "hi"), "hello").turns[-1].content
    'hello'
    """
    return dataclasses.replace(conversation, turns=(*conversation.turns, Turn("assistant", text))) if text else conversation


def retry(conversation: Conversation) -> Conversation:
    """Return the conversation up to its last user turn, to be answered again.

    >>> retry(answer(ask(Conversation(), "hi"), "hello")).turns[-1].content
    'hi'
    """
    return dataclasses.replace(conversation, turns=conversation.turns[: _last_user(conversation, "try again") + 1])


def undo(conversation: Conversation) -> tuple[Conversation, str]:
    """Return the conversation without its last exchange, and what the person had said in it.

    >>> undo(answer(ask(Conversation(), "hi"), "hello"))
    (Conversation(system='', turns=()), 'hi')
    """
    place = _last_user(conversation, "undo")
    return dataclasses.replace(conversation, turns=conversation.turns[:place]), conversation.turns[place].content


def edit(conversation: Conversation, text: str, place: int | None = None) -> Conversation:
    """Return the conversation up to and with the user turn at `place` (default: the last one), which now says `text`.

    >>> edit(answer(ask(Conversation(), "hi"), "hello"), "hey").turns
    (Turn(role='user', content='hey', train=True, name=None, tool_calls=(), tool_call_id=None),)
    """
    last = _last_user(conversation, "edit")
    where = last if place is None else place
    if not 0 <= where < len(conversation.turns) or conversation.turns[where].role != "user":
        raise UserError(f"turn {where}: not one of yours; expected the number of a user turn, such as {last}")
    return dataclasses.replace(conversation, turns=(*conversation.turns[:where], Turn("user", text)))


def fit(turns: Sequence[Turn], reserve_tokens: int, context_tokens: int, count_tokens: Callable[[Sequence[Turn]], int]) -> Fitted:
    """Return `turns` without the oldest exchanges that leave no room for a reply of `reserve_tokens`.

    The system turn and the last exchange always stay; if these leave room for a shorter reply only, they are returned
    as they are. Raises `UserError` if they leave no room at all.
    """
    system = tuple(turns[:1]) if turns and turns[0].role == "system" else ()
    exchanges = _exchanges(turns[len(system) :])
    for dropped in range(max(1, len(exchanges))):
        kept = (*system, *(turn for exchange in exchanges[dropped:] for turn in exchange))
        tokens = count_tokens(kept)
        if tokens + reserve_tokens <= context_tokens:
            break
    if tokens >= context_tokens:
        raise UserError(
            f"message: {tokens:,} tokens with the system prompt; the model's context is {context_tokens:,} tokens; "
            "shorten the message or the system prompt"
        )
    return Fitted(kept, tokens, dropped)


def _last_user(conversation: Conversation, what: str) -> int:
    for place in reversed(range(len(conversation.turns))):
        if conversation.turns[place].role == "user":
            return place
    raise UserError(f"conversation: empty, there is nothing to {what}; say something first")


def _exchanges(turns: Sequence[Turn]) -> list[list[Turn]]:
    groups: list[list[Turn]] = []
    for turn in turns:
        if turn.role == "user" or not groups:
            groups.append([])
        groups[-1].append(turn)
    return groups
