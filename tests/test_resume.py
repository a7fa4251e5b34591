"""Law 8: a run that was killed and started again sees every example as if it never stopped, and ends with the same weights."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from runs import mounted_disk, write_recipe
from starchat import train as training
from starchat.checkpoint import MARK, checkpoint_folders, newest_whole
from starchat.collate import Collator
from starchat.files import read_manifest
from starchat.metrics import read_metrics
from starchat.train import main, train

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

STEPS = {
    "max_steps": -1,
    "num_train_epochs": 3,
    "save_strategy": "steps",
    "save_steps": 3,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
}
"""Seven groups, two an update: four updates an epoch, the last with an empty group; saved at 3, 6, 9 and 12, the end of an epoch."""


TOLD = ("step", "epoch", "loss", "grad_norm", "learning_rate", "entropy", "num_tokens", "tokens", "trained_tokens")


class Killed(BaseException):
    """What no code catches."""


class Kill(TrainerCallback):
    """Ends the process, as far as one can within it, behind a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Killed


class Ledger:
    """What the trainer was given: the group numbers of each life."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lives: list[list[int]] = [[]]
        ledger = self

        class Noting(Collator):
            def __call__(self, examples: Any) -> Any:
                ledger.lives[-1] += [example["group"] for example in examples]
                return super().__call__(examples)

        monkeypatch.setattr(training, "Collator", Noting)

    def new_life(self) -> None:
        self.lives.append([])


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """A function that runs a recipe, killed behind a step if one is given, and returns the groups that it saw."""
    ledger, make = Ledger(monkeypatch), training.make_trainer

    def run(recipe: Path, *overrides: str, kill: int | None = None) -> list[int]:
        def make_mortal(*parts: Any) -> Any:
            trainer = make(*parts)
            if kill is not None:
                trainer.add_callback(Kill(kill))
            return trainer

        ledger.new_life()
        monkeypatch.setattr(training, "make_trainer", make_mortal)
        if kill is None:
            assert train(recipe, overrides)["ok"]
        else:
            with pytest.raises(Killed):
                train(recipe, overrides)
        return ledger.lives[-1]

    return run


Live = Callable[..., list[int]]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(next(p for p in run.glob("*/*.safetensors") if p.parent.name in ("model", "adapter"))))


def lines_of(run: Path) -> list[dict[str, Any]]:
    """Return the log but for times and memory."""
    return [{key: line.get(key) for key in TOLD} for line in read_metrics(run) if "loss" in line]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


KINDS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "LoRA with dropout": {"lora": {"r": 4, "alpha": 8, "dropout": 0.3}},
    "Muon": {"optimizer": "muon"},
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "Muon")) for kind in KINDS])
def test_a_killed_run_ends_as_if_it_never_was(kind: str, tiny_base: Path, dataset: Path, tmp_path: Path, live: Live) -> None:
    """Killed twice: in the middle of the first epoch, and in the second, of which two steps are done again."""
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "one", trainer=STEPS, **KINDS[kind])
    other = tmp_path / "other"
    whole = live(recipe)
    live(recipe, f"output={other}", kill=4)
    torch.manual_seed(99)
    resumed = live(recipe, f"output={other}", kill=8)
    assert resumed == whole[6 : 6 + len(resumed)]
    last = live(recipe, f"output={other}")
    assert last == whole[-len(last) :]
    assert len(last) == 4 + 8, "two updates of the second epoch, and the third"
    assert_same_weights(tmp_path / "one", other)
    assert lines_of(tmp_path / "one") == lines_of(other)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, dataset: Path) -> Path:
    """The recipe of a run that was told to stop in its eighth step, which has whole checkpoints at 6 and 8; its folder is ``run``."""
    folder = tmp_path_factory.mktemp("stopped")
    recipe = write_recipe(folder / "r.yaml", tiny_base, dataset, folder / "run", trainer=STEPS)
    make = training.make_trainer

    class Signal(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 7:  # within the eighth step, and twice, as from a launcher and from Slurm
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)

    def make_signalled(*parts: Any) -> Any:
        trainer = make(*parts)
        trainer.add_callback(Signal())
        return trainer

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as err:
        patch.setattr(training, "make_trainer", make_signalled)
        assert main([str(recipe)]) == 143
    assert signal.getsignal(signal.SIGTERM) == handler
    (folder / "said").write_text(err.getvalue())
    return recipe


@pytest.fixture(scope="module")
def whole(stopped: Path) -> Path:
    """The same run, never stopped."""
    assert train(stopped, [f"output={stopped.parent / 'whole'}"])["ok"]
    return stopped.parent / "whole"


@pytest.fixture
def again(stopped: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The recipe and a copy of its stopped run."""
    return stopped, shutil.copytree(stopped.parent / "run", tmp_path / "run")


