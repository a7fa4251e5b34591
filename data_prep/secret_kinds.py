"""The kinds of secrets and personal data: one table of what each looks like.

Shapes of tokens are those that the services publish, or register with GitHub's secret scanning; checksums within tokens are not asked
for, so that a damaged token is hidden too.
"""

from __future__ import annotations

import re

from data_prep import secret_values as values
from data_prep.addresses import LETTERS, ip_address, mailbox
from data_prep.secret_names import CLOSE, OPERATOR, TYPE, assignments
from data_prep.secret_shapes import END, WIDE_END, Match, Shape, Stretch, checked, token

_SLACK = r"(?:services|workflows|triggers)/(?P<secret>[A-Za-z0-9_]{8,16}/[A-Za-z0-9_]{8,20}/[A-Za-z0-9_]{16,64})"
_SLACK_TOKENS = "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxo- xoxc- xoxd- xapp- xoxe.xox"
_GITLAB = "glpat- gldt- glrt- glptt- glcbt- glsoat- glft- glagent- gloas-"
_NOT_SO = r"(?<![\w~.-])"
_JWT = r"[\w-]{8,2000}\.[\w-]{8,6000}(?:\.[\w-]{8,1000}){1,3}"


def _telegram(match: Match) -> Stretch | None:
    """Return a bot token with the number of the bot, which stands before the colon."""
    number = re.search(r"(?<![A-Za-z0-9_])[1-9]\d{7,9}$", match.string[max(0, match.start() - 12) : match.start()])
    return (match.start() - len(number[0]), match.end()) if number else None


def _mailchimp(match: Match) -> Stretch | None:
    """Return a key with the 32 digits that stand before its data centre."""
    digits = re.search(r"(?<![A-Za-z0-9])[0-9a-f]{32}$", match.string[max(0, match.start() - 33) : match.start()])
    return (match.start() - 32, match.end()) if digits else None


def _discord(match: Match) -> Stretch | None:
    """Return a bot token with the number of the bot in Base64, which stands before the first dot."""
    number = re.search(r"(?<![\w-])[\w-]{23,28}$", match.string[max(0, match.start() - 29) : match.start()])
    return (match.start() - len(number[0]), match.end()) if number and values.is_discord_user(number[0]) else None


def _key_block(match: Match) -> Stretch | None:
    """Return the whole of a private key; a header alone, with no key behind it, is none."""
    runs = re.findall(r"[A-Za-z0-9+/=]{16,}", match["body"].replace("\\n", " "))
    return match.span() if sum(len(run) for run in runs if not values.is_placeholder(run)) >= 32 else None


