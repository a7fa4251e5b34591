"""The model card of a run, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from starchat.recipe import Recipe, resolved

TITLES = {"pretrain": "Pretraining", "cpt": "Continued pretraining", "sft": "Fine-tune", "dpo": "Preference tuning (DPO)"}


def render_card(
    recipe: Recipe, training: Mapping[str, Any], data: Mapping[str, Any], verified: Mapping[str, Any], packages: Mapping[str, str]
) -> str:
    """Return the card as Markdown with the YAML head that model hubs read."""
    tags = ["code", "starchat", recipe.kind, *(["lora"] if recipe.lora else [])]
    head: dict[str, Any] = {"tags": tags, "pipeline_tag": "text-generation"}
    if recipe.model.count("/") == 1 and not Path(recipe.model).exists():  # a Hub id
        head["base_model"] = recipe.model
    method = _method(recipe)
    numbers = {k.replace("_", " "): v for k, v in data.items() if isinstance(v, int) and not isinstance(v, bool)}
    loss = "not logged" if training["final_loss"] is None else f"{training['final_loss']:.4f}"
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {recipe.output.rstrip('/').split('/')[-1]}",
        "",
        f"{TITLES[recipe.kind]} of `{recipe.model}` on `{recipe.dataset}` ({method}).",
        "",
        "| | |",
        "|---|---|",
        f"| template | `{recipe.template}` |" if recipe.of_dialogues else "| objective | next token, fill-in-the-middle |",
        f"| parameters | {training['parameters']:,}, of which trained {training['trained_parameters']:,} |",
        f"| steps, seconds | {training['steps']:,}, {training['seconds']:.0f} |",
        f"| engine | {training['engine']} |",
        f"| last logged loss | {loss}{'' if recipe.of_pairs else ' nats per trained token'} |",
        *_preferences(recipe, training.get("preferences", {})),
        *(f"| {name} | {value:,} |" for name, value in numbers.items()),
        *_resumed(training.get("resumed", ())),
        *_speed(training.get("speed", {})),
        *_infilling(training.get("infilling", {})),
        "",
        "## Reload gate",
        "",
        *(f"- {'ok' if f['ok'] else 'FAULT'}: {f['check']}: {f['detail']}" for f in verified.get("findings", ())),
        "",
        "## Recipe",
        "",
        "```yaml",
        yaml.safe_dump(dict(resolved(recipe)), sort_keys=False, allow_unicode=True).strip(),
        "```",
        "",
        "Made with " + ", ".join(f"{name} {version}" for name, version in packages.items()) + ".",
        "",
    ]
    return "\n".join(lines)


def _method(recipe: Recipe) -> str:
    """Return what was trained, in the field's words."""
    if recipe.lora is None:
        return "all weights"
    name = f"{'Q' if recipe.quantization else ''}{'DoRA' if recipe.lora.dora else 'LoRA'}"
    return f"{name}{' (rank-stabilised)' if recipe.lora.rslora else ''}, rank {recipe.lora.r}"


def _resumed(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the row that says at which steps the run was gone on with after a stop."""
    return [f"| stopped and gone on with, from step | {', '.join(str(entry['step']) for entry in entries)} |"] if entries else []


def _speed(found: Mapping[str, float]) -> list[str]:
    """Return the rows that say how fast it went, what it took, and where the time went; see `starchat.telemetry`."""
    if not found:
        return []
    rate = f"{found['tokens_per_second']:,.0f} tokens/s, of which trained {found['trained_tokens_per_second']:,.0f}"
    use = f"MFU {found['mfu']:.1%}" if "mfu" in found else f"{found['model_tflops_per_second']:.3f} model TFLOP/s, no peak is known"
    spent = {name.removeprefix("time_"): share for name, share in found.items() if name.startswith("time_")}
    return [
        f"| speed | {rate}; {use} |",
        f"| memory, largest process | {found['memory_peak_bytes'] / 1e9:.2f} GB |",
        f"| time | {', '.join(f'{name} {share:.1%}' for name, share in spent.items())} |",
    ]


def _preferences(recipe: Recipe, found: Mapping[str, Any]) -> list[str]:
    """Return the rows that say what the model was held to, and how far it went from there."""
    if not found:
        return []
    rows = [
        f"| reference | {recipe.model} as it was before the first step{', with its adapter' if recipe.lora else ''} |",
        f"| beta, loss | {found['beta']:g}, {' + '.join(found['losses'])} (log 2 = 0.6931 where nothing is learned) |",
    ]
    if {"first", "last"} <= set(found):
        first, last = found["first"], found["last"]
        steps = f"at step {first['step']:,}, {{}} at step {last['step']:,}"
        rows.append(f"| reward margin of chosen over rejected | {first['margin']:.3f} {steps.format(format(last['margin'], '.3f'))} |")
        rows.append(f"| pairs with the chosen answer ahead | {first['accuracy']:.0%} {steps.format(format(last['accuracy'], '.0%'))} |")
    return rows


def _infilling(found: Mapping[str, Any]) -> list[str]:
    """Return the rows that say what training did to filling in the middle."""
    if not {"before", "after"} <= set(found):
        return []
    before, after = found["before"], found["after"]
    change = [f"{before[key]['value']:.3f} before, {after[key]['value']:.3f} after" for key in ("loss", "exact_match")]
    return [
        f"| infilling {after['spans']} held-out spans, nats per token | {change[0]} |",
        f"| infilling, exactly matched | {change[1]} |",
    ]
