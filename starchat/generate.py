"""Prompt to reply, streaming: the one decode loop.

In: turns and how to sample. Out: text as it is finished, with token counts. Prompt ids come from `starchat.encode`
only. One prompt and a batch of prompts run through the same loop; rows of a batch do not influence each other.
Does not fetch models and does not keep conversations.
"""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from starchat import conversation
from starchat.dialogue import Turn, to_message
from starchat.encode import encode_prompt
from starchat.errors import UserError
from starchat.files import MANIFEST, read_manifest
from starchat.hub import context_length, resolve_model
from starchat.sampling import Sampling as Sampling
from starchat.sampling import choose
from starchat.template import TEMPLATES, Template, find_template, prompt_segments, render_text
from starchat.tokens import Tokens, load_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_ROWS = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a reply: newly finished text, never half a character, and the counts up to here.

    `finish_reason` is None but in the last chunk: ``stop`` (an end token), ``length`` (the limit or the context is
    reached) or ``cancelled``. `tokens_per_s` counts from the start, reading the prompt included.
    """

    text: str
    tokens: int
    prompt_tokens: int
    tokens_per_s: float
    finish_reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. `ids` are all that were generated, the end token included."""

    text: str
    ids: tuple[int, ...]
    prompt_tokens: int
    finish_reason: str
    tokens_per_s: float


