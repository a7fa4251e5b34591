"""Invariances of the model itself, tried on rows of the dataset before a run: packing, padding, attention, cache, gradients.

In: a model as the run makes it, a few encoded rows, what the recipe asks. Out: findings. The weights are changed by the last probe:
give the model away afterwards. What is tried is the model alone, in one process; the engine is tried by `starchat.first_loss`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from starchat.collate import Collator, batch_tensors, run_model
from starchat.encode import IGNORED, Row
from starchat.finding import Finding, judged, verdict
from starchat.flops import EXPERTS
from starchat.pack import one_by_one
from starchat.probe_training import Asked, training_findings
from starchat.rows import Encoded
from starchat.tokens import Tokens

PROBE_ROWS = 4

PROBE_TOKENS = 48
"""Of a row only the last of its trained tokens and what stands before them are tried: the laws hold for short rows as for long ones."""

BATCHED_ROWS = 64

MAX_DIFFERENCE = 1e-3
"""As a share of the largest logit. Random models of 16 isolating architectures differ by 2e-7 of it; of those in which packed rows see
each other, Bloom by 8e-3, Qwen3-Next by 6e-2, OPT, MPT, Falcon and Mamba by 0.2 and more."""

MAX_HALF_DIFFERENCE = 4e-2
"""The same for a model in bfloat16, whose rounding hides smaller differences."""

Sample = tuple[np.ndarray, np.ndarray]
"""Ids and trained flags of a piece of a row, (tokens,) each."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A model with the rows that it is tried on. `allowed` is a share of the largest logit, at the worst position, or at the median one
    if `typical`: for experts in bfloat16. There rounding sends single tokens to other experts, whose logits were seen to be off by 0.24 of
    the largest (a random Qwen3-Coder of two layers), while a model that breaks a law breaks it at most positions.
    """

    model: Any
    tokens: Tokens
    samples: tuple[Sample, ...]
    allowed: float
    typical: bool = False

    def logits(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the logits of a batch, (batch, tokens, vocabulary), in float32, without gradients."""
        with torch.no_grad():
            return run_model(self.model, tensors).float()


def probe_findings(model: Any, tokens: Tokens, rows: Sequence[Row], asked: Asked, packing: bool) -> Iterator[Finding]:
    """Yield the findings on a model; the last of them train it for two steps."""
    mixed = asked.bf16 and next(model.parameters()).is_cuda  # what flash attention needs
    half = mixed or any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())
    samples = choose_samples(rows)
    routed = half and any(getattr(model.config.get_text_config(), key, None) for key in EXPERTS)
    trial = Trial(model, tokens, samples, MAX_HALF_DIFFERENCE if half else MAX_DIFFERENCE, typical=routed)
    yield labels_survive_batching(rows, tokens.pad_id)
    with _at_rest(model), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        if packing:
            yield packed_is_alone(trial)
        yield padded_is_alone(trial)
        yield attention_is_as_eager(trial)
        yield cache_gives_the_same_logits(trial)
        if tokens.new:
            yield new_rows_begin_at_the_mean(model, tokens)
        if hasattr(model, "disable_adapter"):
            yield adapter_begins_as_identity(trial)
        yield from training_findings(model, tokens, _batch(samples, tokens.pad_id), asked, half)


def choose_samples(rows: Sequence[Row]) -> tuple[Sample, ...]:
    """Return pieces of a few rows with trained tokens, from the row that has fewest to the one that has most."""
    able = sorted((row for row in rows if row.trained[1:].any()), key=lambda row: int(row.trained.sum()))
    chosen = [able[n] for n in np.linspace(0, len(able) - 1, PROBE_ROWS).astype(int)] if able else []
    samples = []
    for row in chosen:
        stop = int(np.flatnonzero(row.trained)[-1]) + 1
        start = max(0, min(stop - 2, stop - PROBE_TOKENS))
        samples.append((row.ids[start:stop], row.trained[start:stop]))
    return tuple(samples)


