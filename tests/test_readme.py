"""Every command in the README and in the recipes' pages is one that exists; the README's road is run as it stands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from starchat.cli import parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "recipes").rglob("README.md")), *sorted((ROOT / "docs").glob("*.md"))]
BASH = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Return the command lines of a page's bash blocks, comments removed, continued lines joined."""
    text = "\n".join(BASH.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line for line in lines if line]


def described() -> list[tuple[str, list[str]]]:
    """Return (page, command) of every command that a page shows."""
    return [(str(page.relative_to(ROOT)), line) for page in PAGES for line in commands(page)]


def test_pages_show_commands() -> None:
    """The extraction finds something: a test over nothing would always hold."""
    shown = {line[0] for _, line in described()}
    assert {"make", "starchat", "accelerate"} <= shown


@pytest.mark.parametrize(("page", "line"), described(), ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60])
def test_command_exists(page: str, line: list[str]) -> None:
    """The program's own parser takes the command, and files that it names are there."""
    program, *rest = [word for word in line if not re.match(r"^[A-Z_]+=", word)]
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif program == "starchat":
        parser().parse_args(rest)
    elif program == "accelerate":
        assert rest[0] == "launch"
        assert "starchat.train" in rest
    else:
        assert program in ("python", "git", "cd", "pip", "export", "sbatch", "kubectl", "ray"), f"{page}: {program}"
    for word in line:
        if word.startswith(("recipes/", "benchmarks/", "docs/")):
            assert (ROOT / word).exists(), f"{page}: {word}"


@pytest.mark.slow
def test_the_road_of_the_readme(tmp_path: Path) -> None:
    """The commands under 'The same on your data' run in their order; training takes two steps."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## The same on your data")[1]
    block = BASH.findall(section)[0]
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = []
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words[1] == "train":
            words += ["max_steps=2", "min_stop_rate=0.0"]
        typed = "What is a list?\n/quit\n" if words[1] == "chat" else None
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, env=environment, input=typed, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"
        ran.append(words[1])
    assert ran == ["prepare", "inspect", "check", "train", "verify", "chat"]
    assert (tmp_path / "lengths.png").stat().st_size > 1000
    assert "<html" in (tmp_path / "check.html").read_text(encoding="utf-8")
