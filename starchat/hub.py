"""Where a model lies and what its configuration says, without loading it.

In: the name of a model in a recipe or on the command line. Out: its local folder. Imports no torch.
"""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from starchat.errors import UserError
from starchat.files import read_object


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
