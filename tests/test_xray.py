"""The report as people see it: aligned text without colour outside a terminal, and a page that shows rows and runs nothing of theirs."""

from __future__ import annotations

import html.parser
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import content, dialogues
from starchat.check import Finding, Report, examine
from starchat.dialogue import Record, Source, Turn
from starchat.encode import Row, encode_dialogues
from starchat.recipe import Recipe
from starchat.xray import render_text, write_html

RECIPE = Recipe(model="base", dataset="data", output="run", max_length_tokens=4000)
HOSTILE = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


class Ascii(io.StringIO):
    encoding = "ascii"


class Reader(html.parser.HTMLParser):
    """Collects elements, their attributes, and the text of tokens by row."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "article":
            self.texts.append([])
        if tag not in ("meta", "input", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        if "article" in self.open and self.open[-1] in ("b", "i", "kbd"):
            self.texts[-1].append((self.open[-1], data))


def report_of(tokens, records):
    rows = [item for item in encode_dialogues(records, tokens, 4000) if isinstance(item, Row)]
    return examine(RECIPE, tokens, records, {"train": rows, "test": []}, [], tokens.size), rows


def one(user, assistant):
    return Record(Source("a.jsonl:1"), turns=(Turn("user", user), Turn("assistant", assistant)))


@pytest.fixture
def report(all_tokens):
    return report_of(all_tokens["starcoder", "starchat"], [one("hi", "hello")])[0]


def test_text_is_aligned_and_says_how_it_ended(report):
    text = render_text(report, io.StringIO())
    lines = text.splitlines()
    assert "\x1b" not in text
    columns = {line.index(f.detail[:10]) for f in report.findings for line in lines if line.split()[1:2] == [f.check]}
    assert len(columns) == 1
    assert lines[-1] == f"All {len(report.findings)} checks hold"
    assert all(line == line.rstrip() for line in lines)


def test_a_fault_shows_its_remedy_below(report):
    finding = Finding("lengths", False, "1 fault: [red]a.jsonl:3[/red] is long", "raise max_length_tokens")
    lines = render_text(Report((finding, *report.findings), report.stats), io.StringIO()).splitlines()
    assert lines[0].strip() == "data"
    assert lines[1].split()[1:] == ["lengths", "1", "fault:", "[red]a.jsonl:3[/red]", "is", "long"]
    assert lines[2].strip() in ("→ raise max_length_tokens", "-> raise max_length_tokens")
    assert lines[-1] == f"1 of {len(report.findings) + 1} checks found a fault: lengths"


def test_colour_only_on_a_terminal_that_wants_it(report, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", render_text(report, Terminal()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", render_text(report, Terminal()))


def test_a_stream_without_unicode_gets_words(report):
    assert "\nok  " in render_text(report, Ascii())


@pytest.mark.parametrize("key", [("starcoder", "starchat"), ("qwen", "chatml")])
def test_the_page_shows_each_token_and_nothing_of_a_row_becomes_markup(all_tokens, key, tmp_path):
    tokens = all_tokens[key]

    @given(st.lists(dialogues(), min_size=1, max_size=3), content)
    @settings(max_examples=20, deadline=None)
    def check(records, text):
        records = [*records, one(text + HOSTILE, HOSTILE + text)]
        report, rows = report_of(tokens, records)
        write_html(tmp_path / "x.html", report, rows, tokens, records)
        reader = Reader()
        reader.feed((tmp_path / "x.html").read_text(encoding="utf-8"))
        assert reader.open == []
        assert reader.tags.count("script") == 1
        assert "img" not in reader.tags
        assert not [name for name, _ in reader.attributes if name.startswith("on")]
        assert len(reader.texts) == len(rows)
        for row, shown in zip(rows, reader.texts, strict=True):
            text = "".join(re.sub("⟨([0-9A-F]+)⟩", lambda m: chr(int(m[1], 16)), part) for _, part in shown)
            assert text == re.sub("⟨([0-9A-F]+)⟩", lambda m: chr(int(m[1], 16)), tokens.decode(row.ids))
            plain = row.trained & ~np.isin(row.ids, [*tokens.control.values()])
            assert ("b" in {tag for tag, _ in shown}) == bool(plain.any())

    check()


def test_the_page_needs_nothing_from_outside(report, all_tokens, tmp_path):
    _, rows = report_of(all_tokens["starcoder", "starchat"], [one("hi", "hello")])
    write_html(tmp_path / "x.html", report, rows, all_tokens["starcoder", "starchat"])
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|<link", text)
    assert "default-src 'none'" in text


def test_rows_are_evenly_chosen_and_the_page_says_so(all_tokens, tmp_path):
    tokens = all_tokens["starcoder", "starchat"]
    records = [one(f"q{n}", f"a{n}") for n in range(30)]
    report, rows = report_of(tokens, records)
    write_html(tmp_path / "x.html", report, rows, tokens, records, limit=5)
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert text.count("<article") == 5
    assert "5 of 30 rows, evenly chosen" in text
    assert 'id="r0"' in text
    assert 'id="r29"' in text


def in_browser(page, profile):
    """Return the page's document after its scripts ran."""
    command = [
        *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"),
        *("--virtual-time-budget=2000", "--dump-dom", page.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_in_a_browser_our_script_runs_and_the_rows_run_nothing(all_tokens, tmp_path):
    tokens = all_tokens["starcoder", "starchat"]
    records = [one(HOSTILE, HOSTILE), one("plain words", "other words")]
    report, rows = report_of(tokens, records)
    page = tmp_path / "x.html"
    write_html(page, report, rows, tokens, records)
    shown = in_browser(page, tmp_path / "profile")
    assert "<title>Loss X-ray</title>" in shown
    assert '<body class="ready">' in shown
    assert shown.count("<article") == 2
    # The same page without the policy and with a row that is not escaped: this is what must not happen.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    page.write_text(text.replace("<main>", f"<main>{HOSTILE}"), encoding="utf-8")
    assert "<title>owned</title>" in in_browser(page, tmp_path / "profile")
