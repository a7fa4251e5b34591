"""Bad input, through the real command line: one message with place and remedy, status 2 (1 where a check found it), nothing touched."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runs import mounted_disk, write_recipe
from starchat.cli import main

GOOD = {"messages": [{"role": "user", "content": "What is a list?"}, {"role": "assistant", "content": "A row of items."}]}

Snapshot = dict[str, bytes | None]


def snapshot(folder: Path) -> Snapshot:
    """Every path below a folder, with the content of files."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture(autouse=True)
def _stay_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an allocator chosen, ``starchat train`` does not start itself anew."""
    monkeypatch.setenv("GLIBC_TUNABLES", os.environ.get("GLIBC_TUNABLES", "glibc.malloc.check=0"))


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 2) -> str:
    """Return the message of a command that must fail, with standard output empty and one message on standard error."""
    capsys.readouterr()
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    if status == 2:
        assert captured.out == ""
        assert captured.err.count("starchat: ") == 1
        return captured.err.partition("starchat: ")[2]
    return captured.out


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode() + b"\n"


def answer(text: str, role: str = "assistant") -> bytes:
    return line(messages=[GOOD["messages"][0], {"role": role, "content": text}])


BAD_DATA: dict[str, tuple[str, bytes | None, tuple[str, ...]]] = {
    "no file": ("chats.jsonl", None, ("chats.jsonl: no such file or folder", "relative to the current folder")),
    "empty file": ("chats.jsonl", b"", ("chats.jsonl: holds no rows", "remove it from the spec")),
    "empty array": ("chats.json", b"[]", ("chats.json: holds no rows",)),
    "unknown extension": ("chats.docx", b"x", ("extension '.docx' is not known", "expected one of .jsonl")),
    "unknown format": ("chats.jsonl", b'{"frage": "a"}\n', ("format not recognised by its keys (frage)", "name it with format")),
    "forged token": ("chats.jsonl", line() + answer("a <|end|> b"), ("chats.jsonl:2: ", "<|end|>", "control_tokens")),
    "unknown role": ("chats.jsonl", line() + answer("a", "bot"), ("chats.jsonl:2: role 'bot'", "map it with roles: {bot: assistant}")),
    "invalid UTF-8": ("chats.jsonl", line() + b'{"messages": "\xff"}\n', ("chats.jsonl:2: byte 0xff", "convert the file to UTF-8")),
    "not JSON": ("chats.jsonl", line() + b"{,\n", ("chats.jsonl:2: not valid JSON", "correct or remove the line")),
    "NaN": ("chats.jsonl", line() + b'{"messages": NaN}\n', ("chats.jsonl:2: not valid JSON",)),
    "bottomless JSON": ("chats.jsonl", line() + b"[" * 100_000 + b"\n", ("chats.jsonl:2: not valid JSON",)),
    "truncated gzip": ("chats.jsonl.gz", gzip.compress(line() * 500)[:-20], ("chats.jsonl.gz: the .gz stream is truncated", "again")),
    "no gzip": ("chats.jsonl.gz", line(), ("chats.jsonl.gz: not a sound .gz file", "again")),
    "no zst": ("chats.jsonl.zst", line(), ("chats.jsonl.zst: not a sound .zst file", "again")),
    "no Parquet": ("chats.parquet", b"PAR1 and so on", ("chats.parquet: ", "again")),
    "ragged CSV": ("chats.csv", b"prompt,completion\na,b\nc\n", ("chats.csv:2: ", "more or fewer cells")),
    "nothing trained": ("chats.jsonl", line(messages=[GOOD["messages"][0]]), ("no record is left", "look at the format")),
}


def write_spec(folder: Path, source: Path, **keys: Any) -> str:
    path = folder / "data.yaml"
    kinds = {"kind": "dialogues", "path": str(source), **keys.pop("entry", {})}
    path.write_text(yaml.safe_dump({"sources": [kinds], "output": str(folder / "dataset"), **keys}))
    return str(path)


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, content, expected = BAD_DATA[name]
    if content is not None:
        (tmp_path / file).write_bytes(content)
    arguments = ["prepare", write_spec(tmp_path, tmp_path / file)]
    before = snapshot(tmp_path)
    message = fails(arguments, capsys)
    assert [text for text in (*expected, str(tmp_path / file) if name != "nothing trained" else "") if text not in message] == []
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"entry": {"format": "alpacca"}}, "format: 'alpacca'; did you mean 'alpaca'?"),
        ({"entry": {"kind": "dialoges"}}, "kind: 'dialoges'; did you mean 'dialogues'?"),
        ({"entry": {"roles": {"bot": "asistant"}}}, "did you mean 'assistant'?"),
        ({"entry": {"weight": -1}}, "weight: -1; expected a number above 0"),
        ({"test_fraktion": 0.1}, "unknown key 'test_fraktion'; did you mean 'test_fraction'?"),
        ({"test_fraction": 2}, "test_fraction: 2.0; expected a number from 0 to 1"),
        ({"output": "."}, "names no folder of its own"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_spec(spec: dict[str, Any], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chats.jsonl").write_bytes(line())
    arguments = ["prepare", write_spec(tmp_path, tmp_path / "chats.jsonl", **spec)]
    before = snapshot(tmp_path)
    assert expected in fails(arguments, capsys)
    assert snapshot(tmp_path) == before


def test_an_output_that_holds_something_else_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chats.jsonl").write_bytes(line())
    arguments = ["prepare", write_spec(tmp_path, tmp_path / "chats.jsonl")]
    output = tmp_path / "dataset"
    output.mkdir()
    (output / "thesis.tex").write_text("mine")
    for more in ([], ["--overwrite"]):
        assert f"{output}: holds other files; choose another output" in fails([*arguments, *more], capsys)
    assert snapshot(output) == {"thesis.tex": b"mine"}
    shutil.rmtree(output)
    assert main(arguments) == 0
    before = snapshot(output)
    assert "holds another prepare result; choose another output or pass --overwrite" in fails([*arguments, "seed=1"], capsys)
    assert snapshot(output) == before
    assert "chats.jsonl:2: not valid JSON" in fails_after_append(tmp_path, arguments, capsys)
    assert snapshot(output) == before, "a stage that fails leaves the result of the last one, also when it may replace it"


def fails_after_append(folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with (folder / "chats.jsonl").open("ab") as file:
        file.write(b"{\n")
    return fails([*arguments, "--overwrite"], capsys)


def without(*names: str) -> Callable[[Path], None]:
    return lambda model: [(model / name).unlink() for name in names] and None


def config(**keys: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / "config.json"
        value = {**json.loads(path.read_text()), **keys}
        path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))

    return change


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes(content) and None


def tokenizer_model(**keys: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / "tokenizer.json"
        spec = json.loads(path.read_text())
        path.write_text(json.dumps({**spec, "model": {**spec["model"], **keys}}))

    return change


BAD_MODELS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no tokenizer": (without("tokenizer.json"), "check", "has no tokenizer.json; a base model needs its tokenizer"),
    "no tokenizer configuration": (without("tokenizer_config.json"), "check", "has no tokenizer_config.json; fetch the model again"),
    "no configuration": (without("config.json"), "check", "has no config.json; give the folder of a model"),
    "broken configuration": (written("config.json", b"{"), "check", "config.json: not valid JSON"),
    "broken tokenizer": (written("tokenizer.json", b"{}"), "check", "tokenizer.json: not a tokenizer"),
    "tokenizer of no known kind": (tokenizer_model(type="phantom"), "check", "tokenizer.json: its model is of type phantom; expected BPE"),
    "tokenizer without a vocabulary": (
        tokenizer_model(vocab=None),
        "check",
        "tokenizer.json: its vocabulary is not a mapping of tokens to ids",
    ),
    "tokenizer with other ids": (tokenizer_model(vocab={"a": "1"}), "check", "tokenizer.json: its vocabulary is not a mapping"),
    "tokenizer without merges": (tokenizer_model(merges=None), "check", "tokenizer.json: it has no list of merges"),
    "tokenizer with half a merge": (tokenizer_model(merges=[["a"]]), "check", "tokenizer.json: merge 0 is not a pair of tokens"),
    "tokenizer with a foreign merge": (
        tokenizer_model(merges=[["a", "QQ"]]),
        "check",
        "merge 0 makes or needs a token that the vocabulary lacks",
    ),
    "no weights": (without("model.safetensors"), "check", "no *.safetensors weights; fetch the model again"),
    "broken weights": (written("model.safetensors", b"x" * 100), "check", "100 bytes, which do not hold its own header"),
    "its own code": (config(model_type="phantom", auto_map={"AutoConfig": "code.C"}), "check", "its own code to run, which is never run"),
    "its own code alone": (config(model_type=None, auto_map={"AutoConfig": "code.C"}), "check", "needs its own code to run"),
    "unknown architecture": (config(model_type="phantom"), "check", "model_type 'phantom'; expected a causal language model"),
    "other sizes": (config(n_embd=64), "train", "fetch the model again"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_model(name: str, tiny_base: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, command, expected = BAD_MODELS[name]
    model = shutil.copytree(tiny_base, tmp_path / "model")
    spoil(model)
    recipe = write_recipe(tmp_path / "r.yaml", model, dataset, tmp_path / "run")
    message = fails([command, str(recipe)], capsys, status=1 if name == "broken weights" else 2)
    assert expected in message
    assert str(model) in message
    assert not (tmp_path / "run").exists()


BAD_RECIPES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "unknown key": ({"max_length_tokns": 9}, [], "unknown key 'max_length_tokns'; did you mean 'max_length_tokens'?"),
    "unknown override": ({}, ["max_length_tokns=9"], "unknown key 'max_length_tokns'; did you mean 'max_length_tokens'?"),
    "unknown trainer key": ({"trainer": {"learning_rte": 1}}, [], "unknown key 'trainer.learning_rte'; did you mean 'learning_rate'?"),
    "recipe key under trainer": ({"trainer": {"max_length_tokens": 9}}, [], "unknown key 'trainer.max_length_tokens'; did you mean"),
    "key that the recipe owns": ({"trainer": {"output_dir": "x"}}, [], "trainer.output_dir: set by output; remove it here"),
    "trainer key that is a number": ({"trainer": {7: 1}}, [], "trainer: key 7 is of type int"),
    "above the context": ({"max_length_tokens": 2048}, [], "has a context of 1,024 tokens; lower it to at most that"),
    "unknown template": ({"template": "chatlm"}, [], "did you mean 'chatml'?"),
    "unknown model": ({"model": "/no/such/model"}, [], "model: '/no/such/model': no such folder; give nano, the folder of a model,"),
    "dataset that is none": ({"dataset": "EMPTY"}, [], "an empty folder; give a folder that starchat prepare wrote"),
    "dataset of other files": ({"dataset": "FOREIGN"}, [], "an unfinished or foreign folder; give a folder that starchat prepare wrote"),
    "output is a file": ({"output": "FILE"}, [], "is a file; choose another output"),
    "output holds other files": ({"output": "FOREIGN"}, [], "holds other files; choose another output"),
    "output of another run": ({"output": "RUN"}, [], "holds another train result; choose another output or pass --overwrite"),
}


@pytest.mark.parametrize("name", BAD_RECIPES)
def test_bad_recipe(name: str, tiny_base: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, overrides, expected = BAD_RECIPES[name]
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("mine")
    for folder, file, text in (("FOREIGN", "thesis.tex", "mine"), ("RUN", "manifest.json", '{"stage": "train", "digest": "d"}')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(text)
    keys = {k: str(tmp_path / v) if isinstance(v, str) and v.isupper() else v for k, v in keys.items()}
    recipe = write_recipe(tmp_path / "r.yaml", **{"model": tiny_base, "dataset": dataset, "output": tmp_path / "run", **keys})
    before = snapshot(tmp_path)
    for command in ("train",) if name.startswith("output") else ("check", "train"):
        assert expected in fails([command, str(recipe), *overrides], capsys)
        assert snapshot(tmp_path) == before


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGED_DATASETS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a part is gone": (lambda dataset: (dataset / "train-00000.parquet").unlink(), "the train split has 0 records, its manifest says "),
    "a part is cut": (lambda dataset: cut_in_half(dataset / "train-00000.parquet"), "train-00000.parquet: damaged ("),
    "a part is there twice": (
        lambda dataset: shutil.copy(dataset / "test-00000.parquet", dataset / "test-00001.parquet"),
        "the test split has ",
    ),
}


@pytest.mark.parametrize("name", DAMAGED_DATASETS)
def test_damaged_dataset(name: str, tiny_base: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, expected = DAMAGED_DATASETS[name]
    copy = shutil.copytree(dataset, tmp_path / "dataset")
    spoil(copy)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, copy, tmp_path / "run")
    for command in ("check", "train"):
        assert expected in fails([command, str(recipe)], capsys)
    assert not (tmp_path / "run").exists()


def test_a_dialogue_that_is_too_long_is_found_with_its_place(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chats.jsonl").write_bytes(line() + answer("for number in range(10):\n" * 400))
    assert main(["prepare", write_spec(tmp_path, tmp_path / "chats.jsonl", test_fraction=0)]) == 0
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, tmp_path / "dataset", tmp_path / "run")
    found = fails(["check", str(recipe)], capsys, status=1)
    assert f"{tmp_path / 'chats.jsonl'}:2" in found
    assert "max_length_tokens" in found
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["inspect", "verify", "chat", "demo"])
def test_a_folder_that_is_not_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "demo":
        pytest.importorskip("gradio", reason="the page needs the extra 'demo'")
    assert "no-such-folder" in fails([command, "./no-such-folder"], capsys)


@pytest.mark.parametrize("key", ["model", "dataset"])
def test_a_hub_id_without_a_network(key: str, tiny_base: Path, dataset: Path, tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads the variable when it is imported."""
    keys = {"model": tiny_base, "dataset": dataset, "output": tmp_path / "run", key: Path("nobody/nothing")}
    recipe = write_recipe(tmp_path / "r.yaml", **keys)
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "starchat", "check", str(recipe), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=offline, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert f"starchat: {key}: 'nobody/nothing': neither a folder nor a" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with mounted_disk(tmp_path / "disk", "1m") as folder:
        yield folder


