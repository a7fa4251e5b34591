"""The numbers of an encoded dataset: what a reader of the report wants to know beyond right and wrong.

In: the evidence. Out: plain mappings, ready for JSON. Imports no torch.
"""

from __future__ import annotations

import collections
from collections.abc import Sized
from typing import Any

import numpy as np

from starchat.dialogue import ROLES
from starchat.errors import UserError
from starchat.evidence import Evidence, Turns
from starchat.pack import fill
from starchat.recipe import MICRO_BATCH, Recipe

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)

HISTOGRAM_BINS = 40

SHOWN_PLACES = 20

MOST_SOURCES = 20


def measure(recipe: Recipe, evidence: Evidence, chats: Evidence | None, turns: Turns | None, groups: Sized, unused: int) -> dict[str, Any]:
    """Return counts, lengths, packing, steps and what was set aside; `groups` are those of the training rows, `turns` those of `chats`."""
    sizes = evidence.lengths
    capacity = recipe.max_length_tokens
    batch, accumulation = _whole(recipe, "per_device_train_batch_size", MICRO_BATCH), _whole(recipe, "gradient_accumulation_steps", 1)
    together = recipe.train_batch_size or batch * accumulation
    trained = int(evidence.trained.sum())
    counts, edges = np.histogram(sizes, bins=min(HISTOGRAM_BINS, max(1, int(sizes.max()))), range=(0, capacity))
    stats: dict[str, Any] = {
        "records": len(evidence.records) // 2 if recipe.of_pairs else len(evidence.records),
        "records_of_another_kind": unused,
        "rows": {"train": evidence.train_rows, "test": len(evidence.rows) - evidence.train_rows},
        "tokens": len(evidence.ids),
        "trained_tokens": trained,
        "trained_share": trained / len(evidence.ids),
        "max_length_tokens": capacity,
        "length_quantiles": {f"{q:.2f}": int(value) for q, value in zip(QUANTILES, np.quantile(sizes, QUANTILES), strict=True)},
        "length_histogram": {"rows": counts.tolist(), "edges": [round(float(edge), 1) for edge in edges]},
        "packed_groups": len(groups),
        "fill": fill(sizes[: evidence.train_rows].tolist(), groups, 2 * capacity if recipe.of_pairs else capacity),
        "sequences_per_step_with_one_process": together,
        "steps_per_epoch_with_one_process": -(-len(groups) // together),
        "set_aside": _set_aside(evidence),
    }
    return stats | (_of_turns(chats, turns) if chats and turns else {"tokens_by_source": _by_source(evidence)})


def _whole(recipe: Recipe, key: str, default: int) -> int:
    value = recipe.trainer.get(key, default)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"trainer.{key}: {value!r}; expected a whole number from 1")
    return value


def _set_aside(evidence: Evidence) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in evidence.set_aside:
        reason = found.setdefault(item.reason, {"count": 0, "tokens": 0, "trained_tokens": 0, "places": []})
        reason["count"] += 1
        reason["tokens"] += item.tokens
        reason["trained_tokens"] += item.trained_tokens
        if len(reason["places"]) < SHOWN_PLACES:
            reason["places"].append(item.place)
    return found


def _of_turns(evidence: Evidence, turns: Turns) -> dict[str, Any]:
    """Return tokens and trained tokens for each role, by part of the turn, and what splitting cost."""
    totals = np.concatenate([[0], np.cumsum(evidence.trained)])
    size = turns.stops - turns.starts
    content = np.maximum(size - turns.header_tokens - 1 - turns.tail_tokens, 0)
    trained = totals[turns.stops] - totals[turns.starts]
    roles = {}
    for code, role in enumerate(ROLES):
        mine = turns.roles == code
        roles[role] = {
            "turns": int(np.count_nonzero(mine)),
            "trained_turns": int(np.count_nonzero(turns.expected & mine)),
            "header": int(turns.header_tokens[mine].sum()) + int(np.count_nonzero(mine)) * turns.tail_tokens,
            "content": int(content[mine].sum()),
            "end": int(np.count_nonzero(mine)),
            "trained": int(trained[mine].sum()),
        }
    pieces = collections.Counter(row.id for row in evidence.rows if row.piece)
    return {
        "roles": roles,
        "split": {"records": len(pieces), "pieces": sum(pieces.values()) + len(pieces), "repeated_tokens": int(size[turns.repeated].sum())},
    }


def _by_source(evidence: Evidence) -> dict[str, int]:
    """Return the tokens of the repositories that have most, the others together."""
    found: collections.Counter[str] = collections.Counter()
    for row, length in zip(evidence.rows, evidence.lengths.tolist(), strict=True):
        record = evidence.by_id.get(row.id)
        found[(record and record.source.repository) or "no repository named"] += length
    most = dict(found.most_common(MOST_SOURCES))
    rest = sum(found.values()) - sum(most.values())
    return most | ({"others": rest} if rest else {})
