"""Law 4: packing loses nothing, doubles nothing and cuts nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starchat.errors import UserError
from starchat.pack import fill, one_by_one, pack


def row_by_row(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best fit, decreasing, as it is defined: each row into the group with the least room that holds it, of equal ones the newest."""
    groups: list[list[int]] = []
    room: dict[int, list[int]] = {}  # groups by their room, each list in the order in which they came to it
    for row in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        fitting = [free for free, stack in room.items() if stack and free >= lengths[row]]
        if fitting:
            group = room[min(fitting)].pop()
        else:
            group = len(groups)
            groups.append([])
        groups[group].append(row)
        room.setdefault(capacity - sum(lengths[n] for n in groups[group]), []).append(group)
    return groups


@given(st.data(), st.integers(1, 200))
def test_each_row_lies_in_one_group_that_fits(data, capacity):
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=80))
    packed = pack(lengths, capacity)
    groups = packed.tolist()
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in group) <= capacity for group in groups)
    assert groups == [packed[n].tolist() for n in range(len(packed))]
    if lengths:
        assert fill(lengths, packed, capacity) == sum(lengths) / (len(groups) * capacity)
        # No two groups could be one: at most one group is half empty or emptier.
        assert sum(2 * sum(lengths[row] for row in group) <= capacity for group in groups) <= 1


@given(st.data(), st.integers(1, 40))
def test_rows_given_out_at_once_lie_as_if_one_by_one(data, capacity):
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=120))
    assert pack(lengths, capacity).tolist() == row_by_row(lengths, capacity)


def test_many_rows_fill_nearly_every_place():
    """Above 65,536 rows and groups, whose numbers have more than one digit of the sort."""
    lengths = np.random.default_rng(0).integers(1, 20, 450_000)
    packed = pack(lengths, 64)
    assert len(packed) > 1 << 16
    assert np.array_equal(np.sort(packed.rows), np.arange(len(lengths)))
    assert np.add.reduceat(lengths[packed.rows], packed.offsets[:-1]).max() <= 64
    assert fill(lengths.tolist(), packed, 64) >= 0.9997


@pytest.mark.parametrize("length", [0, 8])
def test_a_row_that_cannot_be_packed_is_named(length):
    with pytest.raises(UserError, match=f"row 1 has {length} tokens; packing needs 1 to 7"):
        pack([3, length], 7)


def test_the_fullest_group_that_has_room_is_taken():
    assert pack([6, 5, 3, 4], 10).tolist() == [[0, 3], [1, 2]]
    assert pack([], 10).tolist() == [] and fill([], pack([], 10), 10) == 1.0
    assert one_by_one(0).tolist() == []
