"""The kinds of secrets and personal data: one table of what each looks like.

A row has an *anchor*, a short pattern that every find begins with; a *rest*, which is matched behind the anchor; and a *gate*, a plain
pattern that holds wherever anchor and rest do, for engines that know neither lookaround nor references. The finds of a row are, by
definition, all places where anchor and rest match and `span` names a stretch, so that every engine that meets each such place gives the
same. Shapes of tokens are those that the services publish, or that they register with GitHub's secret scanning.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from data_prep import secret_values as values

Stretch = tuple[int, int]
Match = re.Match[str]


def _secret(match: Match) -> Stretch | None:
    """Return what a match holds; the whole where there is no group ``secret``."""
    start, end = match.span("secret") if "secret" in match.re.groupindex else match.span()
    return None if values.is_placeholder(match.string[start:end]) else (start, end)


@dataclasses.dataclass(frozen=True)
class Shape:
    """One row: a kind, and one way in which it is written.

    `guard` looks at what stands before the anchor; `words` are what the anchor begins with, in small letters, or none; `reach` is the
    length in characters that anchor and gate have at most.
    """

    kind: str
    anchor: str
    rest: str
    gate: str
    words: tuple[str, ...] = ()
    span: Callable[[Match], Stretch | None] = _secret
    guard: str = ""
    reach: int = 160

    @property
    def gate_pattern(self) -> str:
        """What an engine looks for: it begins where the anchor does, and is at most `reach` characters long."""
        return f"(?:{self.anchor}){self.gate}"

    @property
    def pattern(self) -> str:
        """What decides, where an engine found the gate."""
        return f"{self.guard}(?:{self.anchor}){self.rest}"


LEFT = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))"
"""What a token stands behind: no letter or digit, unless that is the letter of an escape in a string."""


def _token(kind: str, prefixes: str, rest: str, gate: str = r"[\w.-]{6}", span: Callable[[Match], Stretch | None] = _secret) -> Shape:
    """Return the row of tokens that begin with one of some fixed texts, given with blanks between them."""
    words = tuple(prefixes.split())
    anchor = "|".join(map(re.escape, words))
    return Shape(kind, anchor, rest, gate, tuple(word.lower() for word in words), span, LEFT, max(map(len, words)) + 16)


def _checked(check: Callable[[str], bool]) -> Callable[[Match], Stretch | None]:
    """Return the stretch of a match whose text passes a check."""

    def stretch(match: Match) -> Stretch | None:
        found = _secret(match)
        return found if found and check(match.string[found[0] : found[1]]) else None

    return stretch


def _mailbox(match: Match) -> Stretch | None:
    """Return an e-mail address around its ``@``: walk back over the name, and judge what stands on either side."""
    text, at = match.string, match.start()
    before = text[max(0, at - 65) : at]
    local = before[len(before.rstrip(_LOCAL)) :]
    start = at - len(local)
    if start and text[start - 1] == "\\" and (len(before) - len(before.rstrip("\\" + _LOCAL))):
        local = local[1:]  # the letter of an escape, as in "\\nada@..."
        start += 1
    local, start = local.lstrip(".-+'%"), start + len(local) - len(local.lstrip(".-+'%"))
    domain = match["domain"]
    if not local or len(local) > 64 or not values.is_mailbox(local, domain):
        return None
    if re.search(r"://[^\s/]{0,80}$", text[max(0, start - 80) : start]) or text.startswith((":~", ":/"), match.end()):
        return None
    return start, match.end()


_LOCAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-"
_VERSION_BEFORE = re.compile(
    r"(?:version|\bver|\bv|release|revision|rev|build|[=~^><]=|~>|\boid|\b(?:chrome|firefox|safari))\W{0,3}$|[\w)][/-]$", re.IGNORECASE
)
_OID = re.compile(r"[0-2]\.(?:[0-9]|[1-3][0-9])\.\d+\.\d+")


def _ip_address(match: Match) -> Stretch | None:
    """Return an IP address that is nobody's version, mask or example."""
    start, end = match.span()
    found = match.string[start:end]
    if not values.is_address(found):
        return None
    around = match.string[max(0, start - 24) : start]
    if ":" not in found and (_OID.fullmatch(found) or _VERSION_BEFORE.search(around.rpartition("\n")[2])):
        return None
    return start, end


