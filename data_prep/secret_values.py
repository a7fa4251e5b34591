"""Which values of names like ``password`` and ``api_key`` are worth hiding, and tokens that say what they are.

Pure: a value in, a verdict out. What these functions let pass by is what a document means to show, or what is no value at all:
``changeme``, ``${TOKEN}``, ``<password>``, ``xxxx``, names of things, paths, hashes, and what was redacted before.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter

SURROGATE = re.compile(r"REDACTED\d*|([1-9])\1{5,}")
"""What stands for a key or a password after redaction (`data_prep.redact`); the number form replaces bare numbers."""

_PLACEHOLDER = re.compile(
    r"example|redacted|(?<![a-z0-9])(?:change[_.-]?(?:me|it|this)|placeholder|dummy|fake|sample|your|insert[_-]|replace|todo|fixme)"
    r"|(?<![a-z0-9])(?:my|the|some|any|enter)[_-]?(?:secret|pass|token|key|api)[a-z_-]*\d{0,3}$|(?<![a-z0-9])not[_-]?a[_-]?(?:secret|real|key)"
    r"|x{4,}|\*{3}|\.{3}|^<.*>$|^\[.*\]$|\$\{\w|\$\(\w[\w./:-]*\)?$|\{\{\s*[\w.$]|#\{\w|%\(\w+\)[sdr]|<%[=\s\w-]"
    r"|^\$[a-z_][\w.:>\[\]'\"-]*$|^%[a-z_]+%$|^@[a-z_][\w./:-]*$|^\{.*\}$|^env[:.]"
    r"|^(?:null|none|nil|true|false|undefined|default|required|optional|string|secret|token|password|passwd|passphrase|passwort|pass|pwd|pw"
    r"|key|user|username|test|testing|tests|foo|bar|baz|hidden|unknown|empty|value|text|admin)\d{0,3}$",
    re.IGNORECASE,
)
_SEQUENCES = ("0123456789", "1234567890", "abcdefgh", "qwertyuiopasdf", "9876543210", "abcd1234")
_HASH = re.compile(r"(?:sha\d{1,3}|md5|blake\w*|pbkdf2\w*|bcrypt|scrypt|argon2\w*)[-:$]|\$2[aby]\$|\$argon2|\$[156]\$", re.IGNORECASE)
_ELSEWHERE = ("./", "../", "~/", "\\", "arn:", "projects/", "file:", "vault:")
_BARE_NAME = re.compile(
    r"[A-Za-z_.\-]+(?:\d{0,2}|[!?])|[\d.]+[a-zA-Z]{0,2}|[*&!@#-].*|[A-Za-z_][\w.]*={1,2}[\w.]*|.*[=:]|[\w.]+:+[\w.:]*|.*\w\?[\w.!(].*:.*"
    r"|[A-Za-z_]\w*\.[A-Za-z_]\w*"
)
"""Unquoted text that is as a rule a name, a number or an expression."""

_EXPRESSION = re.compile(r"^[A-Za-z_][\w.]*\(.*\)[;.]?$|\{(?:\d+,?\d*|\w*)\}|\[[^\]]*\w-\w[^\]]*\]|\(\?|</?[A-Za-z]|^\w+<.*>$|=>|\)\{|\(\)")
"""Calls, types, markup, patterns and templates; brackets anywhere else may stand in a key, as in those that Django makes."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.+Z-]*)?")
_WORD = re.compile(r"(?:[A-Z]?[a-z]+|[A-Z]{2,})\d{0,2}|\d{1,4}")

COMMON_PASSWORDS = frozenset(
    (
        *("qwerty", "qwertyuiop", "letmein", "iloveyou", "sunshine", "princess", "superman", "batman", "trustno", "asdfgh", "asdfghjkl"),
        *("zxcvbn", "zxcvbnm", "starwars", "swordfish", "football", "baseball", "welcome", "monkey", "dragon", "abcdef"),
    )
)
"""Passwords of letters alone that head the published lists of leaked ones; other words are taken for words."""


def is_placeholder(value: str) -> bool:
    """Return whether a value stands for a secret rather than being one.

    >>> is_placeholder("${DB_PASSWORD}"), is_placeholder("changeme"), is_placeholder("xxxxxxxx"), is_placeholder("k3r!pT_91")
    (True, True, True, False)
    """
    return bool(len(set(value)) < 3 or SURROGATE.fullmatch(value) or _PLACEHOLDER.search(value))


def entropy_bits(value: str) -> float:
    """Return Shannon's entropy of the characters of a text, in bits a character.

    >>> entropy_bits("aabb"), entropy_bits("")
    (1.0, 0.0)
    """
    size = len(value)
    return -sum(n / size * math.log2(n / size) for n in Counter(value).values()) + 0.0


