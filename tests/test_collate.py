"""Law 4: a packed row has the logits that it has alone, in both StarCoder families, on eager and SDPA; padding changes nothing."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from starchat.collate import Collator, batch_tensors
from starchat.encode import IGNORED
from starchat.pack import Groups
from starchat.rows import Encoded

VOCABULARY = 64
PAD = 4
LARGEST_DIFFERENCE = 1e-5
ROWS = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12), min_size=2, max_size=5)
MODELS = [(family, attention) for family in ("gpt_bigcode", "starcoder2") for attention in ("eager", "sdpa")]


@functools.cache
def tiny(family: str, attention: str) -> Any:
    """Return a random model of a family, large weights, so that what a token sees matters."""
    from transformers import AutoConfig, AutoModelForCausalLM

    keys: dict[str, dict[str, Any]] = {
        "gpt_bigcode": {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "multi_query": True},
        "starcoder2": {
            "max_position_embeddings": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 48,
        },
    }  # fmt: skip
    torch.manual_seed(3)
    keys[family] |= {"initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": PAD}
    config = AutoConfig.for_model(family, vocab_size=VOCABULARY, **keys[family])
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()


def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    return logits


def with_flags(rows: list[list[int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return rows with every second token trained."""
    return [(np.array(row, np.int32), np.arange(len(row)) % 2 == 1) for row in rows]


def differences(model: Any, rows: list[list[int]], batch: dict[str, torch.Tensor]) -> list[float]:
    """Return for each row the largest difference between its logits in the first line of `batch` and alone."""
    logits, at, found = logits_of(model, batch)[0], 0, []
    for row in rows:
        alone = logits_of(model, {"input_ids": torch.tensor([row]), "position_ids": torch.arange(len(row))[None]})[0]
        found.append(float((logits[at : at + len(row)] - alone).abs().max()))
        at += len(row)
    return found


@pytest.mark.parametrize(("family", "attention"), MODELS)
def test_packed_and_padded_is_alone(family: str, attention: str) -> None:
    model = tiny(family, attention)

    @given(ROWS)
    @settings(max_examples=15, deadline=None)
    def check(rows: list[list[int]]) -> None:
        tokens = sum(map(len, rows))
        for length in (tokens, 64):
            assert max(differences(model, rows, batch_tensors([with_flags(rows)], PAD, length))) <= LARGEST_DIFFERENCE

    check()


@pytest.mark.parametrize(("family", "attention"), MODELS)
def test_planted_positions_that_run_on_are_seen(family: str, attention: str) -> None:
    """Without the restart of positions a row sees the one before it: the comparison above must notice."""
    rows = [[5, 9, 11, 2], [7, 7, 3], [8, 1]]
    batch = batch_tensors([with_flags(rows)], PAD, 9)
    first, *others = differences(tiny(family, attention), rows, {**batch, "position_ids": torch.arange(9)[None]})
    assert first <= LARGEST_DIFFERENCE
    assert min(others) > 0.01


@pytest.mark.parametrize(("family", "attention"), MODELS)
def test_rows_of_other_lines_change_nothing(family: str, attention: str) -> None:
    rows = [[5, 9, 11, 2], [7, 7, 3]]
    batch = batch_tensors([with_flags(rows), with_flags([[1] * 11])], PAD, 11)
    assert max(differences(tiny(family, attention), rows, batch)) <= LARGEST_DIFFERENCE


def encoded(rows: list[list[int]], groups: list[list[int]]) -> Encoded:
    flat = with_flags(rows)
    offsets = np.cumsum([0, *map(len, rows)])
    ids, trained = (np.concatenate(parts) for parts in zip(*flat, strict=True))
    flat = Groups(np.array([n for g in groups for n in g], dtype=np.int64), np.cumsum([0, *map(len, groups)]))
    return Encoded(ids, trained, offsets, flat, tuple(f"row-{n}" for n in range(len(rows))))


def test_collator_restarts_positions_and_trains_no_first_token() -> None:
    data = encoded([[5, 6, 7], [8, 9], [10]], [[2], [0, 1]])
    data.trained[3] = True  # a first token marked as trained would be predicted from the row before
    batch = Collator(data, PAD)([{"group": 1}, {"group": 0}])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [10, PAD, PAD, PAD, PAD]]
    assert batch["labels"].tolist() == [[IGNORED, 6, IGNORED, IGNORED, 9], [IGNORED] * 5]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_a_fixed_length_pads_to_it() -> None:
    data = encoded([[5, 6, 7], [8, 9]], [[0], [1]])
    batch = Collator(data, PAD, length_tokens=8)([{"group": 1}])
    assert batch["input_ids"].tolist() == [[8, 9, *[PAD] * 6]]
    assert batch["labels"].tolist() == [[IGNORED, 9, *[IGNORED] * 6]]


@given(ROWS, st.integers(0, 5))
@settings(deadline=None)
def test_every_token_of_every_group_is_in_its_line_once(rows: list[list[int]], padding: int) -> None:
    groups = [with_flags(rows[::2]), with_flags(rows[1::2])]
    length = max(sum(len(ids) for ids, _ in group) for group in groups) + padding
    batch = batch_tensors(groups, PAD, length)
    for line, group in enumerate(groups):
        ids = [token for row, _ in group for token in row.tolist()]
        labels = [int(t) if flag and n else IGNORED for row, flags in group for n, (t, flag) in enumerate(zip(row, flags, strict=True))]
        assert batch["input_ids"][line].tolist() == ids + [PAD] * (length - len(ids))
        assert batch["labels"][line].tolist() == labels + [IGNORED] * (length - len(ids))
