"""The directions of imports, and the house rules that a parser can see."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("starchat", "data_prep", "demo")
FILES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
HEAVY = ("torch", "transformers")
LIGHT_MODULES = [
    *("starchat", "starchat.dialogue", "starchat.template", "starchat.tokens", "starchat.encode", "starchat.pack", "starchat.document"),
    *("starchat.fim", "starchat.recipe", "starchat.rows", "starchat.check", "starchat.hub", "starchat.config", "starchat.files"),
    *("starchat.checkpoint", "starchat.resume", "starchat.lead"),
    *("starchat.launch", "starchat.evidence", "starchat.measure", "starchat.finding", "starchat.sampling", "starchat.cli"),
    *(f"starchat.{p.stem}" for pattern in ("xray*", "detect_*") for p in (ROOT / "starchat").glob(f"{pattern}.py")),
    *(f"data_prep.{p.stem}" for p in (ROOT / "data_prep").glob("*.py") if p.stem != "__init__"),
]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
LINEAR = {("starchat/cli.py", "parser"), ("starchat/train.py", "train")}
"""Functions that may be longer: a flat list of all commands, and the linear story of a training run."""
WEAK_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a file, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def faults_of_style(path: Path, source: str) -> list[str]:
    """What is wrong with a file by the rules of the house."""
    tree, name = ast.parse(source), path.relative_to(ROOT).as_posix()
    faults = [f"{name}: {path.stem} says nothing"] if path.stem in WEAK_NAMES else []
    if source.count("\n") > MAX_FILE_LINES:
        faults.append(f"{name}: {source.count(chr(10))} lines")
    if not ast.get_docstring(tree) and source.strip():
        faults.append(f"{name}: module without docstring")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES and (name, node.name) not in LINEAR:
                faults.append(f"{name}:{node.lineno}: {node.name} has {lines} lines")
        if isinstance(node, ast.ExceptHandler):
            caught = [n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)] if node.type else ["everything"]
            faults += [f"{name}:{node.lineno}: catches {c}" for c in caught if c in ("Exception", "BaseException", "everything")]
    return faults + [f"{name}:{node.lineno}: {node.name} without docstring" for node in public(tree) if not ast.get_docstring(node)]


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes of a module, and the methods of its public classes, whose names have no underscore in front."""
    for scope in (tree, *(n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_"))):
        for node in scope.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                yield node


def test_the_data_side_imports_no_torch() -> None:
    program = (
        "import importlib, json, sys\n"
        f"for name in {LIGHT_MODULES!r}:\n    importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    found = json.loads(done.stdout)
    assert {"starchat", "data_prep", "tokenizers"} <= set(found), "what is imported is seen"
    assert [name for name in HEAVY if name in found] == []


def test_workers_start_without_what_they_never_use() -> None:
    unused = ("yaml", "difflib", "importlib.metadata", "tokenizers")
    program = f"import sys, data_prep.records, data_prep.notebooks; print([m for m in {unused} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_directions(package: str) -> None:
    may_use_data_prep = {"cli.py", "quickstart.py"}
    for path in (ROOT / package).rglob("*.py"):
        found = set(imports_of(ast.parse(path.read_text(encoding="utf-8"))))
        roots = {name.split(".")[0] for name in found}
        if path.name != "__main__.py":
            assert not any(name == "starchat.cli" or name.startswith("starchat.cli.") for name in found), path
        if package == "starchat":
            assert "data_prep" not in roots or path.name in may_use_data_prep, path
            assert "demo" not in roots or path.name == "cli.py", path
        if package == "data_prep":
            assert "demo" not in roots, path
        if package == "demo":
            assert "data_prep" not in roots, path


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_style(path: Path) -> None:
    assert faults_of_style(path, path.read_text(encoding="utf-8")) == []


def test_the_rules_are_seen_to_fire() -> None:
    function = "def f():\n    try:\n        pass\n    except (ValueError, Exception):\n" + "        pass\n" * 400
    planted = f"{function}class C:\n    def m(self): pass\n"
    faults = faults_of_style(ROOT / "starchat" / "utils.py", planted)
    assert [fault.split(": ", 1)[1] for fault in faults] == [
        "utils says nothing",
        "406 lines",
        "module without docstring",
        "f has 404 lines",
        "catches Exception",
        "f without docstring",
        "C without docstring",
        "m without docstring",
    ]


def test_every_module_has_its_place_in_the_package_docstring() -> None:
    """Only what exists may be listed; a reader follows the list."""
    import starchat

    listed = re.findall(r"^``(\w+)``  ", starchat.__doc__ or "", re.MULTILINE)
    assert len(listed) > 10
    modules = {p.stem for p in (ROOT / "starchat").glob("*.py")}
    assert [name for name in listed if name not in modules] == []


def test_every_builder_module_is_in_the_order_of_its_package() -> None:
    import data_prep

    listed = re.findall(r"^``(\w+)``  ", data_prep.__doc__ or "", re.MULTILINE)
    assert sorted(listed) == sorted(p.stem for p in (ROOT / "data_prep").glob("*.py") if p.stem != "__init__")
