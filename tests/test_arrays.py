"""Arrays as files: what numpy would write, and on a full disk an error that says so."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from data_prep.arrays import save_array
from data_prep.item_files import LINE
from runs import mounted_disk


@pytest.mark.parametrize(
    "array", [np.zeros(3, LINE), np.zeros(0, LINE), np.arange(12).reshape(3, 4), np.ones((2, 0)), np.array([True])], ids=str
)
def test_the_same_bytes_as_numpy(array: np.ndarray, tmp_path: Path) -> None:
    save_array(tmp_path / "ours.npy", array)
    np.save(tmp_path / "numpy.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", "1m") as folder, pytest.raises(OSError) as caught:
        save_array(folder / "large.npy", np.zeros(16 << 20, np.uint8))
    assert caught.value.errno == errno.ENOSPC
