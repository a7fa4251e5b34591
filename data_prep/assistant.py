"""From a repository to an assistant: the spec with every builder that applies, its dataset, and a recipe to train.

In: a git clone, bare repository or folder, perhaps a file of issues. Out: ``data.yaml``, ``dataset/`` and ``recipe.yaml`` in one folder.
Both files are as a person would write them, to be changed and run again with ``starchat prepare`` and ``starchat train``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from data_prep import git
from data_prep.kinds import Setting, open_kind
from data_prep.languages import language_of, type_of
from data_prep.prepare import prepare, summary
from starchat.errors import UserError
from starchat.files import write_text

MAX_LENGTH_TOKENS = 2048
ADMITTED_SET_ASIDE = 0.01
_PLAIN = re.compile(r"[A-Za-z./][\w./-]*")
COMMIT_RULES = {"max_files": 3, "min_subject_words": 3, "names_file": False}
"""What differs from the preset of dialogues. That was made to choose among all of GitHub: of one repository it keeps one in a hundred."""

SIMPLE = ("kind", "path", "view", "license")


def make_assistant(
    repository: str, issues: str | None, output: str, model: str = "nano", overwrite: bool = False, workers: int | None = None
) -> dict[str, Any]:
    """Write spec, dataset and recipe, and return their places with the dataset's manifest.

    Raises `UserError` where nothing can be built, or where the folder holds another spec or recipe and `overwrite` is false.
    """
    folder = Path(output)
    sources = list(find_sources(repository, issues, model))
    length = _length(model)  # before the work, as it raises for a model that is not there
    spec = folder / "data.yaml"
    _place(spec, render_spec(sources, folder / "dataset", repository, model), overwrite)
    manifest = prepare(spec, overwrite=overwrite, workers=workers)
    recipe = folder / "recipe.yaml"
    _place(recipe, render_recipe(folder, model, length, any(s["view"] == "document" for s in sources)), overwrite)
    return {"folder": str(folder), "spec": str(spec), "recipe": str(recipe), "manifest": manifest}


def render_text(result: Mapping[str, Any]) -> str:
    """Return what was made as text for a terminal."""
    return f"{summary(result['manifest'])}\n{result['spec']}\n{result['recipe']}\nnext: starchat train {result['recipe']}"


def find_sources(repository: str, issues: str | None, model: str) -> Iterator[dict[str, Any]]:
    """Yield the source of each builder that has something to read: dialogues first, then documents if the tokenizer has their tokens."""
    names = _names(repository)
    kinds: list[dict[str, Any]] = (
        [{"kind": "source", "path": repository}] if any(type_of(language_of(name)) == "programming" for name in names) else []
    )
    if any(name.endswith(".ipynb") for name in names):
        kinds.append({"kind": "notebooks", "path": repository})
    if git.is_repository(repository):
        kinds.append({"kind": "commits", "path": repository, "rules": COMMIT_RULES})
    if issues is not None:
        kinds += _of_issues(issues, repository)
    if not kinds:
        raise UserError(f"{repository}: no source files, notebooks or commits to learn from; give a repository, or a folder of code")
    for view in ("dialogue", "document"):
        if view == "document" and not _has_documents(model):
            return
        for kind in kinds:
            if view == "document" and kind["kind"] != "source":
                continue
            yield {**kind, "view": view}


def _names(repository: str) -> list[str]:
    """Return the names of a repository's files at HEAD, or of those below a folder."""
    if git.is_repository(repository):
        commit = git.resolve(repository)
        if commit is None:
            raise UserError(f"{repository}: a repository without commits; give one with a history")
        return [entry.path for entry in git.read_tree(repository, commit)]
    root = Path(repository)
    if not root.is_dir():
        raise UserError(f"{repository}: no such folder; give the path of a clone, a bare repository or a folder of code")
    return [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]


def _of_issues(issues: str, repository: str) -> Iterator[dict[str, Any]]:
    """Yield the kinds that read a file of issues: such exports often hold pull requests as well."""
    refused = []
    clone = {"clone": repository} if git.is_repository(repository) else {}
    for kind, keys in (("issues", {}), ("pulls", clone)):
        mapping = {"kind": kind, "path": issues, **keys}
        try:
            open_kind(kind, {**mapping, "view": "dialogue"}, "--issues", Setting(workers=1))
        except UserError as error:
            refused.append(error)
        else:
            yield mapping
    if len(refused) == 2:
        raise refused[0]


