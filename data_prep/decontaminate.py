"""Which problems of benchmarks a record holds, and which it nearly holds.

In: rules that name benchmarks (`data_prep.benchmark_items`), and the texts of records (`data_prep.matched_texts`). Out: for a
record its `Match` es, of which those that are `contaminated` are to be dropped for; the others are near misses, for the report
(`data_prep.near_miss`).

Three matchers look for each problem, each for what the others cannot see:

``verbatim``  a prompt, solution or tests occur whole, white space and case aside: also texts too short for n-grams;
``ngrams``    a stated share of the runs of words of one of them occurs: also where words in between were changed;
``python``    a function has the canonical tree of a solution, or its body has: also with other names, quotes, comments, lay-out, arguments.

What many problems share and what says little is not looked for: `Matcher.unused` lists which texts that leaves out, and why.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.benchmark_items import Benchmark, Item, read_benchmark
from data_prep.canonical_python import Canonical, canonical_functions, functions_in
from data_prep.gram_index import WORD, GramIndex, build_index, gram_hashes, stream_hashes, words_of
from data_prep.verbatim import MIN_BYTES, SPACE, VerbatimIndex, bare, build_verbatim
from starchat.config import closest
from starchat.errors import UserError

MATCHERS = ("verbatim", "ngrams", "python")
MAX_SHARING_PROBLEMS = 3
"""An n-gram that more problems of one benchmark have is how that benchmark is written, such as the head of every test."""

MIN_DIFFERENT_WORDS, MIN_DIFFERENT_NAMES = 6, 2
"""An n-gram with fewer different words, or fewer of two letters and more, such as a row of numbers, says nothing."""

PYTHON_GRAM = 6
GATE_SHARE = 0.75
"""A function is only parsed where this share of a solution's runs of tokens is found; where the trees are equal all are."""

LAST_SIGNS = b".,;:!?"
"""What may stand at the end of a text, or not, for which it is looked for whole."""

STATEMENTS = 3
"""Statements in a row that a near miss has in common with a solution, as one unit of the share."""

MAX_EXCERPT = 60

PIECE_CHARACTERS, OVERLAP_CHARACTERS = 1 << 23, 1 << 20
"""How much of a text is looked at in one go, so that memory does not grow with it. No text of a problem is longer than the overlap."""

COMMON_CODE = (
    "for i in range(n): for j in range(i + 1, n): for k in range(j + 1, n):",
    "for i in range(len(l)): for j in range(i + 1, len(l)): for k in range(j + 1, len(l)): if l[i] + l[j] + l[k] == 0:",
    "for i in range(len(l)): for j in range(len(l[i])): if l[i][j] == x:",
    "for i in range(2, int(math.sqrt(n)) + 1): if n % i == 0: return False return True",
    "for i in range(2, int(n ** 0.5) + 1): if n % i == 0: return False return True",
    "x = pow(a, d, n) if x == 1 or x == n - 1: continue for _ in range(r - 1): x = pow(x, 2, n) if x == n - 1: break else: return False",
    "0: zero, 1: one, 2: two, 3: three, 4: four, 5: five, 6: six, 7: seven, 8: eight, 9: nine, 10: ten, 11: eleven, 12: twelve",
    "zero: 0, one: 1, two: 2, three: 3, four: 4, five: 5, six: 6, seven: 7, eight: 8, nine: 9, ten: 10, eleven: 11, twelve: 12",
)
"""Idioms that solutions of benchmarks share with everybody's code; their n-grams are not looked for.

They are what was found in 240 MB of installed packages of HumanEval, MBPP+ and HumanEvalPack without being a solution.
"""


@dataclasses.dataclass(frozen=True)
class DecontaminationRules:
    """What is looked for, and from when a record is dropped.

    A text is found by its n-grams of `ngram_words` words where `min_share` of them occur, at least `min_ngrams`; where fewer do, but
    `near_share`, it is a near miss. A text of fewer than `min_verbatim_bytes` without white space is too short to be looked for whole, a
    function of fewer than `min_python_nodes` nodes to be told from others.
    """

    benchmarks: tuple[Benchmark, ...]
    matchers: tuple[str, ...] = MATCHERS
    ngram_words: int = 12
    min_share: float = 0.1
    min_ngrams: int = 3
    near_share: float = 0.05
    min_verbatim_bytes: int = 40
    min_python_nodes: int = 20


class Owner(NamedTuple):
    """The problem that a text belongs to, and which of its texts it is."""

    benchmark: str
    item: str
    field: str


