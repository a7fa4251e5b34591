"""The labelled set: texts of 50 languages and formats, with every secret in them marked; made by code from a seed.

Nothing that looks alive stands in the repository: each secret is drawn when the set is built. Positives are each kind of secret in
templates of languages (`secret_templates`); negatives are shapes of real files that look alike (`secret_negatives`).
"""

from __future__ import annotations

import base64
import ipaddress
import json
import random
from collections.abc import Callable
from typing import NamedTuple

from secret_negatives import ALNUM, BASE64, HEX, NEGATIVES, chars
from secret_templates import BARE, HOSTS, PROSE, QUOTED

PER_TOKEN, PER_NAMED, PER_NEGATIVE = 10, 160, 9
UPPER, LOWER, DIGITS, SYMBOLS = ALNUM[:26], ALNUM[26:52], ALNUM[52:], "!@#%^*-_+=.?~"
WIDE = ALNUM + "_-"

SIMILAR = {
    "secret_key": {"aws_secret_key", "azure_storage_key", "json_web_token"},
    "url_password": {"password"},
    "password": {"url_password"},
}
"""Kinds that also describe a secret of this kind."""


BLOCKS = {"PEM": "{v}\n", "Python": 'KEY = """{v}"""\n', "Go": "const key = `{v}`\n", "Markdown": "```\n{v}\n```\n"}


class Case(NamedTuple):
    """A text, its language or format, where its secrets are, and the kind; for a negative the shape that it has."""

    text: str
    language: str
    spans: tuple[tuple[int, int], ...]
    kind: str

    @property
    def is_positive(self) -> bool:
        """Whether there is a secret in it."""
        return bool(self.spans)


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode().rstrip("=")


def _jwt(rng: random.Random) -> str:
    header = {"alg": rng.choice(("HS256", "RS256")), "typ": "JWT"}
    return f"{_encoded(header)}.{_encoded({'sub': chars(rng, DIGITS, 10), 'iat': rng.randint(10**9, 2 * 10**9)})}.{chars(rng, WIDE, 43)}"


def _key_block(rng: random.Random) -> str:
    kind = rng.choice(("RSA ", "EC ", "OPENSSH ", "", "DSA ", "ENCRYPTED "))
    joint = rng.choice(("\n", "\\n"))
    lines = [chars(rng, BASE64, 64) for _ in range(rng.randint(3, 20))] + [chars(rng, BASE64, 26) + "=="]
    return joint.join((f"-----BEGIN {kind}PRIVATE KEY-----", *lines, f"-----END {kind}PRIVATE KEY-----"))


def _pgp_block(rng: random.Random) -> str:
    lines = ["", *(chars(rng, BASE64, 64) for _ in range(12)), f"={chars(rng, BASE64, 4)}"]
    return "\n".join(("-----BEGIN PGP PRIVATE KEY BLOCK-----", *lines, "-----END PGP PRIVATE KEY BLOCK-----"))


Maker = Callable[[random.Random], str]


def _of(prefixes: str, alphabet: str, length: int, ending: str = "") -> Maker:
    return lambda rng: rng.choice(prefixes.split()) + chars(rng, alphabet, length) + ending


