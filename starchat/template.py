"""A dialogue as segments with a trained flag: the one renderer.

In: turns. Out: segments, each a control token or plain text, each trained or not; and the same template as
Jinja text for ``chat_template``. No tokenizer here, no files.

Text and control tokens never share a segment, and the text of a trained turn lies directly between two
control tokens. That is why a prompt is always a token prefix of the training row, also when an answer
begins with a newline or with indentation, which a byte-level BPE would merge with a newline before it.
ChatML's header text (``assistant`` and a newline) is the exception; `starchat.tokens` makes the tokenizer
split behind it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from starchat.config import closest
from starchat.dialogue import ToolCall, Turn, canonical_json
from starchat.errors import UserError

ESCAPE = "\ufdd0"
"""A Unicode noncharacter (never valid in interchange). Jinja puts it into control strings that stand in content;
the tokenizer's normalizer removes it after control tokens were looked for. See `starchat.tokens`."""


class Segment(NamedTuple):
    """A control token by name, or plain text; `turn` counts from 0. A tuple: three for each turn, and a dataclass is slow to make."""

    text: str
    control: bool
    trained: bool
    turn: int


@dataclasses.dataclass(frozen=True)
class Template:
    """How turns are marked. `markers` maps system, user and assistant to (control token, header text)."""

    name: str
    markers: Mapping[str, tuple[str, str]]
    end: str
    after_end: str = ""

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Every control token that the template uses, each once."""
        return tuple(dict.fromkeys([*(token for token, _ in self.markers.values()), self.end]))

    def marker(self, role: str) -> tuple[str, str]:
        """Return control token and header text of a role; what tools answer is told to the model as a user turn."""
        return self.markers["user" if role == "tool" else role]


def _roles(system: str, user: str, assistant: str) -> dict[str, tuple[str, str]]:
    return {"system": (system, ""), "user": (user, ""), "assistant": (assistant, "")}


TEMPLATES: Mapping[str, Template] = {
    # The markers of the StarChat release, without its newlines: those merge with the content's first token.
    "starchat": Template("starchat", _roles("<|system|>", "<|user|>", "<|assistant|>"), "<|end|>"),
    "chatml": Template(
        "chatml", {role: ("<|im_start|>", f"{role}\n") for role in ("system", "user", "assistant")}, "<|im_end|>", after_end="\n"
    ),
    # Tokens that both StarCoder families have since pretraining: nothing to add, nothing to resize.
    "native": Template("native", _roles("<issue_start>", "<issue_comment>", "<jupyter_text>"), "<|endoftext|>"),
}


def find_template(name: str) -> Template:
    """Return a template by name."""
    if name not in TEMPLATES:
        raise UserError(f"template: {name!r}; {closest(name, TEMPLATES)}")
    return TEMPLATES[name]


def render_call(call: ToolCall) -> str:
    """Return a tool call as the text that the assistant writes.

    >>> render_call(ToolCall("add", '{"a": 1}'))
    '<tool_call>\\n{"name": "add", "arguments": {"a": 1}}\\n</tool_call>'
    """
    return f'<tool_call>\n{{"name": {canonical_json(call.name)}, "arguments": {call.arguments}}}\n</tool_call>'


def turn_text(turn: Turn) -> str:
    """Return what stands between a turn's header and its end token."""
    if turn.role == "tool":
        return f"<tool_response>\n{turn.content}\n</tool_response>"
    return "\n".join([*([turn.content] if turn.content or not turn.tool_calls else []), *map(render_call, turn.tool_calls)])


def tools_text(tools: str) -> str:
    """Return the description of tools (JSON text of a list) that is put at the end of the system turn."""
    lines = [canonical_json(tool) for tool in json.loads(tools)]
    return "Tools that you may call:\n" + "\n".join(lines)


def with_tools(turns: Sequence[Turn], tools: str | None) -> tuple[Turn, ...]:
    """Return the turns with the tools described in the first system turn, which is made if there is none."""
    if tools is None or not json.loads(tools):
        return tuple(turns)
    if turns and turns[0].role == "system":
        first, rest = turns[0], turns[1:]
        return (dataclasses.replace(first, content=f"{first.content}\n\n{tools_text(tools)}"), *rest)
    return (Turn("system", tools_text(tools)), *turns)


