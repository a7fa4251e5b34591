"""Damaged notebooks for ``benchmarks/fuzz_builders.py``: in files, folders, patterns, repositories and tables."""

from __future__ import annotations

import functools
import gzip
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from conftest import write_base_tokenizer
from data_prep.control_tokens import STARCODER_TOKENS
from mutate import mutated_bytes, mutated_json, mutated_text
from notebook_files import LESSON, book, code, commit_all, error, old_book, old_code, result, stream, text

PNG = "iVBORw0KGgo" * 120
SEEDS = (
    LESSON,
    book(
        code(["%matplotlib inline\n", "!pip install x\n", "import os"], stream("Collecting x\n 1%\r 2%\r\n")),
        text("# A\n\n![a](data:image/png;base64," + PNG + ")", attachments={"a.png": {"image/png": PNG}}),
        code("%%bash\nls\necho $x", stream(["a\n", "b"]), stream("w", "stderr"), stream("\x1b[A\x1b[2K\rx\b\by\n")),
        code("plot()", result(plain="<Figure size 1x1>", png=PNG), result(html="<b>", latex="$x$"), result(widget={"model_id": ""})),
        code("f(", error("\x1b[0;31mT\x1b[0m" * 60, "SyntaxError: x")),
        {"cell_type": "raw", "metadata": {"format": "text/latex"}, "source": ["---\n", "title: x\n"]},
        nbformat_minor=5,
    ),
    old_book(
        {"cell_type": "heading", "level": 1, "metadata": {}, "source": "H"},
        old_code(["x = 1\n", "x"], {"output_type": "pyout", "prompt_number": 1, "text": ["1"], "metadata": {}}),
        old_code("y", {"output_type": "pyerr", "ename": "E", "evalue": "v", "traceback": ["a", "E: v"]}),
        old_code("z", {"output_type": "display_data", "png": PNG, "text": "<matplotlib.figure.Figure at 0x1>"}),
        text(["one", "two"]),
    ),
    book(text("T"), code("x <- c(1)\n%%R"), code("?x"), metadata={"kernelspec": {"name": "ir", "language": "R"}}),
    book(text('"""'), code("s = '''\n%time\n'''\n%time f(\n)"), code("# It is defined by the kaggle/python Docker image\n# kaggle")),
    book(),
)  # fmt: skip
RULES = ("none", "starcoder", "starcoder2")
STARCODER2 = ("<|endoftext|>", *(token for token in STARCODER_TOKENS if token not in ("<filename>", "<reponame>", "<gh_stars>")))
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def starcoder2_tokenizer() -> str:
    """A folder with a tokenizer of StarCoder2's tokens, which lasts as long as the process."""
    _FOLDERS.append(tempfile.TemporaryDirectory())
    write_base_tokenizer(Path(_FOLDERS[0].name), STARCODER2)
    return _FOLDERS[0].name


def mutant(rng: random.Random, folder: Path) -> dict[str, Any]:
    """Write a damaged input into a folder and return the mapping of its source."""
    place = rng.choices((_file, _tree, _pattern, _repository, _jsonl, _parquet), (40, 20, 10, 3, 20, 7))[0]
    mapping: dict[str, Any] = {"kind": "notebooks", "path": place(rng, folder), "rules": {"preset": rng.choice(RULES)}}
    view = rng.choice(("structured", "script", "dialogue"))
    mapping |= {"view": "dialogue"} if view == "dialogue" else {"form": view}
    if rng.random() < 0.3:
        mapping["tokenizer"] = starcoder2_tokenizer()
    if rng.random() < 0.2:
        mapping["rules"][rng.choice(("min_cells", "min_pairs", "max_characters", "min_characters"))] = rng.randint(0, 200)
    if rng.random() < 0.3:
        mapping["max_output_characters"] = rng.choice((1, 20, None))
    if rng.random() < 0.1:
        mapping["max_file_bytes"] = rng.choice((1, 700, None))
    return mapping