TOKENS: dict[str, tuple[Maker, ...]] = {
    "aws_access_key": (_of("AKIA ASIA", UPPER + "234567", 16),),
    "github_token": (_of("ghp_ gho_ ghu_ ghs_ ghr_", ALNUM, 36),),
    "github_fine_grained_token": (lambda r: f"github_pat_{chars(r, ALNUM, 22)}_{chars(r, ALNUM, 59)}",),
    "gitlab_token": (_of("glpat- gldt- glrt-", WIDE[:-1], 20), lambda r: f"glpat-{chars(r, WIDE[:-1], 27)}.01.{chars(r, HEX, 9)}"),
    "slack_token": (
        lambda r: f"xoxb-{chars(r, DIGITS, 12)}-{chars(r, DIGITS, 12)}-{chars(r, ALNUM, 24)}",
        lambda r: f"xapp-1-A{chars(r, UPPER, 10)}-{chars(r, DIGITS, 13)}-{chars(r, HEX, 64)}",
    ),
    "stripe_key": (_of("sk_live_ rk_live_ sk_test_", ALNUM, 24), _of("sk_live_", ALNUM, 99), _of("whsec_", ALNUM, 32)),
    "google_api_key": (_of("AIzaSy", WIDE[:-1], 33),),
    "google_oauth_secret": (_of("GOCSPX-", ALNUM, 28), _of("ya29.", ALNUM, 120)),
    "openai_key": (lambda r: f"sk-{chars(r, ALNUM, 20)}T3BlbkFJ{chars(r, ALNUM, 20)}", _of("sk-proj- sk-svcacct-", ALNUM, 120)),
    "anthropic_key": (_of("sk-ant-api03- sk-ant-admin01-", WIDE, 93, "AA"),),
    "huggingface_token": (_of("hf_", ALNUM[:52], 34),),
    "npm_token": (_of("npm_", ALNUM, 36),),
    "pypi_token": (_of("pypi-AgEIcHlwaS5vcmcC", WIDE[:-1], 150),),
    "docker_token": (_of("dckr_pat_", WIDE[:-1], 27),),
    "sendgrid_key": (lambda r: f"SG.{chars(r, WIDE[:-1], 22)}.{chars(r, WIDE[:-1], 43)}",),
    "twilio_key": (_of("SK", HEX, 32),),
    "mailgun_key": (_of("key-", HEX, 32),),
    "mailchimp_key": (lambda r: f"{chars(r, HEX, 32)}-us{r.randint(1, 21)}",),
    "telegram_bot_token": (lambda r: f"{r.randint(10**8, 10**10 - 1)}:AA{chars(r, WIDE[:-1], 33)}",),
    "discord_token": (lambda r: f"{_encoded(str(r.randint(10**17, 10**18)).encode())}.{chars(r, WIDE[:-1], 6)}.{chars(r, WIDE[:-1], 38)}",),
    "digitalocean_token": (_of("dop_v1_ doo_v1_", HEX, 64),),
    "shopify_token": (_of("shpat_ shpca_ shppa_ shpss_", HEX, 32),),
    "square_token": (_of("sq0atp-", WIDE[:-1], 22), _of("sq0csp-", WIDE[:-1], 43), _of("EAAA", WIDE[:-1], 60)),
    "databricks_token": (_of("dapi", HEX, 32),),
    "vault_token": (_of("hvs.", WIDE[:-1], 90),),
    "atlassian_token": (_of("ATATT3xFfGF0", WIDE[:-1], 180),),
    "grafana_token": (lambda r: f"glsa_{chars(r, ALNUM, 32)}_{chars(r, HEX, 8)}",),
    "newrelic_key": (_of("NRAK-", UPPER + DIGITS, 27),),
    "age_key": (_of("AGE-SECRET-KEY-1", "023456789ACDEFGHJKLMNPQRSTUVWXYZ", 58),),
    "postman_key": (lambda r: f"PMAK-{chars(r, HEX, 24)}-{chars(r, HEX, 34)}",),
    "groq_key": (_of("gsk_", ALNUM, 52),),
    "replicate_token": (_of("r8_", ALNUM, 37),),
    "linear_key": (_of("lin_api_", ALNUM, 40),),
    "notion_token": (_of("ntn_", ALNUM, 46), _of("secret_", ALNUM, 43)),
    "sourcegraph_token": (_of("sgp_", HEX, 40), lambda r: f"sgp_{chars(r, HEX, 16)}_{chars(r, HEX, 40)}"),
    "onepassword_token": (_of("ops_eyJ", ALNUM, 600),),
    "sentry_token": (_of("sntrys_eyJ", ALNUM, 140), _of("sntryu_", HEX, 64)),
    "sonar_token": (_of("sqp_ squ_", HEX, 40),),
    "fly_token": (_of("fm2_", ALNUM + "+/", 300),),
    "planetscale_token": (_of("pscale_tkn_ pscale_pw_", WIDE[:-1], 43),),
    "facebook_token": (_of("EAACEdEose0cBA", ALNUM, 150),),
    "heroku_key": (lambda r: f"HRKU-{'-'.join(chars(r, HEX, n) for n in (8, 4, 4, 4, 12))}",),
    "azure_client_secret": (lambda r: f"{chars(r, ALNUM, 3)}8Q~{chars(r, ALNUM + '_~.-', 33)}{chars(r, ALNUM, 1)}",),
    "rubygems_key": (_of("rubygems_", HEX, 48),),
    "json_web_token": (_jwt,),
}
NEUTRAL = ("value", "cfg", "x", "remote.id", "data", "login", "service.account", "setting")
PASSWORDS: tuple[Maker, ...] = (
    lambda r: chars(r, ALNUM, 1) + chars(r, ALNUM + SYMBOLS, r.randint(8, 18)) + chars(r, DIGITS, 1),
    lambda r: r.choice(("summer", "Winter", "dragon", "Berlin", "acme", "Monday")) + chars(r, DIGITS, r.randint(2, 4)) + r.choice("!?#*"),
    lambda r: r.choice(("Pr0d", "hunt3r", "tr0ub4dor", "p4ssw0rd", "adm1n", "s3rv1ce")) + chars(r, ALNUM, 4) + r.choice(DIGITS + SYMBOLS),
    lambda r: chars(r, LOWER + DIGITS, 10) + r.choice(DIGITS) + r.choice(LOWER),
    lambda r: chars(r, ALNUM, 24),
    lambda r: f"{r.choice(('Qx', 'Zr', 'Kw'))}{chars(r, DIGITS, 2)}{chars(r, ALNUM, 3)}@{chars(r, DIGITS, 4)}",
    lambda r: r.choice(
        ("letmein", "qwertyuiop", "iloveyou", "correct-horse-battery-staple", "sunshine", "opensesame", "19870412", "123456")
    ),
)
KEYS: tuple[Maker, ...] = (
    _of("a b c d e f 1 2 3 4", HEX, 31),
    _of("0 1 2 9 c d", HEX, 39),
    _of("5 6 7 8 e f", HEX, 63),
    lambda r: base64.b64encode(r.randbytes(32)).decode(),
    lambda r: chars(r, ALNUM, r.randint(20, 40)),
    lambda r: chars(r, WIDE[:-1], 32),
    lambda r: "-".join(chars(r, HEX, n) for n in (8, 4, 4, 4, 12)),
)
PASSWORD_NAMES = (
    "password",
    "db.password",
    "admin.passwd",
    "smtp.pass",
    "user.pwd",
    "mysql.root.password",
    "keystore.passphrase",
    "password1",
)
KEY_NAMES = (
    "api.key",
    "client.secret",
    "auth.token",
    "secret.key",
    "encryption.key",
    "access.token",
    "app.secret",
    "webhook.secret",
    "stripe.api.key",
)
AWS_NAMES = ("aws.secret.access.key", "aws.secret.key")


