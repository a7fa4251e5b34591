"""What stands for what was taken out is not trained, and all the rest is: the holes in what is trained are a record's placeholders.

In: evidence of dialogues (of pairs, their sides) or of documents. Out: one `Finding` each. Where a placeholder lies is told by the bytes of
the tokens (`starchat.holes`). Imports no torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from starchat.evidence import Evidence, Turns, holes_of_documents, with_placeholders
from starchat.finding import Finding, excerpt, verdict


def in_dialogues(evidence: Evidence, turns: Turns) -> Finding:
    """Hold the trained tokens of answers whose records have placeholders against these."""
    looked_at = np.zeros(len(evidence.ids), dtype=np.bool_)
    for turn in np.flatnonzero(turns.expected & with_placeholders(evidence, turns.starts)).tolist():
        looked_at[turns.starts[turn] + turns.header_tokens[turn] : turns.ends[turn]] = True
    return _judge(evidence, turns.holes, looked_at)


def in_documents(evidence: Evidence) -> Finding:
    """Hold the trained tokens of windows whose records have placeholders, and all tokens of redaction, against these."""
    holes = holes_of_documents(evidence)
    marked = with_placeholders(evidence, evidence.offsets[:-1])
    looked_at = np.repeat(marked, evidence.lengths) | holes
    looked_at[evidence.offsets[:-1]] = False
    return _judge(evidence, holes, looked_at)


def _judge(evidence: Evidence, holes: npt.NDArray[np.bool_], looked_at: npt.NDArray[np.bool_]) -> Finding:
    """Return the finding on the tokens that are `looked_at`: those of `holes` are not trained, the others are."""
    wrong = np.flatnonzero(looked_at & (evidence.trained == holes))
    rows, first = np.unique(np.searchsorted(evidence.offsets, wrong, side="right") - 1, return_index=True)
    faults = []
    for row, at in zip(rows.tolist(), wrong[first].tolist(), strict=True):
        what = "a token of a placeholder is trained" if holes[at] else "a token is not trained, and no placeholder is there"
        id = int(evidence.ids[at])
        faults.append(f"{evidence.place(row)}: {what}: {excerpt(evidence.tokens.decode([id])) if id >= 0 else id}")
    marked = np.unique(np.searchsorted(evidence.offsets, np.flatnonzero(looked_at), side="right"))
    count = int(np.count_nonzero(holes & looked_at))
    holds = f"{count:,} tokens of placeholders in {len(marked):,} rows, none trained" if len(marked) else "no placeholders"
    return verdict("placeholders_untrained", faults, holds)
