"""Documented functions as dialogues: what the documentation asks for, and the code.

In: the text of a file. Out: `Documented` of Python by its own parser, of other languages by `data_prep.doc_comments`; why one is not
used; and the two turns of one that is. The instruction is one of a handful of templates, drawn by the hash of the function.

Not used, by name: ``short_doc``, ``todo_doc``, ``directive_doc``, ``parameters_only_doc``, ``name_only_doc``, ``stub``,
``long_function``, ``test_function``, ``ambiguous_end``.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

from data_prep.doc_comments import SCANNED, Documented, documented_functions
from data_prep.languages import fence_label
from data_prep.python_syntax import python_tree
from starchat.dialogue import Turn
from starchat.fences import fenced
from starchat.files import digest_json

MIN_DOC_WORDS = 4
LANGUAGES = frozenset({"Python", *SCANNED})
"""The languages whose functions become dialogues."""

_TODO = re.compile(r"\W*(?:todo|fixme|xxx|hack|tbd|wip|not implemented|placeholder|deprecated)\b", re.IGNORECASE)
_DIRECTIVE = re.compile(
    r"\W*(?:eslint|jshint|jslint|nolint|noqa|go:\w|pragma|prettier|@ts-|istanbul|copyright|spdx|licensed under)", re.IGNORECASE
)
_PARAMETERS = re.compile(
    r"\s*(?:[:@\\](?:param|type|arg|args|return|returns|rtype|raises|throws|tparam|inheritdoc)\b"
    r"|(?:Args|Arguments|Parameters|Returns|Raises|Yields):)"
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_EMPTY_WORDS = frozenset(
    {"a", "an", "the", "this", "that", "of", "to", "for", "in", "on", "and", "or", "is", "are", "be", "it", "its", "with", "from", "by"}
    | {"as", "at", "function", "method", "class", "returns", "return"}
)
_HEADER_END = re.compile(r":[ \t]*(?:#.*)?$")
_STUB = re.compile(
    r"(?:pass|\.\.\.|return|return None|raise NotImplementedError(?:\(.*\))?|unimplemented!\(.*\);?|todo!\(.*\);?)?", re.DOTALL
)

TEMPLATES = (
    "Write {a} {subject}.\n\n{doc}",
    "Implement this {subject}:\n\n{doc}",
    "I need {a} {subject}. This is what it should do:\n\n{doc}",
    "Here is the documentation of {a} {subject}. Write its code.\n\n{doc}",
    "How would you write this {subject}?\n\n{doc}",
    "{doc}\n\nWrite this as {a} {subject}.",
)
_AN = frozenset({"R", "Objective-C"})


def functions_of(text: str, language: str) -> Iterator[Documented]:
    """Yield the documented functions of a file; raise `ValueError` with the reason where Python does not parse."""
    return _python(text) if language == "Python" else documented_functions(text, language)


def _python(text: str) -> Iterator[Documented]:
    lines = text.split("\n")
    scopes: list[tuple[ast.AST, str | None]] = [(python_tree(text), None)]
    found: list[Documented] = []
    for scope, owner in scopes:  # grows while it is walked
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, ast.ClassDef):
                scopes.append((node, node.name))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if (function := _python_function(node, owner, lines)) is not None:
                    found.append(function)
            elif isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
                scopes.append((node, owner))
    yield from sorted(found, key=lambda function: function.line)


def _python_function(node: ast.FunctionDef | ast.AsyncFunctionDef, owner: str | None, lines: list[str]) -> Documented | None:
    """Return a function with its docstring, or None if it has none."""
    doc = ast.get_docstring(node, clean=False)
    if doc is None:
        return None
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    last = node.end_lineno or node.lineno
    statement = node.body[0]
    begin, end = statement.lineno, statement.end_lineno or statement.lineno
    alone = begin > node.lineno and len(node.body) > 1 and node.body[1].lineno > end
    kept = lines[first - 1 : last]
    rest = (
        [*lines[first - 1 : begin - 1], *_without_blank_head(lines[end:last])]
        if alone
        else [lines[first - 1]]
        if len(node.body) == 1
        else kept
    )
    return Documented(node.name, owner, inspect.cleandoc(doc), _block(kept), _block(rest), first, len(node.body) > 1 and not alone)


def _without_blank_head(lines: list[str]) -> list[str]:
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    return lines[first:]


def _block(lines: list[str]) -> str:
    """Return lines less the indentation of the first: text in strings that stands further left stays as it is."""
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())] if lines else ""
    return "\n".join(line.removeprefix(indent) for line in lines) + "\n"


def unused(found: Documented, language: str, max_lines: int | None) -> tuple[str, str] | None:
    """Return why a function makes no dialogue, as a reason and its detail, or None if it makes one.

    >>> def reason(name, doc): return unused(Documented(name, None, doc, "", "def f(x):\\n    return x + 1\\n", 1), "Python", 50)
    >>> reason("read_file", "Read the file."), reason("read", "Return the rows of a table, sorted by name.")
    (('name_only_doc', 'the documentation says no more than the name'), None)
    """
    if re.match(r"[tT]est(?:_|[A-Z\d]|$)", found.name):
        return "test_function", found.name
    if found.ambiguous:
        return "ambiguous_end", "it cannot be told where the function or its documentation ends"
    size = found.code.count("\n")
    if max_lines is not None and size > max_lines:
        return "long_function", f"{size} lines; at most {max_lines}"
    if _TODO.match(found.doc):
        return "todo_doc", found.doc.split("\n", 1)[0][:100]
    if _DIRECTIVE.match(found.doc):
        return "directive_doc", found.doc.split("\n", 1)[0][:100]
    if _PARAMETERS.match(found.doc):
        return "parameters_only_doc", found.doc.split("\n", 1)[0][:100]
    words = [word.lower() for word in _WORD.findall(_summary(found.doc))]
    if len({word.rstrip("s") for word in words if word not in _EMPTY_WORDS} - _name_words(found)) == 0 and words:
        return "name_only_doc", "the documentation says no more than the name"
    if len(words) < MIN_DOC_WORDS and sum(map(str.isalpha, found.doc)) < 5 * MIN_DOC_WORDS:
        return "short_doc", f"{len(words)} words; at least {MIN_DOC_WORDS}"
    return ("stub", "it does nothing") if _is_stub(found.bare, language) else None


def _summary(doc: str) -> str:
    """Return a documentation up to its list of parameters."""
    lines = doc.split("\n")
    return "\n".join(lines[: next((n for n, line in enumerate(lines) if n and _PARAMETERS.match(line)), len(lines))])


def _name_words(found: Documented) -> set[str]:
    names = [found.name, found.owner or ""]
    return {word.lower().rstrip("s") for name in names for word in _WORD.findall(name)}


def _is_stub(bare: str, language: str) -> bool:
    """Return whether a function's body holds nothing but a sign that it is to be written."""
    lines = [line for line in bare.split("\n") if not line.lstrip().startswith(("#", "//"))]
    if language == "Python":
        first = next((number for number, line in enumerate(lines) if _HEADER_END.search(line)), 0)
        body = "\n".join(lines[first + 1 :])
    elif SCANNED[language].closes == "end":
        body = "\n".join(lines[1:]).strip().removesuffix("end")
    else:
        body = "\n".join(lines).partition("{")[2].rpartition("}")[0]
    return _STUB.fullmatch(body.strip()) is not None


def turns_of(found: Documented, language: str, seed: int, keep_docs: bool) -> tuple[Turn, Turn]:
    """Return the instruction and the code of a function; which template it is depends on the seed and the function alone.

    >>> asked, answer = turns_of(Documented("area", "Disc", "Return the area.", "", "def area(self): ...\\n", 1), "Python", 0, False)
    >>> "Python method `area` of the class `Disc`" in asked.content, answer.content
    (True, '```python\\ndef area(self): ...\\n```')
    """
    number = int(digest_json([seed, found.owner, found.name, found.doc]), 16) % len(TEMPLATES)
    subject = f"{language} method `{found.name}` of the class `{found.owner}`" if found.owner else f"{language} function `{found.name}`"
    asked = TEMPLATES[number].format(a="an" if language in _AN else "a", subject=subject, doc=found.doc)
    code = found.code if keep_docs else found.bare
    return Turn("user", asked), Turn("assistant", fenced(code, fence_label(language)))
