"""An unfinished run is gone on with, or refused with what differs.

In: a run's folder. ``begun.json``, written first of all, says what the run depends on. Out: the checkpoint to go on from, with the
folder as it was when that was written: logs cut to their length then, half-written results gone; and one more line in
``resumed.json``, which the manifest repeats. Imports no torch.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starchat.checkpoint import MARK, Checkpoint, Launch, checkpoint_folders, newest_whole, remove_checkpoint, step_of
from starchat.dialogue import canonical_json
from starchat.errors import UserError
from starchat.files import BEGUN, MANIFEST, digest_json, read_object, sha256_file, write_json
from starchat.hub import start_folder
from starchat.recipe import Recipe, resolved
from starchat.rows import dataset_digest

RESUMED = "resumed.json"

MODEL_FILES = (".json", ".safetensors", ".jinja")
SHARED = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Keys of the trainer that say how an update is shared among processes; `require_same_updates` watches over what they make."""

RESULTS = ("adapter", "model", "golden.json", "golden.safetensors", "verify.json", "README.md", "loss.png", "FAILED")
ROWS = "the encoded rows"
SHOWN = 5


def run_parts(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return everything that a run depends on: the resolved recipe, the dataset, the base model's files.

    All of their bytes, since two runs of one base have files of the same names and sizes.
    """
    folders = dict.fromkeys((folder, start_folder(recipe.model)))  # an adapter to go on with lies beside its base
    base = [[p.name, sha256_file(p)] for one in folders for p in sorted(one.iterdir()) if p.suffix in MODEL_FILES]
    return {"recipe": dict(resolved(recipe)), "dataset": dataset_digest(recipe.dataset), "base": base}


def identity_of(begun: Mapping[str, Any]) -> str:
    """Return the digest of what a run's weights depend on: not where it lies, and not how its updates are shared among processes."""
    return digest_json(dict(_essential(begun)))


def record_begin(run: Path, begun: Mapping[str, Any]) -> None:
    """Write what the run depends on: its parts, and in ``rows`` the name of its encoded rows. Call it before anything else is written."""
    write_json(run / BEGUN, begun)


def unfinished(run: Path, now: Mapping[str, Any]) -> bool:
    """Return whether a folder holds this run, unfinished; raise `UserError` if it holds that of another recipe, dataset or base."""
    if not (run / BEGUN).is_file() or (run / MANIFEST).exists():
        return False
    then = read_object(run / BEGUN, "what the run depends on", "the folder was damaged: pass --overwrite to begin anew")
    if identity_of(then) == identity_of(now):
        return True
    raise UserError(
        f"{run}: holds an unfinished run of {_differences(then, now)}; go on with that one, choose another output, "
        "or pass --overwrite to begin anew"
    )


def go_on(run: Path, identity: str, launch: Launch) -> Checkpoint | None:
    """Return the checkpoint to go on from, with the folder made ready; None if the run was stopped before its first one.

    Raises `UserError` if only damaged checkpoints are left, or if these processes would make other updates than those that wrote it.
    """
    found, damaged = newest_whole(run, identity)
    if found is None and damaged:
        raise UserError(f"{'; '.join(damaged)}; no whole checkpoint is left; restore the files, or pass --overwrite to begin anew")
    for fault in damaged:
        print(f"starchat: {fault}; the checkpoint before it is taken", file=sys.stderr)
    if found is not None:
        require_same_updates(found, launch)
    reached = _last_line(run / "metrics.jsonl")
    step = found.step if found else 0
    lost = int(reached.get("step", step)) - step
    print(f"starchat: {run}: an unfinished run; going on from step {step}{_lost(lost)}", file=sys.stderr)
    kept = 0.0
    if found is not None:
        _clean(run, found)
        kept = float(_last_line(run / "metrics.jsonl").get("seconds", 0.0))
    seconds = round(float(reached.get("seconds", kept)) - kept, 2)
    entry = {"step": step, "lost_steps": lost, "lost_seconds": seconds, "engine": dict(launch.engine)}
    write_json(run / RESUMED, {"resumed": [*read_resumed(run), entry]})
    return found


def read_resumed(run: Path) -> list[dict[str, Any]]:
    """Return for each time that a run was gone on with its step, and what was lost."""
    path = run / RESUMED
    return list(read_object(path, "how often the run was gone on with", "remove it")["resumed"]) if path.is_file() else []


def require_same_updates(found: Checkpoint, launch: Launch) -> None:
    """Raise `UserError` unless these processes make of the same groups the same updates as those that wrote a checkpoint."""
    then, now = _plain(found.launch.engine), _plain(launch.engine)
    if then == now and found.launch.sequences_per_update == launch.sequences_per_update and found.launch.groups == launch.groups:
        return
    kind_then, kind_now = ({key: value for key, value in engine.items() if key != "processes"} for engine in (then, now))
    processes = f"{then['processes']} process{'es' if then['processes'] > 1 else ''}"
    if kind_then != kind_now or (any(kind_then.values()) and then != now):
        told = [", ".join(f"{key} {value}" for key, value in engine.items()) for engine in (then, now)]
        raise UserError(
            f"{found.path}: its optimizer is in the parts of another engine ({told[0]}; now {told[1]}); "
            f"launch with {processes} and the same configuration, or pass --overwrite to begin anew"
        )
    if found.launch.sequences_per_update != launch.sequences_per_update or found.launch.groups != launch.groups:
        raise UserError(
            f"{found.path}: an update had {found.launch.sequences_per_update} sequences of an epoch of {found.launch.groups}, and would "
            f"have {launch.sequences_per_update} of {launch.groups} now; launch with {processes}, or set per_device_train_batch_size and "
            "gradient_accumulation_steps so that their product with the processes stays"
        )
    print(
        f"starchat: {found.path} is of {processes}, {now['processes']} go on: the same updates but for rounding; dropout draws anew",
        file=sys.stderr,
    )


def _plain(engine: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(canonical_json(dict(engine))))


def _clean(run: Path, found: Checkpoint) -> None:
    """Put a run's folder into the state in which `found` was written."""
    for folder in checkpoint_folders(run):
        if step_of(folder) > found.step or not (folder / MARK).is_file():
            remove_checkpoint(folder)
    for log in run.glob("*.jsonl"):
        if log.name not in found.logs:
            log.unlink()
        elif log.stat().st_size > found.logs[log.name]:
            os.truncate(log, found.logs[log.name])
    for name in RESULTS:
        if (run / name).is_dir():
            shutil.rmtree(run / name)
        else:
            (run / name).unlink(missing_ok=True)


def _last_line(path: Path) -> dict[str, Any]:
    """Return the last whole line of a log; a kill may have cut the one after it."""
    last: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            last = json.loads(line)
        except ValueError:
            break
    return last


def _lost(steps: int) -> str:
    return f"; {steps} later step{'s' if steps > 1 else ''} will be done again" if steps else ""


def _essential(begun: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of what a run's weights depend on."""
    for key, value in begun["recipe"].items():
        if key == "trainer":
            yield from ((f"trainer.{inner}", item) for inner, item in sorted(value.items()) if inner not in SHARED)
        elif key != "output":
            yield key, value
    yield "the dataset's files", begun["dataset"]
    yield "the base model's files", begun["base"]
    yield ROWS, begun["rows"]


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return whose run it is: the keys that differ with their values; of files only that they do."""
    before, after = dict(_essential(then)), dict(_essential(now))
    differing = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if differing == [ROWS]:
        return "another version of starchat, which may encode rows otherwise"
    told = [
        key if key.startswith("the ") else f"{key}: {before.get(key)!r} there, {after.get(key)!r} now"
        for key in sorted(differing, key=lambda key: key.startswith("the "))
    ]
    more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return f"another recipe ({'; '.join(told[:SHOWN])}{more})"
