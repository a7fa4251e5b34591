"""Tasks: what they write is there whole or not at all, is not made twice, and is never taken for something else."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import threading
from pathlib import Path

import pytest

from data_prep import tasks as tasks_module
from data_prep.tasks import DONE, Run, Task, begin_run, code_digest, code_stamp, end_run, find_done, job_digest, run_task, task_digest
from fuzz_tasks import fuzz_one
from starchat.errors import UserError
from task_work import refuse, write_squares

DIGEST = job_digest({"a": 1}, [])
SQUARES = Task("squares", write_squares, (3, 4))


def begun(tmp_path: Path, digest: str = DIGEST) -> Run:
    return begin_run(str(tmp_path / "run"), digest)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_task_writes_its_folder_and_is_not_done_twice(tmp_path):
    log = tmp_path / "log"
    task = Task("squares", write_squares, (3, 4, 0.0, str(log)))
    value = run_task(task, run := begun(tmp_path))
    assert value == {"sum": 9 + 16 + 25 + 36, "first": 3}
    place = tmp_path / "run" / "squares"
    assert contents(place).keys() == {"squares.txt", "inner/count", DONE}
    assert (place / "squares.txt").read_text() == "9\n16\n25\n36\n"
    assert json.loads((place / DONE).read_text())["files"] == {"inner/count": 1000, "squares.txt": 11}
    before = contents(place)
    assert run_task(task, run) == value
    end_run(run)
    assert run_task(task, begun(tmp_path)) == value
    assert log.read_text() == "3\n"
    assert contents(place) == before


def test_what_the_digest_covers(tmp_path):
    run = begun(tmp_path)
    same = Task("squares", write_squares, (3, 4))
    assert task_digest(SQUARES, run) == task_digest(same, run)
    assert task_digest(SQUARES, run) == task_digest(SQUARES, dataclasses.replace(run, making="another", folder="elsewhere"))
    others = [
        task_digest(Task("squares", write_squares, (3, 5)), run),
        task_digest(Task("squares", write_squares, (3, 4.0)), run),
        task_digest(Task("squares", refuse, (3, 4)), run),
        task_digest(SQUARES, dataclasses.replace(run, digest=job_digest({"a": 2}, []))),
        task_digest(SQUARES, dataclasses.replace(run, digest=job_digest({"a": 1}, ["x"]))),
        task_digest(SQUARES, dataclasses.replace(run, code="of another version")),
    ]
    assert len({task_digest(SQUARES, run), *others}) == 7


@dataclasses.dataclass(frozen=True)
class Rules:
    """Rules of a test's task."""

    threshold: float = 0.5
    names: frozenset[str] = frozenset()


def test_arguments_are_told_apart():
    values = [
        *(1, True, 1.0, "1", b"1", None, "None", Path("1"), range(1), range(2), (1, 2), (2, 1), ((1,), 2), {"a": 1}, {1: "a"}, {"1": "a"}),
        *(Rules(), Rules(0.6), Rules(names=frozenset("ab")), {1, 2}, write_squares, refuse, Rules),
    ]
    stated = [json.dumps(tasks_module._stated((value,))) for value in values]
    assert len(set(stated)) == len(values)
    assert tasks_module._stated(Rules(names=frozenset("abc"))) == tasks_module._stated(Rules(names=frozenset("cba")))
    with pytest.raises(TypeError, match="is a lock, which a task cannot have among its arguments"):
        tasks_module._stated((threading.Lock(),))


def test_code_outside_of_the_packages_is_digested_too(tmp_path, monkeypatch):
    module = tmp_path / "own_work.py"
    digests = []
    monkeypatch.syspath_prepend(tmp_path)
    for text in ("def work(folder): return 1\n", "def work(folder): return 2\n"):
        module.write_text(text)
        tasks_module._module_digest.cache_clear()
        import own_work

        digests.append(task_digest(Task("own", own_work.work), Run("x", DIGEST, "", "")))
    tasks_module._module_digest.cache_clear()
    assert digests[0] != digests[1]


