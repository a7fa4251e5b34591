"""What the posts of issues and pull requests have in common as texts, whatever is asked of them afterwards.

Pure: a text in, a text out; what was done is appended to a list of repairs. Mail is `data_prep.mail`.
"""

from __future__ import annotations

from starchat.fences import code_spans

LAST_LINES = 20
"""How many lines at the end of a post stay that is cut in its middle."""


def with_newlines(text: str, repairs: list[str]) -> str:
    """Return a text with plain newlines for line ends."""
    if "\r" not in text:
        return text
    repairs.append("line_ends")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def without_html_comments(text: str, repairs: list[str]) -> str:
    """Return a Markdown text without its HTML comments; those within code, and what is never closed, stay.

    >>> without_html_comments("<!-- a hint -->It fails with `<!-- this -->`", [])
    'It fails with `<!-- this -->`'
    """
    if "<!--" not in text:
        return text
    code = code_spans(text)
    pieces, done, look = list[str](), 0, 0
    code_start, code_end = next(code, (len(text), len(text)))
    while (start := text.find("<!--", look)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        while code_end <= start:
            code_start, code_end = next(code, (len(text), len(text) + 1))
        if code_start <= start:
            look = code_end
            continue
        pieces.append(text[done:start])
        done = look = end + 3
    if pieces:
        repairs.append("html_comment")
    return "".join((*pieces, text[done:]))


def cut_lines(text: str, max_lines: int | None, mark: str) -> str:
    """Return a text of at most `max_lines` lines: of a longer one the first and the last stay, with `mark` on a line between.

    >>> cut_lines("1\\n2\\n3\\n4", 3, "...")
    '1\\n...\\n3\\n4'
    """
    if max_lines is None or text.count("\n") < max_lines:
        return text
    lines = text.split("\n")
    last = min(LAST_LINES, max_lines - 1)
    return "\n".join((*lines[: max_lines - last], mark, *lines[len(lines) - last :]))
