"""What comes with the package: the demo dialogues and the embedded base model."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from conftest import STARCODER_TOKENS
from data_prep.control_tokens import find_control_token
from data_prep.run_blocks import block_faults
from starchat.fences import code_blocks
from starchat.files import sha256_file
from starchat.hub import context_length, read_config, resolve_model
from starchat.tokens import load_tokens

NANO = Path(__file__).parent.parent / "starchat" / "nano"
MODEL = NANO / "model"
MAX_WEIGHT_BYTES = 20_000_000
SHINGLE_WORDS = 5
MAX_RESEMBLANCE = 0.8


@pytest.fixture(scope="module")
def dialogues() -> dict[str, list[dict[str, str]]]:
    """Messages by place."""
    found = {}
    for path in sorted((NANO / "dialogues").glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found[f"{path.name}:{number}"] = json.loads(line)["messages"]
    return found


def resemblance(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    """Jaccard's coefficient of two sets of shingles."""
    return len(a & b) / max(1, len(a | b))


def shingles(messages: list[dict[str, str]]) -> set[tuple[str, ...]]:
    """Runs of words of the whole dialogue."""
    words = re.findall(r"\w+", " ".join(m["content"] for m in messages).lower())
    return {tuple(words[n : n + SHINGLE_WORDS]) for n in range(max(1, len(words) - SHINGLE_WORDS + 1))}


def test_there_are_enough_and_a_third_is_multi_turn(dialogues: dict[str, list[dict[str, str]]]) -> None:
    multi_turn = [m for m in dialogues.values() if sum(t["role"] == "user" for t in m) > 1]
    assert len(dialogues) >= 300
    assert 3 * len(multi_turn) >= len(dialogues)


def test_they_have_the_shape_of_dialogues(dialogues: dict[str, list[dict[str, str]]]) -> None:
    for place, messages in dialogues.items():
        roles = [m["role"] for m in messages if m["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2), place
        assert all(m["content"].strip() == m["content"] != "" for m in messages), place


def test_no_text_holds_a_control_token(dialogues: dict[str, list[dict[str, str]]]) -> None:
    found = {place: find_control_token(m["content"]) for place, messages in dialogues.items() for m in messages}
    assert {place: token for place, token in found.items() if token} == {}


def test_no_two_are_nearly_the_same(dialogues: dict[str, list[dict[str, str]]]) -> None:
    sets = {place: shingles(messages) for place, messages in dialogues.items()}
    near = [(a, b) for (a, x), (b, y) in combinations(sets.items(), 2) if resemblance(x, y) >= MAX_RESEMBLANCE]
    assert near == []
    first = next(iter(dialogues.values()))
    almost = [*first[:-1], {**first[-1], "content": first[-1]["content"] + " Thanks."}]
    assert resemblance(shingles(first), shingles(almost)) >= MAX_RESEMBLANCE, "a planted near-duplicate is seen"


def test_every_block_runs_and_prints_what_the_dialogue_says(dialogues: dict[str, list[dict[str, str]]]) -> None:
    with ThreadPoolExecutor(2) as pool:  # each thread waits for a child process
        faults = dict(zip(dialogues, pool.map(block_faults, dialogues.values()), strict=True))
    assert {place: fault for place, fault in faults.items() if fault} == {}
    blocks = sum(language == "python" for m in dialogues.values() for t in m for language, _ in code_blocks(t["content"]))
    assert blocks >= len(dialogues), "the dialogues are programming help"


@pytest.mark.parametrize(
    ("code", "output", "fault"),
    [
        ("1/0", None, "raised"),
        ("print(1)", "2", "printed '1\\n', the dialogue says"),
        ("while True: pass", None, "did not end"),
        ("import os; os.system('echo 1')", "2", "printed '1\\n', the dialogue says"),
        ("import os; os._exit(0)", None, "stopped with status 0"),
    ],
)
def test_a_block_that_lies_is_seen(code: str, output: str | None, fault: str) -> None:
    claim = f"\n```output\n{output}\n```" if output else ""
    faults = block_faults([{"role": "assistant", "content": f"```python\n{code}\n```{claim}"}], timeout_s=2)
    assert len(faults) == 1
    assert fault in faults[0]


def test_the_tokenizer_has_starcoders_control_tokens_at_their_ids() -> None:
    tokens = load_tokens(resolve_model("nano"), None)
    assert [tokens.whole.id_to_token(n) for n in range(19)] == list(STARCODER_TOKENS)
    assert [tokens.control[name] for name in STARCODER_TOKENS] == list(range(19))
    assert tokens.end_of_text == "<|endoftext|>"
    text = "def f(x):\n    return {'a': x}  # naïve 中文 😀\n"
    assert tokens.decode_texts(tokens.encode_texts([text])) == [text]


def stated_digest(card: str) -> str | None:
    """The SHA-256 that a card states, or None."""
    found = re.search(r"\b[0-9a-f]{64}\b", card)
    return found[0] if found else None


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The embedded model's configuration."""
    if not (MODEL / "model.safetensors").is_file():
        pytest.skip("the embedded base has no weights yet")
    return read_config(MODEL)


def test_the_weights_are_small_and_those_of_the_card(config: dict[str, Any]) -> None:
    weights = MODEL / "model.safetensors"
    assert weights.stat().st_size <= MAX_WEIGHT_BYTES
    assert stated_digest((MODEL / "README.md").read_text(encoding="utf-8")) == sha256_file(weights)


def test_it_is_a_starcoder_in_miniature(config: dict[str, Any]) -> None:
    assert config["model_type"] == "gpt_bigcode"
    assert config["multi_query"] is True
    assert (context_length(config) or 0) >= 1024
    assert config["vocab_size"] >= load_tokens(MODEL, None).size
