"""What a run leaves behind, and how it is loaded again.

===================  =====================================================================================
``recipe.yaml``      the resolved recipe; runs again as it is
``check.json/html``  the loss X-ray of the data
``encoded-*/``       the rows that were trained
``metrics.jsonl``    one line for each logged step; ``loss.png`` its plot
``adapter/``         after LoRA: the adapter with the tokenizer
``model/``           otherwise: the whole model with the tokenizer, as transformers reads it
``begun.json``       what the run depends on, by which it is known again when it is gone on with
``resumed.json``     how often that was, at which steps, and what was lost
``checkpoint-*/``    where it can be gone on from, see `starchat.checkpoint`
``golden.*``         dialogues with the ids and logits that the live model gave them
``infill.json``      infilling of held-out code before and after, if the base model can
``verify.json``      what the reload gate found
``README.md``        the model card
``manifest.json``    written last, and only by a run that passed the gate
===================  =====================================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from starchat import __version__
from starchat.card import render_card
from starchat.dialogue import Record, to_message
from starchat.encode import Row, encode_dialogues, encode_prompt
from starchat.engine import running_engine
from starchat.errors import UserError
from starchat.files import RUN_MARK, describe_file, read_object, versions, write_json, write_manifest, write_text
from starchat.finding import judged
from starchat.fsdp import whole_weights
from starchat.hub import base_folder, base_name
from starchat.infill import read_infilling
from starchat.metrics import plot_loss, read_metrics, reward_change
from starchat.model import count_parameters, load_saved
from starchat.recipe import Recipe, load_recipe, resolved
from starchat.resume import read_resumed
from starchat.rows import read_records
from starchat.telemetry import summary
from starchat.tokens import Tokens, load_tokens, save_tokens

GOLDEN_CASES = 8
GOLDEN_POSITIONS = 8
"""Logits are kept at the last positions of each case: 8 x 8 x 49,156 x 4 bytes = 13 MB for StarCoder."""

MAX_LOGIT_DIFFERENCE = 1e-3
"""In float32 a reload was seen to differ by 2e-5 at most (other thread counts); an unsaved token row by 0.7 and more."""

MAX_HALF_DIFFERENCE = 0.05
"""The same where the live model computed in bfloat16 (DeepSpeed), as a share of its largest logit. Rounding was seen to move logits
by 0.02 of that (StarCoder2 of 40 random layers), an unsaved token row by 0.32 and more."""

LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK", "ROLE_RANK")
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "tokenizers")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the training loop did, for the card and the manifest."""

    steps: int
    seconds: float
    processes: int
    zero_stage: int
    engine: str
    parameters: int
    trained_parameters: int
    preferences: dict[str, Any] | None = None
    """Of preference tuning, ``beta`` and ``losses`` of the trainer."""


def write_recipe(run: Path, recipe: Recipe) -> None:
    """Write the resolved recipe."""
    text = yaml.safe_dump(dict(resolved(recipe)), sort_keys=False, allow_unicode=True)
    write_text(run / "recipe.yaml", f"{RUN_MARK} {__version__}. Run again: starchat train {run}/recipe.yaml output=ANOTHER\n{text}")


def transformers_tokenizer(tokens: Tokens, recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return the tokenizer as transformers' own class, for the trainer."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens.whole, eos_token=tokens.end, pad_token=tokens.pad, model_max_length=recipe.max_length_tokens
    )


def save_run(run: Path, recipe: Recipe, trainer: Any, tokens: Tokens, seconds: float) -> Outcome:
    """Write golden cases and weights. Every process calls this; the first one writes."""
    accelerator = trainer.accelerator
    engine = running_engine(trainer)
    model = accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False, keep_torch_compile=False)
    size = count_parameters(model)
    model.eval()
    cases = golden_cases(recipe, tokens)
    logits = _golden_logits(trainer.model_wrapped if engine.sharded else model, cases, accelerator.device, everywhere=engine.sharded)
    model.config.use_cache = True
    if getattr(model.config, "output_router_logits", False):  # TRL turns it on for the balance of experts; it breaks padded generation
        model.config.output_router_logits = False
    target = run / ("adapter" if recipe.lora else "model")
    with _whole_parameters(model, engine.zero_stage):
        weights = whole_weights(model) if engine.fsdp else None
        if accelerator.is_main_process:
            if recipe.lora:
                model.save_pretrained(target, save_embedding_layers=False, selected_adapters=["default"], state_dict=weights)
                _name_base(target, base_name(recipe.model))
            else:
                model.save_pretrained(target, state_dict=weights or dict(model.state_dict()))
    if accelerator.is_main_process:
        save_tokens(tokens, target, recipe.max_length_tokens)
        save_file({f"logits_{n}": value for n, value in enumerate(logits)}, run / "golden.safetensors")
        write_json(run / "golden.json", {"cases": cases})
    accelerator.wait_for_everyone()
    steps = int(trainer.state.global_step)
    accelerator.end_training()
    preferences = {"beta": trainer.args.beta, "losses": trainer.args.loss_type} if recipe.of_pairs else None
    return Outcome(steps, seconds, engine.processes, engine.zero_stage, str(engine), size.total, size.trained, preferences)