def _styled(name: str, style: str) -> str:
    """Return a name, given with dots, in the style of a language."""
    words = name.split(".")
    if style == "camel":
        return words[0] + "".join(map(str.capitalize, words[1:]))
    joint = {"snake": "_", "upper": "_", "kebab": "-", "dotted": "."}[style]
    return joint.join(words).upper() if style == "upper" else joint.join(words)


def _placed(template: str, language: str, kind: str, value: str, name: str = "") -> Case:
    """Return the case of a value in a template; the value is marked where it stands."""
    before, after = (part.format(n=name, v="") for part in template.split("{v}", 1))
    return Case(before + value + after, language, ((len(before), len(before) + len(value)),), kind)


def _under_a_name(rng: random.Random, kind: str, name: str, value: str, bare_share: float = 0.3) -> Case:
    table = BARE if rng.random() < bare_share else QUOTED
    language = rng.choice(sorted(table))
    style, templates = table[language]
    return _placed(rng.choice(templates), language, kind, value, _styled(name, style))


def _mailbox(rng: random.Random) -> str:
    local = rng.choice(("ada", "j.smith", "m_li", "first.last", "dev+ci", "o-hara", "k99", "Max.Mustermann", "info", "x1"))
    endings = ("com", "org", "de", "io", "co.uk", "edu", "cn", "fr", "net", "dev")
    hosts = ("acme", "mail.uni-bonn", "corp", "cs.stanford", "my-firm", "gmail", "163", "x3d", "lists.debian", "sub.dept.big")
    return f"{local}{rng.choice(('', str(rng.randint(1, 99))))}@{rng.choice(hosts)}.{rng.choice(endings)}"


def _address(rng: random.Random) -> str:
    while True:
        if rng.random() < 0.25:
            found = ipaddress.IPv6Address(
                rng.choice((0x2A00, 0x2001_0470 >> 16, 0x2607, 0x2620)) << 112 | rng.getrandbits(100 if rng.random() < 0.5 else 16)
            )
        else:
            found = ipaddress.IPv4Address(rng.getrandbits(32))
        parts = str(found).split(".")
        if found.is_global and not found.is_multicast and not found.is_reserved and parts[-1] != "0":
            return str(found)


