"""A model's weight files as they lie on the disk: names, types, shapes and values, without the model.

In: a folder with ``*.safetensors``. Out: `Stored` tensors, what is wrong with the files, and values as numpy arrays, memory-mapped: a
base model of any size is looked into without being loaded. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LAYOUT = {"F64": np.uint64, "F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}
"""Types of numbers with the unsigned integers that have their bits; numpy knows no bfloat16."""

EXPONENT = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "F16": 0x7C00, "BF16": 0x7F80}
"""The bits that are all set in an infinity and in what is no number."""

BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16, "F4": 4}
"""Bits of a number; eight for all other types."""

HEADER_LIMIT_BYTES = 100_000_000
"""The format's own limit."""

BLOCK_BYTES = 64 << 20

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "tok_embeddings.weight")
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: `start` to `stop` are its bytes."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def values(self) -> npt.NDArray[Any]:
        """The bits of its numbers, memory-mapped, in its shape; it must be of a type in `LAYOUT`."""
        return np.memmap(self.path, dtype=LAYOUT[self.dtype], mode="r", offset=self.start, shape=self.shape)


def read_folder(folder: Path) -> tuple[list[Stored], list[str]]:
    """Return the tensors of a model's weight files and what is wrong with the files."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    placed: dict[str, str] = {}
    if whole.is_file() or not index.is_file():
        paths = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    else:
        try:
            placed = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            return [], [f"{index}: no index of weights ({' '.join(str(error).split())[:80]})"]
        paths = [folder / name for name in sorted({*placed.values()})]
    tensors: list[Stored] = []
    faults: list[str] = []
    for path in paths:
        found = _read_file(path)
        if isinstance(found, str):
            faults.append(found)
        else:
            tensors += found
    if placed and not faults:
        found_in = {tensor.name: tensor.path.name for tensor in tensors}
        faults += [
            f"{folder}: {name} is not in {file}, where the index has it" for name, file in placed.items() if found_in.get(name) != file
        ]
        faults += [f"{folder}: {name} in {file} is not in the index" for name, file in found_in.items() if name not in placed]
    return tensors, faults


def _read_file(path: Path) -> list[Stored] | str:
    """Return the tensors of a file, or what is wrong with it."""
    if not path.is_file():
        return f"{path}: the index names it, and it is not there"
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT_BYTES, size - 8):
            return f"{path}: {size:,} bytes, which do not hold its own header"
        try:
            header = json.loads(file.read(length))
            tensors = [
                Stored(name, path, t["dtype"], tuple(t["shape"]), 8 + length + t["data_offsets"][0], 8 + length + t["data_offsets"][1])
                for name, t in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            return f"{path}: its header cannot be read ({' '.join(str(error).split())[:80]})"
    end = max((tensor.stop for tensor in tensors), default=8 + length)
    if end != size:
        return f"{path}: {size:,} bytes; its header describes {end:,}"
    wrong = [t.name for t in tensors if (t.stop - t.start) * 8 != math.prod(t.shape) * BITS.get(t.dtype, 8)]
    return f"{path}: {wrong[0]} has another size than its shape says" if wrong else tensors


def find(tensors: Sequence[Stored], endings: Sequence[str]) -> Stored | None:
    """Return the first matrix whose name ends so, or None."""
    return next((t for t in tensors if len(t.shape) == 2 and any(t.name == e or t.name.endswith(f".{e}") for e in endings)), None)


def blocks(tensor: Stored, share: float) -> Iterator[npt.NDArray[Any]]:
    """Yield evenly chosen stretches that together are about `share` of a tensor's numbers, flat; all of them for 1."""
    flat = tensor.values.reshape(-1)
    size = BLOCK_BYTES // flat.itemsize
    for start in range(0, flat.size, size):
        stop = min(flat.size, start + size)
        yield flat[start : start + max(1, math.ceil((stop - start) * min(1.0, share)))]


def not_finite(bits: npt.NDArray[Any], dtype: str) -> int:
    """Return how many numbers are infinite or none.

    >>> not_finite(np.array([1.0, np.nan, np.inf], dtype=np.float32).view(np.uint32), "F32")
    2
    """
    mask = bits.dtype.type(EXPONENT[dtype])
    return int(np.count_nonzero((bits & mask) == mask))


def rows(tensor: Stored, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return some rows of a matrix as float32, (rows, columns)."""
    bits = np.asarray(tensor.values[numbers])
    if tensor.dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view({"F16": np.float16, "F32": np.float32, "F64": np.float64}[tensor.dtype]).astype(np.float32)


def same_numbers(one: Stored, other: Stored) -> bool:
    """Whether two tensors have the same bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(np.array_equal(a, b) for a, b in zip(blocks(one, 1), blocks(other, 1), strict=True))
