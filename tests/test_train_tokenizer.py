"""The tokenizer folder: StarCoder's layout, loadable by transformers, and lossless."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_prep.train_tokenizer import STARCODER_TOKENS, bytes_per_token, repeated, train_tokenizer
from starchat.errors import UserError

TEXTS = ["def add(first, second):\n    return first + second\n" * 3, "print(add(1, 2))  # 3, as you would expect\n"] * 20
SHIPPED = Path(__file__).parents[1] / "starchat" / "nano" / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "new"
    assert train_tokenizer(TEXTS, 300, folder) == 300
    return folder


@pytest.fixture(scope="module", params=["trained", "shipped"])
def tokenizer(request, folder):
    return Tokenizer.from_file(str((folder if request.param == "trained" else SHIPPED) / "tokenizer.json"))


def test_control_tokens_have_starcoders_ids(tokenizer):
    assert [tokenizer.token_to_id(token) for token in STARCODER_TOKENS] == list(range(19))
    added = tokenizer.get_added_tokens_decoder()
    assert list(added) == list(range(19))
    assert all(token.special and not token.normalized and not token.lstrip and not token.rstrip for token in added.values())
    assert tokenizer.normalizer is None


def test_every_digit_is_a_token(tokenizer):
    tokens = tokenizer.encode("x = 2024", add_special_tokens=False).tokens
    assert tokens[-4:] == ["2", "0", "2", "4"]


@given(text=st.text())
def test_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("which", ["trained", "shipped"])
def test_transformers_loads_the_folder(folder, which):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder if which == "trained" else SHIPPED)
    assert loaded.bos_token_id == loaded.eos_token_id == loaded.unk_token_id == 0
    assert loaded.pad_token is None
    assert loaded.model_max_length == 1024
    assert len(loaded) == (300 if which == "trained" else 8192)
    text = "<filename>a.py\n  x = [ 1 , 2 ] !\n"
    ids = loaded(text)["input_ids"]
    assert ids[0] == STARCODER_TOKENS.index("<filename>")
    assert loaded.decode(ids) == text, "no space is cleaned up"


def test_same_texts_give_the_same_files(folder, tmp_path):
    train_tokenizer(iter(TEXTS), 300, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_too_few_texts_give_a_smaller_vocabulary(tmp_path):
    assert train_tokenizer(["ab"], 8192, tmp_path) == 19 + 256


def test_a_vocabulary_without_room_for_bytes_is_refused(tmp_path):
    with pytest.raises(UserError, match="vocab_size: 274; expected at least 275"):
        train_tokenizer(TEXTS, 274, tmp_path)
    assert not list(tmp_path.iterdir())


def test_bytes_per_token(tokenizer):
    digits = ["0123", "4567"]
    assert bytes_per_token(tokenizer, digits) == 1.0
    assert bytes_per_token(tokenizer, TEXTS) > 1.5
    with pytest.raises(UserError, match="no text to measure"):
        bytes_per_token(tokenizer, [""])


def test_repeated_gives_weight():
    assert list(repeated(iter(["a", "b"]), 3)) == list("aaabbb")
    assert list(repeated(["a"], 0)) == []
