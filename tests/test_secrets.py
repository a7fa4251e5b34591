"""What is a secret and what only looks like one; every engine finds the same."""

from __future__ import annotations

import collections
import dataclasses
import pickle
import random
import re
import time
from re import _parser  # type: ignore[attr-defined]

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import detect
from data_prep.detect import Detector, Span, installed_engines
from data_prep.secret_kinds import KINDS, SHAPES, label_of
from secret_cases import SIMILAR, labelled_cases
from secret_negatives import ALNUM, BASE64, HEX, chars
from starchat.errors import UserError

CASES = labelled_cases(0)
RNG = random.Random(5)
PASSWORD = "k3r!pT_91x"
FRAGMENTS = (
    *(
        "password",
        "token",
        "api_key",
        "secret",
        "pass",
        "=",
        ": ",
        "'",
        '"',
        "\\",
        "\n",
        " ",
        "@",
        ".",
        ":",
        "://",
        "-",
        "_",
        "é",
        "ſ",
        "K",
        "İ",
        "\u2028",
    ),
    *("AKIA", chars(RNG, ALNUM[:26], 16), "ghp_", chars(RNG, ALNUM, 36), "ada", "corp.io", "8.", "93.184.216.34", "2a00:1450::7", PASSWORD),
    *(
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----END RSA PRIVATE KEY-----",
        chars(RNG, BASE64, 64),
        "eyJhbGciOiJIUzI1NiJ9",
        "bearer ",
        "-us12",
        ":AA",
    ),
    *(
        chars(RNG, HEX, 32),
        "SK",
        "key-",
        "\x0b",
        "\x85",
        "\0",
        "\ud800",
        "<",
        ">",
        "</",
        "--password ",
        "identified by ",
        "aws_secret",
        "-u ",
    ),
)


@pytest.fixture(scope="module")
def finds() -> list[list[Span]]:
    """What is found in each case of the labelled set."""
    return [Detector().find(case.text) for case in CASES]


def test_the_labelled_set_is_what_is_promised() -> None:
    assert len(CASES) >= 1000 and labelled_cases(0) == CASES != labelled_cases(1)
    assert len({case.language for case in CASES if case.is_positive}) >= 30
    assert {case.kind for case in CASES if case.is_positive} == set(KINDS) and len(KINDS) >= 24
    assert len({case.kind for case in CASES if not case.is_positive}) >= 40


def test_recall_and_precision_of_each_kind(finds: list[list[Span]]) -> None:
    hit, missed, wrong = collections.Counter[str](), collections.Counter[str](), collections.Counter[str]()
    for case, found in zip(CASES, finds, strict=True):
        for start, end in case.spans:
            whole = any(span.start <= start and end <= span.end for span in found)
            (hit if whole else missed)[case.kind] += 1
        for span in found:
            exact = any(start - 1 <= span.start < end and span.end <= end + 1 for start, end in case.spans)
            wrong[span.kind] += not exact
    total = hit.total()
    assert total / (total + missed.total()) >= 0.97 and total / (total + wrong.total()) >= 0.97, (missed, wrong)
    for kind in KINDS:
        assert hit[kind] / (hit[kind] + wrong[kind]) >= 0.9, kind
        assert hit[kind] / (hit[kind] + missed[kind]) >= (0.95 if kind in ("password", "secret_key", "ip_address") else 1.0), kind


def test_nothing_is_found_in_lookalikes(finds: list[list[Span]]) -> None:
    wrong = [(case.kind, case.text, found) for case, found in zip(CASES, finds, strict=True) if not case.is_positive and found]
    assert wrong == []
    assert sum(not case.is_positive for case in CASES) > 600


def test_a_find_has_the_kind_that_it_is(finds: list[list[Span]]) -> None:
    for case, found in zip(CASES, finds, strict=True):
        if case.is_positive and found:
            assert found[0].kind in {case.kind, *SIMILAR.get(case.kind, ())} or label_of(found[0].kind) == label_of(case.kind), (
                case,
                found,
            )


@pytest.mark.parametrize("engine", installed_engines())
def test_every_engine_finds_the_same_in_the_labelled_set(engine: str, finds: list[list[Span]]) -> None:
    detector = Detector(engine=engine)
    assert [detector.find(case.text) for case in CASES] == finds
    joined = "".join(case.text for case in CASES)
    assert detector.find(joined) == Detector(engine="plain").find(joined)
    assert len(detector.find(joined)) > 900


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
def test_every_engine_finds_the_same_in_any_text(text: str) -> None:
    expected = Detector(engine="plain").find(text)
    for engine in installed_engines():
        assert Detector(engine=engine).find(text) == expected, engine


