"""FSDP2, torch's fully sharded data parallel, through accelerate.

In: a trainer. Out: on a machine without GPU, where accelerate 1.15 would run plain data parallel and say nothing, a trainer that shards;
and of a sharded model, whole weights. The policy by which layers become units is the launch's.
"""

from __future__ import annotations

from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

from starchat.errors import UserError


def shard_without_gpu(trainer: Any) -> None:
    """Make a trainer's accelerator shard over gloo. The same code of accelerate and torch runs then as on GPUs."""
    state = trainer.accelerator.state
    state.fsdp_plugin = FullyShardedDataParallelPlugin()
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP  # each new state copies the partial one
    if state.mixed_precision != "no":
        state.fsdp_plugin.set_mixed_precision(state.mixed_precision)
    trainer.is_fsdp_enabled = True


def require_shardable(model: Any) -> None:
    """Raise `UserError` for what accelerate 1.15 cannot put into units: rows trained beside a matrix that two layers share."""
    head = model.get_output_embeddings()
    if type(head).__name__ == "TrainableTokensWrapper" and getattr(model.config, "tie_word_embeddings", False):
        raise UserError(
            "engine: FSDP2 cannot shard the trained rows of new tokens where input and output embeddings are one matrix; "
            "launch with zero3.yaml, or train all weights"
        )


def whole_weights(model: Any) -> dict[str, Any]:
    """Return the gathered state of a sharded model, on the CPU; what is tied stays one tensor. Every process must call it."""
    parameters = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    gathered: dict[Any, Any] = {}
    names = {}
    for name, value in model.state_dict().items():
        key = parameters.get(name, name)
        if key not in gathered:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            gathered[key] = whole.detach().cpu()
        names[name] = gathered[key]
    return names
