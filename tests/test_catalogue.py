"""Every check is in the catalogue once, has a planted fault in the suite, and stands in the document that is made of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from starchat.catalogue import BY_NAME, CHECKS, GROUPS, table

ROOT = Path(__file__).parent.parent
CODE = {path: path.read_text(encoding="utf-8") for path in (ROOT / "starchat").glob("*.py") if path.stem != "catalogue"}
TESTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py") if path != Path(__file__)}
DOCUMENT = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
MAKERS = {"Finding", "verdict", "judged", "_compare", "_same"}
FAILURES = 56
"""Rows of the second table of the document, three of them with a part of their own."""


def made_in(source: str) -> set[str]:
    """Return the names of the checks that a module makes findings of."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    firsts = [node.args[0] for node in calls if isinstance(node.func, ast.Name) and node.func.id in MAKERS]
    return {first.value for first in firsts if isinstance(first, ast.Constant) and isinstance(first.value, str)}


def test_names_are_unique_and_every_check_is_of_a_group() -> None:
    assert len(BY_NAME) == len(CHECKS)
    assert {check.group for check in CHECKS} == {*GROUPS}
    assert all(check.protects and check.remedy and "\n" not in check.remedy for check in CHECKS)
    assert sum(check.when == "before" for check in CHECKS) >= 40


def test_what_the_code_finds_is_in_the_catalogue_and_the_other_way_round() -> None:
    made = set().union(*(made_in(source) for source in CODE.values()))
    assert made - BY_NAME.keys() == set()
    named = {check.name for check in CHECKS if check.when == "during"}
    assert BY_NAME.keys() - made == named, "what ends a run while it trains is a message and no finding"
    assert all(any(name in source for source in CODE.values()) for name in named)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_check_has_a_planted_fault(name: str) -> None:
    """Its name stands in a test: as what a planted fault returns, is matched by, or is looked up with."""
    assert any(re.search(rf"\b{name}\b", source) for source in TESTS.values())


def test_the_document_is_the_catalogue() -> None:
    assert table() in DOCUMENT, "write it anew: python -m starchat.catalogue"


def test_the_document_answers_every_failure_with_checks_that_exist() -> None:
    answers = re.findall(r"^\| (\d+[bc]?) \| (.+?) \| (.+?) \|$", DOCUMENT, flags=re.MULTILINE)
    numbers = [number for number, _, _ in answers]
    assert numbers == sorted(numbers, key=lambda number: (int(number.rstrip("bc")), number))
    assert {int(number) for number in numbers if number.isdigit()} == {*range(1, FAILURES + 1)}
    named = {name for _, _, answer in answers for name in re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", answer)}
    assert named - BY_NAME.keys() == set()
    assert all(re.search(r"`\w+`|cannot happen|outside", answer) for _, _, answer in answers)
