"""The people of a thread: which of them are bots, and the names that stand for them in the text.

Pure. Bots are told by what the forge says of an account (its type, the app that posted) before its name. `Names` gives each person
``username_N`` by order of first appearance and writes it into texts, as whole names only:

- ``@name`` is a person if it stands in prose: no path (``@types/node``), no tag of a comment or annotation (`TAGS`), no bot.
- In code and in links (``github.com/name``) only names are replaced that are known from the thread: authors, and who was mentioned.
- A name without ``@`` is replaced where it is a whole word and no ordinary one (`is_ordinary`), nor the repository's own name: ``al``,
  ``install`` or ``dark-mode`` stay, whoever has that name.
- The local part of an e-mail address and the parts of a host's name stay: what they tell is for curation to redact.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import NamedTuple

from starchat.fences import without_code
from starchat.files import digest_bytes

GHOST = "ghost"
"""Whom GitHub shows where an account is gone."""


class Person(NamedTuple):
    """An account as a source describes it. `type` is the forge's word for it (``User``, ``Bot``); `app` tells that an app posted."""

    login: str = GHOST
    type: str = ""
    app: bool = False


_BOTS = """
    allcontributors amplabjenkins apache-hbase apachespark apmmachine appveyor asfgit autorestci bedevere-bot blathers-crl blurb-it bors
    botmanager changeset-bot cla-assistant claassistant claassistantio clahub cloudflare-pages cmsbuild codeclimate codecov
    codecov-commenter codecov-io codesandbox coderabbitai codspeed-hq copilot copilot-pull-request-reviewer copilot-swe-agent
    copybara-service coveralls craterbot danger-public deepsource-autofix dependabot dependabot-preview deploybot
    devin-ai-integration dnfclas elasticmachine elasticsearchmachine flinkbot fossabot github-actions
    github-advanced-security github-code-quality gitguardian gitpod-io googlebot greenkeeper greenkeeperio-bot hadoop-yetus homu
    houndci-bot hudi-bot imgbot jenkins karma-pr-reporter kibanamachine kodiakhq lgtm-com linux-foundation-easycla llvmbot
    logstashmachine mend-bolt mend-for-github-com mention-bot mergebot mergify miss-islington msftbot msftclas netlify openzeppelin-code
    pep8speaks pre-commit-ci probot-stale pull-request-size pydocteur pyup-bot pytorchbot pytorchmergebot qwiet readthedocs
    release-please renovate renovate-bot restyled-io rfcbot rollbar rust-highfive rust-log-analyzer rust-timer rustbot
    semantic-release-bot sentry-io settings-bot snyk-bot snyk-io socket-security sonarcloud sonarqubecloud sparkqa stale sweep-ai
    tensorflow-jenkins tensorflowbutler tensorflower-gardener the-knights-who-say-ni thelinuxfoundation transifex-integration
    travis-ci travisbot triagebot vercel vs-mlops-bot weblate welcome whitesource-bolt-for-github whitesource-for-github-com wpmobilebot
"""

BOTS = frozenset(_BOTS.split())
"""Accounts known to be bots, in lower case; the exact names of BigCode's filter among them."""

_BOT = re.compile(
    r".*\[bot\]$"
    r"|(?:.*[-_\d])?(?:[Bb]ot|[Rr]obot|BOT)\d*$|.*[A-Za-z\d]Bot\d*$|.*[a-z\d]BOT\d*$"  # -bot, k8s-ci-robot, MergeBot; not talbot, Abbot
    r"|.*[-_](?i:ci|linter|deployer|automat(?:on|ion)|autoroll(?:er)?|teamcity|service-account|serviceaccount|benchmark|build)$"
    r"|(?:bors|jenkins|k8s-mirror)-.*|.*-(?:ci|test)-bot-.*"
)

_TAGS = """
    abstractmethod after all app around async attribute author autowired bean before beforeeach bindable available bug cached call charset
    class classmethod client column component config configuration contextmanager controller copyright cuda dataclass date decorator def
    default define depends deprecated desc description entity enum environmentobject escaping event example exception export extends field
    file fixture flow font-face function functools get getter global group here id ignore implements import include inheritdoc inject
    injectable inline input interface internal jit keyframes layer link local mainactor media mixin mock module namespace next nonnull
    notnull nullable objc observable official onetomany option optional orm output override overload param parametrize parameter params
    patch path pathvariable private property protected provides public published pytest query readonly ref register repository requestbody
    requestmapping require requires responsebody return returns rest route safe see service setter signature since singleton skip spy
    staticmethod state store summary supports suppresswarnings table task template test text throws throw todo token transactional
    ts-expect-error ts-ignore ts-nocheck type typedef typing use user value var version view viewchild warning webmethod wraps
"""

TAGS = frozenset(_TAGS.split())
"""What stands behind ``@`` in the annotations, decorators and comment tags of code, which people quote without marking it as code."""

_MENTION = re.compile(r"@(?<![\w@.+]@)([A-Za-z0-9][A-Za-z0-9_-]{0,60}+)(?![\w@(]|/[^@\s]|\.\w)")
_CALLED_END = re.compile(r"[-_]*+(?!\w|[@.][^\W_]|/[^@\s])")
"""What stands behind a name that is called with ``@``: perhaps a dash, but no more of a name, a path or an address."""

