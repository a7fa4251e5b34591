"""Which text is worth hiding: placeholders, entropy, checks of e-mail and IP addresses, and of tokens that say what they are.

Pure: a value in, a verdict out. `data_prep.secret_kinds` finds the candidates. What these functions let pass by is what a document means
to show: ``changeme``, ``${TOKEN}``, ``<password>``, ``xxxx``, addresses of the ranges for documentation, and what was redacted before.
"""

from __future__ import annotations

import base64
import binascii
import functools
import ipaddress
import json
import math
import re
from collections import Counter

SURROGATE = re.compile(r"REDACTED\d*|([1-9])\1{5,}")
"""What stands for a key or a password after redaction (`data_prep.redact`); the number form replaces bare numbers."""

_PLACEHOLDER = re.compile(
    r"redacted|example|change[_.-]?(?:me|it|this)|placeholder|dummy|(?:^|[^a-z])fake|sample|your|insert[_-]|replace|todo|fixme|x{4,}|\*{3}|\.{3}"
    r"|^<.*>$|^\[.*\]$|\$\{|\$\(|\{\{|#\{|%\(|<%|^\$[a-z_]|^%[a-z_]+%$|^@[a-z_]|^\{.*\}$|^env[:.]|(?:my|the|some|any|enter)[_-]?(?:secret|pass|token|key|api)"
    r"|not[_-]?a[_-]?(?:secret|real|key)|^(?:null|none|nil|true|false|undefined|default|required|optional|string|secret|token|password|passwd"
    r"|passphrase|passwort|pass|pwd|pw|key|user|username|test|testing|tests|foo|bar|baz|hidden|unknown|empty|value|text|admin)\d{0,3}$",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Za-z]+\d?|[A-Z]?[a-z]+")
_IDENTIFIERS = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|::|->|/|-|:)[A-Za-z_$][\w$]*)*[!?]?")
_SEQUENCES = ("0123456789", "1234567890", "abcdefgh", "qwertyuiopasdf", "9876543210", "abcd1234")
_UUID_NIL = re.compile(r"[0-]+")
_HASH_PREFIX = re.compile(
    r"(?:sha\d{1,3}|md5|blake\w*|pbkdf2\w*|bcrypt|scrypt|argon2\w*)[-:$]|\$2[aby]\$|\$argon2|\$[156]\$", re.IGNORECASE
)


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
    return -sum(n / size * math.log2(n / size) for n in Counter(value).values()) + 0.0 if value else 0.0


def is_password(value: str, quoted: bool) -> bool:
    """Return whether the value of something called a password is likely to be one.

    Unquoted text needs more: in code it is as a rule a name or an expression.

    >>> is_password("Summer2024!", True), is_password("Enter", True), is_password("self.password", False), is_password("tr0ub4dor", False)
    (True, False, False, True)
    """
    if len(value) < 4 or is_placeholder(value) or "://" in value or _HASH_PREFIX.match(value) or value.startswith(("/", "./", "--", "\\")):
        return False
    if not quoted and (len(value) < 6 or re.fullmatch(r"[A-Za-z_.\-]+\d{0,2}[!?]?|[\d.]+[a-zA-Z]{0,2}|[A-Z_]+|.*[=:]", value)):
        return False
    if re.fullmatch(r"[^\W\d_]+", value):
        return _is_gibberish(value)
    if re.search(r"%[sdr]|\\u[0-9a-fA-F]{4}|\{\d?\}", value) or not re.search(r"[0-9A-Za-z]", value):
        return False
    pieces = re.split(r"[\s_.:/\-]+", value)
    plain = all(not piece or re.fullmatch(r"[A-Za-z]+", piece) for piece in pieces)
    return not (plain and len(pieces) > 1 and not any(_is_gibberish(piece) for piece in pieces)) and not re.fullmatch(
        r"\[?\W*\w+\W*\]\W*", value
    )


