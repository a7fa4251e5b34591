"""What a run tells, counted by hand from the rows that it trained."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runs import finish, read_lines, write_recipe
from starchat.arguments import training_arguments
from starchat.collate import Collator, batch_tensors
from starchat.collectives import exposed_by_ddp, timed_collectives
from starchat.errors import UserError
from starchat.files import read_manifest
from starchat.recipe import load_recipe
from starchat.rows import read_encoded
from starchat.telemetry import Stopwatch, count_batch, derived, summary

pytestmark = pytest.mark.usefixtures("gate_in_this_process")

PAD = 0

EPOCH = {"max_steps": -1, "num_train_epochs": 1}


def by_hand(run: Path) -> dict[str, int]:
    """Tokens, trained tokens and attention pairs of one layer in all rows of a run's training split."""
    encoded = read_encoded(next(run.glob("encoded-*")), "train")
    lengths = [len(encoded.row(n)[0]) for n in range(len(encoded))]
    trained = sum(int(encoded.row(n)[1][1:].sum()) for n in range(len(encoded)))
    return {"tokens": sum(lengths), "trained_tokens": trained, "pairs": sum(n * (n + 1) // 2 for n in lengths)}


@pytest.fixture(scope="module")
def epoch(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, dataset: Path) -> Path:
    """A run over exactly one epoch, with accumulation, two sequences at a time and a line for every second step."""
    folder = tmp_path_factory.mktemp("epoch")
    batch = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "logging_steps": 2}
    return finish(folder, "run", tiny_base, dataset, trainer={**EPOCH, **batch, "report_to": "tensorboard"})


def test_an_epoch_counts_every_token_once(epoch: Path) -> None:
    found, rows = summary(read_lines(epoch)), by_hand(epoch)
    assert {name: found[name] for name in ("tokens", "trained_tokens")} == {name: rows[name] for name in ("tokens", "trained_tokens")}
    assert found["attention_pairs"] == 2 * rows["pairs"], "of two layers"


@pytest.mark.parametrize(("pad_id", "off"), [(None, 0), (-1, 1)])
def test_a_wrong_count_is_caught(pad_id: int | None, off: int, epoch: Path) -> None:
    """The planted fault takes padding for tokens; counted by hand, the sum shows it."""
    encoded = read_encoded(next(epoch.glob("encoded-*")), "train")
    collate = Collator(encoded, PAD)
    batches = [collate([{"group": n}, {"group": n + 1}]) for n in range(0, len(encoded.groups), 2)]
    counted = sum(int(count_batch(batch, PAD if pad_id is None else pad_id, (None,))[0]) for batch in batches)
    assert bool(counted - by_hand(epoch)["tokens"]) == bool(off)


def test_counts_of_a_batch() -> None:
    def row(*ids: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array(ids), np.array([False, *(True for _ in ids[1:])])

    groups: list[Any] = [[row(5, 6, PAD), row(7, PAD)], [row(8, 9)], []]
    counted = count_batch(batch_tensors(groups, PAD, 6), PAD, (None, 2))
    full, windowed = (1 + 2 + 3) + (1 + 2) + (1 + 2), (1 + 2 + 2) + (1 + 2) + (1 + 2)
    assert counted.tolist() == [7, 11, 4, full + windowed], "a row that ends in the padding's token is no padding"


def test_shares_sum_to_one(epoch: Path) -> None:
    for line in [*read_lines(epoch), summary(read_lines(epoch))]:
        shares = {name: line[name] for name in line if name.startswith("time_")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert min(shares.values()) >= 0
        assert shares["time_input"] > 0 and shares["time_optimizer"] > 0
        assert "mfu" not in line, "a CPU has no peak"


def test_the_gap_of_a_known_gpu_by_hand() -> None:
    counts = {"tokens": 900.0, "padding_tokens": 100.0, "trained_tokens": 300.0, "attention_pairs": 0.0}
    times = {"interval_seconds": 10.0, "input_seconds": 1.0, "optimizer_seconds": 0.5, "saving_seconds": 0.3, "communication_seconds": 0.2}
    work = {"model_flops": 3e12, "repeated_flops": 1e12, "peak_flops_per_second": 1e12}
    found = derived({**counts, **times, **work})
    assert found["tokens_per_second"] == 90 and found["trained_tokens_per_second"] == 30 and found["padding_share"] == 0.1
    assert found["mfu"] == pytest.approx(0.3)
    expected = {
        "input": 0.1,
        "optimizer": 0.05,
        "saving": 0.03,
        "communication": 0.02,
        "padding": 0.08,
        "recomputation": 0.72 / 4,
        "model": 0.3,
        "other": 0.24,
    }
    assert {name: found[f"time_{name}"] for name in expected} == pytest.approx(expected)


def test_waiting_and_recomputation_are_named(
    tmp_path: Path, tiny_base: Path, dataset: Path, epoch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Collator.__call__

    def slow(self: Collator, examples: Any) -> Any:
        time.sleep(0.5)
        return real(self, examples)

    monkeypatch.setattr(Collator, "__call__", slow)
    found = summary(read_lines(finish(tmp_path, "run", tiny_base, dataset, trainer={"activation_checkpointing": True})))
    assert found["input_seconds"] >= 1.0, "two steps, half a second each"
    rest = 1 - found["time_input"] - found["time_optimizer"]
    assert 0 < found["time_recomputation"] / rest < 0.5, "one forward pass without the head, of four passes"
    assert summary(read_lines(epoch))["time_recomputation"] == 0


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_collectives_are_timed_and_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    real, watch = torch.distributed.all_reduce, Stopwatch(torch.device("cpu"))

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.distributed, "all_reduce", slow)
    wait = torch.distributed.Work.wait
    begin = time.monotonic()
    with timed_collectives(watch):
        torch.distributed.all_reduce(torch.ones(2))
        torch.distributed.all_reduce(torch.ones(2), async_op=True).wait()
        watch.start("input")
        torch.distributed.all_reduce(torch.ones(2))
        watch.stop("input")
    names = [name for name, _, _ in watch.pairs]
    assert names == ["communication", "communication", "communication", "input"], "twice called, once waited for, once within the input"
    found = watch.take()
    assert found["communication"] >= 0.1 and found["input"] >= 0.05
    assert found["communication"] + found["input"] <= time.monotonic() - begin, "nothing is counted twice"
    assert torch.distributed.all_reduce is slow and torch.distributed.Work.wait is wait
    torch.distributed.all_reduce(torch.ones(2))
    assert not watch.pairs


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_ddp_tells_what_no_computation_hides(seconds: float) -> None:
    def late(state, bucket):  # DDP reads annotations, and wants types where there would be texts
        reduced: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        threading.Timer(seconds, reduced.set_result, [bucket.buffer()]).start()
        return reduced

    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 8))
    model.register_comm_hook(None, late)
    longest = 0.0
    for _ in range(3):
        begin = time.monotonic()
        model(torch.ones(2, 8)).sum().backward()
        longest = max(longest, time.monotonic() - begin)
    assert 0.9 * seconds <= exposed_by_ddp(model) <= longest, "DDP looks at its clock a little after the timer starts"
    assert exposed_by_ddp(model.module) == 0


def test_card_and_manifest_tell(epoch: Path) -> None:
    manifest = read_manifest(epoch)
    assert manifest is not None and manifest["training"]["speed"]["tokens"] == by_hand(epoch)["tokens"]
    card = (epoch / "README.md").read_text(encoding="utf-8")
    assert "tokens/s, of which trained" in card and "| time | input " in card


def test_tensorboard_gets_every_field(epoch: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = epoch.rglob("events.out.tfevents*")
    board = EventAccumulator(str(file.parent))
    board.Reload()
    logged = {event.step: event.value for event in board.Scalars("train/tokens_per_second")}
    assert logged == pytest.approx({line["step"]: line["tokens_per_second"] for line in read_lines(epoch)}, rel=1e-4)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_reporter_that_is_not_installed_is_named_before_training(name: str, tmp_path: Path, tiny_base: Path, dataset: Path) -> None:
    if find_spec(name):
        pytest.skip(f"{name} is installed")
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", tiny_base, dataset, tmp_path / "run", trainer={"report_to": name}))
    with pytest.raises(UserError, match=rf"{name} to be installed"):
        training_arguments(recipe)
