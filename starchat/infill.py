"""The infilling probe: does a model that learns to chat still fill in the middle?

In: a model, its tokens, held-out records. Out: loss and exact match on spans that were cut out of their code, with intervals;
of a run, before and after it, as ``infill.json``.

A span is the rest of a line. It is exactly matched if greedy decoding would write it token by token; that is seen in the one
forward pass that measures the loss, since greedy decoding takes the likeliest token at each place. The order is PSM, which every
family with fill-in-the-middle knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from starchat.dialogue import Record
from starchat.fences import code_blocks
from starchat.files import read_object, write_json
from starchat.fim import Sentinels, find_fim_tokens, rng_for
from starchat.placeholders import without
from starchat.score import Interval, bootstrap_ratio, wilson
from starchat.tokens import Tokens

NAME = "infill.json"
SPANS = 64
SPANS_OF_A_TEXT = 2
LEAST_SPAN_CHARACTERS = 6
MOST_LINE_CHARACTERS = 200
MOST_PREFIX_CHARACTERS = 1500
MOST_SUFFIX_CHARACTERS = 500
MOST_TOKENS = 1024


@dataclasses.dataclass(frozen=True)
class Span:
    """A cut text; `middle` is what the model must write."""

    prefix: str
    middle: str
    suffix: str


@dataclasses.dataclass(frozen=True)
class Infilling:
    """Loss in nats per token of the middle, and the share of middles that greedy decoding writes exactly."""

    spans: int
    loss: Interval
    exact_match: Interval

    def to_json(self) -> dict[str, Any]:
        """Return a plain mapping."""
        return dataclasses.asdict(self)


def held_out_spans(records: Iterable[Record], seed: int = 0, most: int = SPANS) -> list[Span]:
    """Return spans of documents, and of the code blocks in answers, without placeholders; the same for the same records."""
    spans: list[Span] = []
    for record in records:
        for number, text in enumerate(_texts(record)):
            made = _spans(text, seed, f"{record.id}:{number}")
            spans += [span for span in made if without(span.middle, record.placeholders) == span.middle]
            if len(spans) >= most:
                return spans[:most]
    return spans


def _texts(record: Record) -> Iterator[str]:
    if record.parts and not record.parts[-1].marker:
        yield record.parts[-1].text
    for turn in record.turns:
        if turn.role == "assistant":
            yield from (code for language, code in code_blocks(turn.content) if language not in ("", "text", "output"))


def _spans(text: str, seed: int, name: str) -> Iterator[Span]:
    """Yield up to `SPANS_OF_A_TEXT` spans: from a place in a line, behind its indentation, to the end of the line."""
    rng = rng_for(seed, name, 0)
    ends = [n for n, character in enumerate(text) if character == "\n"]
    starts = [0, *(end + 1 for end in ends)]
    lines = [(start, end) for start, end in zip(starts, ends, strict=False) if _is_fit(text[start:end])]
    for start, end in rng.sample(lines, min(SPANS_OF_A_TEXT, len(lines))):
        first = start + len(text[start:end]) - len(text[start:end].lstrip())
        cut = rng.randint(first, end - LEAST_SPAN_CHARACTERS)
        yield Span(text[max(0, cut - MOST_PREFIX_CHARACTERS) : cut], text[cut:end], text[end : end + MOST_SUFFIX_CHARACTERS])


def _is_fit(line: str) -> bool:
    return len(line.strip()) >= LEAST_SPAN_CHARACTERS and len(line) <= MOST_LINE_CHARACTERS


def probe(model: Any, tokens: Tokens, spans: Sequence[Span]) -> Infilling | None:
    """Return how well a model fills spans in; None if its tokenizer has no such tokens, or if there are no spans.

    Every process of a launch must call it with the same spans: under ZeRO-3 a forward pass is everyone's.
    """
    sentinels = find_fim_tokens(tokens.control)
    if sentinels is None or not spans:
        return None
    sums, counts, exact = [], [], 0
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    for span in spans:
        ids, middle = _encode(span, tokens, sentinels)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, -middle - 1 : -1].float()
        wanted = torch.tensor(ids[-middle:], device=device)
        sums.append(float(cross_entropy(logits, wanted, reduction="sum")))
        counts.append(middle)
        exact += bool((logits.argmax(dim=-1) == wanted).all())
    model.train(training)
    return Infilling(len(spans), bootstrap_ratio(sums, counts), wilson(exact, len(spans)))


class InfillProbe(TrainerCallback):
    """Probes the model when training begins and when it ends, in every process; the first one writes ``infill.json``."""

    def __init__(self, run: Path, tokens: Tokens, spans: Sequence[Span]) -> None:
        self.path, self.tokens, self.spans = run / NAME, tokens, spans
        self.found: dict[str, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Probe the base model, as it stands with the new tokens' rows. A resumed run keeps what was found before its first step."""
        if state.global_step:
            self.found = read_infilling(self.path.parent)
            return
        self._probe("before", parts["model"])
        self._write(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Probe the trained model and write both."""
        self._probe("after", parts["model"])
        self._write(state)

    def _write(self, state: TrainerState) -> None:
        if self.found and state.is_world_process_zero:
            write_json(self.path, self.found)

    def _probe(self, when: str, model: Any) -> None:
        result = probe(model, self.tokens, self.spans)
        if result is not None:
            self.found[when] = result.to_json()


def read_infilling(run: Path) -> dict[str, Any]:
    """Return what `InfillProbe` wrote of a run, or an empty mapping if it had nothing to measure."""
    path = run / NAME
    return read_object(path, "an infilling probe", "run the training again") if path.is_file() else {}


def _encode(span: Span, tokens: Tokens, sentinels: Sentinels) -> tuple[list[int], int]:
    """Return the ids of a span in PSM order, and how many of them, at the end, are its middle."""
    prefix, suffix, middle = tokens.encode_texts([span.prefix, span.suffix, span.middle])
    before, behind, between = (tokens.control[name] for name in sentinels)
    lead = [tokens.control[tokens.bos]] if tokens.bos else []
    room = MOST_TOKENS - len(middle) - len(suffix) - len(lead) - 3
    return [*lead, before, *prefix[-room:], behind, *suffix, between, *middle], len(middle)
