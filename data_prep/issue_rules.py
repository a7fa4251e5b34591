"""The rules for issues, with the thresholds that BigCode published, and what is done to a thread before they are asked.

Pure: a `RawThread` in; a `CleanThread` out, or the rule that drops it. In order:

======================  ================================================================================================
``pull_request``        drop: the conversation of a pull request, which is another kind of source
``no_question``         drop: events of before 2015, which do not hold what was said, or comments without their issue
``opened_by_bot``       drop: a bot asked
``not_closed``          drop, where ``closed: required``
``bot_comment``         repair: a bot's posts are left out; what a person wrote before them stays
``hidden_comment``      repair: posts that the project has hidden are left out
``line_ends``           repair: line ends become newlines
``html_comment``        repair: what Markdown does not show, such as the hints of issue templates, is left out
(of `data_prep.mail`)   repair: what mail added to a post is left out
``empty_comment``       repair: comments without text, perhaps for the above, are left out
``long_comment``        repair: of a post of too many lines the first and the last stay, with ``[Truncated]`` between
``short_text``          drop: too little text in all posts
``one_user``            drop: a lone user with too much text or too many events
``not_english``         drop: too few of the letters of the text are in English words
======================  ================================================================================================
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from data_prep.mail import without_mail
from data_prep.people import is_bot, words
from data_prep.post_texts import cut_lines, with_newlines, without_html_comments
from data_prep.threads import Happening, RawThread
from starchat.fences import without_code

CUT = "[Truncated]"

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "starcoder": {
        "min_characters": 200,
        "min_users": 2,
        "max_lone_characters": 7000,
        "max_lone_events": 10,
        "max_comment_lines": 80,
        "bots": "drop",
    },
    "none": {},
}
"""Thresholds by preset: those of StarCoder are of bigcode-dataset's ``filtering_issues.py`` and ``utils_issues.py``."""


@dataclasses.dataclass(frozen=True)
class IssueRules:
    """Which threads are kept; a key that is None is off. `preset` says what the keys are that are not given.

    A thread needs `min_characters` in its posts. With fewer than `min_users` it is kept up to `max_lone_characters` and
    `max_lone_events` (posts, closings and the like). A post of more than `max_comment_lines` is cut in its middle. `min_english` is the
    share of the letters, outside code and links, that stand in ordinary English words (`data_prep.people.words`): 0.5 parts English
    from other languages well, and is no more than that. `min_answer_characters` is about dialogues: all answers together.
    """

    preset: Literal["starcoder", "none"]
    min_characters: int | None = None
    min_users: int | None = None
    max_lone_characters: int | None = None
    max_lone_events: int | None = None
    max_comment_lines: int | None = None
    min_english: float | None = None
    min_answer_characters: int | None = None
    bots: Literal["drop", "keep"] = "keep"
    closed: Literal["any", "required"] = "any"


class CleanThread(NamedTuple):
    """What of a thread is left: its posts and closings, with the names of all repairs, and of what no format holds."""

    happenings: list[Happening]
    repairs: list[str]
    losses: list[str]


class Refused(NamedTuple):
    """The rule that drops a thread, and what it saw."""

    reason: str
    detail: str


def ruled(thread: RawThread, rules: IssueRules) -> CleanThread | Refused:
    """Return what is left of a thread, or why it is dropped."""
    happenings = thread.happenings
    if thread.pull:
        return Refused("pull_request", "the conversation of a pull request; kind: pulls builds those")
    if not thread.asked or not happenings or not (thread.title or happenings[0].text):
        return Refused(
            "no_question", "its events do not hold what was asked, as those of before 2015, and comments whose issue is not there"
        )
    if rules.bots == "drop" and is_bot(happenings[0].person):
        return Refused("opened_by_bot", happenings[0].person.login)
    if rules.closed == "required" and not is_closed(thread):
        return Refused("not_closed", "the issue is open")
    found = _cleaned(thread, rules)
    posts = [happening for happening in found.happenings if happening.kind == "post"]
    characters = sum(len(post.text) for post in posts)
    if rules.min_characters is not None and characters < rules.min_characters:
        return Refused("short_text", f"{characters} characters in {len(posts)} posts; at least {rules.min_characters}")
    users = len({post.person.login.lower() for post in posts})
    if rules.min_users is not None and users < rules.min_users:
        events = len(found.happenings) + len(found.losses)
        for what, count, most in (("characters", characters, rules.max_lone_characters), ("events", events, rules.max_lone_events)):
            if most is not None and count > most:
                return Refused("one_user", f"{count} {what} of {users} user; at most {most} of fewer than {rules.min_users}")
    if rules.min_english is not None:
        share = english_share("\n".join((thread.title, *(post.text for post in posts))))
        if share < rules.min_english:
            return Refused("not_english", f"{share:.2f} of the letters are in English words; at least {rules.min_english}")
    return found


def is_closed(thread: RawThread) -> bool:
    """Return whether a thread ended closed: it was, and nobody opened it again."""
    states = [happening.kind for happening in thread.happenings if happening.kind in ("closed", "reopened")]
    return bool(states) and states[-1] == "closed"


def _cleaned(thread: RawThread, rules: IssueRules) -> CleanThread:
    repairs, losses = list(thread.repairs), list[str]()
    kept: list[Happening] = []
    closed = False
    for place, happening in enumerate(thread.happenings):
        if happening.kind != "post":
            if happening.kind == "closed" and not closed:
                kept.append(happening)
            elif happening.kind != "closed":
                losses.append("reopened" if happening.kind == "reopened" else "other_event")
            closed = happening.kind == "closed" or (closed and happening.kind != "reopened")
        elif place and happening.hidden:
            repairs.append("hidden_comment")
        elif place and rules.bots == "drop" and is_bot(happening.person):
            repairs.append("bot_comment")
        else:
            text = _clean_text(happening.text, rules, repairs)
            if text or not place:
                kept.append(happening if text is happening.text else happening._replace(text=text))
            else:
                repairs.append("empty_comment")
    return CleanThread(kept, repairs, losses)


def _clean_text(text: str, rules: IssueRules, repairs: list[str]) -> str:
    text = without_html_comments(with_newlines(text, repairs), repairs)
    letter = without_mail(text)
    if letter.repairs:
        text = letter.text
        repairs += letter.repairs
    if not text or text.isspace():
        return ""
    cut = cut_lines(text, rules.max_comment_lines, CUT)
    repairs += ["long_comment"] * (cut is not text)
    return cut


_LINK = re.compile(r"https?://\S+|<[^<>\n]{1,200}>")
_WORD = re.compile(r"[^\W\d_]+")


def english_share(text: str) -> float:
    """Return the share of the letters of a text that are in ordinary English words; words of one and two ASCII letters do not count.

    >>> round(english_share("The build fails with this message when the cache is empty."), 2)
    1.0
    >>> english_share("Der Fehler tritt beim Kompilieren unter Windows auf") < 0.5 and english_share("编译失败") == 0.0
    True
    """
    known, english, all_letters = words(), 0, 0
    for word in _WORD.findall(_LINK.sub(" ", without_code(text)).lower()):
        if len(word) > 2 or not word.isascii():
            all_letters += len(word)
            english += len(word) if word in known else 0
    return english / all_letters if all_letters else 1.0
