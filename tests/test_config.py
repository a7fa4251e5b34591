"""YAML into dataclasses: every fault at once, the closest key offered, and never a traceback for any text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starchat.config import apply_overrides, closest, from_mapping, parse_yaml, read_yaml, to_mapping
from starchat.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    model: str
    steps: int = 3
    kind: Literal["sft", "pretrain"] = "sft"
    packing: bool = True
    inner: Inner | None = None
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)


def test_defaults_and_nesting() -> None:
    made = from_mapping(Outer, {"model": "nano", "inner": {"rate": 1, "names": ["a", "b"]}, "trainer": {"x": [1]}}, "r.yaml")
    assert made == Outer("nano", inner=Inner(1.0, ("a", "b")), trainer={"x": [1]})
    assert isinstance(made.inner, Inner)
    assert isinstance(made.inner.rate, float)
    assert from_mapping(Outer, to_mapping(made), "again") == made


def test_all_faults_at_once_with_the_closest_key() -> None:
    mapping = {"stps": 5, "steps": "many", "kind": "stf", "packing": 1, "inner": {"rte": 2}, "trainer": {7: 1}}
    with pytest.raises(UserError) as caught:
        from_mapping(Outer, mapping, "r.yaml")
    assert str(caught.value).splitlines() == [
        "r.yaml: unknown key 'stps'; did you mean 'steps'?",
        "r.yaml: steps: 'many' is of type str; expected a whole number",
        "r.yaml: kind: 'stf'; did you mean 'sft'?",
        "r.yaml: packing: 1 is of type int; expected true or false",
        "r.yaml: unknown key 'inner.rte'; did you mean 'rate'?",
        "r.yaml: trainer: key 7 is of type int; expected a text; put it in quotes",
        "r.yaml: key 'model' is missing; it is required",
    ]


def test_true_is_no_number_and_a_text_is_no_mapping() -> None:
    with pytest.raises(UserError, match="steps: True is of type bool; expected a whole number"):
        from_mapping(Outer, {"model": "m", "steps": True}, "r")
    with pytest.raises(UserError, match="inner: 'r=8'; expected keys rate, names"):
        from_mapping(Outer, {"model": "m", "inner": "r=8"}, "r")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2", "key 'a' is given twice"),
        ("a: [1", "not valid YAML"),
        ("", "expected 'key: value' lines, found NoneType"),
        ("- a", "found list"),
        ("a: 2026-13-45", "not valid YAML"),
        ("? [1, 2]\n: 3", "a key is a list or a mapping"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: \x07", "not valid YAML"),
        ("a: " + "[" * 5000, "r.yaml: n"),
    ],
)
def test_broken_yaml_is_one_message(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=r"^r\.yaml: ") as caught:
        parse_yaml(text, "r.yaml")
    assert expected in str(caught.value)


def test_numbers_in_scientific_notation() -> None:
    assert parse_yaml("{a: 2e-4, b: 1E3, c: -.5e+2, d: 1.5, e: 2e, f: e5}", "r") == {
        "a": 2e-4, "b": 1e3, "c": -50.0, "d": 1.5, "e": "2e", "f": "e5",
    }  # fmt: skip


@given(st.text(max_size=60))
def test_any_text_is_a_mapping_or_a_user_error(text: str) -> None:
    message, value = "r.yaml: ", {}
    try:
        value = parse_yaml(text, "r.yaml")
    except UserError as error:
        message = str(error)
    assert message.startswith("r.yaml: ")
    assert isinstance(value, dict)


keys = st.sampled_from([field.name for field in dataclasses.fields(Outer)]) | st.text(max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.text()


@given(st.dictionaries(keys, st.recursive(plain, lambda v: st.lists(v) | st.dictionaries(st.text(max_size=4), v), max_leaves=4)))
def test_any_mapping_is_an_outer_or_a_user_error(mapping: dict[str, Any]) -> None:
    message = "r.yaml: "
    try:
        from_mapping(Outer, {"model": "m", **mapping}, "r.yaml")
    except UserError as error:
        message = str(error)
    assert all(line.startswith("r.yaml: ") for line in message.split("\n"))


def test_overrides_reach_into_mappings_and_leave_the_input_alone() -> None:
    mapping = {"trainer": {"max_steps": 5}, "model": "a"}
    changed = apply_overrides(mapping, ["trainer.max_steps=20", "model=b", "lora.r=4", "output=x=y", "lora.names=[q, v]"])
    assert changed == {"trainer": {"max_steps": 20}, "model": "b", "lora": {"r": 4, "names": ["q", "v"]}, "output": "x=y"}
    assert mapping == {"trainer": {"max_steps": 5}, "model": "a"}


@pytest.mark.parametrize("override", ["max_steps", "=3", ""])
def test_override_without_key_or_value(override: str) -> None:
    with pytest.raises(UserError, match="expected key=value"):
        apply_overrides({}, [override])


def test_override_with_a_broken_value_names_itself() -> None:
    with pytest.raises(UserError, match="override 'a=\\[1'"):
        apply_overrides({}, ["a=[1"])


def test_closest_lists_all_where_none_is_near() -> None:
    assert closest("zzz", ["b", "a"]) == "expected one of a, b"


def test_reading_names_the_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"a: \xff")
    for path, expected in ((tmp_path / "no.yaml", "no such file"), (tmp_path, "is a folder"), (bad, "not UTF-8 at byte 3")):
        with pytest.raises(UserError, match=expected) as caught:
            read_yaml(path)
        assert str(caught.value).startswith(f"{path}: ")