_NOT_A_VALUE = re.compile(
    r"(?:izer|ization|ize[ds]?|ing|s|less|ed|ist|ive|arial|ary)?(?:$|[_.-].*)|.*(?:type|name|file|path|url|uri|hash|length|len|size|count|field|label|regex|pattern|prefix|header"
    r"|hint|error|policy|expir\w*|ttl|id|ids|text|title|message|placeholder|format|class|element|input|selector|env|var|variable|param|arn"
    r"|version|algorithm|sha\d*|md5|checksum|digest|integrity|fingerprint|thumbprint|index|limit|max|min|usage|address|provider|store|location)$",
    re.IGNORECASE,
)
_PUBLIC_NAME = re.compile(
    r"(?:public|csrf|xsrf|next|prev\w*|page|continuation|sync|cursor|hash\w*|sha\d*|md5|checksum|bos|eos|pad|unk|mask|sep|cls|cache|foreign|primary)[_.-]?$",
    re.IGNORECASE,
)


def _named(judge: Callable[[str, bool], bool], quoted: bool) -> Callable[[Match], Stretch | None]:
    """Return the value of an assignment whose name is that of a secret and whose value `judge` takes for one."""

    def stretch(match: Match) -> Stretch | None:
        start, end = match.span("secret")
        tail = match["tail"]
        if tail and (tail[0].islower() or _NOT_A_VALUE.fullmatch(tail)) and not tail.lower().startswith("key"):
            return None
        if _PUBLIC_NAME.search(match.string[max(0, match.start() - 16) : match.start()]):
            return None
        return (start, end) if judge(match.string[start:end], quoted) else None

    return stretch


def _key_value(value: str, quoted: bool) -> bool:
    """Return whether the value of a name such as ``api_key`` is one."""
    return values.is_key(value)


_NAME = r"(?P<tail>[\w.\-]{0,24}?)"
_CLOSE = r"""(?:\\{0,2}["'`])?[\])]{0,2}"""
_TYPE = r"""(?:\[\d{0,4}\])?(?:[ \t]{0,4}:[ \t]{0,2}[A-Za-z&][A-Za-z0-9_<>&\[\]?.' ]{0,24})?"""
_OPERATOR = r"""[ \t]{0,16}(?::=|=>|<-|\?=|={1,3}|!={1,2}|:|,|\(|[ \t]value=|[ \t]content=|[ \t])[ \t]{0,16}"""
_QUOTED = r"""(?:[A-Za-z&@]{0,2})(?P<q>\\{0,2}["'`])(?P<secret>(?:\\[^\r\n]|[^\\\s]){4,256}?)(?P=q)"""
_BARE_OPERATOR = r"""(?:[ \t]{0,16}(?:\?|:)?[=:][ \t]{0,16}|>|[ \t]{1,2})"""
_BARE = r"""(?P<secret>[^\s"'`,;&<>(){}\[\]$|\\]{6,256})(?=[\s,;&<"'`)\]}|\\]|$)"""
_PASSWORD_WORDS = r"(?i:passw(?:or)?d|passwort|passphrase|passcode|pwd|pass)"
_KEY_WORDS = r"(?i:secret|token|credentials?|key)"
_KEY_OWNERS = (
    "api",
    "app",
    "access",
    "auth",
    "private",
    "encryption",
    "signing",
    "account",
    "consumer",
    "master",
    "shared",
    "secret",
    "client",
    "session",
    "license",
    "subscription",
)
_OWNED = "(?i:(?=[stc])|" + "|".join(f"(?<={owner}{joint})" for owner in _KEY_OWNERS for joint in ("", "_", "-", ".", " ")) + ")"


def _assignments() -> tuple[Shape, ...]:
    """Return the rows of names with values: quoted, and bare as in YAML, INI, shells, XML and query strings."""
    quoted = f"{_NAME}{_CLOSE}{_TYPE}{_OPERATOR}{_QUOTED}"
    bare = f"{_NAME}{_CLOSE}{_BARE_OPERATOR}{_BARE}"
    quoted_gate = r"[\w.\-]{0,24}" + _CLOSE + _TYPE + _OPERATOR + r"""[A-Za-z&@]{0,2}\\{0,2}["'`]"""
    bare_gate = r"[\w.\-]{0,24}" + _CLOSE + _BARE_OPERATOR + r"""[^\s"'`,;&<>(){}\[\]$|\\]{6}"""
    password, key = ("pass", "pwd"), ("secret", "token", "credential", "key")
    return (
        Shape("password", _PASSWORD_WORDS, quoted, quoted_gate, password, _named(values.is_password, True)),
        Shape("password", _PASSWORD_WORDS, bare, bare_gate, password, _named(values.is_password, False)),
        Shape("secret_key", _KEY_WORDS, quoted, quoted_gate, key, _named(_key_value, True), _OWNED),
        Shape("secret_key", _KEY_WORDS, bare, bare_gate, key, _named(_key_value, False), _OWNED),
    )


