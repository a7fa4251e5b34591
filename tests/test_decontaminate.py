"""A record that holds a problem of a benchmark is found in whatever form, and one that does not is left alone."""

from __future__ import annotations

import collections
import json
import os
import pickle
import random
import time
from pathlib import Path

import pytest

import fuzz_decontaminate
from data_prep import gram_kernels
from data_prep.benchmark_items import Benchmark
from data_prep.decontaminate import (
    OVERLAP_CHARACTERS,
    PIECE_CHARACTERS,
    DecontaminationRules,
    Match,
    open_matcher,
    read_matcher,
    write_matcher,
)
from data_prep.near_miss import MAX_NEAREST, NearMisses
from made_up_benchmark import PROMPT, ROWS, SECOND_PROMPT, SECOND_SOLUTION, SOLUTION, TESTS, posts_matcher, renamed, write_problems
from starchat.errors import UserError

WHOLE = PROMPT + SOLUTION
BENCHMARKS = os.environ.get("STARCHAT_BENCHMARKS")


@pytest.fixture(scope="module")
def matcher(tmp_path_factory):
    return posts_matcher(tmp_path_factory.mktemp("posts"))


def found(matcher, text, python=None):
    """The fields and matchers by which a text is contaminated with the first problem."""
    matches = matcher.match(text, [text] if python is None else python)
    assert all(match.item in ("Posts/0", "Posts/1") for match in matches)
    return {(match.field, match.matcher) for match in matches if match.contaminated and match.item == "Posts/0"}


def edited(text: str, share: float, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join(f"other{rng.randrange(99)}" if rng.random() < share else word for word in text.split(" "))


def test_a_text_with_many_problems_takes_no_longer_for_each(tmp_path):
    """Where problems stand in a text is told from one reading of it, however many there are."""
    rng = random.Random(3)
    prompts = [" ".join(f"word{rng.randrange(10**6)}" for _ in range(30)) for _ in range(600)]
    rows = [{"task_id": f"Many/{n}", "prompt": prompt, "canonical_solution": "", "test": ""} for n, prompt in enumerate(prompts)]
    path = write_problems(tmp_path, rows, "many.jsonl")
    benchmark = Benchmark("many", path, fields={"prompt": "prompt", "id": "task_id"})
    many = open_matcher(DecontaminationRules((benchmark,)), "spec")
    text = "\n".join(prompts) + "\n" + "filler text\n" * 60_000
    begin = time.process_time()
    matches = list(many._verbatim(text.encode(), None))
    assert time.process_time() - begin < 0.5
    assert len({match.item for match in matches}) == 600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WHOLE, {("solution", "verbatim"), ("prompt", "verbatim"), ("prompt", "ngrams"), ("solution", "ngrams"), ("solution", "python")}),
        (WHOLE.replace("    ", "\t").replace("\n", "\r\n"), {("solution", "verbatim"), ("prompt", "verbatim"), ("solution", "python")}),
        ("class A:\n" + "\n".join("    " + line for line in WHOLE.split("\n")), {("solution", "verbatim"), ("solution", "python")}),
        (renamed(WHOLE), {("solution", "python")}),
        (renamed(WHOLE).replace("for z", "# the posts\n    for z", 1), {("solution", "python")}),
        (WHOLE.replace("best = 0\n", "best = 0  # none yet\n\n"), {("solution", "python"), ("solution", "ngrams")}),
        ("\n".join("# " + line for line in PROMPT.split("\n")), {("prompt", "ngrams")}),
        (PROMPT.upper(), {("prompt", "ngrams")}),
        (PROMPT, {("prompt", "verbatim"), ("prompt", "ngrams")}),
        (SOLUTION, {("solution", "verbatim"), ("solution", "ngrams")}),
        (TESTS, {("tests", "verbatim"), ("tests", "ngrams")}),
        (TESTS.replace("candidate", "widest"), {("tests", "ngrams")}),
        ("\n".join(TESTS.splitlines()[:3]), {("tests", "ngrams")}),
        ("Some words before.\n" + PROMPT[: len(PROMPT) * 3 // 5], {("prompt", "ngrams")}),
        ("int f(int *a) {\n" + edited(WHOLE, 0.04) + "}", {("prompt", "ngrams")}),
    ],
    ids=lambda value: None if isinstance(value, set) else repr(value[:20]),
)
def test_every_form_of_a_problem(matcher, text, expected):
    assert expected <= found(matcher, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Call widest_gap of the module Posts, which gives the widest gap; has anybody used widest_gap(heights, margin)?",
        "from typing import List\n\n\ndef check(candidate):\n    assert candidate([1]) == 1\n",
        "def add(a, b):\n    return a + b\n",
        PROMPT.split('"""')[0],
        renamed(WHOLE).replace("max", "min"),
        renamed(WHOLE).replace(">", ">="),
        renamed(WHOLE).replace("0", "1"),
        "def f(rows, low):\n    best = 0\n    for row in rows:\n        if row > low:\n            best = max(best, row)\n    return best",
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20\n" * 20,
        "for i in range(n):\n    for j in range(i + 1, n):\n        for k in range(j + 1, n):\n            pass\n",
    ],
)
def test_what_is_no_problem_stays(matcher, text):
    assert found(matcher, text) == set()


