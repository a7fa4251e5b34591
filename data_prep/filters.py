"""Curation by content: thresholds on code and on answers, each of which gives a reason.

Pure: a `Record` in, a reason with its detail out, or None. Presets turn on what was published (`thresholds`: see `data_prep.source_rules`
for every number and its source); each key can be set beside a preset, and None or ``keep`` turns it off. Rules for code look at every piece
of it (`data_prep.record_texts.code_of`): files of documents, the new side of commits, and blocks of answers.

==============================  ======================================================================================
``other_language``              code in a language that `languages` does not list
``vendored``                    a file copied from elsewhere, by its path
``generated_code``              a file made by a program, by its path or its head
``long_line``                   above `max_line_characters`
``long_mean_line``              above `max_mean_line_characters`
``many_lines``                  above `max_lines`
``few_alphanumerics``           a smaller share of letters and digits than `min_alphanumeric`
``few_letters``                 a smaller share of letters than `min_alphabetic`
``encoded_data``                base64, hexadecimal or escapes in long stretches, or half of the text
``few_characters``              outside of the sizes for configuration (presets), or below `min_characters` of all texts
``many_characters``             the same, above
``few_comments``                a smaller share of comments than `min_comments`; only files whose language's comments are known
``many_comments``               a larger share than `max_comments`
``many_tokens``                 fewer characters a token than `min_characters_per_token`
``empty_code``                  a block without code, or with nothing but a placeholder for it
``does_not_parse``              Python or JSON that does not parse; pieces of Python may be indented, or sessions with an interpreter
``refusal``                     an answer that declines, or speaks of itself as a language model
``unfilled_template``           an answer with a blank that was to be filled in
==============================  ======================================================================================

``xml``, ``little_visible_text``, ``excluded_extension`` and ``other_text`` come from the presets' thresholds alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from data_prep.comments import comment_share
from data_prep.generated import generated_name, generated_text, vendored
from data_prep.kinds import preset_rules
from data_prep.languages import languages
from data_prep.python_syntax import snippet_fault, syntax_fault
from data_prep.record_texts import Code, code_of, texts_of
from data_prep.source_rules import Fault, Limits, Thresholds, fault_of, limits_for
from starchat.config import closest, to_mapping
from starchat.dialogue import Record
from starchat.errors import UserError
from starchat.fences import without_code

Choice = Literal["keep", "drop"]
CountTokens = Callable[[str], int]


@dataclasses.dataclass(frozen=True)
class FilterRules:
    """Thresholds on records; shares are from 0 to 1. `thresholds` are the published ones by language and extension, for whole files."""

    preset: str
    thresholds: Thresholds = "none"
    languages: tuple[str, ...] | None = None
    generated: Choice = "keep"
    vendored: Choice = "keep"
    max_lines: int | None = None
    max_line_characters: int | None = None
    max_mean_line_characters: int | None = None
    min_alphanumeric: float | None = None
    min_alphabetic: float | None = None
    encoded_data: Choice = "keep"
    min_characters: int | None = None
    max_characters: int | None = None
    min_comments: float | None = None
    max_comments: float | None = None
    min_characters_per_token: float | None = None
    empty_code: Choice = "keep"
    unparsable_code: Choice = "keep"
    refusals: Choice = "keep"
    unfilled_templates: Choice = "keep"


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "starcoder": {"thresholds": "starcoder"},
    "starcoder2": {"thresholds": "starcoder2", "generated": "drop"},
    "dialogues": {"empty_code": "drop", "unparsable_code": "drop", "refusals": "drop", "unfilled_templates": "drop"},
}
"""CommitPackFT's thresholds are about commits, their messages and sizes: they stand in `data_prep.commit_rules`."""

SHARES = ("min_alphanumeric", "min_alphabetic", "min_comments", "max_comments")

