"""Problems come out of the published shapes of benchmarks, and of one's own."""

from __future__ import annotations

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from data_prep.benchmark_items import KNOWN, MAX_FIELD_CHARACTERS, Benchmark, read_benchmark
from data_prep.canonical_python import canonical_functions
from made_up_benchmark import PROMPT, ROWS, SOLUTION, write_problems
from starchat.errors import UserError

MBPP_PLUS = {
    "task_id": "Mbpp/7",
    "prompt": '"""\nWrite a function to count the posts of a fence.\nassert posts([1]) == 1\n"""',
    "canonical_solution": "\ndef posts(fence):\n  return len(fence)\n",
    "assertion": "\nassert posts([1, 2]) == 2\n",
}
SHAPES = {
    "humaneval": (ROWS[0], "Posts/0", {"prompt": "Of a row", "solution": "    best = 0", "tests": "\ndef check"}),
    "humaneval+": (ROWS[0], "Posts/0", {"prompt": "Of a row", "solution": "    best = 0", "tests": "\ndef check"}),
    "mbpp": (
        {"task_id": 7, "text": "Write it.", "code": "def f(): pass", "test_list": ["assert f()", "assert g()"], "challenge_test_list": []},
        "7",
        {"prompt": "Write it.", "solution": "def f", "tests": "assert f()\nassert g()"},
    ),
    "mbpp+": (MBPP_PLUS, "Mbpp/7", {"prompt": "Write a function", "solution": "\ndef posts", "tests": "assert posts([1]) == 1"}),
    "humanevalpack": (
        {"task_id": "Go/0", "prompt": "// Of\nfunc F() {", "docstring": "Of a row", "canonical_solution": "return 1 }", "test": "T"},
        "Go/0",
        {"prompt": "Of a row", "solution": "return 1 }", "tests": "T"},
    ),
    "multipl-e": (
        {"name": "HumanEval_0_x", "language": "rs", "prompt": "/// Of", "tests": "}\nfn main"},
        "rs/HumanEval_0_x",
        {"prompt": "///"},
    ),
    "ds-1000": (
        {"prompt": "Problem:\nI have", "reference_code": "x = df", "code_context": "import", "metadata": {}},
        "1",
        {"solution": "x = df"},
    ),
    "gsm8k": ({"question": "Ann has 3 posts.", "answer": "3 * 2 = 6\n#### 6"}, "1", {"prompt": "Ann has", "solution": "3 * 2"}),
}


def items(tmp_path, name, rows, **keys):
    return read_benchmark(Benchmark(name, write_problems(tmp_path, rows), **keys), "spec.yaml")


@pytest.mark.parametrize("name", KNOWN)
def test_published_shapes(tmp_path, name):
    row, identity, begins = SHAPES[name]
    (item,) = items(tmp_path, name, [row])
    assert (item.benchmark, item.id) == (name, identity)
    for field, begin in begins.items():
        assert any(needle.field == field and needle.text.startswith(begin) for needle in item.needles), (field, item.needles)


def test_every_known_benchmark_says_where_it_is_and_under_which_licence():
    for name, known in KNOWN.items():
        assert known.hub.count("/") == 1 and known.license and known.prompt and name == name.lower()


def test_a_solution_goes_on_where_its_prompt_ends(tmp_path):
    item = items(tmp_path, "humaneval", ROWS)[0]
    assert item.programs == (PROMPT + SOLUTION,) and canonical_functions(item.programs[0])[0].name == "widest_gap"
    alone = items(tmp_path, "ours", [{"id": 1, "solution": SOLUTION}])[0]
    assert len(canonical_functions(alone.programs[0])[0].statements) == len(canonical_functions(PROMPT + SOLUTION)[0].statements)
    assert items(tmp_path, "ours", [{"solution": "fn f() -> i32 { 1 }"}])[0].programs == ()


