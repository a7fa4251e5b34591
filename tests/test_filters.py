"""Filters: each rule with a record that it takes and one like it that it leaves; presets; faulty rules."""

from __future__ import annotations

import time
from typing import Any

import pytest

from data_prep.comments import comment_share
from data_prep.documents import Repository, SourceFile, family_of, render_repository, render_source
from data_prep.filters import PRESETS, filter_fault, filter_rules
from data_prep.preferred import compared_text
from data_prep.record_redaction import RedactedRecord, redacted_record
from data_prep.record_texts import Code, code_of, language_called, texts_of, with_texts
from data_prep.redact import SecretRules
from starchat.dialogue import Part, Record, Source, ToolCall, Turn
from starchat.errors import UserError

SC1 = family_of({"<reponame>", "<filename>", "<gh_stars>"}, "one")
SC2 = family_of({"<repo_name>", "<file_sep>"}, "two")
KEY = "export KEY=<your-key>"
FINE = "def add(a, b):\n    return a + b\n"


def document(text: str, path: str | None = "src/a.py") -> Record:
    """Return a file as a document of StarCoder."""
    return Record(Source("x", "o/r", path), parts=render_source(SourceFile(text, path), SC1).parts)


def dialogue(*answers: str) -> Record:
    """Return a dialogue with these answers."""
    return Record(Source("x"), tuple(turn for text in answers for turn in (Turn("user", "Write it."), Turn("assistant", text))))


def block(code: str, label: str = "python") -> Record:
    """Return a dialogue whose answer is a block of code."""
    return dialogue(f"Here:\n```{label}\n{code}```\n")


