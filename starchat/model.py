"""Base model, new token rows, LoRA.

In: a recipe and its tokens. Out: a model ready to train, and in a fresh process the same model from what was saved.
Never runs code that comes with a model.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from starchat.errors import UserError
from starchat.hub import base_folder, require_loadable
from starchat.recipe import Lora, Recipe
from starchat.tokens import Tokens


def load_base(folder: Path, dtype: torch.dtype, attn_implementation: str | None = None, quantization: str | None = None) -> PreTrainedModel:
    """Return the base model with weights in `dtype`; every weight must be in the files, and every one of the files in the model.

    With `quantization` ``nf4`` the linear layers but the head are held in 4 bits, and compute in `dtype`.
    """
    assert not is_deepspeed_zero3_enabled(), "make models before a ZeRO-3 configuration exists: transformers then leaves tied weights unset"
    require_loadable(folder)
    kwargs: dict[str, Any] = {"attn_implementation": attn_implementation} if attn_implementation else {}
    if quantization:
        kwargs["quantization_config"] = _in_four_bits(dtype)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, local_files_only=True, trust_remote_code=False, **kwargs
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        what = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: cannot be loaded ({what}); fetch the model again") from None
    model, info = loaded
    for what, keys in (
        ("weights missing for", [*info["missing_keys"], *info["mismatched_keys"]]),
        ("no place for", info["unexpected_keys"]),
    ):
        if keys:
            raise UserError(f"{folder}: {what} {', '.join(map(str, sorted(keys)[:5]))}; the files do not fit config.json")
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # Else bitsandbytes 0.50 packs the weights anew for evaluation on a CPU, rounds their scales, and cannot train them afterwards.
            layer.support_avx512bf16_for_cpu = False
    return model


def _in_four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return how QLoRA holds a base model (Dettmers and others 2023): NormalFloat, the scales quantised once more."""
    if find_spec("bitsandbytes") is None:
        raise UserError("quantization: nf4 needs the package bitsandbytes; install it with: pip install 'starchat[quantize]'")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)


def new_model(recipe: Recipe, tokens: Tokens) -> PreTrainedModel:
    """Return a randomly initialised model of the recipe's architecture, sized to the tokenizer."""
    assert recipe.architecture is not None, "checked when the recipe was loaded"
    keys = dict(recipe.architecture)
    try:
        config = AutoConfig.for_model(keys.pop("model_type"), **keys)
    except ValueError as error:
        raise UserError(f"architecture: {' '.join(str(error).split())[:200]}") from None
    config.vocab_size = tokens.size
    set_token_ids(config, tokens)
    torch.manual_seed(int(recipe.trainer.get("seed", 42)))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def set_token_ids(config: Any, tokens: Tokens) -> None:
    """Make a model's configuration agree with its tokenizer on end, padding and beginning."""
    config.eos_token_id = tokens.control[tokens.end]
    config.pad_token_id = tokens.pad_id
    config.bos_token_id = tokens.control[tokens.bos or tokens.end_of_text]


def fit_vocabulary(model: Any, tokens: Tokens) -> None:
    """Grow the model to the tokenizer, never shrink it; new rows start at the mean of the old ones (tied heads follow)."""
    rows = model.get_input_embeddings().weight.shape[0]
    if tokens.size > rows:
        model.resize_token_embeddings(tokens.size, mean_resizing=False)
    fresh = sorted({*tokens.new_ids, *range(rows, tokens.size)})
    if fresh:
        _start_at_mean(model, fresh)
    set_token_ids(model.config, tokens)
    model.generation_config = GenerationConfig(
        eos_token_id=list(tokens.stop_ids), pad_token_id=tokens.pad_id, bos_token_id=model.config.bos_token_id
    )


def _start_at_mean(model: Any, ids: Sequence[int]) -> None:
    """Set embedding rows to the mean of the rows below the first of them. Rows that a base model has spare were never trained."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = {id(layer.weight): layer.weight for layer in layers if layer is not None}
    with torch.no_grad():
        for weight in weights.values():
            weight[list(ids)] = weight[: min(ids)].float().mean(dim=0).to(weight.dtype)


def is_tied(model: PreTrainedModel) -> bool:
    """Whether input and output embeddings are one matrix."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def add_lora(model: PreTrainedModel, lora: Lora, tokens: Tokens) -> PeftModel:
    """Return the model with LoRA on its linear layers and, for each new token, its own trained embedding row.

    New rows are trained as rows (PEFT's ``trainable_token_indices``), in the input and in the output embedding, tied if
    these are: the adapter holds its matrices and those rows, never a copy of an embedding.
    """
    linear = linear_names(model)
    names = lora.target_modules or tuple(linear)
    head = model.get_output_embeddings()
    faults = [f"{name} {fault}" for name in names if (fault := _target_fault(model, name, head))]
    if faults or not names:
        what = "; ".join(faults) or "a model without linear layers"
        raise UserError(f"lora.target_modules: {what}; the model's linear layers are {', '.join(linear) or 'none'}")
    rows = _embedding_names(model) if tokens.new else ()
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        target_modules=list(names),
        trainable_token_indices={name: list(tokens.new_ids) for name in rows} or None,
        ensure_weight_tying=is_tied(model) and bool(rows),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for checkpointing by its old name
        wrapped = get_peft_model(model, config)
    mend_head(wrapped)
    return wrapped