class Unused(NamedTuple):
    """A text that a matcher does not look for, and why."""

    owner: Owner
    matcher: str
    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """What a record shares with a problem: `share` of its `field`, as `matcher` counts it; `excerpt` is of the record."""

    benchmark: str
    item: str
    field: str
    matcher: str
    share: float
    contaminated: bool
    excerpt: str

    def detail(self) -> str:
        """Return the match in words, as a dropped row's detail.

        >>> Match("humaneval", "HumanEval/0", "solution", "python", 1.0, True, "has_close").detail()
        "100% of the solution of HumanEval/0 (humaneval), by python: 'has_close'"
        """
        return f"{self.share:.0%} of the {self.field} of {self.item} ({self.benchmark}), by {self.matcher}: {self.excerpt!r}"


@dataclasses.dataclass(frozen=True, eq=False)
class Matcher:
    """All problems, ready to be looked for. `items` counts the problems of each benchmark, `unused` lists what is not looked for."""

    rules: DecontaminationRules
    items: Mapping[str, int]
    unused: tuple[Unused, ...]
    verbatim: VerbatimIndex
    verbatim_owners: Sequence[tuple[Owner, ...]]
    words: GramIndex
    word_owners: Sequence[tuple[Owner, ...]]
    tokens: GramIndex
    functions: Sequence[tuple[Canonical, tuple[Owner, ...]]]
    digests: Mapping[bytes, tuple[int, ...]]

    def match(self, text: str, python: Iterable[str] = (), engine: str | None = None) -> list[Match]:
        """Return what a record shares with each problem, contaminated first; for a field and matcher only the largest share.

        `python` are those pieces of the record that are Python, or may be. `engine` is ``numba``, ``numpy`` or None for the faster one
        there is; all give the same.
        """
        found: list[Match] = []
        for piece in pieces(text):
            data = piece.encode("utf-8", "surrogatepass")
            found += [*self._verbatim(data, engine), *self._words(data, piece, engine)]
        for program in python:
            for piece in pieces(program):
                found += self._functions(piece, engine)
        best: dict[tuple[str, ...], Match] = {}
        for match in found:
            key = (match.benchmark, match.item, match.field, match.matcher)
            if key not in best or _order(match) < _order(best[key]):
                best[key] = match
        return sorted(best.values(), key=_order)

    def _verbatim(self, data: bytes, engine: str | None) -> Iterable[Match]:
        if not (found := self.verbatim.found(data, engine)):
            return
        kept = np.flatnonzero(~np.isin(np.frombuffer(data, np.uint8), list(SPACE)))
        for needle, place in found.items():
            excerpt = _excerpt_at(data, kept, place, len(self.verbatim.needles[needle]))
            for owner in self.verbatim_owners[needle]:
                yield Match(*owner, "verbatim", 1.0, True, excerpt)

    def _words(self, data: bytes, text: str, engine: str | None) -> Iterable[Match]:
        for needle, count, place in self.words.shared(data, min(self.rules.near_share, self.rules.min_share), engine):
            total = self.words.totals[needle]
            share = count / total
            contaminated = share >= self.rules.min_share and count >= min(self.rules.min_ngrams, total)
            if contaminated or share >= self.rules.near_share:
                excerpt = _excerpt_of_words(text, place, self.rules.ngram_words)
                for owner in self.word_owners[needle]:
                    yield Match(*owner, "ngrams", share, contaminated, excerpt)

    def _functions(self, program: str, engine: str | None) -> Iterable[Match]:
        near = self._gate(program, engine)
        if not near:
            return
        for function in functions_in(program, lambda code: bool(self._gate(code, engine))):
            same = {*self.digests.get(function.digest, ()), *self.digests.get(function.body, ())}
            excerpt = f"line {function.line}: {function.name or 'statements'}"[:MAX_EXCERPT]
            for needle in near:
                solution, owners = self.functions[needle]
                share = 1.0 if needle in same else _statement_share(solution, function)
                if share >= GATE_SHARE:
                    for owner in owners:
                        yield Match(*owner, "python", share, needle in same, excerpt)

    def _gate(self, code: str, engine: str | None) -> list[int]:
        """Return the solutions of whose tokens a piece of Python has enough to be parsed for."""
        shared = self.tokens.shared(code.encode("utf-8", "surrogatepass"), GATE_SHARE, engine)
        return [needle for needle, count, _ in shared if count == self.tokens.totals[needle] or _runs(self.functions[needle][0])]


def pieces(text: str, size: int = PIECE_CHARACTERS, overlap: int = OVERLAP_CHARACTERS) -> Iterator[str]:
    """Yield a text in pieces that overlap: whatever is at most `overlap` long lies whole in one of them.

    >>> list(pieces("abcdefgh", 5, 2)), list(pieces("abcde", 5, 2)), list(pieces("", 5, 2))
    (['abcde', 'defgh'], ['abcde'], [''])
    """
    yield text[:size]
    for begin in range(size - overlap, len(text) - overlap, size - overlap):
        yield text[begin : begin + size]


