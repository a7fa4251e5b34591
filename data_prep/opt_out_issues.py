"""What the author of an issue in an opt-out repository asks for.

Pure: author and text in, names out, and the entries that were not understood, which somebody has to read. The form's two boxes count;
without them the list in the text. Where nothing names anything of the author's own, all that is theirs is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_prep.github_names import is_address, name_of

_ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]+(?P<entry>\S.*?)[ \t]*$", re.MULTILINE)
_BOX = re.compile(r"^### (?P<title>[^\n]+)\n(?P<body>.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)
_BOXES = ("accounts and organizations to remove", "specific repositories to remove")
_NO_RESPONSE = "_No response_"
_LINK = re.compile(r"\[[^\[\]\n]{0,200}\]\((?P<address>[^()\[\s]{1,300})\)")
_REMARK = re.compile(r"\s\([^()\n]{0,300}\)|\s#\s.*|<!--.{0,300}?-->")
_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+(?:and|or|&|\+)\s+", re.IGNORECASE)
_BARE = re.compile(r"[\w.-]{1,100}")
_EVERYTHING = frozenset({"all", "everything", "all repositories", "all my repositories", "all of my repositories"})


def names_asked(author: str, text: str) -> tuple[list[str], list[str]]:
    """Return the names that an issue asks to take out, and its entries that name nothing.

    A bare word in a list is a repository of the author's where another entry is ``owner/repository``, and else a word.

    >>> names_asked("Ada", "Please remove:\\n\\n- Ada/engine\\n- notes")
    (['ada/engine', 'ada/notes'], [])
    >>> names_asked("Ada", "I never agreed, because of\\n- privacy\\n- what the EU says")
    (['ada'], ['what the EU says'])
    """
    author = author.lower()
    text = text.replace("\r\n", "\n")
    boxes = [found["body"] for found in _BOX.finditer(text) if found["title"].strip().lower().startswith(_BOXES)]
    lines = [line for body in boxes for line in body.split("\n")] or [found["entry"] for found in _ITEM.finditer(text)]
    entries = [entry for line in lines for entry in _entries(line)]
    named_in_full = any(_is_full(entry) for entry in entries)
    names: list[str] = []
    unread: list[str] = []
    for entry in entries:
        bare = entry.strip("`\"'.*_ ")
        if bare.lower() in _EVERYTHING:
            names.append(author)
        elif boxes or _is_full(entry) or bare.lower() == author:
            name = name_of(entry)
            names += [name] if name else []
            unread += [] if name else [entry]
        elif _BARE.fullmatch(bare):
            names += [f"{author}/{bare.lower()}"] if named_in_full else []
        else:
            unread.append(entry)
    own = any(name.partition("/")[0] == author for name in names)
    return list(dict.fromkeys(names if names and (boxes or own) else [*names, author])), unread


def _is_full(entry: str) -> bool:
    """Return whether an entry, beyond doubt, names an account or a repository: it is no bare word."""
    return entry.startswith("@") or is_address(entry) or (("/" in entry or "@" in entry) and name_of(entry) is not None)


def _entries(line: str) -> Iterator[str]:
    """Yield the entries of a line, without remarks. Words around names are not entries; words without any are one."""
    line = _REMARK.sub(" ", _LINK.sub(r" \g<address> ", f" {line.strip().lstrip('-*+ ')} ")).strip()
    if not line or line == _NO_RESPONSE:
        return
    if line.strip("`\"'.*_ ").lower() in _EVERYTHING:
        yield line
        return
    for piece in _SEPARATOR.split(line):
        full = [word for word in piece.split() if _is_full(word.strip("`\"'"))]
        yield from (word.strip("`\"'") for word in full)
        if piece.strip() and not full:
            yield piece.strip()
