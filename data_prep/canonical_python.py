"""Python functions without what their authors are free to choose: names, formatting, comments, documentation, annotations.

In: Python. Out: one `Canonical` a function, and one for the statements outside of functions. Two functions have one digest if renaming
their variables, arguments, and the functions and classes of their own file, quoting and laying them out anew, and changing comments,
docstrings, annotations and decorators turns one into the other. What they import, attributes and constants tell them apart.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import dataclasses
import hashlib
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping

from data_prep.python_syntax import python_tree

_LEFT_OUT = frozenset(("annotation", "returns", "decorator_list", "type_comment", "type_params", "ctx", "kind", "type_ignores"))
_BODIES = frozenset(("body", "orelse", "finalbody", "handlers", "cases"))
_DEF = re.compile(r"(?P<indent>[ \t]*)(?:async[ \t]+)?def[ \t]")
MAX_BLOCK_LINES = 200
MAX_PARSED_CHARACTERS = 1 << 20  # a tree takes a hundred times the memory of its text
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclasses.dataclass(frozen=True, slots=True)
class Canonical:
    """A function as it is compared. `size` counts the nodes of its tree; `statements` has a digest of each statement's own part.

    `body` is the digest of the body alone, which has `body_size` nodes: of two methods or functions that take other arguments it is one.

    `code` is its body as it was written, less the documentation; `inner` whether it stands in another function.
    """

    name: str
    line: int
    size: int
    digest: bytes
    body: bytes
    body_size: int
    statements: tuple[bytes, ...]
    code: str
    inner: bool = False


def canonical_functions(text: str, wanted: Callable[[str], bool] | None = None) -> list[Canonical]:
    """Return every function of Python, inner ones too, and under the name ``""`` the statements outside of functions and classes.

    With `wanted`, only those whose body, as it was written, it is true of. Raises `ValueError` that says where a text does not parse.

    >>> one, _ = canonical_functions("def mean(xs):\\n    'The mean.'\\n    return sum(xs) / len(xs)")
    >>> two, _ = canonical_functions("def average(values: list) -> float:\\n    return (sum(values) /  # all of them\\n  len(values))")
    >>> one.digest == two.digest, one.digest == canonical_functions("def mean(xs):\\n    return max(xs) / len(xs)")[0].digest
    (True, False)
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    tree = python_tree(text)
    lines = text.encode("utf-8", "surrogatepass").split(b"\n")
    shared, modules = _file_names(tree), _modules(tree)
    outside = [node for node in tree.body if not isinstance(node, (*_SCOPES, ast.Import, ast.ImportFrom))]
    found = []
    try:
        for node, inner in (*_functions(tree), (None, False)):
            body = node.body if node else outside
            code = _code([statement for statement in body if not _is_text(statement)], lines)
            if wanted is None or wanted(code):
                found.append(dataclasses.replace(_canonical(node, body, code, shared, modules), inner=inner))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def functions_in(text: str, wanted: Callable[[str], bool]) -> list[Canonical]:
    """Return the functions of a text that `wanted` is true of; where the text does not parse, or is very long, those that do by themselves.

    >>> found = functions_in("Such as:\\n\\n    def f(x):\\n        return x\\n\\nThat is all", lambda code: True)
    >>> [(function.name, function.line) for function in found]
    [('f', 3), ('', 3)]
    """
    if len(text) <= MAX_PARSED_CHARACTERS:
        with contextlib.suppress(ValueError):
            return canonical_functions(text, wanted)
    found: list[Canonical] = []
    lines = text.splitlines(keepends=True)
    number = 0
    while number < len(lines):
        begin = _DEF.match(lines[number])
        if begin is None:
            number += 1
            continue
        indent = len(begin["indent"])
        rest = lines[number + 1 : number + MAX_BLOCK_LINES]
        count = next((n for n, line in enumerate(rest) if line.strip() and len(line) - len(line.lstrip()) <= indent), len(rest))
        block = textwrap.dedent("".join(lines[number : number + 1 + count]))
        try:
            functions = canonical_functions(block, wanted) if wanted(block) else []
            found += [dataclasses.replace(function, line=function.line + number) for function in functions]
            number += 1 + count
        except ValueError:
            number += 1
    return found


def _canonical(
    node: ast.FunctionDef | ast.AsyncFunctionDef | None,
    body: list[ast.stmt],
    code: str,
    shared: frozenset[str],
    modules: Mapping[str, str],
) -> Canonical:
    """Return a function, or the statements of a module, in canonical form."""
    own = shared | frozenset(bound for part in ([node] if node else body) for bound in _bound(part))
    speller = _Speller(own, modules)
    if node is not None:
        speller.name(node.name)
        speller.spell(node.args)
    speller.statements(body)
    alone = _Speller(own, modules)
    alone.statements(body)
    digests = []
    for statement in _flat(body):
        head = _Speller(own, modules)
        head.head(statement)
        digests.append(head.digest())
    name, line = (node.name, node.lineno) if node else ("", 1)
    return Canonical(name, line, speller.size, speller.digest(), alone.digest(), alone.size, tuple(digests), code)


