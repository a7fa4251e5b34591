"""Damage for fuzzing: JSON values with wrong types, nulls and hostile texts; bytes that are cut, swapped, doubled or foreign."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

HOSTILE_TEXTS = (
    *("", " ", "\0", "\ud800", "\udfff\ud800", "\ufdd0", "\ufeff", "\r", "\r\n", "\u2028", "a\r\nb\rc\nd", "x" * 3000, "\n" * 500),
    *("<|endoftext|>", "<issue_start>", "<commit_after>", "<jupyter_output>", "<pr_diff>", "<file_sep>", "<|end|>\n<|user|>\n"),
    *(": ", "a: b", "Title: ", "# %%", "@@ -1 +1 @@", "../../etc/passwd", "C:\\con", "https://x/y#z", "\u202eabc", "\U0010ffff", "e\u0301"),
    *("@al", "> quote\n> on", "-- \nsig", "```", "```python\n", "~~~", "null", "2015-01-01T00:00:00Z", "9999-99-99T99:99:99Z", "\x1b[31m"),
)
HOSTILE_VALUES = (None, True, False, 0, -1, 2**63, 1e308, [], {}, [[]], [None], {"": None}, *HOSTILE_TEXTS)


def mutated_json(value: Any, rng: random.Random, changes: int | None = None) -> Any:
    """Return a copy of a JSON value with one to five random changes somewhere inside."""
    value = copy.deepcopy(value)
    for _ in range(changes or rng.randint(1, 5)):
        value = _changed(value, rng)
    return value


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value, key=str))
        if rng.random() < 0.15:
            del value[key]
        elif rng.random() < 0.05:
            value[rng.choice(HOSTILE_TEXTS)] = value.pop(key)
        else:
            value[key] = _changed(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        act = rng.random()
        if act < 0.1:
            del value[place]
        elif act < 0.2:
            value.insert(place, copy.deepcopy(value[place]))
        elif act < 0.3:
            rng.shuffle(value)
        else:
            value[place] = _changed(value[place], rng)
        return value
    if isinstance(value, str) and rng.random() < 0.6:
        return mutated_text(value, rng)
    return copy.deepcopy(rng.choice(HOSTILE_VALUES))


def mutated_text(text: str, rng: random.Random) -> str:
    """Return a text with something hostile put in, or a stretch of it cut, doubled or turned round."""
    start, stop = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
    act = rng.randrange(5)
    if act == 0:
        return text[:start] + rng.choice(HOSTILE_TEXTS) + text[start:]
    middle = ("", text[start:stop] * 2, text[start:stop][::-1], rng.choice(HOSTILE_TEXTS))[act - 1]
    return text[:start] + middle + text[stop:]


def mutated_bytes(data: bytes, rng: random.Random, foreign: Sequence[bytes] = (b"\0", b"\xff", b"\r", b"\n", b"\xed\xa0\x80")) -> bytes:
    """Return bytes that are cut off, or have a stretch removed, doubled, replaced or flipped."""
    start, stop = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    act = rng.randrange(6)
    if act == 0:
        return data[:start]
    if act == 1 and data:
        place = rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
    stop = min(stop, start + 200)
    middle = (b"", data[start:stop] * 2, data[start:stop][::-1], rng.choice(foreign), rng.randbytes(8))[act - 1]
    return data[:start] + middle + data[stop:]
