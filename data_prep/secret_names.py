"""Secrets that only their names give away: passwords and keys in assignments, in all the ways that languages and formats write them.

Quoted values: ``password = "..."``, ``"api_key": "..."``, ``<add key="password" value="..."/>``, ``define('DB_PASS', '...')``,
``Password: string = "..."``, ``#define PASSWORD "..."``, ``setPassword("...")``. Bare ones: YAML, INI, ``.env``, ``export X=...``,
``--password=...``, ``<password>...</password>``, connection strings, query strings; lines ``NAME=value`` of an environment, of which all
to the end is the value; ``Authorization: Token ...``; ``mysql -p...``, ``sshpass -p ...``. Only the value is the find.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from data_prep.secret_shapes import Judge, Match, Shape, Stretch, checked
from data_prep.secret_values import is_bare_password, is_key, is_password

_NAME = r"(?P<tail>[\w.\-]{0,24}?)"
CLOSE = r"""(?:\\{0,2}["'`])?[\])]{0,2}"""
"""What may close a name: a quotation mark, a bracket."""

TYPE = r"""(?:\[\d{0,4}\])?(?:[ \t]{0,4}:[ \t]{0,2}[A-Za-z&][A-Za-z0-9_<>&\[\]?.' ]{0,24}|[ \t]{1,4}string)?"""
"""A type between a name and its value, as in TypeScript, Go, Rust or C."""

OPERATOR = (
    r"""[ \t]{0,16}(?::=|=>|<-|\?=|={1,3}|!={1,2}|:|,|\(|\{(?:\s{0,16}default[ \t]{0,9}=)?|[ \t]value=|[ \t]content=|[ \t])[ \t]{0,16}"""
)
_BARE_OPERATOR = r"""(?:[ \t]{0,16}[?:]?[=:][ \t]{0,16}|>|[ \t]{1,2})"""
_QUOTED = r"""[A-Za-z&@]{0,2}(?P<q>\\{0,2}["'`])(?P<secret>(?:\\[^\r\n]|[^\\\s]){4,256}?)(?P=q)"""
_BARE = r"""(?P<secret>[^\s"'`,;&<>(){}\[\]$|\\]{6,256})(?=(?P<after>[\s,;&<"'`)\]}|\\]|$))"""

_PASSWORD_WORDS = r"(?i:passw(?:or)?d|passwort|passphrase|passcode|pwd|pass)"
_KEY_WORDS = r"(?i:secret|token|credentials?|key)"
_OWNERS = (
    *("api", "app", "access", "auth", "private", "encryption", "encrypt", "signing", "account", "consumer", "master", "shared", "secret"),
    *("client", "session", "license", "subscription", "deploy", "storage", "service", "webhook", "bot"),
)
_OWNED = "(?i:(?=[stc])|" + "|".join(f"(?<={owner}{joint})" for owner in _OWNERS for joint in ("", "_", "-", ".", " ")) + ")"
"""``key`` alone names anything; with one of these before it, it is a secret."""

_OTHER_THING = re.compile(
    r".*(?:type|name|file|path|url|uri|hash|length|len|size|count|field|label|regex|pattern|prefix|header|hint|error|policy|expir\w*|ttl|ids?"
    r"|text|title|message|placeholder|format|class|element|input|selector|env|var|variable|param|arn|version|algorithm|sha\d*|md5|checksum"
    r"|digest|integrity|fingerprint|thumbprint|index|limit|max|min|usage|address|provider|store|location|endpoint|config|required|valid\w*"
    r"|(?:last)?(?:used|changed|updated|created|modified)(?:at|on|date)?|date|time|age|enabled|status)",
    re.IGNORECASE,
)
"""What a name ends with that is about a secret and holds none."""

_PUBLIC = re.compile(
    r"(?:public|authenticity|csrf|xsrf|next|prev\w*|page|continuation|sync|cursor|hash\w*|sha\d*|md5|checksum|bos|eos|pad|unk|mask|sep|cls|cache|foreign"
    r"|primary|by|com|tres|sur|over|under)[_.-]?$",
    re.IGNORECASE,
)
_QUALIFIED = re.compile(r"\w::\w*$|\barn:[^\s\"']*$")
"""What makes a name that of a type (``AWS::IAM::AccessKey``) or a resource."""

_CONFIG_LINE = re.compile(r"\ufeff?[ \t]*(?:export |set |ENV |ARG |- |[#;] ?|\d+:)?[\"']?[\w.\-/]*$")
_SPACED = re.compile(r"(?:^|\s)--?[\w-]*$|^\W*(?:ENV |require)\w*$")
_NETRC = re.compile(r"\bmachine \S+\s+login \S+\s+$")
_DEFINING = re.compile(
    r"(?:def(?:ine)?[ \t]+|setq?[ \t]+|const[ \t]+|set[ \t]+|with[ \t]+|[^\w\s]|^\ufeff?[ \t]*)[\w\-.:]*$", re.IGNORECASE
)


_ENVIRONMENT_LINE = re.compile(r"\ufeff?[ \t]*(?:(?:export|set|setx|ENV|ARG|-|[#;])[ \t]*)?[A-Z0-9_]*")
_COMMAND = re.compile(r"[\w.]+[(\[].*[)\]]|[*&!][\w.]+|.*`.*`.*|\$[\w({].*\)?")
"""What is a call, a pointer or a command rather than a value."""

_ENVIRONMENT = r"(?P<tail>[A-Z0-9_]{0,24})=(?P<secret>\S{6,256})(?=[ \t]{0,16}(?:[ \t]#[^\r\n]{0,200})?(?:[\r\n]|$))"
_HEADER = (
    r"""(?:\\{0,2}["'`])?[\])]{0,2}[ \t]{0,4}(?::|=>?|,)[ \t]{0,4}(?:\\{0,2}["'`])?"""
    r"""(?i:(?:token|bearer|api-?key|key|jwt)(?:[ \t]{1,4}|=))?(?P<secret>[A-Za-z0-9_.~+/=-]{16,2000})(?![A-Za-z0-9_.~+/=-])"""
)
_HEADER_GATE = r"[^\n]{1,40}[A-Za-z0-9_.~+/=-]{16}"
_MYSQL_GATE = r"""[^\n|;]{0,100}[ \t]-p["']?[^\s"']{4}"""
_OPTION = r"""(?P<q>["']?)(?P<secret>[^\s"']{4,128})(?P=q)(?=[\s"'|;]|$)"""


def _named(value_check: Callable[[str], bool]) -> Judge:
    """Return the judge of quoted values."""

    def judge(match: Match) -> Stretch | None:
        start, end = match.span("secret")
        text, operator = match.string, match["operator"].strip()
        if not _names_a_secret(match):
            return None
        value = text[start:end]
        loose = operator in ("", ",", "(", "{")
        if match["q"][-1] == "`" and operator not in ("=", ":="):
            return None
        if loose and (_is_verb(match) or not (value_check is is_key or is_bare_password(value))):
            return None
        if not operator and not _DEFINING.search(_line_before(match)):
            return None
        return (start, end) if value_check(value) else None

    return judge


def _bare(value_check: Callable[[str], bool], strict_check: Callable[[str], bool]) -> Judge:
    """Return the judge of values without quotation marks: lines of configuration need less than other text."""

    def judge(match: Match) -> Stretch | None:
        start, end = match.span("secret")
        text, operator = match.string, match["operator"]
        if not _names_a_secret(match):
            return None
        before, value, after = _line_before(match), text[start:end], match["after"]
        if operator == ">":
            return (start, end) if text.startswith("</", end) and value_check(value) else None
        if not operator.strip():
            flag = _SPACED.search(before) or (_NETRC.search(text[max(0, match.start() - 200) : match.start()]))
            return (start, end) if flag and strict_check(value) else None
        whole = after in "\r\n" and _CONFIG_LINE.fullmatch(before) is not None
        shell = whole and operator == "=" and not re.search(r"[a-z]", text[match.start() : match.end("tail")])
        connection = after in ";\"'" and before.rstrip()[-1:] in (";", "?", "&") and operator == "="
        if (shell or connection) and not re.match(r"[\w.]+[(\[]|[*&!]", value):
            return (start, end) if len(value) >= 6 and value_check(value) else None
        return (start, end) if strict_check(value) else None

    return judge


def _environment(value_check: Callable[[str], bool]) -> Judge:
    """Return the judge of lines ``NAME=value`` that a shell or a tool reads: the value is all that stands behind the sign."""

    def judge(match: Match) -> Stretch | None:
        start, end = match.span("secret")
        end -= match.string[end - 1] in ";,"
        value = match.string[start:end]
        if not (_ENVIRONMENT_LINE.fullmatch(_line_before(match)) and _names_a_secret(match)):
            return None
        if value[0] in "\"'`" or _COMMAND.fullmatch(value):
            return None
        return (start, end) if value_check(value) else None

    return judge


def _argument(match: Match) -> Stretch | None:
    """Return the password that is given to a program by its option, quoted or not."""
    start, end = match.span("secret")
    check = is_password if match["q"] else is_bare_password
    return (start, end) if check(match.string[start:end]) else None


def _line_before(match: Match) -> str:
    """Return what stands on the line before a match, at most 60 characters of it."""
    return match.string[max(0, match.start() - 60) : match.start()].rpartition("\n")[2]


def _is_verb(match: Match) -> bool:
    """Return whether an anchor is the verb in ``pass "x"`` rather than a part of a name."""
    word, before = match.string[match.start() : match.start("tail")], match.string[max(0, match.start() - 1) : match.start()]
    return word.lower() == "pass" and before not in ("_", "-") and not (word[0] == "P" and before.islower())


def _names_a_secret(match: Match) -> bool:
    """Return whether the name around an anchor is that of a secret, rather than of its type, its file or its hash."""
    text, start, tail = match.string, match.start(), match["tail"]
    word = text[start : match.start("tail")]
    if tail and not tail.lower().startswith("key") and (tail[0].islower() or _OTHER_THING.fullmatch(tail)):
        return False
    before = text[max(0, start - 16) : start]
    if word.lower() in ("pass", "pwd") and before[-1:].isalpha() and not (word[0].isupper() and before[-1].islower()):
        return False
    if _QUALIFIED.search(_line_before(match)):
        return False
    return not _PUBLIC.search(before) or (before[-2:].lower() == "by" and before[-3:-2] in "_-.")


def assignments() -> tuple[Shape, ...]:
    """Return the rows of names with values, quoted and bare."""
    quoted = f"{_NAME}{CLOSE}{TYPE}(?P<operator>{OPERATOR}){_QUOTED}"
    bare = f"{_NAME}{CLOSE}(?P<operator>{_BARE_OPERATOR}){_BARE}"
    quoted_gate = r"[\w.\-]{0,24}" + CLOSE + TYPE + OPERATOR + r"""[A-Za-z&@]{0,2}\\{0,2}["'`]"""
    bare_gate = r"[\w.\-]{0,24}" + CLOSE + _BARE_OPERATOR + r"""[^\s"'`,;&<>(){}\[\]$|\\]{6}"""
    password, key = ("pass", "pwd"), ("secret", "token", "credential", "key")
    line = r"[A-Z0-9_]{0,24}=[^\s]{6}"
    auth = f"(?P<tail>){CLOSE}{TYPE}(?P<operator>{OPERATOR}){_QUOTED}"
    auth_gate = CLOSE + TYPE + OPERATOR + r"""[A-Za-z&@]{0,2}\\{0,2}["'`]"""
    return (
        Shape("password", _PASSWORD_WORDS, quoted, quoted_gate, password, _named(is_password)),
        Shape("password", _PASSWORD_WORDS, bare, bare_gate, password, _bare(is_password, is_bare_password)),
        Shape("password", "PASSW(?:OR)?D|PASSPHRASE|PASS|PWD", _ENVIRONMENT, line, password, _environment(is_password)),
        Shape("password", "(?i:mysql|mariadb)", r"[^\n|;]{0,100}?[ \t]-p" + _OPTION, _MYSQL_GATE, ("mysql", "mariadb"), _argument),
        Shape("password", "sshpass", r"[ \t]{1,4}-p[ \t]{0,4}" + _OPTION, r"[ \t]{1,4}-p[ \t]{0,4}[^\s]", ("sshpass",), _argument),
        Shape("secret_key", _KEY_WORDS, quoted, quoted_gate, key, _named(is_key), _OWNED),
        Shape("secret_key", _KEY_WORDS, bare, bare_gate, key, _bare(is_key, is_key), _OWNED),
        Shape("secret_key", "SECRET|TOKEN|CREDENTIALS?|KEY", _ENVIRONMENT, line, key, _environment(is_key), _OWNED),
        Shape("secret_key", "(?i:auth)", auth, auth_gate, ("auth",), _named(is_key), r"(?:(?<![A-Za-z])|(?<=[a-z])(?=A))"),
        Shape("secret_key", "(?i:authorization)", _HEADER, _HEADER_GATE, ("authorization",), checked(is_key), r"(?<![A-Za-z0-9])"),
    )
