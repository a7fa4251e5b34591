"""Arrays as files that `numpy.load` reads.

In: an array. Out: the bytes that `numpy.save` writes, by way of a Python file, whose errors name what is wrong: of a full disk numpy's own
way says only how many items it wrote.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

import numpy as np


def write_array(file: IO[bytes], array: np.ndarray[Any, Any]) -> None:
    """Write an array to an open file.

    >>> file = io.BytesIO()
    >>> write_array(file, np.arange(3))
    >>> np.load(io.BytesIO(file.getvalue())).tolist()
    [0, 1, 2]
    """
    whole = np.ascontiguousarray(array)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(whole))
    file.write(head.getvalue())
    file.write(whole.reshape(-1).view(np.uint8).data)


def save_array(path: str | Path, array: np.ndarray[Any, Any]) -> None:
    """Write an array to a file."""
    with open(path, "wb") as file:
        write_array(file, array)