def damaged(rng: random.Random) -> bytes:
    """The bytes of a notebook with something wrong, mostly inside a JSON value that is sound."""
    notebook: Any = rng.choice(SEEDS)
    act = rng.random()
    if act < 0.3:
        notebook = mutated_json(notebook, rng)
    elif act < 0.65:
        notebook = with_hostile_texts(notebook, rng)
    elif act < 0.75 and notebook.get("cells"):
        notebook = {**notebook, "cells": notebook["cells"] * rng.randint(2, 9)}
    data = json.dumps(notebook, indent=rng.choice((None, 1))).encode()
    if act > 0.75:
        data = mutated_bytes(data, rng)
    if act > 0.95:
        data = rng.choice((b"", b" ", b"\xef\xbb\xbf" + data, data.decode("latin-1").encode("utf-16"), b"[" * 2000, b"\0" * 50))
    return data


def with_hostile_texts(value: Any, rng: random.Random, key: str = "") -> Any:
    """A notebook whose texts are damaged, and whose shape is not: what reaches the builder behind the reader."""
    if isinstance(value, dict):
        return {key: with_hostile_texts(inner, rng, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_hostile_texts(inner, rng, key) for inner in value]
    if isinstance(value, str) and key not in ("cell_type", "output_type") and rng.random() < 0.2:
        return mutated_text(value, rng)
    return value


def _file(rng: random.Random, folder: Path) -> str:
    path = folder / "a.ipynb"
    path.write_bytes(damaged(rng))
    return str(path)


def _tree(rng: random.Random, folder: Path) -> str:
    for number in range(rng.randint(0, 4)):
        inner = folder / rng.choice((".", "b", ".hidden", "node_modules", "b/.ipynb_checkpoints", "caf\udce9", "x.ipynb"))
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"{number}{rng.choice(('.ipynb', '.IPYNB', '.ipynb.txt', chr(10) + '.ipynb'))}").write_bytes(damaged(rng))
    if rng.random() < 0.4:
        for name, target in (("loop", "."), ("link.ipynb", "0.ipynb"), ("self.ipynb", "self.ipynb"), ("up", "..")):
            if rng.random() < 0.5:
                os.symlink(target, folder / name)
    if rng.random() < 0.1:
        os.mkfifo(folder / "pipe.ipynb")
    return str(folder)


def _pattern(rng: random.Random, folder: Path) -> str:
    _tree(rng, folder)
    return f"{folder}/{rng.choice(('*.ipynb', '**/*.ipynb', '*/*', '**', '*/*.ipynb', '[0-1].ipynb', 'b/../*', '?.*', '['))}"


def _repository(rng: random.Random, folder: Path) -> str:
    _tree(rng, folder)
    if (folder / "pipe.ipynb").exists():
        (folder / "pipe.ipynb").unlink()
    commit_all(folder)
    if rng.random() < 0.3:
        victims = sorted(path for path in (folder / ".git" / "objects").rglob("*") if path.is_file())
        victim = rng.choice(victims)
        victim.chmod(0o600)
        victim.write_bytes(mutated_bytes(victim.read_bytes(), rng))
    return str(folder)


def _rows(rng: random.Random) -> list[dict[str, Any]]:
    return [{"content": damaged(rng).decode("utf-8", "replace"), "license": "MIT", "repo_name": "a/b"} for _ in range(rng.randint(1, 4))]


def _jsonl(rng: random.Random, folder: Path) -> str:
    rows: Any = _rows(rng)
    if rng.random() < 0.5:
        rows = mutated_json(rows, rng)
    elif rng.random() < 0.3:
        rows = [{"content": mutated_json(rng.choice(SEEDS), rng)}]
    lines = "".join(f"{json.dumps(row)}\n" for row in (rows if isinstance(rows, list) else [rows]))
    data = lines.encode()
    if rng.random() < 0.2:
        data = mutated_bytes(data, rng)
    path = folder / rng.choice(("t.jsonl", "t.jsonl.gz"))
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def _parquet(rng: random.Random, folder: Path) -> str:
    path = folder / "t.parquet"
    content = [mutated_text(row["content"], rng) for row in _rows(rng)]
    pq.write_table(pa.table({"content": [text.encode("utf-8", "replace").decode() for text in content]}), path)
    if rng.random() < 0.2:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
    return str(path)