def _hosts_and_clouds() -> tuple[Shape, ...]:
    """Return the rows of code hosts, package indexes and clouds whose tokens say what they are."""
    return (
        token("aws_access_key", "AKIA ASIA ABIA ACCA", r"[A-Z2-7]{16}" + END, r"[A-Z2-7]{16}", checked(values.is_varied)),
        token("github_token", "ghp_ gho_ ghu_ ghs_ ghr_", r"[A-Za-z0-9]{36,255}" + END),
        token("github_fine_grained_token", "github_pat_", r"[A-Za-z0-9]{22}_[A-Za-z0-9]{59}" + END),
        token("gitlab_token", _GITLAB, r"[\w-]{20,128}(?:\.[\w.]{4,16})?" + WIDE_END),
        token("google_api_key", "AIza", r"[\w-]{35}" + WIDE_END, r"[\w-]{35}"),
        token("google_oauth_secret", "GOCSPX- ya29. 1//0", r"[\w-]{24,250}" + END),
        token("openai_key", "sk-proj- sk-svcacct- sk-admin- sk-None-", r"[\w-]{20,220}" + WIDE_END),
        token("openai_key", "sk-", r"[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}" + END, r"[A-Za-z0-9]{20}T3Blbk"),
        token("anthropic_key", "sk-ant-", r"[a-z]{3,8}\d\d-[\w-]{60,200}" + WIDE_END),
        token("huggingface_token", "hf_ api_org_", r"[A-Za-z]{30,44}" + END, r"[A-Za-z]{30}"),
        token("npm_token", "npm_", r"[A-Za-z0-9]{36}" + END),
        token("pypi_token", "pypi-AgEIcHlwaS5vcmc pypi-AgENdGVzdC5weXBpLm9yZw", r"[\w-]{40,400}" + WIDE_END),
        token("docker_token", "dckr_pat_ dckr_oat_", r"[\w-]{20,64}" + WIDE_END),
        Shape(
            "azure_client_secret",
            r"[A-Za-z0-9_~.-]{3}\dQ~",
            r"[\w~.-]{31,34}(?![\w~.-])",
            r"[\w~.-]{31}",
            (),
            checked(values.is_token),
            _NOT_SO,
        ),
        token("azure_storage_key", "AccountKey= SharedAccessKey=", r"(?P<secret>[A-Za-z0-9+/]{40,90}={1,2})", r"[A-Za-z0-9+/]{8}"),
        token("digitalocean_token", "dop_v1_ doo_v1_ dor_v1_", r"[0-9a-f]{64}" + END),
        token("databricks_token", "dapi", r"[0-9a-f]{32}(?:-\d)?" + END, r"[0-9a-f]{16}"),
        token("vault_token", "hvs. hvb. hvr.", r"[\w-]{24,200}" + WIDE_END),
        token("groq_key", "gsk_", r"[A-Za-z0-9]{52}" + END),
        token("replicate_token", "r8_", r"[A-Za-z0-9]{37}" + END),
        token("sourcegraph_token", "sgp_", r"(?:[0-9A-Fa-f]{16}_|local_)?[0-9a-fA-F]{40}" + END),
        token("sonar_token", "sqp_ squ_ sqa_", r"[0-9a-f]{40}" + END),
        token("fly_token", "fm1r_ fm2_ fo1_", r"[A-Za-z0-9+/_-]{40,1000}={0,2}" + END),
        token("planetscale_token", "pscale_tkn_ pscale_pw_ pscale_oauth_", r"[\w.=-]{32,64}" + WIDE_END),
        token("heroku_key", "HRKU-", r"[\w-]{36,64}" + WIDE_END),
        token("rubygems_key", "rubygems_", r"[0-9a-f]{48}" + END),
    )


