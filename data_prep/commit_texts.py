"""The texts of a commit: its message as written, the edit as a person would be shown it, and the dialogues that it gives.

Pure. A message loses its trailers (``Signed-off-by: ...``), which name people, also those of messages that were squashed into it; an edit
becomes a window around the change.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence

from data_prep.changes import changed_span, unified_diff, widened
from data_prep.commit_rules import Draws, Problem
from data_prep.languages import fence_label, language_of
from data_prep.people import pseudonym
from starchat.dialogue import Turn
from starchat.fences import fenced

BINARY_PREFIX_BYTES = 8000
"""Git's own rule: a NUL byte among the first 8,000 makes a file binary (``xdiff-interface.c``, ``buffer_is_binary``)."""

MAX_WINDOW_LINES = 32
WHOLE_FILE_SHARE = 0.2
MIN_EXPLANATION_WORDS = 15

_SIGNED = re.compile(r"(?:[A-Za-z][\w-]*-by|co-authored by): +\S", re.I)
_TRAILER = re.compile(rf"{_SIGNED.pattern}|(?:[A-Za-z][\w-]*-(?:to|on|id|bug|from|for)|cc|pr-url|bug|test|issue): +\S", re.I)
_SQUASHED = re.compile(r"(?:\A|\n)-{9}\s*\Z")
"""The line that GitHub draws above the trailers of a squashed message."""

