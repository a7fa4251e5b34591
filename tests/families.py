"""Tiny random base models of every architecture and kind of tokenizer that code models have."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostile import write_tokenizer
from starchat.tokens import load_tokens

SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 1024, "initializer_range": 0.2, "attention_dropout": 0.0,
}  # fmt: skip
BIGCODE = {
    "model_type": "gpt_bigcode", "n_positions": 1024, "n_embd": 64, "n_layer": 2, "n_head": 4, "multi_query": True,
    "initializer_range": 0.2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
STARCODER2 = {"model_type": "starcoder2", **SMALL, "sliding_window": 256, "residual_dropout": 0.0, "embedding_dropout": 0.0}


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of tokenizer (see `hostile.write_tokenizer`), a model's configuration, and rows that its embedding has to spare."""

    tokenizer: str
    config: Mapping[str, Any]
    spare_rows: int = 0


FAMILIES = {
    "starcoder": Family("starcoder", BIGCODE),
    "santacoder": Family("santacoder", BIGCODE),
    "starcoder2": Family("starcoder2", {**STARCODER2, "tie_word_embeddings": True}),
    "starcoder2-untied": Family("starcoder2", {**STARCODER2, "tie_word_embeddings": False}),
    "codellama": Family("llama", {"model_type": "llama", **SMALL, "tie_word_embeddings": False}),
    "deepseek-coder": Family("deepseek", {"model_type": "llama", **SMALL, "tie_word_embeddings": False}, spare_rows=40),
    "qwen2.5-coder": Family("qwen", {"model_type": "qwen2", **SMALL, "tie_word_embeddings": True}, spare_rows=40),
    "qwen3": Family("qwen", {"model_type": "qwen3", **SMALL, "head_dim": 16, "tie_word_embeddings": False}, spare_rows=40),
    "qwen3-coder": Family(
        "qwen",
        {
            "model_type": "qwen3_moe",
            **SMALL,
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "tie_word_embeddings": False,
        },
    ),
    "granite-code": Family(
        "starcoder",
        {
            "model_type": "granite",
            **SMALL,
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "residual_multiplier": 0.2,
            "attention_multiplier": 0.1,
            "tie_word_embeddings": True,
        },
    ),
    "smollm": Family("smollm", {"model_type": "llama", **SMALL, "tie_word_embeddings": True}),
}


def write_family(folder: Path, name: str, **sizes: int) -> Path:
    """Write tokenizer and random weights of a family's tiny base model; `sizes` replace its configuration's."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family = FAMILIES[name]
    write_tokenizer(folder, family.tokenizer)
    named = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = load_tokens(folder, None)
    keys = {**family.config, **sizes}
    config = AutoConfig.for_model(
        keys.pop("model_type"),
        **keys,
        vocab_size=tokens.size + family.spare_rows,
        eos_token_id=tokens.control[named["eos_token"]],
        bos_token_id=tokens.control[named["bos_token"]],
    )
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
