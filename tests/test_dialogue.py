"""Records: their ids, and rows as they are written and read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from starchat.dialogue import Part, Record, Source, ToolCall, Turn, from_row, to_row
from starchat.files import digest_json

TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)
TURNS = st.builds(
    Turn,
    st.sampled_from(("user", "assistant")),
    TEXTS,
    st.booleans(),
    st.none() | TEXTS,
    st.lists(st.builds(ToolCall, TEXTS, TEXTS, st.none() | TEXTS), max_size=2).map(tuple),
    st.none() | TEXTS,
)


@given(st.lists(TURNS, max_size=3), st.lists(st.builds(Part, TEXTS, TEXTS), max_size=3), st.none() | TEXTS, st.none() | TURNS)
def test_an_id_is_the_digest_of_the_json(turns: list[Turn], parts: list[Part], tools: str | None, rejected: Turn | None) -> None:
    """However it is computed, with halves of characters and all: ids of earlier datasets are those of today."""
    record = Record(Source("x"), tuple(turns), tuple(parts), tools, rejected=rejected)

    def plain(several: list[Turn]) -> list[object]:
        return [[t.role, t.content, t.train, t.name, [[c.name, c.arguments, c.id] for c in t.tool_calls], t.tool_call_id] for t in several]

    value = [plain(turns), [[part.marker, part.text] for part in parts], tools]
    assert record.id == digest_json([*value, plain([rejected])] if rejected else value)


def test_the_id_is_of_the_content_alone() -> None:
    """Source, licence, split and copy do not enter; a changed text does."""
    one = Record(Source("x"), parts=(Part("", "a"),))
    assert one.id == Record(Source("y", stars=3), parts=(Part("", "a"),), license="MIT", split="test", copy=2).id
    assert one.id != Record(Source("x"), parts=(Part("", "b"),)).id


def test_rows_of_earlier_versions_are_read() -> None:
    """Columns that came later are absent or null there."""
    record = Record(Source("x", "o/r", stars=1, date="2026-01-01", people=("a",)), parts=(Part("", "a"),))
    assert from_row(to_row(record)) == record
    row = to_row(Record(Source("x", "o/r"), parts=(Part("", "a"),)))
    row["source"] = {key: row["source"][key] for key in ("place", "repository", "path", "commit", "url")}
    del row["rejected"]
    assert from_row(row) == Record(Source("x", "o/r"), parts=(Part("", "a"),))
    row["source"] |= {"stars": None, "date": None, "people": None}
    assert from_row(row).source == Source("x", "o/r")