class Assistant:
    """A model with its tokens. Threads may share one: a lock admits one forward pass at a time, so that chats take turns."""

    def __init__(self, model: PreTrainedModel, tokens: Tokens, name: str, card: str = "") -> None:
        if tokens.template is None:
            raise UserError(f"{name}: has no chat template; pass --template with one of {', '.join(TEMPLATES)}")
        self.model = model.eval()
        self.tokens = tokens
        self.template: Template = tokens.template
        self.name = name
        self.card = card
        self.context_tokens = _context_tokens(model)
        self._lock = threading.Lock()

    def count_tokens(self, turns: Sequence[Turn]) -> int:
        """Return the length of the prompt that asks for a reply to `turns`."""
        return len(self._prompt(turns))

    def fit(self, turns: Sequence[Turn], sampling: Sampling) -> conversation.Fitted:
        """Return `turns` without the oldest exchanges that do not fit; a quarter of the context at most is kept for the reply."""
        reserve = min(sampling.max_new_tokens, self.context_tokens // 4)
        return conversation.fit(turns, reserve, self.context_tokens, self.count_tokens)

    def stream(self, turns: Sequence[Turn], sampling: Sampling, stop: threading.Event | None = None) -> Iterator[Chunk]:
        """Return the reply to `turns` as an iterator of chunks; `stop` ends it between two tokens.

        The texts of the chunks joined are the text of the reply. Raises `UserError` at once if the prompt leaves no room.
        """
        return self._stream(self._checked_prompt(turns), sampling, stop or threading.Event())

    def reply(self, turns: Sequence[Turn], sampling: Sampling) -> Reply:
        """Return the reply to `turns`."""
        return self._replies([self._checked_prompt(turns)], sampling)[0]

    def reply_batch(self, dialogues: Sequence[Sequence[Turn]], sampling: Sampling) -> list[Reply]:
        """Return the replies to many dialogues, in order. A row does not depend on the rows that it runs with."""
        prompts = [self._checked_prompt(turns) for turns in dialogues]
        order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
        replies: dict[int, Reply] = {}
        for start in range(0, len(order), BATCH_ROWS):
            batch = order[start : start + BATCH_ROWS]
            replies.update(zip(batch, self._replies([prompts[n] for n in batch], sampling), strict=True))
        return [replies[n] for n in range(len(prompts))]

    def _prompt(self, turns: Sequence[Turn]) -> list[int]:
        for number, turn in enumerate(turns):
            bad = next((c for c in turn.content if "\ud800" <= c <= "\udfff"), None)
            if bad is not None:
                raise UserError(f"turn {number}: holds U+{ord(bad):04X}, half of a surrogate pair; send text that is valid Unicode")
        return encode_prompt(turns, self.tokens)

    def _checked_prompt(self, turns: Sequence[Turn]) -> list[int]:
        prompt = self._prompt(turns)
        if len(prompt) >= self.context_tokens:
            raise UserError(
                f"prompt: {len(prompt):,} tokens; the context of {self.name} is {self.context_tokens:,} tokens; "
                "shorten the dialogue, or drop its oldest exchanges"
            )
        return prompt

    def _stream(self, prompt: list[int], sampling: Sampling, stop: threading.Event) -> Iterator[Chunk]:
        started = time.monotonic()
        text = _TextStream(self.tokens)
        count, last = 0, None
        steps = self._steps([prompt], sampling)
        while not stop.is_set() and (step := next(steps, None)) is not None:
            last = step[0]
            assert last is not None, "the only row ends with the loop"
            count += 1
            if piece := text.push(last):
                yield Chunk(piece, count, len(prompt), _rate(count, started))
        reason = "stop" if last in self.tokens.stop_ids else "cancelled" if stop.is_set() else "length"
        yield Chunk(text.flush(), count, len(prompt), _rate(count, started), reason)

    def _replies(self, prompts: list[list[int]], sampling: Sampling) -> list[Reply]:
        started = time.monotonic()
        rows: list[list[int]] = [[] for _ in prompts]
        for step in self._steps(prompts, sampling):
            for row, token in zip(rows, step, strict=True):
                if token is not None:
                    row.append(token)
        reasons = ["stop" if row[-1] in self.tokens.stop_ids else "length" for row in rows]
        return [
            Reply(_text(row, self.tokens), tuple(row), len(prompt), reason, _rate(len(row), started))
            for row, prompt, reason in zip(rows, prompts, reasons, strict=True)
        ]

    def _steps(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[list[int | None]]:
        """Yield the next id of each row, None for a row that has ended; end when all have. Rows are padded on the left."""
        from transformers import DynamicCache

        device = self.model.device
        width = max(map(len, prompts))
        ids = torch.tensor([[self.tokens.pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        seen = torch.zeros(len(prompts), self.tokens.size, dtype=torch.bool, device=device)
        for row, prompt in enumerate(prompts):
            seen[row, list(prompt)] = True
        seen[:, list(self.tokens.stop_ids)] = False  # to end a reply is never a repetition
        generators = [_generator(sampling.seed, device) for _ in prompts]
        room = [min(sampling.max_new_tokens, self.context_tokens - len(p)) for p in prompts]
        alive = [True] * len(prompts)
        cache = DynamicCache(config=self.model.config)
        for step in range(max(room)):
            logits = self._forward(ids, mask, positions, cache)
            chosen = choose(logits[:, : self.tokens.size], seen, sampling, generators)
            yield [token if lives else None for token, lives in zip(chosen, alive, strict=True)]
            alive = [
                lives and token not in self.tokens.stop_ids and step + 1 < limit
                for lives, token, limit in zip(alive, chosen, room, strict=True)
            ]
            if not any(alive):
                return
            ids = torch.tensor(chosen, device=device).unsqueeze(1)
            seen.scatter_(1, ids, True)
            seen[:, list(self.tokens.stop_ids)] = False
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            positions = (positions[:, -1:] + 1).clamp(max=self.context_tokens - 1)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
        """Return the logits behind the last token of each row, (rows, vocabulary), float32."""
        with self._lock, torch.inference_mode():
            out = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            logits: torch.Tensor = out.logits[:, -1].float()
        return logits


class _TextStream:
    """Ids to text, piece by piece. A byte-level token may end inside a character; its text waits for the rest."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._context: list[int] = []  # the last id before `_waiting`: what some decoders do at the start of a text happens there
        self._waiting: list[int] = []
        self._sent = 0  # characters of the text of `_waiting` that are out

    def push(self, token: int) -> str:
        """Return the text that `token` finishes."""
        if token in self._tokens.control.values():
            return ""
        self._waiting.append(token)
        text = self._text()
        if not text.endswith("\ufffd"):
            self._context, self._waiting, sent, self._sent = [token], [], self._sent, 0
            return text[sent:]
        return self._send(text[:-1])  # U+FFFD before the last place stands for bytes that no later byte can mend

    def flush(self) -> str:
        """Return what still waits; half a character becomes U+FFFD."""
        return self._send(self._text())

    def _text(self) -> str:
        before = self._tokens.decode(self._context)
        return self._tokens.decode([*self._context, *self._waiting])[len(before) :]

    def _send(self, text: str) -> str:
        sent, self._sent = self._sent, len(text)
        return text[sent:]


def _text(ids: Sequence[int], tokens: Tokens) -> str:
    """Return the text of generated ids; control tokens are left out."""
    control = set(tokens.control.values())
    return tokens.decode([i for i in ids if i not in control])


def _rate(count: int, started: float) -> float:
    return count / max(time.monotonic() - started, 1e-9)


def _generator(seed: int | None, device: torch.device) -> torch.Generator:
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _context_tokens(model: PreTrainedModel) -> int:
    found = context_length(vars(model.config))
    if found is None:
        raise UserError(
            f"{model.config.model_type}: its configuration states no context length; set max_position_embeddings in config.json"
        )
    return found


def load_assistant(name: str, template: str | None = None) -> Assistant:
    """Return the assistant in a run folder, in a model folder, behind a Hub id, or the embedded base (``nano``).

    A model folder's template is the one that its chat template spells, else the first of ours whose control tokens it has;
    `template` overrides that. Never runs code that comes with a model; only a Hub id that is not on this machine is fetched.
    """
    folder = resolve_model(name)
    if (folder / "recipe.yaml").is_file() and not (folder / "config.json").is_file():
        return _load_run(folder, template)
    tokens = load_tokens(folder, find_template(template or detect_template(folder)))
    if tokens.new:
        raise UserError(
            f"{name}: has no {', '.join(tokens.new)}, which template {template!r} needs; use template native, or fine-tune the model first"
        )
    return Assistant(_load_model(folder), tokens, _short_name(name), _card(folder))


def detect_template(folder: Path) -> str:
    """Return the name of the template that a model folder's chat template spells, or whose control tokens it has."""
    tokens = {name: load_tokens(folder, template) for name, template in TEMPLATES.items()}
    path = folder / "chat_template.jinja"
    foreign = path.read_text(encoding="utf-8") if path.is_file() else None
    for name, template in TEMPLATES.items():
        if not tokens[name].new and (foreign is None or _spells(foreign, template, tokens[name])):
            return name
    if foreign is None:
        raise UserError(f"{folder}: has the control tokens of none of our templates ({', '.join(TEMPLATES)}); fine-tune the model first")
    raise UserError(
        f"{path}: a chat template that is not one of ours; pass --template with {', '.join(TEMPLATES)} if the model was trained with that"
    )


def _spells(jinja: str, template: Template, tokens: Tokens) -> bool:
    """Whether a Jinja chat template writes two dialogues, with and without a system turn, as `template` does."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    exchange = (Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three"))
    lead = tokens.bos or ""
    try:
        compiled = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(jinja)
        for turns in (exchange, (Turn("system", "zero"), *exchange)):
            messages = [to_message(turn) for turn in turns]
            text = compiled.render(messages=messages, add_generation_prompt=True, bos_token=lead, eos_token=tokens.end)
            if text != lead + render_text(template, turns) + "".join(s.text for s in prompt_segments(template)):
                return False
    except TemplateError:
        return False
    return True


def _load_run(folder: Path, template: str | None) -> Assistant:
    from starchat.export import load_run

    if read_manifest(folder) is None:
        raise UserError(f"{folder}: a run that did not finish (it has no {MANIFEST}); finish it with starchat train")
    model, tokens = load_run(folder)
    if tokens.template is None:  # pretrained, not tuned on dialogues
        return load_assistant(str(folder / "model"), template)
    if template not in (None, tokens.template.name):
        raise UserError(f"{folder}: was trained with template {tokens.template.name}, not {template}; leave --template out")
    return Assistant(model, tokens, _short_name(str(folder)), _card(folder))


def _load_model(folder: Path) -> PreTrainedModel:
    """Return the model in bfloat16 where there is a GPU, and in float32 on a CPU, which is faster there and exact."""
    from starchat.model import load_base

    gpu = torch.cuda.is_available()
    model: Any = load_base(folder, torch.bfloat16 if gpu else torch.float32)
    return cast("PreTrainedModel", model.to("cuda" if gpu else "cpu"))


def _short_name(name: str) -> str:
    """Return what to call a model: a Hub id as it is, the last two parts of a path."""
    path = Path(name)
    return name if not path.exists() else "/".join(path.resolve().parts[-2:]).lstrip("/")


def _card(folder: Path) -> str:
    """Return the model card as Markdown without its YAML head, or an empty text."""
    path = next((p for p in (folder / "README.md", folder.parent / "README.md") if p.is_file() and p.parent.name != "starchat"), None)
    if path is None:
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    return re.sub(r"\A---\n.*?\n---\n", "", text, count=1, flags=re.DOTALL).strip()
