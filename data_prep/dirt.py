"""Dirt that the making of one data set left in its texts: ShareGPT's web pages, Dolly's Wikipedia passages.

Pure text to text. What is inside a code fence is never changed, except for the label that a copied web page leaves
on the fence's own first line; a text in which code and dirt cannot be told apart is dropped, not guessed at.
"""

from __future__ import annotations

import re

from data_prep.drafts import RowProblem
from starchat.fences import without_code

# What the page of 2023 put above a code block: the language, then the button's label, glued to what follows or on a line.
_GLUED_LABEL = re.compile(r"^([ \t]*```)(?:[ \t]*\n?([\w+#.-]+))?Copy code[ \t]*\n?", re.MULTILINE)
_LINE_LABEL = re.compile(r"^([ \t]*```)[ \t]*\n?([\w+#.-]*)[ \t]*\n[ \t]*Copy code[ \t]*\n", re.MULTILINE)
_LABEL = re.compile(r"^[\w+#.-]*?Copy code\b", re.MULTILINE)
_COUNTER = re.compile(r"\A\s*\d+ / \d+[ \t]*\n[ \t]*\n+")
_PAGE_HTML = re.compile(
    r"<div class=\"(?:markdown prose|flex|min-h-|p-4|bg-black|group )|<button class=\"flex ml-auto|data-message-author-role="
)
_PAGE_ERRORS = (
    "Too many requests in 1 hour",
    "!Too many requests",
    "Too many requests, please",
    "Something went wrong. If this issue persists",
)
MAX_PAGE_ERROR_CHARACTERS = 300

_WIKI_MARK = re.compile(
    r"(?<=[\w.,;:!?)\"'”’\]])"
    r"\[(?:\d{1,3}|[a-z]|citation needed|note \d+|nb \d+|clarification needed|when\?|who\?)\]"
    r"(?=[\s.,;:)\[]|\Z|[A-Z])"
)
_CODE_SIGN = re.compile(r"```|\w\(|\w\s*[=+*/<>-]=?\s*\w+\[|\]\s*[=+*/<>]|[\w\])] ?[+*/-]?= ?[\w\[(\"'-]|[;{}]\s*$", re.MULTILINE)


def clean_page_text(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a ShareGPT text without the labels of the page it was copied from, and the repairs made.

    >>> clean_page_text("```pythonCopy codeimport os\\n```")
    ('```python\\nimport os\\n```', ('copy_code',))
    """
    for error in _PAGE_ERRORS:
        if text.lstrip().startswith(error) and len(text) < MAX_PAGE_ERROR_CHARACTERS:
            raise RowProblem("too_many_requests", f"the page's own error message stands for an answer: {text.strip()[:60]!r}")
    repairs: list[str] = []
    if "Copy code" in text:
        whole = text
        for label in (_GLUED_LABEL, _LINE_LABEL):
            text = label.sub(lambda match: f"{match[1]}{match[2] or ''}\n", text)
        repairs += ["copy_code"] * (text != whole)
        if left := _LABEL.search(without_code(text)):
            raise RowProblem("copy_code_residue", f"{left[0][:60]!r} stands where the fence of a code block was lost")
    if _COUNTER.match(text):
        text = _COUNTER.sub("", text)
        repairs.append("page_counter")
    if "<" in text and (found := _PAGE_HTML.search(without_code(text))):
        raise RowProblem("html_residue", f"the page's own HTML stands outside code: {found[0]!r}")
    return text, tuple(repairs)


def without_wiki_marks(context: str, answer: str) -> tuple[str, str, tuple[str, ...]]:
    """Return a passage and the answer drawn from it without Wikipedia's reference marks, and the repairs made.

    Where either shows any sign of code both are left alone: there ``[1]`` may be an index.

    >>> without_wiki_marks("Born in 1885.[1][2] He wrote[citation needed] much.", "In 1885.[1]")
    ('Born in 1885. He wrote much.', 'In 1885.', ('wiki_marks',))
    >>> without_wiki_marks("x = items[1]", "It takes items[1], the second.")
    ('x = items[1]', 'It takes items[1], the second.', ())
    """
    if _CODE_SIGN.search(context) or _CODE_SIGN.search(answer):
        return context, answer, ()
    cleaned = _WIKI_MARK.sub("", context), _WIKI_MARK.sub("", answer)
    return *cleaned, ("wiki_marks",) if cleaned != (context, answer) else ()
