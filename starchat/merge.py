"""An adapter run to a plain model folder.

In: a finished run with an adapter, and its base model. Out: a folder that transformers loads by itself: weights, tokenizer, chat
template, generation config with the stop ids, card, and ``manifest.json`` last. What the adapter gives is compared with what
the folder gives, loaded in a fresh process. A run that trained all weights has its model already, and needs no merge.

Merging is done in float32 on the CPU (4 bytes a parameter of host memory; 8 while a base in 4 bits is restored).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.functional import kl_div, log_softmax

from starchat import __version__
from starchat.errors import UserError, guarded
from starchat.export import (
    MAX_HALF_DIFFERENCE,
    MAX_LOGIT_DIFFERENCE,
    PACKAGES,
    allowed_difference,
    last_logits,
    live_dtype,
    logit_difference,
    read_golden,
    saved_tokens,
)
from starchat.files import (
    MANIFEST,
    alone_at,
    already_finished,
    building,
    describe_file,
    digest_json,
    place_of,
    read_manifest,
    versions,
    write_json,
    write_manifest,
    write_text,
)
from starchat.finding import Finding, judged
from starchat.generate import detect_template
from starchat.hub import base_folder, read_config
from starchat.model import fit_vocabulary, is_tied, load_adapter, load_base, load_saved
from starchat.recipe import Recipe, load_recipe
from starchat.template import find_template
from starchat.tokens import Tokens, load_tokens, save_tokens
from starchat.verify import ids_of_encoder, ids_of_jinja, logits_match, stop_ids, tying_is_as_stated, weights_are_finite

STAGE = "merge"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Divergence:
    """How far merged logits are from the adapter's on the golden cases: the largest difference, and the mean KL in nats a position."""

    base: str
    max_logit_difference: float
    mean_kl: float