_REFUSAL = re.compile(
    r"\b(?:as an? (?:(?:AI|artificial intelligence)(?:,| (?=developed|created|trained|made|built|designed|programmed))"
    r"|(?:(?:AI|artificial intelligence)(?: (?:(?:language )?model|assistant|chatbot|system|program))?|(?:large )?language model)"
    r"(?=,? (?:I|my)\b|, (?:it(?:'s| is)|there)\b|,? (?:developed|created|trained|made|built|designed|programmed) by\b))"
    r"|I(?:'m| am) (?:just |only )?an? (?:AI|language model)\b(?! \w+(?:er|or|ist|ant)\b(?<!assistant))"
    r"|I(?:'m| am) sorry,? (?:but )?I (?:can(?:no|')t|am unable|'m unable)"
    r"|I (?:cannot|can't|won't|am not able to|am unable to)"
    r" (?:assist|help(?!,? (?:but|\w+ing)\b)|fulfill?|comply|provide (?:assistance|help|that information)))",
    re.IGNORECASE,
)
MAX_REFUSAL_CHARACTERS = 400
"""Answers that decline do it at once; further on, such words are part of an explanation."""

_BLANK = re.compile(
    r"(?<!press )(?<!click )(?<!select )(?<!choose )(?<!tap )(?<!hit )(?:\[(?:(?:your|fill in)\b[^\]\n]{0,60}|insert [^\]\n]{1,60}"
    r"|(?:enter|add|replace) (?:your|the)\b[^\]\n]{0,60}|(?:enter|add|replace)\b[^\]\n]{0,50}\bhere)\](?!\()"
    r"|<(?:insert|your|enter)[ _-][^>\n]{0,60}>|\{\{ ?(?:insert|your)\b[^}\n]{0,60}\}\})|\blorem ipsum dolor\b",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"(?:\s|\.\.\.|…|pass\b|\*/|(?:#|//|--|/\*)[ \t]*(?:\.\.\.|…"
    r"|(?:add |put |write |insert )?(?:your|rest of(?: the| your)?|existing|more) code\b"
    r"|todo\b|implementation (?:goes )?here|code (?:goes )?here)[^\n]*+)*+",
    re.IGNORECASE,
)


def filter_rules(mapping: Mapping[str, Any], place: str) -> FilterRules:
    """Return the rules of a spec; raise `UserError` for what no rule can be."""
    rules = preset_rules(FilterRules, PRESETS, "none", mapping, place)
    if (unknown := next((name for name in rules.languages or () if name not in languages()), None)) is not None:
        raise UserError(f"{place}.languages: {unknown!r} is no language of the table; {closest(unknown, languages())}")
    for key, value in to_mapping(rules).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not 0 <= value < math.inf or (key in SHARES and value > 1):
            raise UserError(f"{place}.{key}: {value}; expected a {'share from 0 to 1' if key in SHARES else 'number from 0'}, or null: off")
    return rules


def filter_fault(record: Record, rules: FilterRules, count_tokens: CountTokens | None = None) -> Fault | None:
    """Return why a record is not kept, or None. `count_tokens` is asked where `min_characters_per_token` is set.

    >>> from starchat.dialogue import Source, Turn
    >>> answer = Turn("assistant", "As an AI language model, I cannot help.")
    >>> filter_fault(Record(Source("x"), (Turn("user", "hi"), answer)), filter_rules({"preset": "dialogues"}, "spec"))
    ('refusal', "turn 2: 'As an AI language model'")
    """
    size = sum(map(len, texts_of(record)))
    if rules.min_characters is not None and size < rules.min_characters:
        return "few_characters", f"{size} characters in all; at least {rules.min_characters}"
    if rules.max_characters is not None and size > rules.max_characters:
        return "many_characters", f"{size} characters in all; at most {rules.max_characters}"
    for code in code_of(record):
        if fault := _code_fault(code, rules, count_tokens):
            return fault[0], f"{code.path}: {fault[1]}" if code.path and code.path != record.source.path else fault[1]
    return next(_answer_faults(record, rules), None)


