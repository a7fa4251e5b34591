"""Which pull requests, files and texts StarCoder2 was trained on: its published rules, each a key.

In: a `RawPull`, files, texts. Out: the reason why something is left out, or a text as the rules leave it. The thresholds are those of
the-stack-v2's ``pull_requests_and_issues`` (``render.py``, ``process_pr_events.py``, ``process_commit_pairs.py``) and of StarCoder2's
paper, section 2.3. Where its code does what nobody can have meant, this does what was meant: ``depend`` is found at the start of a word
only (not in "independent"), half an HTML comment takes no text away, and ``pack`` is looked for in a file's name, not in a folder's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

from data_prep.kinds import preset_rules
from data_prep.languages import type_of
from data_prep.mail import without_mail
from data_prep.people import is_bot
from data_prep.post_texts import cut_lines, with_newlines, without_html_comments
from data_prep.pull_changes import FileChange
from data_prep.pull_shapes import RawPull
from data_prep.source_rules import line_lengths
from starchat.errors import UserError
from starchat.fim import rng_for

TRUNCATED = "[TRUNCATED]"
OMITTED = "[OMITTED]"


@dataclasses.dataclass(frozen=True)
class PullRules:
    """What is kept. A `preset` sets the other keys, which a spec may set again; None switches a rule off.

    ``starcoder2`` is what was published. ``own``, for repositories of one's own, has no `retention` and no comments by bots.
    ``none`` keeps everything that can be rendered. `human_opener`, `human_response`, `merged_or_approved` and `same_base` (the base did
    not move while it was open) are asked of the pull request. Title and texts are dropped below their `min_`, cut above their `max_`:
    of too many lines the first and the last 20 stay. A text with one of `dropped_words` is dropped; one with one of `omitted_words`
    says no more than that. The lines around a change are drawn for each file: the whole file for `whole_base_fraction`, otherwise up to
    `max_window_lines`; in hunks from `min_context_lines` to `max_context_lines`. With `retention` a repository of many pull requests
    gives a share of them, about 100 at most. Of JSON and YAML files that look locked or made (`lock_words` in the name, or more than
    `lock_share` of all the code before) `lock_fraction` stay.
    """

    preset: Literal["own", "starcoder2", "none"]
    human_opener: bool = False
    human_response: bool = False
    merged_or_approved: bool = False
    same_base: bool = False
    bot_comments: bool = True
    retention: bool = False
    min_title_chars: int | None = None
    max_title_chars: int | None = None
    title_words: tuple[str, ...] = ()
    min_body_chars: int | None = None
    min_comment_chars: int | None = None
    max_text_lines: int | None = None
    max_text_chars: int | None = None
    dropped_words: tuple[str, ...] = ()
    omitted_words: tuple[str, ...] = ()
    html_comments: bool = True
    max_hunk_chars: int | None = None
    whole_base_fraction: float = 0.2
    max_window_lines: int = 32
    min_context_lines: int = 3
    max_context_lines: int = 10
    lock_fraction: float | None = None
    lock_share: float = 0.5
    lock_words: tuple[str, ...] = ("pack", "lock", "yarn", "output", "swagger", "openapi")
    min_alphanumeric_fraction: float | None = None
    max_hex_fraction: float | None = None
    max_file_lines: int | None = None
    max_mean_line_chars: int | None = None
    max_line_chars: int | None = None
    min_chars: int | None = None
    max_chars: int | None = None


_PUBLISHED: Mapping[str, Any] = {
    **dict.fromkeys(("human_opener", "human_response", "merged_or_approved", "same_base", "retention"), True),
    **{"min_title_chars": 10, "max_title_chars": 500, "title_words": ("depend", "release"), "min_body_chars": 20},
    **{"min_comment_chars": 20, "max_text_lines": 80, "max_text_chars": 1000, "html_comments": False, "max_hunk_chars": 10_000},
    **{"dropped_words": ("Qwiet",), "omitted_words": ("codecov",), "lock_fraction": 0.1, "min_chars": 200, "max_chars": 1_000_000},
    **{"min_alphanumeric_fraction": 0.25, "max_hex_fraction": 0.25, "max_file_lines": 100_000},
    **{"max_mean_line_chars": 100, "max_line_chars": 1000},
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "own": {**_PUBLISHED, "retention": False, "bot_comments": False},
    "starcoder2": _PUBLISHED,
    "none": {},
}

_NO_ALPHANUMERIC = re.compile(r"[\W_]+")
_ASCII_OTHERS = bytes(code for code in range(128) if not chr(code).isalnum())


def rules_of(mapping: Mapping[str, Any], place: str) -> PullRules:
    """Return the rules that a spec's key ``rules`` asks for; raise `UserError` for every fault of its keys."""
    rules = preset_rules(PullRules, PRESETS, "own", mapping, place)
    if not 0 <= rules.min_context_lines <= rules.max_context_lines <= 100:
        found = f"{rules.min_context_lines} and {rules.max_context_lines}"
        raise UserError(f"{place}.min_context_lines and max_context_lines: {found}; expected numbers from 0 to 100, in order")
    if not 0 <= rules.max_window_lines <= 100_000:
        raise UserError(f"{place}.max_window_lines: {rules.max_window_lines}; expected a number from 0 to 100000")
    for key in ("whole_base_fraction", "lock_fraction", "lock_share"):
        value = getattr(rules, key)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{place}.{key}: {value}; expected a number from 0 to 1")
    return rules


