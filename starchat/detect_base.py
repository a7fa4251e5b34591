"""The base model as it lies on the disk: whole, numbers, of one piece with its tokenizer. No model is loaded.

Each detector returns one `Finding`. A base model without weights (only its tokenizer is used) is not looked at. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from starchat.files import read_object
from starchat.finding import Finding, judged, verdict
from starchat.tokens import Tokens
from starchat.weights import EMBEDDINGS, HEADS, LAYOUT, Stored, blocks, find, not_finite, read_folder, rows, same_numbers

MAX_READ_BYTES = 4 << 30
"""Larger base models are read in evenly chosen stretches: 4 GiB take some seconds."""

MIN_COVERED = 0.75
"""Of the embedding rows, those that the tokenizer has an id for. Known base models have up to 2 % of rows to spare."""

SMALL_ROW = 1e-3
"""Of the median norm of the used rows: a row below it was never trained. Llama 3's untrained rows have less than 1e-15 of it."""

PACKED = (".qweight", ".qzeros", ".scales", ".absmax", ".quant_map", ".weight_scale")
CHUNK_ROWS = 4096


def base_findings(folder: Path, config: Mapping[str, Any], tokens: Tokens, ids: npt.NDArray[np.int32]) -> Iterator[Finding]:
    """Yield the findings on a base model's files; `ids` are those of all rows."""
    tensors, faults = read_folder(folder)
    if not tensors and not faults:
        return
    size = sum(tensor.stop - tensor.start for tensor in tensors)
    files = len({tensor.path for tensor in tensors})
    yield verdict("base_files_are_whole", faults, f"{len(tensors):,} tensors, {size:,} bytes in {files} file{'s' if files > 1 else ''}")
    yield end_of_text_agrees(folder, config, tokens)
    if faults:
        return
    yield base_weights_are_finite(tensors)
    yield base_is_not_quantized(config, tensors)
    yield head_is_as_stated(config, tensors)
    embedding = find(tensors, EMBEDDINGS)
    if embedding is not None and embedding.dtype in LAYOUT:
        yield tokenizer_fits_the_weights(config, tokens, embedding)
        yield used_rows_are_trained(tokens, embedding, ids)


def base_weights_are_finite(tensors: Sequence[Stored]) -> Finding:
    """Look for numbers that are none."""
    numbers = [tensor for tensor in tensors if tensor.dtype in LAYOUT]
    total = sum(tensor.stop - tensor.start for tensor in numbers)
    share = min(1.0, MAX_READ_BYTES / max(1, total))
    bad = {tensor.name: sum(not_finite(block, tensor.dtype) for block in blocks(tensor, share)) for tensor in numbers}
    faults = [f"{name}: {count:,} numbers are infinite or none" for name, count in bad.items() if count]
    read = "every number is" if share == 1 else f"{share:.0%} of the numbers, evenly chosen, are"
    return verdict("base_weights_are_finite", faults, f"{len(numbers):,} tensors: {read} finite")


def base_is_not_quantized(config: Mapping[str, Any], tensors: Sequence[Stored]) -> Finding:
    """Look for weights that were rounded to a few bits already."""
    stated = config.get("quantization_config")
    method = stated.get("quant_method", "unnamed") if isinstance(stated, dict) else None
    faults = [f"config.json states a quantisation ({method})"] if method else []
    odd = [t for t in tensors if t.name.endswith(PACKED) or (t.name.endswith(".weight") and t.dtype not in LAYOUT)]
    faults += [f"{tensor.name} is of type {tensor.dtype}" for tensor in odd]
    types = sorted({tensor.dtype for tensor in tensors if tensor.name.endswith(".weight")})
    return verdict("base_is_not_quantized", faults, f"weights of type {', '.join(types)}")


