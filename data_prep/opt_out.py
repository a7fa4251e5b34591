"""Curation by request: what people, organisations and repositories do not want to be trained on.

In: lists of requests. Out: `OptOuts`, which says of a source by which request it is taken out. An account takes out all of its
repositories, and the commits, issues and pull requests elsewhere that it had a part in; a repository takes out itself; a mail address the
commits that bear it. GitHub ignores case in names, and so does this. Files of a list:

- text: an account, a mail address, ``owner/repository`` or its address on each line; blank lines and ``# comments`` are skipped;
- JSONL with ``optout_owners`` and ``optout_repos``, as BigCode's opt-out repository keeps them (``data/optouts.jsonl``);
- an export of such a repository's issues (JSON, JSONL or Parquet of the REST or GraphQL API): the author asks, as
  `data_prep.opt_out_issues` reads it.

`former_names` is a text file with two names on each line, the former and the later one, of accounts or repositories. Names that are
so connected are one: a request for any of them takes out all. A name that somebody else has taken since is theirs; do not list it.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.compressed import COMPRESSIONS, open_bytes
from data_prep.drafts import RowProblem
from data_prep.github_names import address_name, name_of
from data_prep.opt_out_issues import names_asked
from data_prep.people import pseudonym
from data_prep.records import Dropped
from data_prep.remote_files import as_path, describe_input
from data_prep.sources import find_tables, read_table, table_files
from data_prep.threads import RawThread, issue_rows, read_thread
from starchat.config import from_mapping
from starchat.dialogue import Source
from starchat.errors import UserError

_WORD = re.compile(r"(?<![\w.+-])(?=([\w.+-]+(?:[/@][\w.-]+)?))")
NOT_REQUESTS = frozenset({"question"})
"""Labels by which issues of an opt-out repository are set apart."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A name that is taken out, in lower case, and where it was asked for."""

    name: str
    place: str


@dataclasses.dataclass(frozen=True, slots=True)
class OptOuts:
    """Requests by the names that they take out; `unread` are the places that named nothing and nobody, with what stands there."""

    requests: Mapping[str, Request]
    people: Mapping[str, Request] = dataclasses.field(default_factory=dict)
    unread: tuple[str, ...] = ()
    described: tuple[dict[str, Any], ...] = ()

    def match(self, source: Source) -> Request | None:
        """Return the request by which what came from a source is taken out, or None.

        >>> OptOuts({"ada": Request("ada", "list:1")}).match(Source("x", "Ada/engine")).place
        'list:1'
        """
        for person in source.people:
            if found := self.people.get(person):
                return found
        for repository in _repositories(source):
            owner = repository.partition("/")[0]
            if found := self.requests.get(repository) or self.requests.get(owner):
                return found
        return None

    def are_named_in(self, text: str) -> bool:
        """Return whether a text names anybody or anything that is taken out: what was dropped before tells no source, but its words."""
        words = {word.rstrip(".") for word in set(_WORD.findall(text.lower()))}
        asked = self.requests.keys()
        return not (asked.isdisjoint(words) and asked.isdisjoint(word.partition("/")[0] for word in words if "/" in word))


@dataclasses.dataclass(frozen=True)
class OptOutRules:
    """`lists` of requests; `former_names` connects names of one account or repository."""

    lists: tuple[str, ...]
    former_names: str | None = None


def open_opt_outs(mapping: Mapping[str, Any], place: str) -> OptOuts:
    """Return the requests that a spec names; raise `UserError` for a list that cannot be read."""
    rules = from_mapping(OptOutRules, mapping, place)
    if not rules.lists:
        raise UserError(f"{place}.lists: is empty; name at least one file of requests")
    found: dict[str, Request] = {}
    unread: list[str] = []
    described = []
    for path in rules.lists:
        for request in read_requests(path):
            if isinstance(request, Request):
                found.setdefault(request.name, request)
            else:
                unread.append(request)
        described += [describe_input(file) for file in _files(path)]
    if rules.former_names is not None:
        found = connected(found, read_former_names(rules.former_names))
        described.append(describe_input(rules.former_names))
    people = {pseudonym(name): request for name, request in found.items() if "/" not in name}
    return OptOuts(found, people, tuple(unread), tuple(described))


def read_requests(path: str) -> Iterator[Request | str]:
    """Yield the requests of a list, and the places of those that name nothing and nobody."""
    suffixes = Path(path).suffixes
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    if suffixes and suffixes[-1] in (".json", ".jsonl", ".ndjson", ".parquet"):
        yield from _of_tables(path)
        return
    for number, line in enumerate(_lines(path), 1):
        if entry := line.partition("#")[0].strip():
            yield Request(_required(entry, f"{path}:{number}"), f"{path}:{number}")


