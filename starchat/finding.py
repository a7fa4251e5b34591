"""What a check found, and all of it together. The shapes behind ``starchat check --json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from starchat.catalogue import BY_NAME, GROUPS

SHOWN_FAULTS = 3


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


def verdict(check: str, faults: Sequence[str], holds: str) -> Finding:
    """Return the finding of a check: `holds` if there are no faults, else their number and the first of them, with the check's remedy.

    >>> verdict("dead_rows", ["a.jsonl:3"], "12 rows").detail
    '1 fault: a.jsonl:3'
    """
    if not faults:
        return judged(check, True, holds)
    more = len(faults) - SHOWN_FAULTS
    shown = "; ".join(faults[:SHOWN_FAULTS]) + (f"; and {more:,} more" if more > 0 else "")
    return judged(check, False, f"{len(faults):,} fault{'s' if len(faults) > 1 else ''}: {shown}")


def judged(check: str, ok: bool, detail: str) -> Finding:
    """Return a finding with the remedy that the catalogue has for its check, if it needs one."""
    return Finding(check, ok, detail, "" if ok else BY_NAME[check].remedy)


def merged(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings with one for each check, group by group: what a check found of dialogues and of documents is told together.

    >>> merged([Finding("lengths", True, "3 dialogues"), Finding("lengths", True, "2 documents")])[0].detail
    '3 dialogues; 2 documents'
    """
    by_check: dict[str, list[Finding]] = {}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    together = [
        Finding(
            name, all(f.ok for f in some), "; ".join(f.detail for f in some), next((f.remedy for f in some if not f.ok), some[0].remedy)
        )
        for name, some in by_check.items()
    ]
    return tuple(sorted(together, key=lambda finding: GROUPS.index(BY_NAME[finding.check].group)))


def by_group(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """Return findings in their groups, in the order in which these are told."""
    groups = [(group, [f for f in findings if BY_NAME[f.check].group == group]) for group in GROUPS]
    return [(group, found) for group, found in groups if found]


def summary(findings: Sequence[Finding]) -> str:
    """Return the verdict of a whole report in a line.

    >>> summary([Finding("lengths", True, ""), Finding("packing", False, "")])
    '1 of 2 checks found a fault: packing'
    """
    faults = [finding.check for finding in findings if not finding.ok]
    return f"{len(faults)} of {len(findings)} checks found a fault: {', '.join(faults)}" if faults else f"All {len(findings)} checks hold"


def excerpt(text: str, length: int = 60) -> str:
    """Return the text quoted and shortened in the middle, for a message.

    >>> excerpt("abcdefgh", 5)
    "'ab…gh'"
    """
    return ascii(text if len(text) <= length else f"{text[: length // 2]}…{text[-(length // 2) :]}").replace("\\u2026", "…")
