"""The record that every builder makes: a dialogue, a pair of answers or a document, with where it came from.

Nothing here reads or writes files; ``messages`` in JSON and Parquet have the shape that OpenAI, TRL and
``apply_chat_template`` use (``role``, ``content``, ``name``, ``tool_calls``, ``tool_call_id``, ``weight``).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from starchat.files import digest_bytes, digest_json

ROLES = ("system", "user", "assistant", "tool")


@dataclasses.dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an assistant turn makes; `arguments` is JSON text."""

    name: str
    arguments: str
    id: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One message. `train` is false for an assistant turn that is context only (OpenAI's ``weight: 0``)."""

    role: str
    content: str
    train: bool = True
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def trained(self) -> bool:
        """Whether the loss sees this turn's content and end token."""
        return self.role == "assistant" and self.train


class Part(NamedTuple):
    """A piece of a document: a control token by name (or ``""`` for none), and the text behind it."""

    marker: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a record came from. `place` is ``file:line`` or ``file:row``, counted from 1.

    `stars` are the repository's; `date` is the record's last change, in ISO 8601 and UTC. `people` are pseudonyms of who wrote it
    (`data_prep.people.pseudonym`): a request not to be trained on is found by them, and they name nobody.
    """

    place: str
    repository: str | None = None
    path: str | None = None
    commit: str | None = None
    url: str | None = None
    stars: int | None = None
    date: str | None = None
    people: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One training example before encoding: `turns` of a dialogue, or `parts` of a document.

    With `rejected` it is a pair: the last of `turns` is the answer that was preferred, `rejected` the one that was not, both to the
    turns before. `tools` is JSON text, as in OpenAI's ``tools``. `copy` counts the copies that a mixture weight above 1 makes.
    `placeholders` are the strings that stand in the texts for what was taken out of them: they are not trained on.
    """

    source: Source
    turns: tuple[Turn, ...] = ()
    parts: tuple[Part, ...] = ()
    tools: str | None = None
    license: str | None = None
    split: str = "train"
    copy: int = 0
    rejected: Turn | None = None
    placeholders: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``dialogue``, ``pair`` or ``document``."""
        return "document" if not self.turns else "pair" if self.rejected else "dialogue"

    @property
    def id(self) -> str:
        """The digest of the content; the source, licence, split and placeholders do not enter."""
        parts = [_plain(self.turns), [(p.marker, p.text) for p in self.parts], self.tools]
        return _digest([*parts, _plain([self.rejected])] if self.rejected else parts)


def _digest(value: list[Any]) -> str:
    """Return `digest_json` of texts, truth values and lists of them, for which orjson writes the same bytes in a tenth of the time."""
    try:
        return digest_bytes(orjson.dumps(value))
    except orjson.JSONEncodeError:  # half of a UTF-16 pair
        return digest_json(value)


def _plain(turns: Sequence[Turn]) -> list[tuple[Any, ...]]:
    """Return what ``dataclasses.astuple`` gives, written out: that function copies deeply and takes 2.5 times as long."""
    return [(t.role, t.content, t.train, t.name, [(c.name, c.arguments, c.id) for c in t.tool_calls], t.tool_call_id) for t in turns]


def to_message(turn: Turn) -> dict[str, Any]:
    """Return a turn as a chat message; keys without a value are absent.

    >>> to_message(Turn("user", "hi"))
    {'role': 'user', 'content': 'hi'}
    >>> to_message(Turn("assistant", "yes", train=False))
    {'role': 'assistant', 'content': 'yes', 'weight': 0}
    """
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.name is not None:
        message["name"] = turn.name
    if turn.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in turn.tool_calls
        ]
    if turn.tool_call_id is not None:
        message["tool_call_id"] = turn.tool_call_id
    if turn.role == "assistant" and not turn.train:
        message["weight"] = 0
    return message


def from_message(message: Mapping[str, Any]) -> Turn:
    """Return a message of our own dataset as a turn; absent and null keys mean the default.

    >>> from_message({"role": "assistant", "content": "yes", "weight": 0}).trained
    False
    """
    calls = tuple(
        ToolCall(call["function"]["name"], call["function"]["arguments"], call.get("id")) for call in message.get("tool_calls") or ()
    )
    return Turn(
        role=message["role"],
        content=message.get("content") or "",
        train=message.get("weight") is None or bool(message["weight"]),
        name=message.get("name"),
        tool_calls=calls,
        tool_call_id=message.get("tool_call_id"),
    )


SOURCE_KEYS = tuple(field.name for field in dataclasses.fields(Source))


def from_source(source: Source) -> dict[str, Any]:
    """Return a source as the mapping that a row holds."""
    return {name: getattr(source, name) for name in SOURCE_KEYS}


def to_source(mapping: Mapping[str, Any]) -> Source:
    """Return the source of a row; keys that earlier versions did not write are absent or null."""
    return Source(
        **{name: value for name, value in mapping.items() if value is not None and name != "people"},
        people=tuple(mapping.get("people") or ()),
    )


def to_row(record: Record) -> dict[str, Any]:
    """Return a record as the row that ``dataset/*.parquet`` holds."""
    return {
        "id": record.id,
        "kind": record.kind,
        "messages": [_whole_message(turn) for turn in record.turns],
        "rejected": _whole_message(record.rejected) if record.rejected else None,
        "document": [{"marker": part.marker, "text": part.text} for part in record.parts],
        "tools": record.tools,
        "source": from_source(record.source),
        "license": record.license,
        "split": record.split,
        "copy": record.copy,
        "placeholders": list(record.placeholders),
    }


def _whole_message(turn: Turn) -> dict[str, Any]:
    return {**dict.fromkeys(("name", "tool_calls", "tool_call_id", "weight")), **to_message(turn)}


def from_row(row: Mapping[str, Any]) -> Record:
    """Return the record of a row of ``dataset/*.parquet``: the inverse of `to_row`. Earlier versions wrote no columns ``rejected``
    and ``placeholders``."""
    return Record(
        source=to_source(row["source"]),
        turns=tuple(from_message(m) for m in row["messages"] or ()),
        parts=tuple(Part(p["marker"], p["text"]) for p in row["document"] or ()),
        tools=row["tools"],
        license=row["license"],
        split=row["split"],
        copy=row["copy"],
        rejected=from_message(row["rejected"]) if row.get("rejected") else None,
        placeholders=tuple(row.get("placeholders") or ()),
    )


def canonical_json(value: Any) -> str:
    """Return JSON as ``json.dumps(ensure_ascii=False)`` writes it, which is also what Jinja's ``tojson`` gives in chat templates."""
    return json.dumps(value, ensure_ascii=False)


def merge_parts(parts: Sequence[Part]) -> list[Part]:
    """Return parts as ids can tell them apart: text without a control token before it belongs to the part in front.

    >>> merge_parts([Part("<filename>", "a.py"), Part("", "\\nx = 1")])
    [Part(marker='<filename>', text='a.py\\nx = 1')]
    """
    merged: list[Part] = []
    for part in parts:
        if merged and not part.marker:
            merged[-1] = Part(merged[-1].marker, merged[-1].text + part.text)
        elif part.marker or part.text:
            merged.append(part)
    return merged


def first_user_text(turns: Sequence[Turn]) -> str:
    """Return the content of the first user turn: dialogues that begin with it stay on one side of a split."""
    return next((turn.content for turn in turns if turn.role == "user"), "")