def is_password(value: str) -> bool:
    """Return whether the quoted value of something called a password is likely to be one.

    >>> is_password("Summer2024!"), is_password("Enter"), is_password("current-password"), is_password("%s-%s")
    (True, False, False, False)
    """
    if len(value) < 4 or is_placeholder(value) or "://" in value or _HASH.match(value) or value.startswith((*_ELSEWHERE, "/", "--")):
        return False
    if (
        re.search(r"(?<![\w%])%[sdr](?!\w)|\\u[0-9a-fA-F]{4}|\{\d?\}", value)
        or not re.search(r"[0-9A-Za-z]", value)
        or value.endswith((":", ","))
    ):
        return False
    pieces = [piece for piece in re.split(r"[\s_.:/()\-!]+", value) if piece]
    if all(map(str.isalpha, pieces)):
        return any(map(_is_gibberish, pieces))
    return True


def is_bare_password(value: str) -> bool:
    """Return whether unquoted text is likely to be a password: in code it is as a rule a name or an expression.

    >>> is_bare_password("tr0ub4dor"), is_bare_password("self.password"), is_bare_password("password2"), is_bare_password("index=True")
    (True, False, False, False)
    """
    return len(value) >= 6 and not _BARE_NAME.fullmatch(value) and is_password(value)


def is_key(value: str) -> bool:
    """Return whether a value is like a generated key: long enough, of one piece, and without order.

    >>> is_key("9f8e2c41b7d05a63e1f4"), is_key("my-service-account-name"), is_key("0123456789abcdef0123456789abcdef")
    (True, False, False)
    """
    if len(value) < 16 or is_placeholder(value) or "://" in value or _HASH.match(value) or value.startswith(_ELSEWHERE):
        return False
    lower = value.lower()
    if (
        any(sequence in lower for sequence in _SEQUENCES)
        or re.search(r"\s|\\|::|->", value)
        or _EXPRESSION.search(value)
        or re.fullmatch(r"[\d.,:+-]+|[a-z_]{3,}(?:\.[A-Za-z_]\w*)+", value)
    ):
        return False
    if _reads_as_words(value) or not (re.search(r"\d", value) or _is_gibberish(value)):
        return False
    return entropy_bits(value) >= (2.8 if re.fullmatch(r"[0-9a-fA-F-]+", value) else 3.2)


def _reads_as_words(value: str) -> bool:
    """Return whether a value is made of words, each with few digits, as names are."""
    pieces = [piece for piece in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", value) if piece]
    words = [piece for piece in pieces if _WORD.fullmatch(piece) and not _is_gibberish(piece)]
    letters = [piece for piece in pieces if piece[0].isalpha()]
    return sum(map(len, words)) >= 0.8 * sum(map(len, pieces)) and sum(map(len, letters)) >= 3.5 * len(letters)


def _is_gibberish(word: str) -> bool:
    """Return whether letters are in no order that a word has: case that jumps, seven consonants in a row, or a row of keys."""
    jumps = len(re.findall(r"[a-z][A-Z]|[A-Z][A-Z][a-z]", word))
    consonants = re.search(r"[bcdfghjklmnpqrstvwxz]{7}", word.lower())
    return bool((len(word) >= 8 and jumps * 4 > len(word) - 2) or consonants or word.lower() in COMMON_PASSWORDS)


def is_varied(value: str) -> bool:
    """Return whether the characters of a value are as mixed as those of a key of 20 characters: most of these have over 3.3 bits each."""
    return entropy_bits(value) >= 3


def is_token(value: str) -> bool:
    """Return whether a value in the shape of a service's token is drawn at random, rather than made to show the shape.

    >>> is_token("xoxb-abcdef-abcdef"), is_token("glc_" + "1" * 32), is_token("hf_parametersdescriptionofcells")
    (False, False, False)
    """
    if is_placeholder(value) or "abcdefghij" in value.lower() or entropy_bits(value) < 2.8:
        return False
    digits = sum(map(str.isdigit, value))
    return digits >= 3 or (len(value) > 24 and not value.islower() and not value.isupper())


def is_jwt(value: str) -> bool:
    """Return whether the first part of a value is the header of a JSON web token (RFC 7519)."""
    try:
        header = json.loads(_decoded(value.partition(".")[0]) or b"null")
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and bool(header.keys() & {"alg", "enc", "typ"})


def is_discord_user(value: str) -> bool:
    """Return whether a value is a number in Base64, as Discord's bot tokens begin."""
    return (_decoded(value) or b"x").isdigit()


def is_basic_login(value: str) -> bool:
    """Return whether a value is ``user:password`` in Base64 (RFC 7617), with a password that is no placeholder."""
    user, _, password = (_decoded(value) or b"").partition(b":")
    if not (user and password.isascii() and user.isascii()):
        return False
    shown = password.decode()
    return bool(shown) and shown.isprintable() and user.decode().isprintable() and not is_placeholder(shown)


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value.rstrip("=").encode() + b"=" * (-len(value.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
