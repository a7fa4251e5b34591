"""Ctrl-C and SIGTERM: workers end at once, the status is the signal's, and no folder is named that holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data_prep.stopping import ending_in_order, keeping_sigterm, telling_of
from preparing import chat, write_rows, write_spec
from starchat.errors import Preempted
from test_task_engines import ROOT, descendants, wait_until

SLEEPING = """
import sys, time
from data_prep.pool import run_apart
from data_prep.stopping import ending_in_order
from sleeping import say_and_sleep
from starchat.errors import guarded

@ending_in_order()
def work():
    return len(list(run_apart(say_and_sleep, [60, 60], 2)))

sys.exit(guarded(work))
"""


def start(command: list[str], path: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture
def sleeper(tmp_path: Path) -> subprocess.Popen[str]:
    """A process whose two workers have just begun tasks of a minute."""
    text = "import time\n\n\ndef say_and_sleep(seconds):\n    print('up', flush=True)\n    time.sleep(seconds)\n"
    (tmp_path / "sleeping.py").write_text(text, encoding="utf-8")
    driver = start([sys.executable, "-c", SLEEPING], tmp_path)
    assert driver.stdout is not None
    assert [driver.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
    return driver


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_the_process_that_is_told_alone(number: int, sleeper: subprocess.Popen[str]) -> None:
    family = descendants(sleeper)
    assert len(family) >= 3
    begin = time.monotonic()
    sleeper.send_signal(number)
    _, err = sleeper.communicate(timeout=60)
    assert time.monotonic() - begin < 30, "no task is waited for"
    expected = (130, "starchat: interrupted\n") if number == signal.SIGINT else (143, "starchat: terminated\n")
    assert (sleeper.returncode, err) == expected
    wait_until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family), 5)


TWICE = """
import os, sys, time
from data_prep.stopping import ending_in_order
from starchat.errors import guarded

@ending_in_order()
def work():
    try:
        os.kill(os.getpid(), 15)
        time.sleep(60)
    finally:
        os.kill(os.getpid(), 15)

sys.exit(guarded(work))
"""


def test_a_second_sigterm_changes_nothing(tmp_path: Path) -> None:
    """The program ``timeout`` sends two, one of them to the group."""
    driver = start([sys.executable, "-c", TWICE], tmp_path)
    _, err = driver.communicate(timeout=60)
    assert (driver.returncode, err) == (143, "starchat: terminated\n")


def test_the_command_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its progress bars, in the middle of a file of many pieces."""
    monkeypatch.chdir(tmp_path)
    spec = write_spec({"path": write_rows("chats.jsonl", [chat(f"question {n} " + "x" * 1000) for n in range(40_000)])})
    driver = start([sys.executable, "-m", "starchat", "prepare", str(spec), "--workers", "2"], tmp_path)
    wait_until(lambda: next(Path(".dataset.work").rglob("done.json"), None) is not None or driver.poll() is not None, 60)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 143, err
    told = f"starchat: terminated; what is done is kept: the same command goes on from {tmp_path / '.dataset.work'}"
    assert err.split("\n")[-2:] == [told, ""]
    assert "Traceback" not in err
    assert sorted(os.listdir()) == [".dataset.work", "chats.jsonl", "spec.yaml"]


def test_a_folder_where_nothing_is_done_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with pytest.raises(KeyboardInterrupt, match=r"^$"), telling_of(tmp_path):
        raise KeyboardInterrupt
    (tmp_path / "shards" / "done.json").touch()
    with pytest.raises(KeyboardInterrupt, match=f"the same command goes on from {tmp_path}"), telling_of(tmp_path):
        raise KeyboardInterrupt


def test_what_a_program_set_is_left_and_given_back() -> None:
    with pytest.raises(Preempted, match="^terminated$"), ending_in_order():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with ending_in_order(), keeping_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM, signal.SIGTERM]
