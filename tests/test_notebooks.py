"""Notebooks from wherever they lie, by the rules, in both views, the same with any number of workers."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fuzz_notebooks
from conftest import write_base_tokenizer
from data_prep.control_tokens import STARCODER_TOKENS
from data_prep.documents import Cell, parse_notebook, parse_script
from data_prep.kinds import Setting, open_kind
from data_prep.notebooks import turns_of
from data_prep.records import Dropped, Item, Kept
from fuzzing import outcome_of
from notebook_files import LESSON, book, code, commit_all, error, old_book, old_code, result, spelled, stream, text, write_notebook
from preparing import assert_conserved, records, run
from starchat.errors import UserError

FREE = {"preset": "none"}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def starcoder2(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("starcoder2")
    write_base_tokenizer(folder, ("<|endoftext|>", *(t for t in STARCODER_TOKENS if t not in ("<filename>", "<reponame>", "<gh_stars>"))))
    return str(folder)


def build(path: Any, workers: int = 1, tokenizer: str = "nano", **keys: Any) -> list[Item]:
    opened = open_kind("notebooks", {"kind": "notebooks", "path": str(path), **keys}, "spec", Setting(tokenizer, workers=workers))
    return list(opened.items())


def one(notebook: Any, **keys: Any) -> Item:
    """The item of one notebook, kept by whatever rules there are unless `keys` give some."""
    (item,) = build(write_notebook(Path("one.ipynb"), notebook), **{"rules": FREE, **keys})
    return item


def outcomes(items: list[Item]) -> dict[str, int]:
    return dict(Counter("kept" if isinstance(item, Kept) else item.reason for item in items))


def kept(item: Item) -> Kept:
    assert isinstance(item, Kept), item
    return item


def test_a_structured_document() -> None:
    item = kept(one(LESSON))
    assert spelled(item.record.parts) == (
        "<jupyter_start><jupyter_code>import math<empty_output>"
        "<jupyter_text># Roots\n\nTake the root of `x < 3`."
        "<jupyter_code>math.sqrt(2)<jupyter_output>1.4142135623730951"
        "<jupyter_text>And of a negative number:"
        "<jupyter_code>math.sqrt(-1)<jupyter_output>Traceback (most recent call last)\nValueError: math domain error"
        "<jupyter_text>That is all."
    )
    assert len(parse_notebook(item.record.parts)) == 6
    assert item.repairs == ()


def test_a_script() -> None:
    item = kept(one(book(text("# Title\n\ntext"), code("%matplotlib inline\nx = 1", stream("out"))), form="script"))
    assert spelled(item.record.parts) == "# %% [markdown]\n# # Title\n#\n# text\n\n# %%\n# %matplotlib inline\nx = 1\n"
    assert item.repairs == ("magics", "lost_output")
    assert parse_script(item.record.parts) == (Cell("text", "# Title\n\ntext"), Cell("code", "# %matplotlib inline\nx = 1"))


def test_scripts_of_starcoder2_and_of_other_languages(starcoder2: str) -> None:
    java = book(text("T"), code("int x = 1;"), metadata={"kernelspec": {"language": "java"}})
    item = kept(one(java, form="script", tokenizer=starcoder2))
    assert spelled(item.record.parts) == "<jupyter_script>// %% [markdown]\n// T\n\n// %%\nint x = 1;\n"
    unknown = one(book(code("x <- function(y) y"), metadata={}), form="script")
    assert isinstance(unknown, Dropped) and unknown.reason == "unknown_language"
    block = one(book(code("let x = 1"), metadata={"kernelspec": {"language": "OCaml"}}), form="script")
    assert isinstance(block, Dropped) and block.reason == "no_line_comments" and "OCaml" in block.detail
    guessed = kept(one(book(code("import os"), metadata={}), form="script"))
    assert guessed.repairs == ("language_guessed",)


def test_a_dialogue() -> None:
    item = kept(one(LESSON, view="dialogue"))
    assert [(turn.role, turn.content) for turn in item.record.turns] == [
        ("user", "# Roots\n\nTake the root of `x < 3`."),
        ("assistant", "```python\nimport math\n```\n\n```python\nmath.sqrt(2)\n```\n```output\n1.4142135623730951\n```"),
        ("user", "And of a negative number:"),
        (
            "assistant",
            "```python\nmath.sqrt(-1)\n```\n```output\nTraceback (most recent call last)\nValueError: math domain error\n```",
        ),
    ]
    assert item.repairs == ("ends_with_user",)


def test_dialogues_join_neighbours_and_name_other_languages() -> None:
    item = kept(one(book(text("a"), text("b"), code("x = 1"), code("%%bash\nls ```", stream("`````"))), view="dialogue"))
    assert [turn.content for turn in item.record.turns] == [
        "a\n\nb",
        "```python\nx = 1\n```\n\n````bash\n%%bash\nls ```\n````\n``````output\n`````\n``````",
    ]
    plain = kept(one(book(text("a"), code("x <- y(1)"), metadata={}), view="dialogue"))
    assert plain.record.turns[1].content == "```\nx <- y(1)\n```"


def test_a_dialogue_of_many_cells_takes_no_longer_than_its_length() -> None:
    begin = time.process_time()
    (question, answer) = turns_of([Cell("text", "a"), *[Cell("code", "1")] * 100_000], "Python")
    assert answer.content.count("python") == 100_000 and question.content == "a"
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("cells", [[code("x = 1")], [text("a")], [code("x = 1"), text("a")]])
def test_without_text_in_front_of_code_there_is_no_dialogue(cells: list[Any]) -> None:
    item = one(book(*cells), view="dialogue")
    assert isinstance(item, Dropped) and item.reason == "few_pairs" and not item.fault
    assert json.loads(item.raw)["nbformat"] == 4, "what was dropped can be looked at"


LONG = "x = " + " + ".join(["1234567890"] * 20)


@pytest.mark.parametrize(
    ("rules", "fires", "spares", "reason"),
    [
        ({}, [], [code("x")], "no_cells"),
        ({"min_cells": 2}, [code("x"), text("  ")], [code("x"), text("a")], "few_cells"),
        ({"min_code_cells": 1}, [text("a")], [code("x")], "no_code"),
        ({"min_pairs": 1}, [code("x"), text("a")], [text("a"), code("x")], "few_pairs"),
        ({"min_text_fraction": 0.5}, [text("a"), code("x"), code("x")], [text("a"), code("x")], "little_text"),
        ({"min_characters": 10}, [code("x = 12345", stream("a" * 99))], [code("x = 123456")], "too_short"),
        ({"max_characters": 10}, [code("x = 123456", stream("a"))], [code("x = 12345", stream("a"))], "too_long"),
        ({"drop_generated": True}, [text("This was auto-generated.")], [text("Generated by chance.")], "generated_notebook"),
        ({"drop_generated": True}, [code("# DO NOT EDIT this")], [text("a")] * 3 + [text("auto-generated")], "generated_notebook"),
        ({"python_must_parse": True}, [code('print "a"')], [code("%time print('a')\nif x:\n    !ls")], "does_not_parse"),
        ({"python_must_parse": True}, [code("f(", stream("SyntaxError: x\nno"))], [code("f(", error("SyntaxError: x"))], "does_not_parse"),
        ({"preset": "starcoder2"}, [code(LONG)] * 3, [code(LONG)] * 4, "few_cells"),
        ({"preset": "starcoder2", "min_cells": None}, [code("x = 1")], [code(LONG)], "too_short"),
    ],
)  # fmt: skip
def test_rules_fire_and_spare(rules: dict[str, Any], fires: list[Any], spares: list[Any], reason: str) -> None:
    item = one(book(*fires), rules={**FREE, **rules})
    assert isinstance(item, Dropped) and item.reason == reason and not item.fault
    kept(one(book(*spares), rules={**FREE, **rules}))


def test_rules_about_languages() -> None:
    rules = {"preset": "starcoder"}
    kept(one(book(text("a"), code("x")), rules=rules))
    for metadata, name in ({"kernelspec": {"language": "R"}}, "R"), ({}, "not known"), ({"copyright": "py"}, "not known"):
        item = one(book(text("a"), code("x <- f(y)"), metadata=metadata), rules=rules)
        assert isinstance(item, Dropped) and item.reason == "other_language" and item.detail.startswith(name)
    perl = one(book(code('print "a"'), metadata={"kernelspec": {"language": "perl"}}), rules={**FREE, "python_must_parse": True})
    kept(perl)


def test_the_template_of_kaggle_goes_and_its_code_stays() -> None:
    template = (
        "# This Python 3 environment comes with many helpful analytics libraries installed\n"
        "# It is defined by the kaggle/python Docker image: https://github.com/kaggle/docker-python\n"
        "import numpy as np # linear algebra\n"
        "# my own words on kaggle\n"
    )
    item = kept(one(book(code(template))))
    assert item.record.parts[1].text == "import numpy as np # linear algebra\n# my own words on kaggle"
    assert item.repairs == ("kaggle_template",)
    only = one(book(code(template.partition("import")[0])))
    assert isinstance(only, Dropped) and only.reason == "no_cells"


def write_folder(folder: Path) -> None:
    for name in ("b/2.ipynb", "a.ipynb", "b/1.IPYNB", ".hidden/h.ipynb", "b/.ipynb_checkpoints/1.ipynb", "node_modules/n.ipynb"):
        write_notebook(folder / name, LESSON)
    write_notebook(folder / "c.ipynb", "{")
    write_notebook(folder / "._c.ipynb", "what a Mac leaves")
    write_notebook(folder / "notes.md", "no notebook")
    (folder / "x.ipynb").mkdir()
    write_notebook(folder / "x.ipynb" / "inner.ipynb", LESSON)


def test_a_folder_is_walked_in_order_without_links_and_what_tools_made() -> None:
    write_folder(Path("books"))
    os.symlink("..", "books/b/up")
    os.symlink("a.ipynb", "books/link.ipynb")
    os.symlink("nowhere", "books/broken.ipynb")
    os.mkfifo("books/pipe.ipynb")
    items = build("books", max_output_characters=None)
    places = [(i.record.source.place, "") if isinstance(i, Kept) else (i.place, i.reason) for i in items]
    assert places == [
        ("books/._c.ipynb", "hidden_file"),
        ("books/.hidden", "skipped_folder"),
        ("books/a.ipynb", ""),
        ("books/b/.ipynb_checkpoints", "skipped_folder"),
        ("books/b/1.IPYNB", ""),
        ("books/b/2.ipynb", ""),
        ("books/b/up", "symbolic_link"),
        ("books/broken.ipynb", "symbolic_link"),
        ("books/c.ipynb", "invalid_json"),
        ("books/link.ipynb", "symbolic_link"),
        ("books/node_modules", "skipped_folder"),
        ("books/pipe.ipynb", "unreadable"),
        ("books/x.ipynb/inner.ipynb", ""),
    ]
    assert kept(items[4]).record.source.path == "b/1.IPYNB"


def test_a_folder_deeper_than_the_stack() -> None:
    os.mkdir("deep")
    handle = os.open("deep", os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    write_notebook(Path("deep/a.ipynb"), LESSON)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(350)
    try:
        items = build("deep")
    finally:
        sys.setrecursionlimit(limit)
    assert outcomes(items) == {"kept": 1}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("books/*.ipynb", {"kept": 1, "invalid_json": 1, "hidden_file": 1}),
        ("books/**/*.ipynb", {"kept": 3, "invalid_json": 1, "hidden_file": 1, "skipped_folder": 3, "symbolic_link": 2}),
        ("books/**", {"kept": 4, "invalid_json": 1, "hidden_file": 1, "skipped_folder": 3, "symbolic_link": 2}),
        ("b*/b/[0-9].ip*", {"kept": 1}),
        ("**/b/**/?.ipynb", {"kept": 1, "skipped_folder": 3, "symbolic_link": 2}),
        ("books/a?ipynb", {"kept": 1}),
        ("books/**.ipynb", {"kept": 1, "invalid_json": 1, "hidden_file": 1}),
        ("tables/**/*.jsonl", {"kept": 2}),
        ("t*/*.jsonl", {"kept": 1}),
        ("tables/*", {"kept": 1}),
    ],
)
def test_patterns(pattern: str, expected: dict[str, int]) -> None:
    write_folder(Path("books"))
    for name in ("tables/a.jsonl", "tables/in/b.jsonl"):
        write_notebook(Path(name), json.dumps({"content": LESSON}) + "\n")
    Path("tables/README.md").write_text("What lies here.")
    os.symlink(".", "books/loop")
    os.symlink("..", "books/up")
    assert outcomes(build(pattern)) == expected
    assert outcomes(build(Path.cwd() / pattern)) == expected


def test_a_repository_is_read_at_a_commit() -> None:
    folder = Path("clone")
    write_folder(folder)
    os.symlink("a.ipynb", "clone/link.ipynb")
    commit = commit_all(folder)
    write_notebook(folder / "a.ipynb", "not committed")
    items = build(folder)
    assert outcomes(items) == {"kept": 4, "invalid_json": 1, "hidden_file": 1, "skipped_folder": 3, "symbolic_link": 1}
    source = next(item.record.source for item in items if isinstance(item, Kept))
    assert (source.repository, source.path, source.commit) == ("clone", "a.ipynb", commit)
    assert source.place == f"clone@{commit[:12]}:a.ipynb"
    subprocess.run(["git", "clone", "-q", "--bare", "clone", "bare.git"], check=True)
    bare = build("bare.git", repository="me/books")
    assert outcomes(bare) == outcomes(items)
    assert {item.record.source.repository for item in bare if isinstance(item, Kept)} == {"me/books"}
    second = commit_all(folder, "second")
    assert outcomes(build(folder))["invalid_json"] == 2
    assert outcomes(build(folder, ref=commit))["invalid_json"] == 1
    opened = open_kind("notebooks", {"kind": "notebooks", "path": "clone"}, "spec", Setting())
    assert opened.inputs() == [{"path": "clone", "commit": second}]
    blob = subprocess.run(["git", "-C", "clone", "rev-parse", "HEAD:b/2.ipynb"], capture_output=True, text=True, check=True).stdout
    lost = folder / ".git" / "objects" / blob[:2] / blob[2:].strip()
    lost.chmod(0o600)
    lost.unlink()
    assert outcomes(build(folder)).get("unreadable", 0) >= 1


def test_each_notebook_has_the_licence_that_is_stated_for_it() -> None:
    for name in ("clone/a.ipynb", "clone/vendor/b.ipynb", "plain/a.ipynb"):
        write_notebook(Path(name), LESSON)
    Path("clone/package.json").write_text('{"license": "MIT"}')
    Path("clone/vendor/package.json").write_text('{"license": "GPL-3.0-only"}')

    def licenses(**keys: Any) -> dict[str | None, str | None]:
        found = [item.record for item in build(**keys) if isinstance(item, Kept)]
        return {record.source.path: record.license for record in found}

    stated = {"a.ipynb": "MIT", "vendor/b.ipynb": "GPL-3.0-only"}
    assert licenses(path="clone") == stated, "a folder"
    commit_all(Path("clone"))
    assert licenses(path="clone") == stated, "a repository"
    assert licenses(path="clone", license="0BSD") == {"a.ipynb": "0BSD", "vendor/b.ipynb": "0BSD"}
    assert licenses(path="plain") == {"a.ipynb": None}


def test_a_part_of_a_clone_is_a_folder() -> None:
    write_notebook(Path("clone/sub/a.ipynb"), LESSON)
    commit_all(Path("clone"))
    write_notebook(Path("clone/sub/b.ipynb"), LESSON)
    assert outcomes(build("clone/sub")) == {"kept": 2}


def test_tables() -> None:
    rows = [
        {"content": json.dumps(LESSON), "max_stars_repo_name": "a/b", "max_stars_repo_path": "x.ipynb", "max_stars_repo_licenses": ["MIT"]},
        {"content": LESSON, "license": "Apache-2.0"},
        {"content": None},
        {"other": 1},
        {"content": "{", "licenses": ["MIT", "0BSD"]},
    ]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "no json\n")
    items = build("t.jsonl")
    assert outcomes(items) == {"kept": 2, "wrong_type": 2, "invalid_json": 2}
    first, second = (kept(item).record for item in items[:2])
    assert (first.source.place, first.source.repository, first.source.path, first.license) == ("t.jsonl:1", "a/b", "x.ipynb", "MIT")
    assert second.license == "Apache-2.0"
    assert kept(build("t.jsonl", license="0BSD")[0]).record.license == "0BSD"
    two = {"content": json.dumps(book(code("x"))), "licenses": ["MIT", "0BSD"]}
    Path("bom.jsonl").write_text(f"\ufeff{json.dumps(two)}\r\n\n \n{json.dumps(two)}", encoding="utf-8")
    found = [kept(item).record for item in build("bom.jsonl", rules=FREE)]
    assert [record.source.place for record in found] == ["bom.jsonl:1", "bom.jsonl:4"]
    assert [record.license for record in found] == [None, None], "which of two holds is not known"
    os.mkdir("shards")
    pq.write_table(pa.table({"text": [json.dumps(LESSON)] * 3}), "shards/a.parquet")
    assert outcomes(build("shards", column="text")) == {"kept": 3}
    assert outcomes(build("shards")) == {"wrong_type": 3}


@pytest.mark.parametrize(
    ("content", "keys", "reason", "fault"),
    [
        (b"", {}, "empty_file", False),
        (b" \n", {}, "empty_file", False),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", {}, "lfs_pointer", False),
        (json.dumps(LESSON).encode(), {"max_file_bytes": 99}, "too_large", False),
        (b'{"nbformat": 2}', {}, "unsupported_nbformat", False),
        (b"\xff\xfe{", {}, "invalid_utf8", True),
    ],
)
def test_files_that_are_set_aside(content: bytes, keys: dict[str, Any], reason: str, fault: bool) -> None:
    Path("a.ipynb").write_bytes(content)
    Path("t.jsonl").write_text(json.dumps({"content": content.decode("utf-8", "surrogateescape")}) + "\n")
    os.mkdir("clone")
    Path("clone/a.ipynb").write_bytes(content)
    commit_all(Path("clone"))
    for path in ("a.ipynb", "t.jsonl", "clone"):
        (item,) = build(path, **keys)
        assert isinstance(item, Dropped) and (item.reason, item.fault) == (reason, fault), path


def test_a_file_that_goes_away_is_counted() -> None:
    write_notebook(Path("books/a.ipynb"), LESSON)
    write_notebook(Path("books/b.ipynb"), LESSON)
    opened = open_kind("notebooks", {"kind": "notebooks", "path": "books"}, "spec", Setting(workers=1))
    Path("books/a.ipynb").unlink()
    assert outcomes(list(opened.items())) == {"unreadable": 1, "kept": 1}


def test_the_same_items_with_any_number_of_workers() -> None:
    rng = random.Random(0)
    for number in range(100):
        cells = [rng.choice([text, code])(f"x{number} = {rng.random()}") for _ in range(rng.randint(0, 9))]
        write_notebook(Path(f"books/{number:03}.ipynb"), book(*cells) if number % 10 else "{")
    for view in ({}, {"form": "script"}, {"view": "dialogue"}):
        alone = build("books", 1, rules=FREE, **view)
        assert build("books", 3, rules=FREE, **view) == alone
        assert len(alone) == 100


@pytest.mark.parametrize(
    ("path", "keys", "message"),
    [
        ("nowhere", {}, "nowhere: no such file or folder"),
        ("empty", {}, "empty: holds no notebooks; give a file that ends in .ipynb"),
        ("*.ipynbs", {}, "no file matches"),
        ("a.txt", {}, "extension '.txt' is not known"),
        ("a.ipynb", {"rules": {"preset": "starcoder3"}}, "spec: rules.preset: 'starcoder3'; did you mean 'starcoder"),
        ("a.ipynb", {"rules": {"min_cell": 3}}, "did you mean 'min_cells'"),
        ("a.ipynb", {"rules": {"languages": ["Pyton"]}}, "rules.languages: 'Pyton' is no language of the table; did you mean 'Python'"),
        ("a.ipynb", {"view": "dialogue", "form": "script"}, "form: is about documents"),
        ("a.ipynb", {"max_output_characters": 0}, "max_output_characters: 0; expected a number from 1, or null"),
        ("a.ipynb", {"views": "dialogue"}, "did you mean 'view'"),
        ("clone", {}, "a repository without commits"),
        ("bookless", {}, "holds no notebooks; give a repository"),
    ],
)
def test_what_the_user_must_change(path: str, keys: dict[str, Any], message: str) -> None:
    write_notebook(Path("a.ipynb"), LESSON)
    Path("a.txt").touch()
    os.mkdir("empty")
    os.mkdir("clone")
    subprocess.run(["git", "init", "-q", "clone"], check=True)
    write_notebook(Path("bookless/a.md"), "x")
    commit_all(Path("bookless"))
    with pytest.raises(UserError) as caught:
        build(path, **keys)
    assert message in str(caught.value)


def test_a_tokenizer_without_the_tokens_is_an_error_for_documents_alone() -> None:
    write_notebook(Path("a.ipynb"), LESSON)
    write_base_tokenizer(Path("tokens"), ("<|endoftext|>", "<filename>", "<reponame>"))
    with pytest.raises(UserError, match="has no token <jupyter_start>"):
        build("a.ipynb", tokenizer="tokens")
    kept(build("a.ipynb", tokenizer="tokens", view="dialogue")[0])
    kept(build("a.ipynb", tokenizer="tokens", form="script")[0])


def test_prepare_counts_every_notebook() -> None:
    write_folder(Path("books"))
    write_notebook(Path("books/old.ipynb"), old_book(*[old_code(f"x = {n}  # {'a' * 40}") for n in range(4)]))
    write_notebook(
        Path("books/plot.ipynb"), book(*[code(f"plot({n})  # {'b' * 40}", result(plain="<Figure>", png="A" * 999)) for n in range(4)])
    )
    manifest = run({"kind": "notebooks", "path": "books"}, max_bad_fraction=0.2, test_fraction=0.0)
    assert_conserved(manifest)
    assert manifest["counts"]["dropped"] == {"duplicate": 3, "hidden_file": 1, "invalid_json": 1, "skipped_folder": 3}
    assert manifest["counts"]["repaired"] == {"lost_image_output": 1}
    assert manifest["spec"]["sources"][0]["rules"]["min_cells"] == 4
    assert len(records()) == 3


@pytest.mark.parametrize("number", range(60))
def test_damaged_notebooks(number: int, tmp_path: Path) -> None:
    folder = tmp_path / "mutant"
    folder.mkdir()
    outcome_of(fuzz_notebooks.mutant(random.Random(f"test:{number}"), folder), "notebooks", number)
