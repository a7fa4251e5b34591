"""The bytes of a file as text, with what had to be done for it.

UTF-8 is tried first and a byte order mark believed; else the lines that are not ASCII are shown to `charset_normalizer`, so that a
single name in a long file still counts. Line ends become ``\\n``.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

SHOWN_BYTES = 20_000
CHARSETS = (
    *("cp1252", "cp1251", "cp932", "euc_jp", "gb18030", "cp949", "big5", "cp1250", "iso8859_2", "iso8859_15", "koi8_r", "cp1254"),
    *("cp1253", "cp1255", "cp1256", "mac_roman", "cp850", "cp437", "cp866"),
)
"""Those in which source code was widely written, in about the order of their use, which decides between equals."""

_MARKS = (
    (codecs.BOM_UTF8, "utf_8", "byte_order_mark"),
    (codecs.BOM_UTF32_LE, "utf_32_le", "charset_utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32_be", "charset_utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16_le", "charset_utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16_be", "charset_utf_16"),
)


class FileText(NamedTuple):
    """A file's text and the repairs by name; or, where `fault` is not None, why there is no text."""

    text: str
    repairs: tuple[str, ...] = ()
    fault: tuple[str, str] | None = None


def read_text(data: bytes) -> FileText:
    """Return the text of a file.

    >>> read_text(b"\\xef\\xbb\\xbfa\\r\\nb")
    FileText(text='a\\nb', repairs=('byte_order_mark', 'line_ends'), fault=None)
    >>> read_text(b"\\x89PNG\\0").fault
    ('binary', 'byte 4 is NUL')
    """
    for mark, charset, repair in _MARKS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], charset, (repair,))
    if (nul := data.find(b"\0")) >= 0:
        return FileText("", (), ("binary", f"byte {nul} is NUL"))
    try:
        return _with_line_ends(data.decode(), ())
    except UnicodeDecodeError:
        pass
    found = _charset(data)
    if found is None:
        return FileText("", (), ("unknown_charset", "not UTF-8, and no other charset fits"))
    return _decoded(data, found, (f"charset_{found}",))


def decoded_text(text: str) -> FileText:
    """Return a text that was decoded before, such as that of a table's column.

    >>> decoded_text("\\ufeffa\\r\\nb")
    FileText(text='a\\nb', repairs=('byte_order_mark', 'line_ends'), fault=None)
    """
    marked = text.startswith("\ufeff")
    if (nul := text.find("\0")) >= 0:
        return FileText("", (), ("binary", f"character {nul} is NUL"))
    return _with_line_ends(text[1:] if marked else text, ("byte_order_mark",) if marked else ())


def _decoded(data: bytes, charset: str, repairs: tuple[str, ...]) -> FileText:
    try:
        text = data.decode(charset)
    except UnicodeDecodeError as error:
        return FileText("", (), ("unknown_charset", f"byte {error.start} is not {charset.replace('_', '-')}"))
    if "\0" in text:
        return FileText("", (), ("binary", f"character {text.index(chr(0))} is NUL"))
    return _with_line_ends(text, repairs)


def _with_line_ends(text: str, repairs: tuple[str, ...]) -> FileText:
    if "\r" not in text:
        return FileText(text, repairs)
    return FileText(text.replace("\r\n", "\n").replace("\r", "\n"), (*repairs, "line_ends"))


def _charset(data: bytes) -> str | None:
    """Return the charset that decodes all of the data and shows the fewest odd characters and the most of some language."""
    from charset_normalizer import from_bytes

    lines = [line for line in data.splitlines() if not line.isascii()]
    shown = b"\n".join(lines)
    end = shown.find(b"\n", SHOWN_BYTES)  # whole lines: half a character would speak against its charset
    found = [
        (match.chaos, -match.coherence, CHARSETS.index(charset), charset)
        for match in from_bytes(shown if end < 0 else shown[:end], cp_isolation=list(CHARSETS), enable_fallback=False)
        for charset in match.could_be_from_charset
        if charset in CHARSETS
    ]
    return next((charset for *_, charset in sorted(found) if _decodes(data, charset)), None)


def _decodes(data: bytes, charset: str) -> bool:
    try:
        data.decode(charset)
    except UnicodeDecodeError:
        return False
    return True
