"""After redaction nothing is found, files still parse, and nothing else has changed."""

from __future__ import annotations

import collections
import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.detect import Detector, Span
from data_prep.redact import STYLES, Redacted, Replacement, SecretRules, _in_old_text, applied, joined, redact, replaced, surrogate
from data_prep.secret_kinds import KINDS
from fuzz_secrets import mutant, parses, require_only_replaced, require_sound
from secret_cases import TOKENS, labelled_cases
from secret_negatives import ALNUM, BASE64, chars
from starchat.errors import UserError

CASES = [case for case in labelled_cases(3) if case.is_positive]
R = random.Random(11)
GITHUB, AWS, NPM = "ghp_" + chars(R, ALNUM, 36), "AKIA" + chars(R, ALNUM[:26], 16), "npm_" + chars(R, ALNUM, 36)
BODY = "\n".join(chars(R, BASE64, 64) for _ in range(4))
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
G, A = "REDACTED" + "1".zfill(32), "REDACTED" + "1".zfill(12)

GOLDEN = {
    "first and last character": (AWS, A),
    "nothing": ("x = 1\n", "x = 1\n"),
    "empty": ("", ""),
    "next to each other": (f"{GITHUB}\n{AWS}", f"{G}\nREDACTED{'2'.zfill(12)}"),
    "touching": (f"'{GITHUB}''{AWS}'", f"'{G}''REDACTED{'2'.zfill(12)}'"),
    "the same twice": (f"a='{AWS}'; b='{AWS}'", f"a='{A}'; b='{A}'"),
    "overlapping: a token as a password": (f"password='{GITHUB}'", f"password='{G}'"),
    "overlapping: a password within a token's assignment": (f"api_token='x.{GITHUB}-tail99'", None),
    "two addresses": ("to ada@corp.io, bob@corp.io, ada@corp.io", "to user1@example.com, user2@example.com, user1@example.com"),
    "after an escape": ('s = "\\nada@corp.io\\n"', 's = "\\nuser1@example.com\\n"'),
    "after an escape: a key": (f's = "\\n{AWS}"', f's = "\\n{A}"'),
    "addresses of both sorts": ("host 93.184.216.34, 2a00:1450::7", "host 192.0.2.1, 2001:db8::2"),
    "only the password of a link": ("ftp://ada:s3cr3tXy@h.io/", "ftp://ada:REDACTED1@h.io/"),
    "a key in a file": (f"k: |\n  {PEM}\nz: 1\n".replace("\n", "\n  ")[:-2], None),
    "a key in a string": ("s = " + json.dumps(PEM), f's = "REDACTED{"1".zfill(56)}"'),
    "a key in pieces": ("\n".join(f'"{line}\\n" +' for line in PEM.split("\n"))[:-3] + '";', f'"REDACTED{"1".zfill(56)}\\n";'),
    "a number": ("db_password=98127\npassword = '19283746'", "db_password=98127\npassword = '11111111'"),
    "a password and a key of one length": (
        "password='k3r!pT_91x77k3r!pT_9'\napi_key='9f8e2c41b7d05a63e1f4'",
        "password='REDACTED000000000001'\napi_key='REDACTED000000000002'",
    ),
    "one there already": ("by ada@corp.io, not user1@example.com", "by user2@example.com, not user1@example.com"),
    "one that begins something": ("host 93.184.216.34 (192.0.2.10)", "host 192.0.2.2 (192.0.2.10)"),
    "a number in a number": ("password = '19283746'  # 111111119", "password = '22222222'  # 111111119"),
    "one person": ("ADA@CORP.IO, ada@corp.io", "user1@example.com, user1@example.com"),
    "a name with an accent": ("by jürgen@corp.io", "by user1@example.com"),
    "not of ASCII": ("größe 例 ada@corp.io ß", "größe 例 user1@example.com ß"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_cases(name: str) -> None:
    text, expected = GOLDEN[name]
    redacted = redact(text, Detector())
    if expected is not None:
        assert redacted.text == expected
    assert not set(redacted.text.split("'")) & {GITHUB, AWS} and BODY[:64] not in redacted.text
    require_sound(text)


def test_replacements_tell_where_they_are() -> None:
    redacted = redact(f"ada@corp.io '{AWS}' x", Detector(), "tokens")
    assert redacted == Redacted("<EMAIL> '<KEY>' x", (Replacement(0, 7, "email"), Replacement(9, 14, "aws_access_key")))


MAX_LEFT = {"password": 0.05, "secret_key": 0.02, "ip_address": 0.01}
"""The share of a kind that may stay: passwords of words and bare numbers, keys and addresses that are not told from names and versions."""


@pytest.mark.parametrize("style", STYLES)
def test_no_secret_of_the_labelled_set_stays(style: str) -> None:
    detector, left = Detector(), collections.Counter[str]()
    for case in CASES:
        redacted = redact(case.text, detector, style)
        require_only_replaced(case.text, redacted)
        assert detector.find(redacted.text) == []
        left[case.kind] += any(case.text[start:end] in redacted.text for start, end in case.spans)
    sizes = collections.Counter(case.kind for case in CASES)
    assert not {kind: count for kind, count in left.items() if count > MAX_LEFT.get(kind, 0) * sizes[kind]}


@pytest.mark.parametrize("number", range(60))
def test_damaged_texts(number: int) -> None:
    require_sound(mutant(random.Random(f"suite:{number}")))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [case.text[case.spans[0][0] : case.spans[0][1]] for case in CASES[::9]] + ["x", "_", "9", ".", "@", "\n", " ", "'", "é"]
        ),
        max_size=7,
    )
)
def test_secrets_side_by_side(pieces: list[str]) -> None:
    require_sound("".join(pieces))


