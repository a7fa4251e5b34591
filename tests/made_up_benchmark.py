"""A benchmark of our own making, and ways in which training data may hold one of its problems."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from data_prep.benchmark_items import Benchmark
from data_prep.decontaminate import DecontaminationRules, Matcher, open_matcher

PROMPT = '''from typing import List


def widest_gap(heights: List[int], margin: int) -> int:
    """Of a row of fence posts, return the widest distance between two neighbours that both reach above
    the margin, or zero when fewer than two posts reach that far.
    >>> widest_gap([3, 9, 2, 8, 7], 5)
    2
    """
'''
SOLUTION = """    best = 0
    previous = None
    for place, height in enumerate(heights):
        if height > margin:
            if previous is not None:
                best = max(best, place - previous)
            previous = place
    return best
"""
TESTS = """
def check(candidate):
    assert candidate([3, 9, 2, 8, 7], 5) == 2, "two posts with one low post between them"
    assert candidate([1, 1, 1], 5) == 0, "no post at all is above the margin here"
    assert candidate([9, 1, 1, 9], 5) == 3, "the first post and the last post are far apart"
"""
SECOND_PROMPT = '''def knot_count(rope: str) -> int:
    """Count the knots of a rope that is drawn with one sign for every stretch of it: a letter x is a knot
    unless the sign before it is a letter x as well, since then both are one double knot.
    """
'''
SECOND_SOLUTION = """    total, before = 0, ""
    for sign in rope:
        if sign == "x" and before != "x":
            total += 1
        before = sign
    return total
"""
ROWS = [
    {"task_id": "Posts/0", "prompt": PROMPT, "canonical_solution": SOLUTION, "test": TESTS, "entry_point": "widest_gap"},
    {"task_id": "Posts/1", "prompt": SECOND_PROMPT, "canonical_solution": SECOND_SOLUTION, "test": "", "entry_point": "knot_count"},
    {"task_id": "Posts/2", "prompt": "def add(a, b):\n", "canonical_solution": "    return a + b\n", "test": "", "entry_point": "add"},
]


def write_problems(folder: Path, rows: list[dict] = ROWS, name: str = "posts.jsonl") -> str:
    """Write problems as JSONL and return the file's path."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def posts_matcher(folder: Path, **rules) -> Matcher:
    """Return the matcher of the made-up benchmark, which has HumanEval's keys."""
    return open_matcher(DecontaminationRules((Benchmark("humaneval", write_problems(folder)),), **rules), "spec")


def renamed(code: str) -> str:
    """Return Python with all of its variables, arguments and functions called otherwise, and laid out by ``ast``."""
    tree = ast.parse(code)
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    bound |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    names = {name: f"z{number}" for number, name in enumerate(sorted(bound))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
        elif isinstance(node, ast.arg):
            node.arg = names[node.arg]
        elif isinstance(node, ast.FunctionDef):
            node.name = names[node.name]
            node.body = [part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
    return ast.unparse(tree)