def test_an_engine_with_a_gate_too_narrow_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = tuple(dataclasses.replace(shape, gate=r"[0-9]{30}") if shape.kind == "npm_token" else shape for shape in SHAPES)
    monkeypatch.setattr(detect, "SHAPES", spoilt)
    detect._engine.cache_clear()
    try:
        text = "x = 'npm_" + chars(random.Random(1), ALNUM, 36) + "'"
        found = {engine: bool(Detector(engine=engine).find(text)) for engine in installed_engines()}
    finally:
        detect._engine.cache_clear()
    assert found["plain"] and not any(found[engine] for engine in found if engine != "plain")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.kind}:{shape.anchor[:12]}")
def test_rows_keep_what_engines_rely_on(shape: detect.Shape) -> None:
    assert _parser.parse(shape.gate_pattern).getwidth()[1] <= shape.reach, "no gate is longer than the reach"
    assert _parser.parse(shape.anchor).getwidth()[0] > 0
    groups = shape.gate_pattern.replace("(?:", "").replace("(?i:", "")
    assert not re.search(r"\(\?|\\[1-9]", groups), "a gate is plain"
    text = "".join(case.text for case in CASES[::3])
    data = text.encode("ascii", "replace")
    gate = re.compile(shape.gate_pattern.encode())
    places, rows = detect._engine((shape.kind,), "plain")
    for number, start in places(data):
        if rows[number][0] == shape and rows[number][1].match(text, start):
            assert gate.match(data, start), text[start : start + 80]
    for case in CASES[::7]:
        for match in re.finditer(f"(?={shape.pattern})", case.text, re.ASCII):
            data = case.text.encode("ascii", "replace")
            assert not shape.words or data.lower().startswith(tuple(word.encode() for word in shape.words), match.start())


HOSTILE_LINES = {
    "key header": "-----BEGIN RSA PRIVATE KEY-----",
    "key body": "-----BEGIN RSA PRIVATE KEY-----\n" + "A+/ " * 60,
    "key run": "-----BEGIN PRIVATE KEY-----" + "\\nA:,+/" * 30,
    "key fields": "-----BEGIN PRIVATE KEY-----\n" + "a: b, " * 30,
    "key field lines": "-----BEGIN PRIVATE KEY-----\n" + "a: b,\n" * 30,
    "token start": "eyJaaaaaaaaa.",
    "tokens": "ghp_aB3dE6gH9jK2mN5pQ8rT1vW4yZ7bC0dF3hJ6",
    "tokens of one length": "npm_aB3dE6gH9jK2mN5pQ8rT1vW4yZ7bC0dF3hJ6",
    "jwt": "eyJ" + "a" * 300 + ".",
    "password": "password",
    "password space": "password \t \t  ",
    "quoted": "password = 'a\\'",
    "key words": "api_key:string[]",
    "at": "a@",
    "domain": "a@a-a.a-a.",
    "login": "://a:a",
    "digits": "1.1.1.",
    "hex": "2a00:",
    "slack": "xoxb-aaaaaaaa",
    "environment": "PASSWORD=" + "a" * 50,
    "mysql": "mysql -",
    "mysql option": "mysql -p' ",
    "header": "authorization: Token ",
    "aws": "aws_secret aws secret ",
    "discord": "a.aaaaaa.",
    "gate of all": "secret token key pass = \" ",
    "backslash": "\\\"token\\\": \\\"",
    "equals": "token" + "=" * 50,
    "bearer": "bearer aaaaaaaaaaaaaaaa",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_LINES)
