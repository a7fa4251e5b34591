"""A record's texts, whatever its kind: all of them to look at or to replace, and the code among them.

Pure. In: a `Record`. Out: its texts in a fixed order, what names things in it, or its code: the files of a document, the new side of a
commit, the fenced blocks of an answer, each with its language by linguist's name where that is known.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from data_prep.languages import fence_label, language_of, languages
from data_prep.redact import PLACEHOLDERS
from starchat.dialogue import Part, Record, ToolCall, Turn, from_source, merge_parts, to_source
from starchat.fences import code_blocks

FILE_MARKERS = frozenset({"<filename>", "<file_sep>"})
REPOSITORY_MARKERS = frozenset({"<reponame>", "<repo_name>"})
STARS_MARKER = "<gh_stars>"

ALIASES: Mapping[str, str] = {
    **{"py": "Python", "python3": "Python", "py3": "Python", "js": "JavaScript", "jsx": "JavaScript", "node": "JavaScript"},
    **{"ts": "TypeScript", "sh": "Shell", "shell": "Shell", "zsh": "Shell", "c++": "C++", "cs": "C#", "c#": "C#", "golang": "Go"},
    **{"rs": "Rust", "rb": "Ruby", "yml": "YAML", "kt": "Kotlin", "md": "Markdown", "ps1": "PowerShell", "docker": "Dockerfile"},
}
"""What people write behind a fence besides the names that `data_prep.languages.fence_label` gives."""


class Code(NamedTuple):
    """A piece of code. `path` is None for a block of an answer, `whole` tells a file from a piece of one."""

    text: str
    language: str | None = None
    path: str | None = None
    whole: bool = False


LABELS = ("place", "repository", "path", "commit", "url", "date")
"""What a `Source` says in words; `people` are pseudonyms."""


def texts_of(record: Record) -> list[str]:
    """Return all texts of a record that its builder took from somewhere, in the order that `with_texts` wants them."""
    spoken = [*_texts_of_turns(record.turns), *_texts_of_turns([record.rejected] if record.rejected else [])]
    return [*spoken, *([] if record.tools is None else [record.tools]), *(part.text for part in record.parts)]


def with_texts(record: Record, texts: Iterable[str]) -> Record:
    """Return a record with other texts in place of `texts_of`."""
    stream = iter(texts)
    turns = tuple(_turn(turn, stream) for turn in record.turns)
    rejected = _turn(record.rejected, stream) if record.rejected else None
    tools = None if record.tools is None else next(stream)
    parts = tuple(Part(part.marker, next(stream)) for part in record.parts)
    return dataclasses.replace(record, turns=turns, rejected=rejected, tools=tools, parts=parts)


def labels_of(record: Record) -> list[str]:
    """Return the other strings of a record's row, which name things: turns, calls, the source, the licence; in `with_labels`' order.

    >>> from starchat.dialogue import Source
    >>> labels_of(Record(Source("x:1", url="https://h.io"), (Turn("tool", "r", name="f", tool_call_id="1"),), license="MIT"))
    ['f', '1', 'x:1', 'https://h.io', 'MIT']
    """
    turns = (*record.turns, *((record.rejected,) if record.rejected else ()))
    named = [name for turn in turns for call in turn.tool_calls for name in (call.name, call.id)]
    named += [name for turn in turns for name in (turn.name, turn.tool_call_id)]
    return [label for label in (*named, *(getattr(record.source, key) for key in LABELS), record.license) if label is not None]


def with_labels(record: Record, labels: Iterable[str]) -> Record:
    """Return a record with other labels in place of `labels_of`."""
    stream = iter(labels)

    def following(label: str | None) -> str | None:
        return None if label is None else next(stream)

    turns = [*record.turns, *([record.rejected] if record.rejected else [])]
    calls = [tuple(ToolCall(next(stream), call.arguments, following(call.id)) for call in turn.tool_calls) for turn in turns]
    named = tuple(
        dataclasses.replace(turn, tool_calls=made, name=following(turn.name), tool_call_id=following(turn.tool_call_id))
        for turn, made in zip(turns, calls, strict=True)
    )
    source = to_source({**from_source(record.source), **{key: following(getattr(record.source, key)) for key in LABELS}})
    rejected = named[-1] if record.rejected else None
    return dataclasses.replace(
        record, turns=named[: len(record.turns)], rejected=rejected, source=source, license=following(record.license)
    )


def code_of(record: Record) -> list[Code]:
    """Return the code in a record.

    >>> from starchat.dialogue import Source
    >>> code_of(Record(Source("x"), parts=(Part("<filename>", "a.py"), Part("", "\\nx = 1"))))
    [Code(text='x = 1', language='Python', path='a.py', whole=True)]
    """
    if record.turns:
        answers = (turn for turn in record.turns if turn.role == "assistant")
        return [Code(body, language_called(label)) for turn in answers for label, body in code_blocks(turn.content)]
    parts = merge_parts([_shown(part) for part in record.parts])
    markers = {part.marker for part in parts}
    if "<commit_after>" in markers:
        path = record.source.path
        found = (part.text for part in parts if part.marker == "<commit_after>")
        return [Code(text, language_of(path, text) if path else None, path) for text in found]
    if markers <= FILE_MARKERS | REPOSITORY_MARKERS | {STARS_MARKER, ""}:
        return list(_files(parts, record.source.path))
    return []


def _shown(part: Part) -> Part:
    """Return a part; a placeholder of redaction becomes text of the code in which it stands."""
    return Part("", part.marker + part.text) if part.marker in PLACEHOLDERS.values() else part


@functools.cache
def _labels() -> Mapping[str, str]:
    return {**{fence_label(name): name for name in languages()}, **{name.lower(): name for name in languages()}, **ALIASES}


def language_called(label: str) -> str | None:
    """Return the language that a fence names, or None.

    >>> [language_called(label) for label in ("python", "cpp", "bash", "js", "", "output")]
    ['Python', 'C++', 'Shell', 'JavaScript', None, None]
    """
    return _labels().get(label.lower())


def _texts_of_turns(turns: Sequence[Turn]) -> Iterator[str]:
    for turn in turns:
        yield turn.content
        yield from (call.arguments for call in turn.tool_calls)


def _turn(turn: Turn, stream: Iterator[str]) -> Turn:
    content = next(stream)
    calls = tuple(ToolCall(call.name, next(stream), call.id) for call in turn.tool_calls)
    return dataclasses.replace(turn, content=content, tool_calls=calls)


def _files(parts: Sequence[Part], path: str | None) -> Iterator[Code]:
    """Yield the files of a document: of a file whose document tells no name, the record's own `path` counts."""
    named = any(part.marker in REPOSITORY_MARKERS for part in parts)
    single = sum(part.marker in FILE_MARKERS for part in parts) < 2
    for part in parts:
        if part.marker == "" or (part.marker == "<file_sep>" and not named):
            name, cut, text = path if single else None, "\n", part.text
        else:
            name, cut, text = part.text.partition("\n")
            if part.marker not in FILE_MARKERS:
                name = path if single else None
        if cut:
            yield Code(text, language_of(name, text[:200]) if name else None, name, whole=True)
