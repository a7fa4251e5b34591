"""Events as threads: GHArchive's hours, whose lines are of all repositories, and the rows of BigCode's dataset of issues.

A line of an hour becomes a `Sighting`: what it tells of one thread, and where it stood. `assembled` makes threads of the sightings of a
thread, in whatever order they come and however often. Both generations of events are read: before 2015 the actor is a name and the
payload holds numbers only; since then there are objects, of which later years leave out keys. A thread whose ``opened`` is not in the
input is begun with the issue that its other events carry. Lines of other events are only looked at for their ends.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

from data_prep.drafts import RowProblem, wrong_type
from data_prep.people import GHOST, Person
from data_prep.sources import parse_json
from data_prep.threads import MAINTAINERS, Comment, Happening, RawThread, is_pull, mapping_of, number_of, person_of, place_of, text_of

ISSUE_EVENTS = (b'"IssuesEvent"', b'"IssueCommentEvent"')
"""What a line must hold to be of interest. Within a text the quotes would be escaped."""


class Sighting(NamedTuple):
    """What one line tells of the thread `key`: an action, or for ``seen`` the issue as it was then; `file` and `line` say where.

    `event` and `comment` are ids, which tell repetitions. A conversation of a pull request is ``pull`` and no more.
    """

    key: str
    time: str
    file: str
    line: int
    action: str
    repository: str | None
    number: int | None
    event: str = ""
    comment: str = ""
    login: str = ""
    account: str = ""
    app: bool = False
    title: str = ""
    text: str = ""
    member: bool = False
    url: str = ""


def sightings_of(line: bytes, file: str, number: int, known: Container[str] = ()) -> tuple[Sighting, ...]:
    """Return what a stripped line tells: nothing if it is no event of an issue. Raise `RowProblem` if malformed, ``ValueError`` if no JSON.

    Of threads whose keys are `known`, the issue that a comment carries is not told again.
    """
    if ISSUE_EVENTS[0] not in line and ISSUE_EVENTS[1] not in line:
        if not (line.startswith(b"{") and line.endswith(b"}")):
            _object(parse_json(line))
        return ()
    event = _object(parse_json(line))
    if event.get("type") not in ("IssuesEvent", "IssueCommentEvent"):
        return ()
    payload = mapping_of(event, "payload")
    issue = payload.get("issue")
    if isinstance(issue, dict):
        return _with_issue(event, payload, issue, file, number, known)
    return (_numbers_only(event, payload, file, number),)


def _object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise RowProblem("wrong_type", f"the line is of type {type(value).__name__}; expected a JSON object; correct or remove it", fault=True)


def _with_issue(
    event: Mapping[str, Any], payload: Mapping[str, Any], issue: Mapping[str, Any], file: str, line: int, known: Container[str]
) -> tuple[Sighting, ...]:
    url = text_of(issue, "html_url", "url")
    repository, number, key = _home(event, number_of(issue, "number"), issue.get("id"), url)
    if is_pull(issue):
        return () if key in known else (Sighting(key, "", file, line, "pull", repository, number, url=url),)
    action, time, identity = text_of(payload, "action"), text_of(event, "created_at"), str(event.get("id") or "")
    is_comment = event["type"] == "IssueCommentEvent"
    begins = not is_comment and action in ("opened", "edited")
    found: tuple[Sighting, ...] = ()
    if begins or key not in known:
        told, event_id = (action, identity) if begins else ("seen", "")
        asked, title, text = person_of(issue), text_of(issue, "title"), text_of(issue, "body")
        told_at, member = time if action == "edited" else text_of(issue, "created_at"), _is_member(issue)
        found = (Sighting(key, told_at, file, line, told, repository, number, event_id, "", *asked, title, text, member, url),)
    if begins:
        return found
    if not is_comment:
        return (*found, Sighting(key, time, file, line, action, repository, number, identity, "", *person_of(event)))
    comment = mapping_of(payload, "comment")
    time = (text_of(comment, "created_at") or time) if action == "created" else time
    said, by = str(comment.get("id") or ""), person_of(comment if comment.get("user") is not None else event)
    kind, text = f"comment_{action or 'created'}", text_of(comment, "body")
    return (*found, Sighting(key, time, file, line, kind, repository, number, identity, said, *by, "", text, _is_member(comment)))


def _numbers_only(event: Mapping[str, Any], payload: Mapping[str, Any], file: str, line: int) -> Sighting:
    """Return what an event of before 2015 tells: that something happened, but not what was said."""
    url = text_of(event, "url")
    identity = payload.get("issue") if payload.get("issue") is not None else payload.get("issue_id")
    if not isinstance(identity, int | None):
        raise wrong_type("payload.issue", identity, "an issue, or its id")
    repository, number, key = _home(event, number_of(payload, "number"), identity, url)
    return Sighting(key, text_of(event, "created_at"), file, line, "numbers", repository, number, url=url)


def _home(event: Mapping[str, Any], number: int | None, identity: Any, url: str) -> tuple[str | None, int | None, str]:
    """Return repository, number and key of an event's thread, by its repository or, where that says nothing, by an address."""
    repository: str | None = None
    repo, old = event.get("repo"), event.get("repository")
    if isinstance(repo, dict):
        repository = text_of(repo, "name")
    elif isinstance(old, dict):
        owner = old.get("owner")
        owner = text_of(owner, "login") if isinstance(owner, dict) else text_of(old, "owner")
        repository = text_of(old, "full_name") or f"{owner}/{text_of(old, 'name')}"
    if repository is None or not all(repository.partition("/")[::2]):
        repository = None
    if repository is None or number is None:
        found = place_of(url)
        repository = repository or (found[0] if found else None)
        number = number if number is not None else found[1] if found else None
    if identity is not None:
        return repository, number, str(identity)
    if repository is None or number is None:
        raise RowProblem("no_issue", "the event does not say which issue it is about")
    return repository, number, f"{repository}#{number}"


