"""Where a dataset goes, and what is done on the way: nothing of anybody else is lost, and nothing that is done is done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_prep import prepare as stage
from data_prep import remote_files
from data_prep.prepare import prepare
from preparing import chat, digests, records, run, write_rows, write_spec
from runs import mounted_disk
from starchat.cli import main
from starchat.errors import UserError, guarded
from starchat.files import alone_at

WORK = Path(".dataset.work")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def chats() -> dict[str, Any]:
    return {"path": write_rows("chats.jsonl", [chat("one"), chat("two"), {"messages": []}]), "weight": 1}


def spec_of(chats: dict[str, Any], **keys: Any) -> Path:
    return write_spec(chats, max_bad_fraction=0.5, **keys)


def shards(work: Path = WORK) -> dict[str, int]:
    """When each shard that is done was."""
    return {str(path): path.stat().st_mtime_ns for path in work.glob("shards/*/done.json")}


def late(monkeypatch: pytest.MonkeyPatch, happens: Any) -> None:
    """Have something happen when all tables are written and the manifest is not."""
    real = stage.write_card

    def write_card(*arguments: Any) -> None:
        monkeypatch.setattr(stage, "write_card", real)
        happens()
        real(*arguments)

    monkeypatch.setattr(stage, "write_card", write_card)


def test_what_comes_to_the_output_during_the_run_stays(chats: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def write_thesis() -> None:
        Path("dataset").mkdir()
        Path("dataset/thesis.txt").write_text("years of work")

    late(monkeypatch, write_thesis)
    said = f"dataset: holds other files; .*came there while .* the same command goes on from {WORK.absolute()}$"
    with pytest.raises(UserError, match=said):
        prepare(spec_of(chats), progress=False)
    assert Path("dataset/thesis.txt").read_text() == "years of work"
    before = shards()
    assert len(before) == 1
    Path("dataset/thesis.txt").rename("thesis.txt")
    seen: list[dict[str, int]] = []
    late(monkeypatch, lambda: seen.append(shards()))
    prepare(spec_of(chats), progress=False)
    assert seen == [before]
    assert sorted(os.listdir()) == ["chats.jsonl", "dataset", "spec.yaml", "thesis.txt"]


def test_of_two_runs_for_one_output_the_second_is_refused(chats: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the work folder: before it looks what is there, and until the first has put its dataset there."""
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(UserError) as error:
            prepare(spec_of(chats), ["seed=1"], progress=False, work="elsewhere")
        refused.append(str(error.value))

    late(monkeypatch, second)
    prepare(spec_of(chats), progress=False)
    assert refused == ["dataset: another process is at work in it; wait until it is finished, or end it"]
    with alone_at("dataset"), pytest.raises(UserError, match="another process is at work"):
        prepare(spec_of(chats), progress=False)
    assert prepare(spec_of(chats), progress=False)["skipped"]


def test_a_dataset_goes_where_a_link_leads(chats: dict[str, Any]) -> None:
    Path("disk").mkdir()
    Path("dataset").symlink_to("disk/real")
    prepare(spec_of(chats), progress=False)
    prepare(spec_of(chats), ["seed=1"], overwrite=True, progress=False)
    assert prepare(spec_of(chats), ["seed=1"], progress=False)["skipped"]
    assert Path("dataset").is_symlink()
    assert sorted(os.listdir("disk")) == ["real"]
    assert sorted(os.listdir()) == ["chats.jsonl", "dataset", "disk", "spec.yaml"]


def test_a_folder_that_bears_the_name_of_the_work_folder_is_not_taken_away(chats: dict[str, Any]) -> None:
    WORK.mkdir()
    (WORK / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"\.dataset\.work: holds other files .* name another folder with --work"):
        prepare(spec_of(chats), progress=False)
    assert digests(str(WORK)).keys() == {str(WORK / "thesis.txt")}
    (WORK / "thesis.txt").unlink()
    prepare(spec_of(chats), progress=False)
    assert not WORK.exists()


