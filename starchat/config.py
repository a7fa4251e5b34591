"""YAML into frozen dataclasses, strictly.

In: a YAML file and ``key=value`` overrides. Out: an instance of a dataclass whose fields are the allowed
keys. Unknown keys (with the closest match), missing keys and wrong types are collected and reported
together. Defaults live in the dataclasses and nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from starchat.errors import UserError

T = TypeVar("T")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raise `UserError` if there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a YAML file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, place: str) -> dict[str, Any]:
    """Return the mapping in a YAML text.

    >>> parse_yaml("learning_rate: 2e-4", "recipe.yaml")
    {'learning_rate': 0.0002}
    """
    import yaml

    try:
        value = yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date or a number and is none, such as 2026-13-45
        raise UserError(f"{place}: not valid YAML: {' '.join(str(error).split())}; correct it, or put texts in quotes") from None
    except RecursionError:
        raise UserError(f"{place}: nested too deeply; expected 'key: value' lines; see the recipes folder") from None
    if not isinstance(value, dict):
        raise UserError(f"{place}: expected 'key: value' lines, found {type(value).__name__}; see the recipes folder")
    return value


@functools.cache
def _loader() -> Any:
    """Return safe YAML that reads ``2e-4`` as a number and refuses a key given twice; workers, which read no YAML, do not load it."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping; expected a name", key.start_mark)
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789."))
    return Loader


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return `mapping` with dotted ``key=value`` overrides set; values are read as YAML.

    >>> apply_overrides({"trainer": {"max_steps": 5}}, ["trainer.max_steps=20", "model=nano"])
    {'trainer': {'max_steps': 20}, 'model': 'nano'}
    """
    result: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in mapping.items()}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"override {override!r}: expected key=value, such as trainer.max_steps=20")
        value = parse_yaml(f"value: {text}", f"override {override!r}")["value"]
        *parents, last = key.split(".")
        place = result
        for parent in parents:
            inner = place.get(parent)
            place[parent] = dict(inner) if isinstance(inner, dict) else {}
            place = place[parent]
        place[last] = value
    return result


def from_mapping(kind: type[T], mapping: Mapping[str, Any], place: str) -> T:
    """Return `kind` filled from `mapping`; raise one `UserError` that names every fault."""
    faults: list[str] = []
    result = _build(kind, mapping, "", faults)
    if faults:
        raise UserError("\n".join(f"{place}: {fault}" for fault in faults))
    return typing.cast(T, result)


def to_mapping(instance: Any) -> dict[str, Any]:
    """Return a dataclass instance as plain mappings and lists, ready for YAML or JSON."""
    return {k: _plain(v) for k, v in dataclasses.asdict(instance).items()}


def closest(word: str, words: Iterable[str]) -> str:
    """Return a hint that names the closest known word, or all of them if none is close.

    >>> closest("learning_rte", ["learning_rate", "max_steps"])
    "did you mean 'learning_rate'?"
    """
    import difflib

    known = sorted(words)
    match = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {match[0]!r}?" if match else f"expected one of {', '.join(known)}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _build(kind: Any, value: Any, key: str, faults: list[str]) -> Any:
    """Return `value` as the annotated type `kind`; append to `faults` where it does not fit."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, key, faults)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _build(next(a for a in args if a is not type(None)), value, key, faults)
    if origin is typing.Literal:
        if value not in args:
            faults.append(f"{key}: {value!r}; {closest(str(value), [str(a) for a in args])}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_build(args[0], v, f"{key}[{n}]", faults) for n, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        wrong = [k for k in value if not isinstance(k, str)]
        faults += [f"{key}: key {k!r} is of type {type(k).__name__}; expected a text; put it in quotes" for k in wrong]
        return {k: _build(args[1], v, f"{key}.{k}", faults) for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or kind
    if kind is not Any and (not isinstance(value, expected) or (isinstance(value, bool) and kind is not bool)):
        faults.append(f"{key}: {value!r} is of type {type(value).__name__}; expected {_name(kind)}")
    return value


def _build_dataclass(kind: Any, value: Any, key: str, faults: list[str]) -> Any:
    if not isinstance(value, Mapping):
        faults.append(f"{key}: {value!r}; expected keys {', '.join(f.name for f in dataclasses.fields(kind))}")
        return None
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    before = len(faults)
    made: dict[str, Any] = {}
    for name, item in value.items():
        inner = f"{key}.{name}" if key else str(name)
        if name not in fields:
            faults.append(f"unknown key {inner!r}; {closest(str(name), fields)}")
        else:
            made[name] = _build(hints[name], item, inner, faults)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            faults.append(f"key {(key + '.' if key else '') + name!r} is missing; it is required")
    return kind(**made) if len(faults) == before else None


def _name(kind: Any) -> str:
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", dict: "a mapping", tuple: "a list"}
    return names.get(typing.get_origin(kind) or kind, str(kind))
