"""Tables read from a real S3 server, and datasets written to it: the rows are those of local files, and the manifest comes last."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import remote_files
from data_prep.prepare import prepare
from data_prep.prepared import require_prepared
from preparing import chat
from starchat.errors import UserError
from test_task_clusters import bucket, needs_s3

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), needs_s3]
__all__ = ["bucket"]


def upload(path: Path, address: str) -> str:
    remote_files.put_files(path.parent, [path.name], address)
    return f"{address}/{path.name}"


def write_spec(folder: Path, *sources: dict[str, object], output: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(json.dumps({"sources": sources, "output": output, "test_fraction": 0.2}), encoding="utf-8")
    return path


def tables(folder: Path) -> list[dict[str, object]]:
    """Sources of every kind that reads tables, in a folder."""
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat(f"Question {n}?")) + "\n" for n in range(60)), encoding="utf-8")
    code = [{"content": f"def f_{n}(x):\n    return x + {n}\n", "path": f"f_{n}.py", "repository_name": "o/r"} for n in range(90)]
    pq.write_table(pa.Table.from_pylist(code), folder / "code.parquet", row_group_size=30)
    return [
        {"kind": "dialogues", "path": "chats.jsonl"},
        {"kind": "source", "path": "code.parquet", "view": "document", "rules": {"preset": "none"}, "license": "MIT"},
    ]


def test_inputs_and_output_in_a_store(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = tables(tmp_path)
    here = prepare(write_spec(tmp_path, *sources, output="here"), progress=False, workers=2)
    there = [{**source, "path": upload(tmp_path / str(source["path"]), f"{bucket}/in")} for source in sources]
    spec = write_spec(tmp_path, *there, output=f"{bucket}/out")
    found = prepare(spec, progress=False, workers=2)
    assert {key: found["counts"][key] for key in ("read", "kept", "dropped")} == {
        key: here["counts"][key] for key in ("read", "kept", "dropped")
    }
    assert not list(tmp_path.glob(".*work"))
    with remote_files.at_hand(f"{bucket}/out") as copy:
        assert {path.name for path in copy.iterdir()} == {path.name for path in Path("here").iterdir()}
        rows = pq.read_table(copy / "train-00000.parquet").to_pylist()
        assert require_prepared(copy)["counts"] == found["counts"]
    wanted = pq.read_table("here/train-00000.parquet").to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in wanted]
    assert rows[0]["source"]["place"] == f"{bucket}/in/{wanted[0]['source']['place']}"
    assert all(entry["path"].startswith("s3://") and entry["version"] for entry in found["inputs"])
    again = prepare(spec, progress=False)
    assert again["skipped"] and again["digest"] == found["digest"]
    with pytest.raises(UserError, match="holds another prepare result; choose another output or pass --overwrite"):
        prepare(spec, ["seed=1"], progress=False)
    assert not prepare(spec, ["seed=1"], overwrite=True, progress=False)["skipped"]
    remote_files.write_object(f"{bucket}/other/note.txt", b"mine")
    with pytest.raises(UserError, match="holds other files"):
        prepare(spec, [f"output={bucket}/other"], overwrite=True, progress=False)


def test_patterns_folders_and_what_is_not_there(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        lines = (json.dumps(chat(f"Part {number}, question {n}?")) + "\n" for n in range(5))
        (tmp_path / f"part-{number}.jsonl").write_text("".join(lines), encoding="utf-8")
        upload(tmp_path / f"part-{number}.jsonl", f"{bucket}/parts")
    for path, count in ((f"{bucket}/parts/*.jsonl", 15), (f"{bucket}/parts", 15), (f"{bucket}/parts/part-1.jsonl", 5)):
        spec = write_spec(tmp_path, {"kind": "dialogues", "path": path}, output=f"out-{count}-{len(path)}")
        assert prepare(spec, progress=False)["counts"]["read"] == count
    for path, message in (
        (f"{bucket}/none.jsonl", "nothing is there; check the address"),
        (f"{bucket}/none/*.jsonl", "no file matches"),
        ("s3://no-such-bucket-here/x.jsonl", "nothing is there|bucket"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(write_spec(tmp_path, {"kind": "dialogues", "path": path}, output="none"), progress=False)
