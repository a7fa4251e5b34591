"""Which e-mail and IP addresses may be somebody's.

Pure: where one may stand in a text, and a verdict out. Left are what documents use as examples (RFC 2606, RFC 5737, RFC 3849), private and
special addresses, resolvers that everybody may use, and what only looks alike: versions, numbers of sections, OIDs, coordinates of SVG
paths, decorators, products of matrices, labels of Kotlin, ``name@2x.png``, ``git@github.com:``, ``pkg@1.2.3``.
"""

from __future__ import annotations

import ipaddress
import re

_ACCENTED = "".join(chr(code) for code in range(0xC0, 0x250) if chr(code).isalpha())
LETTERS = "\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
"""Latin letters beyond ASCII, as a range of regular expressions: of a name, before the ``@``, they are a part (RFC 6531)."""

_LOCAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-" + _ACCENTED
_RESOLVERS = """
8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 1.1.1.2 1.1.1.3 9.9.9.9 9.9.9.10 149.112.112.112 208.67.222.222 208.67.220.220 4.2.2.1 4.2.2.2 4.2.2.3
4.2.2.4 4.2.2.5 4.2.2.6 64.6.64.6 64.6.65.6 77.88.8.8 77.88.8.1 94.140.14.14 94.140.15.15 114.114.114.114 223.5.5.5 223.6.6.6
119.29.29.29 180.76.76.76 84.200.69.80 84.200.70.40 8.26.56.26 8.20.247.20 185.228.168.9 185.228.169.9 76.76.19.19 76.76.2.0
2001:4860:4860::8888 2001:4860:4860::8844 2606:4700:4700::1111 2606:4700:4700::1001 2620:fe::fe 2620:fe::9 2620:119:35::35
2620:119:53::53 2a10:50c0::ad1:ff 2a10:50c0::ad2:ff
"""
RESOLVERS = frozenset(_RESOLVERS.split())
"""Resolvers that anybody may use: nobody's address."""

_DOMAINS = """
com org net edu gov mil int info biz pro aero coop museum mobi asia cat jobs tel travel dev app page xyz online site tech store cloud email
group team works agency digital network systems solutions company software center world life live news blog shop club design studio space
website link zone tools codes security engineering science berlin london nyc google bank health care games
ac ad ae af ag ai al am ao ar at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd cf cg ch ci ck cl cm cn co cr cu
cv cw cx cy cz de dj dk dm dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge gf gg gh gi gl gm gn gp gq gr gt gu gw gy hk hm hn hr ht hu ie
il im in io iq ir it je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc me mg mh mk ml mm mn mo mp mq mr ms
mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr pt pw qa re ro rs ru rw sa sb sc sd se sg si sk sl
sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw
"""
DOMAINS = frozenset(_DOMAINS.split())
"""Last labels of domains that mail is sent to (IANA's root zone: countries, and generic ones in wide use), less endings of files
and words of code, which count only where an address stands as one (`MARKED_DOMAINS`)."""

MARKED_DOMAINS = DOMAINS | {"py", "sh", "md", "do", "is", "as", "id", "name"}
"""The same for ``<ada@lovelace.name>`` and behind ``mailto:``."""

_NOBODY = frozenset(("git", "hg", "svn", "user", "username", "you", "your", "name", "email", "someone", "somebody", "foo", "bar", "xxx"))
_EXAMPLE_HOST = re.compile(
    r"(?:.*\.)?(?:example(?:\.\w+){0,2}|test|invalid|localhost|local)"
    r"|(?:.*\.)?(?:domain|email|yourdomain|mydomain|company|yourcompany|host)\.(?:com|org|net|tld)"
)
_CODE_WORDS = frozenset(("this", "super", "self", "cls", "return"))
_PRODUCT_BEFORE = re.compile(r"(?:[^\s\w\"'`:;<>]|\breturn|\byield|\bnot|\band|\bor|\bin)[ \t]*$")
_IN_LINK = re.compile(r"://[^\s/]{0,80}$")
_VERSION_BEFORE = re.compile(
    r"(?:version|\bver|\bv|release|revision|\brev|build|[=~^><]=|~>|\boid|chrome|firefox|safari|sections?|sec|clauses?|chapter|§|\bV8 to"
    r"|update|upgrade|bump|deps)\W{0,4}$|[\w)][/-]$|(?<![\d.])-?\d*\.\d+[ ,-]$",
    re.IGNORECASE,
)
_ADDRESS_NEAR = re.compile(
    r"(?<![a-z])ips?(?:v[46])?(?![a-z])|addr|host|server|dns|client|peer|remote|proxy|gateway|subnet|route|listen|bind|\bssh\b|\bscp\b|\bping\b"
    r"|://[^\s/)]{0,64}$|connect|\ballow\b|\bdeny\b|\b(?:root|admin|ubuntu|ec2-user|deploy)@$",
    re.IGNORECASE,
)
_ADDRESS_BEHIND = re.compile(r":\d{2,5}\b|:/|/\d\d\b|[ \t]port\b")
_PIN_BEFORE = re.compile(r"[A-Za-z][:@]$|\bnode(?:js)? $|\bfrom [\w.-]+ to $", re.IGNORECASE)
_UPGRADE_BEHIND = re.compile(r" to v?\d+\.\d")
_IDENTIFIER = re.compile(r"(?:2\.5|1\.[23])\.\d+\.\d+")


