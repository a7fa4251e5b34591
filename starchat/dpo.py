"""Preference tuning (DPO, Rafailov and others 2023): TRL's trainer over our rows, against the model that the run began with.

In: a recipe of ``kind: dpo``, whose ``model`` is a chat model, a finished run of all weights, or one that saved an adapter. Out: the model
to train, and the trainer that trains it.

The reference is the model before the first step. With all weights it is loaded a second time; with LoRA it is a frozen copy of the
adapter as it began, new or that of an SFT, on the same base. So the first rewards are zero and the first sigmoid loss is log 2:
`PairTrainer` stops a run where they are not.

Two things of TRL 1.16 are mended, each seen in those first numbers: its copy of an adapter leaves out trained token rows, and its
``disable_dropout`` reaches modules only, while StarCoder's attention and all of StarCoder2's dropout are plain numbers.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from starchat.collate import batch_tensors
from starchat.encode import IGNORED
from starchat.errors import UserError
from starchat.export import saved_tokens
from starchat.hub import base_folder, run_with_adapter
from starchat.model import REFERENCE, add_lora, fit_vocabulary, load_adapter, load_base
from starchat.recipe import Recipe, load_recipe
from starchat.rows import Encoded
from starchat.tokens import Tokens

MAX_FIRST_SHIFT = 1e-5
"""How far a first log-probability may lie from the reference's, as a share of it. Two passes of the same weights were seen to differ by
0 in float32 and in bfloat16, with activation checkpointing too (tests/test_dpo.py)."""

MAX_FIRST_SHIFT_HALF = 2e-3
"""The same where a GPU's kernels may round otherwise in bfloat16, with 8 bits of mantissa. Token rows that were left out were seen to
shift it by 2e-3 to 8e-3, dropout of 0.1 by 3e-2 and more."""


@dataclasses.dataclass(frozen=True)
class PairCollator:
    """Makes a batch from group numbers: the chosen rows, then the rejected, padded at the end.

    A number beyond the last group is an empty pair, padding alone: it has no trained token and adds a loss of log 2 without a gradient.
    `length_tokens` fixes the padded length; None pads to the longest row.
    """

    encoded: Encoded
    pad_id: int
    length_tokens: int | None = None

    def __call__(self, examples: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
        """Return ``input_ids``, ``attention_mask`` and ``completion_mask``, each (2 x pairs, tokens) int64."""
        numbers = [example["group"] for example in examples]
        pairs = [self.encoded.groups[n] if n < len(self.encoded.groups) else () for n in numbers]
        rows = [[self.encoded.row(pair[side])] if len(pair) else [] for side in (0, 1) for pair in pairs]
        lengths = np.array([len(row[0][0]) if row else 1 for row in rows])
        tensors = batch_tensors(rows, self.pad_id, self.length_tokens or max(2, int(lengths.max())))
        attended = np.arange(tensors["input_ids"].shape[1]) < lengths[:, None]
        return {
            "input_ids": tensors["input_ids"],
            "attention_mask": torch.from_numpy(attended.astype(np.int64)),
            "completion_mask": (tensors["labels"] != IGNORED).long(),
        }


class PairTrainer(DPOTrainer):
    """`DPOTrainer` over rows that are encoded already, stopped where the reference is not the model that training begins with."""

    def __init__(self, model: Any, **parts: Any) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*ensure_weight_tying.*")  # PEFT, of the copy that TRL makes of an adapter
            super().__init__(model=model, **parts)
        copy_adapter(model)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """Return the dataset as it is; TRL's own would tokenize it."""
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return TRL's loss; in the first step, after a look at it."""
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.state.global_step == 0 and self.model.training:
            require_same_beginning({name: values[-1] for name, values in self._metrics["train"].items()}, float(loss.detach()), self.args)
        return loss


def require_same_beginning(metrics: dict[str, float], loss: float, arguments: DPOConfig) -> None:
    """Raise `UserError` unless the rewards before the first update are zero and, with the plain sigmoid loss, the loss is log 2."""
    share = MAX_FIRST_SHIFT_HALF if arguments.bf16 or arguments.fp16 else MAX_FIRST_SHIFT
    allowed = {side: share * max(1.0, abs(metrics[f"logps/{side}"])) for side in ("chosen", "rejected")}
    shifts = {side: metrics[f"rewards/{side}"] / arguments.beta for side in allowed} if arguments.beta else {}
    off = {side: shift for side, shift in shifts.items() if not abs(shift) <= allowed[side]}
    plain = arguments.loss_type == ["sigmoid"] and not (arguments.loss_weights or arguments.use_weighting or "aux_loss" in metrics)
    if off or (plain and not abs(loss - math.log(2)) <= 1e-6 + arguments.beta * sum(allowed.values())):
        how = ", ".join(f"{side} answers by {shift:.3g} nats" for side, shift in off.items()) or f"the first loss is {loss:.6g}, not log 2"
        raise UserError(
            f"the reference is not the model that training begins with ({how}); nothing was trained; this is a fault of the program or of "
            "the model's own code, not of the data: report it with this line"
        )


def begin_model(recipe: Recipe, tokens: Tokens, dtype: torch.dtype) -> Any:
    """Return the model to train: a chat model with all its weights or a new adapter on them, or an SFT's adapter to go on with."""
    base = load_base(base_folder(recipe.model), dtype, quantization=recipe.quantization)
    run = run_with_adapter(recipe.model)
    if run is not None:
        fit_vocabulary(base, saved_tokens(run, load_recipe(run / "recipe.yaml")))
        model: Any = load_adapter(base, run / "adapter", to_train=True)
    else:
        fit_vocabulary(base, tokens)
        torch.manual_seed(int(recipe.trainer.get("seed", 42)))
        model = add_lora(base, recipe.lora, tokens) if recipe.lora else base
    without_dropout(model)
    return model


def reference_of(recipe: Recipe, tokens: Tokens) -> Any:
    """Return the model to compare with where all weights are trained; None with LoRA, whose trainer keeps a copy of the adapter."""
    if recipe.lora is not None:
        return None
    reference = load_base(base_folder(recipe.model), torch.float32)
    fit_vocabulary(reference, tokens)
    reference.config.use_cache = False
    without_dropout(reference)
    return reference


def copy_adapter(model: Any) -> None:
    """Make the frozen adapter equal to the one that is trained, token rows included, which TRL's copy leaves out."""
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        path = name.split(".")
        if "default" in path:
            parameters[".".join(REFERENCE if part == "default" else part for part in path)].data.copy_(parameter.data)


def without_dropout(model: torch.nn.Module) -> None:
    """Turn dropout off, in modules and where a layer keeps its rate as a number; the model's configuration stays as it was."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
                setattr(module, name, 0.0)
