"""What a check found, and all of it together. The shapes behind ``starchat check --json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

SHOWN_FAULTS = 3

OUR_FAULT = "this is a fault of the encoder or of the tokenizer, not of the data; do not train; report it with this line"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check's verdict: `detail` is what was counted or what is wrong and where, `remedy` what to do, empty if all is well."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """All findings of a recipe's dataset, and the numbers behind them, ready for JSON."""

    findings: tuple[Finding, ...]
    stats: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(finding.ok for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return ``{ok, findings, stats}``: what ``starchat check --json`` prints."""
        return {"ok": self.ok, "findings": [dataclasses.asdict(finding) for finding in self.findings], "stats": self.stats}


def verdict(check: str, faults: Sequence[str], holds: str, remedy: str) -> Finding:
    """Return the finding of a check: `holds` if there are no faults, else their number and the first of them.

    >>> verdict("dead_rows", ["a.jsonl:3"], "12 rows", "drop it").detail
    '1 fault: a.jsonl:3'
    """
    if not faults:
        return Finding(check, True, holds)
    more = len(faults) - SHOWN_FAULTS
    shown = "; ".join(faults[:SHOWN_FAULTS]) + (f"; and {more:,} more" if more > 0 else "")
    return Finding(check, False, f"{len(faults):,} fault{'s' if len(faults) > 1 else ''}: {shown}", remedy)


def merged(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings with one for each check: what a check found of dialogues and of documents is told together.

    >>> merged([Finding("whole", True, "3 dialogues"), Finding("whole", True, "2 documents")])[0].detail
    '3 dialogues; 2 documents'
    """
    by_check: dict[str, list[Finding]] = {}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    return tuple(
        Finding(
            name, all(f.ok for f in some), "; ".join(f.detail for f in some), next((f.remedy for f in some if not f.ok), some[0].remedy)
        )
        for name, some in by_check.items()
    )


def excerpt(text: str, length: int = 60) -> str:
    """Return the text quoted and shortened in the middle, for a message.

    >>> excerpt("abcdefgh", 5)
    "'ab…gh'"
    """
    return ascii(text if len(text) <= length else f"{text[: length // 2]}…{text[-(length // 2) :]}").replace("\\u2026", "…")
