"""A slice of the parity matrix, and faults that it must see."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

FAMILY = "starcoder2-untied"


@pytest.fixture(scope="module")
def parity() -> Iterator[ModuleType]:
    """The benchmark as a module; what it sets in the package's modules is taken back."""
    from starchat import export, merge

    spec = importlib.util.spec_from_file_location("parity", Path(__file__).parent.parent / "benchmarks" / "parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verify_in_fresh_process", export.verify_in_fresh_process)
        patch.setattr(merge, "_proved_in_fresh_process", merge._proved_in_fresh_process)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def matrix(parity: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the cells of one process have run."""
    folder = tmp_path_factory.mktemp("parity")
    assert parity.main(["--families", FAMILY, "--methods", "full,qlora", "--engines", "accumulated", "--folder", str(folder)]) == 0
    return folder


def test_a_slice_of_the_matrix(parity: ModuleType, matrix: Path) -> None:
    results = parity.read_results(matrix)
    assert {key: found["status"] for key, found in results.items()} == {
        f"{FAMILY}/{method}/fp32/{engine}": "ok" for method in ("full", "qlora") for engine in ("one", "accumulated")
    }
    assert all(0 < results[f"{FAMILY}/{method}/fp32/accumulated"]["update"] < 1e-3 for method in ("full", "qlora"))
    assert parity.main(["--folder", str(matrix), "--render", str(matrix / "parity.md")]) == 0
    page = (matrix / "parity.md").read_text()
    assert "4 cells, 0\nfailed" in page
    assert f"| {FAMILY} | qlora | " in page


@pytest.mark.parametrize("fault", ["update", "loss", "reload gate: same_logits", "merge: merged_is_adapter"])
def test_planted_fault_in_a_cell(fault: str, parity: ModuleType, matrix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = f"{FAMILY}/{'qlora' if fault.startswith('merge') else 'full'}/fp32"
    run = parity.run_folder(matrix, cell, "planted")
    shutil.copytree(parity.run_folder(matrix, cell, "one"), run)
    if fault in ("update", "reload gate: same_logits"):
        path = run / "model" / "model.safetensors"
        weights = load_file(path)
        name = "model.layers.0.mlp.c_fc.weight"
        weights[name] = weights[name] + 0.1 * torch.ones_like(weights[name])
        save_file(weights, path, metadata={"format": "pt"})
    elif fault == "loss":
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        lines[1]["loss"] *= 1.001
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        monkeypatch.setattr(parity.merging, "_restore_from_four_bits", lambda *_: None)
    found = parity.judge(matrix, cell, "planted")
    assert found["status"] == "failed"
    assert fault in found["reason"]


def test_a_refusal_is_a_footnote_and_a_failure_counts(parity: ModuleType) -> None:
    results = {
        "starcoder/qlora/fp32/one": {"status": "ok", "reason": "", "reload": 2e-6},
        "starcoder/qlora/fp32/zero3": {"status": "refused", "reason": "quantization: no"},
        "starcoder/qlora/fp32/ddp": {"status": "failed", "reason": "loss"},
    }
    page = parity.render(results, ["starcoder"], ["qlora"], 4)
    assert "3 cells, 1\nfailed" in page
    assert "| starcoder | qlora | 2e-06 | failed [1] | refused [2] |" in page
    assert "1. loss\n2. quantization: no\n" in page


@pytest.mark.slow
def test_engines_of_two_processes(parity: ModuleType, matrix: Path) -> None:
    arguments = ["--families", FAMILY, "--methods", "full,lora,qlora", "--folder", str(matrix)]
    assert parity.main([*arguments, "--engines", "zero2,zero3_offload,fsdp2"]) == 0
    found = {key.removeprefix(f"{FAMILY}/"): value["status"] for key, value in parity.read_results(matrix).items()}
    assert found["qlora/fp32/fsdp2"] == found["qlora/fp32/zero3_offload"] == "refused"
    assert {found[f"{method}/fp32/{engine}"] for method in ("full", "lora") for engine in ("zero2", "zero3_offload", "fsdp2")} == {"ok"}