_LETTERS = re.compile("[a-z]+")
_MIDDLE = frozenset("@._+")
MIN_BARE_CHARACTERS = 4


@functools.lru_cache(1 << 16)
def pseudonym(name: str) -> str:
    """Return what stands for an account or a mail address in the rows of a dataset, whatever the case of its letters.

    It names nobody, and it is no secret: who has a list of names can make the pseudonyms of all of them.
    """
    return digest_bytes(f"person:{name.lower()}".encode("utf-8", "surrogatepass"))[:16]


def is_bot(person: Person) -> bool:
    """Return whether a bot posted.

    >>> [is_bot(Person(name)) for name in ("renovate", "k8s-ci-robot", "codecov-commenter", "talbot", "Abbot")]
    [True, True, True, False, False]
    >>> is_bot(Person("someone", "Bot")), is_bot(Person("someone", app=True))
    (True, True)
    """
    return person.type == "Bot" or person.app or is_bot_name(person.login)


@functools.lru_cache(1 << 16)
def is_bot_name(login: str) -> bool:
    """Return whether a name alone tells a bot."""
    return login.lower() in BOTS or _BOT.match(login) is not None


@functools.cache
def words() -> frozenset[str]:
    """Return ordinary words of three letters and more, in lower case: words of prose about software.

    The list ``words.txt`` holds what stands in the comments, docstrings and documents of five or more Python distributions, of the
    some three hundred that were looked at; a list of words in itself is nobody's.
    """
    return frozenset((files("data_prep") / "words.txt").read_text(encoding="ascii").split())


@functools.lru_cache(1 << 16)
def is_ordinary(login: str) -> bool:
    """Return whether a name may as well be a word of the text: all its runs of three and more letters are words, or it is short.

    >>> [is_ordinary(name) for name in ("install", "dark-mode", "base64", "al", "davidb", "kai42x", "ghost")]
    [True, True, True, True, False, False, True]
    """
    runs = _LETTERS.findall(login.lower())
    return len(login) < MIN_BARE_CHARACTERS or login == GHOST or all(len(run) < 3 or run in words() for run in runs)


class Names:
    """The people of one thread and what stands for them. `introduce` and `meet` them in the order of the thread, then `written`."""

    def __init__(self, repository: str | None = None) -> None:
        self._numbers: dict[str, int] = {}
        self._bare: dict[str, bool] = {}
        self._own = (repository or "").rpartition("/")[2].lower()

    def introduce(self, login: str) -> str:
        """Return what stands for a person, who is counted if not met before.

        >>> names = Names()
        >>> names.introduce("Ada"), names.introduce("bob"), names.introduce("ada")
        ('username_0', 'username_1', 'username_0')
        """
        key = login.lower()
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._bare[key] = not is_ordinary(login) and key != self._own
        return f"username_{self._numbers[key]}"

    def meet(self, text: str) -> None:
        """Count everybody who is mentioned in a text and not met before."""
        if "@" not in text:
            return
        for name in _MENTION.findall(without_code(text)):
            login = name if name.lower() in self._numbers else name.rstrip("-_")
            if login.lower() not in TAGS and not is_bot_name(login):
                self.introduce(login)

    def written(self, text: str) -> str:
        """Return a text with the names of everybody met replaced.

        >>> names = Names()
        >>> _ = names.introduce("al"), names.introduce("davidb")
        >>> names.written("@al: install it as davidb did, see github.com/al or mail davidb@example.org")
        '@username_0: install it as username_1 did, see github.com/username_0 or mail davidb@example.org'
        """
        lower = text.lower()
        if len(lower) != len(text):  # a capital may have a longer small letter; names are of ASCII
            lower = "".join(c.lower() if c.isascii() else c for c in text)
        spans: list[tuple[int, int, int]] = []
        called = "@" in text or "github.com/" in lower
        for key, number in self._numbers.items():
            if not (called or self._bare[key]):
                continue
            start = lower.find(key)
            while start >= 0:
                end = start + len(key)
                if self._is_name(lower, start, end, self._bare[key]):
                    spans.append((start, end, number))
                start = lower.find(key, end)
        if not spans:
            return text
        pieces: list[str] = []
        done = 0
        for start, end, number in sorted(spans, key=lambda span: (span[0], -span[1])):
            if start >= done:  # a shorter name may begin where a longer one does that ends in a dash
                pieces += (text[done:start], f"username_{number}")
                done = end
        return "".join((*pieces, text[done:]))

    @staticmethod
    def _is_name(lower: str, start: int, end: int, bare: bool) -> bool:
        """Return whether a stretch of a text is a name as a whole, and stands where names are replaced."""
        after, before = lower[end : end + 1], lower[start - 1 : start]
        if before == "@":
            first = lower[start - 2 : start - 1] if start > 1 else ""
            return not first.isalnum() and first not in _MIDDLE and _CALLED_END.match(lower, end) is not None
        if after == "_" or after == "-" or after.isalnum() or (after in ("@", ".") and lower[end + 1 : end + 2].isalnum()):
            return False
        if before == "/" and lower.endswith("github.com", 0, start - 1):
            return True
        return bare and before not in _MIDDLE and before != "-" and not before.isalnum()