def _has_documents(model: str) -> bool:
    try:
        return bool(Setting(model).family)
    except UserError:
        return False


def render_spec(sources: Sequence[Mapping[str, Any]], dataset: Path, repository: str, model: str) -> str:
    """Return the text of ``data.yaml``."""
    lines = [f"# What {repository} gives to an assistant:  starchat prepare {dataset.parent / 'data.yaml'}", "sources:"]
    for source in sources:
        keys = [*(key for key in SIMPLE if key in source), *(key for key in source if key not in SIMPLE)]
        lines.append("  - {" + ", ".join(f"{key}: {_yaml(source[key])}" for key in keys) + "}")
    lines += [f"tokenizer: {_yaml(model)}", f"output: {_yaml(str(dataset) + '/')}", ""]
    return "\n".join(lines)


def render_recipe(folder: Path, model: str, length: int, replays: bool) -> str:
    """Return the text of ``recipe.yaml``: LoRA, at a length that the model has, with the share that is too long for it stated."""
    lost, whole = _set_aside(folder, model, length)
    admitted = max(ADMITTED_SET_ASIDE, math.ceil(100 * lost / whole) / 100 if whole else 0.0)
    rate = "3.0e-3" if model == "nano" else "2.0e-4"
    lines = [
        f"# LoRA on {model}:  starchat check {folder / 'recipe.yaml'} && starchat train {folder / 'recipe.yaml'}",
        "kind: sft",
        f"model: {_yaml(model)}",
        f"dataset: {_yaml(str(folder / 'dataset') + '/')}",
        "template: starchat",
        f"max_length_tokens: {length}",
        f"max_set_aside_fraction: {admitted:g}    # {lost:,} of {whole:,} trained tokens lie in exchanges longer than that",
        *(["fim: {rate: 0.5}                # the documents are trained beside the dialogues, half of them to be filled in"] * replays),
        "lora: {r: 64, alpha: 64}" if model == "nano" else "lora: {r: 16, alpha: 32}",
        *(["min_stop_rate: 0.2"] * (model == "nano")),
        f"output: {_yaml(str(folder / 'run'))}",
        "trainer:",
        f"  learning_rate: {rate}",
        "  lr_scheduler_type: cosine",
        "  warmup_steps: 0.05",
        "  num_train_epochs: 2",
        "  per_device_train_batch_size: 2",
        "  logging_steps: 5",
        '  save_strategy: "no"' if model == "nano" else "  save_steps: 200",
        "",
    ]
    return "\n".join(lines)


def _length(model: str) -> int:
    from starchat.hub import base_folder, context_length, read_config

    return min(context_length(read_config(base_folder(model, weights=False))) or MAX_LENGTH_TOKENS, MAX_LENGTH_TOKENS)


def _set_aside(folder: Path, model: str, length: int) -> tuple[int, int]:
    """Return how many trained tokens of the dialogues lie in exchanges of more than `length` tokens, and how many there are."""
    from starchat.encode import SetAside, encode_dialogues
    from starchat.hub import start_folder
    from starchat.rows import read_records
    from starchat.template import find_template
    from starchat.tokens import load_tokens

    tokens = load_tokens(start_folder(model, weights=False), find_template("starchat"))
    lost = whole = 0
    for split in ("train", "test"):
        dialogues = (record for record in read_records(str(folder / "dataset"), split) if record.kind == "dialogue")
        for item in encode_dialogues(dialogues, tokens, length):
            trained = item.trained_tokens if isinstance(item, SetAside) else int(item.trained.sum())
            lost += trained if isinstance(item, SetAside) else 0
            whole += trained
    return lost, whole


def _yaml(value: Any) -> str:
    """Return a value as it may stand in a YAML line: JSON is YAML, and names that need no quotes get none."""
    plain = isinstance(value, str) and _PLAIN.fullmatch(value) and yaml.safe_load(value) == value  # ``on`` is a name, and is true
    return value if plain else json.dumps(value, ensure_ascii=False)


def _place(path: Path, text: str, overwrite: bool) -> None:
    """Write a file whole; one that is there already must be the same, or be allowed to go."""
    if path.exists() and not overwrite and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path}: is not what would be written; run it as it is, choose another --output, or pass --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