def finish_run(run: Path, recipe: Recipe, digest: str, outcome: Outcome) -> dict[str, Any]:
    """Verify in a fresh process; write plot, card and, if the gate holds, the manifest. First process only."""
    unit = "log 2 at the start" if recipe.of_pairs else "nats per trained token"
    plot_loss(run, f"{run.name}: {recipe.kind}{' LoRA' if recipe.lora else ''} of {recipe.model}", unit)
    verified = verify_in_fresh_process(run)
    write_json(run / "verify.json", verified)
    told = {key: value for key, value in dataclasses.asdict(outcome).items() if value is not None}
    training = {**told, "final_loss": next((m["loss"] for m in reversed(read_metrics(run)) if "loss" in m), None)}
    if speed := summary(read_metrics(run)):
        training["speed"] = speed
    if infilling := read_infilling(run):
        training["infilling"] = infilling
    if resumed := read_resumed(run):
        training["resumed"] = resumed
    if recipe.of_pairs:
        training["preferences"] |= reward_change(run)
    check = json.loads((run / "check.json").read_text(encoding="utf-8"))
    write_text(run / "README.md", render_card(recipe, training, check["stats"], verified, versions(*PACKAGES)))
    if not verified["ok"]:
        faults = "; ".join(f["detail"] for f in verified["findings"] if not f["ok"])
        write_text(run / "FAILED", f"The reload gate found a fault; this run is not finished. {faults}\n")
        print(f"{run}: verify failed: {faults}", file=sys.stderr)
        return {"folder": str(run), "ok": False, "verify": verified}
    files = [describe_file(p, str(p.relative_to(run))) for p in sorted(run.rglob("*")) if p.is_file()]
    content = {"recipe": dict(resolved(recipe)), "training": training, "verify": verified, "files": files}
    write_manifest(run, "train", digest, {**content, "versions": {"starchat": __version__, **versions(*PACKAGES)}})
    return {"folder": str(run), "ok": True, "training": training, "verify": verified}


