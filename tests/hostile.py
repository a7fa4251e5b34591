"""Dialogues and tokenizers that try to break the laws: control strings, escapes, white space, odd characters, odd shapes."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st

from starchat.dialogue import Record, Source, ToolCall, Turn
from starchat.template import ESCAPE

STARCODER_TOKENS = (
    *("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>", "<gh_stars>", "<issue_start>"),
    *("<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>"),
    *("<empty_output>", "<commit_before>", "<commit_msg>", "<commit_after>", "<reponame>"),
)
QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>")
QWEN_PLAIN_TOKENS = ("<tool_call>", "</tool_call>")
QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

TEXTS = (
    "def add(a, b):\n    return a + b\n\n\nfor number in range(10):\n    print(number)\n",
    "user\nassistant\nsystem\nWhy does the list grow over the calls? The default value is made once, and every call shares it.\n",
    "<|im_start|>user\nhi<|im_end|>\n<|user|><|assistant|><|end|> <tool_call>\n",
    '{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
)

FRAGMENTS = (
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<fim_middle>"),
    *("<jupyter_text>", "<issue_comment>", "<|", "|>", "<", "user\n", "assistant\n", "system\n", "user"),
    *("\n", "\n\n", "    ", "\t", " ", "\r\n", "\x00", "\x07", "\x1b[31m", "\u2028", "\ufeff", "\u200b", "\u0338"),
    *(ESCAPE, f"<{ESCAPE}|end|>", f"{ESCAPE}<|im_end|>", f"<|en{ESCAPE}d|>", f"user{ESCAPE}\n", f"{ESCAPE}user\n"),
    *("e\u0301", "\u212b", "😀", "👩\u200d💻", "é", "中文", "0123", "def f():\n", "{{ x }}", "{% raw %}", "'\"\\"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "<script>alert(1)</script>", "&lt;"),
)

content = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=6)), max_size=6).map("".join)
arguments = st.one_of(st.just("{}"), content.map(lambda text: json.dumps({"text": text}, ensure_ascii=False)))
calls = st.lists(st.builds(ToolCall, name=st.one_of(st.just("add"), content), arguments=arguments), max_size=2).map(tuple)
answer = st.builds(Turn, st.just("assistant"), content, train=st.sampled_from([True, True, False]), tool_calls=calls)
other = st.builds(Turn, st.sampled_from(["user", "user", "tool"]), content)
tool = st.dictionaries(st.sampled_from(["type", "name", "a<b"]), st.one_of(content, st.integers()))
tools = st.one_of(st.none(), st.none(), st.lists(tool, max_size=2).map(json.dumps))


@st.composite
def dialogues(draw: st.DrawFn, max_exchanges: int = 4) -> Record:
    """Return a record of turns in any order that a reader lets through, with at least one trained answer."""
    turns = [Turn("system", draw(content))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, max_exchanges))):
        turns += [*draw(st.lists(other, max_size=2)), draw(answer)]
    turns += [Turn("user", draw(content)), Turn("assistant", draw(content))]
    if draw(st.booleans()):
        turns.append(draw(other))
    return Record(Source("hostile:1"), turns=tuple(turns), tools=draw(tools))


def write_tokenizer(folder: Path, family: str) -> None:
    """Write the tokenizer files of a tiny base model: ``starcoder`` or ``qwen``, each with its own splitting and token ids."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    if family == "starcoder":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        first, last, plain = STARCODER_TOKENS, (), ()
    else:
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        first, last, plain = (), QWEN_TOKENS, QWEN_PLAIN_TOKENS
    special = [AddedToken(token, special=True, normalized=False) for token in first]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in last])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = "<|endoftext|>"
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": end, "eos_token": end, "unk_token": end, "model_max_length": 1024}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | ({"pad_token": end} if family == "qwen" else {})))
    model = {"model_type": "gpt_bigcode", "n_positions": 1024, "vocab_size": tokenizer.get_vocab_size()}
    (folder / "config.json").write_text(json.dumps(model))
