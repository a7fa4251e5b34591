"""The document formats of StarCoder and StarCoder2, each with its parser.

In: a document as plain data. Out: the parts of a `Record`, control tokens by name, and the names of what the format cannot hold.
``parse_*(render_*(x).parts) == x`` where nothing is listed as lost; what is listed is gone on purpose. Parts may come from a record
or from token ids, where text without a token of its own belongs to the part in front: parsers read both.

Text is text: a file that spells ``<fim_middle>`` is encoded without that token (`starchat.tokens`), so nothing is escaped here.

The formats to the character: bigcode/starcoder and starcoder2's ``special_tokens_map.json``; bigcode-dataset
``add_content_with_meta.py`` and ``filtering_git_commits.ipynb``; StarCoder2's paper (arXiv 2402.19173), sections 5.1 to 5.3.
Pull requests: `data_prep.pull_documents`. Fill-in-the-middle, which is drawn anew in each run: `starchat.fim`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Sequence
from typing import Literal, NamedTuple

from starchat.dialogue import Part, merge_parts
from starchat.errors import UserError

STAR_BUCKETS = ("0", "1-10", "10-100", "100-1000", "1000+")
NO_OUTPUT = "<empty_output>"


class Rendered(NamedTuple):
    """A document's parts, and by name what of it they do not hold."""

    parts: tuple[Part, ...]
    losses: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Family:
    """The document tokens that a tokenizer has. `file` and `repository` are the names of the tokens before a path and a repository."""

    name: Literal["starcoder", "starcoder2"]
    tokenizer: str
    tokens: frozenset[str]

    @property
    def file(self) -> str:
        """The token before a path."""
        return "<filename>" if self.name == "starcoder" else "<file_sep>"

    @property
    def repository(self) -> str:
        """The token before a repository's name."""
        return "<reponame>" if self.name == "starcoder" else "<repo_name>"

    def require(self, *markers: str) -> None:
        """Raise `UserError` unless the tokenizer has all of these tokens: none is ever written as text."""
        absent = [marker for marker in markers if marker and marker not in self.tokens]
        if absent:
            raise UserError(
                f"tokenizer {self.tokenizer}: has no token {', '.join(absent)}, which this kind of document needs; "
                "build view: dialogue instead, or name a tokenizer that has it with the spec's key tokenizer"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class SourceFile:
    """A file with what is known of it; `stars` is one of `STAR_BUCKETS`, and known to StarCoder only."""

    text: str
    path: str | None = None
    repository: str | None = None
    stars: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Repository:
    """Files of one repository, each a path and its text, in the order in which they stand in the document."""

    name: str
    files: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """What happened in a thread: a ``post`` by somebody, or the thread was ``closed``."""

    kind: Literal["post", "closed"]
    author: str = ""
    text: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Thread:
    """An issue: the first post is its description."""

    title: str
    events: tuple[Event, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Commit:
    """A file before and after, whole or a window of it, and the message. In the diff view `after` is a unified diff of `before`."""

    before: str
    message: str
    after: str


class Cell(NamedTuple):
    """A notebook's cell: Markdown, or code with its output as text (None if it has none)."""

    kind: Literal["text", "code"]
    source: str
    output: str | None = None


def family_of(control: Container[str], tokenizer: str) -> Family:
    """Return the family of document tokens that a tokenizer has; `control` holds the names of its control tokens.

    >>> family_of({"<filename>", "<reponame>"}, "bigcode/starcoder").name
    'starcoder'
    """
    from data_prep.control_tokens import STARCODER_TOKENS

    found = frozenset(token for token in STARCODER_TOKENS if token in control)
    if {"<file_sep>", "<repo_name>"} <= found:
        return Family("starcoder2", tokenizer, found)
    if {"<filename>", "<reponame>"} <= found:
        return Family("starcoder", tokenizer, found)
    raise UserError(
        f"tokenizer {tokenizer}: has the document tokens neither of StarCoder (<filename>, <reponame>) nor of StarCoder2 "
        "(<file_sep>, <repo_name>); build view: dialogue instead, or name another with the spec's key tokenizer"
    )


def star_bucket(stars: int | None) -> str:
    """Return the bucket of a number of stars as StarCoder was trained with it.

    >>> star_bucket(None), star_bucket(10), star_bucket(11), star_bucket(1001)
    ('0', '1-10', '10-100', '1000+')
    """
    limits = (0, 10, 100, 1000)
    return next((bucket for limit, bucket in zip(limits, STAR_BUCKETS, strict=False) if (stars or 0) <= limit), STAR_BUCKETS[-1])


def render_source(file: SourceFile, family: Family) -> Rendered:
    """Return a file with its metadata in front. StarCoder2 knows a path only together with its repository, and no stars."""
    losses: list[str] = []
    path, repository = (None if text is None else one_line(text, "name_on_lines", losses) for text in (file.path, file.repository))
    if family.name == "starcoder":
        named = (("<reponame>", repository), ("<filename>", path), ("<gh_stars>", file.stars))
        lead = [Part(marker, text) for marker, text in named if text is not None]
        text = "\n" + file.text if lead else file.text
    else:
        losses += ["stars"] * (file.stars is not None)
        if (path is None) != (repository is None):
            losses.append("path_without_repository" if path is not None else "repository_without_path")
            path = repository = None
        lead = [Part("<repo_name>", repository)] if repository is not None else []
        lead.append(Part("<file_sep>", path or ""))
        text = file.text if path is None else "\n" + file.text
    family.require(*(part.marker for part in lead))
    return Rendered((*lead, Part("", text)), tuple(losses))


def parse_source(parts: Sequence[Part]) -> SourceFile:
    """Return the file of `render_source`."""
    merged = merge_parts(parts)
    if len(merged) == 1 and merged[0].marker in ("", "<file_sep>"):
        return SourceFile(merged[0].text)
    if not merged:
        return SourceFile("")
    found = {part.marker: part.text for part in merged}
    last = merged[-1]
    found[last.marker], _, text = last.text.partition("\n")
    path = found.get("<filename>", found.get("<file_sep>"))
    return SourceFile(text, path, found.get("<reponame>", found.get("<repo_name>")), found.get("<gh_stars>"))


def render_repository(repository: Repository, family: Family) -> Rendered:
    """Return the files of a repository one behind the other, as StarCoder2 read them; StarCoder's tokens serve as well."""
    losses: list[str] = []
    parts = [Part(family.repository, one_line(repository.name, "name_on_lines", losses))]
    for path, text in repository.files:
        parts += [Part(family.file, one_line(path, "name_on_lines", losses)), Part("", "\n" + text)]
    family.require(family.repository, family.file)
    return Rendered(tuple(parts), tuple(dict.fromkeys(losses)))


def parse_repository(parts: Sequence[Part]) -> Repository:
    """Return the repository of `render_repository`."""
    name, *files = merge_parts(parts)
    cut = [part.text.partition("\n") for part in files]
    return Repository(name.text, tuple((path, text) for path, _, text in cut))


def render_thread(thread: Thread, family: Family) -> Rendered:
    """Return an issue with its events in order; comments may follow the closing."""
    family.require("<issue_start>", "<issue_comment>", "<issue_closed>")
    losses: list[str] = []
    head, events = f"Title: {one_line(thread.title, 'title_on_lines', losses)}", thread.events
    if events and events[0].kind == "post":
        head, events = f"{head}\n{_said(events[0], losses)}", events[1:]
    parts = [Part("<issue_start>", head)]
    for event in events:
        parts.append(Part("<issue_comment>", _said(event, losses)) if event.kind == "post" else Part("<issue_closed>", ""))
    return Rendered(tuple(parts), tuple(dict.fromkeys(losses)))


def parse_thread(parts: Sequence[Part]) -> Thread:
    """Return the issue of `render_thread`."""
    first, *rest = merge_parts(parts)
    title, described, post = first.text.removeprefix("Title: ").partition("\n")
    events = [_heard(post)] if described else []
    events += [Event("closed") if part.marker == "<issue_closed>" else _heard(part.text) for part in rest]
    return Thread(title, tuple(events))


def _said(event: Event, losses: list[str]) -> str:
    return f"{speaker(event.author, losses)}: {event.text}"


def _heard(text: str) -> Event:
    author, _, said = text.partition(": ")
    return Event("post", author, said)


def render_commit(commit: Commit, family: Family) -> Rendered:
    """Return a commit as StarCoder read it. StarCoder2 has no tokens for it."""
    parts = (Part("<commit_before>", commit.before), Part("<commit_msg>", commit.message), Part("<commit_after>", commit.after))
    family.require(*(part.marker for part in parts))
    return Rendered(parts)


def parse_commit(parts: Sequence[Part]) -> Commit:
    """Return the commit of `render_commit`."""
    before, message, after = merge_parts(parts)
    return Commit(before.text, message.text, after.text)


def render_notebook(cells: Sequence[Cell], family: Family) -> Rendered:
    """Return a notebook as a chain of text, code and output, no newlines between; every cell keeps its place."""
    family.require("<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", NO_OUTPUT)
    parts = [Part("<jupyter_start>", "")]
    no_output = Part(NO_OUTPUT, "")
    loses = False
    for kind, source, output in cells:
        if kind == "text":
            parts.append(Part("<jupyter_text>", source))
            loses |= output is not None
            continue
        parts.append(Part("<jupyter_code>", source))
        parts.append(no_output if output is None else Part("<jupyter_output>", output))
    return Rendered(tuple(parts), ("text_cell_output",) * loses)


def parse_notebook(parts: Sequence[Part]) -> tuple[Cell, ...]:
    """Return the cells of `render_notebook`."""
    cells: list[Cell] = []
    for part in merge_parts(parts)[1:]:
        if part.marker == "<jupyter_output>":
            cells[-1] = cells[-1]._replace(output=part.text)
        elif part.marker != NO_OUTPUT:
            cells.append(Cell("text" if part.marker == "<jupyter_text>" else "code", part.text))
    return tuple(cells)


def render_script(cells: Sequence[Cell], family: Family, comment: str = "#") -> Rendered:
    """Return a notebook as a script, its Markdown as comments, in the percent format of jupytext and of editors.

    StarCoder read such scripts as code, StarCoder2 behind ``<jupyter_script>``. Outputs are lost. A line that would begin a cell, in
    a cell, gets a second space. `comment` begins a comment line of the notebook's language.
    """
    losses: list[str] = []
    mark = re.compile(rf"^{re.escape(comment)} %%(?=(?: \[markdown\])?$)", re.MULTILINE)
    lines = []
    for cell in cells:
        source = cell.source
        if cell.kind == "text":
            source = "\n".join(f"{comment} {line}" if line else comment for line in source.split("\n"))
        source, forged = mark.subn(f"{comment}  %%", source)
        losses += ["output"] * (cell.output is not None) + ["cell_mark"] * bool(forged)
        lines.append(f"{comment} %% [markdown]\n{source}\n" if cell.kind == "text" else f"{comment} %%\n{source}\n")
    marker = "<jupyter_script>" if family.name == "starcoder2" else ""
    family.require(marker)
    return Rendered((Part(marker, "\n".join(lines)),), tuple(dict.fromkeys(losses)))


def parse_script(parts: Sequence[Part], comment: str = "#") -> tuple[Cell, ...]:
    """Return the cells of `render_script`, without outputs."""
    cells = []
    text = "".join(part.text for part in parts)
    pieces = re.split(rf"^{re.escape(comment)} %%( \[markdown\])?\n", text, flags=re.MULTILINE)[1:]
    for number, (markdown, body) in enumerate(zip(pieces[::2], pieces[1::2], strict=True)):
        source = body[: -1 if 2 * number + 2 == len(pieces) else -2]
        if markdown:
            source = "\n".join(line.removeprefix(comment).removeprefix(" ") for line in source.split("\n"))
        cells.append(Cell("text" if markdown else "code", source))
    return tuple(cells)


def one_line(text: str, loss: str, losses: list[str]) -> str:
    """Return a text without line ends, which would end it in its format; append `loss` to `losses` if it had any.

    >>> one_line("a\\nb", "title_on_lines", [])
    'a b'
    """
    if "\n" not in text:
        return text
    losses.append(loss)
    return text.replace("\n", " ")


def speaker(name: str, losses: list[str]) -> str:
    """Return a name that ends at the first ``": "`` behind it; a name that holds one itself, or a line end, is changed and listed."""
    name = one_line(name, "speaker", losses)
    if ": " in name or name.endswith(":"):
        losses.append("speaker")
        name = name.replace(":", "")
    return name