def _code_fault(code: Code, rules: FilterRules, count_tokens: CountTokens | None) -> Fault | None:
    if rules.languages is not None and code.language not in rules.languages:
        return "other_language", code.language or "not known"
    if code.path is not None:
        if rules.vendored == "drop" and (found := vendored(code.path)):
            return "vendored", found
        if rules.generated == "drop" and (found := generated_name(code.path)):
            return "generated_code", found
    if rules.generated == "drop" and code.whole and (found := generated_text(code.path or "", code.text)):
        return "generated_code", found
    if rules.thresholds != "none" and code.whole and code.language is not None and (fault := _published(code, rules.thresholds)):
        return fault
    if fault := fault_of(code.text, _own_limits(rules)):
        return fault
    if (rules.min_comments is not None or rules.max_comments is not None) and (fault := _comments(code, rules)):
        return fault
    if rules.min_characters_per_token is not None and count_tokens is not None and code.text:
        rate = len(code.text) / max(1, count_tokens(code.text))
        if rate < rules.min_characters_per_token:
            return "many_tokens", f"{rate:.2f} characters a token; at least {rules.min_characters_per_token}"
    return _worth(code, rules)


def _published(code: Code, thresholds: Thresholds) -> Fault | None:
    assert code.language is not None
    name = (code.path or "").rpartition("/")[2].lower()
    extension = os.path.splitext(name)[1]
    limits = limits_for(thresholds, code.language, extension)
    if limits is None:
        return "excluded_extension", f"{extension} of {code.language}, by {thresholds}'s list"
    if limits.names is not None and name.partition(".")[0] not in limits.names:
        return "other_text", f"texts are kept by name: {', '.join(sorted(limits.names))}"
    return fault_of(code.text, limits)


def _own_limits(rules: FilterRules) -> Limits:
    return Limits(
        max_lines=rules.max_lines,
        max_line_chars=rules.max_line_characters,
        max_mean_line_chars=rules.max_mean_line_characters,
        min_alphanumeric=rules.min_alphanumeric,
        min_alphabetic=rules.min_alphabetic,
        encoded_data=rules.encoded_data == "drop",
    )


def _comments(code: Code, rules: FilterRules) -> Fault | None:
    share = comment_share(code.text, code.language)
    if share is None:
        return None
    if rules.min_comments is not None and share < rules.min_comments:
        return "few_comments", f"{100 * share:.1f} % of the characters are comments; at least {100 * rules.min_comments:g} %"
    if rules.max_comments is not None and share > rules.max_comments:
        return "many_comments", f"{100 * share:.1f} % of the characters are comments; at most {100 * rules.max_comments:g} %"
    return None


def _worth(code: Code, rules: FilterRules) -> Fault | None:
    if rules.empty_code == "drop" and code.path is None and _PLACEHOLDER.fullmatch(code.text):
        return "empty_code", "a block without code" if not code.text.strip() else f"nothing but {code.text.strip()[:60]!r}"
    if rules.unparsable_code == "drop":
        if code.language == "Python" and (fault := (syntax_fault if code.whole else snippet_fault)(code.text)) is not None:
            return "does_not_parse", f"Python: {fault}"
        if code.language == "JSON":
            try:
                json.loads(code.text)
            except (ValueError, RecursionError) as error:
                return "does_not_parse", f"JSON: {error}"
    return None


def _answer_faults(record: Record, rules: FilterRules) -> Iterator[Fault]:
    for number, turn in enumerate(record.turns, 1):
        if turn.role != "assistant":
            continue
        if rules.refusals == "drop" and (found := _REFUSAL.search(turn.content, 0, MAX_REFUSAL_CHARACTERS)):
            yield "refusal", f"turn {number}: {found[0]!r}"
        if rules.unfilled_templates == "drop" and (found := _BLANK.search(without_code(turn.content))):
            yield "unfilled_template", f"turn {number}: {found[0]!r}"
