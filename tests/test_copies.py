"""Which of several copies is kept: nothing is dropped for a twin that is not in the dataset, whichever step took that one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_prep import dataset
from preparing import assert_conserved, chat, records, run, write_rows
from repositories import history

NEAR = {"near_duplicates": {}}
ANSWER = "Take the mean of the window that moves over the column, and leave out what is not a number, as pandas does by itself."
CODE = "".join(f"def name_{n}(first, second):\n    return first * {n} + second * {n + 1}\n\n\n" for n in range(30))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def dropped() -> list[dict[str, Any]]:
    tables = [(path.stem, pq.read_table(path)) for path in sorted(Path("dataset/dropped").glob("*.parquet"))]
    return [{**row, "reason": reason} for reason, table in tables for row in table.to_pylist()]


def assert_twins_are_kept() -> int:
    """Hold that the twin of each row that was dropped for one is in the dataset; return how many have one."""
    named = [name for row in dropped() for name in re.findall(r"record ([0-9a-f]{32})", row["detail"])]
    assert set(named) <= {record.id for record in records()}
    return len(named)


@pytest.mark.parametrize("curate", [{}, NEAR])
def test_nothing_goes_for_what_the_mixture_leaves_out(curate: dict[str, Any]) -> None:
    rows = [chat(f"What does entry {n} of the table {n * 7} say about its {n * 13}th column?", f"{ANSWER} See {n}.") for n in range(60)]
    changed = [chat(row["messages"][0]["content"], row["messages"][1]["content"] + " Done." * (n % 2)) for n, row in enumerate(rows)]
    sources = [{"path": write_rows("a.jsonl", rows), "weight": 0.2}, {"path": write_rows("b.jsonl", changed)}]
    manifest = run(*sources, curate=curate)
    assert_conserved(manifest)
    assert assert_twins_are_kept() > 0
    questions = {record.turns[0].content for record in records()}
    assert len(questions) == 60, "each question is in the dataset, by one of the sources"


def write_copies(**files: str) -> Path:
    for path, text in files.items():
        target = Path("src", path, "m.py")
        target.parent.mkdir(parents=True)
        target.write_text(text, encoding="utf-8")
    return Path("src")


def prepared(curate: dict[str, Any], overwrite: bool = False) -> list[str | None]:
    source = {"kind": "source", "path": "src", "view": "document", "rules": {"preset": "none"}}
    assert_conserved(run(source, curate=curate, overwrite=overwrite))
    assert_twins_are_kept()
    return [record.source.path for record in records()]


def test_a_copy_does_not_go_for_one_that_a_step_drops() -> None:
    write_copies(a=CODE, b=CODE, c=CODE)
    Path("src/a/package.json").write_text('{"license": "GPL-3.0-only"}', encoding="utf-8")
    Path("src/b/package.json").write_text('{"license": "Apache-2.0"}', encoding="utf-8")
    assert "b/m.py" in prepared({"licenses": {"allow": ["permissive"]}})
    assert {row["reason"] for row in dropped() if row["place"].endswith("m.py")} == {"license_copyleft", "license_none"}


def test_the_preferred_one_of_exact_copies_is_kept() -> None:
    write_copies(a=CODE, b=CODE, c=CODE)
    Path("src/b/package.json").write_text('{"license": "MIT"}', encoding="utf-8")
    assert [path for path in prepared({}) if str(path).endswith("m.py")] == ["a/m.py"], "without a preference the first"
    found = prepared({"near_duplicates": {"prefer": ["license"]}}, overwrite=True)
    assert [path for path in found if str(path).endswith("m.py")] == ["b/m.py"]
    (kept,) = [record.id for record in records() if record.source.path == "b/m.py"]
    assert [row["detail"] for row in dropped() if row["reason"] == "exact_duplicate"] == [
        f"the same text is kept from another file: the record {kept}"
    ] * 2


def test_an_older_commit_is_kept_where_a_step_drops_the_newest() -> None:
    lines = "".join(f"line {n}\n" for n in range(40))
    secret = (
        "-----BEGIN RSA PRIVATE KEY-----\n"
        + "MIIEowIBAAKCAQEAsecret0secret1secret2secret3secret4secret5secret6\n" * 12
        + "-----END RSA PRIVATE KEY-----\n"
    )
    history(
        Path("tool"),
        [
            ("Begin", {"a.py": lines}),
            ("Raise the limit of line 30", {"a.py": lines.replace("line 30\n", "line thirty\n")}),
            ("Add the key of the server", {"a.py": lines.replace("line 30\n", secret)}),
        ],
    )
    source = {"kind": "commits", "path": "tool", "form": "full", "rules": {"preset": "none", "one_per_file": True}}
    assert_conserved(run(source, curate={"redact": {"drop": ["private_key"]}}))
    assert ["line thirty" in record.parts[-1].text for record in records()] == [True]
    assert {row["reason"] for row in dropped()} == {"secret_private_key", "file_added"}


def system(prompt: str, question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": prompt}, *chat(question, answer)["messages"]]}


def test_a_shared_prompt_makes_no_near_duplicate() -> None:
    prompt = " ".join(f"rule{n}" for n in range(400))
    rows = [system(prompt, " ".join(f"q{n}w{w}" for w in range(25)), " ".join(f"a{n}w{w}" for w in range(50))) for n in range(40)]
    assert run({"path": write_rows("chats.jsonl", rows)}, curate=NEAR)["counts"]["kept"] == 40


def test_another_answer_to_a_long_question_is_no_near_duplicate() -> None:
    questions = [" ".join(f"q{n}w{w}" for w in range(60)) for n in range(10)]
    rows = [chat(question, answer) for question in questions for answer in ("Yes, it is.", "No, it is not.")]
    rows += [chat(f"{question} Please.", "Yes, it is.") for question in questions]
    manifest = run({"path": write_rows("chats.jsonl", rows)}, curate=NEAR)
    assert manifest["counts"]["kept"] == 20
    assert assert_twins_are_kept() == 10
    assert {record.turns[-1].content for record in records()} == {"Yes, it is.", "No, it is not."}


def test_near_duplicates_of_what_was_read_before_a_kill_are_not_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook is read by its worker, so that the run's digest does not tell what was in it."""
    from notebook_files import book, code, text, write_notebook

    def write(name: str, word: str) -> None:
        cells = [
            cell
            for n in range(12)
            for cell in (text(f"The {word} step {n} takes the {n} out of {word}."), code(f"{word}_{n} = step({n}, {n * n})"))
        ]
        write_notebook(Path("books", name), book(*cells))

    write("a.ipynb", "first")
    write("b.ipynb", "first")
    source = {"kind": "notebooks", "path": "books", "rules": {"preset": "none"}}
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "_write", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            run(source, curate=NEAR)
    write("b.ipynb", "other")
    assert len(records() if Path("dataset").exists() else []) == 0
    assert_conserved(run(source, curate=NEAR))
    assert [record.source.path for record in records()] == ["a.ipynb", "b.ipynb"]