MAX_NUMBERING, MAX_SMALL, MAX_MAJOR = 100, 32, 40
"""Numbers of sections and versions stay below the first, or three of four below the second; what is pinned or upgraded begins below the
third. Of random addresses with no word for them near, one of thirty is like that."""


def is_mailbox(local: str, domain: str, domains: frozenset[str] = DOMAINS) -> bool:
    """Return whether an e-mail address may be somebody's; `domains` are the last labels that count.

    >>> is_mailbox("ada", "mail.corp.io"), is_mailbox("icon", "2x.png"), is_mailbox("git", "github.com"), is_mailbox("ada", "example.com")
    (True, False, False, False)
    """
    labels = domain.lower().split(".")
    if len(labels) < 2 or labels[-1] not in domains or _EXAMPLE_HOST.fullmatch(domain.lower()):
        return False
    if not 0 < len(local) <= 64 or local.endswith(".") or ".." in local or local.lower() in _NOBODY:
        return False
    return len(set(local)) > 1 or len(local) < 3


def mailbox(match: re.Match[str]) -> tuple[int, int] | None:
    """Return the address around the ``@`` of a match: walk back over the name, and judge what stands on either side."""
    text, at = match.string, match.start()
    before = text[max(0, at - 65) : at]
    name = before[len(before.rstrip(_LOCAL)) :]
    start = at - len(name)
    if start and text[start - 1] == "\\":
        name = name[1:]  # the letter of an escape in a string, as in "\nada@..."
    name = name.lstrip(".-+%")
    start = at - len(name)
    marked = (text[start - 1 : start] == "<" and text.startswith(">", match.end())) or text.endswith("mailto:", max(0, start - 7), start)
    if not is_mailbox(name, match["domain"], MARKED_DOMAINS if marked else DOMAINS) or text.startswith((":~", ":/"), match.end()):
        return None
    if not marked and _is_product(match, start, name):
        return None
    return None if _IN_LINK.search(text[max(0, start - 80) : start]) else (start, match.end())


def _is_product(match: re.Match[str], start: int, name: str) -> bool:
    """Return whether ``name@domain`` is code: a product of matrices (``x @ w.to``) or a label (``this@Main.app``)."""
    text, labels = match.string, match["domain"].split(".")
    before, behind = text[max(0, start - 60) : start].rpartition("\n")[2], text[match.end() : match.end() + 1]
    if before[-1:] in ("'", '"', "`", "<") and behind in ("'", '"', "`", ">"):
        return False
    if name.partition(".")[0] in _CODE_WORDS or labels[0] in _CODE_WORDS or name.endswith(".T"):
        return True
    if labels[-1][0].islower() and not labels[-1].islower():
        return True
    if len(name) > 1:
        return False
    apart = (not before or before[-1] in " \t<\"'") and (not behind or behind in " \t\r\n>\"'")
    return len(labels[0]) == 1 or not apart or _PRODUCT_BEFORE.search(before) is not None


def is_address(value: str) -> bool:
    """Return whether an IP address may be somebody's: global, no resolver that all know, no network or mask.

    >>> [is_address(x) for x in ("93.184.216.34", "10.0.0.1", "8.8.8.8", "203.0.113.7", "2a00:1450:4001:81b::200e", "300.1.1.1")]
    [True, False, False, False, True, False]
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or address.is_reserved or str(address) in RESOLVERS:
        return False
    if address.version == 6:
        return not value.endswith("::")
    parts = value.split(".")
    return parts[2:] != ["0", "0"] and len(set(parts)) > 1 and any(len(part) > 1 for part in parts)


def ip_address(match: re.Match[str]) -> tuple[int, int] | None:
    """Return the IP address of a match, unless it is a version or a number of another sort by what stands around it."""
    found, (start, end), text = match[0], match.span(), match.string
    if not is_address(found):
        return None
    if ":" in found:
        return start, end
    line, behind = text[max(0, start - 60) : start].rpartition("\n")[2], text[end : end + 16]
    if _VERSION_BEFORE.search(line) or _IDENTIFIER.fullmatch(found):
        return None
    if _ADDRESS_NEAR.search(line) or _ADDRESS_BEHIND.match(behind):
        return start, end
    numbers = [int(number) for number in found.split(".")]
    if max(numbers) < MAX_NUMBERING or sum(number < MAX_SMALL for number in numbers) >= 3:
        return None
    upgraded = line.endswith("from ") and _UPGRADE_BEHIND.match(behind)
    return None if numbers[0] < MAX_MAJOR and (upgraded or _PIN_BEFORE.search(line)) else (start, end)