def verify_in_fresh_process(run: Path) -> dict[str, Any]:
    """Return what ``python -m starchat.verify --json`` prints of a run, started without this launch's environment."""
    keep = {k: v for k, v in os.environ.items() if k not in LAUNCH_VARIABLES and not k.startswith(("ACCELERATE_", "TORCHELASTIC_"))}
    command = [sys.executable, "-m", "starchat.verify", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=keep, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return {"ok": False, "findings": [dataclasses.asdict(judged("fresh_process", False, last[0]))]}


def golden_cases(recipe: Recipe, tokens: Tokens) -> list[dict[str, Any]]:
    """Return a few examples of the dataset, test split first, with the ids that the encoder gives them."""
    cases: list[dict[str, Any]] = []
    for split in ("test", "train"):
        for record in read_records(recipe.dataset, split):
            if len(cases) == GOLDEN_CASES:
                return cases
            case = _golden_case(record, recipe, tokens)
            if case is not None:
                cases.append(case)
    return cases


def load_run(folder: Path) -> tuple[Any, Tokens]:
    """Return model and tokens of a run folder, as a fresh process sees them.

    Raises `UserError` if the shortest golden case has other logits than it had: the base that the recipe names may be another today.
    """
    recipe = load_recipe(folder / "recipe.yaml")
    tokens = saved_tokens(folder, recipe)
    gpu = torch.cuda.is_available()
    cases, golden = read_golden(folder)
    model: Any = load_saved(folder, recipe, tokens, torch.bfloat16 if gpu else live_dtype(golden))
    model = model.to("cuda") if gpu else model
    number = min(range(len(cases)), key=lambda n: len(cases[n]["ids"]))
    live, loaded = golden[f"logits_{number}"], last_logits(model, cases[number])
    if live.shape != loaded.shape or not logit_difference(live, loaded) <= allowed_difference(live, half=gpu):
        raise UserError(
            f"{folder}: loaded, it gives other logits than it was trained to; the weights of {recipe.model} or of the run were changed; "
            f"starchat verify {folder} tells more"
        )
    return model, tokens


def read_golden(run: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Return golden cases and their logits, ``logits_0`` and so on, each (positions, vocabulary)."""
    missing = [name for name in ("golden.json", "golden.safetensors") if not (run / name).is_file()]
    if missing:
        raise UserError(f"{run}: lacks {', '.join(missing)}, with which a run is proved; restore it, or train again")
    return read_object(run / "golden.json", "golden cases", "restore it, or train again")["cases"], load_file(run / "golden.safetensors")


def live_dtype(golden: Mapping[str, torch.Tensor]) -> torch.dtype:
    """Return the type that the live model computed in: bfloat16 where its weights, or those below an adapter, were held so.

    Loaded in that type, a model gives the same logits again, bit for bit on the same kind of machine. Loaded in float32, a model trained on
    4 bits with products in bfloat16 was seen to be off by 0.13 of its largest logit (`tests/test_methods.py` tries it).
    """
    return next((logits.dtype for logits in golden.values()), torch.float32)


def last_logits(model: Any, case: dict[str, Any]) -> torch.Tensor:
    """Return a loaded model's logits at the last positions of a golden case, (positions, vocabulary), float32 on the CPU."""
    with torch.no_grad():
        ids = torch.tensor([case["ids"]], device=next(model.parameters()).device)
        return torch.as_tensor(model(input_ids=ids, use_cache=False).logits[0, -GOLDEN_POSITIONS:].float().cpu())


def logit_difference(live: torch.Tensor, loaded: torch.Tensor) -> float:
    """Return the largest difference of logits of one shape; infinite where one of them is no number."""
    return float((live.float() - loaded).abs().nan_to_num(nan=math.inf).max())


def allowed_difference(live: torch.Tensor, half: bool = False) -> float:
    """Return how far loaded logits may be off: `half` if the loaded model computes in bfloat16."""
    exact = live.dtype == torch.float32 and not half
    return MAX_LOGIT_DIFFERENCE if exact else MAX_HALF_DIFFERENCE * float(live.abs().max())


def saved_tokens(run: Path, recipe: Recipe) -> Tokens:
    """Return the tokens of what a run saved, with `new` as the base model sees it."""
    template = recipe.dialogue_template
    saved = load_tokens(run / ("adapter" if recipe.lora else "model"), template)
    if template is None or not recipe.lora:
        return saved
    return dataclasses.replace(saved, new=load_tokens(base_folder(recipe.model), template).new)


def _golden_case(record: Record, recipe: Recipe, tokens: Tokens) -> dict[str, Any] | None:
    if not recipe.of_dialogues:
        text = "".join(p.text for p in record.parts)[:600]
        ids = tokens.encode_texts([text])[0][: recipe.max_length_tokens]
        return {"ids": ids, "messages": None, "tools": None, "prompt_ids": None} if text else None
    answers = [number for number, turn in enumerate(record.turns) if turn.role == "assistant"]
    for last in reversed(answers):  # the longest beginning of the dialogue that ends with an answer and is one row
        turns = record.turns[: last + 1]
        rows = list(encode_dialogues([dataclasses.replace(record, turns=turns)], tokens, recipe.max_length_tokens))
        if len(rows) == 1 and isinstance(rows[0], Row):
            return {
                "ids": rows[0].ids.tolist(),
                "messages": [to_message(turn) for turn in turns],
                "tools": record.tools,
                "prompt_ids": encode_prompt(turns[:-1], tokens, record.tools),
            }
    return None


def _golden_logits(model: Any, cases: list[dict[str, Any]], device: Any, *, everywhere: bool) -> list[torch.Tensor]:
    """Return for each case the logits at its last positions, (positions, vocabulary), in the type that the live model computes in.

    That is bfloat16 under DeepSpeed with ``bf16``, float32 otherwise. Under ZeRO-3 every process takes part.
    """
    if not everywhere and int(os.environ.get("RANK", "0")) != 0:
        return []
    logits = []
    with torch.no_grad():
        for case in cases:
            ids = torch.tensor([case["ids"]], device=device)
            out = model(input_ids=ids, use_cache=False).logits[0, -GOLDEN_POSITIONS:]
            logits.append(out.cpu().contiguous().clone())
    return logits


@contextlib.contextmanager
def _whole_parameters(model: Any, stage: int) -> Iterator[None]:
    """Under ZeRO-3, gather what is saved: of an adapter only its own weights. Every process must enter."""
    if stage != 3:
        yield
        return
    import deepspeed

    adapter = any(not p.requires_grad for p in model.parameters())
    with deepspeed.zero.GatheredParameters([p for p in model.parameters() if p.requires_grad or not adapter], modifier_rank=None):
        yield


def _name_base(adapter: Path, model: str) -> None:
    """Name the base in the adapter's configuration as the recipe names it, not by this machine's path."""
    path = adapter / "adapter_config.json"
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "base_model_name_or_path": model})
