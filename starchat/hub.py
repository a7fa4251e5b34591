"""Where a model lies and what its configuration says, without loading it.

In: the name of a model in a recipe or on the command line. Out: its local folder. Imports no torch.
"""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from starchat.config import read_yaml
from starchat.errors import UserError
from starchat.files import read_manifest, read_object


def resolve_model(name: str, weights: bool = True) -> Path:
    """Return the local folder of a model: the embedded base for ``nano``, a folder, or a downloaded Hub id, perhaps without its weights."""
    if name == "nano":
        return Path(str(package_files("starchat"))) / "nano" / "model"
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"model: {name!r}: no such folder; give nano, the folder of a model, or a Hub id such as bigcode/starcoder2-3b")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.jinja", *(["*.safetensors"] if weights else [])]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        what = " ".join(str(error).split())[:200]
        raise UserError(f"model: {name!r}: neither a folder nor a Hub model that can be fetched ({what})") from None


def finished_run(name: str) -> Path | None:
    """Return the folder of a run of ``starchat train`` that `name` means, or None; raise `UserError` if the run is not finished."""
    run = Path(name)
    if not (run / "recipe.yaml").is_file() or (run / "config.json").is_file():
        return None
    if (read_manifest(run) or {}).get("stage") != "train":
        raise UserError(f"model: {name}: a run that did not finish (it has no manifest.json); finish it with starchat train")
    return run


def run_with_adapter(name: str) -> Path | None:
    """Return the folder of the run that `name` means if what it saved is an adapter, else None."""
    run = Path(name)
    return run if (run / "recipe.yaml").is_file() and (run / "adapter").is_dir() else None


def base_name(name: str) -> str:
    """Return the model whose whole weights are behind a recipe's ``model``: of a run that saved an adapter, its own base."""
    run = run_with_adapter(name)
    return base_name(str(read_yaml(run / "recipe.yaml")["model"])) if run else name


def start_folder(name: str, weights: bool = True) -> Path:
    """Return the folder that a recipe's ``model`` begins with: a model and its tokenizer, or a finished run's adapter and its tokenizer."""
    run = finished_run(name)
    if run is None:
        return resolve_model(name, weights)
    return run / "adapter" if run_with_adapter(name) else run / "model"


def base_folder(name: str, weights: bool = True) -> Path:
    """Return the folder of the whole weights behind a recipe's ``model``; of a Hub id, perhaps without them."""
    return start_folder(base_name(name), weights)


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model's ``config.json``."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: has no config.json; give the folder of a model in the transformers layout")
    return read_object(path, "a model's configuration", "fetch the model again")


def context_length(config: dict[str, Any]) -> int | None:
    """Return the longest context in tokens that a model's configuration states, or None if it states none.

    >>> context_length({"model_type": "gpt_bigcode", "n_positions": 1024})
    1024
    """
    values = [config[key] for key in ("n_positions", "max_position_embeddings") if isinstance(config.get(key), int)]
    return min(values) if values else None


def require_loadable(folder: Path) -> None:
    """Raise `UserError` unless a folder has weights of an architecture that transformers itself knows."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and "auto_map" in config:
        raise UserError(f"{folder}: the model needs its own code to run, which is never run here; use a model that transformers knows")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(f"{folder}/config.json: model_type {kind!r}; expected a causal language model of transformers, such as gpt_bigcode")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: no *.safetensors weights; fetch the model again, or convert its weights to safetensors")