CLASS = "class Solution:\n    def solve(self, z3, z2):\n        " + "\n        ".join(
    line.removeprefix("    ") for line in renamed(WHOLE).split("\n")[3:]
)


@pytest.mark.parametrize(
    "code", [CLASS, renamed(WHOLE).replace("int)", "int=0, *more)"), renamed(WHOLE).replace("(z", "(z9=None, *, z", 1)]
)
def test_a_body_with_other_arguments(matcher, code):
    compile(code, "code", "exec")
    assert code != renamed(WHOLE) and ("solution", "python") in found(matcher, code)


def test_a_short_body_with_other_arguments_says_nothing(tmp_path):
    short = "def area(a, b, c, d, e, f):\n    return a * b * c * d + e - f\n"
    rows = [{"task_id": "1", "prompt": "", "canonical_solution": short}]
    matcher = open_matcher(DecontaminationRules((Benchmark("humaneval", write_problems(tmp_path, rows)),), matchers=("python",)), "spec")
    (same,) = matcher.match("", [renamed(short)])
    assert same.contaminated and matcher.match("", [short.replace("f):", "f, *g):")]) == []


def test_short_prompts_in_other_letters_and_without_their_end(tmp_path):
    prompt = "Write a function that returns the second smallest of the numbers."
    matcher = open_matcher(DecontaminationRules((Benchmark("ours", write_problems(tmp_path, [{"id": 1, "prompt": prompt}])),)), "spec")
    for text in (prompt, prompt[:-1], prompt.lower(), prompt.upper(), prompt.lower()[:-1] + "!", f"# {prompt[:-1]}, please"):
        (match,) = matcher.match(text)
        assert match.contaminated and match.matcher == "verbatim" and match == matcher.match(text, (), "numpy")[0]
    assert matcher.match(prompt.replace("second", "third")) == []


def test_both_problems_of_one_record(matcher):
    matches = matcher.match(WHOLE + SECOND_PROMPT + SECOND_SOLUTION, [WHOLE + SECOND_PROMPT + SECOND_SOLUTION])
    assert {match.item for match in matches if match.contaminated} == {"Posts/0", "Posts/1"}
    assert matches == sorted(matches, key=lambda match: (not match.contaminated, -match.share))[: len(matches)]


def test_excerpts_are_of_the_record_and_never_the_whole_problem(matcher):
    text = "before\n" + WHOLE.replace("best", "BEST") + TESTS
    for match in matcher.match(text, [text]):
        if match.matcher != "python":
            assert 0 < len(match.excerpt) <= 60 and match.excerpt in " ".join(text.split())
    alone = f"{'x ' * 50}assert candidate([1, 1, 1], 5) == 0, 'no'"
    rows = [{"task_id": "1", "prompt": "", "canonical_solution": "", "test": "assert candidate([1, 1, 1], 5) == 0, 'no'"}]
    assert all(rows[0]["test"] not in match.excerpt for match in matcher.match(alone))


def test_near_misses_are_told_and_do_not_drop(matcher):
    statements = renamed(WHOLE).replace("return", "print(z0)\n    return").replace("best", "worst")
    near = [match for match in matcher.match(statements, [statements]) if match.matcher == "python"]
    assert [(match.contaminated, 0.5 <= match.share < 1) for match in near] == [(False, True)]
    words = " ".join(SECOND_PROMPT.split()[8:21])
    shares = [match for match in matcher.match(words) if match.item == "Posts/1" and match.matcher == "ngrams"]
    assert [(match.contaminated, 0.05 <= match.share < 0.1) for match in shares] == [(False, True)]


def test_the_largest_share_counts(matcher):
    near, same = renamed(WHOLE).replace("return", "print(z0)\n    return"), renamed(WHOLE)
    for programs in ([near, same], [same, near], [f"{near}\n{same}"], [f"{same}\n{near}"]):
        (match,) = [match for match in matcher.match("", programs) if match.item == "Posts/0"]
        assert match.contaminated and match.share == 1.0


