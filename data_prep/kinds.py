"""The kinds of sources, and what each gives to the prepare stage.

A kind is a module with a function ``open_kind(mapping, place, setting) -> Opened``, imported when a spec names it. It reads its keys
strictly (`starchat.config.from_mapping`), finds its inputs, and returns without reading them; `Opened.items` yields one item for each
unit, in an order that depends on the input alone.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from data_prep.documents import Family, family_of
from data_prep.pool import default_workers
from data_prep.records import Item
from starchat.config import closest, from_mapping
from starchat.errors import UserError

Rules = TypeVar("Rules")

KINDS: Mapping[str, str] = {
    "dialogues": "data_prep.dialogues",
    "issues": "data_prep.issues",
    "commits": "data_prep.commits",
    "notebooks": "data_prep.notebooks",
    "source": "data_prep.source_code",
    "pulls": "data_prep.pulls",
}
"""Each kind and the module that opens it."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A source that is ready to be read: its resolved `spec` and what it depends on."""

    place: str
    format: str
    spec: Mapping[str, Any]
    inputs: list[dict[str, Any]]
    items: Callable[[], Iterator[Item]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all sources of a spec share: the tokenizer that documents are built for, the seed of every draw, the processes."""

    tokenizer: str = "nano"
    seed: int = 0
    workers: int = dataclasses.field(default_factory=default_workers)

    @functools.cached_property
    def family(self) -> Family:
        """The document tokens that the tokenizer has."""
        from starchat.hub import start_folder
        from starchat.tokens import control_names

        return family_of(control_names(start_folder(self.tokenizer)), self.tokenizer)


def open_kind(kind: str, mapping: Mapping[str, Any], place: str, setting: Setting) -> Opened:
    """Return a source of a kind in `KINDS`, ready to be read; raise `UserError` for every fault of its keys."""
    opened: Opened = importlib.import_module(KINDS[kind]).open_kind(mapping, place, setting)
    return opened


def preset_rules(kind: type[Rules], presets: Mapping[str, Mapping[str, Any]], default: str, given: Mapping[str, Any], place: str) -> Rules:
    """Return rules of a source: those of the preset that `given` names (else `default`), with the other keys of `given` set.

    A preset holds only what it turns on: every field of `kind` is off by itself. `place` names the key that holds the rules.
    """
    name = given.get("preset", default)
    if name not in presets:
        raise UserError(f"{place}.preset: {name!r}; {closest(str(name), presets)}")
    return from_mapping(kind, {**presets[name], **given, "preset": name}, place)
