"""What mail adds to a message, and what it must not take along."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.mail import without_mail

FOOTER = (
    "> —\n> You are receiving this because you commented.\n"
    "> Reply to this email directly, view it on GitHub\n> <https://x>, or mute\n> .\n>\n"
)


@pytest.mark.parametrize(
    "header",
    [
        "On Tue, Jul 3, 2018 at 10:36 PM, X Y <notifications@github.com> wrote:",
        "On Tue, Jul 3, 2018 at 10:36 PM, X Y <notifications@github.com>\nwrote:",
        "On Fri, Jun 28, 2019 at 8:03 AM X Y. Z <\nnotifications@github.com> wrote:",
        "On Thu, Apr 29, 2021 at 12:25 PM x ***@***.***> wrote:",
        "On 26/01/2021 02:29, X Y wrote:",
        "On Thu, 15 Jul 2021, 18:29 X Y, ***@***.***>\nwrote:",
        "Am 03.07.2018 um 22:36 schrieb X Y <x@example.org>:",
        "Am Di., 3. Juli 2018 um 22:36 Uhr schrieb X Y <\nnotifications@github.com>:",
        "Le mar. 3 juil. 2018 à 22:36, X Y <x@example.org> a écrit :",
        "El mar, 3 jul 2018 a las 22:36, X Y (<x@example.org>) escribió:",
        "Il giorno mar 3 lug 2018 alle ore 22:36 X Y <x@example.org> ha\nscritto:",
        "Op di 3 jul. 2018 om 22:36 schreef X Y <x@example.org>:",
        "Em ter, 3 de jul de 2018 22:36, X Y <x@example.org> escreveu:",
        "Den tis 3 juli 2018 kl 22:36 skrev X Y <x@example.org>:",
        "2018-07-03 22:36 GMT+02:00 X Y <notifications@github.com>:",
        "X Y <x@example.org> wrote:",
        "On Jul 3, 2018, at 10:36 PM, X Y <x@example.org<mailto:x@example.org>> wrote:",
    ],
)
def test_a_reply_keeps_what_is_above_and_below_the_quotation(header: str) -> None:
    quoted = "> an old line\n>\n> another\n"
    assert without_mail(f"Above.\n\n{header}\n\n{quoted}") == ("Above.", ("mail_header", "quoted_reply"))
    text, repairs = without_mail(f"Above.\n\n{header}\n\n{quoted}\nBelow.\n")
    assert (text, repairs) == (f"Above.\n\n\n{quoted}\nBelow.", ("mail_header",)), "what is answered stays"


@pytest.mark.parametrize(
    "text",
    [
        "> quoted on the web\n\nAn answer.",
        "An answer.\n\n> and a quotation at the end",
        "On Monday he wrote:\n> in a document",
        "On May 3 @ada wrote:\nsome prose",
        "On 3 May 2018 @ada wrote:\n> a quotation by hand",
        "A heading\n-- \nwith prose below",
        "Above\n\n---\n\nbelow",
        "Title\n---\nbelow",
        "```\nOn Tue, Jul 3, 2018 at 10:36 PM, X <x@example.org> wrote:\n> old\n-- \nBob\n```",
        "    On Tue, Jul 3, 2018 at 10:36 PM, X <x@example.org> wrote:\n\n    > old",
        "~~~\nFrom: x\nSent: y\nTo: z github.com\n\nbelow\n",
        "From: a table of words\nbelow",
        "From: the docs\nTo: the code\nbelow",
        "The log says\nFrom: x\nthen\nTo: y",
        "Reply to this email is what it says",
        "I am using git send-email.\n\n-- \n" + "a long list\n" * 20,
        "Text\n```\n\n-- \nBob\n```",
        "```\nSent from my iPhone\n```",
        "On Tue, Jul 3, 2018, X <x@example.org>\n    wrote:\n",
        "On Tue, Jul 3, 2018, X <x@example.org>\nOwn words that she\nwrote:",
        "Sent from my point of view this is wrong, and more",
        "",
        "\n\n",
    ],
)
def test_what_is_no_mail_stays(text: str) -> None:
    assert without_mail(text) == (text, ())


def test_footers_go_with_their_paragraph() -> None:
    header = "On Tue, Jul 3, 2018 at 10:36 PM, X <notifications@github.com>\nwrote:\n"
    assert without_mail(f"Yes.\n\n{header}\n> old\n>\n{FOOTER}") == ("Yes.", ("mail_footer", "mail_header", "quoted_reply"))
    text, repairs = without_mail(f"> old\n>\n{FOOTER}\nMy answer.")
    assert text == "> old\n>\n>\n\nMy answer." and repairs == ("mail_footer",)
    notice = "—\nYou are receiving this because you commented.\n"
    plain = f"Yes.\n\n{notice}Reply to this email directly, view it on GitHub, or unsubscribe.\n\nPS: more."
    assert without_mail(plain) == ("Yes.\n\n\nPS: more.", ("mail_footer",))
    assert without_mail("Yes.\n\n---\nReply to this email directly or view it on GitHub:\nhttps://x") == ("Yes.", ("mail_footer",))
    assert without_mail("Yes.\n\nMessage ID: ***@***.***>\n") == ("Yes.", ("mail_footer",))


def test_nested_headers_within_a_kept_quotation_go() -> None:
    text = "On 1/2/2021 10:00, X wrote:\n> On Tue, Jul 3, 2018 at 10:36 PM, Y <y@example.org> wrote:\n>> old\n> newer\n\nMy answer."
    assert without_mail(text) == (">> old\n> newer\n\nMy answer.", ("mail_header",))


@pytest.mark.parametrize(
    "block",
    [
        "From: X Y [mailto:n@github.com]\nSent: Tuesday, July 3, 2018 10:36 PM\nTo: a/b\nCc: c\nSubject: Re: [a/b] c",
        "________________________________\nFrom: X <notifications@github.com>\nSent: Tuesday\nTo: a/b\nSubject: Re",
        "-----Original Message-----\nFrom: X <notifications@github.com>\nSent: Tuesday\nTo: a/b",
        "**From:** X ***@***.***>\n**Sent:** Tuesday\n**To:** a/b\n**Subject:** Re",
        "Von: X <notifications@github.com>\nGesendet: Dienstag\nAn: a/b\nBetreff: AW",
        "De : X <notifications@github.com>\nEnvoyé : mardi\nÀ : a/b\nObjet : Re",
    ],
)
def test_blocks_of_an_answer_to_a_notification_take_the_copy_below(block: str) -> None:
    assert without_mail(f"Above.\n\n{block}\n\nThe old message.\nAll of it.") == ("Above.", ("mail_header", "quoted_reply"))


def test_what_is_below_a_block_that_does_not_name_github_stays() -> None:
    text = "See this mail:\n\nFrom: X <x@example.org>\nSent: Tuesday\nTo: Y\nSubject: S\n\nThe message."
    assert without_mail(text) == ("See this mail:\n\n\nThe message.", ("mail_header",))


@pytest.mark.parametrize(
    "signature", ["-- \nBob\nAcme Ltd.", "-- \nBob\n", "Sent from my iPhone", "Von meinem iPhone gesendet", "Get Outlook for iOS"]
)
def test_signatures(signature: str) -> None:
    assert without_mail(f"Text.\n\n{signature}") == ("Text.", ("signature",))


def test_a_signature_ends_at_the_quotation() -> None:
    text = "Text.\n-- \nBob\n\nOn 26/01/2021 02:29, X Y wrote:\n> old\n\nBelow."
    assert without_mail(text) == ("Text.\n> old\n\nBelow.", ("mail_header", "signature"))


def test_code_in_a_mail_stays() -> None:
    code = "```\n> not a quotation\n-- \nOn 1/1/2020 10:00, X wrote:\n```"
    text = f"Try\n\n{code}\n\nOn 26/01/2021 02:29, X Y wrote:\n> old\n"
    assert without_mail(text).text == f"Try\n\n{code}"


PIECES = st.sampled_from(
    [
        *("Own words.", "> quoted", ">> deeper", "", "On 26/01/2021 02:29, X Y wrote:", "On Tue, Jul 3, 2018, X <n@github.com>", "wrote:"),
        *(
            "—",
            "You are receiving this because you commented.",
            "-- ",
            "---",
            "```",
            "    code",
            "From: X",
            "Sent: Y",
            "To: Z",
            "Message ID: <a@b>",
        ),
    ]
)


@given(st.lists(PIECES, max_size=14))
def test_own_words_and_their_order_are_kept_above_signatures(lines: list[str]) -> None:
    """Of a message without a signature, only lines go that mail wrote, and blank or quoted ones."""
    lines = [f"{line} {number}" if line == "Own words." else line for number, line in enumerate(line for line in lines if line != "-- ")]
    text = "\n".join(lines)
    letter = without_mail(text)
    kept = letter.text.split("\n")
    in_footer = any(line.startswith(("You are", "Message ID")) for line in lines)
    for line in lines:
        if line.startswith("Own words.") and not in_footer:
            assert line in kept
    rest = iter(lines)
    assert all(line in rest for line in kept if letter.text), "lines in their order, none made up"


@given(st.text(alphabet="> -\n`~—Onwrote:@.12 \r\xa0", max_size=60))
def test_any_text_is_read(text: str) -> None:
    letter = without_mail(text)
    assert letter.repairs or letter.text == text


def test_long_messages_take_no_longer_than_they_are_long() -> None:
    for text in (
        "On 1:00 \n" * 20_000,
        ">" * 100_000 + "wrote:",
        "\n" * 100_000 + "wrote:",
        "On 1:00 " + "x" * 200_000 + " wrote:",
        "From: \n" * 20_000,
        "\n-- \n" * 100_000,
        "On 1 aa wrote:\n" * 100_000 + "> @",
    ):
        without_mail(text)