def _order(match: Match) -> tuple[Any, ...]:
    return (not match.contaminated, -match.share, match.benchmark, match.item, match.field, match.matcher, match.excerpt)


def open_matcher(rules: DecontaminationRules, place: str) -> Matcher:
    """Return the matcher of rules, their benchmarks read; raise `UserError` for what of both must be changed."""
    _check(rules, place)
    items = [item for benchmark in rules.benchmarks for item in read_benchmark(benchmark, place)]
    return build_matcher(rules, items)


def _check(rules: DecontaminationRules, place: str) -> None:
    if not rules.benchmarks:
        raise UserError(f"{place}: benchmarks is empty; name at least one, such as {{name: humaneval, problems: HumanEval.jsonl.gz}}")
    if wrong := [name for name in rules.matchers if name not in MATCHERS]:
        raise UserError(f"{place}: matchers: {wrong[0]!r}; {closest(wrong[0], MATCHERS)}")
    for key, low in (("ngram_words", 2), ("min_ngrams", 1), ("min_verbatim_bytes", MIN_BYTES), ("min_python_nodes", 1)):
        if getattr(rules, key) < low:
            raise UserError(f"{place}: {key}: {getattr(rules, key)}; expected a number from {low}")
    for key in ("min_share", "near_share"):
        if not 0 < getattr(rules, key) <= 1:
            raise UserError(f"{place}: {key}: {getattr(rules, key)}; expected a number above 0, at most 1")


def build_matcher(rules: DecontaminationRules, items: Sequence[Item]) -> Matcher:
    """Return the matcher of items that were read."""
    unused: list[Unused] = []
    texts, text_owners = _whole_texts(rules, items, unused)
    grams, gram_owners = _gram_lists(rules, items, unused)
    functions = _solutions(rules, items, unused)
    tokens = [_token_grams(function) for function, _ in functions]
    counts = collections.Counter(item.benchmark for item in items)
    return Matcher(
        rules,
        dict(sorted(counts.items())),
        tuple(unused),
        build_verbatim(texts),
        text_owners,
        build_index("words", rules.ngram_words, grams),
        gram_owners,
        build_index("python", PYTHON_GRAM, tokens),
        functions,
        _digests(rules, functions),
    )


def _whole_texts(rules: DecontaminationRules, items: Sequence[Item], unused: list[Unused]) -> tuple[list[bytes], list[tuple[Owner, ...]]]:
    """Return the texts that are looked for whole, each with all whose it is."""
    owners: dict[bytes, dict[Owner, None]] = {}
    for item in items if "verbatim" in rules.matchers else ():
        for needle in item.needles:
            text = bare(needle.text.encode("utf-8", "surrogatepass")).rstrip(LAST_SIGNS)
            owner = Owner(item.benchmark, item.id, needle.field)
            if len(text) < rules.min_verbatim_bytes:
                unused.append(Unused(owner, "verbatim", f"{len(text)} bytes without white space; from {rules.min_verbatim_bytes}"))
            else:
                owners.setdefault(text, {})[owner] = None
    return list(owners), [tuple(found) for found in owners.values()]


def _gram_lists(rules: DecontaminationRules, items: Sequence[Item], unused: list[Unused]) -> tuple[list[Any], list[tuple[Owner, ...]]]:
    """Return the n-grams that are looked for of each text, and all whose it is."""
    size = rules.ngram_words
    owners: dict[bytes, dict[Owner, None]] = {}
    arrays: dict[bytes, Any] = {}
    problems: dict[str, dict[int, set[str]]] = collections.defaultdict(lambda: collections.defaultdict(set))
    for item in items if "ngrams" in rules.matchers else ():
        for needle in item.needles:
            data = needle.text.encode("utf-8", "surrogatepass")
            grams = gram_hashes(stream_hashes(data, "words"), size)
            telling = grams[_telling(words_of(needle.text), size)]
            owner = Owner(item.benchmark, item.id, needle.field)
            if not len(telling):
                few = f"fewer than {size} words" if not len(grams) else "no run of words that says enough"
                unused.append(Unused(owner, "ngrams", few))
                continue
            key = telling.tobytes()
            arrays[key] = np.unique(telling)
            owners.setdefault(key, {})[owner] = None
            for gram in arrays[key].tolist():
                problems[item.benchmark][gram].add(item.problem)
    common = {gram for found in problems.values() for gram, names in found.items() if len(names) > MAX_SHARING_PROBLEMS}
    common.update(gram for text in COMMON_CODE for gram in gram_hashes(stream_hashes(text.encode(), "words"), size).tolist())
    lists, listed = [], []
    for key, array in arrays.items():
        kept = np.array([gram for gram in array.tolist() if gram not in common], np.uint64)
        if len(kept):
            lists.append(kept)
            listed.append(tuple(owners[key]))
        else:
            unused += [Unused(owner, "ngrams", "only runs of words that many have") for owner in owners[key]]
    return lists, listed


