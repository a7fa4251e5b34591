"""Which tokens of a row stand for placeholders, told by the bytes that each token is, with nothing of the encoder's.

In: ids and a record's `placeholders`. Out: the tokens that have a byte of a placeholder. The encoder asks the tokenizer where in a text a
token lies (`starchat.placeholders`); here a vocabulary's spelling is read, and the placeholder is looked for in what the ids themselves
spell. So a fault of either shows as a difference. Imports no torch.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from starchat.tokens import SPACE, Tokens

FOREIGN = b"\xff"
"""What stands for an id that the vocabulary does not have: a byte of no text."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Spelling:
    """The bytes of a tokenizer's tokens; those that were asked for once are kept."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        decoder = json.dumps(json.loads(tokens.plain.to_str())["decoder"])
        self._letters = _letters() if '"ByteLevel"' in decoder else None
        self._words = {id: token.content for id, token in tokens.plain.get_added_tokens_decoder().items()}
        self.bytes_of = functools.cache(self._bytes_of)

    def _bytes_of(self, id: int) -> bytes:
        name = self._words.get(id) or (self._tokens.plain.id_to_token(id) if id >= 0 else None)
        if name is None:
            return FOREIGN
        if id in self._words:
            return name.encode()
        if self._letters is not None:
            return b"".join(self._letters.get(letter) or letter.encode() for letter in name)
        byte = _BYTE.fullmatch(name)
        return bytes.fromhex(byte[1]) if byte else name.replace(SPACE, " ").encode()

    def holes(self, ids: Sequence[int] | npt.NDArray[np.int32], placeholders: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return for each token of a text, (tokens,), whether it has a byte of a placeholder."""
        pieces = [self.bytes_of(int(id)) for id in ids]
        ends = np.cumsum([0, *map(len, pieces)])
        covered = np.zeros(int(ends[-1]) + 1, dtype=np.int64)
        for start, stop in _found(b"".join(pieces), [self._tokens.normalize(placeholder).encode() for placeholder in placeholders]):
            covered[start] += 1
            covered[stop] -= 1
        before = np.concatenate([[0], np.cumsum(np.cumsum(covered)[:-1] > 0)])
        return np.asarray(before[ends[1:]] > before[ends[:-1]])


def _found(text: bytes, wanted: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return where any of the wanted lies in a text, at each place the longest."""
    choices = sorted({*wanted} - {b""}, key=len, reverse=True)
    if not choices:
        return []
    return [match.span(1) for match in re.finditer(b"(?=(" + b"|".join(map(re.escape, choices)) + b"))", text)]


def _letters() -> dict[str, bytes]:
    """Return the bytes that the letters of a byte-level vocabulary stand for: printable ones themselves, the others U+0100 and on."""
    themselves = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in themselves]
    return {chr(byte): bytes([byte]) for byte in themselves} | {chr(256 + n): bytes([byte]) for n, byte in enumerate(others)}