def head_is_as_stated(config: Mapping[str, Any], tensors: Sequence[Stored]) -> Finding:
    """Hold what ``tie_word_embeddings`` says against the head and the embedding in the files."""
    stated, head, embedding = config.get("tie_word_embeddings"), find(tensors, HEADS), find(tensors, EMBEDDINGS)
    fault = None
    if stated and head is not None and embedding is not None and not same_numbers(head, embedding):
        fault = f"config.json ties the head to the embedding, and {head.name} has other numbers"
    elif stated is False and head is None:
        fault = "config.json has a head of its own, and the files have none"
    stored = "with a head of its own" if head is not None else "without a head of its own"
    return judged("head_is_as_stated", fault is None, fault or f"tie_word_embeddings is {stated}; files {stored}")


def tokenizer_fits_the_weights(config: Mapping[str, Any], tokens: Tokens, embedding: Stored) -> Finding:
    """Hold the tokenizer's ids, those of new tokens apart, against the embedding rows in the files."""
    held = embedding.shape[0]
    needed = 1 + max(id for id in tokens.whole.get_vocab(with_added_tokens=True).values() if id not in tokens.new_ids)
    faults = []
    if needed > held:
        faults.append(f"the tokenizer has ids up to {needed - 1:,}, {embedding.name} has {held:,} rows")
    if needed < MIN_COVERED * held:
        faults.append(f"the tokenizer has {needed:,} ids for the {held:,} rows of {embedding.name}")
    if config.get("vocab_size") not in (None, held):
        faults.append(f"config.json has vocab_size {config['vocab_size']:,}, {embedding.name} has {held:,} rows")
    return verdict("tokenizer_fits_the_weights", faults, f"{needed:,} ids of the base model for {held:,} embedding rows")


def used_rows_are_trained(tokens: Tokens, embedding: Stored, ids: npt.NDArray[np.int32]) -> Finding:
    """Look for tokens of the data whose embedding row in the base model is next to nothing."""
    used = np.unique(ids).astype(np.int64)
    used = used[(used >= 0) & (used < embedding.shape[0]) & ~np.isin(used, tokens.new_ids)]
    norms = np.concatenate([np.zeros(0)] + [_norms(embedding, used[at : at + CHUNK_ROWS]) for at in range(0, len(used), CHUNK_ROWS)])
    typical = float(np.median(norms)) if len(norms) else 0.0
    small = used[~(norms >= SMALL_ROW * typical)] if typical else used
    names = [f"{tokens.whole.id_to_token(int(id))!a} (id {id}) has an embedding row of next to nothing" for id in small]
    return verdict("used_rows_are_trained", names, f"{len(used):,} tokens of the data; median norm of their rows {typical:.3g}")


def _norms(embedding: Stored, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.linalg.norm(rows(embedding, numbers).astype(np.float64), axis=1)


def end_of_text_agrees(folder: Path, config: Mapping[str, Any], tokens: Tokens) -> Finding:
    """Hold the tokenizer's end of text against the ids at which the base model's own files end a text."""
    path = folder / "generation_config.json"
    generation = read_object(path, "a generation configuration", "fetch the model again") if path.is_file() else {}
    stated: list[int] = []
    for source in (config, generation):
        value = source.get("eos_token_id")
        stated += [id for id in (value if isinstance(value, list) else [value]) if isinstance(id, int)]
    end, vocabulary = tokens.control[tokens.end_of_text], int(config.get("vocab_size") or tokens.size)
    faults = [f"eos_token_id {id} is beyond the vocabulary of {vocabulary:,}" for id in sorted({*stated}) if not 0 <= id < vocabulary]
    if stated and end not in stated:
        named = ", ".join(f"{tokens.whole.id_to_token(id)!a} ({id})" for id in dict.fromkeys(stated))
        faults.append(f"the tokenizer ends texts with {tokens.end_of_text!a} ({end}), the model with {named}")
    return verdict("end_of_text_agrees", faults, f"{tokens.end_of_text} (id {end}) ends a text in the tokenizer and in the model")