class _Speller:
    """Spells trees with names numbered in the order in which they appear."""

    def __init__(self, own: frozenset[str], modules: Mapping[str, str]) -> None:
        self._own, self._modules = own, modules
        self._numbers: dict[str, int] = {}
        self._words: list[str] = []
        self.size = 0

    def digest(self) -> bytes:
        """Return the digest of all that was spelled."""
        return hashlib.blake2b("\x1f".join(self._words).encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def name(self, name: str) -> None:
        """Spell a name: by its number if the code itself bound it."""
        if name in self._own:
            self._words.append(f"v{self._numbers.setdefault(name, len(self._numbers))}")
        else:
            self._words.append(f"={self._modules.get(name, name)}")

    def statements(self, body: list[ast.stmt]) -> None:
        """Spell statements, texts that stand alone left out."""
        self._words.append("(")
        for statement in body:
            if not _is_text(statement):
                self.spell(statement)
        self._words.append(")")

    def head(self, statement: ast.AST) -> None:
        """Spell a statement without the statements in it."""
        self._fields(statement, _BODIES)

    def spell(self, node: ast.AST) -> None:
        """Spell a node and all below it."""
        self._fields(node, frozenset())

    def _fields(self, node: ast.AST, left_out: frozenset[str]) -> None:
        self.size += 1
        if isinstance(node, ast.Name):
            self.name(node.id)
            return
        if isinstance(node, ast.Constant):
            self._words.append(f"{type(node.value).__name__}:{node.value!r}")
            return
        if isinstance(node, ast.AnnAssign):
            node = ast.Assign([node.target], node.value) if node.value else node.target
        self._words.append(type(node).__name__)
        for field, value in ast.iter_fields(node):
            if field in _LEFT_OUT or field in left_out:
                continue
            if field in ("body", "orelse", "finalbody") and isinstance(value, list):
                self.statements(value)
            else:
                self._value(node, field, value)

    def _value(self, node: ast.AST, field: str, value: object) -> None:
        if isinstance(value, ast.AST):
            self.spell(value)
        elif isinstance(value, list):
            self._words.append("[")
            for part in value:
                self._value(node, field, part)
            self._words.append("]")
        elif isinstance(value, str) and (field in ("id", "arg", "asname", "names", "rest") or field == "name") and _names(node):
            self.name(value)
        else:
            self._words.append(f"{value!r}")


def _names(node: ast.AST) -> bool:
    """Return whether a text in a node is a name that the code binds: that of an argument of a call, say, is not."""
    return not isinstance(node, ast.keyword | ast.Attribute | ast.ImportFrom) and not (isinstance(node, ast.alias) and node.asname is None)


def _functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Yield every function of a tree, and whether it stands in another one."""
    waiting: collections.deque[tuple[ast.AST, bool]] = collections.deque([(tree, False)])
    while waiting:
        node, inner = waiting.popleft()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, inner
            inner = True
        waiting.extend((child, inner) for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))


def _bound(tree: ast.AST) -> Iterator[str]:
    """Yield every name that is bound anywhere in a tree: arguments, variables, functions and classes, in inner functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, _SCOPES):
            yield node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest


def _file_names(tree: ast.Module) -> frozenset[str]:
    """Return the functions and classes that a file defines at its top."""
    return frozenset(node.name for node in tree.body if isinstance(node, _SCOPES))


def _modules(tree: ast.Module) -> dict[str, str]:
    """Return what a file's own short names of modules stand for, such as ``np``."""
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname: alias.name for node in imports for alias in node.names if alias.asname}


def _flat(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield statements and those within them, in the order of the text; inner functions and classes give only their heads' own part."""
    for statement in body:
        if _is_text(statement):
            continue
        yield statement
        for field in ("body", "handlers", "cases", "orelse", "finalbody"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list):
                yield from _flat(inner)


def _is_text(statement: ast.AST) -> bool:
    """Return whether a statement does nothing: a text that stands alone, or ``pass``."""
    return isinstance(statement, ast.Pass) or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))


def _code(body: list[ast.stmt], lines: list[bytes]) -> str:
    """Return statements as they were written."""
    pieces = []
    for statement in body:
        piece = lines[statement.lineno - 1 : statement.end_lineno]
        piece[-1] = piece[-1][: statement.end_col_offset]
        piece[0] = piece[0][statement.col_offset :]
        pieces.append(b"\n".join(piece))
    return b"\n".join(pieces).decode("utf-8", "surrogatepass")
