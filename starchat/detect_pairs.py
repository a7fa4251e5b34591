"""What two answers must be to be compared: of one pair, behind one prompt, not the same, and not the other way round elsewhere.

Each detector takes the evidence of pairs, whose rows stand in twos, the chosen first, and returns one `Finding`. That each side trains
its answer and nothing else is shown by `starchat.detect_dialogues`. Imports no torch.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

from starchat.detect_rows import MAX_DUPLICATE_FRACTION
from starchat.evidence import Evidence, Turns
from starchat.finding import Finding, judged, verdict


def pairs_are_whole(evidence: Evidence) -> Finding:
    """Hold each two rows against the records: they are the two sides of one pair, and every pair has its two or is set aside."""
    wanted = collections.Counter(_twos(evidence.record_ids))
    aside = collections.Counter(_twos([item.id for item in evidence.set_aside]))
    found: collections.Counter[tuple[str, ...]] = collections.Counter(_twos([row.id for row in evidence.rows]))
    places = {two: evidence.by_id[two[0]].source.place for two in wanted}
    faults = [f"rows {' and '.join(id[:8] for id in two)} stand together and are no pair" for two in (found + aside) - wanted]
    faults += [f"{places[two]}: the pair is neither in rows nor set aside" for two in wanted - (found + aside)]
    if evidence.train_rows % 2:
        faults.append(f"{evidence.train_rows:,} training rows; pairs have an even number")
    holds = f"{wanted.total():,} pairs = {found.total():,} in rows + {aside.total():,} set aside, each with both answers"
    return verdict("pairs_are_whole", faults, holds)


def one_prompt(evidence: Evidence, turns: Turns) -> Finding:
    """Compare the tokens before the answers: a difference there would be taken for a reason to prefer."""
    faults = []
    answers = (turns.starts + turns.header_tokens)[turns.expected]
    first = np.append(answers, len(evidence.ids))[np.searchsorted(answers, evidence.offsets[:-1])]
    stops = (np.minimum(first, evidence.offsets[1:]) - evidence.offsets[:-1]).tolist()
    for chosen, rejected in _pairs(evidence):
        prompts = [evidence.rows[row].ids[: stops[row]] for row in (chosen, rejected)]
        if not np.array_equal(prompts[0], prompts[1]):
            faults.append(f"{evidence.place(chosen)}: the prompts have {len(prompts[0]):,} and {len(prompts[1]):,} tokens and differ")
    return verdict("one_prompt", faults, f"{len(_pairs(evidence)):,} pairs, each with one prompt for both answers")


def sides_differ(evidence: Evidence) -> Finding:
    """Look for pairs whose two answers have the same tokens: they have no gradient."""
    faults = [
        f"{evidence.place(chosen)}: chosen and rejected have the same tokens"
        for chosen, rejected in _pairs(evidence)
        if np.array_equal(evidence.rows[chosen].ids, evidence.rows[rejected].ids)
    ]
    return verdict("sides_differ", faults, f"{len(_pairs(evidence)):,} pairs of different answers")


def preferences_agree(evidence: Evidence) -> Finding:
    """Look for training pairs that occur the other way round as well: what one teaches the other takes back."""
    known: dict[tuple[bytes, bytes], int] = {}
    faults = []
    for chosen, rejected in _train_pairs(evidence):
        key = (evidence.rows[chosen].ids.tobytes(), evidence.rows[rejected].ids.tobytes())
        if key[::-1] in known:
            faults.append(f"{evidence.place(chosen)} and {evidence.place(known[key[::-1]])} prefer opposite answers")
        known.setdefault(key, chosen)
    pairs = len(_train_pairs(evidence))
    ok = len(faults) <= MAX_DUPLICATE_FRACTION * pairs
    first = f": {faults[0]}" if faults else ""
    detail = f"{len(faults):,} of {pairs:,} training pairs contradict another{first}"
    return judged("preferences_agree", ok, f"{detail}; {_length_bias(evidence)}")


def duplicate_pairs(evidence: Evidence) -> Finding:
    """Count training pairs with the tokens of another; copies that a mixture weight makes are meant, and are not counted."""
    chosen_records = zip(_twos(evidence.record_ids), evidence.records[::2], strict=True)
    originals = collections.Counter(ids for ids, record in chosen_records if record.copy == 0 and record.split == "train")
    same: dict[tuple[bytes, ...], dict[tuple[str, ...], int]] = collections.defaultdict(dict)
    for two in _train_pairs(evidence):
        rows = [evidence.rows[row] for row in two]
        same[tuple(row.ids.tobytes() for row in rows)].setdefault(tuple(row.id for row in rows), two[0])
    extra = {key: sum(originals[ids] for ids in found) - 1 for key, found in same.items()}
    repeated = [key for key, count in extra.items() if count > 0]
    total, pairs = sum(extra[key] for key in repeated), len(_train_pairs(evidence))
    place = f": {evidence.place(next(iter(same[repeated[0]].values())))} occurs {extra[repeated[0]] + 1} times" if repeated else ""
    ok = total <= MAX_DUPLICATE_FRACTION * pairs
    return judged("duplicate_pairs", ok, f"{total:,} of {pairs:,} training pairs repeat another{place}")


DETECTORS = (pairs_are_whole, sides_differ, preferences_agree, duplicate_pairs)


def _length_bias(evidence: Evidence) -> str:
    """Return how often the chosen answer is the longer one: what a model learns from that is to write more. Told, not judged."""
    sizes = [[int(evidence.rows[row].trained.sum()) for row in two] for two in _train_pairs(evidence)]
    longer, pairs = sum(a > b for a, b in sizes), max(1, len(sizes))
    means = [sum(size[side] for size in sizes) / pairs for side in (0, 1)]
    return (
        f"the chosen answer is the longer one in {longer / pairs:.1%} of them ({means[0]:,.0f} against {means[1]:,.0f} tokens on average)"
    )


def _twos(values: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(values[number : number + 2]) for number in range(0, len(values), 2)]


def _pairs(evidence: Evidence) -> list[tuple[int, int]]:
    return [(number, number + 1) for number in range(0, len(evidence.rows) - 1, 2)]


def _train_pairs(evidence: Evidence) -> list[tuple[int, int]]:
    return _pairs(evidence)[: evidence.train_rows // 2]