def turn_segments(template: Template, turn: Turn, number: int = 0) -> list[Segment]:
    """Return the segments of one turn. Trained are the content and the end token of a trained turn, and nothing else.

    >>> [s.text for s in turn_segments(TEMPLATES["starchat"], Turn("user", "hi"))]
    ['<|user|>', 'hi', '<|end|>']
    """
    token, header = template.marker(turn.role)
    text, trained = turn_text(turn), turn.trained
    parts = (
        (token, True, False),
        (header, False, False),
        (text, False, trained),
        (template.end, True, trained),
        (template.after_end, False, False),
    )
    return [Segment(*part, number) for part in parts if part[0]]


def prompt_segments(template: Template, number: int = 0) -> list[Segment]:
    """Return the segments that ask for a reply: an assistant turn's header."""
    token, header = template.marker("assistant")
    return [Segment(text, control, False, number) for text, control in ((token, True), (header, False)) if text]


def render_text(template: Template, turns: Sequence[Turn], tools: str | None = None) -> str:
    """Return a dialogue as text, for people to read. Never encode this: content could forge control tokens."""
    return "".join(s.text for n, turn in enumerate(with_tools(turns, tools)) for s in turn_segments(template, turn, n))


def jinja(template: Template, control_tokens: Sequence[str], bos: str | None = None) -> str:
    """Return the template as Jinja for ``chat_template``; its output tokenized whole gives the ids of our encoder.

    `control_tokens` are all of the tokenizer's: where content spells one, `ESCAPE` goes behind its first
    character, so that the tokenizer finds no control token there.
    """

    def quote(text: str) -> str:
        return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'  # the escapes that Jinja reads

    markers = {role: "".join(template.marker(role)) for role in ("system", "user", "assistant", "tool")}
    end = quote(template.end + template.after_end)
    lines = [
        "{%- set control = [" + ", ".join(quote(t) for t in control_tokens) + "] -%}",
        "{%- set markers = {" + ", ".join(f"{quote(r)}: {quote(m)}" for r, m in markers.items()) + "} -%}",
        "{%- macro plain(text) -%}{%- set ns = namespace(text=text) -%}{%- for token in control if token in text -%}"
        "{%- set ns.text = ns.text.replace(token, token[0] ~ " + quote(ESCAPE) + " ~ token[1:]) -%}"
        "{%- endfor -%}{{- ns.text -}}{%- endmacro -%}",
        "{%- macro call_text(call) -%}"
        "{{- '<tool_call>\\n{\"name\": ' ~ (call.function.name | tojson) ~ ', \"arguments\": ' ~ "
        "(call.function.arguments if call.function.arguments is string else call.function.arguments | tojson)"
        " ~ '}\\n</tool_call>' -}}{%- endmacro -%}",
        "{%- macro tool_lines() -%}{{- 'Tools that you may call:\\n' -}}"
        "{%- for tool in tools -%}{{- tool | tojson ~ ('' if loop.last else '\\n') -}}{%- endfor -%}{%- endmacro -%}",
        "{{- " + quote(bos) + " -}}" if bos else "",
        "{%- if tools and messages[0].role != 'system' -%}{{- markers['system'] ~ plain(tool_lines()) ~ " + end + " -}}{%- endif -%}",
        "{%- for message in messages -%}",
        "{%- if message.role not in markers -%}{{- raise_exception('unknown role ' ~ message.role) -}}{%- endif -%}",
        "{%- set body = namespace(text=message.content or '') -%}",
        "{%- if message.role == 'tool' -%}{%- set body.text = '<tool_response>\\n' ~ body.text ~ '\\n</tool_response>' -%}{%- endif -%}",
        "{%- if tools and loop.first and message.role == 'system' -%}"
        "{%- set body.text = body.text ~ '\\n\\n' ~ tool_lines() -%}{%- endif -%}",
        "{%- for call in (message.tool_calls or []) if message.role != 'tool' -%}"
        "{%- set body.text = body.text ~ ('\\n' if body.text else '') ~ call_text(call) -%}{%- endfor -%}",
        "{{- markers[message.role] ~ plain(body.text) ~ " + end + " -}}",
        "{%- endfor -%}",
        "{%- if add_generation_prompt -%}{{- markers['assistant'] -}}{%- endif -%}",
    ]
    return "".join(lines)
