"""Train a byte-level BPE tokenizer with StarCoder's layout.

In: texts. Out: a folder that ``AutoTokenizer.from_pretrained`` loads. Digits are split one by one, there is no
normaliser, and StarCoder's 19 control tokens have ids 0 to 18 in its order; StarCoder has no padding token either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from starchat.errors import UserError
from starchat.files import write_json

END_OF_TEXT = "<|endoftext|>"

# The order of bigcode/starcoder's special_tokens_map.json; the position is the id.
STARCODER_TOKENS = (
    END_OF_TEXT,
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<empty_output>",
    "<commit_before>",
    "<commit_msg>",
    "<commit_after>",
    "<reponame>",
)

BYTES = 256
MIN_PAIR_COUNT = 2


def train_tokenizer(texts: Iterable[str], vocab_size: int, output: Path, model_max_length: int = 1024) -> int:
    """Write a tokenizer folder trained on `texts` and return its number of tokens, control tokens included.

    The number is `vocab_size` unless the texts are too few for so many merges. The same texts in the same order give
    the same files.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    least = len(STARCODER_TOKENS) + BYTES
    if vocab_size < least:
        raise UserError(f"vocab_size: {vocab_size}; expected at least {least}, for {len(STARCODER_TOKENS)} control tokens and every byte")
    special = [AddedToken(token, special=True, normalized=False) for token in STARCODER_TOKENS]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_PAIR_COUNT,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    write_tokenizer(tokenizer, output, model_max_length)
    return int(tokenizer.get_vocab_size())


def write_tokenizer(tokenizer: Any, output: Path, model_max_length: int) -> None:
    """Write the three files that transformers reads: the tokenizer, its configuration and its special tokens."""
    output.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(output / "tokenizer.json"))
    named = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT}
    write_json(
        output / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model_max_length,
            **named,
        },
    )
    write_json(output / "special_tokens_map.json", {**named, "additional_special_tokens": list(STARCODER_TOKENS)})


def bytes_per_token(tokenizer: Any, texts: Iterable[str]) -> float:
    """Return how many UTF-8 bytes of `texts` one token holds on average; higher is denser."""
    counts = [(len(text.encode()), len(tokenizer.encode(text, add_special_tokens=False).ids)) for text in texts]
    if not sum(tokens for _, tokens in counts):
        raise UserError("no text to measure the tokenizer on; give at least one text that is not empty")
    return sum(size for size, _ in counts) / sum(tokens for _, tokens in counts)


def repeated(texts: Iterable[str], times: int) -> Iterator[str]:
    """Yield each text `times` times: how a small kind of text is given weight.

    >>> list(repeated(["a", "b"], 2))
    ['a', 'a', 'b', 'b']
    """
    for text in texts:
        for _ in range(times):
            yield text
