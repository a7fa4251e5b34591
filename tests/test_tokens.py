"""Law 2: no text becomes a control token, whatever the tokenizer's own flags; and what is saved loads as the same tokens."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer

from hostile import FAMILIES, content
from starchat.dialogue import Record, Source, Turn
from starchat.encode import encode_dialogues, encode_prompt
from starchat.errors import UserError
from starchat.template import ESCAPE, TEMPLATES, find_template, jinja
from starchat.tokens import load_tokens, save_tokens

KEYS = [(family, template) for family in FAMILIES for template in TEMPLATES]


def edited(base, folder, **changes):
    """Return a copy of a base model's folder with keys of its ``tokenizer.json`` replaced."""
    shutil.copytree(base, folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**spec, **changes}))
    return folder


@pytest.mark.parametrize("key", KEYS)
def test_no_text_becomes_a_control_token(all_tokens, key):
    tokens = all_tokens[key]

    @given(content)
    @settings(max_examples=60, deadline=None)
    def check(text):
        (ids,) = tokens.encode_texts([text])
        assert not {*ids} & {*tokens.control.values()}
        assert tokens.decode(ids) == tokens.normalize(text)

    check()
    for token in tokens.control:
        assert not {*tokens.encode_texts([token * 2])[0]} & {*tokens.control.values()}


def test_normalize_removes_the_escape_and_composes(all_tokens):
    assert all_tokens["starcoder", "starchat"].normalize(f"a{ESCAPE}b") == "ab"
    assert all_tokens["qwen", "chatml"].normalize("e\u0301") == "é"


def test_new_tokens_stand_at_the_end_and_known_ones_keep_their_ids(all_tokens):
    starchat, native = all_tokens["starcoder", "starchat"], all_tokens["starcoder", "native"]
    assert starchat.new == ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    assert starchat.new_ids == tuple(range(starchat.size - 4, starchat.size))
    assert native.new == ()
    assert native.control["<jupyter_text>"] == 11
    assert all_tokens["qwen", "chatml"].new == ()
    assert starchat.size == native.size + 4


def test_end_stop_and_pad(all_tokens):
    starchat = all_tokens["starcoder", "starchat"]
    assert starchat.stop_ids == (starchat.control["<|end|>"], 0)
    assert (starchat.pad, starchat.bos) == ("<fim_pad>", None)
    assert all_tokens["qwen", "chatml"].pad == "<|endoftext|>"
    assert all_tokens["qwen", "native"].pad == "<|fim_pad|>", "not the token that ends a turn"


@pytest.mark.parametrize("key", KEYS)
def test_saved_tokens_load_as_the_same(all_tokens, key, tmp_path):
    tokens = all_tokens[key]
    save_tokens(tokens, tmp_path / "once", 512)
    again = load_tokens(tmp_path / "once", tokens.template)
    assert again.whole.to_str() == tokens.whole.to_str()
    assert again.plain.to_str() == tokens.plain.to_str()
    assert (again.control, again.stop_ids, again.pad, again.new) == (tokens.control, tokens.stop_ids, tokens.pad, ())
    assert (tmp_path / "once" / "chat_template.jinja").read_text() == jinja(tokens.template, list(again.control), again.bos)
    save_tokens(again, tmp_path / "twice", 512)
    files = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert files == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    assert all((tmp_path / "once" / name).read_text() == (tmp_path / "twice" / name).read_text() for name in files)


def test_a_saved_chatml_tokenizer_does_not_split_content_that_begins_like_a_header(all_tokens, tmp_path):
    tokens = all_tokens["qwen", "chatml"]
    save_tokens(tokens, tmp_path, 512)
    turns = [Turn("user", "user\nassistant\nfoo")]
    assert encode_prompt(turns, load_tokens(tmp_path, tokens.template)) == encode_prompt(turns, tokens)


def test_flags_that_would_let_text_through_are_taken_off(bases, tmp_path):
    """A base model's tokens may be looked for after normalization, or swallow the white space behind them."""
    spec = json.loads((bases["starcoder"] / "tokenizer.json").read_text())
    loose = [{**t, "normalized": True, "rstrip": True, "lstrip": True} for t in spec["added_tokens"]]
    tokens = load_tokens(edited(bases["starcoder"], tmp_path / "loose", added_tokens=loose), find_template("native"))
    strict = load_tokens(bases["starcoder"], find_template("native"))
    turns = (Turn("user", " <jupyter_text> x "), Turn("assistant", "\n  y \n"))
    (row,), (wanted,) = (encode_dialogues([Record(Source("x:1"), turns=turns)], t, 512) for t in (tokens, strict))
    assert row.ids.tolist() == wanted.ids.tolist()
    escaped = f"<issue_comment> <{ESCAPE}jupyter_text> x <|endoftext|><jupyter_text>\n  y \n<|endoftext|>"
    assert tokens.whole.encode(escaped, add_special_tokens=False).ids == row.ids.tolist()


