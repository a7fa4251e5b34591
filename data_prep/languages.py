"""Which language a file is in, by its name and first line.

The table ``languages.json`` holds the names, types, extensions, file names and interpreters of github-linguist 9.6.0
(``lib/linguist/languages.yml``, MIT licence). Where several languages share an extension, the one in wider use has it here: contents
are not looked at.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

_SHEBANG = re.compile(r"#![ \t]*(?:\S*/)?(?:env[ \t]+(?:-S[ \t]+)?)?(?P<program>[\w.+-]+)")

LINE_COMMENTS: Mapping[str, str] = {
    **dict.fromkeys(("Python", "Ruby", "Shell", "R", "Julia", "Perl", "Elixir", "Raku", "PowerShell", "Sage", "Tcl"), "#"),
    **dict.fromkeys(("C", "C++", "C#", "Java", "JavaScript", "TypeScript", "Go", "Rust", "Kotlin", "Scala", "Swift", "PHP", "F#"), "//"),
    **dict.fromkeys(("SQL", "Haskell", "Lua"), "--"),
    **dict.fromkeys(("MATLAB", "Prolog", "TeX", "Erlang"), "%"),
    **dict.fromkeys(("Scheme", "Clojure", "Common Lisp"), ";"),
}
"""How a comment line begins in the languages of notebooks."""

FENCES: Mapping[str, str] = {
    **{"Shell": "bash", "C++": "cpp", "C#": "csharp", "F#": "fsharp", "TeX": "latex", "Objective-C": "objc"},
    **{"Objective-C++": "objcpp", "Emacs Lisp": "elisp", "Common Lisp": "lisp", "Protocol Buffer": "protobuf"},
}
"""What a fenced block calls a language, where it is not the name in lower case without spaces."""


@functools.cache
def languages() -> Mapping[str, Mapping[str, Any]]:
    """Return the table: of each language its `type` (programming, data, markup or prose), `extensions`, perhaps `filenames` and
    `interpreters`."""
    table: dict[str, dict[str, Any]] = json.loads((files("data_prep") / "languages.json").read_text(encoding="utf-8"))
    return table


@functools.cache
def _index(key: str) -> Mapping[str, str]:
    return {name: language for language, entry in languages().items() for name in entry.get(key, ())}


def language_of(path: str, text: str = "") -> str | None:
    """Return the language of a file, or None; `text` is looked at only where the name says nothing, for its ``#!`` line.

    >>> language_of("src/a.py"), language_of("Makefile"), language_of("run", "#!/usr/bin/env python3\\n"), language_of("x.unknown")
    ('Python', 'Makefile', 'Python', None)
    """
    name = path.rpartition("/")[2]
    if (named := _index("filenames").get(name)) is not None:
        return named
    extensions, start = _index("extensions"), name.find(".", 1)
    while start > 0:  # a dot at the beginning hides a file and begins no extension
        if (found := extensions.get(name[start:].lower())) is not None:
            return found
        start = name.find(".", start + 1)
    shebang = _SHEBANG.match(text)
    if shebang is None:
        return None
    program = shebang["program"]
    return _index("interpreters").get(program) or _index("interpreters").get(re.sub(r"[\d.]+$", "", program))


def type_of(language: str | None) -> str | None:
    """Return a language's type: programming, data, markup or prose; None for no language."""
    return None if language is None else str(languages()[language]["type"])


def fence_label(language: str | None) -> str:
    """Return what a fenced block calls a language; nothing for none.

    >>> fence_label("Python"), fence_label("C++"), fence_label(None)
    ('python', 'cpp', '')
    """
    return "" if language is None else FENCES.get(language, language.lower().replace(" ", ""))