def _services() -> tuple[Shape, ...]:
    """Return the rows of other services whose tokens say what they are."""
    return (
        token("slack_token", _SLACK_TOKENS, r"[\w.%-]{10,250}" + END, r"[\w.%-]{8}"),
        token("slack_webhook", "hooks.slack.com/", _SLACK, r"[swt]"),
        token("stripe_key", "sk_live_ sk_test_ rk_live_ rk_test_ whsec_", r"[A-Za-z0-9+/]{24,247}={0,2}" + END),
        token("sendgrid_key", "SG.", r"[\w-]{16,32}\.[\w-]{16,64}" + WIDE_END, r"[\w-]{16}"),
        token("twilio_key", "SK", r"[0-9a-f]{32}" + END, r"[0-9a-f]{32}"),
        token("mailgun_key", "key- pubkey-", r"[0-9a-f]{32}" + END, r"[0-9a-f]{8}"),
        Shape("mailchimp_key", "-us", r"\d{1,2}" + END, r"\d", ("-us",), _mailchimp, r"(?<=[0-9a-f])"),
        Shape("telegram_bot_token", ":AA", r"[\w-]{33}" + WIDE_END, r"[\w-]{33}", (":aa",), _telegram, r"(?<=\d)"),
        Shape("discord_token", r"\.[\w-]{6}\.", r"[\w-]{27,38}" + WIDE_END, r"[\w-]{27}", (), _discord),
        token("discord_webhook", "discord.com/api/ discordapp.com/api/", r"(?:v\d+/)?webhooks/(?P<secret>\d{17,20}/[\w-]{50,80})", r"[vw]"),
        token("shopify_token", "shpat_ shpca_ shppa_ shpss_", r"[0-9a-fA-F]{32}" + END),
        token("square_token", "sq0atp- sq0csp- sq0idp- EAAA", r"[\w-]{22,60}" + WIDE_END, r"[\w-]{22}"),
        token("atlassian_token", "ATATT3xFfGF0 ATBB ATCTT3xFfGN0", r"[\w=-]{24,240}" + WIDE_END, r"[\w=-]{24}"),
        token("grafana_token", "glsa_ glc_", r"[A-Za-z0-9+/_]{32,160}={0,2}" + END),
        token("newrelic_key", "NRAK- NRII- NRJS-", r"[\w-]{19,42}" + WIDE_END),
        token("age_key", "AGE-SECRET-KEY-1", r"[02-9AC-HJ-NP-Z]{58}" + END),
        token("postman_key", "PMAK-", r"[0-9a-f]{24}-[0-9a-f]{34}" + END),
        token("linear_key", "lin_api_ lin_oauth_", r"[A-Za-z0-9]{40}" + END),
        token("notion_token", "ntn_ secret_", r"[A-Za-z0-9]{43,46}" + END, r"[A-Za-z0-9]{40}"),
        token("onepassword_token", "ops_eyJ", r"[\w-]{200,4000}={0,2}"),
        token("sentry_token", "sntrys_eyJ sntryu_", r"[A-Za-z0-9+/=_-]{40,400}" + END),
        token("facebook_token", "EAACEdEose0cBA EAAG EAAM", r"[A-Za-z0-9]{60,300}" + END, r"[A-Za-z0-9]{40}"),
        token("json_web_token", "eyJ", _JWT + WIDE_END, r"[\w-]{8}", checked(values.is_jwt)),
    )


_KEY_HEADER = r"(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_RUN = r"[A-Za-z0-9+/=]"
_BREAK = r"""(?:[\s"',.*#|>;]|\\[nrt\r\n])"""
_WHOLE_KEY = rf"""(?:(?!-----)[A-Za-z0-9+/=():\-@\s"',.*#|>;]|\\[nrt\r\n]){{40,20000}}?-----END {_KEY_HEADER}"""
_KEY_FIELD = r"""[A-Za-z-]{1,20}: [^\r\n\\"']{1,80}+(?=[\r\n\\"']|$)"""
"""A line such as ``Proc-Type: 4,ENCRYPTED``: whole, so that there is one way to read it."""

_CUT_KEY = rf"(?:{_BREAK}|{_KEY_FIELD}){{0,64}}{_RUN}{{40,20000}}(?:{_BREAK}{{1,32}}{_RUN}{{4,20000}}){{0,400}}"
"""A key whose end is not in the text."""

_LOGIN = r"""[^\s:@/"'`<>\\]{0,64}:(?P<secret>[^\s@/"'`<>\\]{2,128})@(?=[\w\[{$%.-])"""
_LOGIN_GATE = r"""[^\s:@/"'`<>\\]{0,64}:[^\s@/"'`<>\\]{2,128}@"""
_BEARER = r"""[ \t]{1,4}(?P<secret>[A-Za-z0-9_.~+/=-]{16,2000})(?![A-Za-z0-9_.~+/=-])"""
_BASIC = r"""[ \t]{1,4}(?P<secret>[A-Za-z0-9+/]{8,200}={0,2})(?![A-Za-z0-9+/=])"""
_AWS = (
    r"[\w.\- ]{0,24}(?i:secret|sk)[\w.\-]{0,24}?"
    + f"{CLOSE}{TYPE}(?:{OPERATOR})"
    + r"""@?\\{0,2}["'`]?(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"""
)
_AWS_GATE = r"[\w.\- ]{0,24}(?i:secret|sk)[\w.\-]{0,24}[^\n]{0,70}[A-Za-z0-9/+]{40}"
_GRANTED = r"""(?i:[ \t]{1,4}(?:by|with \w{1,24} by|using)[ \t]{1,4})(?i:password[ \t]{1,4})?["'](?P<secret>[^\s"']{4,128})["']"""
_CURL = r"""(?:ser)?[ \t]{1,4}["']?[\w.@+-]{1,64}:["']?(?P<secret>[^\s"'`$<>\\]{4,128})(?=[\s"'])"""
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?"
_DOMAIN = rf"(?P<domain>{_LABEL}(?:\.{_LABEL}){{0,8}}\.[A-Za-z]{{2,24}})(?![\w@(]|\.\w|-\w)"


