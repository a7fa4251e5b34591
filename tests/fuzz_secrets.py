"""Secrets put into texts of all sorts, and replaced in them (``benchmarks/secret_detection.py --fuzz``)."""

from __future__ import annotations

import functools
import json
import random
import tomllib

import yaml

from data_prep.detect import Detector, installed_engines
from data_prep.python_syntax import syntax_fault
from data_prep.redact import STYLES, Redacted, redact
from mutate import HOSTILE_TEXTS, mutated_text
from secret_cases import Case, labelled_cases

GLUE = (
    "",
    "",
    "\n",
    " ",
    "\\n",
    '"',
    "'",
    "@",
    ":",
    "://",
    "é",
    "\u2028",
    "=",
    ".",
    "-",
    "_",
    "password=",
    "token: ",
    "\\",
    "\0",
    "\ud800",
    "9",
)


@functools.cache
def _cases() -> list[Case]:
    return labelled_cases(7)


def mutant(rng: random.Random) -> str:
    """Return one damaged text: secrets and lookalikes side by side, parts of them, and something hostile between."""
    pieces = []
    for _ in range(rng.randint(1, 6)):
        case = rng.choice(_cases())
        text = case.text
        if case.is_positive and rng.random() < 0.4:
            start, end = case.spans[0]
            text = text[start:end]
        if rng.random() < 0.5:
            text = mutated_text(text, rng)
        pieces += [text, rng.choice(GLUE)]
    if rng.random() < 0.1:
        pieces.insert(rng.randint(0, len(pieces)), rng.choice(HOSTILE_TEXTS))
    return "".join(pieces)


def require_sound(text: str) -> Redacted:
    """Return a redacted text; raise where a law does not hold."""
    finds = [Detector(engine=engine).find(text) for engine in installed_engines()]
    assert all(found == finds[0] for found in finds), "every engine finds the same"
    assert all(a.end <= b.start for a, b in zip(finds[0], finds[0][1:], strict=False)), "sorted, without overlaps"
    assert all(0 <= span.start < span.end <= len(text) for span in finds[0])
    for style in STYLES:
        redacted = redact(text, Detector(), style)
        assert Detector().find(redacted.text) == [], "nothing is found again"
        require_only_replaced(text, redacted)
    return redacted


def require_only_replaced(text: str, redacted: Redacted) -> None:
    """Raise unless the texts are the same outside of the replacements."""
    position, kept = 0, []
    for replacement in redacted.replacements:
        assert position <= replacement.start < replacement.end <= len(redacted.text)
        kept.append(redacted.text[position : replacement.start])
        position = replacement.end
    kept.append(redacted.text[position:])
    assert text.startswith(kept[0]) and text.endswith(kept[-1])
    place = 0
    for piece in kept:
        found = text.find(piece, place)
        assert found >= 0, "what is not replaced is there, in order"
        place = found + len(piece)
    if not redacted.replacements:
        assert redacted.text == text


def parses(text: str, language: str) -> bool:
    """Return whether a text is sound in Python, JSON, YAML or TOML."""
    try:
        if language == "Python":
            return syntax_fault(text) is None
        {"JSON": json.loads, "TOML": tomllib.loads, "YAML": lambda t: list(yaml.safe_load_all(t))}[language](text)
    except (ValueError, yaml.YAMLError, RecursionError):
        return False
    return True