PARTLY_BEHIND = {"azure_client_secret", "discord_token", "mailchimp_key", "telegram_bot_token"}
"""Kinds whose tokens have no fixed beginning: what stands right before or behind them is not told from them."""


def found_alone(kind: str, rng: random.Random) -> str:
    """Return a token that is found where it stands apart."""
    while True:
        secret = rng.choice(TOKENS[kind])(rng)
        if Detector().find(secret):
            return secret


@pytest.mark.parametrize("number", range(2))
def test_tokens_with_nothing_between_are_all_hidden(number: int) -> None:
    """Each pair of kinds, and rows of many: no stretch of twelve characters of any token is left."""
    rng, kinds = random.Random(number), sorted({*TOKENS} - PARTLY_BEHIND)
    rows = [(one, two) for one in kinds for two in kinds] + [tuple(rng.choices(kinds, k=rng.randint(3, 9))) for _ in range(30)]
    for row in rows:
        secrets = [found_alone(kind, rng) for kind in row]
        text = redact(f"x = '{''.join(secrets)}'\n", Detector()).text
        left = {secret[at : at + 12] for secret in secrets for at in range(6, len(secret) - 11) if secret[at : at + 12] in text}
        assert not left, (row, text)
        assert len(row) == 2 or require_sound(f"'{''.join(secrets)}'")


def test_a_token_within_a_word_is_none_unless_it_stands_behind_a_token() -> None:
    assert Detector().find(f"x{AWS}") == Detector().find(f"{AWS}x") == Detector().find(f"x{AWS}{NPM[:-1]}") == []
    assert [span[:2] for span in Detector().find(f"{AWS}{NPM} x{AWS}")] == [(0, len(AWS)), (len(AWS), len(AWS + NPM))]


def test_a_word_that_a_replacement_sets_free_is_hidden_too() -> None:
    text = f"ada@corp.io{AWS}"
    spans = [Span(0, 11, "email")]
    assert Detector().find(replaced(text, spans, "tokens").text), "what is found only after the first replacement"
    redacted = redact(text, Detector(), "tokens", spans)
    assert AWS not in redacted.text and Detector().find(redacted.text) == []


def _values(rng: random.Random) -> dict[str, str]:
    kinds = rng.sample(sorted(TOKENS), 3)
    values = {f"{rng.choice(('x', 'token', 'value'))}_{i}": TOKENS[kind][0](rng) for i, kind in enumerate(kinds)}
    values["password"] = rng.choice(("aB3$xY9!", "p\\w0rd'9x", 'q"u0te77', "tab\tx9Y1", "größe99X", "19870412", "a{b}c9Z1", "# c0mment8"))
    values["mail"] = f"{rng.choice('nrtuxabc')}da@corp.io"
    values["text"] = f"line\n{values['mail']}\\{values['mail']}\t93.184.216.{rng.randint(1, 250)}\n{PEM}\n"
    return values


def _written(values: dict[str, str], language: str, rng: random.Random) -> str:
    if language == "JSON":
        return json.dumps(values, indent=rng.choice((None, 2)), ensure_ascii=rng.random() < 0.5)
    if language == "TOML":
        return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items() if "\x7f" not in value)
    if language == "YAML":
        block = "block: |\n" + "".join(f"  {line}\n" for line in PEM.split("\n"))
        return (
            "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
            + block
            + f"password: {chars(rng, ALNUM, 12)}\n- x\n"[:-4]
        )
    lines = [f"{key} = {value!r}\n" for key, value in values.items()]
    return (
        "".join(lines)
        + f"login(password={19870412!r}, token={values['password']!r})\nk = '''{PEM}'''\nd = {{'api_key': b'{chars(rng, ALNUM, 30)}'}}\n"
    )


