"""Loss on answers, stop rate and bits per byte on held-out records, with intervals.

In: a model, its tokens and records of the test split. Out: numbers. The loss covers the content of trained turns and not
their end tokens, so that a base model which has never seen the end token is not charged for it; whether replies end is
the stop rate's part.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from starchat.collate import batch_tensors
from starchat.dialogue import Record
from starchat.document import encode_documents
from starchat.encode import IGNORED, Row, encode_dialogues
from starchat.errors import UserError
from starchat.generate import Assistant
from starchat.placeholders import without
from starchat.sampling import Sampling
from starchat.template import with_tools
from starchat.tokens import Tokens

BOOTSTRAP_SAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclasses.dataclass(frozen=True)
class AnswerLoss:
    """Summed loss in nats and token count of each dialogue, in the order of the records."""

    sums: tuple[float, ...]
    counts: tuple[int, ...]

    def interval(self, seed: int = 0) -> Interval:
        """Return the mean loss in nats per token; the interval by bootstrap over dialogues."""
        return bootstrap_ratio(self.sums, self.counts, seed)


def answer_loss(model: Any, tokens: Tokens, records: Sequence[Record], max_length_tokens: int) -> AnswerLoss:
    """Return the loss of a model on the answers of dialogues; over-long ones are split as in training."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    device = next(model.parameters()).device
    with torch.no_grad():
        for row in encode_dialogues(records, tokens, max_length_tokens):
            if not isinstance(row, Row):
                continue
            labels = torch.from_numpy(row.labels.astype("int64"))
            for span in row.spans:
                if span.trained:
                    labels[span.stop - 1] = IGNORED
            ids = torch.from_numpy(row.ids.astype("int64"))[None].to(device)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            loss = cross_entropy(logits, labels[1:].to(device), reduction="sum", ignore_index=IGNORED)
            sums[row.id] = sums.get(row.id, 0.0) + float(loss)
            counts[row.id] = counts.get(row.id, 0) + int((labels[1:] != IGNORED).sum())
    kept = [i for i in dict.fromkeys(record.id for record in records) if counts.get(i)]
    return AnswerLoss(tuple(sums[i] for i in kept), tuple(counts[i] for i in kept))


def stop_rate(assistant: Assistant, records: Sequence[Record], max_new_tokens: int = 256) -> Interval:
    """Return the share of greedy replies to each dialogue's last question that end by themselves, with Wilson's interval."""
    prompts = [with_tools(r.turns[:-1], r.tools) for r in records if r.turns[-1].role == "assistant"]
    prompts = [p for p in prompts if assistant.count_tokens(p) + max_new_tokens <= assistant.context_tokens]
    replies = assistant.reply_batch(prompts, Sampling(max_new_tokens=max_new_tokens, temperature=0.0))
    return wilson(sum(reply.finish_reason == "stop" for reply in replies), len(replies))


def bootstrap_ratio(sums: Sequence[float], counts: Sequence[int], seed: int = 0) -> Interval:
    """Return sum(sums) / sum(counts) with a percentile bootstrap interval over the items."""
    if not sums:
        raise UserError("score: no answer is left to measure; give records of a test split that fit into max_length_tokens")
    rng, n = random.Random(seed), len(sums)
    ratios = []
    for _ in range(BOOTSTRAP_SAMPLES):
        picks = rng.choices(range(n), k=n)
        ratios.append(sum(sums[i] for i in picks) / sum(counts[i] for i in picks))
    ratios.sort()
    return Interval(sum(sums) / sum(counts), ratios[int(0.025 * BOOTSTRAP_SAMPLES)], ratios[int(0.975 * BOOTSTRAP_SAMPLES) - 1])


def paired_difference(before: AnswerLoss, after: AnswerLoss, seed: int = 0) -> Interval:
    """Return the change of the mean loss, `after` less `before`, on the same dialogues, with a paired bootstrap interval."""
    assert before.counts == after.counts, "not the same dialogues"
    return bootstrap_ratio([b - a for a, b in zip(before.sums, after.sums, strict=True)], before.counts, seed)


def wilson(successes: int, trials: int) -> Interval:
    """Return a proportion with Wilson's 95 % score interval (Wilson 1927).

    >>> str(wilson(8, 10))
    '0.800 [0.490, 0.943]'
    """
    if not trials:
        return Interval(0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.975)
    p, n = successes / trials, trials
    centre, half = p + z * z / (2 * n), z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5
    return Interval(p, (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n))


def bits_per_byte(model: Any, tokens: Tokens, records: Sequence[Record], max_length_tokens: int, batch_rows: int = 8) -> Interval:
    """Return the bits that a model spends on a byte of documents, end-of-text tokens included; interval by bootstrap over documents.

    Windows as in pretraining, without fill-in-the-middle; a window's first control token is not predicted, and placeholders are not
    counted, neither their bits nor their bytes.
    """
    size = {r.id: sum(len(without(p.text, r.placeholders).encode("utf-8")) for p in r.parts) for r in records}
    rows = [r for r in encode_documents(records, tokens, max_length_tokens, None, 0) if isinstance(r, Row)]
    rows.sort(key=lambda r: len(r.ids))
    nats = dict.fromkeys(size, 0.0)
    device = next(model.parameters()).device
    with torch.no_grad():
        for start in range(0, len(rows), batch_rows):
            batch = rows[start : start + batch_rows]
            tensors = batch_tensors([[(r.ids, r.trained)] for r in batch], tokens.pad_id, max(len(r.ids) for r in batch))
            labels = tensors.pop("labels")[:, 1:].to(device)
            logits = model(**{k: v.to(device) for k, v in tensors.items()}, use_cache=False).logits[:, :-1].float()
            losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED).sum(dim=1)
            for row, loss in zip(batch, losses.tolist(), strict=True):
                nats[row.id] += loss
    ids = [r.id for r in records]
    return bootstrap_ratio([nats[i] / math.log(2) for i in ids], [size[i] for i in ids])
