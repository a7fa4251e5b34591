"""How training processes are started."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from starchat.launch import GLIBC_TUNABLES, allocator_environment, launch_training, recipes_folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is of Linux")
def test_the_allocator_is_set_once_and_never_against_a_choice() -> None:
    wanted = allocator_environment({})
    assert wanted == {"GLIBC_TUNABLES": GLIBC_TUNABLES}
    assert allocator_environment(wanted) == {}
    for name in ("LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_"):
        assert allocator_environment({name: "x"}) == {}


def test_recipes_are_found_and_complete() -> None:
    names = {p.stem for p in (recipes_folder() / "accelerate").glob("*.yaml")}
    assert names >= {"cpu", "ddp", "zero1", "zero2", "zero3"}
    assert (recipes_folder() / "nano" / "lora.yaml").is_file()


def test_the_launch_passes_overrides_environment_and_status_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A program of that name in front of accelerate's shows what it was called with."""
    program = tmp_path / "accelerate" / "commands"
    program.mkdir(parents=True)
    for folder in (program.parent, program):
        (folder / "__init__.py").write_text("")
    (program / "launch.py").write_text(
        "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ.get('GLIBC_TUNABLES'), os.environ['MINE']]))\nsys.exit(7)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "MINE": "1", "OMP_NUM_THREADS": "3"}
    environment.pop("GLIBC_TUNABLES", None)
    assert launch_training(Path("cpu.yaml"), Path("lora.yaml"), ["output=x y"], environment) == 7
    out, err = capfd.readouterr()
    assert out == "", "standard output belongs to the caller's JSON"
    called, tunables, mine = json.loads(err)
    assert called == ["--config_file", "cpu.yaml", "--num_cpu_threads_per_process", "3", "-m", "starchat.train", "lora.yaml", "output=x y"]
    assert (tunables, mine) == (GLIBC_TUNABLES if sys.platform.startswith("linux") else None, "1")