def test_ngrams_far_apart_are_not_added_up(matcher):
    words = PROMPT.split('"""')[1].split()
    pieces = [" ".join(words[i : i + 13]) for i in range(0, 26, 13)]
    assert ("prompt", "ngrams") not in found(matcher, (" filler" * 400 + " ").join(pieces))
    assert any(match.matcher == "ngrams" for match in matcher.match(pieces[0]))


def test_a_long_text_is_looked_at_in_pieces(matcher):
    filler = "some words of no problem at all\n" * (PIECE_CHARACTERS // 32)
    for place in (len(filler) - 300, len(filler) - OVERLAP_CHARACTERS - 300):
        text = filler[:place] + WHOLE + filler[:1000]
        assert {("prompt", "verbatim"), ("solution", "verbatim"), ("prompt", "ngrams")} <= found(matcher, text, [])
    begin = time.process_time()
    assert ("solution", "python") in found(matcher, "", [renamed(WHOLE) * 2500])
    assert ("solution", "ngrams") in found(matcher, WHOLE * 5000, [])
    assert time.process_time() - begin < 20


def test_what_is_not_looked_for_is_listed(matcher):
    unused = {(entry.owner.item, entry.owner.field, entry.matcher): entry.why for entry in matcher.unused}
    assert unused["Posts/2", "solution", "verbatim"] == "9 bytes without white space; from 40"
    assert unused["Posts/2", "solution", "ngrams"] == "fewer than 12 words"
    assert unused["Posts/2", "solution", "python"].endswith("nodes; from 20")
    assert ("Posts/0", "solution", "python") not in unused


def test_what_many_problems_share_is_not_looked_for(tmp_path):
    head = "Read the following task with care and write only the program that it asks you for, nothing else."
    rows = [{"id": f"a/{n}", "prompt": f"{head} Task {n}: {' '.join(f'w{n}{k}' for k in range(14))}"} for n in range(4)]
    matcher = open_matcher(DecontaminationRules((Benchmark("ours", write_problems(tmp_path, rows)),)), "spec")
    assert matcher.match(head) == []
    assert [match.item for match in matcher.match(rows[2]["prompt"]) if match.matcher == "ngrams"] == ["a/2"]
    fewer = open_matcher(DecontaminationRules((Benchmark("ours", write_problems(tmp_path, rows[:3])),)), "spec")
    assert len(fewer.match(head)) == 3


def test_idioms_are_not_looked_for(tmp_path):
    idiom = "for i in range(2, int(math.sqrt(n)) + 1):\n    if n % i == 0:\n        return False\nreturn True\n"
    own = "if n in known: return known[n] else: known[n] = slow(n) and not even(n)\n"
    rows = [{"id": 1, "solution": idiom + own}]
    matcher = open_matcher(DecontaminationRules((Benchmark("ours", write_problems(tmp_path, rows)),), min_ngrams=1), "spec")
    assert matcher.match(idiom) == [] and [match.matcher for match in matcher.match(own)] == ["ngrams"]


def test_the_shortest_text_that_is_looked_for_whole(tmp_path):
    rows = [{"id": 1, "prompt": "a" * 40}, {"id": 2, "prompt": "b" * 39}]
    matcher = open_matcher(DecontaminationRules((Benchmark("ours", write_problems(tmp_path, rows)),)), "spec")
    assert [match.item for match in matcher.match(" ".join("a" * 40) + " ".join("b" * 39))] == ["1"]


def test_other_scripts(tmp_path):
    prompt = "给定一个整数列表,返回其中所有偶数的平方和,如果列表为空则返回零。请注意负数也是整数,并且零是偶数。"
    cyrillic = "Дан список чисел, верните сумму квадратов всех чётных чисел, а для пустого списка верните ноль без ошибок; "
    cyrillic += "отрицательные числа тоже считаются, дробные числа пропускаются, порядок чисел в списке не имеет значения"
    rows = [{"id": 1, "prompt": prompt}, {"id": 2, "prompt": cyrillic}]
    matcher = open_matcher(DecontaminationRules((Benchmark("ours", write_problems(tmp_path, rows)),)), "spec")
    for number, text in ((1, prompt), (2, cyrillic)):
        middle = len(text) // 2
        for mutant in (text, text[:middle] + " 另外 слово " + text[middle:]):
            assert {match.item for match in matcher.match(f"x {mutant} y") if match.contaminated} == {str(number)}
    assert matcher.match("给定一个字符串,返回它的长度。") == [] and matcher.match("\ud800 \udfff" * 40) == []


def test_engines_and_processes_find_the_same(matcher, tmp_path):
    if gram_kernels.compiled() is None:
        pytest.skip("numba is not installed")
    write_matcher(matcher, tmp_path / "matcher")
    again = read_matcher(tmp_path / "matcher")
    assert len(pickle.dumps(matcher)) < 1_500_000
    for number in range(60):
        text = fuzz_decontaminate.mutant(random.Random(f"same:{number}"))
        one, two = (matcher.match(text, [text], engine) for engine in ("numba", "numpy"))
        assert one == two == again.match(text, [text])


def test_mutants(matcher):
    outcomes = collections.Counter()
    for number in range(60):
        outcomes[fuzz_decontaminate.outcome_of(matcher, random.Random(f"test:{number}"))] += 1
    assert outcomes["contaminated"] > 10 and outcomes["nothing"] > 2


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"benchmarks": ()}, "benchmarks is empty"),
        ({"matchers": ("ngram",)}, "'ngram'"),
        ({"ngram_words": 1}, "ngram_words: 1; expected a number from 2"),
        ({"min_share": 0.0}, "min_share: 0.0; expected a number above 0, at most 1"),
        ({"near_share": 2.0}, "near_share: 2.0"),
        ({"min_verbatim_bytes": 5}, "min_verbatim_bytes: 5; expected a number from 31"),
    ],
)
def test_rules_that_make_no_sense(rules, message, tmp_path):
    given = {"benchmarks": (Benchmark("humaneval", write_problems(tmp_path)),), **rules}
    with pytest.raises(UserError, match="spec: .*") as error:
        open_matcher(DecontaminationRules(**given), "spec")
    assert message in str(error.value)


