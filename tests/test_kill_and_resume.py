"""The kill test itself, in short: `benchmarks/kill_and_resume.py` with three moments in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "kill_and_resume.py"


@pytest.mark.slow
def test_three_moments(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--engine", "one", "--kills", "3", "--kills-a-run", "3", "--seed", "5"]
    done = subprocess.run([*command, "--log", str(tmp_path / "log")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "3 kills in 1 runs: " in (tmp_path / "log").read_text()
    assert "verdict: 1 of 1 runs are bit for bit what the run that was never stopped is" in done.stdout
