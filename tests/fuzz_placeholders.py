"""Mutated records with placeholders, and what must hold of the rows that the encoder makes of them.

    python tests/fuzz_placeholders.py --count 10000 --seed 0

Records are dialogues, pairs and documents, of all families of tokenizers; their texts are damaged, and so are their placeholders.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from fuzzing import run_mutants
from hostile import FRAGMENTS, write_tokenizer
from mutate import HOSTILE_TEXTS, mutated_text
from starchat.check import examine
from starchat.dialogue import Part, Record, Source, Turn
from starchat.document import encode_documents
from starchat.encode import Row, SetAside, encode_dialogues
from starchat.pairs import encode_pairs, sides
from starchat.recipe import Fim, Recipe
from starchat.template import TEMPLATES
from starchat.tokens import Tokens, load_tokens

FAMILIES = ("starcoder", "starcoder2", "qwen", "llama", "codellama", "smollm", "deepseek")
SURROGATES = ("user1@example.com", "user2@example.com", "REDACTED1xxxx", "xx", "203.0.113.7", "-----BEGIN\nkey\n-----END\n", "中文")
SAMPLE = "def mail():\n    return 'user1@example.com'  # REDACTED1xxxx\n```\nhost = '203.0.113.7'\n```\nuser2@example.comuser1@example.com"
CHECKS = (
    *("trained_tokens_are_the_answers", "every_end_token_is_trained", "user_and_system_untrained", "all_but_first_trained"),
    *("placeholders_untrained", "documents_are_whole", "conservation", "rows_are_encoded_alone", "no_forged_control_tokens"),
    *("dead_rows", "pairs_are_whole", "one_prompt", "first_tokens_untrained", "prompt_is_a_prefix", "lengths"),
)
Key = tuple[str, str | None]


def all_tokens(folder: Path) -> dict[Key, Tokens]:
    """Return tokens by family and template; None is for documents."""
    for family in FAMILIES:
        write_tokenizer(folder / family, family)
    return {(f, name): load_tokens(folder / f, TEMPLATES.get(name or "")) for f in FAMILIES for name in (*TEMPLATES, None)}


def outcome_of(rng: random.Random, known: dict[Key, Tokens]) -> str:
    """Encode one damaged record and return what became of it; raise where a law does not hold."""
    kind = rng.choice(["sft", "dpo", "pretrain"])
    family = rng.choice(FAMILIES)
    tokens = known[family, None if kind == "pretrain" else rng.choice([*TEMPLATES])]
    placeholders = tuple(_string(rng) for _ in range(rng.randint(0, 4)))
    most = rng.choice([64, 120, 400, 4000])
    fim = Fim(rate=rng.choice([0.5, 1.0])) if kind == "pretrain" and family not in ("llama", "codellama") and rng.random() < 0.7 else None
    fim = fim if "<fim_prefix>" in tokens.control or "<|fim_prefix|>" in tokens.control else None
    keys = {"architecture": {"model_type": "gpt_bigcode"}} if kind == "pretrain" else {"packing": False} if kind == "dpo" else {}
    recipe = Recipe("m", "d", "o", most, kind=kind, fim=fim, max_set_aside_fraction=1.0, **keys)
    if kind == "pretrain":
        record = Record(Source("x:1"), parts=_parts(rng, tokens), placeholders=placeholders)
        records, items = [record], list(encode_documents([record], tokens, most, fim, 42))
    else:
        turns = [Turn(rng.choice(["user", "assistant", "tool"]), _text(rng), train=rng.random() < 0.8) for _ in range(rng.randint(0, 4))]
        record = Record(Source("x:1"), (Turn("user", _text(rng)), *turns, Turn("assistant", _text(rng))), placeholders=placeholders)
        if kind == "dpo":
            record = Record(Source("x:1"), record.turns, rejected=Turn("assistant", _text(rng)), placeholders=placeholders)
        records = list(sides(record)) if kind == "dpo" else [record]
        items = list(encode_pairs([record], tokens, most) if kind == "dpo" else encode_dialogues([record], tokens, most))
    rows, aside = [i for i in items if isinstance(i, Row)], [i for i in items if isinstance(i, SetAside)]
    assert rows or aside
    if not rows:
        return f"{kind}: {aside[0].reason}"
    report = examine(recipe, tokens, records, {"train": rows, "test": []}, aside, tokens.size)
    faults = [finding for finding in report.findings if not finding.ok and finding.check in CHECKS]
    assert not faults, (faults, record)
    told = next(finding.detail for finding in report.findings if finding.check == "placeholders_untrained")
    return f"{kind}: rows, {'no placeholders' if told == 'no placeholders' or told.startswith('0 ') else 'with holes'}"


def _string(rng: random.Random) -> str:
    """Return a placeholder, perhaps damaged."""
    return _sound(mutated_text(rng.choice(SURROGATES), rng)[:60]) if rng.random() < 0.2 else rng.choice(SURROGATES)


def _text(rng: random.Random) -> str:
    act = rng.randrange(4)
    if act == 0:
        return _sound(mutated_text(mutated_text(SAMPLE, rng), rng)[:400])
    pieces = (*SURROGATES, *FRAGMENTS, *(text for text in HOSTILE_TEXTS if len(text) < 50))
    return _sound("".join(rng.choice(SURROGATES if rng.random() < 0.4 else pieces) for _ in range(rng.randint(0, 2 + 6 * act))))


def _sound(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _parts(rng: random.Random, tokens: Tokens) -> tuple[Part, ...]:
    """Return a file, several, or cells; with tokens of redaction where the tokenizer has them."""
    names = [name for name in ("<file_sep>", "<filename>") if name in tokens.control]
    cells = [name for name in ("<jupyter_code>", "<issue_comment>") if name in tokens.control]
    redaction = [name for name in ("<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>") if name in tokens.control]

    def body(first: str) -> list[Part]:
        more = [Part(rng.choice(redaction), _text(rng)) for _ in range(rng.choice([0, 0, 1, 4]))] if redaction else []
        return [Part("", first + _text(rng)), *more]

    if cells and rng.random() < 0.3:
        return tuple(piece for _ in range(rng.randint(1, 5)) for piece in [Part(rng.choice(cells), _text(rng)), *body("")[1:]])
    files = rng.choice([0, 1, 3]) if names else 0
    return tuple(piece for _ in range(files) for piece in [Part(names[0], _text(rng)[:20]), *body("\n")]) or tuple(body(""))


def main() -> int:
    """Run the mutants and print what became of them."""
    with tempfile.TemporaryDirectory() as folder:
        known = all_tokens(Path(folder))
        return run_mutants(__doc__, lambda rng: [outcome_of(rng, known)])


if __name__ == "__main__":
    sys.exit(main())
