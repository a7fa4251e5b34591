"""Put a pretrained run into the package as the embedded base model, with its card.

    python benchmarks/embed_nano.py runs/nano-pretrain dataset-pretrain [target folder]

Writes weights in bfloat16 (half the size; loaded in float32), ``config.json``, ``generation_config.json`` and ``README.md``
with held-out bits per byte of the weights as they are shipped, and what it was trained on, ``sources.json``. The tokenizer is there
already, and what ``sources.json`` says of it is kept.
"""

from __future__ import annotations

import collections
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from starchat.files import read_manifest, sha256_file, write_json, write_text
from starchat.metrics import read_metrics
from starchat.model import load_base
from starchat.recipe import load_recipe
from starchat.rows import read_records
from starchat.score import Interval, bits_per_byte
from starchat.tokens import Tokens, load_tokens

TARGET = Path(__file__).parent.parent / "starchat" / "nano" / "model"


def main(run: Path, dataset: str, target: Path = TARGET) -> None:
    """Embed the model of `run`; measure it on the test split of `dataset`."""
    model = load_base(run / "model", torch.bfloat16)
    model.config.use_cache = True
    model.save_pretrained(target)
    (target / "model.safetensors").chmod(0o644)
    tokens = load_tokens(target, None)
    loaded = load_base(target, torch.float32).eval()
    recipe = load_recipe(run / "recipe.yaml") if (run / "recipe.yaml").is_file() else load_recipe("recipes/nano/pretrain.yaml")
    records = list(read_records(dataset, "test"))
    bits = bits_per_byte(loaded, tokens, records, recipe.max_length_tokens)
    if (run / "loss.png").is_file():
        shutil.copy(run / "loss.png", target / "loss.png")
    write_json(target / "sources.json", sources(target, dataset, tokens))
    write_text(target / "README.md", card(target, run, bits, len(records), sum(p.numel() for p in loaded.parameters())))
    print(f"{target}: {(target / 'model.safetensors').stat().st_size:,} bytes, {bits} bits per byte")


def sources(target: Path, dataset: str, tokens: Tokens) -> dict[str, Any]:
    """Return what the model was trained on: documents, bytes and tokens by split and distribution, and what was left out."""
    count: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    licences = {}
    for split in ("train", "test"):
        for record in read_records(dataset, split):
            place = record.source.repository
            text = "".join(part.text for part in record.parts)
            licences[place] = record.license
            for key in (place, split, "total"):
                count[key].update(documents=1, bytes=len(text.encode()), tokens=len(tokens.encode_texts([text])[0]))
    distributions = []
    for place in sorted(licences, key=str.lower):
        name, _, version = place.partition("==")
        distributions.append({"name": name, "version": version, "license": licences[place], **count[place]})
    manifest = read_manifest(dataset)
    assert manifest is not None, f"{dataset}: not finished"
    return {
        **{key: dict(count[key]) for key in ("total", "train", "test")},
        "dropped": manifest["counts"]["dropped"],
        "tokenizer": json.loads((target / "sources.json").read_text(encoding="utf-8"))["tokenizer"],
        "distributions": distributions,
    }


def card(target: Path, run: Path, bits: Interval, documents: int, parameters: int) -> str:
    """Return the card of the embedded model, every number of it read from files."""
    sources = json.loads((target / "sources.json").read_text(encoding="utf-8"))
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    last = [m for m in read_metrics(run) if "loss" in m][-1]
    licences = collections.Counter[str]()
    for entry in sources["distributions"]:
        licences[entry["license"]] += entry["bytes"]
    table = "\n".join(f"| {name} | {size / 1e6:.1f} MB |" for name, size in licences.most_common())
    weights = target / "model.safetensors"
    return f"""---
license: apache-2.0
tags: [code, starchat, gpt_bigcode]
pipeline_tag: text-generation
---

# nano

A StarCoder in miniature, so that every part of this toolkit can be run and tested on a laptop: the architecture (GPTBigCode, multi-query
attention, tied embeddings) and the special tokens of StarCoder at StarCoder's ids, and very little knowledge. It completes simple Python by
habit of form. It does not solve problems and must not be relied on.

| | |
|---|---|
| parameters | {parameters:,} ({config["n_layer"]} layers, width {config["n_embd"]}, {config["n_head"]} heads) |
| context | {config["n_positions"]:,} tokens |
| vocabulary | {config["vocab_size"]:,}, byte-level BPE, {sources["tokenizer"]["bytes_per_token_held_out_code"]} bytes a token on unseen code |
| weights | bfloat16, {weights.stat().st_size:,} bytes, SHA-256 `{sha256_file(weights)}` |
| pretraining | {int(last["step"]):,} steps, {last["epoch"] * sources["train"]["tokens"] / 1e6:.1f} million tokens seen, half of the documents permuted for fill-in-the-middle |
| last training loss | {last["loss"]:.3f} nats a token |
| held-out bits per byte | {bits} (95 % interval by bootstrap over {documents} files, {sources["test"]["bytes"] / 1e6:.2f} MB) |

Pretrained from nothing by this toolkit: `recipes/nano/pretrain_data.yaml`, then `recipes/nano/pretrain.yaml`, {last["seconds"] / 60:.0f} minutes on two
CPU cores that were shared with other work.

![loss](loss.png)

## What it was trained on

{sources["train"]["documents"]:,} Python files ({sources["train"]["bytes"] / 1e6:.1f} MB) of the standard library and of {len(sources["distributions"]) - 1} installed
distributions whose metadata state a permissive licence; {sources["test"]["documents"]} more are held out. Name, version, licence and size of each: `sources.json`.

| licence | text |
|---|---|
{table}

Left out, counted by reason: {", ".join(f"{name} {count:,}" for name, count in sources["dropped"].items())}. Near-duplicate files were not removed,
so the held-out figure is somewhat flattering; the tokenizer's training text included the held-out files and the demo dialogues.
"""


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:4]))