def is_key(value: str) -> bool:
    """Return whether a value is like a generated key: long enough, of one piece, and without order.

    >>> is_key("9f8e2c41b7d05a63e1f4"), is_key("my-service-account-name"), is_key("0123456789abcdef0123456789abcdef")
    (True, False, False)
    """
    if len(value) < 16 or is_placeholder(value) or "://" in value or _HASH_PREFIX.match(value) or _UUID_NIL.fullmatch(value):
        return False
    lower = value.lower()
    if any(sequence in lower for sequence in _SEQUENCES) or (not re.search(r"\d", value) and not _is_gibberish(value)):
        return False
    if re.fullmatch(r"[\d.,:+-]+", value) or value.startswith(("/", "./", "arn:", "projects/")):
        return False
    if _IDENTIFIERS.fullmatch(value) and _reads_as_words(value):
        return False
    return entropy_bits(value) >= (2.8 if re.fullmatch(r"[0-9a-fA-F-]+", value) else 3.2)


def _reads_as_words(value: str) -> bool:
    """Return whether a value is made of words, each with few digits, as names are."""
    pieces = [piece for piece in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", value) if piece]
    readable = sum(
        len(piece) for piece in pieces if re.fullmatch(r"[A-Za-z]{2,}\d{0,2}|\d{1,4}|[vV]\d", piece) and not _is_gibberish(piece)
    )
    return readable >= 0.8 * sum(map(len, pieces))


def _is_gibberish(word: str) -> bool:
    """Return whether letters are in no order that a word has: case that jumps, five consonants in a row, rows of keys on a keyboard."""
    jumps = len(re.findall(r"[a-z][A-Z]|[A-Z][A-Z][a-z]", word))
    consonants = re.search(r"[bcdfghjklmnpqrstvwxz]{6}", word.lower())
    return bool((len(word) >= 8 and jumps >= 3 and jumps * 4 > len(word) - 4) or consonants or word.lower() in COMMON_PASSWORDS)


COMMON_PASSWORDS = frozenset(
    [
        "qwerty",
        "qwertyuiop",
        "letmein",
        "iloveyou",
        "dragon",
        "monkey",
        "football",
        "baseball",
        "sunshine",
        "princess",
        "superman",
        "batman",
        "trustno",
        "shadow",
        "master",
        "hunter",
        "killer",
        "passw",
        "welcome",
        "asdfgh",
        "asdfghjkl",
        "zxcvbn",
        "zxcvbnm",
        "starwars",
        "swordfish",
        "abcdef",
    ]
)
"""Passwords of letters alone that head the published lists of leaked ones; other words are taken for words."""

DNS_SERVERS = frozenset(
    [
        "8.8.8.8",
        "8.8.4.4",
        "1.1.1.1",
        "1.0.0.1",
        "1.1.1.2",
        "1.1.1.3",
        "9.9.9.9",
        "9.9.9.10",
        "149.112.112.112",
        "208.67.222.222",
        "208.67.220.220",
        "4.2.2.1",
        "4.2.2.2",
        "4.2.2.3",
        "4.2.2.4",
        "4.2.2.5",
        "4.2.2.6",
        "64.6.64.6",
        "64.6.65.6",
        "77.88.8.8",
        "77.88.8.1",
        "94.140.14.14",
        "94.140.15.15",
        "114.114.114.114",
        "223.5.5.5",
        "223.6.6.6",
        "119.29.29.29",
        "180.76.76.76",
        "84.200.69.80",
        "84.200.70.40",
        "8.26.56.26",
        "8.20.247.20",
        "185.228.168.9",
        "185.228.169.9",
        "76.76.19.19",
        "76.76.2.0",
        "2001:4860:4860::8888",
        "2001:4860:4860::8844",
        "2606:4700:4700::1111",
        "2606:4700:4700::1001",
        "2620:fe::fe",
        "2620:fe::9",
        "2620:119:35::35",
        "2620:119:53::53",
        "2a10:50c0::ad1:ff",
        "2a10:50c0::ad2:ff",
    ]
)
"""Resolvers that anybody may use: nobody's address."""


def is_address(value: str) -> bool:
    """Return whether an IP address may be somebody's: global, no resolver that all know, no network or mask.

    >>> [is_address(x) for x in ("93.184.216.34", "10.0.0.1", "8.8.8.8", "203.0.113.7", "2a00:1450:4001:81b::200e", "300.1.1.1")]
    [True, False, False, False, True, False]
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or address.is_reserved or str(address) in DNS_SERVERS:
        return False
    if address.version == 6:
        return True
    parts = [int(part) for part in value.split(".")]
    return not ((parts[3] == 0 and parts[2] == 0) or max(parts) < 10 or parts[0] == parts[1] == parts[2] == parts[3])


FILE_ENDINGS = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "ico",
        "css",
        "scss",
        "js",
        "ts",
        "tsx",
        "jsx",
        "mjs",
        "map",
        "min",
        "html",
        "htm",
        "py",
        "rb",
        "go",
        "sh",
        "md",
        "txt",
        "json",
        "xml",
        "yml",
        "yaml",
    ]
)
DOMAINS = frozenset(
    [
        "com",
        "org",
        "net",
        "edu",
        "gov",
        "mil",
        "int",
        "info",
        "biz",
        "name",
        "pro",
        "aero",
        "coop",
        "museum",
        "mobi",
        "asia",
        "cat",
        "jobs",
        "tel",
        "travel",
        "dev",
        "app",
        "page",
        "xyz",
        "online",
        "site",
        "tech",
        "store",
        "cloud",
        "email",
        "group",
        "team",
        "works",
        "agency",
        "digital",
        "network",
        "systems",
        "solutions",
        "company",
        "software",
        "center",
        "world",
        "life",
        "live",
        "news",
        "blog",
        "shop",
        "club",
        "design",
        "studio",
        "space",
        "website",
        "link",
        "zone",
        "tools",
        "codes",
        "security",
        "engineering",
        "science",
        "berlin",
        "london",
        "nyc",
        "arpa",
        "google",
        "bank",
        "health",
        "care",
        "games",
        "ac",
        "ad",
        "ae",
        "af",
        "ag",
        "ai",
        "al",
        "am",
        "ao",
        "ar",
        "as",
        "at",
        "au",
        "aw",
        "ax",
        "az",
        "ba",
        "bb",
        "bd",
        "be",
        "bf",
        "bg",
        "bh",
        "bi",
        "bj",
        "bm",
        "bn",
        "bo",
        "br",
        "bs",
        "bt",
        "bw",
        "by",
        "bz",
        "ca",
        "cc",
        "cd",
        "cf",
        "cg",
        "ch",
        "ci",
        "ck",
        "cl",
        "cm",
        "cn",
        "co",
        "cr",
        "cu",
        "cv",
        "cw",
        "cx",
        "cy",
        "cz",
        "de",
        "dj",
        "dk",
        "dm",
        "do",
        "dz",
        "ec",
        "ee",
        "eg",
        "er",
        "es",
        "et",
        "eu",
        "fi",
        "fj",
        "fk",
        "fm",
        "fo",
        "fr",
        "ga",
        "gd",
        "ge",
        "gf",
        "gg",
        "gh",
        "gi",
        "gl",
        "gm",
        "gn",
        "gp",
        "gq",
        "gr",
        "gt",
        "gu",
        "gw",
        "gy",
        "hk",
        "hm",
        "hn",
        "hr",
        "ht",
        "hu",
        "id",
        "ie",
        "il",
        "im",
        "in",
        "io",
        "iq",
        "ir",
        "is",
        "it",
        "je",
        "jm",
        "jo",
        "jp",
        "ke",
        "kg",
        "kh",
        "ki",
        "km",
        "kn",
        "kp",
        "kr",
        "kw",
        "ky",
        "kz",
        "la",
        "lb",
        "lc",
        "li",
        "lk",
        "lr",
        "ls",
        "lt",
        "lu",
        "lv",
        "ly",
        "ma",
        "mc",
        "me",
        "mg",
        "mh",
        "mk",
        "ml",
        "mm",
        "mn",
        "mo",
        "mp",
        "mq",
        "mr",
        "ms",
        "mt",
        "mu",
        "mv",
        "mw",
        "mx",
        "my",
        "mz",
        "na",
        "nc",
        "ne",
        "nf",
        "ng",
        "ni",
        "nl",
        "no",
        "np",
        "nr",
        "nu",
        "nz",
        "om",
        "pa",
        "pe",
        "pf",
        "pg",
        "ph",
        "pk",
        "pl",
        "pm",
        "pn",
        "pr",
        "ps",
        "pt",
        "pw",
        "qa",
        "re",
        "ro",
        "rs",
        "ru",
        "rw",
        "sa",
        "sb",
        "sc",
        "sd",
        "se",
        "sg",
        "si",
        "sk",
        "sl",
        "sm",
        "sn",
        "so",
        "sr",
        "ss",
        "st",
        "su",
        "sv",
        "sx",
        "sy",
        "sz",
        "tc",
        "td",
        "tf",
        "tg",
        "th",
        "tj",
        "tk",
        "tl",
        "tm",
        "tn",
        "to",
        "tr",
        "tt",
        "tv",
        "tw",
        "tz",
        "ua",
        "ug",
        "uk",
        "us",
        "uy",
        "uz",
        "va",
        "vc",
        "ve",
        "vg",
        "vi",
        "vn",
        "vu",
        "wf",
        "ws",
        "ye",
        "yt",
        "za",
        "zm",
        "zw",
    ]
) - {"do", "in", "is", "as", "it", "id", "name"} | {"it", "in"}
"""Last labels of domains that mail is sent to (IANA's root zone: countries, and the generic ones in wide use), less words of code."""

_EXAMPLE_HOST = re.compile(
    r"(?:.*\.)?(?:example(?:\.\w+){0,2}|test|invalid|localhost|local)|(?:.*\.)?(?:domain|email|yourdomain|company|host)\.(?:com|org|net|tld)"
)
_NO_PERSON = frozenset(("git", "hg", "svn", "user", "username", "you", "your", "name", "email", "someone", "somebody", "foo", "bar", "xxx"))


def is_mailbox(local: str, domain: str) -> bool:
    """Return whether an e-mail address may be somebody's.

    >>> is_mailbox("ada", "mail.corp.io"), is_mailbox("icon", "2x.png"), is_mailbox("git", "github.com"), is_mailbox("ada", "example.com")
    (True, False, False, False)
    """
    labels = domain.lower().split(".")
    if len(labels) < 2 or labels[-1] not in DOMAINS or labels[-1] in FILE_ENDINGS or _EXAMPLE_HOST.fullmatch(domain.lower()):
        return False
    if any(not label or label[0] == "-" or label[-1] == "-" or len(label) > 63 for label in labels):
        return False
    return not (
        local.lower() in _NO_PERSON
        or local.startswith(".")
        or local.endswith(".")
        or ".." in local
        or (len(set(local)) == 1 and len(local) > 2)
    )


def is_jwt(value: str) -> bool:
    """Return whether the first part of a value is the header of a JSON web token."""
    header = _decoded(value.partition(".")[0])
    try:
        parsed = json.loads(header) if header else None
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and ("alg" in parsed or "enc" in parsed or "typ" in parsed)


def is_discord_user(value: str) -> bool:
    """Return whether the first part of a value is a number in Base64, as Discord's bot tokens begin."""
    return (_decoded(value.partition(".")[0]) or b"x").isdigit()


def is_basic_login(value: str) -> bool:
    """Return whether a value is ``user:password`` in Base64, with a password that is no placeholder."""
    user, colon, password = (_decoded(value) or b"").partition(b":")
    return bool(
        user and colon and password.isascii() and password.decode().isprintable() and password and not is_placeholder(password.decode())
    )


@functools.lru_cache(256)
def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value.rstrip("=").encode() + b"=" * (-len(value.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