def _special(rng: random.Random) -> list[Case]:
    """Return the cases of kinds that have templates of their own."""
    cases = []
    for _ in range(40):
        user, secret = (
            rng.choice(("root", "ada", "svc-app", "")),
            rng.choice(PASSWORDS[2:5])(rng).replace("@", "x").replace("#", "y").replace("?", "z"),
        )
        scheme, host = (
            rng.choice(("postgres", "https", "mongodb+srv", "redis", "amqp", "ftp", "mysql+pymysql")),
            rng.choice(("db.acme.io", "localhost", "10.0.0.7")),
        )
        language = rng.choice(("Python", "dotenv", "YAML", "Shell", "JSON"))
        template = {
            "Python": 'URL = "{v}"\n',
            "dotenv": "URL={v}\n",
            "YAML": "url: {v}\n",
            "Shell": "git clone {v}\n",
            "JSON": '{{"url":"{v}"}}\n',
        }[language]
        cases.append(_placed(template.replace("{v}", f"{scheme}://{user}:{{v}}@{host}/x"), language, "url_password", secret))
    for _ in range(30):
        name = rng.choice(AWS_NAMES)
        cases.append(_under_a_name(rng, "aws_secret_key", name, chars(rng, ALNUM, 20) + chars(rng, BASE64, 20)))
    for make in (_key_block, _key_block, _pgp_block):
        for _ in range(12):
            language = rng.choice(sorted(BLOCKS))
            template = BLOCKS[language]
            cases.append(_placed(template, language, "private_key", make(rng)))
    for _ in range(20):
        hook = f"T{chars(rng, UPPER, 8)}/B{chars(rng, UPPER, 8)}/{chars(rng, ALNUM, 24)}"
        cases.append(_placed("curl -X POST https://hooks.slack.com/services/{v}\n", "Shell", "slack_webhook", hook))
        hook = f"{rng.randint(10**17, 10**18)}/{chars(rng, WIDE[:-1], 68)}"
        cases.append(_placed("const HOOK = 'https://discord.com/api/webhooks/{v}';\n", "JavaScript", "discord_webhook", hook))
        text = "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={v};EndpointSuffix=core.windows.net\n"
        cases.append(_placed(text, "Properties", "azure_storage_key", chars(rng, BASE64, 86) + "=="))
    for text, language in (
        ("CREATE USER 'ada'@'%' IDENTIFIED BY '{v}';\n", "SQL"),
        ("ALTER ROLE ada WITH PASSWORD '{v}';\n", "SQL"),
        ("Server=db;Database=x;User Id=sa;Password={v};Encrypt=true\n", "Connection string"),
        ("curl -u ada:{v} https://api.acme.io\n", "Shell"),
        ("machine api.acme.io\nlogin ada\npassword {v}\n", "netrc"),
        ("mysql -h db --password={v} app\n", "Shell"),
    ):
        cases += [_placed(text, language, "password", rng.choice(PASSWORDS[2:5])(rng).replace("#", "y")) for _ in range(8)]
    for _ in range(10):
        cases.append(_placed('req.Header.Set("Authorization", "Bearer {v}")\n', "Go", "secret_key", chars(rng, ALNUM, 40)))
        cases.append(_placed("//registry.npmjs.org/:_authToken={v}\n", "npmrc", "secret_key", chars(rng, HEX, 36)))
        login = base64.b64encode(f"ada:{PASSWORDS[0](rng)}".encode()).decode()
        cases.append(_placed("Authorization: Basic {v}\n", "HTTP", "password", login))
    return cases


DJANGO = LOWER + DIGITS + "!@#$%^&*(-_=+)"
PRINTABLE = "".join(map(chr, range(33, 127)))
WORDY: tuple[Maker, ...] = (
    lambda r: f"@{r.choice(('dmin', 'lpha', 'cme'))}{chars(r, DIGITS, 4)}!",
    lambda r: f"${r.choice(('ecret', 'ummer', 'erver'))}{chars(r, UPPER, 1)}4ss!",
    lambda r: f"My{r.choice(('Secret', 'Token', 'Api'))}P@ssw0rd{chars(r, DIGITS, 2)}",
    lambda r: f"MyPassw0rd!{chars(r, DIGITS, 4)}",
)
"""Passwords that begin like a placeholder."""

