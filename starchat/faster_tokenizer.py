"""A faster tokenizer engine, used where it is installed and gives the ids of HF tokenizers.

In: a tokenizer of the tokenizers library. Out: an engine with the same ids, or None. ``fastokens`` (``pip install 'starchat[fast]'``)
encodes some ten times as fast on one core, and gave the ids of HF tokenizers on every text that was tried; but it knows only kinds of
byte-level BPE, and it is young. So each tokenizer is compared on `trial_texts` before the engine is used, and on a share of
the texts of every batch afterwards. What differs before is encoded by HF tokenizers; what differs afterwards ends the run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from tokenizers import Tokenizer

from starchat.errors import UserError
from starchat.template import ESCAPE

WORTH_TEXTS = 256
"""Batches of fewer texts go to HF tokenizers: the comparison would cost more than the engine saves."""

TRIAL_TEXTS = 2000
COMPARED_EACH = 64

TRIAL_PARTS = (
    "\n", "\r\n", "\r", " ", "  ", "    ", "\t", "\x0b", "\x0c", "\x00", "\x1c", "\x85", "\u00a0", "\u2028", "\u3000",
    "\u200d", "\ufeff", ESCAPE, "a", "B", "def ", "return", "self.", "don't", "'s", "'LL", "x_1", "_", "__", "//", "\\", "...",
    "=>", "!=", "{", "}", "#include", "9", "42", "12345", "\u0663", "\u00b2", "\u2167", "\u00e9", "e\u0301", "\u00df", "\u0130",
    "\u01c5", "\u0e33", "\u4e2d\u6587", "\u65e5", "\uac00", "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e9", "\U00010400", "\uffff", "\u2581", "\u0120", "<|end|>", "<fim_prefix>", "</s>",
)  # fmt: skip
"""Where tokenizers were seen to differ: kinds of white space, digits and letters outside ASCII, marks, contractions, control strings."""


def load_fastokens(spec: str) -> Any:
    """Return the engine of a tokenizer's JSON; None if it is not installed, or does not know a part of the tokenizer."""
    if find_spec("fastokens") is None:
        return None
    import fastokens

    try:
        return fastokens.Tokenizer.from_json_str(spec)
    except ValueError:
        return None


def faster_engine(plain: Tokenizer, load: Callable[[str], Any] = load_fastokens) -> Any:
    """Return an engine that gave the ids of `plain` on `trial_texts`, or None."""
    engine = load(plain.to_str())
    texts = trial_texts()
    return engine if engine is not None and _by_engine(engine, texts) == by_hf(plain, texts) else None


def encode_faster(engine: Any, plain: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts by an engine. Raises `UserError` if they are not those of `plain` on each `COMPARED_EACH`th text."""
    ids = _by_engine(engine, texts)
    shown = texts[::COMPARED_EACH]
    for text, own, wanted in zip(shown, ids[::COMPARED_EACH], by_hf(plain, shown), strict=True):
        if own != wanted:
            raise UserError(
                f"text {text[:60]!r}: fastokens gives other ids than HF tokenizers; pip uninstall fastokens, and report the text"
            )
    return ids


def by_hf(plain: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts by HF tokenizers."""
    return [encoding.ids for encoding in plain.encode_batch_fast(texts, add_special_tokens=False)]


def trial_texts() -> list[str]:
    """Return texts of `TRIAL_PARTS` in random order, the same each time."""
    rng = random.Random(0)
    return [*TRIAL_PARTS, *("".join(rng.choices(TRIAL_PARTS, k=rng.randint(2, 30))) for _ in range(TRIAL_TEXTS))]


def _by_engine(engine: Any, texts: Sequence[str]) -> list[list[int]]:
    return [list(encoding.ids) for encoding in engine.encode_batch(list(texts), add_special_tokens=False)]