_COMMITTED = re.compile(rb"^committer .*> (\d+) [+-]\d{4}$", re.MULTILINE)
_MAIL = re.compile(rb"<([^<>\s]+@[^<>\s]+)>")
_ACCOUNT = re.compile(r"(?:\d+\+)?([A-Za-z0-9-]+)@users\.noreply\.github\.com", re.IGNORECASE)
_ENCODING = re.compile(rb"^encoding (\S+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A commit's subject line and body, without trailers, and what was done to read them.

    `date` is when it was committed, in UTC; `people` are pseudonyms of those whose mail addresses or accounts it bears.
    """

    subject: str
    body: str
    repairs: tuple[str, ...] = ()
    date: str | None = None
    people: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Edit:
    """An edit as it is shown: the window before and after, whether that is the whole file, how many lines changed."""

    before: str
    after: str
    lines: int
    whole: bool
    repairs: tuple[str, ...] = ()

    @property
    def diff(self) -> str:
        """The unified diff that makes `after` of `before`."""
        return unified_diff(self.before, self.after)


def read_message(commit: bytes) -> Message:
    """Return the message of a raw commit object, decoded as its header says.

    >>> read_message(b"tree 0\\n\\nFix it\\n\\nIt broke.\\n\\nSigned-off-by: A <a@b.c>\\n")
    Message(subject='Fix it', body='It broke.', repairs=('trailers',), date=None, people=('6a5a6ed6e9734b85',))
    """
    header, _, data = commit.partition(b"\n\n")
    repairs = []
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        named = _ENCODING.search(header)
        text = _decoded(data, named[1].decode("ascii", "replace") if named else "latin-1")
        repairs.append("message_encoding")
    text = text.replace("\r\n", "\n").replace("\0", "")
    subject, _, body = text.strip("\n").partition("\n")
    body = body.strip("\n")
    if (kept := _without_trailers(body)) != body:
        body = _SQUASHED.sub("", kept)
        repairs.append("trailers")
    return Message(subject.strip(), body.strip(), tuple(repairs), _date(header), _people(header + b"\n" + data))


def _date(header: bytes) -> str | None:
    """Return when a commit was made; None for a time that no calendar has."""
    found = _COMMITTED.search(header)
    try:
        return datetime.datetime.fromtimestamp(int(found[1]), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if found else None
    except (ValueError, OverflowError, OSError):
        return None


def _people(commit: bytes) -> tuple[str, ...]:
    """Return pseudonyms of all mail addresses in a commit, and of the accounts that GitHub's own addresses name."""
    names = set()
    for found in _MAIL.finditer(commit):
        address = found[1].decode("utf-8", "replace")
        names.add(address)
        if account := _ACCOUNT.fullmatch(address):
            names.add(account[1])
    return tuple(sorted(map(pseudonym, names)))


def _without_trailers(body: str) -> str:
    """Return a body without the trailers of its last paragraph, and without the paragraphs above it that name people in every line."""
    *above, last = body.split("\n\n")
    kept = [part for part in above if not all(map(_SIGNED.match, part.split("\n")))]
    return "\n\n".join([*kept, "\n".join(line for line in last.split("\n") if not _TRAILER.match(line))])


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except (LookupError, ValueError):
        return data.decode("latin-1")


def shown(old: bytes, new: bytes, form: str, drawn: Draws, max_chars: int | None) -> Edit | Problem:
    """Return an edit in a form (see `data_prep.commits.CommitsSpec`), or the reason why it cannot be shown.

    >>> draws = Draws(*[0.5] * 8)
    >>> shown(b"a = 1\\n", b"a = 2\\n", "window", draws, None)
    Edit(before='a = 1\\n', after='a = 2\\n', lines=1, whole=True, repairs=())
    """
    if b"\0" in old[:BINARY_PREFIX_BYTES] or b"\0" in new[:BINARY_PREFIX_BYTES]:
        return "binary", "a NUL byte near its beginning"
    if max_chars is not None and len(old) > max_chars and len(old.decode("utf-8", "replace")) > max_chars:
        return "too_large", f"{len(old)} bytes before the change; at most {max_chars} characters"
    if not new.strip():
        return "emptied", "nothing is left of the file"
    repairs = []
    if b"\r" in old or b"\r" in new:
        old, new = _with_line_ends(old), _with_line_ends(new)
        repairs.append("line_ends")
        if old == new:
            return "line_ends_only", "the change is one of line ends"
    span = changed_span(old, new)
    start, end = 0, len(old)
    if form == "window" or form == "diff" or (form == "published" and drawn.form >= WHOLE_FILE_SHARE):
        start, end = widened(old, span, *(int(draw * (MAX_WINDOW_LINES + 1)) for draw in (drawn.before, drawn.after)))
    try:
        before, after = old[start:end].decode("utf-8"), new[start : end + len(new) - len(old)].decode("utf-8")
    except UnicodeDecodeError as error:
        return "not_utf8", f"byte 0x{error.object[error.start]:02x} near the change"
    lines = max(_count_lines(old, span.start, span.old_end), _count_lines(new, span.start, span.new_end))
    return Edit(before, after, lines, start == 0 and end == len(old), tuple(repairs))


def _with_line_ends(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _count_lines(content: bytes, start: int, end: int) -> int:
    """Return the number of lines in a stretch, the last perhaps without a line end."""
    return content.count(b"\n", start, end) + (end > start and content[end - 1 : end] != b"\n")


def answer_of(edit: Edit, message: Message, path: str, drawn: Draws, tasks: Mapping[str, float]) -> list[Turn]:
    """Return the dialogue of an edit: what is asked is drawn by weight among what the commit can answer."""
    possible = {task: weight for task, weight in tasks.items() if weight and (task != "explain" or _explains(message))}
    task = _drawn(possible or {"edit": 1.0}, drawn.task)
    tag = fence_label(language_of(path))
    if task == "edit":
        return _edit_turns(edit, message, path, tag, drawn)
    asked = _pick(EXPLAIN if task == "explain" else WRITE_MESSAGE, drawn.words).format(path=path)
    question = f"{asked}\n\n{fenced(edit.diff, 'diff')}"
    answer = message.body if task == "explain" else "\n\n".join(part for part in (message.subject, message.body) if part)
    return [Turn("user", question), Turn("assistant", answer)]


def _edit_turns(edit: Edit, message: Message, path: str, tag: str, drawn: Draws) -> list[Turn]:
    what = "`{path}`" if edit.whole else "this part of `{path}`"
    asked = _pick(EDIT, drawn.words).format(instruction=_sentence(message.subject), what=what.format(path=path))
    nothing = f"`{path}` is empty so far." if edit.whole else "Nothing stands there so far."
    code = fenced(edit.before, tag) if edit.before.strip() else nothing
    return [Turn("user", f"{asked}\n\n{code}"), Turn("assistant", fenced(edit.after, tag))]


EDIT = (
    "{instruction}\n\nHere is {what}:",
    "{instruction} This is {what}:",
    "In {what}: {instruction}",
    "I have {what} below. {instruction}",
)
EXPLAIN = (
    "Explain this change to `{path}`.",
    "What does this change to `{path}` do, and why was it made?",
    "Somebody changed `{path}` like this. Can you explain it?",
)
WRITE_MESSAGE = (
    "Write a commit message for this change to `{path}`.",
    "What would be a good commit message for this change to `{path}`?",
    "I am about to commit this change to `{path}`. Describe it in a commit message.",
)


def _explains(message: Message) -> bool:
    return len(message.body.split()) >= MIN_EXPLANATION_WORDS


def _sentence(subject: str) -> str:
    return subject if subject.endswith((".", "!", "?")) else f"{subject}."


def _pick(choices: Sequence[str], draw: float) -> str:
    return choices[int(draw * len(choices))]


def _drawn(weights: Mapping[str, float], draw: float) -> str:
    """Return the key at a place in [0, 1) of the weights laid end to end."""
    place = draw * sum(weights.values())
    for key in sorted(weights):
        place -= weights[key]
        if place < 0:
            return key
    return max(weights)