CASES: list[tuple[dict[str, Any], str, Record, Record]] = [
    ({"languages": ["Python"]}, "other_language", document("x\n", "a.go"), document(FINE)),
    ({"languages": ["Python"]}, "other_language", block("x := 1\n", "go"), block(FINE)),
    ({"vendored": "drop"}, "vendored", document(FINE, "node_modules/a/b.js"), document(FINE, "src/modules/b.js")),
    ({"generated": "drop"}, "generated_code", document("{}\n", "package-lock.json"), document("{}\n", "package.json")),
    ({"generated": "drop"}, "generated_code", document(f"# @generated\n{FINE}"), document(f"# generator of names\n{FINE}")),
    ({"max_lines": 3}, "many_lines", document("a\n" * 4), document("a\n" * 3)),
    ({"max_line_characters": 10}, "long_line", document("a" * 11), document("a" * 10)),
    ({"max_mean_line_characters": 5}, "long_mean_line", document("aaaaa\naaaaaa\n"), document("aaaaaa\r\naaaa\r\n")),
    ({"min_alphanumeric": 0.5}, "few_alphanumerics", document("aa++++"), document("aaa+++")),
    ({"min_alphabetic": 0.5}, "few_letters", document("aa1111"), document("aaa111")),
    ({"encoded_data": "drop"}, "encoded_data", document("x = '" + "QUJD" * 300 + "'"), document("x = '" + "QUJD" * 15 + "'" + "#" * 100)),
    ({"min_characters": 40}, "few_characters", dialogue("x" * 30), dialogue("x" * 31)),
    ({"max_characters": 40}, "many_characters", dialogue("x" * 32), dialogue("x" * 31)),
    ({"min_comments": 0.01}, "few_comments", document(FINE), document(f"# Sums.\n{FINE}")),
    ({"max_comments": 0.8}, "many_comments", document("# a comment and no more\n"), document(f"# Sums.\n{FINE}")),
    ({"empty_code": "drop"}, "empty_code", block("\n"), block("x\n")),
    ({"empty_code": "drop"}, "empty_code", block("# your code here\npass\n"), block("# your code here\npass_through()\n")),
    ({"empty_code": "drop"}, "empty_code", block("// Todo: implement\n...\n", "js"), block("// Todo: implement\nrun(...args)\n", "js")),
    ({"unparsable_code": "drop"}, "does_not_parse", block("def f(:\n"), block(FINE)),
    ({"unparsable_code": "drop"}, "does_not_parse", block("{'a': 1}\n", "json"), block('{"a": 1}\n', "json")),
    ({"refusals": "drop"}, "refusal", dialogue("I'm sorry, but I can't do that."), dialogue("I'm sorry for the bug; here is the fix.")),
    ({"refusals": "drop"}, "refusal", dialogue("As an AI language model, I"), dialogue("x" * 500 + " as an AI language model")),
    ({"refusals": "drop"}, "refusal", dialogue("Yes.", "I cannot assist with it."), dialogue("Yes.", "It cannot assist the parser.")),
    ({"unfilled_templates": "drop"}, "unfilled_template", dialogue("Dear [Your Name],"), dialogue("Use `[your key]` or `x`.")),
    ({"unfilled_templates": "drop"}, "unfilled_template", dialogue("Ask <insert name>"), dialogue("See [your profile](https://x.org).")),
    ({"unfilled_templates": "drop"}, "unfilled_template", dialogue("Lorem ipsum dolor"), block("x = '[insert here]'\n")),
    ({"refusals": "drop"}, "refusal", dialogue("As an AI, I cannot."), dialogue("As an AI engineer, you will use numpy.")),
    ({"refusals": "drop"}, "refusal", dialogue("As a language model, my data ends"), dialogue("As an AI developer, I would use numpy.")),
    ({"refusals": "drop"}, "refusal", dialogue("As an AI trained by them, no."), dialogue("As an AI system, the robot plans.")),
    ({"refusals": "drop"}, "refusal", dialogue("I'm just an AI."), dialogue("I'm an AI researcher; here is the code.")),
    ({"refusals": "drop"}, "refusal", dialogue("I am an AI assistant."), dialogue("I am an AI engineer.")),
    ({"refusals": "drop"}, "refusal", dialogue("I can't help with it."), dialogue("I can't help but notice that it loops.")),
    ({"refusals": "drop"}, "refusal", dialogue("I cannot help you."), dialogue("I cannot help wondering why.")),
    ({"unfilled_templates": "drop"}, "unfilled_template", dialogue("Dear [insert name],"), dialogue("Press [Enter] to continue.")),
    ({"unfilled_templates": "drop"}, "unfilled_template", dialogue("[Add text here]"), dialogue("Click [Add to cart].")),
    ({"unfilled_templates": "drop"}, "unfilled_template", dialogue("Set [enter the key]"), dialogue("Click [Enter your name] on it.")),
    (
        {"unfilled_templates": "drop"},
        "unfilled_template",
        dialogue("Set <your-key>."),
        dialogue(f"1. a\n   ```sh\n   {KEY}\n   ```\n2. b"),
    ),
    ({"unfilled_templates": "drop"}, "unfilled_template", dialogue(f"{KEY}\n~~~"), dialogue(f"~~~\n{KEY}\n~~~\n")),
    ({"unfilled_templates": "drop"}, "unfilled_template", dialogue(f"`a` {KEY} `b`"), dialogue(f"Run ``{KEY}`` now.")),
    ({"unparsable_code": "drop"}, "does_not_parse", block("    return (x + 1\n"), block("    return x + 1\n")),
    ({"unparsable_code": "drop"}, "does_not_parse", block(">>> f(\n"), block(">>> if f(1):\n...     g()\n...\n<g at 0x1>\n")),
    ({"unparsable_code": "drop"}, "does_not_parse", document("    return x + 1\n"), document("return x + 1\n")),
    ({"preset": "starcoder2"}, "long_line", document("a" * 1001), document(FINE * 300)),
    (
        {"preset": "starcoder2"},
        "little_visible_text",
        document("<p></p>" * 50, "a.html"),
        document("<p>" + "word " * 60 + "</p>", "a.html"),
    ),
    ({"preset": "starcoder"}, "few_characters", document('{"a": 1}', "a.json"), document('{"abc": "' + "word " * 20 + '"}', "a.json")),
    ({"preset": "starcoder"}, "excluded_extension", document(FINE, "a.cats"), document(FINE, "a.c")),
]


@pytest.mark.parametrize(("mapping", "reason", "taken", "left"), CASES)
def test_a_rule_takes_what_it_is_for(mapping: dict[str, Any], reason: str, taken: Record, left: Record) -> None:
    """Of two records that hardly differ, the rule takes one, and by itself it takes neither."""
    rules = filter_rules(mapping, "spec")
    fault = filter_fault(taken, rules)
    assert fault is not None
    assert fault[0] == reason
    assert filter_fault(left, rules) is None
    assert filter_fault(taken, filter_rules({}, "spec")) is None