def _telling(words: Sequence[bytes], size: int) -> Any:
    """Return of each run of `size` words whether it has enough different words to be told from others."""
    names = [word if len(word) > 1 and any(byte > 57 and byte != 95 for byte in word) else b"" for word in words]
    flags = [
        len(set(words[i : i + size])) >= min(MIN_DIFFERENT_WORDS, size)
        and len(set(names[i : i + size]) - {b""}) >= min(MIN_DIFFERENT_NAMES, size)
        for i in range(len(words) - size + 1)
    ]
    return np.array(flags, np.bool_)


def _solutions(rules: DecontaminationRules, items: Sequence[Item], unused: list[Unused]) -> list[tuple[Canonical, tuple[Owner, ...]]]:
    """Return the functions of all solutions that are large enough, equal ones once."""
    found: dict[bytes, tuple[Canonical, dict[Owner, None]]] = {}
    for item in items if "python" in rules.matchers else ():
        owner = Owner(item.benchmark, item.id, "solution")
        functions = [function for program in item.programs for function in canonical_functions(program) if not function.inner]
        large = [f for f in functions if f.size >= rules.min_python_nodes and len(_token_grams(f))]
        if functions and not large:
            most = max(function.size for function in functions)
            unused.append(Unused(owner, "python", f"{most} nodes; from {rules.min_python_nodes}"))
        for function in large:
            found.setdefault(function.digest, (function, {}))[1][owner] = None
    return [(function, tuple(owners)) for function, owners in found.values()]


def _digests(rules: DecontaminationRules, functions: Sequence[tuple[Canonical, tuple[Owner, ...]]]) -> dict[bytes, tuple[int, ...]]:
    """Return by which digests each function is known: the whole one's, and its body's where that is large enough by itself."""
    found: dict[bytes, tuple[int, ...]] = {}
    for number, (function, _) in enumerate(functions):
        for digest in (function.digest, function.body)[: 2 if function.body_size >= rules.min_python_nodes else 1]:
            found[digest] = (*found.get(digest, ()), number)
    return found


def _token_grams(function: Canonical) -> Any:
    return gram_hashes(stream_hashes(function.code.encode("utf-8", "surrogatepass"), "python"), PYTHON_GRAM)


def _statement_share(solution: Canonical, function: Canonical) -> float:
    """Return how much of a solution's runs of statements a function has."""
    wanted, have = _runs(solution), _runs(function)
    return len(wanted & have) / len(wanted) if wanted else 0.0


def _runs(function: Canonical) -> set[tuple[bytes, ...]]:
    found = function.statements
    return {found[i : i + STATEMENTS] for i in range(len(found) - STATEMENTS + 1)}


def _excerpt_at(data: bytes, kept: npt.NDArray[np.int64], place: int, length: int) -> str:
    """Return a short piece of a text around a place that is counted without white space, of which `kept` are the other bytes; at most
    half of what was found."""
    begin, end = int(kept[place]), int(kept[min(place + min(MAX_EXCERPT, length // 2), len(kept) - 1)])
    return " ".join(data[begin:end].decode("utf-8", "ignore").split())[:MAX_EXCERPT]


def _excerpt_of_words(text: str, place: int, size: int) -> str:
    """Return a short piece of a text that begins at a word, of half an n-gram."""
    words = list(itertools.islice(WORD.finditer(text), place, place + max(1, size // 2)))
    return " ".join(text[words[0].start() : words[-1].end()].split())[:MAX_EXCERPT]


def write_matcher(matcher: Matcher, path: Path) -> None:
    """Write a matcher to a file that other processes of this run read, in tens of milliseconds: opening one anew takes seconds."""
    path.write_bytes(pickle.dumps(matcher, pickle.HIGHEST_PROTOCOL))


@functools.lru_cache(maxsize=1)
def read_matcher(path: Path) -> Matcher:
    """Return the matcher that `write_matcher` wrote in this run, read once in each process; files of others must not come here."""
    matcher = pickle.loads(path.read_bytes())
    assert isinstance(matcher, Matcher), path
    return matcher
