"""The kinds of sources, and what each gives to the prepare stage.

A kind is a module with a function ``open_kind(mapping, place, setting) -> Opened``, imported when a spec names it. It reads its keys
strictly (`starchat.config.from_mapping`), finds its inputs, and returns without reading them. `Opened.pieces` cuts them, in an order and
of a size that depend on the input alone, into pieces of work for any process; together they give one item for each unit, in order.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from data_prep.documents import Family, family_of
from data_prep.pool import default_workers, run_tasks
from data_prep.record_texts import texts_of
from data_prep.records import Found, Item, Kept, settled
from starchat.config import closest, from_mapping
from starchat.errors import Faults, UserError

Keys = TypeVar("Keys")
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


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a source: ``function(argument)`` gives what is in it, in whatever process; `reads` names files that it reads there."""

    function: Callable[[Any], Iterable[Found]]
    argument: Any
    reads: tuple[str, ...] = ()


class Shop(Protocol):
    """Where a source has work done that its pieces build on, such as sorting all rows, which takes a pass of its own."""

    def run(self, name: str, function: Callable[[Path, Any], Any], arguments: Iterable[Any]) -> Iterator[tuple[Path, Any]]:
        """Yield what ``function(folder, argument)`` returns for each argument, in order, and where the files are that it wrote."""


@dataclasses.dataclass(frozen=True)
class LocalShop:
    """Work done by processes of this machine, in a folder that somebody else takes away."""

    folder: Path
    workers: int

    def run(self, name: str, function: Callable[[Path, Any], Any], arguments: Iterable[Any]) -> Iterator[tuple[Path, Any]]:
        """Yield what each argument gives, and its folder."""
        tasks = ((function, self.folder / f"{name}-{number:06d}", argument) for number, argument in enumerate(arguments))
        return run_tasks(_run_in_folder, tasks, self.workers)


def _run_in_folder(task: tuple[Callable[[Path, Any], Any], Path, Any]) -> tuple[Path, Any]:
    function, folder, argument = task
    shutil.rmtree(folder, ignore_errors=True)  # a worker may have died over it
    folder.mkdir()
    return folder, function(folder, argument)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A source that is ready to be read: its resolved `spec`, and its pieces, cut with the help of a shop.

    `inputs` says what it depends on, which may take as long as reading it. With `tells` the pieces say so themselves, by `Read`: all but
    the first of them, `known`.
    """

    place: str
    format: str
    spec: Mapping[str, Any]
    inputs: Callable[[], list[dict[str, Any]]]
    pieces: Callable[[Shop], Iterator[Piece]]
    workers: int
    tells: bool = False
    known: tuple[dict[str, Any], ...] = ()

    def items(self) -> Iterator[Item]:
        """Yield the items of the source, made by its workers."""
        with tempfile.TemporaryDirectory(prefix="starchat-source-") as folder:
            found = run_tasks(found_in, self.pieces(LocalShop(Path(folder), self.workers)), self.workers)
            yield from settled(itertools.chain.from_iterable(found))


def found_in(piece: Piece) -> list[Found]:
    """Return what is in a piece."""
    return list(piece.function(piece.argument))


BATCH_ITEMS, BATCH_CHARACTERS = 500, 4 << 20
"""How much of items that are made here goes to another process at a time."""


def pieces_of(items: Iterable[Item]) -> Iterator[Piece]:
    """Yield pieces of items that are made by this process, one behind the other."""
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += sum(map(len, texts_of(item.record))) if isinstance(item, Kept) else len(item.raw)
        if size >= BATCH_CHARACTERS or len(batch) == BATCH_ITEMS:
            yield Piece(as_they_are, tuple(batch))
            batch, size = [], 0
    if batch:
        yield Piece(as_they_are, tuple(batch))


def as_they_are(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Return items that were made before."""
    return items


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
        from starchat.tokenizer_file import control_names

        return family_of(control_names(start_folder(self.tokenizer)), self.tokenizer)


def open_kind(kind: str, mapping: Mapping[str, Any], place: str, setting: Setting) -> Opened:
    """Return a source of a kind in `KINDS`, ready to be read; raise `UserError` for every fault of its keys."""
    opened: Opened = importlib.import_module(KINDS[kind]).open_kind(mapping, place, setting)
    return opened


def spec_and_rules(
    kind: type[Keys], mapping: Mapping[str, Any], place: str, rules_of: Callable[[Mapping[str, Any], str], Rules]
) -> tuple[Keys, Rules]:
    """Return the keys of a source and what `rules_of` makes of its ``rules``; raise one `UserError` for the faults of both."""
    faults = Faults()
    spec = faults.get(from_mapping, kind, mapping, place)
    given = mapping.get("rules")
    rules = faults.get(rules_of, given if isinstance(given, Mapping) else {}, f"{place}: rules")
    faults.tell()
    assert spec is not None
    assert rules is not None
    return spec, rules


def preset_rules(kind: type[Rules], presets: Mapping[str, Mapping[str, Any]], default: str, given: Mapping[str, Any], place: str) -> Rules:
    """Return rules of a source: those of the preset that `given` names (else `default`), with the other keys of `given` set.

    A preset holds only what it turns on: every field of `kind` is off by itself. `place` names the key that holds the rules.
    """
    name = given.get("preset", default)
    if not isinstance(name, str) or name not in presets:
        raise UserError(f"{place}.preset: {name!r}; {closest(str(name), presets)}")
    return from_mapping(kind, {**presets[name], **given, "preset": name}, place)
