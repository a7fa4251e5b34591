"""The reload gate: a fresh process loads what a run saved and must find what the live model was.

In: a run folder. Out: findings; exit status 1 if one does not hold. Nothing is written.

Compared are every file's presence and, once the run is finished, its digest; the ids of golden dialogues through our encoder
and through the exported Jinja template in transformers; the logits that the live model gave them; the adapter against its base;
and whether replies stop.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from starchat.dialogue import from_message
from starchat.encode import encode_prompt
from starchat.errors import UserError, guarded
from starchat.export import MAX_LOGIT_DIFFERENCE, allowed_difference, last_logits, live_dtype, logit_difference, read_golden, saved_tokens
from starchat.files import read_manifest, sha256_file
from starchat.finding import Finding, judged
from starchat.generate import Assistant
from starchat.hub import read_config
from starchat.metrics import read_metrics
from starchat.model import is_tied, load_saved
from starchat.recipe import Recipe, load_recipe
from starchat.sampling import Sampling
from starchat.template import with_tools
from starchat.tokens import Tokens

STOP_PROMPT_TOKENS = 256
WEIGHTS = {"adapter": "adapter_model.safetensors", "model": "*.safetensors"}
NAMED_FILES = {
    "adapter": ("adapter_config.json", "tokenizer.json", "tokenizer_config.json"),
    "model": ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
}


def verify(run: str | Path) -> dict[str, Any]:
    """Return ``{ok, max_logit_difference, stop_rate, findings}`` of a run."""
    folder = Path(run)
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder}: no recipe.yaml; give the folder that starchat train wrote")
    recipe = load_recipe(folder / "recipe.yaml")
    kind = "adapter" if recipe.lora else "model"
    if not (folder / kind).is_dir():
        raise UserError(f"{folder}: the run saved no {kind}; it ended before its last step: start it again")
    findings = [_files_are_whole(folder, kind, recipe)]
    manifest = read_manifest(folder)
    if manifest is not None:
        findings.append(_files_are_as_recorded(folder, kind, manifest))
    if not findings[0].ok:
        return _result(findings)
    cases, golden = read_golden(folder)
    tokens = saved_tokens(folder, recipe)
    if recipe.of_dialogues:
        findings += [ids_of_encoder(cases, tokens), ids_of_jinja(cases, folder / kind)]
    model = load_saved(folder, recipe, tokens, live_dtype(golden))
    difference, finding = logits_match(model, cases, golden)
    findings += [finding, weights_are_finite(model), stop_ids(model, tokens)]
    findings += (
        [_adapter_is_not_base(model, cases), _every_matrix_moved(model)] if recipe.lora else [tying_is_as_stated(model, folder / kind)]
    )
    stop_rate = None
    if recipe.of_dialogues:
        stop_rate, finding = _replies_stop(model, tokens, cases, recipe, epochs_trained(folder))
        findings.append(finding)
    return _result(findings, max_logit_difference=difference if math.isfinite(difference) else None, stop_rate=stop_rate)


def _result(findings: Sequence[Finding], **numbers: float | None) -> dict[str, Any]:
    return {"ok": all(f.ok for f in findings), **numbers, "findings": [dataclasses.asdict(f) for f in findings]}


def _files_are_whole(run: Path, kind: str, recipe: Recipe) -> Finding:
    """Every file that a loader needs is there and can be read, and every tensor has elements (ZeRO-3 can save shards of none)."""
    folder = run / kind
    named = [*NAMED_FILES[kind], *(["chat_template.jinja"] if recipe.of_dialogues else [])]
    weights = sorted(folder.glob(WEIGHTS[kind]))
    needed = [run / "golden.json", run / "golden.safetensors", *(folder / name for name in named)]
    missing = [path.name for path in needed if not path.is_file()] + ([] if weights else [WEIGHTS[kind]])
    if missing:
        return judged("files_are_whole", False, f"{folder} lacks {', '.join(missing)}")
    damaged = [fault for path in {*needed, *weights, *folder.glob("*.json")} if (fault := _damage(path))]
    if damaged:
        return judged("files_are_whole", False, "; ".join(sorted(damaged)))
    shapes = {name: shape for path in weights for name, shape in _shapes(path).items()}
    empty = [name for name, shape in shapes.items() if 0 in shape]
    names = ", ".join(f"{p.name} ({p.stat().st_size:,} bytes)" for p in sorted(folder.iterdir()))
    detail = f"{len(shapes)} tensors in {names}" if not empty else f"tensors without elements: {', '.join(empty[:5])}"
    return judged("files_are_whole", not empty and bool(shapes), detail)


def _files_are_as_recorded(run: Path, kind: str, manifest: dict[str, Any]) -> Finding:
    """What the model and its proof are made of has the digests that the finished run wrote down; its card may be edited."""
    listed = {str(file["path"]): file["sha256"] for file in manifest.get("files", ())}
    meant = [name for name in listed if name.startswith((f"{kind}/", "golden.")) and not name.endswith(".md")]
    changed = [name for name in meant if not (run / name).is_file() or sha256_file(run / name) != listed[name]]
    detail = f"changed since the run: {', '.join(changed[:5])}" if changed else f"{len(meant)} files have the digests of the manifest"
    return judged("files_are_as_recorded", bool(meant) and not changed, detail)


def _damage(path: Path) -> str | None:
    """Return why a JSON or safetensors file cannot be read, or None. A loader may skip such a file and go on with defaults."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            _shapes(path)
    except (ValueError, SafetensorError) as error:
        return f"{path.name} is damaged ({' '.join(str(error).split())[:120]})"
    return None