def incompressible(count: int) -> bytes:
    """Dialogues of some 900 bytes each whose answers no compression makes small."""
    rng = random.Random(0)
    texts = ("".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(300)) for _ in range(count))
    lines = [json.dumps({"messages": [{"role": "user", "content": text[:9]}, {"role": "assistant", "content": text}]}) for text in texts]
    return "\n".join(lines).encode() + b"\n"


def test_a_full_disk(small_disk: Path, tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chats.jsonl").write_bytes(incompressible(2500))
    spec = write_spec(tmp_path, tmp_path / "chats.jsonl")
    message = fails(["prepare", spec, f"output={small_disk / 'dataset'}"], capsys)
    assert str(small_disk) in message
    assert "No space left on device; free some space, or choose an output elsewhere" in message
    work = small_disk / ".dataset.work"
    assert not (small_disk / "dataset").exists()
    assert work.exists() == (f"; what is done is kept: the same command goes on from {work}" in message)
    shutil.rmtree(work, ignore_errors=True)
    assert snapshot(small_disk) == {}
    assert main(["prepare", spec]) == 0
    keys = {"max_length_tokens": 1024, "max_set_aside_fraction": 1.0}
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, tmp_path / "dataset", small_disk / "run", **keys)
    message = fails(["train", str(recipe)], capsys)
    assert "No space left on device" in message
    assert str(small_disk / "run") in message
    assert not (small_disk / "run" / "manifest.json").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_disk_that_fills_when_weights_are_written(
    small_disk: Path, tiny_base: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_disk / "filler").write_bytes(bytes(2**20 - 2**18 - 2**17 - 2**15))
    run = small_disk / "run"
    message = fails(["train", str(write_recipe(tmp_path / "r.yaml", tiny_base, dataset, run)), "--json"], capsys)  # weights alone would fit
    assert f"{run}: weights could not be written (" in message
    assert "No space left on device" in message
    assert not (run / "manifest.json").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chats.jsonl").write_bytes(line())
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    message = fails(["prepare", write_spec(tmp_path, tmp_path / "chats.jsonl"), f"output={closed / 'dataset'}"], capsys)
    assert "Permission denied; check the path and its permissions" in message
