"""Names of people by a model that marks tokens, such as StarPII (bigcode/starpii): the one kind that no pattern can find.

In: texts, and the id or folder of a token-classification model. Out: spans in characters, for `data_prep.redact`. A text that is longer
than the model's window is read in windows that overlap by half; each token is judged in the window where it stands farthest from an edge,
so that a name across the edge of a window is seen whole.

The labels are StarPII's (card of bigcode/starpii): NAME, USERNAME, EMAIL, IP_ADDRESS, KEY, PASSWORD, each perhaps behind ``B-`` or ``I-``;
AMBIGUOUS, and what the model calls by another name, is left.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.detect import Span
from starchat.errors import UserError

ENTITIES = {
    "NAME": "person_name",
    "USERNAME": "user_name",
    "EMAIL": "email",
    "IP_ADDRESS": "ip_address",
    "KEY": "secret_key",
    "PASSWORD": "password",
}
"""The kinds that the labels mean."""

_SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which tokenizers refuse; one character stands for each, so that places stay."""

MAX_WINDOW_TOKENS = 512
BATCH = 8


@dataclasses.dataclass(frozen=True)
class NameModel:
    """A model that marks names, ready to read; `window_tokens` include the special tokens of the tokenizer."""

    model: Any
    tokenizer: Any
    window_tokens: int

    def find(self, text: str, min_score: float = 0.0) -> list[Span]:
        """Return what the model marks, in order; a span's score is the mean probability of the label over its tokens."""
        marked = sorted(self._tokens(text).items())
        groups: list[list[tuple[int, int, str, str, float]]] = []
        for (start, end), (label, score) in marked:
            prefix, _, entity = label.rpartition("-") if label[:2] in ("B-", "I-") else ("", "", label)
            if entity not in ENTITIES or not text[start:end].strip():
                continue
            last = groups[-1][-1] if groups else None
            joins = (
                last is not None and last[2] == entity and not text[last[1] : start].strip(" ") and start - last[1] <= 1 and prefix != "B"
            )
            if not joins:
                groups.append([])
            groups[-1].append((start, end, entity, prefix, score))
        found = []
        for group in groups:
            if sum(token[4] for token in group) / len(group) >= min_score:
                inside = text[group[0][0] : group[-1][1]]
                start = group[0][0] + len(inside) - len(inside.lstrip())
                found.append(Span(start, start + len(inside.strip()), ENTITIES[group[0][2]]))
        return found

    def _tokens(self, text: str) -> dict[tuple[int, int], tuple[str, float]]:
        """Return label and probability of each token, by its place in the text."""
        import torch

        special = self.tokenizer.num_special_tokens_to_add()
        encoded = self.tokenizer(
            _SURROGATES.sub("\ufffd", text),
            truncation=True,
            max_length=self.window_tokens,
            stride=(self.window_tokens - special) // 2,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        best: dict[tuple[int, int], tuple[int, str, float]] = {}
        labels = self.model.config.id2label
        for batch in self._batches(encoded["input_ids"]):
            width = max(len(encoded["input_ids"][i]) for i in batch)
            pad = self.tokenizer.pad_token_id or 0
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in (encoded["input_ids"][i] for i in batch)])
            mask = torch.tensor([[1] * n + [0] * (width - n) for n in (len(encoded["input_ids"][i]) for i in batch)])
            with torch.inference_mode():
                logits = self.model(input_ids=ids.to(self.model.device), attention_mask=mask.to(self.model.device)).logits
            scores, numbers = logits.float().softmax(-1).max(-1)
            for row, window in enumerate(batch):
                offsets, hidden = encoded["offset_mapping"][window], encoded["special_tokens_mask"][window]
                for position, (place, is_special) in enumerate(zip(offsets, hidden, strict=True)):
                    distance = min(position, len(offsets) - 1 - position)
                    if not is_special and distance >= best.get(tuple(place), (-1,))[0]:
                        best[tuple(place)] = (distance, labels[int(numbers[row, position])], float(scores[row, position]))
        return {place: (label, score) for place, (_, label, score) in best.items()}

    @staticmethod
    def _batches(windows: list[Any]) -> Iterator[range]:
        for start in range(0, len(windows), BATCH):
            yield range(start, min(start + BATCH, len(windows)))


def load_names(name: str, device: str | None = None) -> NameModel:
    """Return the model that `name`, a Hub id or a folder, means; on a GPU if there is one.

    Raises `UserError` for what is no such model.
    """
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise UserError(f"secrets.names: {name!r}: no such folder; give the folder or the Hub id of a token-classification model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModelForTokenClassification.from_pretrained(name)
    except (OSError, ValueError) as error:
        what = " ".join(str(error).split())[:200]
        raise UserError(
            f"secrets.names: {name!r}: no token-classification model that can be loaded ({what}); give its folder or Hub id"
        ) from None
    known = {label.removeprefix("B-").removeprefix("I-") for label in model.config.id2label.values()}
    if not known & set(ENTITIES):
        listed = ", ".join(sorted(known))
        raise UserError(
            f"secrets.names: {name!r} knows {listed}; expected labels such as {', '.join(ENTITIES)}; take a model such as bigcode/starpii"
        )
    if not tokenizer.is_fast:
        raise UserError(f"secrets.names: {name!r}: its tokenizer tells no offsets; expected a fast tokenizer (tokenizer.json)")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    limits = (tokenizer.model_max_length, (getattr(model.config, "max_position_embeddings", None) or MAX_WINDOW_TOKENS + 2) - 2)
    return NameModel(model.to(device).eval(), tokenizer, min(MAX_WINDOW_TOKENS, *limits))
