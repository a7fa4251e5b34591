"""The command line: help that is instant, one JSON object, exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import starchat
from starchat.cli import _parse, main, parser
from starchat.dialogue import Turn, to_message

COMMANDS = tuple(parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr, arg-type]
HEAVY = ("torch", "transformers", "datasets", "gradio", "pyarrow", "numpy", "tokenizers", "yaml", "huggingface_hub")
MAX_CPU_S = 0.5

PROGRAM = """
import json, resource, sys
from starchat.cli import main
try:
    main(json.loads(sys.argv[1]))
except SystemExit as end:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([end.code, usage.ru_utime, sorted({name.split('.')[0] for name in sys.modules})]), file=sys.stderr)
"""


def dialogues(folder: Path, count: int, long_one: int | None = None) -> Path:
    """Write a file of small dialogues, of which one may be very long."""
    path = folder / "chats.jsonl"
    lines = []
    for number in range(count):
        answer = "for number in range(10):\n" * (200 if number == long_one else 1) + f"    print({number})"
        lines.append({"messages": [to_message(Turn("user", f"Question {number}?")), to_message(Turn("assistant", answer))]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def spec(folder: Path, source: Path) -> Path:
    """Write a spec for a file of dialogues."""
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"sources": [{"kind": "dialogues", "path": str(source)}], "output": str(folder / "dataset")}))
    return path


def recipe(folder: Path, model: Path | str, **keys: Any) -> Path:
    """Write a recipe for the dataset beside it."""
    path = folder / "recipe.yaml"
    least = {"model": str(model), "dataset": str(folder / "dataset"), "output": str(folder / "run"), "max_length_tokens": 512}
    path.write_text(yaml.safe_dump({**least, **keys}))
    return path


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_instant_and_has_an_example(command: str) -> None:
    arguments = json.dumps([*([command] if command else []), "--help"])
    done = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, check=True)
    status, cpu_s, modules = json.loads(done.stderr)
    assert status == 0
    assert cpu_s < MAX_CPU_S
    assert [name for name in HEAVY if name in modules] == []
    wanted = [f"example: starchat {command} ", "--json"] if command else COMMANDS
    assert [text for text in wanted if text not in f"{done.stdout.strip()} "] == []


def test_the_check_for_heavy_modules_would_see_one() -> None:
    program = f"import numpy\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program, '["--help"]'], capture_output=True, text=True, check=True)
    assert "numpy" in json.loads(done.stderr)[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"starchat {starchat.__version__}\n")


def test_the_module_and_the_script_are_the_same_program() -> None:
    outputs = {
        subprocess.run([*program, "--version"], capture_output=True, text=True, check=True).stdout
        for program in ([sys.executable, "-m", "starchat"], [str(Path(sys.executable).parent / "starchat")])
    }
    assert outputs == {f"starchat {starchat.__version__}\n"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["trian", "r.yaml"],
        ["train"],
        ["verify", "run", "max_steps=3"],
        ["check", "r.yaml", "--overwrit"],
        ["demo", "nano", "--port", "99999"],
        ["demo", "nano", "--port", "-1"],
        ["chat", "nano", "--temperature", "warm"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    captured = capsys.readouterr()
    assert (end.value.code, captured.out) == (2, "")
    assert captured.err.startswith("usage: starchat")


def test_overrides_may_stand_before_and_behind_flags() -> None:
    for arguments in (["a=1", "b=2", "--json"], ["--json", "a=1", "b=2"], ["a=1", "--json", "b=2"]):
        options = _parse(["check", "r.yaml", *arguments])
        assert (options.recipe, options.overrides, options.json) == ("r.yaml", ["a=1", "b=2"], True)


def test_one_json_object_on_standard_output(tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        ["prepare", str(spec(tmp_path, dialogues(tmp_path, 30)))],
        ["inspect", str(tmp_path / "dataset"), "--plot", str(tmp_path / "a.png")],
        ["check", str(recipe(tmp_path, tiny_base)), "--html", str(tmp_path / "a.html")],
    )
    found = {}
    for argument in arguments:
        assert main([*argument, "--json"]) == 0
        out = capsys.readouterr().out
        found[argument[0]] = json.loads(out)
        assert out.count("\n") == 1
        assert main(argument) == 0
        with pytest.raises(ValueError):
            json.loads(capsys.readouterr().out)
    counts = found["prepare"]["counts"]
    assert (counts["read"], counts["kept"], counts["dropped"], found["prepare"]["folder"]) == (30, 30, {}, str(tmp_path / "dataset"))
    assert found["inspect"]["counts"] == counts
    assert found["check"]["ok"] is True
    assert {"check", "ok", "detail", "remedy"} == set(found["check"]["findings"][0])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_fault_found_is_status_1_with_its_place(tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(spec(tmp_path, dialogues(tmp_path, 30, long_one=7))), "test_fraction=0"]) == 0
    capsys.readouterr()
    assert main(["check", str(recipe(tmp_path, tiny_base)), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    faults = [f for f in report["findings"] if not f["ok"]]
    assert report["ok"] is False
    assert [f["check"] for f in faults] == ["lengths"]
    assert "chats.jsonl:8" in faults[0]["detail"]
    assert faults[0]["remedy"]
    assert main(["check", str(recipe(tmp_path, tiny_base)), "max_set_aside_fraction=1"]) == 0


def test_what_the_user_must_change_is_status_2_and_leaves_standard_output_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "no-such.yaml", "--json"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "starchat: no-such.yaml: no such file; give the path of a YAML file\n")


def test_a_second_prepare_does_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prepare", str(spec(tmp_path, dialogues(tmp_path, 20))), "--json"]
    assert main(arguments) == main(arguments) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first.pop("skipped"), second.pop("skipped")) == (False, True)
    assert first == second