def test_every_rule_has_a_case() -> None:
    """A rule that no case turns on would be a rule that nobody has seen work."""
    tried = {key for mapping, *_ in CASES for key in mapping} | {"min_characters_per_token", "thresholds"}
    assert set(filter_rules({}, "spec").__dataclass_fields__) <= tried


def test_tokens_are_counted_where_asked() -> None:
    """Characters a token: the measure by which StarCoder's authors told data from code (fertility)."""
    rules = filter_rules({"min_characters_per_token": 2.5}, "spec")
    assert filter_fault(document(FINE), rules, lambda text: len(text) // 3) is None
    assert filter_fault(document(FINE), rules, lambda text: len(text) // 2) == ("many_tokens", "2.00 characters a token; at least 2.5")


def test_the_file_of_several_that_is_at_fault_is_named() -> None:
    """A document of a repository is judged file by file."""
    files = (("a.py", FINE), ("b.py", "x" * 50))
    record = Record(Source("x", "o/r"), parts=render_repository(Repository("o/r", files), SC2).parts)
    assert filter_fault(record, filter_rules({"max_line_characters": 40}, "spec")) == (
        "long_line",
        "b.py: 50 characters in line 1; at most 40",
    )


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"preset": "starcoder3"}, "spec.preset: 'starcoder3'.*did you mean"),
        ({"languages": ["Pyhton"]}, "'Pyhton' is no language of the table; did you mean 'Python'"),
        ({"min_alphabetic": 25}, "spec.min_alphabetic: 25.0; expected a share from 0 to 1, or null: off"),
        ({"min_alphabetic": float("nan")}, "spec.min_alphabetic: nan; expected a share from 0 to 1, or null: off"),
        ({"min_characters_per_token": float("inf")}, "spec.min_characters_per_token: inf; expected a number from 0, or null: off"),
        ({"max_lines": -1}, "spec.max_lines: -1; expected a number from 0, or null: off"),
        ({"max_line_chars": 10}, "unknown key 'max_line_chars'"),
        ({"refusals": "yes"}, "refusals"),
    ],
)
def test_faulty_rules_are_refused(mapping: dict[str, Any], message: str) -> None:
    """What no rule can be says so before anything is read."""
    with pytest.raises(UserError, match=message):
        filter_rules(mapping, "spec")


def test_presets_hold_known_keys() -> None:
    """Each preset makes rules."""
    for name in PRESETS:
        assert filter_rules({"preset": name}, "spec").preset == name


@pytest.mark.parametrize(("family", "path"), [(SC1, "a.py"), (SC1, None), (SC2, "a.py"), (SC2, None)])
def test_the_file_of_a_document_is_found(family: Any, path: str | None) -> None:
    """With and without metadata, in both families; the record's own path counts where the document tells none."""
    file = SourceFile("\nx = 1\n", path, "o/r" if path else None)
    record = Record(Source("x", "o/r", "a.py"), parts=render_source(file, family).parts)
    assert code_of(record) == [Code("\nx = 1\n", "Python", "a.py", whole=True)]


def test_code_of_other_records() -> None:
    """Repositories give their files, commits their new side, answers their blocks, issues nothing."""
    files = (("a.py", "x\n"), ("b/c.go", "y\n"))
    for family in (SC1, SC2):
        record = Record(Source("x"), parts=render_repository(Repository("o/r", files), family).parts)
        assert [(code.path, code.language, code.text) for code in code_of(record)] == [("a.py", "Python", "x\n"), ("b/c.go", "Go", "y\n")]
    commit = (Part("<commit_before>", "a"), Part("<commit_msg>", "m"), Part("<commit_after>", "b"))
    assert code_of(Record(Source("x", path="a.rb"), parts=commit)) == [Code("b", "Ruby", "a.rb")]
    assert code_of(Record(Source("x"), parts=(Part("<issue_start>", "Title: a"),))) == []
    assert code_of(dialogue("```js\na\n```\nand\n```\nb\n```")) == [Code("a\n", "JavaScript"), Code("b\n", None)]


