"""Open a file as bytes, decompressed by its last extension: ``.gz``, ``.zst`` or none.

A stream that ends before its compression format says so raises `UserError`; it is never taken for a shorter file.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from starchat.errors import UserError

COMPRESSIONS = (".gz", ".zst")
CHUNK_BYTES = 1 << 17
MAX_WINDOW_BYTES = 1 << 31  # what ``zstd --ultra --long=31`` writes, as large public dumps do; the default refuses them


class TruncatedStream(Exception):
    """The compressed stream ended in the middle of a frame."""


class ZstdStream(io.RawIOBase):
    """The decompressed bytes of a Zstandard file of one or more frames.

    zstandard's own ``stream_reader`` gives the bytes of a truncated file without any complaint, so frames are followed here.
    """

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._new_frame: Any = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")  # a slice of bytes would be a copy of all that is left

    def readable(self) -> bool:
        """Return true: this stream is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with decompressed bytes and return their count; 0 at the end."""
        while not self._ready:
            compressed = self._compressed or self._file.read(CHUNK_BYTES)
            self._compressed = b""
            if not compressed:
                if self._frame is not None:
                    raise TruncatedStream
                return 0
            self._frame = self._frame or self._new_frame()
            self._ready = memoryview(self._frame.decompress(compressed))
            if self._frame.eof:
                self._compressed = self._frame.unused_data
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Give the file's decompressed bytes; what is wrong with the file or its compression becomes one `UserError`."""
    import zstandard

    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=file) as unzipped:
                    yield io.BufferedReader(unzipped, CHUNK_BYTES)
            elif path.suffix == ".zst":
                yield io.BufferedReader(ZstdStream(file), CHUNK_BYTES)
            else:
                yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise UserError(f"{path}: not readable; check its permissions") from None
    except (EOFError, TruncatedStream):
        raise UserError(f"{path}: the {path.suffix} stream is truncated; copy or download the file again") from None
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise UserError(f"{path}: not a sound {path.suffix} file ({error}); copy or download the file again") from None
