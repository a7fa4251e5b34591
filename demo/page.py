"""The layout of the page and its events.

In: an assistant. Out: Gradio blocks. What the events do is in `demo.replies`; how it looks is in ``page.css``.
"""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
from gradio.themes.utils import colors, fonts

from demo.display import show_message
from demo.replies import Replies
from starchat.conversation import Conversation
from starchat.generate import Assistant, Sampling

EXAMPLES = (
    "Write a function that reverses the words of a sentence.",
    "Why does my default list argument keep growing?",
    "How do I read a JSON file and handle a missing key?",
    "Explain what `yield` does, with a short example.",
)

NEUTRAL = colors.Color(
    "#fafaf9", "#f4f4f2", "#e6e6e2", "#d5d5cf", "#a5a59d", "#76766f", "#57574f", "#3d3d37", "#272723", "#1b1b18", "#131311"
)
ACCENT = colors.Color(
    "#eef4ff", "#dde8fe", "#bfd3fd", "#93b3fa", "#6490f5", "#3f6fe8", "#2c56cc", "#2545a4", "#223c84", "#20356c", "#141f42"
)


def theme() -> gr.themes.Base:
    """Return the page's theme; its fonts are files of the gradio package, served from here."""
    sans = (fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif")
    mono = (fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace")
    base = gr.themes.Base(primary_hue=ACCENT, secondary_hue=ACCENT, neutral_hue=NEUTRAL, radius_size="md", font=sans, font_mono=mono)
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_label_text_weight="600",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_500",
        button_primary_text_color="white",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
    )


def build_page(assistant: Assistant) -> gr.Blocks:
    """Return the page as blocks that are not mounted anywhere yet."""
    replies = Replies(assistant)
    with gr.Blocks(title=f"{assistant.name} · starchat", analytics_enabled=False, fill_height=True, fill_width=True) as page:
        _line(_header(assistant), "header")
        talk = gr.State(Conversation())
        with gr.Row(elem_id="main"):
            with gr.Column(scale=4, min_width=320, elem_id="talk"):
                messages = _messages(assistant)
                notice = _line("", "notice")
                box = gr.Textbox(
                    placeholder="Ask about code …", show_label=False, container=False, lines=1, max_lines=12, autofocus=True,
                    submit_btn=True, stop_btn=False, elem_id="box", label="Message",
                )  # fmt: skip
                status = _line("", "status")
            with gr.Column(scale=1, min_width=300, elem_id="settings"):
                new = gr.Button("New conversation", elem_id="new", size="md")
                system = gr.Textbox(
                    label="System prompt",
                    placeholder="None. What you write here holds from the next message on.",
                    lines=2,
                    max_lines=8,
                    elem_id="system",
                )
                controls = sampling_controls(assistant)
                with gr.Accordion("Model card", open=False, elem_id="card"):
                    gr.Markdown(assistant.card or "This model has no card.", sanitize_html=True, latex_delimiters=[])
        shown = [messages, talk, box, notice, status]
        _connect(replies, shown, [talk, system, *controls])
        new.click(replies.start_over, None, shown, api_visibility="private")
        page.unload(replies.stop)
    page.queue(max_size=32, default_concurrency_limit=8)
    return page


def sampling_controls(assistant: Assistant) -> list[Any]:
    """Return the controls in the order that `demo.replies.read_controls` reads."""
    default = Sampling()
    with gr.Group(elem_id="sampling"):
        most = min(2048, assistant.context_tokens - 1)
        return [
            gr.Slider(0, 2, default.temperature, step=0.05, label="Temperature", elem_id="temperature"),
            gr.Slider(1, most, min(default.max_new_tokens, most), step=1, label="New tokens at most", elem_id="max-new-tokens"),
            gr.Slider(0.05, 1, default.top_p, step=0.05, label="Top-p", elem_id="top-p"),
            gr.Slider(1, 200, default.top_k, step=1, label="Top-k", elem_id="top-k"),
            gr.Slider(1, 2, default.repetition_penalty, step=0.05, label="Repetition penalty", elem_id="repetition-penalty"),
            gr.Textbox(label="Seed", placeholder="A new one for each reply", max_lines=1, elem_id="seed"),
        ]


def _line(content: str, elem_id: str) -> gr.Markdown:
    """Return a place for escaped HTML. Not ``gr.HTML``: its templates are evaluated as JavaScript, which the page's policy forbids."""
    return gr.Markdown(content, elem_id=elem_id, sanitize_html=True, latex_delimiters=[])


def _messages(assistant: Assistant) -> gr.Chatbot:
    return gr.Chatbot(
        show_label=False, label="Conversation", elem_id="messages", height="100%", min_height=240, scale=1, layout="bubble",
        editable="user", buttons=["copy"], sanitize_html=True, allow_tags=False, latex_delimiters=[], line_breaks=False,
        group_consecutive_messages=False, feedback_options=None, allow_file_downloads=False,
        placeholder=f"## {show_message(assistant.name)}\n\nruns on the machine that serves this page; nothing is sent anywhere else.",
        examples=[{"text": text} for text in EXAMPLES],
    )  # fmt: skip


def _connect(replies: Replies, shown: list[Any], inputs: list[Any]) -> None:
    """Bind the events of the messages and of the input box."""
    messages, talk, box = shown[:3]
    answering: dict[str, Any] = {"outputs": shown, "show_progress": "hidden", "api_visibility": "private", "trigger_mode": "once"}
    box.submit(replies.send, [box, *inputs], **answering)
    messages.example_select(replies.choose, inputs, **answering)
    messages.retry(replies.retry, inputs, **answering)
    messages.edit(replies.edit, inputs, **answering)
    messages.undo(replies.undo, [talk], shown, show_progress="hidden", api_visibility="private")
    box.stop(replies.stop, None, None, concurrency_limit=None, show_progress="hidden", api_visibility="private")


def _header(assistant: Assistant) -> str:
    parameters = sum(p.numel() for p in assistant.model.parameters())
    size = f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M" if parameters >= 1e5 else f"{parameters:,}"
    facts = (f"{size} parameters", f"context {assistant.context_tokens:,}", f"template {assistant.template.name}")
    chips = "".join(f"<span>{html.escape(fact)}</span>" for fact in facts)
    return f'<p class="title"><b>starchat</b><strong id="model-name">{html.escape(assistant.name)}</strong>{chips}</p>'