HARDER: tuple[tuple[str, str, str, Maker], ...] = (
    ("secret_key", "Python", "SECRET_KEY = '{v}'\n", _of("a 7 m", DJANGO, 49)),
    ("secret_key", "Python", "SECRET_KEY = '{v}'\n", _of("django-insecure-", DJANGO, 50)),
    ("password", "dotenv", "DEBUG=1\nDB_PASSWORD={v}\n", lambda r: chars(r, ALNUM, 1) + chars(r, PRINTABLE, 15)),
    ("password", "dotenv", "export ADMIN_PASSWORD={v}\n", lambda r: f"Tr0ub4dor{r.choice(';&<(}]|')}{chars(r, ALNUM, 6)}"),
    ("secret_key", "dotenv", "APP_TOKEN={v}\n", lambda r: chars(r, ALNUM, 12) + r.choice("$&(;") + chars(r, ALNUM, 15)),
    ("secret_key", "Python", 'APIKEY = "{v}"\n', _of("0 a", HEX, 31)),
    ("secret_key", "HTTP", "Authorization: Token {v}\n", _of("1 b", HEX, 39)),
    ("secret_key", "JavaScript", "headers: {{ 'Authorization': '{v}' }}\n", _of("2 c", HEX, 39)),
    ("secret_key", "Python", 'client = Client(auth="{v}")\n', _of("3 d", HEX, 31)),
    ("password", "Shell", "mysql -u root -p{v} app\n", lambda r: f"S3cret{chars(r, ALNUM, 5)}"),
    ("password", "Shell", "mysqldump -h db -p'{v}' app > x.sql\n", lambda r: f"S3cret!{chars(r, ALNUM, 5)}"),
    ("password", "Shell", "sshpass -p '{v}' ssh ada@db\n", lambda r: f"S3cret!{chars(r, ALNUM, 5)}"),
    ("password", "Python", "password = '{v}'\n", lambda r: r.choice(WORDY)(r)),
    ("password", "JSON", '{{"password": "{v}"}}\n', lambda r: r.choice(WORDY)(r)),
    (
        "email",
        "Markdown",
        "Thanks to {v} for it.\n",
        lambda r: f"{r.choice(('jürgen', 'rené', 'søren', 'łukasz.k', 'm.núñez'))}@{_mailbox(r).split('@')[1]}",
    ),
    ("email", "Python", "TO = '{v}'\n", lambda r: f"{chars(r, LOWER, 1)}@{_mailbox(r).split('@')[1]}"),
    ("ip_address", "Shell", "ping {v}\n", lambda r: f"2a0{r.randint(0, 9)}::{r.randint(1, 9)}"),
    ("github_token", "Python", "TOKENS = '{v}'\n", lambda r: "".join(TOKENS["github_token"][0](r) for _ in range(r.randint(2, 4)))),
)
"""Kind, format, template and value of shapes that stand in no table of templates; tokens side by side are one secret."""


def _harder(seed: int) -> list[Case]:
    """Return the cases of shapes that were found missing by somebody else."""
    rng = random.Random(f"harder:{seed}")
    return [_placed(template, language, kind, make(rng)) for kind, language, template, make in HARDER for _ in range(PER_TOKEN)]


def _with_neighbours(case: Case, rng: random.Random) -> Case:
    """Return a case with harmless lines around it, some not of ASCII."""
    before = rng.choice(("", "", "\n", "# größer — 例\n", "x = 1\n\n", "// ok\n", "\ufeff"))
    after = rng.choice(("", "", "\n", "y = 2\n", "# ende\n"))
    spans = tuple((start + len(before), end + len(before)) for start, end in case.spans)
    return Case(before + case.text + after, case.language, spans, case.kind)


def labelled_cases(seed: int = 0) -> list[Case]:
    """Return the labelled set; the same seed gives the same cases."""
    rng = random.Random(f"secrets:{seed}")
    cases = _special(rng)
    for kind, makers in TOKENS.items():
        for number in range(PER_TOKEN):
            secret = makers[number % len(makers)](rng)
            cases.append(_under_a_name(rng, kind, rng.choice(NEUTRAL), secret))
    for number in range(PER_NAMED):
        cases.append(_under_a_name(rng, "password", rng.choice(PASSWORD_NAMES), PASSWORDS[number % len(PASSWORDS)](rng)))
        cases.append(_under_a_name(rng, "secret_key", rng.choice(KEY_NAMES), KEYS[number % len(KEYS)](rng)))
        for kind, table, make in (("email", PROSE, _mailbox), ("ip_address", HOSTS, _address)):
            language = rng.choice(sorted(table))
            value = make(rng)
            template = rng.choice(table[language])
            bracketed = kind == "ip_address" and ":" in value and ("://" in template or "{v}:" in template)
            cases.append(_placed(template.replace("{v}", "[{v}]") if bracketed else template, language, kind, value))
    for shape, negative in NEGATIVES.items():
        cases += [Case(negative(rng), shape, (), shape) for _ in range(PER_NEGATIVE)]
    return [_with_neighbours(case, rng) for case in [*cases, *_harder(seed)]]
