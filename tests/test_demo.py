from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from demo.app import build_app, listen
from demo.display import read_shown, show_line, show_message, show_reply
from demo.guard import Guard, policy
from demo.replies import read_controls
from starchat.errors import UserError
from starchat.generate import load_assistant
from starchat.sampling import Sampling

TEXT = st.text(st.sampled_from("ab<>&`~!#[]() \n\t'\"/*_=mrd1;x0"), max_size=60)


@given(TEXT)
def test_a_message_is_read_back_as_it_was_written(text: str) -> None:
    assert read_shown(show_message(text)) == text


@given(TEXT)
def test_a_reply_is_read_back_as_it_was_written(text: str) -> None:
    assert read_shown(show_reply(text)) == re.sub(r"mermaid", "text", text)


@given(st.text())
def test_prose_of_a_message_holds_no_markup(text: str) -> None:
    prose = text.replace("`", "'").replace("~", "-").replace("\t", " ").replace("    ", " ")
    assert not re.search(r"[<>*_#\[\]()!`|\\~]", re.sub(r"&#x000[0-9a-f]{2};", "", show_message(prose)))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("vector<int> x", "vector&#x0003c;int> x"),
        ("`vector<int>`", "`vector<int>`"),
        ("``a`<b>``<c>", "``a`<b>``&#x0003c;c>"),
        ("```cpp\nvector<int>\n```\n<b>", "```cpp\nvector<int>\n```\n&#x0003c;b>"),
        ("1. so:\n   ```py\n   a < b\n   ```\n", "1. so:\n   ```py\n   a < b\n   ```\n"),
        ("```py\na < b", "```py\na < b"),
        ("so:\n\n    a < b\n\nc < d", "so:\n\n    a < b\n\nc &#x0003c; d"),
        ("![x](http://e.example/x.png)", "&#x00021;[x](http://e.example/x.png)"),
        ("```mermaid\ngraph\n```", "```text\ngraph\n```"),
        ("a ` b <c>\n\nd ` e", "a ` b &#x0003c;c>\n\nd ` e"),
    ],
)
def test_reply(raw: str, shown: str) -> None:
    assert show_reply(raw) == shown


def test_code_in_a_message_stays_code() -> None:
    assert show_message("a:\n```py\nx < 1\n```\nb") == "a&#x0003a;\n```py\nx < 1\n```\nb"


def test_lines_are_escaped() -> None:
    assert show_line("<b>", "notice") == '<p class="notice" role="alert">&lt;b&gt;</p>'
    assert show_line("", "notice") == ""


def test_controls_are_checked() -> None:
    assert read_controls((0, 16, 0.9, 20, 1.1, " 7 ")) == Sampling(16, 0.0, 0.9, 20, 1.1, 7)
    assert read_controls((0.5, 16, 0.9, 20, 1.1, None)).seed is None
    for seed in ("x", "-1", "1.5", "²"):
        with pytest.raises(UserError, match=r"seed: .*expected a whole number"):
            read_controls((0.5, 16, 0.9, 20, 1.1, seed))
    with pytest.raises(UserError, match="sampling: temperature: 'hot' is of type str"):
        read_controls(("hot", 16, 0.9, 20, 1.1, ""))


@pytest.fixture(scope="module")
def app(tiny_model: Path) -> FastAPI:
    return build_app(load_assistant(str(tiny_model)))


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def test_the_page_names_its_own_scripts_only(client: TestClient) -> None:
    page = client.get("/")
    rule = page.headers["Content-Security-Policy"]
    assert page.status_code == 200
    assert rule == policy(page.content)
    scripts = next(part for part in rule.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in scripts
    assert len(re.findall("sha256-", scripts)) >= 3
    assert not re.search(r"""<(script|link)[^>]*(src|href)=["']?(https?:)?//""", page.text)


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://127.0.0.1", "/gradio_api/openapi.json",
     "/gradio_api/runs", "/monitoring", "/gradio_api/vibe-code", "/docs", "/openapi.json", "/gradio_api/call/send",
     "/gradio_api/run/send", "/login", "/dev/reload"],
)  # fmt: skip
def test_other_paths_are_not_answered(client: TestClient, path: str) -> None:
    for method in ("GET", "POST"):
        assert client.request(method, path).status_code == 404
    assert client.get("/x/../etc/passwd").status_code == 404


def test_other_hosts_and_sites_are_not_answered(client: TestClient) -> None:
    assert client.get("/config", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/config", headers={"Host": "evil.example:7860"}).status_code == 421
    assert client.get("/config", headers={"Host": "localhost:7860"}).status_code == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        answer = client.post("/gradio_api/queue/join", headers={"Origin": origin}, json={})
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.get("/config", headers={"Origin": "http://127.0.0.1:7860"}).status_code == 200


def test_a_guard_without_hosts_answers_any_but_no_other_site() -> None:
    app = FastAPI()
    app.add_middleware(Guard, hosts=None)
    with TestClient(app, base_url="http://lab.example") as client:
        assert client.get("/config").status_code == 404
        assert client.get("/config", headers={"Origin": "http://evil.example"}).status_code == 403


def test_settings_that_the_page_tells_the_browser(client: TestClient) -> None:
    config = client.get("/config").json()
    [messages] = [part["props"] for part in config["components"] if part["type"] == "chatbot"]
    assert messages["sanitize_html"] is True
    assert messages["allow_tags"] is False
    assert messages["latex_delimiters"] == []
    assert all(event["api_visibility"] == "private" for event in config["dependencies"] if event["api_name"])
    assert config["analytics_enabled"] is False
    assert config.get("run_history") is False
    assert not [part["type"] for part in config["components"] if part["type"] == "html"], "gr.HTML needs a policy that allows eval"


def test_a_taken_port_is_one_line() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1:{port}: Address already in use; choose another port"):
            listen("127.0.0.1", port)
