"""Law 4: packing loses nothing, doubles nothing and cuts nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starchat.errors import UserError
from starchat.pack import fill, pack


@given(st.data(), st.integers(1, 200))
def test_each_row_lies_in_one_group_that_fits(data, capacity):
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=80))
    groups = pack(lengths, capacity)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in group) <= capacity for group in groups)
    assert groups == pack(lengths, capacity)
    if lengths:
        assert fill(lengths, groups, capacity) == sum(lengths) / (len(groups) * capacity)
        # No two groups could be one: at most one group is half empty or emptier.
        assert sum(2 * sum(lengths[row] for row in group) <= capacity for group in groups) <= 1


@pytest.mark.parametrize("length", [0, 8])
def test_a_row_that_cannot_be_packed_is_named(length):
    with pytest.raises(UserError, match=f"row 1 has {length} tokens; packing needs 1 to 7"):
        pack([3, length], 7)


def test_the_fullest_group_that_has_room_is_taken():
    assert pack([6, 5, 3, 4], 10) == [[0, 3], [1, 2]]
    assert fill([], [], 10) == 1.0
