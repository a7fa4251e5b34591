"""Parts that many tests share: a tiny real model with a real tokenizer, made once a session."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile import FAMILIES, write_tokenizer
from starchat.template import TEMPLATES, find_template
from starchat.tokens import Tokens, load_tokens, save_tokens

# Before torch is imported: on a busy two-core machine the tiny models ran up to twenty times slower with two threads than with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Who starts the tests in the background may have them ignore Ctrl-C, which all processes that they start would inherit.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

STARCODER_TOKENS = (
    "<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>", "<gh_stars>",
    "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>",
    "<jupyter_output>", "<empty_output>", "<commit_before>", "<commit_msg>", "<commit_after>", "<reponame>",
)  # fmt: skip
"""StarCoder's control tokens in the order of their ids, which begin at 0."""

TRAINING_TEXT = (
    "def add(a, b):\n    return a + b\n\n\nfor number in range(10):\n    print(number)\n",
    "Why does the list grow over the calls? The default value is made once, and every call shares it.\n",
    "import json\n\nwith open(path) as file:\n    data = json.load(file)\n",
)


def write_base_tokenizer(folder: Path, control: tuple[str, ...] = STARCODER_TOKENS) -> None:
    """Write a byte-level BPE tokenizer with `control` tokens from id 0 on, the first of them the end of text, as a base model has it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in control]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    end = control[0]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end).save_pretrained(folder)


def write_tiny_weights(folder: Path, vocabulary: int) -> None:
    """Write a random GPTBigCode model (multi-query attention, context 1,024) of some 40,000 parameters."""
    import torch
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    torch.manual_seed(7)
    config = GPTBigCodeConfig(
        vocab_size=vocabulary, n_positions=1024, n_embd=32, n_layer=2, n_head=4, multi_query=True, bos_token_id=0, eos_token_id=0,
        initializer_range=0.2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    GPTBigCodeForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random base model with StarCoder's control tokens and no chat template."""
    folder = tmp_path_factory.mktemp("tiny_base")
    write_base_tokenizer(folder)
    write_tiny_weights(folder, load_tokens(folder, None).size)
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of small dialogues."""
    from runs import prepare_dialogues  # imports torch

    return prepare_dialogues(tmp_path_factory.mktemp("chats"))


@pytest.fixture(scope="module")
def gate_in_this_process() -> Iterator[None]:
    """The reload gate without a new interpreter, which takes half a minute on a busy machine; `tests/test_verify.py` starts one."""
    from runs import verify_here
    from starchat import export

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verify_in_fresh_process", verify_here)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The folder of a random chat model: the ``starchat`` template's tokens have rows, and the tokenizer says so."""
    folder = tmp_path_factory.mktemp("tiny_model")
    tokens = load_tokens(tiny_base, find_template("starchat"))
    write_tiny_weights(folder, tokens.size)
    save_tokens(tokens, folder, max_length=1024)
    return folder


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of base models without weights, by family: what needs no torch is tested on these."""
    root = tmp_path_factory.mktemp("bases")
    for family in FAMILIES:
        write_tokenizer(root / family, family)
    return {family: root / family for family in FAMILIES}


@pytest.fixture(scope="session")
def all_tokens(bases: dict[str, Path]) -> dict[tuple[str, str], Tokens]:
    """Tokens by (family, template), all combinations."""
    return {(f, t): load_tokens(folder, template) for f, folder in bases.items() for t, template in TEMPLATES.items()}
