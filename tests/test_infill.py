"""The infilling probe: what it cuts, and that it sees a model that fills in and one that does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from starchat.dialogue import Part, Record, Source, Turn
from starchat.infill import InfillProbe, Span, held_out_spans, probe, read_infilling
from starchat.tokens import load_tokens

CODE = "def add(first, second):\n    total = first + second\n    return total\n\n\nprint(add(1, 2))\n"


class Oracle(torch.nn.Module):
    """Predicts of a row what comes next in it; `wrong` tokens of each row, counted from the end, are predicted wrongly."""

    def __init__(self, vocabulary: int, wrong: int = 0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.vocabulary, self.wrong, self.seen = vocabulary, wrong, []

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        self.seen.append(input_ids[0].tolist())
        following = torch.cat([input_ids[0, 1:], torch.zeros(1, dtype=torch.long)])
        if self.wrong:
            following[-1 - self.wrong : -1] = (following[-1 - self.wrong : -1] + 1) % self.vocabulary
        logits = torch.nn.functional.one_hot(following, self.vocabulary).float() * 50
        return SimpleNamespace(logits=logits[None])


def document(text: str = CODE) -> Record:
    return Record(Source("a.py"), parts=(Part("<filename>", "a.py"), Part("", text)))


def test_spans_are_the_rest_of_a_line_and_the_same_each_time() -> None:
    chat = Record(Source("b:1"), turns=(Turn("user", "How?"), Turn("assistant", f"So:\n```python\n{CODE}```\n```output\nprinted it\n```")))
    spans = held_out_spans([document(), chat])
    assert spans == held_out_spans([document(), chat])
    assert len(spans) == 4
    for span in spans:
        assert span.prefix + span.middle + span.suffix == CODE
        assert span.suffix.startswith("\n")
        assert "\n" not in span.middle
        assert len(span.middle.strip()) >= 6
    assert held_out_spans([document("x = 1\n")]) == []


def test_it_sees_what_is_filled_in_and_what_is_not(bases: dict[str, Path]) -> None:
    tokens = load_tokens(bases["starcoder"], None)
    spans = held_out_spans([document(), document(CODE * 2)])
    right, wrong = (probe(Oracle(tokens.size, bad), tokens, spans) for bad in (0, 1))
    assert right is not None
    assert wrong is not None
    assert right.exact_match.value == 1.0
    assert right.loss.value < 1e-6
    assert wrong.exact_match.value == 0.0
    assert wrong.loss.value > 1


def test_the_row_is_prefix_suffix_middle(bases: dict[str, Path]) -> None:
    tokens = load_tokens(bases["starcoder"], None)
    oracle = Oracle(tokens.size)
    probe(oracle, tokens, [Span("a = ", "<fim_middle>1", "\n")])
    assert tokens.decode(oracle.seen[0]) == "<fim_prefix>a = <fim_suffix>\n<fim_middle><fim_middle>1"
    assert oracle.seen[0].count(tokens.control["<fim_middle>"]) == 1, "text forges no control token"


def test_a_long_text_keeps_its_nearest_part(bases: dict[str, Path]) -> None:
    tokens = load_tokens(bases["starcoder"], None)
    oracle = Oracle(tokens.size)
    probe(oracle, tokens, [Span("x = 0\n" * 4000, "y = 1", "\n")])
    assert len(oracle.seen[0]) == 1024
    assert tokens.decode(oracle.seen[0]).endswith("x = 0\n<fim_suffix>\n<fim_middle>y = 1")


@pytest.mark.parametrize("family", ["llama"])
def test_a_tokenizer_without_such_tokens_is_not_probed(bases: dict[str, Path], family: str) -> None:
    tokens = load_tokens(bases[family], None)
    assert probe(Oracle(tokens.size), tokens, held_out_spans([document()])) is None


def test_a_resumed_run_keeps_what_was_found_before_its_first_step(bases: dict[str, Path], tmp_path: Path) -> None:
    tokens, arguments, control = load_tokens(bases["starcoder"], None), TrainingArguments(str(tmp_path), use_cpu=True), TrainerControl()
    spans = held_out_spans([document()])
    first, later = InfillProbe(tmp_path, tokens, spans), InfillProbe(tmp_path, tokens, spans)
    first.on_train_begin(arguments, TrainerState(), control, model=Oracle(tokens.size, 1))
    before = read_infilling(tmp_path)
    assert list(before) == ["before"]
    later.on_train_begin(arguments, TrainerState(global_step=5), control, model=Oracle(tokens.size))
    later.on_train_end(arguments, TrainerState(global_step=9), control, model=Oracle(tokens.size))
    assert read_infilling(tmp_path)["before"] == before["before"]
    assert read_infilling(tmp_path)["after"]["exact_match"]["value"] == 1.0