@pytest.mark.parametrize(("family", "path"), [(SC1, "a.py"), (SC2, "a.py"), (SC2, None)])
def test_redacted_code_is_code(family: Any, path: str | None) -> None:
    """StarCoder2's placeholders are control tokens within a file: filters and near-duplicates see the file all the same."""
    code = "MAIL = 'ada.lovelace@corp.io'\n" + FINE
    parts = render_source(SourceFile(code, path, "o/r" if path else None), family).parts
    record = Record(Source("x", "o/r", "a.py"), parts=parts)
    redacted = redacted_record(record, SecretRules(redact=("email",), style="tokens"))
    assert isinstance(redacted, RedactedRecord)
    assert "<EMAIL>" in {part.marker for part in redacted.record.parts}
    shown = code.replace("ada.lovelace@corp.io", "<EMAIL>")
    assert code_of(redacted.record) == [Code(shown, "Python", "a.py", whole=True)]
    assert compared_text(redacted.record) == shown
    assert filter_fault(redacted.record, filter_rules({"max_line_characters": 10}, "spec")) is not None
    commit = (Part("<commit_before>", "a"), Part("<commit_msg>", "m"), Part("<commit_after>", "b "), Part("<KEY>", "\n"))
    assert code_of(Record(Source("x", path="a.rb"), parts=commit)) == [Code("b <KEY>\n", "Ruby", "a.rb")]


def test_texts_are_put_back_where_they_were() -> None:
    """Replacing each text by itself changes nothing; other texts land in their places."""
    call = ToolCall("run", '{"a": 1}', "1")
    turns = (Turn("user", "q"), Turn("assistant", "", tool_calls=(call,)), Turn("tool", "r", tool_call_id="1"), Turn("assistant", "s"))
    records = [Record(Source("x"), turns, rejected=Turn("assistant", "t")), document(FINE)]
    for record in records:
        assert with_texts(record, texts_of(record)) == record
    changed = with_texts(records[0], [text.upper() for text in texts_of(records[0])])
    assert texts_of(changed) == ["Q", "", '{"A": 1}', "R", "S", "T"]
    assert changed.turns[1].tool_calls[0].id == "1"


@pytest.mark.parametrize(
    ("text", "language", "comments"),
    [
        ("x = '# no'  # yes\n", "Python", "# yes"),
        ('def f():\n    """Doc."""\n', "Python", '    """Doc."""'),
        ('x = """# no"""\n', "Python", ""),
        ("a = 'http://x'; // yes\n/* and */", "JavaScript", "// yes/* and */"),
        ("`// ${no}`", "TypeScript", ""),
        ("echo a#b # yes", "Shell", "# yes"),
        ("select 1 -- yes", "SQL", "-- yes"),
        ("<p><!-- yes --></p>", "HTML", "<!-- yes -->"),
        ("/* never closed", "C", "/* never closed"),
        ("", "C", ""),
    ],
)
def test_comments_are_told_from_strings(text: str, language: str, comments: str) -> None:
    """The share is that of the characters in comments."""
    assert comment_share(text, language) == pytest.approx(len(comments) / max(1, len(text)))


def test_languages_behind_fences() -> None:
    """Names of all shapes that people write."""
    found = [language_called(label) for label in ("Python", "py", "c++", "cpp", "c#", "sh", "golang", "yml", "console", "text")]
    assert found[:8] == ["Python", "Python", "C++", "C++", "C#", "Shell", "Go", "YAML"]


def test_hostile_texts_take_no_time() -> None:
    """Patterns with two ways to match one text would need for ever."""
    rules = filter_rules({"preset": "dialogues", "min_comments": 0.1, "languages": None}, "spec")
    hostile = ["# your code ", "/*", "'", "[insert ", "```\n", "```x\n", "~~~x\n", "```x\n~~~y\n", "`a", "<!--", ">>> x\n", "as an AI "]
    for text in hostile:
        for record in (dialogue(text * 40_000), block(text * 40_000), document(text * 40_000, "a.html")):
            begin = time.process_time()
            filter_fault(record, rules)
            assert time.process_time() - begin < 5, text