def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(stopped: Path) -> None:
    run = stopped.parent / "run"
    said = (stopped.parent / "said").read_text()
    assert f"SIGTERM: stopped after step 8 of 12, saved {run}/checkpoint-8; run the same command again to go on" in said
    assert [p.name for p in checkpoint_folders(run)] == ["checkpoint-6", "checkpoint-8"]
    assert all((p / MARK).is_file() for p in checkpoint_folders(run))
    assert read_manifest(run) is None


def test_a_stopped_run_goes_on_and_says_so(again: tuple[Path, Path], whole: Path, live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = again
    live(recipe, f"output={run}")
    assert f"{run}: an unfinished run; going on from step 8\n" in capsys.readouterr().err
    assert_same_weights(run, whole)
    manifest = read_manifest(run)
    assert manifest is not None
    assert [(entry["step"], entry["lost_steps"]) for entry in manifest["training"]["resumed"]] == [(8, 0)]
    assert [line["step"] for line in read_metrics(run) if "loss" in line] == list(range(1, 13))
    assert "| stopped and gone on with, from step | 8 |" in (run / "README.md").read_text()
    seconds = [line["seconds"] for line in read_metrics(run)]
    assert seconds == sorted(seconds)
    assert manifest["training"]["seconds"] >= seconds[-1]


def test_a_run_that_was_killed_before_it_was_reported_trains_no_step_again(
    tiny_base: Path, dataset: Path, tmp_path: Path, live: Live
) -> None:
    """Its last step is in the middle of an epoch, where transformers would take one more."""
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, run, trainer={**STEPS, "max_steps": 3})
    live(recipe)
    before, lines = (run / "model" / "model.safetensors").read_bytes(), lines_of(run)
    (run / "manifest.json").unlink()
    assert live(recipe) == []
    assert (run / "model" / "model.safetensors").read_bytes() == before
    assert lines_of(run) == lines


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("learning_rate=0.5", "trainer.learning_rate: 0.001 there, 0.5 now"),
        ("lora={r: 4}", "lora: None there, {'r': 4, "),
        ("seed=7", "trainer.seed: None there, 7 now; the encoded rows"),
        ("model=BASE", "the base model's files"),
        (
            "per_device_train_batch_size=2",
            "an update had 2 sequences of an epoch of 8, and would have 4 of 8 now; launch with 1 process, or",
        ),
        ("gradient_accumulation_steps=1", "an update had 2 sequences of an epoch of 8, and would have 1 of 7 now"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused(
    override: str, expected: str, again: tuple[Path, Path], tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = again
    other = shutil.copytree(tiny_base, run.with_name("base"))
    tensors = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, other / "model.safetensors", metadata={"format": "pt"})
    before = snapshot(run)
    assert main([str(recipe), f"output={run}", override.replace("BASE", str(other))]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message
    assert snapshot(run) == before


def test_overwrite_begins_anew(again: tuple[Path, Path]) -> None:
    recipe, run = again
    assert main([str(recipe), f"output={run}", "max_steps=2", 'save_strategy="no"', "--overwrite"]) == 0
    assert [line["step"] for line in read_metrics(run) if "loss" in line] == [1, 2]
    assert checkpoint_folders(run) == []
    manifest = read_manifest(run)
    assert manifest is not None
    assert "resumed" not in manifest["training"]


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a flipped bit": ("model.safetensors", flip, "model.safetensors holds other bytes than were written"),
    "a truncated file": ("optimizer.pt", lambda path: os.truncate(path, 100), "optimizer.pt has 100 bytes; "),
    "a missing file": ("rng_state.pth", Path.unlink, "rng_state.pth is missing"),
    "a torn mark": (MARK, lambda path: os.truncate(path, 50), "whole.json: not valid JSON"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_never_gone_on_from(
    name: str, again: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The one before it is taken; with both damaged, nothing is begun anew and nothing is touched."""
    file, damage, expected = DAMAGE[name]
    recipe, run = again
    damage(run / "checkpoint-8" / file)
    found, faults = newest_whole(run, json.loads((run / "checkpoint-6" / MARK).read_text())["run"])
    assert found is not None
    assert found.step == 6
    assert [expected in fault for fault in faults] == [True]
    damage(run / "checkpoint-6" / file)
    before = snapshot(run)
    assert main([str(recipe), f"output={run}"]) == 2
    message = capsys.readouterr().err
    assert message.count(expected) == 2
    assert "no whole checkpoint is left; restore the files, or pass --overwrite to begin anew" in message
    assert snapshot(run) == before


def test_going_on_from_the_checkpoint_before_a_damaged_one(
    again: tuple[Path, Path], whole: Path, live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = again
    flip(run / "checkpoint-8" / "model.safetensors")
    live(recipe, f"output={run}")
    message = capsys.readouterr().err
    assert "checkpoint-8: model.safetensors holds other bytes than were written; the checkpoint before it is taken" in message
    assert f"{run}: an unfinished run; going on from step 6; 2 later steps will be done again" in message
    assert_same_weights(run, whole)


def test_a_checkpoint_whose_writing_never_ended_does_not_count(again: tuple[Path, Path], live: Live) -> None:
    recipe, run = again
    (run / "checkpoint-8" / MARK).unlink()
    (run / ".encoded.building-").mkdir()
    live(recipe, f"output={run}", kill=7)
    assert [p.name for p in checkpoint_folders(run)] == ["checkpoint-6"]


def test_killed_before_the_first_checkpoint(tiny_base: Path, dataset: Path, tmp_path: Path, live: Live) -> None:
    """Nothing is lost that was saved: the run begins again, and the manifest tells."""
    recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", trainer={**STEPS, "max_steps": 4})
    live(recipe, kill=2)
    assert len(live(recipe)) == 8
    manifest = read_manifest(tmp_path / "run")
    assert manifest is not None
    assert [(entry["step"], entry["lost_steps"]) for entry in manifest["training"]["resumed"]] == [(0, 1)]


def test_a_disk_that_fills_loses_no_earlier_checkpoint(
    tiny_base: Path,
    dataset: Path,
    tmp_path: Path,
    whole: Path,
    live: Live,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Somebody else fills the disk behind the first checkpoint. With room again, the same command goes on."""
    make = training.make_trainer

    with mounted_disk(tmp_path / "disk", "4m") as disk:

        class Fill(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == 5:
                    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 2**17))

        def make_unlucky(*parts: Any) -> Any:
            trainer = make(*parts)
            trainer.add_callback(Fill())
            return trainer

        run = disk / "run"
        recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, run, trainer=STEPS)
        monkeypatch.setattr(training, "make_trainer", make_unlucky)
        assert main([str(recipe)]) == 2
        message = capsys.readouterr().err.rpartition("starchat: ")[2]
        assert f"{run}/checkpoint-6: the checkpoint could not be written (" in message
        assert "checkpoint-3 is untouched; free some space and run the same command again to go on" in message
        assert [p.name for p in checkpoint_folders(run)] == ["checkpoint-3"]
        (disk / "filler").unlink()
        live(recipe)
        assert f"{run}: an unfinished run; going on from step 3; 3 later steps will be done again" in capsys.readouterr().err
        assert_same_weights(run, whole)


def test_a_disk_that_is_too_small_is_told_before_the_first_step(
    tiny_base: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted_disk(tmp_path / "disk", "1m") as disk:
        recipe = write_recipe(tmp_path / "r.yaml", tiny_base, dataset, disk / "run", trainer=STEPS)
        assert main([str(recipe)]) == 1
        assert "✗  disk_has_room" in capsys.readouterr().err
        assert read_metrics(disk / "run") == []


def test_rows_of_another_version_are_told_as_that(again: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = again
    begun = json.loads((run / "begun.json").read_text())
    (run / "begun.json").write_text(json.dumps({**begun, "rows": "encoded-otherwise"}))
    assert main([str(recipe), f"output={run}"]) == 2
    assert (
        "holds an unfinished run of another version of starchat, which may encode rows otherwise; go on with that one"
        in capsys.readouterr().err
    )
