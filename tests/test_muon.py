"""Muon with AdamW as one optimizer: who moves what, at which rate, and that its state comes back."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from starchat.muon import MATRIX_RATE, muon, split_parameters


@dataclasses.dataclass
class Arguments:
    learning_rate: float = 1e-3
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    weight_decay: float = 0.1


class Tiny(torch.nn.Module):
    """An embedding, tied to the head or not, one matrix, a norm."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 8)
        self.layer = torch.nn.Linear(8, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.head

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.layer(self.embedding(ids))))


def step(model: Tiny, optimizer: torch.optim.Optimizer) -> None:
    ids = torch.arange(10)
    torch.nn.functional.cross_entropy(model(ids), ids + 1).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_are_the_layers_weights_and_neither_embedding_nor_head(tied: bool) -> None:
    model = Tiny(tied)
    matrices, others = split_parameters(model)
    assert [id(p) for p in matrices] == [id(model.layer.weight)]
    assert {id(p) for p in others} == {id(p) for p in model.parameters()} - {id(model.layer.weight)}


def test_every_parameter_moves_and_the_schedule_holds_for_both() -> None:
    torch.manual_seed(0)
    model = Tiny()
    optimizer = muon(model, Arguments())
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3 * MATRIX_RATE, 1e-3]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)
    before = copy.deepcopy(model.state_dict())
    step(model, optimizer)
    schedule.step()
    assert [group["lr"] for group in optimizer.parts[0].param_groups + optimizer.parts[1].param_groups] == [5e-4 * MATRIX_RATE, 5e-4]
    assert all(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_state_comes_back() -> None:
    torch.manual_seed(0)
    model = Tiny()
    optimizer = muon(model, Arguments())
    step(model, optimizer)
    twin = copy.deepcopy(model)
    restored = muon(twin, Arguments())
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(twin, restored)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    forgetful = muon(copy.deepcopy(twin), Arguments())
    assert forgetful.state_dict() != restored.state_dict()