def read_former_names(path: str) -> list[tuple[str, str]]:
    """Return pairs of a former and a later name, in lower case."""
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        if not (entry := line.partition("#")[0].split()):
            continue
        place = f"{path}:{number}"
        names = [_required(name, place) for name in entry]
        if len(names) != 2 or ("/" in names[0]) != ("/" in names[1]):
            raise UserError(f"{place}: {line.strip()!r}; expected two accounts, or two repositories: the former name and the later one")
        pairs.append((names[0], names[1]))
    return pairs


def connected(requests: Mapping[str, Request], pairs: Sequence[tuple[str, str]]) -> dict[str, Request]:
    """Return requests for all names that are connected with those asked for; a renamed account takes the names of its repositories along.

    >>> sorted(connected({"b/x": Request("b/x", "list:1")}, [("a", "b"), ("a/x", "a/y")]))
    ['a/x', 'a/y', 'b/x', 'b/y']
    """
    neighbours = collections.defaultdict(set)
    for former, later in pairs:
        neighbours[former].add(later)
        neighbours[later].add(former)
    found = dict(requests)
    waiting = list(found.values())
    while waiting:
        request = waiting.pop()
        owner, slash, name = request.name.partition("/")
        names = set(neighbours.get(request.name, ()))
        names |= {f"{other}/{name}" for other in neighbours.get(owner, ())} if slash else set()
        for other in sorted(names - found.keys()):
            found[other] = Request(other, request.place)
            waiting.append(found[other])
    return found


def _of_tables(path: str) -> Iterator[Request | str]:
    for table in find_tables(path):
        for row in read_table(table):
            if isinstance(row, Dropped):
                raise UserError(f"{row.place}: {row.detail}; correct the list: no request may be lost")
            value = row.value
            if "optout_owners" in value or "optout_repos" in value:
                entries = [*(value.get("optout_owners") or ()), *(value.get("optout_repos") or ())]
                yield from (Request(_required(str(entry), row.place), row.place) for entry in entries)
                continue
            for issue, repository, _ in issue_rows(value):
                yield from _of_issue(issue, repository, row.place)


def _of_issue(issue: Any, repository: str | None, place: str) -> Iterator[Request | str]:
    try:
        if not isinstance(issue, dict):
            raise RowProblem("wrong_type", f"holds {type(issue).__name__}; expected an issue", True)
        thread = read_thread(place, issue, repository)
    except RowProblem as problem:
        raise UserError(f"{place}: {problem.detail}; correct the list: no request may be lost") from None
    if not isinstance(thread, RawThread) or thread.pull or NOT_REQUESTS & set(_labels(issue)):
        return
    asked = thread.happenings[0]
    if asked.person.login == "ghost":
        yield f"{thread.url or place}: its author is gone"
        return
    names, unread = names_asked(asked.person.login, asked.text)
    yield from (Request(name, thread.url or place) for name in names)
    yield from (f"{thread.url or place}: {entry!r} names no account or repository" for entry in unread)


def _labels(issue: Mapping[str, Any]) -> list[str]:
    labels = issue.get("labels")
    nodes = labels.get("nodes") if isinstance(labels, dict) else labels
    named = [label.get("name") if isinstance(label, dict) else label for label in nodes or ()] if isinstance(nodes, list) else []
    return [name.lower() for name in named if isinstance(name, str)]


def _required(entry: str, place: str) -> str:
    name = name_of(entry)
    if name is None:
        raise UserError(f"{place}: {entry!r} names no account or repository; expected a name, or owner/repository, without wildcards")
    return name


def _lines(path: str) -> list[str]:
    try:
        with open_bytes(as_path(path)) as file:
            return file.read().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a file with an account or owner/repository on each line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not valid UTF-8; save the list as UTF-8") from None


def _files(path: str) -> Iterable[Path]:
    suffixes = {".json", ".jsonl", ".ndjson", ".parquet"}
    if suffixes & set(Path(path).suffixes):
        return sorted({file for table in find_tables(path) for file in table_files(table)})
    return [Path(path)]


def is_in_reach(source: Source) -> bool:
    """Return whether a request of an owner, of a repository or of whoever took part could take out what came from a source.

    >>> is_in_reach(Source("chats.jsonl:1")), is_in_reach(Source("x", people=("6a5a6ed6e9734b85",)))
    (False, True)
    """
    return bool(source.people) or names_its_owner(source)


def names_its_owner(source: Source) -> bool:
    """Return whether a source tells whose it is, so that a request can find it.

    >>> names_its_owner(Source("x", "Ada/engine")), names_its_owner(Source("x", "engine"))
    (True, False)
    """
    return any("/" in name for name in _repositories(source))


def _repositories(source: Source) -> Iterator[str]:
    """Yield the repositories that a source names, in lower case: its own, and that of its address."""
    if source.repository:
        yield address_name(source.repository) or "/".join(re.split(r"[/:]", source.repository.lower().removesuffix(".git"))[-2:])
    if source.url and (name := address_name(source.url)):
        yield name
