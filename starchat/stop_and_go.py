"""A trainer that can be stopped at any moment and goes on as if it never was.

In: one of TRL's trainers. Out: the same with checkpoints that are whole (`starchat.checkpoint`), with the order of groups that a
resumed epoch must have, and with an end in good order when the machine is wanted back: SIGTERM, which Slurm sends before it
takes a node (``--signal`` may name SIGUSR1 instead), ends the run after its step with a checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from starchat.checkpoint import PREFIX, Launch, checkpoint_folders, keep_newest, mark_whole, names
from starchat.engine import asked_engine
from starchat.errors import Preempted, UserError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

TORN = ("PytorchStreamWriter", "inline_container", "No space left")
"""What a RuntimeError of torch says that could not write a file."""


class StopAndGo:
    """Mixed into a trainer by `stop_and_go`: how it saves, and where it begins."""

    identity = ""
    limit: int | None = None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, mark it whole, and only then let an earlier one go. All processes leave together."""
        trainer: Any = self
        run = Path(trainer.args.output_dir)
        folder = run / f"{PREFIX}{trainer.state.global_step}"
        with _or_no_checkpoint(folder):
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            trainer.accelerator.wait_for_everyone()
            if trainer.accelerator.is_main_process:
                mark_whole(folder, self.identity, launch_of(trainer.args, len(trainer.train_dataset)))
                keep_newest(run, self.limit)
        trainer.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save weights. Of an adapter only its own: by default PEFT adds the whole embedding wherever a row was added to it."""
        trainer: Any = self
        if not isinstance(trainer.model, PeftModel):
            super()._save(output_dir, state_dict)  # type: ignore[misc]
        elif trainer.args.should_save:
            trainer.model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=False)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load what transformers knows of, and TRL's count of tokens, which it begins anew."""
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        trainer: Any = self
        counts = [line["num_tokens"] for line in trainer.state.log_history if "num_tokens" in line]
        if checkpoint is not None and counts:
            trainer._total_train_tokens = int(counts[-1])

    def _run_epoch(self, *parts: Any, **named: Any) -> None:
        """Run an epoch, in its own order, unless the run has had all its steps.

        transformers looks at ``max_steps`` only behind a step. And where more processes than one resume within an epoch, its loader
        keeps the sampler at epoch 0 (two wrappers lie between them, `set_epoch` reaches through one): they would see other groups.
        """
        trainer: Any = self
        if trainer.state.global_step >= trainer.state.max_steps:
            return
        named["train_dataloader"].set_epoch(named["epoch"])
        super()._run_epoch(*parts, **named)  # type: ignore[misc]


def stop_and_go(kind: type[Any], identity: str, arguments: Any) -> type[Any]:
    """Return a trainer's class with whole checkpoints of the run `identity`; the arguments' own limit is taken over."""
    limit, arguments.save_total_limit = arguments.save_total_limit, None
    return type(kind.__name__, (StopAndGo, kind), {"identity": identity, "limit": limit})


def launch_of(arguments: Any, groups: int) -> Launch:
    """Return how this launch shares the work of an epoch of `groups` groups."""
    together = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return Launch(dataclasses.asdict(asked_engine()), together, groups)


@contextlib.contextmanager
def _or_no_checkpoint(folder: Path) -> Iterator[None]:
    """Turn a failure to write into one message, and take away what was written, so that there is room again."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in TORN):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        whole = checkpoint_folders(folder.parent)
        kept = f"{names(whole)} {'are' if len(whole) > 1 else 'is'} untouched" if whole else "there is none before it"
        raise UserError(
            f"{folder}: the checkpoint could not be written ({' '.join(str(error).split())[:200]}); {kept}; free some space and run the "
            "same command again to go on"
        ) from None


class StopOnSignal(TrainerCallback):
    """Ends the run with a checkpoint after the step in which a signal of `SIGNALS` reached any of its processes."""

    def __init__(self) -> None:
        self.received = 0
        self.agreed = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of signals in the block instead of ending by them. A launcher and Slurm may each send one: they count once.

        Only a process's main thread hears signals; in another one nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.received = number

        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Agree with the other processes, which may have been told a step earlier or later; log whenever a checkpoint follows."""
        self.agreed = _greatest(self.received, args)
        if self.agreed:
            control.should_save = True
        if control.should_save:  # the mean over steps since the last logged one starts anew in a resumed run
            control.should_log = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave, if that was the last checkpoint."""
        if self.agreed:
            name, step = signal.Signals(self.agreed).name, state.global_step
            folder = Path(str(args.output_dir)) / f"{PREFIX}{step}"
            raise Preempted(f"{name}: stopped after step {step} of {state.max_steps}, saved {folder}; run the same command again to go on")


def _greatest(number: int, arguments: TrainingArguments) -> int:
    if arguments.world_size == 1:
        return number
    value = torch.tensor([number], device=arguments.device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return int(value.item())