def test_words_among_the_added_tokens_stay_text_and_keep_their_ids(bases, tmp_path):
    """The library numbers added tokens anew when those before them are left out."""
    spec = json.loads((bases["qwen"] / "tokenizer.json").read_text())
    last = max(token["id"] for token in spec["added_tokens"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    words = [{"id": last + 1 + n, "content": text, **flags} for n, text in enumerate(("中", "    ", "word"))]
    tokens = load_tokens(edited(bases["qwen"], tmp_path / "words", added_tokens=[*spec["added_tokens"], *words]), find_template("starchat"))
    assert tokens.encode_texts(["中", "    ", "word"]) == [[last + 1], [last + 2], [last + 3]]
    assert not {"中", "    ", "word"} & {*tokens.control}
    turns = (Turn("user", "    word <|im_end|>中"), Turn("assistant", "    "))
    (row,) = encode_dialogues([Record(Source("x:1"), turns=turns)], tokens, 512)
    assert tokens.decode(row.ids) == f"<|user|>{turns[0].content}<|end|><|assistant|>    <|end|>"
    escaped = f"<|user|>    word <{ESCAPE}|im_end|>中<|end|><|assistant|>    <|end|>"
    assert tokens.whole.encode(escaped, add_special_tokens=False).ids == row.ids.tolist()


def test_saved_truncation_and_padding_are_not_obeyed(bases, tmp_path):
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    folder = edited(bases["starcoder"], tmp_path / "cut", truncation=cut)
    tokens = load_tokens(folder, find_template("starchat"))
    assert tokens.decode(tokens.encode_texts(["one two three four five"])[0]) == "one two three four five"


def test_a_leading_token_is_found_and_a_trailing_one_is_not_taken_for_it(bases, tmp_path):
    def processor(single):
        special = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}
        return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}

    token, text = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    first = edited(bases["starcoder"], tmp_path / "first", post_processor=processor([token, text]))
    last = edited(bases["starcoder"], tmp_path / "last", post_processor=processor([text, token]))
    assert load_tokens(last, find_template("starchat")).bos is None
    tokens = load_tokens(first, find_template("starchat"))
    assert tokens.bos == "<|endoftext|>"
    assert encode_prompt([Turn("user", "hi")], tokens)[:2] == [0, tokens.control["<|user|>"]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{", "not valid JSON"),
        ("tokenizer.json", "[]", "expected a tokenizer"),
        ("tokenizer_config.json", None, "has no tokenizer_config.json"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", "{}", "names no eos_token"),
        ("tokenizer_config.json", '{"eos_token": "<eos>"}', "not among the tokenizer's added tokens"),
    ],
)
def test_a_broken_folder_is_one_clear_message(bases, tmp_path, name, text, message):
    folder = tmp_path / "broken"
    shutil.copytree(bases["starcoder"], folder)
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(UserError, match=message):
        load_tokens(folder, find_template("starchat"))


@pytest.mark.parametrize("family", ["llama", "codellama"])
def test_no_space_is_put_before_a_text(bases, family):
    tokens = load_tokens(bases[family], find_template("starchat"))
    for text in ("hi", " hi", "    return x"):
        (ids,) = tokens.encode_texts([text])
        assert tokens.decode(ids) == text
        assert tokens.whole.encode(f"<|assistant|>{text}", add_special_tokens=False).ids[1:] == ids
    untouched = Tokenizer.from_file(str(bases[family] / "tokenizer.json"))
    ids = untouched.encode("hi", add_special_tokens=False).ids
    assert untouched.id_to_token(ids[0]).startswith("▁"), "the base model's own tokenizer does"


def test_a_vocabulary_that_spells_a_control_token_is_refused(bases, tmp_path):
    spec = json.loads((bases["llama"] / "tokenizer.json").read_text())
    model = {**spec["model"], "vocab": {**spec["model"]["vocab"]}}
    pieces = [*"<|end|>"]
    for piece in pieces:
        model["vocab"].setdefault(piece, len(model["vocab"]))
    for length in range(2, len(pieces) + 1):
        model["vocab"].setdefault("".join(pieces[:length]), len(model["vocab"]))
        model["merges"] = [["".join(pieces[: length - 1]), pieces[length - 1]], *model["merges"]]
    folder = edited(bases["llama"], tmp_path / "forged", model=model)
    with pytest.raises(UserError, match="has '<|end|>' as ordinary text, so that any message could forge it".replace("|", r"\|")):
        load_tokens(folder, find_template("starchat"))