def _is_member(row: Mapping[str, Any]) -> bool:
    return text_of(row, "author_association").upper() in MAINTAINERS


def sightings_of_row(found: RawThread | Comment, file: str, line: int) -> list[Sighting]:
    """Return what a row of an export tells of a thread, so that issues and comments that lie apart come together."""
    if isinstance(found, Comment):
        happening = found.happening
        key = f"{found.repository}#{found.number}"
        if found.pull:
            return [Sighting(key, happening.time, file, line, "pull", found.repository, found.number)]
        about = (key, happening.time, file, line, "comment_created", found.repository, found.number)
        return [Sighting(*about, "", found.id, *happening.person, "", happening.text, happening.member)]
    known = found.repository is not None and found.number is not None
    key = f"{found.repository}#{found.number}" if known else f"{found.url or ''}#{found.number}#{file}:{line}"
    if found.pull:
        return [Sighting(key, "", file, line, "pull", found.repository, found.number, url=found.url or "")]
    url = found.url or ""
    sightings = []
    for place, event in enumerate(found.happenings):
        action = event.kind if event.kind != "post" else "comment_hidden" if event.hidden else "comment_created"
        action, title = (action, "") if place else ("opened", found.title)
        begin = (key, event.time, file, line, action, found.repository, found.number)
        sightings.append(Sighting(*begin, "", "", *event.person, title, event.text, event.member, url))
    return sightings


def assembled(sightings: Iterable[Sighting]) -> RawThread:
    """Return the thread of sightings that have one key."""
    ordered = sorted(sightings, key=lambda sighting: (sighting.time or "~", sighting.file, sighting.line))
    first = min(ordered, key=lambda sighting: (sighting.action not in ("opened", "pull"), sighting.file, sighting.line))
    place = f"{first.file}:{first.line}"
    known = next((s for s in ordered if s.repository is not None), first)
    number = next((s.number for s in ordered if s.number is not None), None)
    url = next((s.url for s in ordered if s.url), None)
    thread = RawThread(place, known.repository, number, "", [], url, any(s.action == "pull" for s in ordered))
    if not thread.pull:
        _fill(thread, ordered)
    return thread


