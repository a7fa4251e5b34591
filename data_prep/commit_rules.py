"""Which commits are worth learning from: thresholds on message, size and kind of file, each with its reason.

Two published presets; what their code does otherwise than anybody can have meant is mended (docs/builders.md lists it):

``starcoder``     bigcode-dataset, ``filtering_git_commits.ipynb``: 100,000 characters, sampled small and large changes, banned messages
``commitpackft``  octopack, ``commitpackft_filters1.py`` and ``2.py``: single-file commits with a message that reads as an instruction

Every share is drawn by a hash of commit and path, so a rule takes the same units each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

Problem = tuple[str, str]
"""A reason and its detail."""

DATA_LANGUAGES = frozenset({"JSON", "YAML", "XML", "HTML"})

# The ten of the published filter, and some that say as little.
BANNED_SUBJECTS = frozenset(
    {
        *("readme", "update", "dummy", "updated", "debug", "test", "update readme", "update readme.md", "updated readme.md"),
        *("updated readme", "initial commit", "first commit", "add files via upload", "wip", "fix", "."),
    }
)
BANNED_PARTS = ("auto commit", "update contributing", "<?xml")

_VERBS = """
abort accept access activate adapt add address adjust adopt advance align allow alter analyse analyze annotate answer append apply arrange
assert assign attach automate avoid backport balance base batch begin bind block boost break bring build bump bypass cache calculate call
cancel capture cast catch centralise centralize change check choose clamp clarify clean clear clip clone close collect combine comment
compare compile complete compress compute configure connect consolidate construct contain convert copy correct count cover create cut
deactivate debug declare decode decorate decouple decrease default defer define delay delegate delete demote denote deny depend deprecate
describe deserialise deserialize detach detect determine disable disallow discard display distinguish do document downgrade download drop
dump duplicate edit eliminate embed emit employ empty enable encapsulate encode enforce enhance enlarge ensure enter escape establish
evaluate exclude execute exempt exit expand expect explain explicitly export expose extend extract factor fail fetch fill filter finalise
finalize find finish fix flag flatten flip flush forbid force format forward free fully generalise generalize generate get give group
guarantee guard guess handle harden hide highlight hint hold hook ignore implement import improve include incorporate increase increment
indent index indicate inherit initialise initialize inject inline insert inspect install instantiate instrument integrate interpret
introduce invalidate invert invoke isolate iterate join jump keep kill label launch lazily leave let lift limit link lint list load
localise localize lock log look loosen lower maintain make manage map mark mask match measure mend merge migrate minimise minimize mock
modernise modernize modify mount move mute name nest normalise normalize note notify obtain offer omit open optimise optimize order output
overhaul overload override overwrite pack package parallelise parallelize parametrise parametrize parse pass patch perform permit persist
pick pin place polish populate port post prefer prefix prepare prepend preserve prevent print prioritise prioritize process produce
prohibit promote propagate protect provide prune publish pull push put query queue quote raise randomise randomize read rearrange rebase
rebuild recalculate recognise recognize record recover redirect redo reduce refactor refer refine reformat refresh refuse regenerate
register reject relax release reload relocate remove rename render reorder reorganise reorganize repair replace report represent request
require reset resize resolve respect respond restart restore restrict restructure retain rethrow retrieve retry return reuse revamp revert
review revise rework rewrite roll rotate round run sanitise sanitize save scale schedule search secure select send separate serialise
serialize serve set setup shorten show shrink shuffle shut silence simplify skip sort specify speed split stabilise stabilize standardise
standardize start stop store stream streamline strengthen strip structure submit subscribe substitute support suppress swap switch
synchronise synchronize take test throw tidy tighten toggle trace track transfer transform translate traverse treat trigger trim truncate
try tune turn tweak undo unescape unify unlock unpack unset untangle unwrap update upgrade upload use utilise utilize validate verify view
visualise visualize wait warn watch whitelist widen wire wrap write yield
"""

IMPERATIVES = frozenset(_VERBS.split())
"""Verbs with which an instruction begins."""

_VERSION = re.compile(r"v?\d+\.\d+\.\d++(?=$|\S)", re.IGNORECASE)
_VERSION_BUMP = re.compile(r"(?:bump|set version|update version)\b", re.IGNORECASE)
_REFERENCE = re.compile(r"#\d|\b(?:issue|bug|feature|ticket|gh)[ -]*#?\d+|https?://|www\.|\b[0-9a-f]{7,40}\b(?<![a-f]{7})", re.IGNORECASE)
_PERSONAL = re.compile(r"\bI(?:'m|'ve|'ll|'d)?\b(?!/)|\bmy\b|(?i:\bthanks to\b)")
_UNFINISHED = re.compile(r"\b(?:wip|work in progress|leetcode|fixup!|squash!)(?!\w)", re.IGNORECASE)
_MERGE = re.compile(r"merge (?:branch|pull request|remote|commit)|signed-off-by|cherry picked from", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class CommitRules:
    """Thresholds; None or false is off. Lengths are in characters, of the subject line and of the file before and after.

    A ``..._share`` is the share that is kept of what the rule names: small changes touch at most `small_change_lines`, large ones at least
    `large_change_lines`; few words are fewer than `few_words`. `one_per_file` keeps the newest commit of each path; of CommitPack's
    rows nobody knows which is newer, and of how many files its commit was: neither this nor `max_files` drops any. `max_tokens` and
    `min_tokens` count both windows together, with the spec's tokenizer.
    """

    preset: Literal["starcoder", "commitpackft", "none"]
    max_file_chars: int | None = None
    max_files: int | None = None
    languages: tuple[str, ...] | None = None
    min_subject_chars: int | None = None
    max_subject_chars: int | None = None
    min_subject_words: int | None = None
    max_mean_word_chars: int | None = None
    few_words: int | None = None
    few_words_share: float | None = None
    banned_messages: bool = False
    versions: bool = False
    version_share: float | None = None
    imperative: bool = False
    references: bool = False
    names_file: bool = False
    small_change_lines: int | None = None
    small_change_share: float | None = None
    large_change_lines: int | None = None
    large_change_share: float | None = None
    data_share: float | None = None
    one_per_file: bool = False
    min_tokens: int | None = None
    max_tokens: int | None = None


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "starcoder": {
        "max_file_chars": 100_000,
        "max_mean_word_chars": 20,
        "few_words": 5,
        "few_words_share": 0.5,
        "banned_messages": True,
        "versions": True,
        "small_change_lines": 2,
        "small_change_share": 0.1,
        "large_change_lines": 200,
        "large_change_share": 0.1,
        "data_share": 0.5,
        "one_per_file": True,
    },
    "commitpackft": {
        "max_file_chars": 50_000,
        "max_files": 1,
        "min_subject_chars": 11,
        "max_subject_chars": 999,
        "min_subject_words": 5,
        "banned_messages": True,
        "versions": True,
        "version_share": 0.1,
        "imperative": True,
        "references": True,
        "names_file": True,
        "min_tokens": 50,
        "max_tokens": 768,
    },
    "none": {},
}


class Draws(NamedTuple):
    """Numbers in [0, 1) that depend on a unit alone: one for each rule that keeps a share, and two for the window."""

    words: float
    version: float
    size: float
    data: float
    form: float
    before: float
    after: float
    task: float


def draws(seed: int, commit: str, path: str) -> Draws:
    """Return the numbers of a unit; the same in every process."""
    digest = hashlib.blake2b(f"{seed}:{commit}:{path}".encode("utf-8", "surrogatepass"), digest_size=32).digest()
    return Draws(*(int.from_bytes(digest[n : n + 4]) / 2**32 for n in range(0, 32, 4)))


def subject_problem(subject: str, rules: CommitRules) -> Problem | None:
    """Return why a commit is dropped for its subject line, or None; what depends on the path or on a draw comes later.

    >>> rules = CommitRules("commitpackft", **PRESETS["commitpackft"])
    >>> subject_problem("Swipe left to delete a row", rules), subject_problem("Add the wip handler to it", rules)
    (('message_not_imperative', "begins with 'Swipe'"), ('message_unfinished', 'wip'))
    """
    words = subject.split()
    if not words:
        return "message_empty", "no subject line"
    if rules.min_subject_chars is not None and len(subject) < rules.min_subject_chars:
        return "message_short", f"{len(subject)} characters; at least {rules.min_subject_chars}"
    if rules.max_subject_chars is not None and len(subject) > rules.max_subject_chars:
        return "message_long", f"{len(subject)} characters; at most {rules.max_subject_chars}"
    if rules.min_subject_words is not None and len(words) < rules.min_subject_words:
        return "message_short", f"{len(words)} words; at least {rules.min_subject_words}"
    if rules.max_mean_word_chars is not None and len(subject) / len(words) > rules.max_mean_word_chars:
        return "message_without_words", f"{len(subject) / len(words):.0f} characters a word; at most {rules.max_mean_word_chars}"
    if rules.banned_messages:
        lower = subject.strip().lower()
        if lower in BANNED_SUBJECTS or (found := next((part for part in BANNED_PARTS if part in lower), None)):
            return "message_says_nothing", lower if lower in BANNED_SUBJECTS else str(found)
    if rules.versions and (version := _VERSION.match(subject)):
        return "message_is_version", version[0]
    if rules.references and (fault := _reference_problem(subject)):
        return fault
    if rules.imperative and (words[0].lower() not in IMPERATIVES or not words[0][:1].isupper()):
        return "message_not_imperative", f"begins with {words[0][:40]!r}"
    return None


def _reference_problem(subject: str) -> Problem | None:
    """Return what a subject points to that is not in the change: issues, hashes, addresses, people, other commits."""
    patterns = (
        ("message_merge", _MERGE),
        ("message_unfinished", _UNFINISHED),
        ("message_reference", _REFERENCE),
        ("message_personal", _PERSONAL),
    )
    found = ((reason, pattern.search(subject)) for reason, pattern in patterns)
    return next(((reason, match[0]) for reason, match in found if match), None)


def path_problem(path: str, language: str | None, subject: str, rules: CommitRules, drawn: Draws) -> Problem | None:
    """Return why a changed file is dropped for its name and the subject, before its contents are read, or None."""
    if rules.languages is not None and language not in rules.languages:
        return "language", f"{language or 'no known language'}; wanted: {', '.join(rules.languages)}"
    if rules.names_file and _names(subject, PurePosixPath(path).stem):
        return "message_names_file", PurePosixPath(path).stem
    if rules.data_share is not None and language in DATA_LANGUAGES and drawn.data >= rules.data_share:
        return "data_file_share", f"{language}; {rules.data_share:g} of them are kept"
    few = rules.few_words is not None and len(subject.split()) < rules.few_words
    if few and rules.few_words_share is not None and drawn.words >= rules.few_words_share:
        return "few_words_share", f"fewer than {rules.few_words} words; {rules.few_words_share:g} of them are kept"
    if rules.version_share is not None and drawn.version >= rules.version_share and _VERSION_BUMP.match(subject):
        return "version_share", f"a change of a version; {rules.version_share:g} of them are kept"
    return None


def _names(subject: str, stem: str) -> bool:
    """Whether a subject holds a file's name as a word. A substring would find ``a.py`` in every subject."""
    return bool(stem) and re.search(rf"(?<!\w){re.escape(stem.lower())}(?!\w)", subject.lower()) is not None


def size_problem(lines: int, rules: CommitRules, drawn: Draws) -> Problem | None:
    """Return why a change of so many lines is dropped, or None."""
    small = rules.small_change_lines is not None and lines <= rules.small_change_lines
    large = rules.large_change_lines is not None and lines >= rules.large_change_lines
    for hit, name, share in ((small, "small", rules.small_change_share), (large, "large", rules.large_change_share)):
        if hit and share is not None and drawn.size >= share:
            return f"{name}_change_share", f"{lines} lines; {share:g} of them are kept"
    return None