@pytest.mark.parametrize("language", ["Python", "JSON", "YAML", "TOML"])
@pytest.mark.parametrize("style", STYLES)
def test_a_file_that_parsed_still_parses(language: str, style: str) -> None:
    for number in range(25):
        rng = random.Random(f"{language}:{number}")
        text = _written(_values(rng), language, rng)
        assert parses(text, language), text
        redacted = redact(text, Detector(), style)
        assert len(redacted.replacements) >= 5
        assert parses(redacted.text, language), redacted.text


def test_surrogates_are_of_the_type_and_differ() -> None:
    addresses = {surrogate("IP_ADDRESS", "93.184.216.34", n) for n in range(1, 763)}
    assert len(addresses) == 762 and Detector().find("\n".join(f"host {address}" for address in sorted(addresses))) == []
    for label, secret in (("KEY", GITHUB), ("PASSWORD", "abc1!"), ("PASSWORD", "19283746"), ("EMAIL", "a@b.de"), ("IP_ADDRESS", "2a00::1")):
        assert len({surrogate(label, secret, n) for n in range(1, 200)}) == 199
    assert len(surrogate("KEY", GITHUB, 7)) == len(GITHUB)


def test_different_secrets_have_different_surrogates() -> None:
    """Whatever their labels, and however many there are."""
    secrets = [f"k3r!pT_{n:05}" for n in range(20)] + [str(n) for n in (19283746, 192837465)] * 12
    labels = ["password", "secret_key", "person_name", "user_name", "ip_address"]
    text = " ".join(f"{secret}{n}" for n, secret in enumerate(secrets))
    spans, at = [], 0
    for number, word in enumerate(text.split(" ")):
        spans.append(Span(at, at + len(word), labels[number % 5]))
        at += len(word) + 1
    redacted = replaced(text, spans)
    assert len({redacted.text[start:end] for start, end, _ in redacted.replacements}) == len(spans)
    many = {surrogate("IP_ADDRESS", "93.184.216.34", n) for n in range(1, 5000)}
    assert len(many) == 4999 and not Detector().find("\n".join(f"host {address}" for address in sorted(many)))


def test_many_secrets_take_no_longer_each() -> None:
    """Sixteen thousand different addresses, and as many that look like surrogates."""
    text = "".join(f"n{n:05}@corp.io user{n}@example.com\n" for n in range(16_000))
    begin = time.process_time()
    redacted = redact(text, Detector())
    assert time.process_time() - begin < 3
    assert len(redacted.replacements) == 16_000 and "user16000@example.com" in redacted.text


def test_overlaps_are_joined_and_no_tail_is_left() -> None:
    spans = [Span(0, 5, "password"), Span(4, 12, "email"), Span(11, 13, "password"), Span(13, 15, "password")]
    assert joined(spans) == [Span(0, 13, "email"), Span(13, 15, "password")]


def test_places_in_the_new_text_are_told_in_the_old() -> None:
    spans = [Span(2, 5, "email"), Span(6, 8, "email")]
    result = replaced("ab@@@c??d", spans)
    assert result.text == "abuser1@example.comcuser2@example.comd"
    found = [Span(0, 2, "a"), Span(0, 5, "b"), Span(4, 20, "c"), Span(18, 21, "d"), Span(19, 20, "e"), Span(37, 38, "f"), Span(2, 19, "g")]
    moved = [(0, 2), (0, 5), (2, 6), (2, 8), (5, 6), (8, 9), (2, 5)]
    assert [span[:2] for span in _in_old_text(found, spans, result)] == moved


def test_rules() -> None:
    rules = SecretRules(redact=["email"], drop=["private_key"])  # type: ignore[arg-type]
    assert rules == SecretRules(("email",), ("private_key",))
    text = f"ada@corp.io '{AWS}'\n"
    assert applied(text, rules) == Redacted(f"user1@example.com '{AWS}'\n", (Replacement(0, 17, "email"),)), "only the kinds that are named"
    assert applied(text + PEM, rules) == Span(len(text), len(text) + len(PEM), "private_key")
    assert SecretRules().redact == KINDS


def test_faults_of_rules_are_named_together() -> None:
    with pytest.raises(UserError) as caught:
        SecretRules(redact=("emial",), drop="email", style="token", min_name_score=2)  # type: ignore[arg-type]
    message = str(caught.value)
    for part in (
        "redact: 'emial'; did you mean 'email'?",
        "drop: 'email'; expected a list",
        "style: 'token'; did you mean",
        "min_name_score: 2",
    ):
        assert part in message