_END = r"(?![A-Za-z0-9])"
_WIDE = r"(?![A-Za-z0-9_-])"
_KEY_BLOCK = r"(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_LINE = r"""(?:\s|\\[nrt]|["'+,.*#|>;/]|\\$)"""


def _services() -> tuple[Shape, ...]:
    """Return the rows of services whose tokens say what they are."""
    return (
        _token("aws_access_key", "AKIA ASIA ABIA ACCA", r"[A-Z2-7]{16}" + _END, r"[A-Z2-7]{16}"),
        _token("github_token", "ghp_ gho_ ghu_ ghs_ ghr_", r"[A-Za-z0-9]{36,255}" + _END),
        _token("github_fine_grained_token", "github_pat_", r"[A-Za-z0-9]{22}_[A-Za-z0-9]{59}" + _END),
        _token(
            "gitlab_token", "glpat- gldt- glrt- glptt- glcbt- glsoat- glft- glagent- gloas-", r"[\w-]{20,128}(?:\.[\w.]{4,16})?" + _WIDE
        ),
        _token(
            "slack_token", "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxo- xoxc- xoxd- xapp- xoxe.xox", r"[\w.%-]{10,250}" + _END, r"[\w.%-]{8}"
        ),
        _token(
            "slack_webhook",
            "hooks.slack.com/",
            r"(?:services|workflows|triggers)/(?P<secret>[A-Za-z0-9_]{8,}/[A-Za-z0-9_]{8,}/[A-Za-z0-9_]{16,})",
            r"[swt]",
        ),
        _token("stripe_key", "sk_live_ sk_test_ rk_live_ rk_test_ whsec_", r"[A-Za-z0-9+/]{24,247}={0,2}" + _END),
        _token("google_api_key", "AIza", r"[\w-]{35}" + _WIDE, r"[\w-]{35}"),
        _token("google_oauth_secret", "GOCSPX- ya29. 1//0", r"[\w-]{24,250}" + _END),
        _token("openai_key", "sk-proj- sk-svcacct- sk-admin- sk-None-", r"[\w-]{20,220}" + _WIDE),
        _token("openai_key", "sk-", r"[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}" + _END, r"[A-Za-z0-9]{20}T3Blbk"),
        _token("anthropic_key", "sk-ant-", r"[a-z]{3,8}\d\d-[\w-]{60,200}" + _WIDE),
        _token("huggingface_token", "hf_ api_org_", r"[A-Za-z]{30,44}" + _END, r"[A-Za-z]{30}"),
        _token("npm_token", "npm_", r"[A-Za-z0-9]{36}" + _END),
        _token("pypi_token", "pypi-AgEIcHlwaS5vcmc pypi-AgENdGVzdC5weXBpLm9yZw", r"[\w-]{40,400}" + _WIDE),
        _token("docker_token", "dckr_pat_ dckr_oat_", r"[\w-]{20,64}" + _WIDE),
        _token("sendgrid_key", "SG.", r"[\w-]{16,32}\.[\w-]{16,64}" + _WIDE),
        _token("twilio_key", "SK", r"[0-9a-f]{32}" + _END, r"[0-9a-f]{8}"),
        _token("mailgun_key", "key- pubkey-", r"[0-9a-f]{32}" + _END, r"[0-9a-f]{8}"),
        _token("mailchimp_key", "-us", r"", r"\d", _mailchimp),
        _token("telegram_bot_token", ":AA", r"[\w-]{33}" + _WIDE, r"[\w-]{33}", _telegram),
        _token(
            "discord_webhook",
            "discord.com/api/ discordapp.com/api/",
            r"(?:v\d+/)?webhooks/(?P<secret>\d{17,20}/[\w-]{50,80})" + _WIDE,
            r"[vw]",
        ),
        _token(
            "azure_storage_key",
            "AccountKey= SharedAccessKey= sharedaccesskey= accountkey=",
            r"(?P<secret>[A-Za-z0-9+/]{40,90}={1,2})",
            r"[A-Za-z0-9+/]{8}",
        ),
        _token("digitalocean_token", "dop_v1_ doo_v1_ dor_v1_", r"[0-9a-f]{64}" + _END),
        _token("shopify_token", "shpat_ shpca_ shppa_ shpss_", r"[0-9a-fA-F]{32}" + _END),
        _token("square_token", "sq0atp- sq0csp- sq0idp- EAAA", r"[\w-]{22,60}" + _WIDE, r"[\w-]{22}"),
        _token("databricks_token", "dapi", r"[0-9a-f]{32}(?:-\d)?" + _END, r"[0-9a-f]{16}"),
        _token("vault_token", "hvs. hvb. hvr.", r"[\w-]{24,200}" + _WIDE),
        _token("atlassian_token", "ATATT3xFfGF0 ATBB ATCTT3xFfGN0", r"[\w=-]{24,240}" + _WIDE, r"[\w=-]{24}"),
        _token("grafana_token", "glsa_ glc_", r"[A-Za-z0-9+/_]{32,160}={0,2}" + _END),
        _token("newrelic_key", "NRAK- NRII- NRJS-", r"[\w-]{19,42}" + _WIDE),
        _token("age_key", "AGE-SECRET-KEY-1", r"[02-9AC-HJ-NP-Z]{58}" + _END),
        _token("postman_key", "PMAK-", r"[0-9a-f]{24}-[0-9a-f]{34}" + _END),
        _token("groq_key", "gsk_", r"[A-Za-z0-9]{52}" + _END),
        _token("replicate_token", "r8_", r"[A-Za-z0-9]{37}" + _END),
        _token("linear_key", "lin_api_ lin_oauth_", r"[A-Za-z0-9]{40}" + _END),
        _token("notion_token", "ntn_ secret_", r"[A-Za-z0-9]{43,46}" + _END, r"[A-Za-z0-9]{40}"),
        _token("rubygems_key", "rubygems_", r"[0-9a-f]{48}" + _END),
        _token(
            "json_web_token", "eyJ", r"[\w-]{8,2000}\.[\w-]{8,6000}(?:\.[\w-]{8,1000}){1,3}" + _WIDE, r"[\w-]{8}", _checked(values.is_jwt)
        ),
    )


def _telegram(match: Match) -> Stretch | None:
    """Return a bot token with the number of the bot, which stands before the colon."""
    number = re.search(r"(?<![A-Za-z0-9_])[1-9]\d{7,9}$", match.string[max(0, match.start() - 12) : match.start()])
    return (match.start() - len(number[0]), match.end()) if number else None


def _mailchimp(match: Match) -> Stretch | None:
    """Return a key with the 32 digits that stand before its data centre."""
    digits = re.search(r"(?<![A-Za-z0-9])[0-9a-f]{32}$", match.string[max(0, match.start() - 33) : match.start()])
    return (match.start() - 32, match.end()) if digits else None


def _key_block(match: Match) -> Stretch | None:
    """Return the whole of a private key; a header alone, with no key behind it, is none."""
    body = match["body"]
    runs = re.findall(r"[A-Za-z0-9+/=]{16,}", body.replace("\\n", " "))
    return match.span() if sum(len(run) for run in runs if not values.is_placeholder(run)) >= 32 else None


def _others() -> tuple[Shape, ...]:
    """Return the rows of what has no fixed text within the secret."""
    begin, run = r"-----BEGIN ", r"[A-Za-z0-9+/=]"
    body = rf"(?:(?!-----){run}|(?!-----)[():\- @]|{_LINE}){{40,20000}}?"
    cut = rf"(?:{_LINE}|[A-Za-z-]{{1,20}}: [^\r\n\\\"']{{1,80}})*{run}{{40,}}(?:{_LINE}{{1,16}}{run}{{4,}})*"
    block = rf"{_KEY_BLOCK}(?P<body>{body}-----END {_KEY_BLOCK}|{cut})"
    login = r"""[^\s:@/"'`<>\\]{0,64}:(?P<secret>[^\s@/"'`<>\\]{2,128})@(?=[\w\[{$%.-])"""
    bearer = r"""[ \t]{1,4}(?P<secret>[A-Za-z0-9_.~+/=-]{16,2000})(?![A-Za-z0-9_.~+/=-])"""
    basic = r"""[ \t]{1,4}(?P<secret>[A-Za-z0-9+/]{8,200}={0,2})(?![A-Za-z0-9+/=])"""
    aws = (
        r"""[\w.\- ]{0,24}(?i:secret|sk)[\w.\-]{0,24}?"""
        + _CLOSE
        + _TYPE
        + rf"""(?:{_OPERATOR})\\{{0,2}}["'`]?(?P<secret>[A-Za-z0-9/+]{{40}})(?![A-Za-z0-9/+=])"""
    )
    granted = r"""(?i:[ \t]{1,4}(?:by|with \w{1,24} by|using)[ \t]{1,4})(?i:password[ \t]{1,4})?["'](?P<secret>[^\s"']{4,128})["']"""
    user = r"""(?:ser)?[ \t]{1,4}["']?[\w.@+-]{1,64}:(?P<secret>[^\s"'`$<>\\]{4,128})(?=[\s"'])"""
    part = r"[\w-]"
    return (
        Shape("private_key", begin, block, r"[A-Z0-9 ]{0,39}PRIVATE KEY", (begin.lower(),), _key_block),
        Shape("url_password", "://", login, r"""[^\s:@/"'`<>\\]{0,64}:[^\s@/"'`<>\\]{2,128}@""", ("://",), reach=200),
        Shape(
            "aws_secret_key",
            "(?i:aws)",
            aws,
            r"""[\w.\- ]{0,24}(?i:secret|sk)[\w.\-]{0,24}[^\n]{0,40}[A-Za-z0-9/+]{40}""",
            ("aws",),
            _checked(values.is_key),
            reach=260,
        ),
        Shape("secret_key", "(?i:bearer)", bearer, r"[ \t]{1,4}[A-Za-z0-9_.~+/=-]{16}", ("bearer",), _checked(values.is_key)),
        Shape("password", "(?i:basic)", basic, r"[ \t]{1,4}[A-Za-z0-9+/]{8}", ("basic",), _checked(values.is_basic_login)),
        Shape("password", "(?i:identified)", granted, r"(?i:[ \t]{1,4}(?:by|with|using))", ("identified",), _checked(_quoted_password)),
        Shape(
            "password", "(?:-u|--u)", user, r"(?:ser)?[ \t]{1,4}[^\s:]{1,65}:[^\s]{4}", ("-u",), _checked(_bare_password), r"(?<=[\s\[])"
        ),
        Shape("discord_token", rf"\.{part}{{6}}\.", rf"{part}{{27,38}}" + _WIDE, rf"{part}{{27}}", (), _discord),
        Shape(
            "email",
            "@",
            r"(?P<domain>[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?){0,8}\.[A-Za-z]{2,24})(?![\w@(]|\.\w|-\w)",
            r"[A-Za-z0-9][A-Za-z0-9-]{0,63}\.[A-Za-z0-9]",
            ("@",),
            _mailbox,
            r"(?<=[A-Za-z0-9_%+.-])",
        ),
        Shape("ip_address", r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d", r"\d{0,2}(?![\w-]|\.\w)", "", (), _ip_address, r"(?<![A-Za-z0-9_.])", 13),
        Shape(
            "ip_address",
            r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]",
            r"[0-9A-Fa-f:]{2,36}(?![\w:])",
            "[0-9A-Fa-f:]{2}",
            (),
            _ip_address,
            r"(?<![A-Za-z0-9_.:])",
            16,
        ),
    )


def _quoted_password(value: str) -> bool:
    return values.is_password(value, True)


def _bare_password(value: str) -> bool:
    return values.is_password(value, False)


def _discord(match: Match) -> Stretch | None:
    """Return a bot token with the number of the bot in Base64, which stands before the first dot."""
    number = re.search(r"(?<![\w-])[\w-]{23,28}$", match.string[max(0, match.start() - 29) : match.start()])
    return (match.start() - len(number[0]), match.end()) if number and values.is_discord_user(number[0]) else None


SHAPES: tuple[Shape, ...] = (*_services(), *_others(), *_assignments())
"""All rows. Where finds overlap, the row that stands first here names the kind."""

KINDS: tuple[str, ...] = tuple(dict.fromkeys(shape.kind for shape in SHAPES))

LABELS: dict[str, str] = {"email": "EMAIL", "ip_address": "IP_ADDRESS", "password": "PASSWORD", "url_password": "PASSWORD"}
"""The class of a kind, in the words of StarPII; all others are a ``KEY``."""


def label_of(kind: str) -> str:
    """Return the class of a kind: EMAIL, IP_ADDRESS, PASSWORD, KEY, NAME or USERNAME.

    >>> label_of("email"), label_of("github_token"), label_of("person_name")
    ('EMAIL', 'KEY', 'NAME')
    """
    return {"person_name": "NAME", "user_name": "USERNAME"}.get(kind) or LABELS.get(kind, "KEY")