@contextlib.contextmanager
def _at_rest(model: Any) -> Iterator[None]:
    """Put a model into evaluation, without dropout, and back."""
    training = model.training
    model.eval()
    yield
    model.train(training)


def _batch(samples: Sequence[Sample], pad_id: int) -> dict[str, torch.Tensor]:
    """Return one row a line, padded to the longest."""
    return batch_tensors([[sample] for sample in samples], pad_id, max(len(ids) for ids, _ in samples))


def _alone(trial: Trial) -> list[torch.Tensor]:
    return [trial.logits(_batch([sample], trial.tokens.pad_id))[0] for sample in trial.samples]


def _difference(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor], typical: bool) -> float:
    """Return the largest difference of logits, or the largest at the median position, as a share of the largest logit.

    It is infinite where one is no number.
    """
    shares = []
    for a, b in zip(one, other, strict=True):
        off = (a - b).abs().amax(dim=-1).flatten()
        shares.append((off.median() if typical else off.max()) / b.abs().max().clamp(min=torch.finfo(torch.float32).tiny))
    return float(torch.stack(shares).max().nan_to_num(nan=torch.inf))


def _compare(check: str, what: str, trial: Trial, one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> Finding:
    difference = _difference(one, other, trial.typical)
    where = ", at the median position" if trial.typical else ""
    detail = f"{what}: logits differ by {difference:.1e} of the largest{where}, at most {trial.allowed:.0e}"
    return judged(check, difference <= trial.allowed, detail)


def packed_is_alone(trial: Trial) -> Finding:
    """Compare the logits of rows in one packed group with those that each has alone."""
    sizes = [len(ids) for ids, _ in trial.samples]
    together = trial.logits(batch_tensors([list(trial.samples)], trial.tokens.pad_id, sum(sizes)))[0]
    return _compare("packed_is_alone", f"{len(sizes)} rows in one group", trial, together.split(sizes), _alone(trial))


def padded_is_alone(trial: Trial) -> Finding:
    """Compare the logits of rows in a padded batch with those that each has alone."""
    lines = trial.logits(_batch(trial.samples, trial.tokens.pad_id))
    padded = [line[: len(ids)] for line, (ids, _) in zip(lines, trial.samples, strict=True)]
    return _compare("padded_is_alone", f"{len(padded)} rows in a padded batch", trial, padded, _alone(trial))


def attention_is_as_eager(trial: Trial) -> Finding:
    """Compare the attention that the model runs with the plain one: packed, and padded in front as in generation."""
    base = trial.model.get_base_model() if hasattr(trial.model, "get_base_model") else trial.model
    used = base.config._attn_implementation
    if used in (None, "eager"):
        return judged("attention_is_as_eager", True, f"attention is {used or 'of its own kind'}; there is nothing to compare")
    found = _both_ways(trial)
    base.set_attn_implementation("eager")
    plain = _both_ways(trial)
    base.set_attn_implementation(used)
    return _compare("attention_is_as_eager", f"{used} and eager", trial, found, plain)


def _both_ways(trial: Trial) -> list[torch.Tensor]:
    longest = max(len(ids) for ids, _ in trial.samples)
    packed = trial.logits(batch_tensors([list(trial.samples)], trial.tokens.pad_id, sum(len(ids) for ids, _ in trial.samples)))[0]
    device = next(trial.model.parameters()).device
    ids = torch.full((len(trial.samples), longest), trial.tokens.pad_id)
    mask = torch.zeros_like(ids)
    for line, (row, _) in enumerate(trial.samples):
        ids[line, longest - len(row) :] = torch.from_numpy(row.astype(np.int64))
        mask[line, longest - len(row) :] = 1
    with torch.no_grad():
        logits = trial.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits.float()
    return [packed, *(line[longest - len(row) :] for line, (row, _) in zip(logits, trial.samples, strict=True))]


def cache_gives_the_same_logits(trial: Trial) -> Finding:
    """Compare the logits of a row read at once with those of its parts, the second read with the cache of the first, as in generation."""
    ids, _ = max(trial.samples, key=lambda sample: len(sample[0]))
    device = next(trial.model.parameters()).device
    row = torch.from_numpy(ids.astype(np.int64))[None].to(device)
    cut = max(1, row.shape[1] // 2)
    with torch.no_grad():
        whole = trial.model(input_ids=row, use_cache=False).logits.float()
        first = trial.model(input_ids=row[:, :cut], use_cache=True)
        cache = getattr(first, "past_key_values", None)
        if cache is None:
            return judged("cache_gives_the_same_logits", True, "the model has no cache of keys and values; nothing to compare")
        second = trial.model(input_ids=row[:, cut:], past_key_values=cache, use_cache=True)
    parts = (first.logits.float(), second.logits.float())
    wholes = (whole[:, :cut], whole[:, cut:])
    return _compare("cache_gives_the_same_logits", f"{row.shape[1]} tokens, with and without a cache", trial, parts, wholes)


def labels_survive_batching(rows: Sequence[Row], pad_id: int, collator: Callable[[Encoded, int], Any] = Collator) -> Finding:
    """Make padded batches of rows, those that hold the padding token first, and look whether each trained token is a label."""
    holding = [n for n, row in enumerate(rows) if (row.ids == pad_id).any()]
    chosen = [rows[n] for n in dict.fromkeys([*holding, *range(len(rows))])][:BATCHED_ROWS]
    offsets = np.cumsum([0, *(len(row.ids) for row in chosen)], dtype=np.int64)
    ids, trained = np.concatenate([row.ids for row in chosen]), np.concatenate([row.trained for row in chosen])
    encoded = Encoded(ids, trained, offsets, one_by_one(len(chosen)), tuple(row.id for row in chosen))
    labels = collator(encoded, pad_id)([{"group": n} for n in range(len(chosen))])["labels"].numpy()
    faults = []
    for row, line in zip(chosen, labels, strict=True):
        wanted = np.where(row.trained, row.ids, IGNORED)
        wanted[0] = IGNORED  # nothing in the row predicts it
        if not np.array_equal(line[: len(wanted)], wanted) or (line[len(wanted) :] != IGNORED).any():
            faults.append(f"row {row.id}: {int((line != IGNORED).sum())} labels for {int((wanted != IGNORED).sum())} trained tokens")
    held = f"; {len(holding):,} rows hold the padding token" if holding else ""
    return verdict("labels_survive_batching", faults, f"{len(chosen)} rows, batched and padded, keep their labels{held}")


def new_rows_begin_at_the_mean(model: Any, tokens: Tokens) -> Finding:
    """Hold the embedding rows of new tokens, in the input and in the head, against the mean of the rows before them."""
    faults = []
    for what, layer in (("embedding", model.get_input_embeddings()), ("head", model.get_output_embeddings())):
        weight = layer.weight.detach().float()
        mean = weight[: min(tokens.new_ids)].mean(dim=0)
        off = (weight[list(tokens.new_ids)] - mean).norm(dim=1) / mean.norm().clamp(min=torch.finfo(torch.float32).tiny)
        faults += [f"{name} in the {what}" for name, far in zip(tokens.new, off.tolist(), strict=True) if not far <= MAX_HALF_DIFFERENCE]
    return verdict("new_rows_begin_at_the_mean", faults, f"{', '.join(tokens.new)} begin at the mean of the base model's rows")


def adapter_begins_as_identity(trial: Trial) -> Finding:
    """Compare the logits with the adapter and without it."""
    batch = _batch(trial.samples, trial.tokens.pad_id)
    with_adapter = trial.logits(batch)
    with trial.model.disable_adapter():
        without = trial.logits(batch)
    return _compare("adapter_begins_as_identity", "with and without the adapter", trial, [with_adapter], [without])
