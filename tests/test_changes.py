"""What changed between two contents: the span is right and smallest, and a diff is what git and patch take for one."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import changes
from data_prep.changes import apply_diff, changed_span, unified_diff, widened

lines = st.lists(st.sampled_from(["a\n", "b\n", "\n", "c", "d\r\n", "é\n", "\x0b\n", "\u2028\n"]), max_size=14).map("".join)


@given(lines, lines)
def test_the_span_is_of_whole_lines_and_smallest(before, after):
    old, new = before.encode(), after.encode()
    start, old_end, new_end = changed_span(old, new)
    assert old[:start] == new[:start] and old[old_end:] == new[new_end:]
    for content, end in ((old, old_end), (new, new_end)):
        assert start in (0, content.rfind(b"\n", 0, start) + 1)
        assert end in (start, len(content)) or content[end - 1 : end] == b"\n"
    if old != new:
        assert (
            old[start:].split(b"\n")[0] != new[start:].split(b"\n")[0]
            or start in (len(old), len(new))
            or old_end == start
            or new_end == start
        )


@given(lines, lines)
def test_a_diff_applied_is_the_new_text(before, after):
    diff = unified_diff(before, after)
    assert apply_diff(before, diff) == after
    assert (diff == "") == (before == after)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("limit", [changes.MAX_COMPARED, 0], ids=["compared", "one-hunk"])
def test_git_applies_the_diff(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(changes, "MAX_COMPARED", limit)
    base = [f"line {n}\n" for n in range(60)]
    edited = [*base[:5], "new\n", *base[5:20], *base[22:40], "changed\n", *base[41:]]
    cases = [
        (base, edited),
        (base, [*base[:-1], "no end"]),
        (["a"], ["a\n"]),
        (base, [*base, "more\n"]),
        (base[:3], base[1:3]),
        (["a\n"], ["b\n", "c\n"]),
    ]
    for old, new in ((("".join(o), "".join(n))) for o, n in cases):
        (tmp_path / "f").write_text(old)
        patch = f"--- a/f\n+++ b/f\n{unified_diff(old, new)}"
        subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=tmp_path, check=True)
        assert (tmp_path / "f").read_text() == new


@pytest.mark.timeout(10)
def test_paragraphs_that_were_all_rewritten_are_compared_at_once():
    """Every other line is empty: difflib by itself would take these for what the two have in common, one by one, in half a minute."""
    old, new = ("".join(f"{word} {n}\n\n" for n in range(990)) for word in ("old", "new"))
    assert apply_diff(old, unified_diff(old, new)) == new


def test_a_diff_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="line 2"):
        apply_diff("a\nx\n", unified_diff("a\nb\n", "a\nc\n"))


def test_a_window_stops_at_the_ends():
    old = b"".join(b"%d\n" % n for n in range(10))
    span = changed_span(old, old.replace(b"5\n", b"five\n"))
    assert widened(old, span, 2, 1) == (6, 14)
    assert widened(old, span, 99, 99) == (0, len(old))
    assert widened(old, span, 0, 0) == (10, 12)