def test_no_text_takes_longer_than_its_length(name: str) -> None:
    line = HOSTILE_LINES[name]
    for engine in installed_engines():
        text = (line * (50_000 // len(line) + 1))[:50_000]
        begin = time.process_time()
        Detector(engine=engine).find(text)
        assert time.process_time() - begin < 4, engine


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"password: {PASSWORD}\n", PASSWORD),
        (f'{{"password":"{PASSWORD}"}}', PASSWORD),
        (f'"{{\\"password\\": \\"{PASSWORD}\\"}}"', PASSWORD),
        (f"<add key='DbPassword' value='{PASSWORD}'/>", PASSWORD),
        (f"<server><password>{PASSWORD}</password></server>", PASSWORD),
        (f"curl --user 'ada:{PASSWORD}' https://x.io", PASSWORD),
        (f"postgres://ada:{PASSWORD}@db.corp.io/x", PASSWORD),
        (f"os.environ['DB_PASSWORD'] = '{PASSWORD}'", PASSWORD),
        (f"if password == '{PASSWORD}':", PASSWORD),
        (f"spring.datasource.password={PASSWORD}", PASSWORD),
        ('print("to:\\nada@corp.io")', "ada@corp.io"),
        ("mailto:ada@corp.io?subject=x", "ada@corp.io"),
        ("Ada <ada@corp.io>, b", "ada@corp.io"),
        ("ada@corp.io", "ada@corp.io"),
        ("\nada@corp.io.", "ada@corp.io"),
        ("http://93.184.216.34:80/x", "93.184.216.34"),
        ("[2a00:1450:4001:81b::200e]:443", "2a00:1450:4001:81b::200e"),
        ("ping 2a00::1\n", "2a00::1"),
        ("by jürgen@corp.io", "jürgen@corp.io"),
        ("mail jü@corp.io, 写ada", "jü@corp.io"),
        ("写ada@corp.io", "ada@corp.io"),
        ("write to j@corp.io now", "j@corp.io"),
        ("to='j@corp.io'", "j@corp.io"),
        ("Self <self@corp.io>", "self@corp.io"),
        ("connection from 12.34.5.6 port 22", "12.34.5.6"),
        ("ssh -p 22 deploy@12.34.5.6", "12.34.5.6"),
        ("moved from 93.184.216.34 to the cloud", "93.184.216.34"),
    ],
)
def test_only_the_secret_is_found(text: str, secret: str) -> None:
    for engine in installed_engines():
        assert [text[span.start : span.end] for span in Detector(engine=engine).find(text)] == [secret], engine


@pytest.mark.parametrize(
    "text",
    [
        "docker run -p3306:3306 mysql -p8080:80",
        "mysql -uroot -proot x",
        "mysql -p$PASS x",
        "mysql -p db",
        "sshpass -p $PW ssh",
        "SECRET_KEY = 'get_random_secret_key(50)'",
        "SECRET_KEY = 'config(X12)[0]and_more(1)'",
        "SECRET_KEY = '[A-Za-z0-9_]{20,40}(x1)'",
        "token = '<div>{foo}</div>1234567890ab'",
        "password = '@string/password1'",
        "password = '$this->password2'",
        "password = '$PASSWORD1'",
        "password = 'my_secret_key12'",
        "PASSWORD=$(cat x1)\n",
        "PASSWORD=get_password1()\n",
        "PASSWORD=self.pw[1]\n",
        "PASS=`cat pw1`\n",
        "TOKEN=${TOKEN:-x1}\n",
        "PASSWORD=/x1/y;z\n",
        "author = 'b0f2c41b7d05a63e1f49f8e2c41b7d'",
        "'AWS::Config::AggregationAuthorization': 'af318b77aaceeeaa'",
        "auth: 'required-2'",
    ],
)
def test_what_is_written_like_a_secret_and_is_none(text: str) -> None:
    for engine in installed_engines():
        assert Detector(engine=engine).find(text) == [], engine


def test_a_detector_is_a_value() -> None:
    detector = Detector(("email", "password"))
    assert pickle.loads(pickle.dumps(detector)) == detector
    assert [span.kind for span in detector.find(f"93.184.216.34 ada@corp.io password='{PASSWORD}'")] == ["email", "password"]
    assert Detector(()).find("ada@corp.io") == []
    assert all(Detector((), engine).find("ada@corp.io") == [] for engine in installed_engines())


def test_faults_of_a_detector_are_named() -> None:
    with pytest.raises(UserError, match=r"kinds: 'emial'; did you mean 'email'\?"):
        Detector(("emial",))
    with pytest.raises(UserError, match=r"engine: 'hyperscam'; did you mean 'hyperscan'\?"):
        Detector(engine="hyperscam")


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "installed_engines", lambda: ("plain",))
    with pytest.raises(UserError, match="engine: 're2' is not installed; expected one of plain"):
        Detector(engine="re2")
    assert Detector().find("ada@corp.io")


def test_an_address_that_stands_as_one_may_end_in_a_word_of_code() -> None:
    """In angle brackets and behind ``mailto:`` there is no doubt, whatever the last label; elsewhere ``self@obj.name`` is code."""
    found = {
        text: bool(Detector().find(text))
        for text in ("<ada@lovelace.name>", "mailto:ada@lovelace.id", "ada@lovelace.name", "<ada@lovelace.name")
    }
    assert found == {"<ada@lovelace.name>": True, "mailto:ada@lovelace.id": True, "ada@lovelace.name": False, "<ada@lovelace.name": False}