def pull_fault(pull: RawPull, rules: PullRules) -> tuple[str, str] | None:
    """Return the reason why a pull request is left out before its change is looked at, and the detail; None if it stays."""
    title = (pull.title or "").strip()
    if rules.human_opener and pull.author is not None and is_bot(pull.author):
        return "bot_opened", f"opened by {pull.author.login}"
    if rules.min_title_chars is not None and len(title) < rules.min_title_chars:
        return "short_title", f"the title has {len(title)} characters"
    if (word := next((word for word in rules.title_words if _begins_word(word, title)), None)) is not None:
        return "title_word", f"a word of the title begins with {word!r}"
    if rules.min_body_chars is not None and not pull.body.strip():
        return "no_description", "nothing is said in the description"
    if (word := next((word for word in rules.dropped_words if word in pull.body), None)) is not None:
        return "dropped_word", f"the description holds {word!r}"
    if rules.human_response and not any(said.kind != "status" and not is_bot(said.who) for said in pull.said):
        return "no_human_response", "no person reviewed or commented"
    approved = any(said.kind == "review" and said.state == "approved" for said in pull.said)
    if rules.merged_or_approved and not (pull.merged or approved):
        return "not_merged_or_approved", "neither merged nor approved"
    bases = {said.base for said in pull.said if said.base}
    if rules.same_base and len(bases) - bool(pull.merged) > 1:
        return "base_changed", f"{len(bases)} commits were its base"
    return None


def _begins_word(word: str, text: str) -> bool:
    return word.lower() in text.lower() and re.search(rf"\b{re.escape(word)}", text, re.IGNORECASE) is not None


def is_retained(pull: RawPull, count: int, seed: int) -> bool:
    """Return whether a pull request is in the share that a repository with `count` of them gives, by hash."""
    share = 0.8007 - 0.0007 * count if count <= 1000 else 100 / count
    return rng_for(seed, f"retention:{pull.name}", 0).random() < share


def clean_text(text: str, rules: PullRules, repairs: list[str]) -> str | None:
    """Return a text without what mail added and what is not shown, None if it holds a word for which texts are dropped."""
    text = with_newlines(text, repairs)
    if any(word in text for word in rules.dropped_words):
        return None
    text, found = without_mail(text)
    repairs += found
    lower = text.lower()
    if (word := next((word for word in rules.omitted_words if word.lower() in lower), None)) is not None:
        repairs.append("omitted_text")
        return f"{OMITTED}{'CodeCov' if word == 'codecov' else word}"
    return (text if rules.html_comments else without_html_comments(text, repairs)).strip()


def cut_text(text: str, rules: PullRules, repairs: list[str]) -> str:
    """Return a text of at most so many lines and characters, the cut named among the repairs.

    >>> cut_text("1\\n2\\n3", PullRules("none", max_text_chars=3), [])
    '1\\n2'
    """
    cut = cut_lines(text, rules.max_text_lines, TRUNCATED)
    repairs += ["long_text"] * (cut is not text)
    text = cut
    if rules.max_text_chars is not None and len(text) > rules.max_text_chars:
        text = text[: rules.max_text_chars]
        repairs.append("long_text")
    return text


def file_fault(change: FileChange, rules: PullRules) -> str | None:
    """Return why a file is no code to learn from, by its text before, or by what is known of it; None if it is."""
    text = change.base
    if text is None:
        lines = [line for hunk in change.hunks for line in (hunk.new_lines if change.added else hunk.old_lines)]
        text = "\n".join(lines)
    if not text:
        return None
    lengths = line_lengths(text)
    if rules.max_file_lines is not None and len(lengths) >= rules.max_file_lines:
        return "long_file"
    if type_of(change.language) != "prose":  # paragraphs stand on one line
        if rules.max_mean_line_chars is not None and sum(lengths) >= rules.max_mean_line_chars * len(lengths):
            return "long_lines"
        if rules.max_line_chars is not None and max(lengths) >= rules.max_line_chars:
            return "long_lines"
    if rules.max_hex_fraction is not None and text.count("\\x") * 2 / len(text) >= rules.max_hex_fraction:
        return "hex_file"
    if rules.min_alphanumeric_fraction is not None:
        alphanumeric = len(text.encode().translate(None, _ASCII_OTHERS)) if text.isascii() else len(_NO_ALPHANUMERIC.sub("", text))
        if alphanumeric / len(text) <= rules.min_alphanumeric_fraction:
            return "few_letters"
    return None


def looks_locked(change: FileChange, chars: int, all_chars: int, rules: PullRules) -> bool:
    """Return whether a JSON or YAML file looks written by a program; `chars` of `all_chars` before the change are its own."""
    if change.language not in ("JSON", "YAML"):
        return False
    file_name = change.path.rpartition("/")[2].lower()
    return any(word in file_name for word in rules.lock_words) or chars > rules.lock_share * max(all_chars, 1)
