"""The two views of an issue's thread, without the names of its people.

The document has every post, and the closing where it happened. In the dialogue the asker is the user, who begins with title and
description; what others say between two posts of the asker is one assistant turn, and of them one person gives it: who wrote the accepted
answer, else a maintainer, else who wrote the most prose. An answer of several voices would contradict itself; that there were others is
a repair, ``other_answers``. Names that only call somebody (``@ada:`` at the head of a line, ``Thanks @ada``, ``cc @ada``) are left out of
dialogues, and what is the listener's is ``your``; where an answer speaks of a person, ``username_N`` stays and is listed as ``names_left``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from data_prep.documents import Event, Family, Rendered, Thread, render_thread
from data_prep.issue_rules import CleanThread
from data_prep.people import GHOST, Names, pseudonym
from data_prep.records import Dropped, Item
from data_prep.sources import as_text
from data_prep.threads import Happening, RawThread
from data_prep.views import dialogue_item, document_item
from starchat.dialogue import Source, Turn
from starchat.fences import without_code

_NAME = r"@?username_\d+\b"
_CALL = re.compile(rf"^{_NAME}(?:(?:,? and|,|[ \t]*/)?[ \t]*{_NAME})*[ \t]*(?:[,:;–—-]+[ \t]*|\Z|(?=\n))", re.MULTILINE)
_CC = re.compile(
    rf"^[ \t]*(?:/?cc|ping|fyi)[ \t:,]+{_NAME}(?:(?:,? and|,)?[ \t]*{_NAME})*[.!]*[ \t]*(?:\n|\Z)", re.MULTILINE | re.IGNORECASE
)
_GREETED = re.compile(
    rf"\b(thanks|thank you|thx|hi|hello|hey|welcome|sorry|yes|no|ok|okay|agreed|done|right|sure|great),?[ \t]+{_NAME}", re.IGNORECASE
)


def document_of(thread: RawThread, clean: CleanThread, family: Family, license: str | None) -> Item:
    """Return the document of a thread."""
    names = _names(thread, clean)
    events = tuple(
        Event("post", names.introduce(found.person.login), names.written(found.text)) if found.kind == "post" else Event("closed")
        for found in clean.happenings
    )
    rendered = render_thread(Thread(names.written(thread.title), events), family)
    losses = tuple(dict.fromkeys((*rendered.losses, *clean.losses)))
    return document_item(Rendered(rendered.parts, losses), _source(thread), license, clean.repairs)


def dialogue_of(thread: RawThread, clean: CleanThread, license: str | None, min_answer_characters: int | None) -> Item:
    """Return the dialogue of a thread, or why there is none."""
    names = _names(thread, clean)
    repairs = list(clean.repairs)
    first, *rest = (found for found in clean.happenings if found.kind == "post")
    asker = first.person.login.lower()
    question = "\n\n".join(text for text in (names.written(thread.title), _spoken(first.text, names)) if text.strip())
    turns = [Turn("user", question)]
    answers = 0
    other: str | None = None
    said = [spoken for post in rest if (spoken := post._replace(text=_spoken(post.text, names))).text.strip()]
    for asks, run in itertools.groupby(said, key=lambda post: post.person.login.lower() == asker):
        posts = list(run)
        if asks:
            turns += [Turn("user", _addressed(post.text, names, other)) for post in posts]
            continue
        chosen = _chosen(posts, repairs)
        other = chosen[0].person.login
        text = "\n\n".join(_addressed(post.text, names, first.person.login) for post in chosen)
        turns.append(Turn("assistant", text))
        answers += len(text)
    if answers == 0:
        return Dropped("no_answer", thread.place, f"{len(rest) + 1} posts, no words of anybody but the asker", thread_text(thread))
    if min_answer_characters is not None and answers < min_answer_characters:
        detail = f"{answers} characters of answers; at least {min_answer_characters}"
        return Dropped("short_answer", thread.place, detail, thread_text(thread))
    if any("username_" in turn.content for turn in turns if turn.role == "assistant"):
        repairs.append("names_left")
    return dialogue_item(turns, _source(thread), license, tuple(dict.fromkeys(repairs)), thread_text(thread))


def thread_text(thread: RawThread) -> str:
    """Return a thread as JSON text, as the table of dropped units shows it."""
    said = [{"kind": event.kind, "author": event.person.login, "text": event.text} for event in thread.happenings]
    return as_text({"repository": thread.repository, "number": thread.number, "title": thread.title, "events": said})


def _names(thread: RawThread, clean: CleanThread) -> Names:
    """Return the people of a thread by order of first appearance: asker, title, description, then post by post."""
    names = Names(thread.repository)
    for place, found in enumerate(clean.happenings):
        if found.kind == "post":
            names.introduce(found.person.login)
            if not place:
                names.meet(thread.title)
            names.meet(found.text)
    return names


def _chosen(posts: Sequence[Happening], repairs: list[str]) -> list[Happening]:
    """Return the posts of the one person who gives the answer."""
    voices: dict[str, list[Happening]] = {}
    for post in posts:
        voices.setdefault(post.person.login.lower(), []).append(post)
    if len(voices) > 1:
        repairs.append("other_answers")
    return max(voices.values(), key=_merit)


def _merit(posts: Iterable[Happening]) -> tuple[bool, bool, int]:
    found = list(posts)
    prose = sum(len(without_code(post.text)) for post in found)
    return any(post.accepted for post in found), any(post.member for post in found), prose


def _spoken(text: str, names: Names) -> str:
    """Return what a post says, without the names that only call somebody: perhaps nothing."""
    text = names.written(text)
    return _GREETED.sub(r"\1", _CC.sub("", _CALL.sub("", text))).strip("\n") if "username_" in text else text


def _addressed(text: str, names: Names, listener: str | None) -> str:
    """Return what `_spoken` left, said to a listener, who needs no name."""
    if listener is None or "username_" not in text:
        return text
    name = names.introduce(listener)
    return text.removeprefix(f"@{name} ").replace(f"\n@{name} ", "\n").replace(f"@{name}'s ", "your ")


def _source(thread: RawThread) -> Source:
    date = max((found.time for found in thread.happenings), default="") or None
    people = sorted({found.person.login for found in thread.happenings if found.person.login != GHOST})
    return Source(thread.place, thread.repository, url=thread.url, date=date, people=tuple(map(pseudonym, people)))
