"""Fill-in-the-middle: nothing is lost, the orders are StarCoder's, and the draws depend on seed, record and epoch alone."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starchat.dialogue import Part, merge_parts
from starchat.errors import UserError
from starchat.fim import QWEN, SANTACODER, STARCODER, chance, fim_tokens, find_fim_tokens, join, permute, rng_for

lead = st.lists(st.builds(Part, st.sampled_from(["<reponame>", "<filename>", "<gh_stars>"]), st.text(max_size=8)), max_size=3)
files = st.lists(st.tuples(st.text("ab/.", max_size=8), st.text(max_size=30)), min_size=1, max_size=5)
rate = st.floats(0, 1)


@given(lead, st.text(), st.integers(), rate, rate, st.sampled_from([STARCODER, SANTACODER]))
def test_join_undoes_permute(front, text, seed, fim_rate, spm_rate, sentinels):
    parts = (*front, Part("", text))
    permuted = permute(parts, rng_for(seed, "id", 0), fim_rate, spm_rate, sentinels)
    assert join(permuted, sentinels) == parts
    assert permuted[: len(front)] == tuple(front)


@given(files, st.sampled_from(["<filename>", "<file_sep>"]), st.integers(), rate, rate)
def test_join_undoes_permute_of_many_files(made, marker, seed, fim_rate, spm_rate):
    parts = (Part("<repo_name>", "r"), *(part for path, text in made for part in (Part(marker, path), Part("", f"\n{text}"))))
    permuted = permute(parts, rng_for(seed, "id", 0), fim_rate, spm_rate)
    assert merge_parts(join(permuted)) == merge_parts(parts)
    whole = [part.text for part in permuted if part.marker == marker]
    pieces = [part.text for part in permuted if part.marker in ("<fim_prefix>", "<fim_middle>")]
    if marker == "<file_sep>":
        assert all(path in whole or any(piece.startswith(path) for piece in pieces) for path, _ in made), "a path is never cut"
    else:
        assert whole == [path for path, _ in made]


def test_many_files_are_permuted_one_by_one():
    parts = (Part("<repo_name>", "r"), *(part for n in range(4) for part in (Part("<file_sep>", f"{n}.py"), Part("", "\nx = 1"))))
    made = [permute(parts, rng_for(0, str(n), 0), 0.5, 0.5) for n in range(2000)]
    changed = [m for m in made if m != parts]
    assert abs(len(changed) / len(made) - chance(merge_parts(parts), 0.5)) < 0.04
    middles = [sum(part.marker == "<fim_middle>" for part in m) for m in changed]
    assert set(middles) == {1, 2, 3, 4}
    assert abs(sum(middles) / len(middles) - 4 * 0.5 / (1 - 0.5**4)) < 0.1
    assert permute((Part("<jupyter_text>", "a"), Part("", "b")), rng_for(0, "a", 0), 1.0, 0.5) == (
        Part("<jupyter_text>", "a"),
        Part("", "b"),
    )


@given(st.text(alphabet="aé😀\u0301\U0001f1e9\n", min_size=1), st.integers())
def test_pieces_encode_as_utf8(text, seed):
    for part in permute((Part("", text),), random.Random(seed), 1.0, 0.5):
        assert part.text.encode("utf-8").decode("utf-8") == part.text


def test_orders_are_those_of_starcoder():
    parts = (Part("<filename>", "a.py"), Part("", "0123456789"))
    psm = permute(parts, rng_for(3, "x", 0), 1.0, 0.0)
    spm = permute(parts, rng_for(3, "x", 0), 1.0, 1.0)
    assert [p.marker for p in psm] == [p.marker for p in spm] == ["<filename>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
    prefix, suffix, middle = (p.text for p in psm[1:])
    assert prefix and suffix and middle, "the seed is chosen so that no piece is empty"
    assert [p.text for p in spm[1:]] == ["", suffix, prefix + middle]
    rendered = "".join(p.marker + p.text for p in psm)
    assert re.fullmatch(r"<filename>a\.py<fim_prefix>\d+<fim_suffix>\d+<fim_middle>\d+", rendered)


def test_rates_are_the_shares():
    parts = (Part("", "some text of a file"),)
    made = [permute(parts, rng_for(0, str(n), 0), 0.5, 0.25) for n in range(4000)]
    permuted = [m for m in made if len(m) == 3]
    assert 0.46 < len(permuted) / len(made) < 0.54
    # An SPM document has an empty prefix; so has one in about 19 PSM documents, whose first cut is at 0.
    empty = sum(not m[0].text for m in permuted) / len(permuted)
    assert 0.25 < empty < 0.40


def test_cuts_are_uniform_and_reach_both_ends():
    text = "abcdefghij"
    cuts = [permute((Part("", text),), rng_for(0, str(n), 0), 1.0, 0.0) for n in range(3000)]
    first = [len(p[0].text) for p in cuts]
    last = [len(text) - len(p[1].text) for p in cuts]
    assert set(first) == set(last) == set(range(11))
    counts = [(first + last).count(n) for n in range(11)]
    assert max(counts) < 1.25 * min(counts)


def test_draws_depend_on_seed_record_and_epoch_only():
    parts = (Part("", "x" * 1000),)
    made = {key: permute(parts, rng_for(*key), 1.0, 0.5) for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]}
    assert len(set(made.values())) == 4
    assert made[0, "a", 0] == permute(parts, rng_for(0, "a", 0), 1.0, 0.5)
    assert rng_for(7, "record", 2).random() == 0.47578077664680263, "a changed value changes every dataset"


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (Part("<jupyter_code>", "1"), Part("<jupyter_output>", "1")),
        (Part("<fim_prefix>", "a"), Part("<fim_suffix>", "b"), Part("<fim_middle>", "c")),
    ],
)
def test_documents_without_plain_content_stay(parts):
    assert permute(parts, rng_for(0, "a", 0), 1.0, 0.5) == parts


@pytest.mark.parametrize(("fim", "spm", "name"), [(1.5, 0.5, "fim_rate"), (0.5, -0.1, "spm_rate"), (float("nan"), 0.5, "fim_rate")])
def test_rates_outside_0_to_1_are_refused(fim, spm, name):
    with pytest.raises(UserError, match=f"{name}: .*expected a number from 0 to 1"):
        permute((Part("", "x"),), rng_for(0, "a", 0), fim, spm)


def test_tokens_are_found_or_named():
    assert fim_tokens({*STARCODER, "x"}) == STARCODER
    assert fim_tokens({*SANTACODER}) == SANTACODER
    assert fim_tokens(QWEN) == QWEN
    assert find_fim_tokens(["<fim_prefix>"]) is None
    with pytest.raises(UserError, match=r"tokenizer: no token <fim_suffix>, <fim_middle>, .* or turn fill-in-the-middle off"):
        fim_tokens({"<fim_prefix>", "x"})
