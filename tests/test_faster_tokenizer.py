"""A faster engine gives the ids of HF tokenizers, or is not used, or ends the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from starchat.errors import UserError
from starchat.faster_tokenizer import WORTH_TEXTS, by_hf, encode_faster, faster_engine, load_fastokens, trial_texts


class Altered:
    """An engine with the ids of HF tokenizers for what `change` makes of a text."""

    def __init__(self, spec: str, change: Callable[[str], str]) -> None:
        self.whole, self.change, self.encoded = Tokenizer.from_str(spec), change, 0

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool) -> Any:
        self.encoded += len(texts)
        return self.whole.encode_batch([self.change(text) for text in texts], add_special_tokens=add_special_tokens)


@pytest.mark.parametrize(("fault", "change"), [("form feed", ("\x0c", " ")), ("CR", ("\r\n", "\n")), ("digit", ("\u0663", "3"))])
def test_an_engine_that_differs_is_not_used(all_tokens, fault, change):
    plain = all_tokens["starcoder", "starchat"].plain
    assert faster_engine(plain, lambda spec: Altered(spec, lambda text: text.replace(*change))) is None, fault
    assert faster_engine(plain, lambda spec: Altered(spec, str)) is not None
    assert faster_engine(plain, lambda spec: None) is None


def test_an_engine_that_differs_later_ends_the_run(all_tokens):
    plain = all_tokens["starcoder", "starchat"].plain
    engine = faster_engine(plain, lambda spec: Altered(spec, lambda text: text.replace("rare", "rarely")))
    assert encode_faster(engine, plain, ["common"] * 200) == by_hf(plain, ["common"] * 200)
    with pytest.raises(UserError, match="text 'a rare one': fastokens gives other ids than HF tokenizers; pip uninstall fastokens"):
        encode_faster(engine, plain, [*["common"] * 128, "a rare one"])


def test_large_batches_go_to_the_engine_and_small_ones_do_not(all_tokens):
    tokens = all_tokens["qwen", "chatml"]
    engine = Altered(tokens.plain.to_str(), str)
    texts = trial_texts()[:WORTH_TEXTS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(tokens), "engine", engine)
        assert tokens.encode_texts(texts[1:]) == by_hf(tokens.plain, texts[1:])
        assert engine.encoded == 0
        assert tokens.encode_texts(texts) == by_hf(tokens.plain, texts)
        assert engine.encoded == len(texts)
        with pytest.raises(UserError, match="half of a surrogate pair"):
            tokens.encode_texts([*texts, "a\ud800"])


def test_fastokens_gives_the_same_ids(all_tokens):
    pytest.importorskip("fastokens", reason="the extra 'fast' is not installed")
    engines = {key: faster_engine(tokens.plain) for key, tokens in all_tokens.items()}
    refused = {family for (family, _), engine in engines.items() if engine is None}
    assert {family for family, _ in engines} - refused >= {"starcoder", "qwen"}
    assert all(load_fastokens(all_tokens[family, "starchat"].plain.to_str()) is None for family in refused), (
        "it knows the parts, and differs"
    )

    @given(st.lists(st.text(max_size=60), max_size=20))
    @settings(max_examples=60, deadline=None)
    def check(texts):
        for key, engine in engines.items():
            if engine is not None:
                plain = all_tokens[key].plain
                assert [encoding.ids for encoding in engine.encode_batch(texts, add_special_tokens=False)] == by_hf(plain, texts)

    check()