def _shapes(path: Path) -> dict[str, list[int]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a mapping


def ids_of_encoder(cases: Sequence[dict[str, Any]], tokens: Tokens) -> Finding:
    """Encode the golden prompts again and compare with what was trained."""
    wrong = 0
    for case in cases:
        turns = [from_message(m) for m in case["messages"]]
        prompt = encode_prompt(turns[:-1], tokens, case["tools"])
        wrong += prompt != case["prompt_ids"] or case["ids"][: len(prompt)] != prompt
    detail = f"{len(cases) - wrong} of {len(cases)} golden prompts have the ids that were trained, and are a prefix of the training row"
    return judged("same_ids", not wrong, detail)


def ids_of_jinja(cases: Sequence[dict[str, Any]], folder: Path) -> Finding:
    """Tokenize the golden dialogues through the exported chat template in transformers, and compare."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    wrong = 0
    for case in cases:
        tools = json.loads(case["tools"]) if case["tools"] else None
        whole = tokenizer.apply_chat_template(case["messages"], tools=tools, tokenize=True, return_dict=False)
        prompt = tokenizer.apply_chat_template(
            case["messages"][:-1], tools=tools, tokenize=True, return_dict=False, add_generation_prompt=True
        )
        wrong += list(whole) != case["ids"] or list(prompt) != case["prompt_ids"]
    detail = f"{len(cases) - wrong} of {len(cases)} golden dialogues have the same ids through the exported chat template in transformers"
    return judged("same_ids_through_jinja", not wrong, detail)


def logits_match(model: Any, cases: Sequence[dict[str, Any]], golden: dict[str, torch.Tensor]) -> tuple[float, Finding]:
    """Compare what the live model gave with what a loaded one gives, as float32."""
    differences, allowed, ok = [0.0], [MAX_LOGIT_DIFFERENCE], bool(cases)
    for number, case in enumerate(cases):
        live, loaded = golden[f"logits_{number}"], last_logits(model, case)
        differences.append(logit_difference(live, loaded) if live.shape == loaded.shape else math.inf)
        allowed.append(allowed_difference(live))
        ok = ok and differences[-1] <= allowed[-1]
    worst = max(differences)
    detail = f"largest logit difference {worst:.2g} over {len(cases)} cases (at most {max(allowed):.2g})"
    return worst, judged("same_logits", ok, detail)


def weights_are_finite(model: torch.nn.Module) -> Finding:
    """Look for weights that are no numbers."""
    bad = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    detail = f"not finite: {', '.join(bad[:5])}" if bad else "every weight is finite"
    return judged("weights_are_finite", not bad, detail)


def stop_ids(model: Any, tokens: Tokens) -> Finding:
    """Hold the ids at which generation stops against the trained end token."""
    eos = model.generation_config.eos_token_id
    stated = set(eos if isinstance(eos, list) else [eos])
    wanted = {tokens.control[tokens.end]}
    detail = f"generation_config stops at {sorted(i for i in stated if i is not None)}, the trained end token is {sorted(wanted)}"
    return judged("end_token_in_generation_config", wanted <= stated, detail)


def _adapter_is_not_base(model: Any, cases: Sequence[dict[str, Any]]) -> Finding:
    with model.disable_adapter():
        base = [last_logits(model, case) for case in cases]
    change = max([0.0] + [float((b - last_logits(model, c)).abs().max()) for b, c in zip(base, cases, strict=True)])
    detail = f"the adapter moves logits by up to {change:.3g}"
    return judged("adapter_is_not_base", change > 1e-4, detail)


def _every_matrix_moved(model: torch.nn.Module) -> Finding:
    """LoRA's B begins at zero, so what still is zero was never trained."""
    matrices = {name: p for name, p in model.named_parameters() if "lora_B" in name}
    dead = [name for name, p in matrices.items() if not p.any()]
    detail = (
        f"{len(dead)} of {len(matrices)} still as they began: {', '.join(dead[:5])}"
        if dead
        else f"{len(matrices)} adapter matrices, each trained"
    )
    return judged("every_matrix_moved", bool(matrices) and not dead, detail)


def tying_is_as_stated(model: Any, folder: Path) -> Finding:
    """What is written in a model's folder, for whatever loads it: transformers itself corrects a wrong word and says nothing."""
    stated = bool(read_config(folder).get("tie_word_embeddings", model.config.tie_word_embeddings))
    detail = f"tie_word_embeddings is {stated}, the loaded head is {'tied' if is_tied(model) else 'a matrix of its own'}"
    return judged("tied_as_stated", is_tied(model) == stated, detail)


def epochs_trained(run: Path) -> float:
    """Return how many epochs a run logged."""
    return max((line.get("epoch", 0.0) for line in read_metrics(run)), default=0.0)


def _replies_stop(model: Any, tokens: Tokens, cases: Sequence[dict[str, Any]], recipe: Recipe, epochs: float) -> tuple[float, Finding]:
    """Whether replies end by themselves. A run of less than an epoch (``max_steps`` to try something) is measured and not judged."""
    assistant = Assistant(model, tokens, "run")
    room = assistant.context_tokens - STOP_PROMPT_TOKENS
    prompts = [with_tools([from_message(m) for m in c["messages"][:-1]], c["tools"]) for c in cases if len(c["prompt_ids"]) <= room]
    if not prompts:
        return 0.0, judged("replies_stop", True, "no golden prompt leaves room for a reply; not measured")
    replies = assistant.reply_batch(prompts, Sampling(max_new_tokens=STOP_PROMPT_TOKENS, temperature=0.0))
    rate = sum(r.finish_reason == "stop" for r in replies) / len(replies)
    detail = f"{rate:.0%} of {len(replies)} greedy replies stop within {STOP_PROMPT_TOKENS} tokens "
    if epochs < 1:
        return rate, judged("replies_stop", True, f"{detail}(not judged: {epochs:.2f} of an epoch was trained)")
    detail += f"(at least {recipe.min_stop_rate:.0%})"
    return rate, judged("replies_stop", rate >= recipe.min_stop_rate, detail)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m starchat.verify RUN [--json]``."""
    parser = argparse.ArgumentParser(prog="starchat.verify")
    parser.add_argument("run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)

    def work() -> int:
        result = verify(options.run)
        print(json.dumps(result) if options.json else render(result))
        return 0 if result["ok"] else 1

    return guarded(work)


def render(result: dict[str, Any]) -> str:
    """Return the findings as lines for a terminal."""
    lines = []
    for finding in result["findings"]:
        lines.append(f"{'✓' if finding['ok'] else '✗'} {finding['check']:32} {finding['detail']}")
        if not finding["ok"]:
            lines.append(f"  {'':32} → {finding['remedy']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
