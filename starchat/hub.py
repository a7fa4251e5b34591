"""Where a model lies and what its configuration says, without loading it.

In: the name of a model in a recipe or on the command line. Out: its local folder. Imports no torch.
"""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from starchat.errors import UserError
from starchat.files import read_object


def resolve_model(name: str) -> Path:
    """Return the local folder of a model: the embedded base for ``nano``, a folder, or a downloaded Hub id."""
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
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja"]))
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
