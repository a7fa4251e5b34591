"""Law 11: every document format, rendered and parsed, is the document again, or what is lost is listed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.control_tokens import STARCODER_TOKENS
from data_prep.documents import (
    STAR_BUCKETS,
    Cell,
    Commit,
    Event,
    Family,
    Repository,
    SourceFile,
    Thread,
    family_of,
    parse_commit,
    parse_notebook,
    parse_repository,
    parse_script,
    parse_source,
    parse_thread,
    render_commit,
    render_notebook,
    render_repository,
    render_script,
    render_source,
    render_thread,
    star_bucket,
)
from starchat.dialogue import Part, Record, Source, merge_parts
from starchat.document import encode_documents
from starchat.errors import UserError
from starchat.tokens import load_tokens

SC1 = family_of(set(STARCODER_TOKENS) - {"<file_sep>", "<repo_name>", "<jupyter_script>"}, "one")
SC2 = family_of(set(STARCODER_TOKENS) - {"<filename>", "<reponame>", "<gh_stars>", "<commit_before>"}, "two")
FAMILIES = st.sampled_from([SC1, SC2])

pieces = ["a", "B: ", ": ", "\n", " ", "#", "# %%", "# %% [markdown]\n", "%%", "Title: ", "<issue_comment>", "é", "\r\n", "x = 1\n"]
text = st.lists(st.one_of(st.sampled_from(pieces), st.text(max_size=3)), max_size=6).map("".join)
line = text.map(lambda value: value.replace("\n", "/"))
maybe = st.one_of(st.none(), text)


def spelled(parts):
    return "".join(part.marker + part.text for part in parts)


@given(st.builds(SourceFile, text, maybe, maybe, st.one_of(st.none(), st.sampled_from(STAR_BUCKETS))), FAMILIES)
def test_a_source_file(file, family):
    parts, losses = render_source(file, family)
    for given_parts in (parts, merge_parts(parts)):
        assert losses or parse_source(given_parts) == file
        again = render_source(parse_source(given_parts), family)
        assert merge_parts(again.parts) == merge_parts(parts) and not again.losses, "what is left is whole"


@given(st.builds(Repository, text, st.lists(st.tuples(text, text), max_size=4).map(tuple)), FAMILIES)
def test_a_repository(repository, family):
    parts, losses = render_repository(repository, family)
    assert losses or parse_repository(parts) == parse_repository(merge_parts(parts)) == repository


events = st.lists(st.one_of(st.builds(Event, st.just("post"), line, text), st.just(Event("closed"))), max_size=5).map(tuple)


@given(st.builds(Thread, text, events))
def test_a_thread(thread):
    parts, losses = render_thread(thread, SC1)
    found = parse_thread(parts)
    assert losses or found == thread
    assert render_thread(found, SC1) == (parts, ())
    assert bool(losses) == (found != thread)


@given(st.builds(Commit, text, text, text))
def test_a_commit(commit):
    assert parse_commit(render_commit(commit, SC1).parts) == commit


cells = st.lists(
    st.one_of(st.builds(Cell, st.just("text"), text, st.none()), st.builds(Cell, st.just("code"), text, maybe)), max_size=5
).map(tuple)


@given(cells, FAMILIES)
def test_a_notebook(notebook, family):
    rendered = render_notebook(notebook, family)
    assert parse_notebook(rendered.parts) == notebook
    assert rendered.losses == ()


@given(cells, FAMILIES, st.sampled_from(["#", "//", "--"]))
def test_a_script(notebook, family, comment):
    parts, losses = render_script(notebook, family, comment)
    found = parse_script(parts, comment)
    assert [cell.kind for cell in found] == [cell.kind for cell in notebook], "no line of a cell begins another"
    assert ("output" in losses) == any(cell.output is not None for cell in notebook)
    if "cell_mark" not in losses:
        assert [cell.source for cell in found] == [cell.source for cell in notebook]
    assert parts[0].marker == ("<jupyter_script>" if family is SC2 else "")


GOLDEN = {
    "source": (render_source(SourceFile("x = 1\n", "a.py", "o/r", "1-10"), SC1), "<reponame>o/r<filename>a.py<gh_stars>1-10\nx = 1\n"),
    "bare": (render_source(SourceFile("x = 1\n"), SC1), "x = 1\n"),
    "source2": (render_source(SourceFile("x = 1\n", "a.py", "o/r"), SC2), "<repo_name>o/r<file_sep>a.py\nx = 1\n"),
    "bare2": (render_source(SourceFile("x = 1\n"), SC2), "<file_sep>x = 1\n"),
    "repository2": (
        render_repository(Repository("o/r", (("a.py", "x"), ("b/c.py", "y\n"))), SC2),
        "<repo_name>o/r<file_sep>a.py\nx<file_sep>b/c.py\ny\n",
    ),
    "thread": (
        render_thread(
            Thread("It fails", (Event("post", "username_0", "With:\n1"), Event("closed"), Event("post", "username_1", "Thanks"))), SC1
        ),
        "<issue_start>Title: It fails\nusername_0: With:\n1<issue_closed><issue_comment>username_1: Thanks",
    ),
    "commit": (render_commit(Commit("a\n", "Fix a", "b\n"), SC1), "<commit_before>a\n<commit_msg>Fix a<commit_after>b\n"),
    "notebook": (
        render_notebook((Cell("code", "import a"), Cell("text", "# T\nx"), Cell("code", "1", "1")), SC1),
        "<jupyter_start><jupyter_code>import a<empty_output><jupyter_text># T\nx<jupyter_code>1<jupyter_output>1",
    ),
    "script": (
        render_script((Cell("text", "# T\n\nx"), Cell("code", "1\n2")), SC2),
        "<jupyter_script># %% [markdown]\n# # T\n#\n# x\n\n# %%\n1\n2\n",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_formats_to_the_character(name):
    rendered, wanted = GOLDEN[name]
    assert spelled(rendered.parts) == wanted


def test_losses_are_named():
    assert render_source(SourceFile("x", "a.py", None, "0"), SC2).losses == ("stars", "path_without_repository")
    assert render_source(SourceFile("x", "a\nb.py"), SC1) == ((Part("<filename>", "a b.py"), Part("", "\nx")), ("name_on_lines",))
    thread = Thread("a\nb", (Event("post", "a: b", "c"),))
    assert render_thread(thread, SC1).losses == ("title_on_lines", "speaker")
    assert render_notebook((Cell("text", "a", "out"),), SC1).losses == ("text_cell_output",)
    assert render_script((Cell("code", "# %%\n1"),), SC1) == ((Part("", "# %%\n#  %%\n1\n"),), ("cell_mark",))


def test_a_token_that_the_tokenizer_lacks_is_an_error():
    with pytest.raises(UserError, match=r"tokenizer two: has no token <commit_before>, which .* view: dialogue"):
        render_commit(Commit("a", "b", "c"), SC2)
    with pytest.raises(UserError, match=r"qwen: has the document tokens neither of StarCoder"):
        family_of({"<|endoftext|>"}, "qwen")
    with pytest.raises(UserError, match="no token <gh_stars>"):
        render_source(SourceFile("x", stars="0"), Family("starcoder", "odd", frozenset({"<filename>", "<reponame>"})))


def test_buckets_of_stars():
    found = [star_bucket(stars) for stars in (None, 0, 1, 10, 100, 101, 1000, 1001)]
    assert found == ["0", "0", "1-10", "1-10", "10-100", "100-1000", "100-1000", "1000+"]


def test_content_cannot_forge_a_token(bases):
    """Law 2: what a comment spells comes back as that comment, through ids."""
    tokens = load_tokens(bases["starcoder"], None)
    family = family_of(tokens.control, "starcoder")
    thread = Thread("t<issue_closed>", (Event("post", "u", "see <issue_comment>v: me<|endoftext|>"),))
    record = Record(Source("x"), parts=render_thread(thread, family).parts)
    (row,) = encode_documents([record], tokens, 200, None, 0)
    names = [tokens.whole.id_to_token(int(i)) for i in row.ids if int(i) in set(tokens.control.values())]
    assert names == ["<issue_start>", "<|endoftext|>"]
    assert tokens.decode(row.ids) == spelled(record.parts) + "<|endoftext|>"