KILLED = """
import os, signal, sys
from data_prep import remote_files
from starchat.cli import main
real = remote_files.put_files
def put_files(folder, names, target):
    if list(names) == ["manifest.json"]:
        os.kill(os.getpid(), signal.SIGKILL)
    real(folder, names, target)
remote_files.put_files = put_files
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_that_was_killed_on_the_way_to_a_store_goes_on(chats: dict[str, Any], tmp_path: Path) -> None:
    output = f"local://{tmp_path}/store"
    spec = spec_of(chats, output=output)
    done = subprocess.run([sys.executable, "-c", KILLED, "prepare", str(spec)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert Path("store/train-00000.parquet").is_file()
    before = shards(Path(".store.work"))
    assert len(before) == 1
    with pytest.raises(UserError, match="store: holds another prepare result, unfinished; choose another output or pass --overwrite"):
        prepare(spec, ["seed=1"], progress=False)
    assert not prepare(spec, progress=False)["skipped"]
    prepare(spec, ["output=here"], progress=False)
    assert sorted(os.listdir("store")) == sorted(os.listdir("here"))
    assert not Path(".store.work").exists()
    assert prepare(spec, progress=False)["skipped"]
    subprocess.run([sys.executable, "-c", KILLED, "prepare", str(spec), "--overwrite", "seed=1"], capture_output=True, check=False)
    assert not Path("store/manifest.json").exists()
    assert not prepare(spec, ["seed=2"], overwrite=True, progress=False)["skipped"]
    Path("store/manifest.json").unlink()
    with pytest.raises(UserError, match="store: holds other files; choose another output, or remove what is there"):
        prepare(spec, overwrite=True, progress=False)


def test_two_runs_that_write_to_one_place_in_a_store_are_noticed(
    chats: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"local://{tmp_path}/store"
    real = remote_files.put_files

    def put_files(folder: Path, names: list[str], target: str) -> None:
        real(folder, names, target)
        if names == ["begun.json"]:
            return
        monkeypatch.setattr(remote_files, "put_files", real)
        prepare(spec_of(chats, output=output), ["seed=1"], overwrite=True, progress=False, work="elsewhere")

    monkeypatch.setattr(remote_files, "put_files", put_files)
    with pytest.raises(UserError, match="store: another run writes there too; let one at a time"):
        prepare(spec_of(chats, output=output), progress=False)
    assert prepare(spec_of(chats, output=output), ["seed=1"], progress=False)["skipped"]


def test_an_error_of_the_program_late_in_the_run_costs_nothing_that_is_done(chats: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a planted fault")

    late(monkeypatch, fail)
    with pytest.raises(RuntimeError) as error:
        prepare(spec_of(chats), progress=False)
    assert error.value.__notes__ == [f"what is done is kept: the same command goes on from {WORK.absolute()}"]
    before, seen = shards(), list[dict[str, int]]()
    assert len(before) == 1
    late(monkeypatch, lambda: seen.append(shards()))
    prepare(spec_of(chats), progress=False)
    assert seen == [before]


@pytest.mark.parametrize(("full", "size"), [("output", "400k"), ("work", "2000k")])
def test_of_two_disks_the_full_one_is_named(
    full: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("data_prep.dialogues.STRETCH_BYTES", 650_000)
    rows = [chat(f"{n}", os.urandom(600).hex()) for n in range(1_200)]
    places = {"output": Path("wide/dataset"), "work": Path("wide/work")}
    with mounted_disk(tmp_path / "small", size) as small:
        places[full] = small / full
        spec = str(write_spec({"path": write_rows("chats.jsonl", rows)}, output=str(places["output"])))
        command = ["prepare", spec, "--work", str(places["work"]), "--workers", "1"]
        assert guarded(lambda: main(command)) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"starchat: {small}/")
        assert "No space left on device; free some space" in said
        kept = places["work"].absolute() / f".{places['output'].name}.work"
        before = shards(kept)
        assert len(before) == (2 if full == "output" else 1)
        assert said.endswith(f"; what is done is kept: the same command goes on from {kept}")
        assert os.listdir(small) in ([], ["work"])
        subprocess.run(["mount", "-o", "remount,size=16m", str(small)], check=True)
        seen: list[dict[str, int]] = []
        late(monkeypatch, lambda: seen.append(shards(kept)))
        assert main(command) == 0
        assert before.items() <= seen[0].items()
        assert len(records(str(places["output"]), "")) == 1_200
        assert not kept.exists()


@pytest.mark.parametrize(
    ("keys", "work", "said"),
    [
        ({}, None, "output: 'src/dataset' lies in the folder of sources\\[0\\], src; choose one outside of it"),
        ({"output": "dataset"}, "src/work", "--work: '.*/src/work/.dataset.work' lies in the folder of sources\\[0\\]"),
        (
            {"output": "~/dataset"},
            None,
            "spec.yaml: output: '~/dataset'; ~ stands for no folder here; write the whole path, or ./~/dataset",
        ),
        ({"output": "dataset"}, "~/work", "--work: '~/work'; ~ stands for no folder here"),
        ({"output": "dataset"}, "s3://bucket/work", "--work: 's3://bucket/work': is an address in a store; name a folder of a disk"),
    ],
)
def test_places_that_are_none(keys: dict[str, str], work: str | None, said: str) -> None:
    Path("src").mkdir()
    Path("src/a.py").write_text("# A file that is long enough to be kept.\n" + "value = 1\n" * 30)
    spec = write_spec({"kind": "source", "path": "src", "license": "MIT"}, **{"output": "src/dataset", **keys})
    with pytest.raises(UserError, match=said):
        prepare(spec, progress=False, work=work)
    assert sorted(os.listdir()) == ["spec.yaml", "src"]
    assert os.listdir("src") == ["a.py"]


def test_a_place_may_be_written_as_an_address_of_this_machine(
    chats: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(chats, output=f"file://{tmp_path}/dataset")
    assert main(["prepare", str(spec), "--work", f"file://{tmp_path}/work"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "dataset")
    assert sorted(os.listdir()) == ["chats.jsonl", "dataset", "spec.yaml", "work"]
    assert Path("dataset/manifest.json").is_file()


def lose(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


LOST = {
    "rows": (lambda: [path.unlink() for path in Path("dataset").glob("t*.parquet")], "dataset: holds 0 rows, its manifest says 2"),
    "a part of a file": (lambda: lose(str(next(Path("dataset").glob("t*.parquet")))), r"t\w+-00000.parquet: missing or damaged"),
    "what was dropped": (lambda: Path("dataset/dropped/empty_dialogue.parquet").unlink(), "holds 0 dropped/empty_dialogue rows, .* says 1"),
}


@pytest.mark.parametrize("where", ["", "local://"], ids=["a folder", "a store"])
@pytest.mark.parametrize("what", LOST)
def test_a_dataset_that_lost_something_is_not_taken_for_prepared(what: str, where: str, tmp_path: Path) -> None:
    chats = {"path": write_rows("chats.jsonl", [chat("one"), chat("two"), chat(" ", "")])}
    output = f"{where}{tmp_path}/dataset" if where else "dataset"
    run(chats, output=output)
    before = digests("dataset")
    take, said = LOST[what]
    take()
    with pytest.raises(UserError, match=f"{said}.*; files were lost, added or damaged: pass --overwrite to make it again"):
        run(chats, output=output)
    assert not run(chats, output=output, overwrite=True)["skipped"]
    assert digests("dataset") == before
    assert run(chats, output=output, overwrite=True)["skipped"]


def test_a_work_folder_is_marked_until_nothing_else_is_in_it(chats: dict[str, Any]) -> None:
    """Something in it cannot be taken away yet, as what a worker writes that is being ended: the next run takes it for its own."""
    WORK.mkdir()
    (WORK / stage.OURS).touch()
    with mounted_disk(WORK / "shards", "8m"):
        prepare(spec_of(chats), progress=False)
        assert sorted(os.listdir(WORK)) == [stage.OURS, "shards"]
    assert not prepare(spec_of(chats), ["seed=1"], progress=False, overwrite=True)["skipped"]
    assert not WORK.exists()


def test_what_comes_to_a_place_in_a_store_during_the_run_stays(
    chats: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_thesis() -> None:
        Path("store").mkdir()
        Path("store/thesis.txt").write_text("years of work")

    late(monkeypatch, write_thesis)
    with pytest.raises(UserError, match="store: holds other files; .* it came there while this command was at work"):
        prepare(spec_of(chats, output=f"local://{tmp_path}/store"), progress=False)
    assert os.listdir("store") == ["thesis.txt"]
    assert len(shards(Path(".store.work"))) == 1
