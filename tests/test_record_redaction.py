"""Whatever string of a record's row a secret stands in, it is gone from the row, and from the rows of what was dropped."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data_prep.record_redaction
from data_prep.curate import curate_item, open_curation
from data_prep.detect import Detector, Span
from data_prep.kinds import Setting
from data_prep.preferred import compared_text
from data_prep.record_redaction import RedactedRecord, redacted_record
from data_prep.record_texts import labels_of, texts_of, with_labels, with_texts
from data_prep.records import Dropped, Item, Kept
from data_prep.redact import SecretRules
from secret_cases import TOKENS, labelled_cases
from secret_negatives import BASE64, chars
from starchat.dialogue import Part, Record, Source, ToolCall, Turn, to_row

RNG = random.Random(8)
GITHUB, MAIL, LOGIN = TOKENS["github_token"][0](RNG), "carol@corp.io", "S3cr3tpw99"
PEM = "\n".join(("-----BEGIN RSA PRIVATE KEY-----", *(chars(RNG, BASE64, 64) for _ in range(4)), "-----END RSA PRIVATE KEY-----"))
SECRETS = [case.text[start:end] for case in labelled_cases(4)[::11] for start, end in case.spans]
PERSON = "Grace Hopper"


def tools(text: str) -> str:
    """Return the tools of a dialogue with a text in a description and in a default."""
    known = {"name": "send", "description": text, "parameters": {"type": "object", "properties": {"to": {"default": text}}}}
    return json.dumps([{"type": "function", "function": known}])


def record(fill: Any, document: bool) -> Record:
    """Return a record in which each string that a row may hold is what `fill` gives."""
    source = Source(fill(), fill(), fill(), fill(), fill(), 3, fill())
    if document:
        return Record(source, parts=(Part("<filename>", fill()), Part("", fill())), license=fill())
    call = ToolCall(fill(), json.dumps({"a": fill()}), fill())
    turns = (Turn("user", fill(), name=fill()), Turn("assistant", fill(), tool_calls=(call,)), Turn("tool", fill(), tool_call_id=fill()))
    return Record(source, turns, tools=tools(fill()), license=fill(), rejected=Turn("assistant", fill(), tool_calls=(call,)))


def strings(value: Any) -> list[str]:
    """Return all strings of a row."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in strings(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in strings(one)]
    return [value] if isinstance(value, str) else []


def test_every_string_of_a_row_is_put_back_where_it_was() -> None:
    """Texts and labels are together all strings of a row but ids, roles, markers and pseudonyms."""
    numbers = iter(range(100))
    for document in (False, True):
        made = record(lambda: f"string {next(numbers)}", document)
        assert with_labels(with_texts(made, texts_of(made)), labels_of(made)) == made
        seen = [*texts_of(made), *labels_of(made)]
        assert {text for text in strings(to_row(made)) if text.startswith("string ")} <= set(seen)
        changed = with_labels(with_texts(made, [text.upper() for text in texts_of(made)]), map(str.upper, labels_of(made)))
        assert not [text for text in strings(to_row(changed)) if "string " in text]


@settings(max_examples=60, deadline=None)
@given(
    st.booleans(),
    st.lists(st.sampled_from(["", "x", "mail ", "\n", *SECRETS]), min_size=14, max_size=14),
    st.sampled_from(("text", "tokens")),
)
def test_nothing_is_found_in_any_string_of_a_row(document: bool, pieces: list[str], style: str) -> None:
    fill = iter(pieces * 3)
    found = redacted_record(record(lambda: next(fill), document), SecretRules(style=style))
    assert isinstance(found, RedactedRecord)
    row = to_row(found.record)
    assert not [text for text in strings(row) if Detector().find(text)]
    if row["tools"] is not None:
        json.loads(row["tools"])


def test_secrets_of_tools_names_and_addresses_are_replaced() -> None:
    turns = (Turn("user", f"to {MAIL}", name=MAIL), Turn("assistant", "ok"))
    source = Source(f"{MAIL}/x:1", f"https://ada:{LOGIN}@h.io/o/r", f"{MAIL}/x", url=f"https://ada:{LOGIN}@h.io/x")
    found = redacted_record(Record(source, turns, tools=tools(f"mail {MAIL} with token {GITHUB}")), SecretRules())
    assert isinstance(found, RedactedRecord)
    row = json.dumps(to_row(found.record))
    assert not [secret for secret in (GITHUB, MAIL, LOGIN) if secret in row]
    assert found.record.turns[0].name == "user1@example.com" and found.record.source.url == "https://ada:REDACTED02@h.io/x"
    assert json.loads(found.record.tools or "")[0]["function"]["name"] == "send"


def test_dialogues_are_not_alike_by_their_tools() -> None:
    one = Record(Source("x"), (Turn("user", "q"), Turn("assistant", "a")), tools=tools("long " * 100))
    assert compared_text(one) == ("q", "a")


def after(item: Item, steps: dict[str, Any]) -> Item:
    """Return an item as the steps leave it."""
    return curate_item(item, open_curation(steps, "spec", Setting(workers=1)))[0]


@pytest.mark.parametrize("steps", [{"redact": ["email"], "drop": ["private_key"]}, {"redact": [], "drop": ["private_key", "email"]}])
def test_a_dropped_row_does_not_keep_what_it_was_dropped_for(steps: dict[str, Any]) -> None:
    one = Record(Source("x"), (Turn("user", MAIL), Turn("assistant", PEM)))
    found = after(Kept(one), {"redact": steps})
    assert isinstance(found, Dropped)
    assert PEM[40:90] not in found.raw and MAIL not in found.raw and json.loads(found.raw)["messages"][1]["role"] == "assistant"


def test_the_place_of_a_dropped_row_is_redacted_too() -> None:
    found = after(Dropped("broken", f"{MAIL}/x:1", f"at {MAIL}", f"of {MAIL}"), {"redact": {}})
    assert isinstance(found, Dropped)
    assert (found.place, found.detail, found.raw) == ("user1@example.com/x:1", "at user1@example.com", "of user1@example.com")


@dataclasses.dataclass(frozen=True)
class OnePerson:
    """Stands where a model of names is loaded: it marks one name."""

    def find(self, text: str, min_score: float = 0.0) -> list[Span]:
        """Return where the name is."""
        return [Span(at, at + len(PERSON), "person_name") for at in range(len(text)) if text.startswith(PERSON, at)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any model of names be the one that marks one name."""
    monkeypatch.setattr(data_prep.record_redaction, "_loaded", lambda model: OnePerson())


@pytest.mark.usefixtures("names")
def test_names_go_from_dropped_rows_and_from_texts_that_a_find_joins() -> None:
    one = Record(Source("x"), (Turn("user", f"by {PERSON}"), Turn("assistant", PEM)))
    found = after(Kept(one), {"redact": {"drop": ["private_key"], "names": "any"}})
    assert isinstance(found, Dropped)
    assert PERSON not in found.raw
    joined = (Turn("user", f"{PERSON}\0"), Turn("assistant", f"\n\0\n{MAIL}"))
    redacted = redacted_record(Record(Source("x"), joined), SecretRules(names="any"))
    assert isinstance(redacted, RedactedRecord)
    assert PERSON not in redacted.record.turns[0].content and MAIL not in redacted.record.turns[1].content
