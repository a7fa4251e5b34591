"""The problems of benchmarks, as texts that training data must not hold.

In: a file of problems (JSONL, JSON, CSV or Parquet, also ``.gz`` and ``.zst``), several by a pattern, or a Hub id. Out: one `Item` a
problem, with its prompt, solution and tests. Benchmarks of a name in `KNOWN` need no more than the file; of others the keys ``prompt``,
``solution``, ``tests`` and ``text`` are read, or those that ``fields`` names for them. What of an item is looked for, and how, is not
decided here (`data_prep.decontaminate`).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.compressed import open_bytes
from data_prep.python_syntax import python_tree
from data_prep.records import Dropped
from data_prep.sources import HUB_ID, Row, find_tables, numbered_lines, read_line, read_table
from starchat.config import closest
from starchat.errors import UserError

FIELDS = ("prompt", "solution", "tests", "text")
MAX_FIELD_CHARACTERS = 20_000
"""Of a longer text the beginning is looked for: HumanEval+ on the Hub has lists of inputs of megabytes among its tests."""

_NO_NUMBER = re.compile(rb"([\[,:]\s*)(?:-?Infinity|NaN)(?=\s*[\],}])")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark: its name, and where its `problems` are: a file, a pattern of files, or a Hub id with perhaps a `subset` and `split`.

    `fields` maps ``id``, ``prompt``, ``solution``, ``tests`` and ``text`` to the keys of the rows, where they are called otherwise.
    """

    name: str
    problems: str
    subset: str | None = None
    split: str | None = None
    fields: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Known:
    """How a known benchmark is published: where, under which licence, and under which keys.

    An id is made of all keys of `ids` that a row has; of the other lists every key that a row has gives a text. Solutions under a key of
    `faulty` are texts to look for as well, but their functions are often sound ones of another problem: smallest for largest.
    """

    hub: str
    license: str
    ids: tuple[str, ...] = ()
    prompt: tuple[str, ...] = ()
    solution: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    faulty: tuple[str, ...] = ()
    subset: str | None = None
    split: str = "test"


_EVALPLUS = Known(
    "evalplus/humanevalplus", "Apache-2.0", ids=("task_id",), prompt=("prompt",), solution=("canonical_solution",), tests=("test",)
)

KNOWN: Mapping[str, Known] = {
    "humaneval": dataclasses.replace(_EVALPLUS, hub="openai/openai_humaneval", license="MIT"),
    "humaneval+": _EVALPLUS,
    "mbpp": Known(
        "google-research-datasets/mbpp",
        "CC-BY-4.0",
        ids=("task_id",),
        prompt=("text", "prompt"),
        solution=("code",),
        tests=("test_list", "challenge_test_list"),
        subset="full",
    ),
    "mbpp+": Known(
        "evalplus/mbppplus",
        "Apache-2.0",
        ids=("task_id",),
        prompt=("prompt",),
        solution=("canonical_solution", "code"),
        tests=("assertion", "test_list"),
    ),
    "humanevalpack": Known(
        "bigcode/humanevalpack",
        "MIT",
        ids=("task_id",),
        prompt=("docstring",),
        solution=("canonical_solution",),
        tests=("test",),
        faulty=("buggy_solution",),
        subset="python",
    ),
    "multipl-e": Known("nuprl/MultiPL-E", "MIT", ids=("language", "name"), prompt=("prompt",), tests=("tests",), subset="humaneval-js"),
    "ds-1000": Known(
        "xlangai/DS-1000", "CC-BY-SA-4.0", ids=("task_id",), prompt=("prompt",), solution=("reference_code",), tests=("code_context",)
    ),
    "gsm8k": Known("openai/gsm8k", "MIT", prompt=("question",), solution=("answer",), subset="main"),
}
"""Keys as their data cards on the Hub give them, and for HumanEval+ and MBPP+ also those of EvalPlus' release files."""

_OTHER = Known("", "", ids=("id", "task_id"), prompt=("prompt", "text"), solution=("solution",), tests=("tests", "test"))


@dataclasses.dataclass(frozen=True, slots=True)
class Needle:
    """A text of an item, and which of `FIELDS` it is."""

    field: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A problem: its texts, and the Python that its solutions are, where they are Python."""

    benchmark: str
    id: str
    needles: tuple[Needle, ...]
    programs: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """The last part of the id: what a problem's translations into other languages share, as ``CPP/0`` and ``Go/0``."""
        return self.id.rpartition("/")[2]


def read_benchmark(benchmark: Benchmark, place: str) -> list[Item]:
    """Return the items of a benchmark, in the order of its rows; raise `UserError` where a row gives none.

    Rows with one id, such as a problem in two versions of a file, become one item.
    """
    known = _known(benchmark, place)
    items: dict[str, Item] = {}
    for number, row in enumerate(_rows(benchmark, place), 1):
        item = item_of(row.value, benchmark.name, known, number, row.place)
        before = items.get(item.id)
        items[item.id] = item if before is None else _merged(before, item)
    if not items:
        raise UserError(f"{place}: benchmark {benchmark.name}: {benchmark.problems} holds no problems; check the file")
    return list(items.values())


def _known(benchmark: Benchmark, place: str) -> Known:
    """Return which keys hold what: those of a known benchmark, with `fields` over them."""
    if wrong := [key for key in benchmark.fields if key not in ("id", *FIELDS)]:
        raise UserError(f"{place}: benchmark {benchmark.name}: fields: {wrong[0]!r}; {closest(wrong[0], ('id', *FIELDS))}")
    base = KNOWN.get(benchmark.name) or _OTHER
    given = {name: (key,) for name, key in benchmark.fields.items()}
    return dataclasses.replace(
        base,
        ids=given.get("id", base.ids),
        prompt=(*given.get("prompt", () if "text" in given else base.prompt), *given.get("text", ())),
        solution=given.get("solution", base.solution),
        tests=given.get("tests", base.tests),
    )