def test_all_code_and_tables_are_in_the_code_digest(monkeypatch, tmp_path):
    for name in ("data_prep/a.py", "data_prep/words.txt", "starchat/deep/b.py", "data_prep/__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(tasks_module, "__file__", str(tmp_path / "data_prep" / "tasks.py"))
    digests = []
    for name in ("", "data_prep/a.py", "data_prep/words.txt", "starchat/deep/b.py", "data_prep/__pycache__/a.pyc"):
        if name:
            (tmp_path / name).write_text("changed")
        digests.append((code_digest.__wrapped__(), code_stamp.__wrapped__()))
    assert [len(set(each)) for each in zip(*digests, strict=True)] == [4, 4]
    assert digests[3] == digests[4], "what Python writes itself is no code"


def test_another_digest_throws_the_result_away(tmp_path):
    run_task(SQUARES, begun(tmp_path))
    changed = begun(tmp_path, job_digest({"a": 2}, []))
    assert find_done([SQUARES], changed) == {}
    (tmp_path / "run" / "squares" / "stale").write_text("of old")
    run_task(SQUARES, changed)
    assert contents(tmp_path / "run" / "squares").keys() == {"squares.txt", "inner/count", DONE}
    assert json.loads((tmp_path / "run" / "squares" / DONE).read_text())["digest"] == task_digest(SQUARES, changed)


def test_a_failed_task_leaves_nothing(tmp_path):
    run = begun(tmp_path)
    with pytest.raises(UserError, match="part 7"):
        run_task(Task("bad", refuse, (7,)), run)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [run.making]
    assert list((tmp_path / "run" / run.making).iterdir()) == []


def write_badly(folder: Path, how: str) -> object:
    (folder / "a").write_text("a")
    if how == "done":
        (folder / DONE).write_text("{}")
    if how == "link":
        (folder / "b").symlink_to("a")
    return {"number": float("nan"), "object": object()}.get(how)


@pytest.mark.parametrize(
    ("how", "error"), [("done", ValueError), ("link", ValueError), ("number", ValueError), ("object", TypeError)], ids=lambda x: str(x)
)
def test_what_a_task_may_not_do(tmp_path, how, error):
    with pytest.raises(error):
        run_task(Task("bad", write_badly, (how,)), begun(tmp_path))
    assert not (tmp_path / "run" / "bad").exists()


def test_a_new_run_sweeps_what_was_half_made(tmp_path):
    old = begun(tmp_path)
    half = tmp_path / "run" / old.making / "squares-1234"
    half.mkdir()
    (half / "half").write_text("half")
    (tmp_path / "run" / ".swept-1").mkdir()
    new = begun(tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [new.making]


def slow_writer(folder: Path, go: str, written: str) -> int:
    (folder / "a").write_text("a")
    Path(written).touch()
    while not os.path.exists(go):
        pass
    return 1


def test_a_process_of_an_older_run_puts_nothing_in_place(tmp_path):
    """It is still at work when the next run, with another spec, begins and even ends."""
    go, written, errors = tmp_path / "go", tmp_path / "written", []
    slow = Task("squares", slow_writer, (str(go), str(written)))
    old = begun(tmp_path)

    def work() -> None:
        try:
            run_task(slow, old)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not written.exists():
        pass
    changed = begun(tmp_path, job_digest({"a": 2}, []))
    run_task(SQUARES, changed)
    before = contents(tmp_path / "run")
    go.touch()
    thread.join()
    assert len(errors) == 1 and isinstance(errors[0], FileNotFoundError)
    assert contents(tmp_path / "run") == before
    with pytest.raises(FileNotFoundError):
        run_task(Task("late", write_squares, (1, 1)), old)


def test_the_sooner_of_two_that_do_the_same_task_stays(tmp_path, monkeypatch):
    run, rename, renamed = begun(tmp_path), os.rename, []
    monkeypatch.setattr(os, "rename", lambda one, other: (rename(one, other), renamed.append(Path(one)))[0])
    written, go = tmp_path / "written", tmp_path / "go"
    task = Task("squares", slow_writer, (str(go), str(written)))
    threads = [threading.Thread(target=run_task, args=(task, run)) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(list((tmp_path / "run" / run.making).glob("*/a"))) < 3:
        pass
    go.touch()
    for thread in threads:
        thread.join()
    assert find_done([task], run)["squares"]["value"] == 1
    assert len(renamed) == 1, "nobody took the first result away again"
    assert list((tmp_path / "run" / run.making).iterdir()) == []


def test_a_node_with_other_code_is_refused(tmp_path):
    run = dataclasses.replace(begun(tmp_path), code="of another version", stamp="of other files")
    with pytest.raises(UserError, match="its code of data_prep and starchat is not that of the run"):
        run_task(SQUARES, run)


def test_files_are_on_the_disk_before_they_get_their_name(tmp_path, monkeypatch):
    """Seen from the calls to the system, which are made as ever."""
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(("fsync", os.readlink(f"/proc/self/fd/{handle}"))), fsync(handle))[1])
    monkeypatch.setattr(os, "rename", lambda one, other: (calls.append(("rename", str(other))), rename(one, other))[1])
    run_task(SQUARES, run := begun(tmp_path))
    root = tmp_path / "run"
    at = calls.index(("rename", str(root / "squares")))
    synced = {Path(path).relative_to(root / run.making).as_posix().partition("/")[2] for _, path in calls[:at]}
    assert synced == {"", "inner", "inner/count", "squares.txt", DONE}
    assert calls[at + 1 :] == [("fsync", str(root))]


def test_in_a_store_the_marker_is_written_last(tmp_path, monkeypatch):
    import fsspec

    folder = f"memory://{tmp_path.name}"
    order: list[str] = []
    store = fsspec.filesystem("memory")
    put = type(store).put_file
    monkeypatch.setattr(type(store), "put_file", lambda self, one, other, **rest: (order.append(other), put(self, one, other, **rest))[1])
    run = begin_run(folder, DIGEST)
    value = run_task(SQUARES, run)
    assert order[-1].endswith(f"squares/{DONE}") and len(order) == 3
    assert run_task(SQUARES, begin_run(folder, DIGEST)) == value and len(order) == 3
    with pytest.raises(UserError, match="another run has begun there"):
        run_task(Task("late", write_squares, (1, 1)), run)
    changed = begin_run(folder, job_digest({"a": 2}, []))
    assert find_done([SQUARES], changed) == {}
    store.pipe_file(f"/{tmp_path.name}/squares/stale", b"of old")
    run_task(SQUARES, changed)
    end_run(changed)
    names = sorted(name.removeprefix(f"/{tmp_path.name}/") for name in store.find(f"/{tmp_path.name}"))
    assert [name for name in names if not name.startswith("late/")] == [f"squares/{name}" for name in (DONE, "inner/count", "squares.txt")]
    assert f"late/{DONE}" not in names


def test_temporary_folders_of_killed_processes_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    alive = tmp_path / f"starchat-task-{os.getpid()}-x"
    dead = tmp_path / "starchat-task-999999999-x"
    for folder in (alive, dead):
        folder.mkdir()
    begin_run("memory://swept", DIGEST)
    assert alive.exists() and not dead.exists()


@pytest.mark.parametrize("number", range(60))
def test_damaged_results_are_made_again(number, tmp_path):
    fuzz_one(random.Random(f"suite:{number}"), tmp_path)
