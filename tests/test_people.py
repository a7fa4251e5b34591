"""Bots, and names as whole mentions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.people import BOTS, Names, Person, is_bot, is_bot_name, is_ordinary, words
from starchat.fences import without_code


@pytest.mark.parametrize(
    "name",
    [
        *(
            "renovate",
            "copilot-swe-agent",
            "k8s-ci-robot",
            "codecov-commenter",
            "Dependabot",
            "dependabot[bot]",
            "stale[bot]",
            "CLAassistant",
        ),
        *("facebook-github-bot", "rust_bot", "bot2", "MergeBot", "ACMEBot", "acme-ci", "acme-automation", "bors-servo", "jenkins-acme"),
        *("SparkQA", "Copilot", "acme-service-account", "Acme-Service-Account", "ACME-CI", "robot"),
    ],
)
def test_bots_by_name(name: str) -> None:
    assert is_bot_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("talbot", "Abbot", "abbot77", "botond", "lambot", "travisj", "travis", "jenkinson", "ada-l", "cicada", "luci", "benchmarker"),
        *("x-test-y", "k8s-fan", "teamcityfan", "ghost", ""),
    ],
)
def test_people_by_name(name: str) -> None:
    assert not is_bot_name(name)


def test_type_and_app_tell_before_the_name() -> None:
    assert is_bot(Person("ada", "Bot")) and is_bot(Person("ada", "User", app=True))
    assert not is_bot(Person("ada", "User")) and not is_bot(Person("ada", "Mannequin")) and not is_bot(Person())
    assert all(name == name.lower() for name in BOTS), "or it never matches"


def test_names_are_given_in_order_and_stay() -> None:
    names = Names()
    names.introduce("ada")
    names.meet("@kai42 and @Ada, see @zoe-l.")
    assert [names.introduce(login) for login in ("ZOE-L", "ada", "kai42", "new")] == [
        "username_2",
        "username_0",
        "username_1",
        "username_3",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@kai42: hi", "@username_1: hi"),
        ("(@kai42), @KAI42's", "(@username_1), @username_1's"),
        ("kai42 said so; ask kai42.", "username_1 said so; ask username_1."),
        ("https://github.com/kai42/repo and github.com/al", "https://github.com/username_1/repo and github.com/username_0"),
        ("`@kai42` and\n```\nuser = 'kai42'\n```", "`@username_1` and\n```\nuser = 'username_1'\n```"),
        ("/home/kai42/x", "/home/username_1/x"),
        ("@al/@kai42", "@username_0/@username_1"),
        ("@kai42- look; cc @al/\nand _thanks @kai42_", "@username_1- look; cc @username_0/\nand _thanks @username_1_"),
        # what stays
        ("install also al", "install also al"),
        ("kai42@example.org, al@example.org, x@kai42", "kai42@example.org, al@example.org, x@kai42"),
        ("kai42.example.org, a.kai42, kai42_x, xkai42, kai42-x, x-kai42", "kai42.example.org, a.kai42, kai42_x, xkai42, kai42-x, x-kai42"),
        ("@kai42/tool @kai42x @al-x", "@kai42/tool @kai42x @al-x"),
        ("docker", "docker"),
    ],
)
def test_whole_mentions_only(text: str, expected: str) -> None:
    names = Names()
    for login in ("al", "kai42", "docker"):
        names.introduce(login)
    assert names.written(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("@types/node", "@param x", "the @Override of it", "`@kai42`", "```\n@kai42\n```", "~~~\n@kai42", "x@kai42", "@dependabot rebase"),
        *("@kai42.example", "@app.route", "@decorated(1)", "@-x", "@", "user@kai42.org", "@property"),
    ],
)
def test_who_is_not_mentioned(text: str) -> None:
    names = Names()
    names.meet(text)
    assert names.introduce("first") == "username_0"


def test_who_is_mentioned_is_replaced() -> None:
    names = Names()
    text = "@ada- @zoe--\n@kai42_ and @eve/\n"
    names.meet(text)
    assert names.written(text) == "@username_0- @username_1--\n@username_2_ and @username_3/\n"
    old = Names()
    old.introduce("ada")
    old.introduce("ada-")
    assert old.written("@ada- @ada") == "@username_1 @username_0", "once anybody could be called so"


def test_a_person_with_the_name_of_a_tag_is_one_once_known() -> None:
    names = Names()
    names.introduce("param")
    assert names.written("@param, look") == "@username_0, look"


def test_the_repository_keeps_its_name() -> None:
    names = Names("kai42/kai42")
    names.introduce("kai42")
    assert names.written("kai42 by @kai42") == "kai42 by @username_0"


def test_letters_that_grow_when_made_small() -> None:
    names = Names()
    names.introduce("kai42")
    assert names.written("İİ @KAI42 İ kai42") == "İİ @username_0 İ username_0"


def test_ordinary_names() -> None:
    assert all(map(is_ordinary, ("install", "Python", "JavaScript", "dark-mode", "base64", "ekr", "ghost", "x86")))
    assert not any(map(is_ordinary, ("davidben", "kai42", "jb-wisemo", "sftcd")))
    assert 5_000 < len(words()) < 20_000 and all(re.fullmatch("[a-z]{3,20}", word) for word in words())


def test_code_is_found_with_and_without_its_end() -> None:
    assert without_code("a `b` c\n```py\nd\n```\ne\n~~~\nf") == "a `` c\n``\ne\n``"
    assert without_code("`" * 100_000 + "x`").count("x") == 1, "and soon"
    assert without_code("```x = 1```\na\n```b``` c\n~~~ `d`\ne") == "``\na\n`` c\n``", "three backticks may be of a line as well"


LOGINS = st.from_regex(r"[a-z][a-z0-9]{1,5}(-[a-z0-9]{1,4})?", fullmatch=True)


@given(st.lists(LOGINS, min_size=1, max_size=6), st.text(max_size=80), st.data())
def test_no_mention_of_a_participant_stays_and_nothing_else_changes(logins: list[str], text: str, data: st.DataObject) -> None:
    names = Names()
    for login in logins:
        names.introduce(login)
    for login in logins:
        place = data.draw(st.integers(0, len(text)))
        text = f"{text[:place]} @{login} {text[place:]}"
    written = names.written(text)
    for login in logins:
        assert not re.search(rf"(?<!\S)@{login}(?!\S)", written, re.IGNORECASE | re.ASCII)
    back = re.sub(r"username_(\d+)", "", written)
    assert len(back) <= len(text), "only names go"