def _rows(benchmark: Benchmark, place: str) -> Iterator[Row]:
    if HUB_ID.fullmatch(benchmark.problems) and not Path(benchmark.problems).exists():
        yield from _hub_rows(benchmark, place)
        return
    for table in find_tables(benchmark.problems):
        for row in _json_lines(Path(table.path)) if table.reader == "jsonl" else read_table(table):
            if isinstance(row, Dropped):
                raise UserError(f"{row.place}: {row.detail}; it is a problem of benchmark {benchmark.name}")
            yield row


def _json_lines(path: Path) -> Iterator[Row | Dropped]:
    """Yield the rows of JSONL. Infinity and NaN, which are no JSON, are read: MBPP+ as EvalPlus releases it has them among its inputs."""
    with open_bytes(path) as file:
        for place, line in numbered_lines(path, file):
            row = read_line(place, line)
            if isinstance(row, Dropped) and _NO_NUMBER.search(line):
                row = read_line(place, _NO_NUMBER.sub(rb"\1null", line))
            yield row


def _hub_rows(benchmark: Benchmark, place: str) -> Iterator[Row]:
    """Yield the rows of a Hub id."""
    import datasets

    known = KNOWN.get(benchmark.name)
    subset = benchmark.subset or (known.subset if known else None)
    split = benchmark.split or (known.split if known else "test")
    try:
        rows = datasets.load_dataset(benchmark.problems, subset, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{place}: benchmark {benchmark.name}: {benchmark.problems} (subset {subset}, split {split}) could not be loaded from the Hub "
            f"({first}); check its name, or bring its rows as a .jsonl or .parquet file and give that path as problems"
        ) from None
    for number, value in enumerate(rows, 1):
        yield Row(f"{benchmark.problems}:{number}", dict(value))


def item_of(row: Mapping[str, Any], benchmark: str, known: Known, number: int, place: str) -> Item:
    """Return the problem in a row; its id is its number where the row names none."""
    fields = (("prompt", known.prompt), ("solution", known.solution), ("solution", known.faulty), ("tests", known.tests))
    texts = [(field, key, text) for field, keys in fields for key in keys if (text := _text(row.get(key))).strip()]
    if not texts:
        expected = ", ".join(key for _, keys in fields for key in keys)
        raise UserError(
            f"{place}: benchmark {benchmark}: a problem with the keys {', '.join(map(str, row)) or 'none'} holds nothing to look for; "
            f"expected one of {expected}; name its keys with fields: {{prompt: ..., solution: ..., tests: ...}}"
        )
    parts = [str(row[key]) for key in known.ids if row.get(key) is not None]
    needles: list[Needle] = []
    programs: list[str] = []
    heads = [text for key in ("prompt", "declaration") if (text := _text(row.get(key)))]
    for field, key, text in texts:
        if key in known.solution and (program := _program(text, heads)):
            programs.append(program)
        needles += _needles(field, text)
    cut = tuple(dict.fromkeys(Needle(needle.field, needle.text[:MAX_FIELD_CHARACTERS]) for needle in needles))
    return Item(benchmark, "/".join(parts) or str(number), cut, tuple(dict.fromkeys(programs)))


def _text(value: Any) -> str:
    """Return a value as text: lists, as of tests, line by line."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "\n".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _needles(field: str, text: str) -> list[Needle]:
    """Return what is looked for of a text: of a prompt in Python its words alone, and lines with ``assert`` as tests."""
    if field != "prompt":
        return [Needle(field, text)]
    words = _docstring(text) or text
    lines = words.splitlines()
    tests = [line for line in lines if line.lstrip().startswith("assert ")]
    rest = "\n".join(line for line in lines if line not in tests)
    return [Needle(name, found) for name, found in (("prompt", rest), ("tests", "\n".join(tests))) if found.strip()]


def _docstring(prompt: str) -> str | None:
    """Return the documentation of the last function of a prompt in Python, or of its module, as MBPP+ has it; None where there is none.

    >>> _docstring('def add(a, b):\\n    \\"\\"\\"Return the sum.\\n    More.\\n    \\"\\"\\"\\n')
    'Return the sum.\\nMore.'
    """
    try:
        tree = python_tree(prompt)
    except ValueError:
        return None
    scopes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))]
    found = [doc for scope in scopes if (doc := ast.get_docstring(scope, clean=False))]
    return inspect.cleandoc(found[-1]) if found else None


def _program(solution: str, heads: list[str]) -> str | None:
    """Return a solution as Python that parses: by itself, or as what goes on where a prompt ends; None if it is none."""
    begun = [head + solution for head in heads] if re.match(r"\s*\n?[ \t]+\S", solution) else []
    for text in (*begun, solution, textwrap.dedent(solution), f"def solution():\n{textwrap.indent(textwrap.dedent(solution), '    ')}"):
        try:
            tree = python_tree(text)
        except ValueError:
            continue
        if tree.body:
            return text
    return None


def _merged(first: Item, second: Item) -> Item:
    needles = tuple(dict.fromkeys((*first.needles, *second.needles)))
    return dataclasses.replace(first, needles=needles, programs=tuple(dict.fromkeys((*first.programs, *second.programs))))
