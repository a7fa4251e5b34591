"""A record that holds a problem of a benchmark is found in whatever form, and one that does not is left alone."""

from __future__ import annotations

import pytest

from made_up_benchmark import PROMPT, SOLUTION, TESTS, posts_matcher, renamed


@pytest.fixture(scope="module")
def matcher(tmp_path_factory):
    return posts_matcher(tmp_path_factory.mktemp("posts"))


def hits(matcher, text, python=None):
    found = matcher.match(text, [text] if python is None else python)
    return {(match.item, match.field, match.matcher) for match in found if match.contaminated}


def test_forms(matcher):
    whole = PROMPT + SOLUTION
    assert ("Posts/0", "solution", "verbatim") in hits(matcher, whole)
    assert ("Posts/0", "solution", "python") in hits(matcher, renamed(whole))
    assert hits(matcher, renamed(whole), []) == set()
    assert {field for _, field, _ in hits(matcher, TESTS)} == {"tests"}
    assert hits(matcher, "def widest_gap(a):\n    return a\n") == set()