def _fill(thread: RawThread, ordered: list[Sighting]) -> None:
    repairs: list[str] = []
    opened = [s for s in ordered if s.action == "opened"] or [s for s in ordered if s.action == "edited"]
    seen = [s for s in ordered if s.action == "seen"]
    begin = (opened or seen or ordered)[0]
    last = [s for s in ordered if s.action == "edited"][-1:] or [begin]
    if not opened and seen:
        repairs.append("opened_is_missing")
    thread.title = last[0].title
    events: list[tuple[tuple[str, bool, str, int, int], Happening]] = []
    comments: dict[str, Sighting] = {}
    deleted: set[str] = set()
    ids: set[str] = set()
    for count, sighting in enumerate(ordered):
        if sighting.action in ("opened", "edited", "seen", "numbers") or (sighting.event and sighting.event in ids):
            continue
        ids.add(sighting.event)
        kind = sighting.action
        if kind == "comment_deleted":
            deleted.add(sighting.comment)
            repairs.append("deleted_comment")
        elif kind == "comment_hidden":
            repairs.append("hidden_comment")
        elif kind.startswith("comment_"):
            name = sighting.comment or f"\0{sighting.login}\0{sighting.time}\0{sighting.text}"
            before = comments.get(name)
            if before is not None and kind == "comment_edited":
                repairs.append("edited_comment")
            comments[name] = sighting if before is None else before._replace(text=sighting.text) if kind == "comment_edited" else before
        else:
            events.append((_order(sighting, count), Happening(kind, sighting.time, _person(sighting))))
    for count, (name, sighting) in enumerate(comments.items()):
        if name not in deleted:
            events.append((_order(sighting, count), Happening("post", sighting.time, _person(sighting), sighting.text, sighting.member)))
    events.sort(key=lambda entry: entry[0])
    thread.asked = begin.action in ("opened", "seen", "edited")
    if thread.asked:
        thread.happenings.append(Happening("post", begin.time, _person(begin), last[0].text, begin.member))
    thread.happenings += [happening for _, happening in events]
    thread.repairs = tuple(dict.fromkeys(repairs))


def _person(sighting: Sighting) -> Person:
    return Person(sighting.login, sighting.account, sighting.app)


def _order(sighting: Sighting, count: int) -> tuple[str, bool, str, int, int]:
    """Return what orders happenings: by time, a closing behind the comment of the same second that it was made with."""
    return (sighting.time or "~", not sighting.action.startswith("comment_"), sighting.file, sighting.line, count)


def read_bigcode(place: str, row: Mapping[str, Any]) -> RawThread:
    """Return the thread of a row of BigCode's dataset of issues. Its events are in order by their times, or as they stand without these."""
    events = row.get("events")
    if not isinstance(events, list):
        raise wrong_type("events", events, "a list")
    if not all(isinstance(event, dict) for event in events):
        raise wrong_type("events", next(event for event in events if not isinstance(event, dict)), "a list of objects")
    timed = all(event.get("datetime") is not None for event in events)
    about = text_of(row, "repo") or None, number_of(row, "issue_number")
    title = description = ""
    sightings = [Sighting("", "", place, -1, "pull", *about)] * bool(row.get("pull_request"))
    for count, event in enumerate(events):
        time = str(event["datetime"]) if timed else f"{count:09}"
        kind, action, login = text_of(event, "type"), text_of(event, "action"), text_of(event, "author") or GHOST
        if kind == "comment":
            identity = str(count if event.get("comment_id") is None else event["comment_id"])
            begin = ("", time, place, count, f"comment_{action or 'created'}", *about, "", identity, login)
            sightings.append(Sighting(*begin, text=text_of(event, "comment", "text") or text_of(event, "description")))
        elif kind == "issue":
            title, description = text_of(event, "title") or title, text_of(event, "description", "text") or description
            sightings.append(Sighting("", time, place, count, action, *about, login=login, title=title, text=description))
    thread = assembled(sightings) if sightings else RawThread(place, *about, "", [], asked=False)
    thread.place = place
    return thread
