"""How the next token is chosen.

In: logits (rows, vocabulary). Out: one id for each row. Each row has its own random generator, so a row's draws do
not depend on the rows beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starchat.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is sampled. `temperature` 0 is greedy; `seed` None draws a new one for each reply."""

    max_new_tokens: int = 256
    temperature: float = 0.2
    top_p: float = 0.95
    top_k: int | None = 50
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        checks = (
            ("max_new_tokens", self.max_new_tokens >= 1, "a whole number from 1"),
            ("temperature", 0 <= self.temperature <= 5, "a number from 0 (greedy) to 5"),
            ("top_p", 0 < self.top_p <= 1, "a number above 0, at most 1 (off)"),
            ("top_k", self.top_k is None or self.top_k >= 1, "a whole number from 1, or null (off)"),
            ("repetition_penalty", 0.1 <= self.repetition_penalty <= 10, "a number from 0.1 to 10; 1 is off"),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "a whole number from 0, or null (a new one for each reply)"),
        )
        faults = [f"{name}: {getattr(self, name)!r}; expected {expected}" for name, ok, expected in checks if not ok]
        if faults:
            raise UserError("\n".join(faults))


def choose(logits: torch.Tensor, seen: torch.Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> list[int]:
    """Return the next id of each row. `logits` and `seen`, which ids the penalty applies to, are (rows, vocabulary).

    Repetition penalty: Keskar et al. 2019 (CTRL), section 4.1, with negative logits multiplied. Nucleus: Holtzman et
    al. 2020, the smallest set of ids whose probability reaches `top_p`.
    """
    import torch

    if sampling.repetition_penalty != 1:
        penalty = sampling.repetition_penalty
        logits = torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
    if sampling.temperature == 0:
        return [int(i) for i in logits.argmax(dim=-1)]
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature  # at most 0: no overflow however cold
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        floor = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < floor, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
        probabilities = probabilities.masked_fill(beyond.gather(1, order.argsort(dim=-1)), 0.0)
    return [int(torch.multinomial(row, 1, generator=g)) for row, g in zip(probabilities, generators, strict=True)]
