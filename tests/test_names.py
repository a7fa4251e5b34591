"""A model that marks names is loaded, reads long texts in windows, and tells places in characters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_prep.detect import Detector, Span
from data_prep.names import NameModel, load_names
from data_prep.redact import redact
from starchat.errors import UserError

LABELS = ("O", "B-NAME", "I-NAME", "B-USERNAME", "I-USERNAME", "B-AMBIGUOUS", "B-EMAIL", "I-EMAIL")
WORDS = {"Ada": 1, "Lovelace": 2, "Grace": 1, "Hopper": 2, "adal": 3, "Maybe": 5, "Zoë": 1, "ada@corp.io": 6}
WINDOW = 16


def write_marker(folder: Path, labels: tuple[str, ...] = LABELS) -> Path:
    """Write a tiny BERT that gives each word of `WORDS` its label, but sees none at the two ends of its window.

    The embedding of a word is read out as it is; those of the first and last position drown it.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(("[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, type_vocab_size=1,
        max_position_embeddings=WINDOW + 2, id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    torch.manual_seed(3)
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.0)
        embeddings = model.bert.embeddings.word_embeddings.weight
        for word, number in vocabulary.items():
            embeddings[number, WORDS.get(word, 0)] = 1.0
        for edge in (1, WINDOW - 2):
            model.bert.embeddings.position_embeddings.weight[edge, 0] = 3.0
        for label in range(len(labels)):
            model.classifier.weight[label, label] = 1.5
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> NameModel:
    """The tiny model, loaded from its folder."""
    return load_names(str(write_marker(tmp_path_factory.mktemp("marker"))), device="cpu")


def shown(text: str, spans: list[Span]) -> list[tuple[str, str]]:
    """The texts of spans with their kinds."""
    return [(text[span.start : span.end], span.kind) for span in spans]


def test_words_become_spans_of_characters(marker: NameModel) -> None:
    text = "  größe by Ada Lovelace and Zoë , user adal : Maybe not"
    assert shown(text, marker.find(text)) == [("Ada Lovelace", "person_name"), ("Zoë", "person_name"), ("adal", "user_name")]


def test_two_names_beside_each_other_are_two(marker: NameModel) -> None:
    text = "by Ada Lovelace Grace Hopper"
    assert shown(text, marker.find(text)) == [("Ada Lovelace", "person_name"), ("Grace Hopper", "person_name")]
    apart = "by Ada\n\nLovelace"
    assert len(marker.find(apart)) == 2, "a name does not go on behind a line"


@pytest.mark.parametrize("before", range(1, 3 * WINDOW))
def test_a_name_at_any_place_of_any_window(marker: NameModel, before: int) -> None:
    text = "é " * before + "Ada Lovelace" + " x" * 40
    assert marker.window_tokens == WINDOW
    assert marker.find(text) == [Span(2 * before, 2 * before + 12, "person_name")]


@pytest.mark.parametrize("text", ["", " ", "\n", "x", "\0", "\ud800 x"])
def test_texts_without_names_and_hostile_ones(marker: NameModel, text: str) -> None:
    assert shown(text, marker.find(text)) == []


def test_halves_of_characters_move_nothing(marker: NameModel) -> None:
    assert marker.find("\ud83d\ude00 \ud800 Ada x") == [Span(5, 8, "person_name")]


def test_a_score_that_is_too_low_is_left(marker: NameModel) -> None:
    assert marker.find("by Ada", 0.5) and marker.find("by Ada", 1.0) == []


def test_names_are_replaced_with_what_patterns_find(marker: NameModel) -> None:
    text = "by Ada Lovelace <ada@corp.io> and Ada Lovelace"
    found = marker.find(text)
    assert redact(text, Detector(), "text", found).text == "by name1 <user1@example.com> and name1"
    assert redact(text, Detector(), "tokens", found).text == "by <NAME> <<EMAIL>> and <NAME>"


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; give the folder or the Hub id"):
        load_names(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no token-classification model that can be loaded"):
        load_names(str(tmp_path))
    other: Any = write_marker(tmp_path, ("LABEL_0", "LABEL_1", *map(str, range(6))))
    with pytest.raises(UserError, match=r"knows 0, .*LABEL_1; expected labels such as NAME"):
        load_names(str(other))


def test_nothing_heavy_is_imported_before_a_model_is_wanted() -> None:
    heavy = ("torch", "transformers", "hyperscan", "re2")
    program = f"import sys, data_prep.names, data_prep.redact; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