def _target_fault(model: PreTrainedModel, name: str, head: Any) -> str | None:
    """Return what is wrong with a name of layers to adapt: PEFT passes over one of them, and dies of another kind of layer."""
    found = [layer for full, layer in model.named_modules() if full.split(".")[-1] == name or full == name]
    if not found:
        return "matches no layer"
    if any(layer is head or isinstance(layer, torch.nn.Embedding) for layer in found):
        return "holds token rows, of which LoRA trains the new ones whole"
    return None if all(isinstance(layer, torch.nn.Linear) for layer in found) else "is not a linear layer"


def mend_head(model: PeftModel) -> None:
    """Give a wrapped tied head the ``bias`` that TRL's fused loss reads; its ``weight`` already returns the trained rows."""
    head = model.get_output_embeddings()
    if type(head).__name__ == "TrainableTokensWrapper":
        head.bias = None


def linear_names(model: PreTrainedModel) -> list[str]:
    """Return the last name parts of the linear layers, the head apart, in model order.

    GPTBigCode: c_attn, c_proj, c_fc. StarCoder2: q_proj, k_proj, v_proj, o_proj, c_fc, c_proj.
    """
    head = model.get_output_embeddings()
    names = [full.split(".")[-1] for full, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return list(dict.fromkeys(names))


def _embedding_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the names of the layers that hold token rows: the input embedding, and the head unless it is tied."""
    layers = [model.get_input_embeddings()] if is_tied(model) else [model.get_input_embeddings(), model.get_output_embeddings()]
    return tuple(next(full.split(".")[-1] for full, m in model.named_modules() if m is layer) for layer in layers)


def load_saved(run: Path, recipe: Recipe, tokens: Tokens, dtype: torch.dtype, attn_implementation: str | None = None) -> torch.nn.Module:
    """Return the model of a finished run as a fresh process sees it: ``run/model``, or base and ``run/adapter``."""
    if (run / "model").is_dir():
        return load_base(run / "model", dtype, attn_implementation).eval()
    base = load_base(base_folder(recipe.model), dtype, attn_implementation, recipe.quantization)
    fit_vocabulary(base, tokens)
    return load_adapter(base, run / "adapter").eval()


def load_adapter(base: PreTrainedModel, folder: Path, to_train: bool = False) -> PeftModel:
    """Return `base`, already grown to the tokenizer, with a saved adapter; every adapter weight must find its place."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    misfit = f"{folder}: the adapter does not fit its base {config.get('base_model_name_or_path')!r}"
    remedy = "restore the adapter's files, or train again"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = PeftModel.from_pretrained(base, folder, is_trainable=to_train)
        except KeyError as error:
            raise UserError(f"{misfit}: it lacks {error.args[0]}; {remedy}") from None
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise UserError(f"{misfit}: {' '.join(str(error).split())[:300]}; {remedy}") from None
    lost = [str(w.message) for w in caught if "missing adapter keys" in str(w.message) or "unexpected" in str(w.message).lower()]
    if lost:
        raise UserError(f"{misfit}: {lost[0][:300]}; {remedy}")
    mend_head(model)
    return model


REFERENCE = "ref"
"""TRL's name for the frozen copy of an adapter that DPO compares with: no part of the model."""


@dataclasses.dataclass(frozen=True)
class Size:
    """Parameter counts."""

    total: int
    trained: int


def count_parameters(model: torch.nn.Module) -> Size:
    """Return how many parameters there are and how many are trained (under ZeRO-3: counted across all processes)."""
    parameters = [p for name, p in model.named_parameters() if REFERENCE not in name.split(".")]
    sizes = [_numel(p) for p in parameters]
    return Size(sum(sizes), sum(n for n, p in zip(sizes, parameters, strict=True) if p.requires_grad))


def _numel(parameter: Any) -> int:
    """Return the number of weights that a parameter stands for: of a part that ZeRO-3 holds, the whole; of 4 bits, those before packing."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel() if state is not None else getattr(parameter, "ds_numel", parameter.numel()))


def train_in_float32(model: torch.nn.Module) -> None:
    """Hold what is trained in float32. TRL leaves QLoRA's adapter in bfloat16, where a step of 1e-4 of a weight rounds to none."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
