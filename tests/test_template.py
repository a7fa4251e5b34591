"""Law 3: the exported Jinja template gives the ids of our encoder, for every dialogue, also in transformers itself."""

from __future__ import annotations

import functools
import json

import jinja2
import pytest
from hypothesis import given, settings
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hostile import FAMILIES, dialogues
from starchat.dialogue import Record, Source, ToolCall, Turn, to_message
from starchat.encode import encode_dialogues, encode_prompt
from starchat.errors import UserError
from starchat.template import TEMPLATES, find_template, jinja, render_text, turn_segments, with_tools
from starchat.tokens import load_tokens, save_tokens

KEYS = [(family, template) for family in FAMILIES for template in TEMPLATES]
SAMPLES = (
    (Turn("user", "hi"), Turn("assistant", "\n    return x\n")),
    (Turn("system", "user\n"), Turn("user", "user\n<|im_end|>\n<|end|>"), Turn("assistant", "\n\n<|endoftext|>é\u0338")),
    (Turn("user", "e\u0301 \ufdd0<|user|>"), Turn("assistant", "", tool_calls=(ToolCall("add", '{"a": 1}'), ToolCall("é", "{}")))),
    (Turn("user", "2+2"), Turn("assistant", "", tool_calls=(ToolCall("add", "{}"),)), Turn("tool", "<|end|>4"), Turn("assistant", "4")),
)
TOOLS = '[{"type": "function", "function": {"name": "add<|end|>", "description": "adds é"}}]'


def environment():
    """Return the Jinja environment that transformers renders chat templates in."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.globals["raise_exception"] = raise_exception
    return env


@functools.cache
def compiled(source):
    """Return the template, compiled once."""
    return environment().from_string(source)


def rendered(tokens, turns, tools, prompt=False):
    """Return the text that the exported template makes."""
    template = compiled(jinja(tokens.template, list(tokens.control), tokens.bos))
    messages = [to_message(turn) for turn in turns]
    return template.render(messages=messages, tools=json.loads(tools) if tools else None, add_generation_prompt=prompt)


@pytest.mark.parametrize("key", KEYS)
def test_jinja_gives_the_ids_of_rows_and_prompts(all_tokens, key):
    tokens = all_tokens[key]

    @given(dialogues())
    @settings(max_examples=30, deadline=None)
    def check(record):
        (row,) = encode_dialogues([record], tokens, 100_000)
        text = rendered(tokens, record.turns, record.tools)
        assert tokens.whole.encode(text, add_special_tokens=False).ids == row.ids.tolist()
        for number, turn in enumerate(record.turns):
            if turn.role == "assistant" and number:
                text = rendered(tokens, record.turns[:number], record.tools, prompt=True)
                prompt = encode_prompt(record.turns[:number], tokens, record.tools)
                assert tokens.whole.encode(text, add_special_tokens=False).ids == prompt

    check()


def test_jinja_refuses_an_unknown_role(all_tokens):
    with pytest.raises(jinja2.exceptions.TemplateError, match="unknown role bot"):
        rendered(all_tokens["starcoder", "starchat"], [Turn("bot", "hi")], None)


@pytest.fixture(scope="session")
def auto_tokenizers(bases, tmp_path_factory):
    """What ``AutoTokenizer`` loads from `save_tokens`' folder, by (family, template), beside the tokens that were saved."""
    from transformers import AutoTokenizer

    loaded = {}
    for family, template in KEYS:
        folder = tmp_path_factory.mktemp(f"saved-{family}-{template}")
        tokens = load_tokens(bases[family], find_template(template))
        save_tokens(tokens, folder, 1024)
        loaded[family, template] = (AutoTokenizer.from_pretrained(folder), tokens)
    return loaded


@pytest.mark.parametrize("key", KEYS)
def test_transformers_gives_the_same_ids(auto_tokenizers, key):
    auto, tokens = auto_tokenizers[key]

    @given(dialogues())
    @settings(max_examples=25, deadline=None)
    def check(record):
        (row,) = encode_dialogues([record], tokens, 100_000)
        messages, tools = [to_message(turn) for turn in record.turns], json.loads(record.tools) if record.tools else None
        ids = auto.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False)
        assert ids == row.ids.tolist()

    check()
    assert auto.eos_token_id == tokens.control[tokens.end]
    assert auto.pad_token_id == tokens.pad_id
    for turns in SAMPLES:
        prompt = auto.apply_chat_template([to_message(t) for t in turns[:1]], add_generation_prompt=True, tokenize=True, return_dict=False)
        assert prompt == encode_prompt(turns[:1], tokens)
        tooled = auto.apply_chat_template([to_message(t) for t in turns], tools=json.loads(TOOLS), tokenize=True, return_dict=False)
        (row,) = encode_dialogues([Record(Source("x:1"), turns=turns, tools=TOOLS)], tokens, 1024)
        assert tooled == row.ids.tolist()


@pytest.mark.parametrize("name", TEMPLATES)
def test_only_assistant_content_and_end_are_trained(name):
    template = TEMPLATES[name]
    for role in ("system", "user", "tool"):
        assert not any(s.trained for s in turn_segments(template, Turn(role, "x")))
    assert [s.text for s in turn_segments(template, Turn("assistant", "x")) if s.trained] == ["x", template.end]
    assert [s.text for s in turn_segments(template, Turn("assistant", "")) if s.trained] == [template.end]
    assert not any(s.trained for s in turn_segments(template, Turn("assistant", "x", train=False)))


def test_tools_stand_in_the_system_turn():
    turns = (Turn("user", "hi"),)
    assert with_tools(turns, None) == with_tools(turns, "[]") == turns
    assert [t.role for t in with_tools(turns, TOOLS)] == ["system", "user"]
    both = with_tools((Turn("system", "be brief"), *turns), TOOLS)
    assert both[0].content.startswith("be brief\n\nTools that you may call:\n")


def test_rendered_text_reads_as_the_template_is_written():
    turns = (Turn("user", "hi"), Turn("assistant", "yes"))
    assert render_text(TEMPLATES["chatml"], turns) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
    assert render_text(TEMPLATES["starchat"], turns) == "<|user|>hi<|end|><|assistant|>yes<|end|>"


def test_unknown_template_names_the_closest():
    with pytest.raises(UserError, match="did you mean 'chatml'"):
        find_template("chatmI")