def test_of_a_prompt_in_python_the_words_alone(tmp_path):
    prompts = [needle.text for needle in items(tmp_path, "mbpp+", [MBPP_PLUS])[0].needles if needle.field == "prompt"]
    assert prompts == ["Write a function to count the posts of a fence."]
    assert "import" not in items(tmp_path, "humaneval", ROWS)[0].needles[0].text


def test_ones_own_keys(tmp_path):
    rows = [{"key": "a", "question": "Why so?", "code": "x = 1", "checks": ["assert x", "assert y"], "more": "Words."}]
    fields = {"id": "key", "prompt": "question", "solution": "code", "tests": "checks", "text": "more"}
    (item,) = items(tmp_path, "ours", rows, fields=fields)
    found = [(needle.field, needle.text) for needle in item.needles]
    assert item.id == "a" and item.programs == ("x = 1",)
    assert found == [("prompt", "Why so?"), ("prompt", "Words."), ("solution", "x = 1"), ("tests", "assert x\nassert y")]
    assert [n.field for n in items(tmp_path, "ours", [{"text": "Words."}])[0].needles] == ["prompt"]


def test_files_of_all_kinds(tmp_path):
    rows = [{"id": 1, "prompt": "One?"}, {"id": 2, "prompt": "Two?"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl.gz", "a.json", "a.parquet"):
        assert [item.id for item in read_benchmark(Benchmark("ours", str(tmp_path / name)), "spec")] == ["1", "2"]
    assert len(read_benchmark(Benchmark("ours", str(tmp_path / "a.*")), "spec")) == 2


def test_two_versions_of_a_problem_are_one(tmp_path):
    first, second = items(tmp_path, "ours", [{"id": 1, "prompt": "Old."}, {"id": 1, "prompt": "New."}, {"id": 2, "prompt": "x"}])
    assert [needle.text for needle in first.needles] == ["Old.", "New."] and second.id == "2"
    assert first.problem == "1" and items(tmp_path, "ours", [{"id": "Go/12", "prompt": "x"}])[0].problem == "12"


def test_infinity_among_the_inputs_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "prompt": "x", "inputs": [[-Infinity, 1], NaN, {"a":Infinity}]}\n', encoding="utf-8")
    assert len(read_benchmark(Benchmark("ours", str(path)), "spec")) == 1


def test_long_texts_are_cut(tmp_path):
    (item,) = items(tmp_path, "ours", [{"tests": "x" * (MAX_FIELD_CHARACTERS + 1)}])
    assert len(item.needles[0].text) == MAX_FIELD_CHARACTERS


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (
            [{"id": 1, "question": "Why?"}],
            {},
            "holds nothing to look for; expected one of prompt, text, solution, tests, test; name its keys",
        ),
        ([{"id": 1, "prompt": "Why?"}], {"fields": {"promt": "prompt"}}, "fields: 'promt'"),
        ([{"id": 1, "prompt": None}], {}, "posts.jsonl:1: benchmark ours: a problem with the keys id, prompt"),
        ([{"id": 1, "prompt": "a"}, ["x"]], {}, "posts.jsonl:2: the row is of type list"),
    ],
)
def test_what_is_wrong_with_problems_is_said(tmp_path, rows, keys, message):
    with pytest.raises(UserError) as error:
        items(tmp_path, "ours", rows, **keys)
    assert message in str(error.value)


def test_no_file_no_problem(tmp_path):
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    for problems, message in ((str(tmp_path / "none.jsonl"), "no such file"), (str(tmp_path / "empty.jsonl"), "no problems")):
        with pytest.raises(UserError, match=message):
            read_benchmark(Benchmark("ours", problems), "spec.yaml")


def test_without_the_hub_it_says_which_file_to_bring(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as error:
        read_benchmark(Benchmark("gsm8k", "openai/gsm8k-that-is-nowhere"), "spec.yaml")
    message = str(error.value)
    assert message.startswith("spec.yaml: benchmark gsm8k: openai/gsm8k-that-is-nowhere (subset main, split test) could not be loaded")
    assert "bring its rows as a .jsonl or .parquet file" in message
