"""A model folder's ``tokenizer.json`` as it is read before anything is made of it: checked, and without what would change texts in silence.

In: a folder. Out: the file's JSON value, or only the names of its control tokens, for those who write documents. The tokenizers library is
not needed here, and takes a while to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starchat.errors import UserError
from starchat.files import read_object


def control_names(folder: str | Path) -> frozenset[str]:
    """Return the names of the control tokens of a model folder's tokenizer, without loading it."""
    return frozenset(token["content"] for token in read_spec(Path(folder))["added_tokens"] if is_control(token))


def is_control(token: Mapping[str, Any]) -> bool:
    """Whether an added token is a marker. Others are runs of white space, words or single characters, which texts may hold."""
    content = str(token["content"])
    return bool(token["special"]) or not (content.isspace() or content.isalnum() or len(content) == 1)


def read_spec(folder: Path) -> dict[str, Any]:
    """Return what ``tokenizer.json`` says; raise `UserError` for what no training could begin with."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder}: has no tokenizer.json; a base model needs its tokenizer beside its weights, as a fast tokenizer")
    spec = read_object(path, "a tokenizer", "fetch the model again")
    if not {"model", "added_tokens", "pre_tokenizer", "normalizer"} <= set(spec):
        raise UserError(f"{path}: not a tokenizer of the tokenizers library; fetch the model again")
    fault = _fault_of_bpe(spec["model"])
    if fault:
        raise UserError(f"{path}: {fault}; fetch the model again, or take one with a BPE tokenizer")
    # A tokenizer saved with truncation would cut every text in silence.
    return _without_dummy_prefix({**spec, "truncation": None, "padding": None})


def _fault_of_bpe(model: Any) -> str | None:
    """Return what keeps the tokenizers library, which says only `Exception`, from loading a tokenizer's model as BPE; None if nothing."""
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return f"its model is of type {model.get('type') if isinstance(model, dict) else type(model).__name__}; expected BPE"
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not vocab or not all(type(i) is int and i >= 0 for i in vocab.values()):
        return "its vocabulary is not a mapping of tokens to ids"
    if not isinstance(merges, list):
        return "it has no list of merges"
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    prefix = model.get("continuing_subword_prefix") or ""
    for number, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(piece, str) for piece in pair):
            return f"merge {number} is not a pair of tokens"
        if not {pair[0], pair[1], pair[0] + pair[1].removeprefix(prefix)} <= vocab.keys():
            return f"merge {number} makes or needs a token that the vocabulary lacks"
    return None


def _without_dummy_prefix(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer spec that puts no space before a text, nor takes one away when it decodes.

    Tokenizers of SentencePiece's kind put a space before a text, some before each stretch between control tokens, others before the
    first one only. Either way the ids of a turn would depend on where it stands, and an answer would not decode to itself.
    """
    parts = {
        key: _each(spec.get(key), change)
        for key, change in (("normalizer", _no_prepend), ("pre_tokenizer", _no_space), ("decoder", _no_strip))
    }
    return {**spec, **parts}


def _each(part: dict[str, Any] | None, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return a part of a tokenizer spec with `change` made to it, or to each member of a sequence; None where nothing is left."""
    if part is None or part["type"] != "Sequence":
        return None if part is None else change(part)
    key = next(key for key in ("normalizers", "pretokenizers", "decoders") if key in part)
    members = [changed for changed in (_each(member, change) for member in part[key]) if changed is not None]
    return {**part, key: members} if members else None


def _no_prepend(normalizer: dict[str, Any]) -> dict[str, Any] | None:
    return None if normalizer["type"] == "Prepend" else normalizer


def _no_space(pre_tokenizer: dict[str, Any]) -> dict[str, Any]:
    if pre_tokenizer["type"] == "Metaspace":
        kept = {key: value for key, value in pre_tokenizer.items() if key != "add_prefix_space"}
        return {**kept, "prepend_scheme": "never"}
    return {**pre_tokenizer, "add_prefix_space": False} if pre_tokenizer["type"] == "ByteLevel" else pre_tokenizer


def _no_strip(decoder: dict[str, Any]) -> dict[str, Any] | None:
    if decoder["type"] == "Strip" and decoder["content"] == " " and decoder["start"]:
        return None
    return _no_space(decoder)