def merge(run: str | Path, output: str | Path, dtype: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Write the merged model of `run` into `output`; return ``{folder, ok, dtype, base, divergences, findings}``.

    `dtype` None takes that of the base model. ``ok`` is false, and nothing is written, if the merged model is not what the adapter is.
    """
    source, target = Path(run), place_of(output)
    recipe, manifest = _adapter_run(source)
    stored = _stored_dtype(base_folder(recipe.model), dtype)
    digest = digest_json([manifest["digest"], manifest["files"], stored])
    with alone_at(target):
        if already_finished(target, STAGE, digest, overwrite):
            return {**(read_manifest(target) or {}), "folder": str(target), "ok": True, "skipped": True}
        return _merge(source, target, recipe, manifest, stored, digest)


def _merge(source: Path, target: Path, recipe: Recipe, manifest: Mapping[str, Any], stored: str, digest: str) -> dict[str, Any]:
    tokens = saved_tokens(source, recipe)
    cases, golden = read_golden(source)
    live = _adapter_logits(source, recipe, tokens, cases, golden)
    model, divergences = _merged(source, recipe, tokens, cases, live)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as draft, tempfile.TemporaryDirectory() as proof:
        save_tokens(tokens, draft, recipe.max_length_tokens)
        model.to(DTYPES[stored]).save_pretrained(draft)
        logits = [last_logits(model.float(), case) for case in cases]
        findings = [
            _same_as_adapter(divergences[0], live, logits, stored),
            *_proved_in_fresh_process(Path(draft), Path(proof), cases, logits),
        ]
        content = {
            "dtype": stored,
            "base": divergences[0].base,
            "divergences": [dataclasses.asdict(d) for d in divergences],
            "findings": [dataclasses.asdict(f) for f in findings],
        }
        if not all(f.ok for f in findings):
            return {"folder": None, "ok": False, **content}
        with building(target) as place:
            for path in Path(draft).iterdir():
                path.rename(place / path.name)
            write_text(place / "README.md", _card(source, recipe, divergences, stored))
            files = [describe_file(p, str(p.relative_to(place))) for p in sorted(place.rglob("*")) if p.is_file()]
            origin = {"run": str(source), "digest": manifest["digest"], "model": recipe.model}
            made_by = {"starchat": __version__, **versions(*PACKAGES)}
            write_manifest(place, STAGE, digest, {**content, "from": origin, "files": files, "versions": made_by})
    return {"folder": str(target), "ok": True, **content}


def _adapter_run(run: Path) -> tuple[Recipe, dict[str, Any]]:
    """Return recipe and manifest of a finished run with an adapter."""
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run}: no recipe.yaml; give the folder that starchat train wrote")
    recipe = load_recipe(run / "recipe.yaml")
    manifest = read_manifest(run)
    if manifest is None:
        raise UserError(f"{run}: a run that did not finish (it has no {MANIFEST}); finish it with starchat train")
    if recipe.lora is None:
        raise UserError(f"{run}: trained all weights, so there is nothing to merge; the plain model is {run / 'model'}")
    return recipe, manifest


def _stored_dtype(base: Path, dtype: str | None) -> str:
    """Return the name of the type that weights are stored in: the one asked for, or the base model's."""
    config = read_config(base)
    stored = dtype or str(config.get("dtype") or config.get("torch_dtype") or "float32")
    if stored not in DTYPES:
        raise UserError(f"dtype: {stored!r}; expected one of {', '.join(DTYPES)}; pass --dtype")
    return stored


def _adapter_logits(
    run: Path, recipe: Recipe, tokens: Tokens, cases: Sequence[dict[str, Any]], golden: dict[str, torch.Tensor]
) -> list[torch.Tensor]:
    """Return the adapter's logits of each golden case in float32; raise `UserError` if they are not those that were trained."""
    computed = live_dtype(golden)
    model = load_saved(run, recipe, tokens, computed)
    live = [last_logits(model, case) for case in cases]
    for number, loaded in enumerate(live):
        trained = golden[f"logits_{number}"]
        if trained.shape != loaded.shape or not logit_difference(trained, loaded) <= allowed_difference(trained):
            raise UserError(
                f"{run}: its adapter on {recipe.model} gives other logits than it was trained to; the weights of one of them were changed; "
                f"restore them; starchat verify {run} tells more"
            )
    if computed == torch.float32:
        return live
    model = load_saved(run, recipe, tokens, torch.float32)
    return [last_logits(model, case) for case in cases]


def _merged(
    run: Path, recipe: Recipe, tokens: Tokens, cases: Sequence[dict[str, Any]], live: Sequence[torch.Tensor]
) -> tuple[Any, list[Divergence]]:
    """Return the merged model in float32, and how far it is from the adapter, the best base first.

    An adapter of a base in 4 bits was trained on what those bits stand for. It is tried on that and on the base as published: which
    is nearer is measured, not assumed. Merged into 4 bits again, it would be rounded away.
    """
    bases = ["dequantized", "original"] if recipe.quantization else ["original"]
    found = []
    for base in bases:
        model = _merge_into(base, run, recipe, tokens)
        found.append(_divergence(base, live, [last_logits(model, case) for case in cases]))
        del model  # one of them in memory at a time
    found.sort(key=lambda one: one.mean_kl)
    return _merge_into(found[0].base, run, recipe, tokens), found


def _merge_into(base: str, run: Path, recipe: Recipe, tokens: Tokens) -> Any:
    folder = base_folder(recipe.model)
    model = load_base(folder, torch.float32)
    fit_vocabulary(model, tokens)
    if base == "dequantized":
        _restore_from_four_bits(model, load_base(folder, torch.float32, quantization=recipe.quantization))
    tied = is_tied(model)
    merged: Any = load_adapter(model, run / "adapter").merge_and_unload()
    merged.config.tie_word_embeddings = tied
    return merged.eval()


def _restore_from_four_bits(model: torch.nn.Module, quantized: torch.nn.Module) -> None:
    """Give linear layers the weights that their quantised namesakes stand for."""
    from bitsandbytes.functional import dequantize_4bit

    for name, layer in quantized.named_modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if state is not None:
            with torch.no_grad():
                weight: Any = model.get_submodule(name).weight
                weight.copy_(dequantize_4bit(layer.weight.data, state).reshape(weight.shape))


def _divergence(base: str, live: Sequence[torch.Tensor], merged: Sequence[torch.Tensor]) -> Divergence:
    """Return how far `merged` is from `live`, each a list of (positions, vocabulary)."""
    kl = [
        kl_div(log_softmax(m, -1), log_softmax(a, -1), reduction="none", log_target=True).sum(-1) for a, m in zip(live, merged, strict=True)
    ]
    worst = max(logit_difference(a, m) for a, m in zip(live, merged, strict=True))
    return Divergence(base, worst, max(0.0, float(torch.cat(kl).mean())))


def _same_as_adapter(best: Divergence, live: Sequence[torch.Tensor], stored: Sequence[torch.Tensor], dtype: str) -> Finding:
    """Merged in float32 the model is the adapter; stored in half precision it is so to the rounding of its weights."""
    rounded = _divergence(best.base, live, stored)
    largest = max(float(logits.abs().max()) for logits in live)
    allowed = MAX_LOGIT_DIFFERENCE if dtype == "float32" else MAX_HALF_DIFFERENCE * largest
    detail = (
        f"merged into the {best.base} base, logits differ by {best.max_logit_difference:.2g} (at most {MAX_LOGIT_DIFFERENCE:.2g}); "
        f"stored in {dtype}, by {rounded.max_logit_difference:.2g} (at most {allowed:.2g}), KL {rounded.mean_kl:.2g} nats"
    )
    ok = best.max_logit_difference <= MAX_LOGIT_DIFFERENCE and rounded.max_logit_difference <= allowed
    return judged("merged_is_adapter", ok, detail)


def _proved_in_fresh_process(draft: Path, proof: Path, cases: Sequence[dict[str, Any]], logits: Sequence[torch.Tensor]) -> list[Finding]:
    """Return what a fresh process finds in a merged folder, whose logits in this process are `logits`."""
    save_file({f"logits_{n}": value for n, value in enumerate(logits)}, proof / "golden.safetensors")
    write_json(proof / "golden.json", {"cases": list(cases)})
    command = [sys.executable, "-m", "starchat.merge", str(draft), str(proof)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return [Finding(**found) for found in json.loads(done.stdout)]
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return [judged("fresh_process", False, last[0])]


def prove(folder: Path, proof: Path) -> list[Finding]:
    """Return findings on a merged folder: ids, logits, finite weights, stop ids, tying. `proof` holds golden cases and logits."""
    cases, golden = read_golden(proof)
    findings = []
    dialogues = cases[0]["messages"] is not None
    tokens = load_tokens(folder, find_template(detect_template(folder)) if dialogues else None)
    if dialogues:
        findings += [ids_of_encoder(cases, tokens), ids_of_jinja(cases, folder)]
    model = load_base(folder, torch.float32).eval()
    return [
        *findings,
        logits_match(model, cases, golden)[1],
        weights_are_finite(model),
        stop_ids(model, tokens),
        tying_is_as_stated(model, folder),
    ]


def _card(run: Path, recipe: Recipe, divergences: Sequence[Divergence], dtype: str) -> str:
    """Return the run's card with what merging did."""
    lines = [f"## Merged\n\nThe adapter of this run, merged into `{recipe.model}` and stored in {dtype}."]
    lines += [
        f"- {'chosen' if n == 0 else 'not chosen'}: {d.base} base: logits differ from the adapter's by {d.max_logit_difference:.2g}, "
        f"KL {d.mean_kl:.2g} nats a position"
        for n, d in enumerate(divergences)
    ]
    return (run / "README.md").read_text(encoding="utf-8") + "\n" + "\n".join([lines[0], "", *lines[1:]]) + "\n"


def render(result: dict[str, Any]) -> str:
    """Return the result as lines for a terminal, the folder last."""
    lines = [
        f"{one['base']:12} logits differ by {one['max_logit_difference']:.2g}, KL {one['mean_kl']:.2g} nats a position"
        for one in result["divergences"]
    ]
    lines += [f"{'✓' if f['ok'] else '✗'} {f['check']:32} {f['detail']}" for f in result["findings"]]
    return "\n".join([*lines, result["folder"] or "nothing was written"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m starchat.merge FOLDER PROOF``: what the merge starts as its fresh process."""
    parser = argparse.ArgumentParser(prog="starchat.merge")
    parser.add_argument("folder", type=Path)
    parser.add_argument("proof", type=Path)
    options = parser.parse_args(argv)

    def work() -> int:
        with contextlib.redirect_stdout(sys.stderr):
            findings = prove(options.folder, options.proof)
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
        return 0

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
