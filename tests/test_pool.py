"""Every task is done once, whatever their number and that of the workers."""

from __future__ import annotations

import pytest

from data_prep.pool import run_tasks


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("workers", [1, 2])
def test_no_task_is_lost(count: int, workers: int) -> None:
    assert list(run_tasks(abs, iter(range(-count, 0)), workers)) == list(range(count, 0, -1))
