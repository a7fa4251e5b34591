"""The chat page in a real browser, against a real server and a real (tiny, random) model."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from demo.app import build_app, listen, make_server
from starchat.generate import Assistant, Chunk, load_assistant

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs a browser: no chromium and chromedriver on PATH"),
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),  # from Gradio's queue statistics
]

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip

HOSTILE = """\
<script>window.hit = 1</script><img src=x onerror="window.hit = 2"><svg onload="window.hit = 3"></svg>
<custom-tag onclick="window.hit = 4">custom</custom-tag> vector<int> &lt;kept&gt;

[click](javascript:window.hit=5) [also](data:text/html,<script>parent.hit=6</script>)

![image](http://203.0.113.1/leak.png) <iframe srcdoc="<script>parent.hit=7</script>"></iframe>

<style>body { display: none }</style><a href="http://203.0.113.1/">out</a> <form action="http://203.0.113.1/"><input name=q></form>

```mermaid
graph TD; A["<img src=x onerror=window.hit=8>"] --> B
```

```html
<script>window.hit = 9</script>
```
"""


class Scripted(Assistant):
    """A real assistant whose replies can be given: that is content, not what is tested here."""

    reply_text: str | None = None
    prompts: list[list[str]]

    def stream(self, turns, sampling, stop=None) -> Iterator[Chunk]:  # type: ignore[no-untyped-def]
        self.prompts.append([f"{turn.role}: {turn.content}" for turn in turns])
        if self.reply_text is None:
            yield from super().stream(turns, sampling, stop)
            return
        for number, piece in enumerate(re.findall(r"[\s\S]{1,40}", self.reply_text), 1):
            yield Chunk(piece, number, 1, 1.0)
        yield Chunk("", number, 1, 1.0, "stop")

    def _forward(self, *args):  # type: ignore[no-untyped-def]
        logits = super()._forward(*args).clone()
        logits[:, list(self.tokens.stop_ids)] = -torch.inf  # a random model ends when it likes; these replies go on to the limit
        return logits


@pytest.fixture(scope="module")
def assistant(tiny_model: Path) -> Scripted:
    real = load_assistant(str(tiny_model))
    scripted = Scripted(real.model, real.tokens, "tiny", "# Card of tiny\n\n<script>window.hit = 10</script>Licence: none.")
    scripted.prompts = []
    return scripted


@pytest.fixture(scope="module")
def address(assistant: Scripted) -> Iterator[str]:
    listening = listen("127.0.0.1", 0)
    server = make_server(build_app(assistant))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)
    listening.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    yield driver
    driver.quit()


class Page:
    """The page as a person sees it."""

    def __init__(self, browser: webdriver.Chrome, assistant: Scripted, address: str) -> None:
        self.browser, self.assistant = browser, assistant
        assistant.reply_text, assistant.prompts = None, []
        browser.get("about:blank")  # what the page before says when it is left in the middle of things is not this page's
        browser.get_log("performance")
        browser.get_log("browser")
        browser.get(address)
        self.until(lambda: self.all("#box textarea"))
        browser.execute_script("window.hit = 0")

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        texts = self.until(lambda: ["\n".join(element.text for element in self.all(selector))])  # again if the page renews its parts
        return str(texts[0])

    def until(self, condition: Callable[[], object], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if value := condition():
                    return value
            except StaleElementReferenceException:
                pass
            assert time.monotonic() < deadline, f"did not come; the page says {self.text('#talk')!r}"
            time.sleep(0.03)

    def click(self, selector: str) -> None:
        self.until(lambda: [e for e in self.all(selector) if e.is_displayed() and e.is_enabled()])[-1].click()

    def box(self) -> Any:
        return self.all("#box textarea")[0]

    def fill(self, selector: str, text: str) -> None:
        [field] = self.all(selector)
        field.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE, text, Keys.TAB)

    def send(self, text: str) -> None:
        """Type a message with its line breaks, and send it."""
        for number, line in enumerate(text.split("\n")):
            self.box().send_keys(*([Keys.SHIFT, Keys.ENTER, Keys.NULL] if number else []), line)
        self.box().send_keys(Keys.ENTER)

    def finished(self) -> None:
        """Wait until the reply is written: the send button is back, the last message has its buttons, and the page rests.

        The buttons alone do not tell: for a moment after a message was sent they are still those of the reply before."""
        seen, since = "", time.monotonic()

        def rests() -> bool:
            nonlocal seen, since
            if not (self.all("#box .submit-button") and self.all("[aria-label=Retry]:not([disabled])")):
                since = time.monotonic()
            elif (now := self.text("#talk, #status, #notice")) != seen:
                seen, since = now, time.monotonic()
            return time.monotonic() > since + 0.4

        self.until(rests)

    def ask(self, text: str) -> None:
        asked = len(self.assistant.prompts)
        self.send(text)
        self.until(lambda: len(self.assistant.prompts) > asked)
        self.finished()


@pytest.fixture
def page(browser: webdriver.Chrome, assistant: Scripted, address: str) -> Iterator[Page]:
    page = Page(browser, assistant, address)
    yield page
    if page.all("#box .stop-button"):
        page.click("#box .stop-button")
        page.finished()
    requests = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = {r["params"]["request"]["url"] for r in requests if r["method"] == "Network.requestWillBeSent"}
    assert addresses, "the browser's log tells what was asked for"
    assert not [a for a in addresses if not a.startswith((address, "data:", "blob:", "chrome:"))]
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe


def test_message_streams_and_is_counted(page: Page) -> None:
    page.fill("#max-new-tokens input[type=number]", "400")
    page.send("Why?")
    first = page.until(lambda: page.text("[data-testid=bot]"))
    page.until(lambda: len(page.text("[data-testid=bot]")) > len(first))
    page.finished()
    assert re.search(r"context \d+ of 1,024 tokens · reply \d+ tokens · [\d.]+ tokens/s", page.text("#status"))
    assert page.text("[data-testid=user]") == "Why?"
    assert page.box().get_attribute("value") == ""
    assert page.text("#model-name") == "tiny"


def test_stop_keeps_what_was_written(page: Page) -> None:
    page.fill("#max-new-tokens input[type=number]", "1000")
    page.send("Why?")
    page.until(lambda: page.text("[data-testid=bot]"))
    page.click("#box .stop-button")
    page.until(lambda: "stopped" in page.text("#status"))
    page.finished()
    kept = page.text("[data-testid=bot]")
    time.sleep(0.3)
    assert page.text("[data-testid=bot]") == kept != ""


def test_retry_undo_and_edit(page: Page) -> None:
    page.assistant.reply_text = "First reply."
    page.ask("One")
    page.ask("Two")
    page.assistant.reply_text = "Another reply."
    page.click("[aria-label=Retry]")
    page.until(lambda: page.text("[data-testid=bot]") == "First reply.\nAnother reply.")
    page.finished()
    page.click("[aria-label=Undo]")
    page.until(lambda: page.box().get_attribute("value") == "Two")
    assert page.text("[data-testid=user]") == "One"
    page.box().clear()
    page.all("[aria-label=Edit]")[0].click()
    [area] = page.until(lambda: page.all("textarea.edit-textarea"))
    area.clear()
    area.send_keys("Changed <b>")
    page.click("[aria-label=Submit]")
    page.until(lambda: page.text("[data-testid=user]") == "Changed <b>")
    page.finished()
    assert page.assistant.prompts == [
        ["user: One"],
        ["user: One", "assistant: First reply.", "user: Two"],
        ["user: One", "assistant: First reply.", "user: Two"],
        ["user: Changed <b>"],
    ]


def test_the_model_sees_what_was_written(page: Page) -> None:
    """Also where the page shows it otherwise: line breaks, indentation at the start of a reply, entities."""
    page.assistant.reply_text = "\n    indented <b>\n\n"
    page.ask("if a < b:\n  # no &lt; heading")
    assert page.all("[data-testid=user] p")[0].get_attribute("innerText") == "if a < b:\n  # no &lt; heading"
    page.ask("Two")
    assert page.assistant.prompts[-1] == [
        "user: if a < b:\n  # no &lt; heading", "assistant: \n    indented <b>\n\n", "user: Two",
    ]  # fmt: skip


def test_editing_shows_the_message_as_it_was_written(page: Page) -> None:
    page.assistant.reply_text = "Yes."
    page.ask("a < b & *c*")
    page.click("[aria-label=Edit]")
    page.until(lambda: [area for area in page.all("textarea.edit-textarea") if area.get_attribute("value") == "a < b & *c*"])
    page.click("[aria-label=Submit]")
    page.until(lambda: len(page.assistant.prompts) == 2)
    assert page.assistant.prompts[1] == ["user: a < b & *c*"]


def test_copy_buttons(page: Page) -> None:
    page.assistant.reply_text = "A set<int>:\n\n```py\na < b\n```\n"
    page.ask("x < y")
    copied = "return navigator.clipboard.readText()"
    page.all("[aria-label='Copy message']")[0].click()
    page.until(lambda: page.browser.execute_script(copied) == "x < y")
    page.all("[aria-label='Copy message']")[-1].click()
    page.until(lambda: page.browser.execute_script(copied) == page.assistant.reply_text)
    page.click(".copy_code_button")
    page.until(lambda: page.browser.execute_script(copied).strip() == "a < b")


def test_system_prompt_and_sampling_reach_the_model(page: Page) -> None:
    page.fill("#system textarea", "Answer in French.")
    page.fill("#max-new-tokens input[type=number]", "5")
    page.fill("#temperature input[type=number]", "1.5")
    page.fill("#seed input, #seed textarea", "7")
    page.ask("Why?")
    first = page.text("[data-testid=bot]")
    assert page.assistant.prompts == [["system: Answer in French.", "user: Why?"]]
    assert "reply 5 tokens" in page.text("#status")
    assert "cut at the limit" in page.text("#status")
    page.click("[aria-label=Retry]")
    page.until(lambda: len(page.assistant.prompts) == 2)
    page.finished()
    assert page.text("[data-testid=bot]") == first, "the same seed gives the same reply"


def test_example_new_conversation_and_card(page: Page) -> None:
    page.assistant.reply_text = "So."
    page.all(".example")[1].click()
    page.until(lambda: page.assistant.prompts)
    page.finished()
    assert page.assistant.prompts == [["user: Why does my default list argument keep growing?"]]
    page.click("#new")
    page.until(lambda: page.all(".example") and not page.all("[data-testid=user]"))
    page.click("#card button")
    page.until(lambda: "Card of tiny" in page.text("#card") and "Licence: none." in page.text("#card"))
    assert page.browser.execute_script("return window.hit") == 0


def test_errors_are_one_line_and_what_was_typed_stays(page: Page) -> None:
    page.fill("#seed input, #seed textarea", "often")
    page.send("Why?")
    page.until(lambda: page.text("#notice") == "seed: 'often'; expected a whole number, or nothing for a new one each time")
    assert page.box().get_attribute("value") == "Why?"
    page.fill("#seed input, #seed textarea", "")
    page.browser.execute_script(
        "const box = document.querySelector('#box textarea'); box.value = 'y'.repeat(4000); box.dispatchEvent(new Event('input'))"
    )
    page.box().send_keys(Keys.ENTER)
    page.until(lambda: re.match(r"message: 4,\d+ tokens with the system prompt; the model's context is 1,024 tokens", page.text("#notice")))
    assert not page.all("[data-testid=user]")


def test_a_shortened_conversation_says_so(page: Page) -> None:
    page.assistant.reply_text = "z" * 200
    for letter in "abc":
        page.ask(letter * 200)
    shortened = "This conversation is longer than the model's context of 1,024 tokens: the oldest exchange was left out of the prompt."
    page.until(lambda: page.text("#notice") == shortened)
    assert [prompt[0][6:8] for prompt in page.assistant.prompts] == ["aa", "aa", "bb"]
    assert len(page.all("[data-testid=user]")) == 3


def test_hostile_content_neither_runs_nor_loads_nor_vanishes(page: Page) -> None:
    page.assistant.reply_text = HOSTILE
    page.ask(HOSTILE.replace("```", "'''"))
    for role in ("user", "bot"):
        [shown] = page.all(f"[data-testid={role}]")
        assert "<custom-tag onclick" in shown.text
        assert "vector<int> &lt;kept&gt;" in shown.text
        assert "<script>window.hit = 1</script>" in shown.text
        inside = "script, img, svg[onload], iframe, custom-tag, style, form, input, .mermaid, [onclick], [onerror]"
        assert not shown.find_elements(By.CSS_SELECTOR, inside)
        links = [a.get_attribute("href") or "" for a in shown.find_elements(By.TAG_NAME, "a")]
        assert not [link for link in links if link.startswith(("javascript:", "data:"))]
        for link in shown.find_elements(By.CSS_SELECTOR, "a:not([href^=http])"):
            page.browser.execute_script("arguments[0].click()", link)
    time.sleep(0.5)
    assert page.browser.execute_script("return window.hit") == 0


def test_the_policy_stops_what_a_sanitizer_would_miss(page: Page) -> None:
    """The second wall, tried on its own: markup put into the page behind the sanitizer's back."""
    page.browser.execute_script(
        "const box = document.createElement('div'); document.body.append(box);"
        'box.innerHTML = \'<img src=x:y onerror="window.hit = 1"><img src="http://203.0.113.1/leak.png">\';'
        "const script = document.createElement('script'); script.textContent = 'window.hit = 2'; document.body.append(script);"
    )
    time.sleep(0.5)
    assert page.browser.execute_script("return window.hit") == 0
    blocked = [entry["message"] for entry in page.browser.get_log("browser") if "Content Security Policy" in entry["message"]]
    assert len(blocked) >= 3
    requests = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    assert "http://203.0.113.1/leak.png" not in {
        r["params"]["response"]["url"] for r in requests if r["method"] == "Network.responseReceived"
    }
    page.browser.get(page.browser.current_url)  # so that the log that the fixture looks at has requests of the page alone
    page.until(lambda: page.all("#box textarea"))


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (1280, 900)])
def test_nothing_is_wider_than_the_screen(page: Page, width: int, height: int) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    )
    try:
        page.assistant.reply_text = "```py\n" + "long_line = " * 60 + "\n```\n\n" + "w" * 300
        page.ask("v" * 300)
        assert page.browser.execute_script("return document.scrollingElement.scrollWidth") <= width
        box = page.box().rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