def test_each_matcher_by_itself(tmp_path):
    for name in ("verbatim", "ngrams", "python"):
        matcher = posts_matcher(tmp_path, matchers=(name,))
        assert {match.matcher for match in matcher.match(WHOLE, [WHOLE])} == {name}
        assert {entry.matcher for entry in matcher.unused} <= {name}


def test_report(matcher):
    report = NearMisses(matcher.items, matcher.unused)
    texts = {"a:1": WHOLE, "a:2": renamed(WHOLE), "a:3": " ".join(SECOND_PROMPT.split()[8:21]), "a:4": "def add(a, b): return a + b"}
    for place, text in texts.items():
        report.add(place, matcher.match(text, [text]))
    counts = report.as_json()["benchmarks"]["humaneval"]
    assert counts == {
        "items": 3,
        "items_seen": 2,
        "items_contaminated": 1,
        "records_contaminated": 2,
        "records_near": 1,
        "by_matcher": {"ngrams": 1, "python": 2, "verbatim": 1},
        "contaminated": {"Posts/0": 2},
        "near": {"Posts/1": 1},
    }
    assert [(entry["place"], entry["item"]) for entry in report.as_json()["nearest"]] == [("a:3", "Posts/1")]
    assert len(report.as_json()["not_looked_for"]) == len(matcher.unused) and json.dumps(report.as_json())
    assert report.as_table().splitlines()[1].split() == ["humaneval", "3", "2", "1", "2", "1"]
    assert "of the prompt of Posts/1 (humaneval), by ngrams, in a:3" in report.as_table()


def test_report_does_not_depend_on_the_order():
    matches = [Match("b", f"{n}", "prompt", "ngrams", (n % 7 + 1) / 200, False, "x") for n in range(3 * MAX_NEAREST)]
    reports = []
    for seed in range(3):
        report = NearMisses({"b": 9})
        shuffled = random.Random(seed).sample(matches, len(matches))
        for match in shuffled:
            report.add(f"place {match.item}", [match])
        reports.append(report.as_json())
    assert reports[0] == reports[1] == reports[2] and len(reports[0]["nearest"]) == MAX_NEAREST


@pytest.mark.skipif(not BENCHMARKS, reason="STARCHAT_BENCHMARKS names no folder with the published problems")
def test_published_problems_are_found_in_themselves():
    files = {"humaneval": "HumanEval.jsonl.gz", "mbpp+": "MbppPlus.jsonl.gz", "humanevalpack": "humanevalpack-*.jsonl.gz"}
    rules = DecontaminationRules(tuple(Benchmark(name, str(Path(BENCHMARKS) / file)) for name, file in files.items()))
    matcher = open_matcher(rules, "spec")
    assert matcher.items == {"humaneval": 164, "humanevalpack": 984, "mbpp+": 378}
    from data_prep.benchmark_items import read_benchmark

    missed = []
    for benchmark in rules.benchmarks:
        for item in read_benchmark(benchmark, "spec"):
            text = "\n\n".join(needle.text for needle in item.needles)
            hits = {match.item for match in matcher.match(text, item.programs) if match.contaminated}
            missed += [] if item.id in hits else [item.id]
    assert missed == []


def test_the_made_up_benchmark_is_whole():
    assert len({row["task_id"] for row in ROWS}) == 3 and compile(WHOLE + SECOND_PROMPT + SECOND_SOLUTION, "posts", "exec")
