"""Run by `tests/test_plan_engines.py` in two processes: what DeepSpeed really holds after a step, as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from starchat.hub import resolve_model
from starchat.kernel_cache import free_left_locks
from starchat.recipe import load_recipe
from starchat.tokens import load_tokens
from starchat.train import make_model, make_trainer
from starchat.trial import full_rows


def sizes(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def main() -> None:
    recipe = load_recipe(sys.argv[1])
    free_left_locks()
    Path(recipe.output).mkdir(exist_ok=True)
    folder = resolve_model(recipe.model)
    tokens = load_tokens(folder, recipe.dialogue_template)
    trainer = make_trainer(recipe, make_model(recipe, folder, tokens), tokens, full_rows(recipe, tokens, 4), "trial")
    trainer.train()
    zero = trainer.model_wrapped.optimizer
    model = trainer.model_wrapped.module
    third = trainer.model_wrapped.zero_optimization_partition_weights()
    master = zero.fp32_partitioned_groups_flat if third else zero.single_partition_of_fp32_groups
    moments = [t for held in zero.optimizer.state.values() for t in held.values() if torch.is_tensor(t) and t.numel() > 1]
    found = {
        "weights": sizes(p.ds_tensor if third else p for p in model.parameters()),
        "optimizer": sizes(master) + sizes(moments),
        "gradients": sizes([zero.grad_partitions_flat_buffer]) if third else None,
    }
    Path(sys.argv[2], f"{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