def _others() -> tuple[Shape, ...]:
    """Return the rows of what has no fixed text within the secret."""
    begin = "-----BEGIN "
    block = rf"{_KEY_HEADER}(?P<body>{_WHOLE_KEY}|{_CUT_KEY})"
    quad, six = r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d", r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]"
    return (
        Shape("private_key", begin, block, r"[A-Z0-9 ]{0,39}PRIVATE KEY", (begin.lower(),), _key_block),
        Shape("url_password", "://", _LOGIN, _LOGIN_GATE, ("://",), reach=200),
        Shape("aws_secret_key", "(?i:aws)", _AWS, _AWS_GATE, ("aws",), checked(values.is_key), reach=260),
        Shape("secret_key", "(?i:bearer)", _BEARER, r"[ \t]{1,4}[A-Za-z0-9_.~+/=-]{16}", ("bearer",), checked(values.is_key)),
        Shape("password", "(?i:basic)", _BASIC, r"[ \t]{1,4}[A-Za-z0-9+/]{8}", ("basic",), checked(values.is_basic_login)),
        Shape("password", "(?i:identified)", _GRANTED, r"(?i:[ \t]{1,4}(?:by|with|using))", ("identified",), checked(values.is_password)),
        Shape(
            "password", "-u|--u", _CURL, r"(?:ser)?[ \t]{1,4}[^\s:]{1,65}:\S{4}", ("-u", "--u"), checked(values.is_password), r"(?<=[\s\[])"
        ),
        Shape("email", "@", _DOMAIN, r"[A-Za-z0-9][A-Za-z0-9-]{0,63}\.[A-Za-z0-9]", ("@",), mailbox, f"(?<=[A-Za-z0-9_%+.{LETTERS}-])"),
        Shape("ip_address", quad, r"\d{0,2}(?![\w-]|\.\w)", "", (), ip_address, r"(?<![A-Za-z0-9_.])", 13),
        Shape("ip_address", six, r"[0-9A-Fa-f:]{1,36}(?![\w:])", "[0-9A-Fa-f:]", (), ip_address, r"(?<![A-Za-z0-9_.:])", 16),
    )


SHAPES: tuple[Shape, ...] = (*_hosts_and_clouds(), *_services(), *_others(), *assignments())
"""All rows. Where finds overlap, the row that stands first here names the kind."""

KINDS: tuple[str, ...] = tuple(dict.fromkeys(shape.kind for shape in SHAPES))

_LABELS = {
    "email": "EMAIL",
    "ip_address": "IP_ADDRESS",
    "password": "PASSWORD",
    "url_password": "PASSWORD",
    "person_name": "NAME",
    "user_name": "USERNAME",
}


def label_of(kind: str) -> str:
    """Return the class of a kind in the words of StarPII: EMAIL, IP_ADDRESS, PASSWORD, KEY, NAME or USERNAME.

    >>> label_of("email"), label_of("github_token"), label_of("person_name")
    ('EMAIL', 'KEY', 'NAME')
    """
    return _LABELS.get(kind, "KEY")
