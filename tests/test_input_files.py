"""What a dataset's digest covers, and inputs that change while they are read or after it was made."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from data_prep.input_files import changed_inputs, is_unchanged, without_stamps
from data_prep.remote_files import describe_input
from notebook_files import LESSON
from preparing import chat, records, run, write_rows
from starchat.errors import UserError
from test_names import write_marker


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def meanwhile(change: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as a run has begun to read, which is when its inputs were described."""

    def wait() -> None:
        while not over.is_set():
            if Path(".dataset.work/shards").exists():
                change()
                return
            time.sleep(0.001)

    over = threading.Event()
    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def many(word: str, count: int = 20_000) -> list[dict[str, Any]]:
    """Rows that take a while to be read."""
    return [chat(f"{word} {number}") for number in range(count)]


def rewrite() -> None:
    Path("new.jsonl").replace("chats.jsonl")


def truncate() -> None:
    os.truncate("chats.jsonl", 200)


@pytest.mark.parametrize("change", [rewrite, truncate, lambda: os.remove("chats.jsonl")], ids=["other", "shorter", "gone"])
def test_an_input_that_changes_while_it_is_read_stops_the_run(change: Callable[[], None]) -> None:
    path = write_rows("chats.jsonl", many("old"))
    write_rows("new.jsonl", many("new"))
    with meanwhile(change), pytest.raises(UserError, match=r"chats\.jsonl: changed while it was read; nothing was written"):
        run({"path": path}, workers=2)
    assert not Path("dataset").exists()
    assert not Path(".dataset.work").exists(), "what was read tells other content than the digest"


def test_an_input_that_is_written_again_as_it_was_stops_nothing() -> None:
    path = write_rows("chats.jsonl", many("old"))
    with meanwhile(lambda: os.utime(path, (1, 1))):
        assert run({"path": path}, workers=2)["counts"]["kept"] == 20_000
    assert os.stat(path).st_mtime == 1


def test_a_list_of_requests_that_changes_meanwhile_stops_the_run() -> None:
    """Each worker reads it."""
    path = write_rows("chats.jsonl", many("old"))
    Path("list.txt").write_text("ada\n")
    change = lambda: Path("list.txt").write_text("ada\nbob\n")  # noqa: E731
    with meanwhile(change), pytest.raises(UserError, match=r"list\.txt: changed while it was read"):
        run({"path": path}, workers=2, curate={"opt_out": {"lists": ["list.txt"]}})


def test_a_file_that_comes_to_a_folder_meanwhile_is_not_read() -> None:
    """Nothing is in the dataset that its manifest does not name."""
    write_rows("chats.jsonl", many("old"))
    Path("code").mkdir()
    Path("code/a.py").write_text("def first(x):\n    return x + 1\n")
    source = {"kind": "source", "path": "code", "license": "MIT", "rules": {"preset": "none"}}
    with meanwhile(lambda: (Path("code/b.py").write_text("def second(x):\n    return x + 2\n"), None)[1]):
        manifest = run({"path": "chats.jsonl"}, source, workers=2)
    assert Path("code/b.py").is_file()
    assert [entry["path"] for entry in manifest["inputs"]] == ["chats.jsonl", "code/a.py"]
    assert manifest["counts"]["sources"][1]["read"] == 1


def test_an_object_of_a_store_that_changes_is_seen() -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/bucket/a.jsonl", b"one")
    described = describe_input("memory://bucket/a.jsonl")
    assert changed_inputs([described]) == []
    store.pipe_file("/bucket/a.jsonl", b"two")
    assert changed_inputs([described]) == [described]
    store.rm_file("/bucket/a.jsonl")
    assert changed_inputs([described]) == [described]


def test_what_is_told_of_no_file_does_not_change() -> None:
    commit = {"path": "clone", "commit": "0" * 40}
    assert changed_inputs([commit, {"distribution": "x", "version": "1"}]) == []
    assert without_stamps([commit]) == [commit]


def test_a_file_is_read_again_only_where_its_size_or_time_differs(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    described = describe_input(path)
    assert without_stamps([described]) == [{"path": str(path), "bytes": 3, "sha256": described["sha256"]}]
    assert is_unchanged({**described, "sha256": "of something else"}), "the content was not looked at"
    os.utime(path, (5, 5))
    assert is_unchanged(described)
    assert not is_unchanged({**described, "sha256": "of something else"})
    path.write_bytes(b"two")
    assert not is_unchanged(described)
    assert is_unchanged(json.loads(json.dumps(describe_input(path)))), "as a shard keeps it"


def test_the_files_that_say_the_licence_of_notebooks_are_inputs() -> None:
    Path("books").mkdir()
    Path("books/a.ipynb").write_text(json.dumps(LESSON))
    Path("books/package.json").write_text('{"license": "MIT"}')
    source = {"kind": "notebooks", "path": "books"}
    first = run(source, test_fraction=0.0)
    assert [entry["path"] for entry in first["inputs"]] == ["books/package.json", "books/a.ipynb"]
    assert run(source, test_fraction=0.0)["skipped"]
    Path("books/package.json").write_text('{"license": "UNLICENSED"}')
    with pytest.raises(UserError, match="holds another prepare result"):
        run(source, test_fraction=0.0)
    again = run(source, test_fraction=0.0, overwrite=True)
    assert again["digest"] != first["digest"]
    assert [record.license for record in records()] == ["LicenseRef-proprietary"]


def test_a_changed_tokenizer_folder_makes_another_dataset(tiny_base: Path) -> None:
    shutil.copytree(tiny_base, "tok")
    path = write_rows("chats.jsonl", [chat("one"), chat("two")])
    first = run({"path": path}, tokenizer="./tok")
    assert {entry["path"] for entry in first["inputs"]} >= {"tok/tokenizer.json", "tok/tokenizer_config.json"}
    assert not any("safetensors" in entry["path"] for entry in first["inputs"]), "weights are not read"
    assert run({"path": path}, tokenizer="./tok")["skipped"]
    Path("tok/tokenizer.json").write_text(Path("tok/tokenizer.json").read_text() + "\n")
    with pytest.raises(UserError, match="holds another prepare result"):
        run({"path": path}, tokenizer="./tok")


def test_a_changed_model_of_names_makes_another_dataset() -> None:
    """All of its files are looked at, its weights too."""
    write_marker(Path("marker"))
    path = write_rows("chats.jsonl", [chat("one"), chat("two")])
    curate = {"redact": {"names": "./marker"}}
    first = run({"path": path}, curate=curate, workers=1)
    assert {entry["path"] for entry in first["inputs"]} >= {"marker/model.safetensors", "marker/tokenizer.json"}
    assert run({"path": path}, curate=curate, workers=1)["skipped"]
    weights = bytearray(Path("marker/model.safetensors").read_bytes())
    weights[-1] ^= 1
    Path("marker/model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="holds another prepare result"):
        run({"path": path}, curate=curate, workers=1)
