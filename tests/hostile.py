"""Dialogues and tokenizers that try to break the laws: control strings, escapes, white space, odd characters, odd shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


SANTACODER_TOKENS = ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
STARCODER2_TOKENS = (
    *("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<repo_name>", "<file_sep>", "<issue_start>"),
    *("<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>"),
    *("<jupyter_script>", "<empty_output>", "<code_to_intermediate>", "<intermediate_to_code>", "<pr>", "<pr_status>"),
    *("<pr_is_merged>", "<pr_base>", "<pr_file>", "<pr_base_code>", "<pr_diff>", "<pr_diff_hunk>", "<pr_comment>", "<pr_event_id>"),
    *("<pr_review>", "<pr_review_state>", "<pr_review_comment>", "<pr_in_reply_to_review_id>", "<pr_in_reply_to_comment_id>"),
    *("<pr_diff_hunk_comment_line>", "<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>"),
)
SMOLLM_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>", "<jupyter_start>", "<empty_output>")
DEEPSEEK_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<|EOT|>")
FIRST_TOKENS = {"starcoder": STARCODER_TOKENS, "starcoder2": STARCODER2_TOKENS, "smollm": SMOLLM_TOKENS}
"""Control tokens from id 0 on."""
LAST_TOKENS = {"qwen": QWEN_TOKENS, "santacoder": SANTACODER_TOKENS, "deepseek": DEEPSEEK_TOKENS}
"""Control tokens behind the vocabulary."""

FAMILIES = ("starcoder", "qwen", "llama", "codellama")
"""Kinds of tokenizers: byte-level, without and with a normalizer; SentencePiece's, with a space before each stretch or before the first."""


def write_tokenizer(folder: Path, family: str) -> None:
    """Write the tokenizer files of a tiny base model: one of the `FAMILIES`, or of those with tokens above."""
    sentencepiece = family in ("llama", "codellama")
    spec = _sentencepiece(family) if sentencepiece else _byte_level(family)
    begin, end = ("<s>", "</s>") if sentencepiece else DEEPSEEK_TOKENS[:2] if family == "deepseek" else ("<|endoftext|>",) * 2
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "unk_token": end,
        "model_max_length": 1024,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config | ({"pad_token": end} if family == "qwen" else {})))
    size = max([*spec["model"]["vocab"].values(), *(token["id"] for token in spec["added_tokens"])]) + 1
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt_bigcode", "n_positions": 1024, "vocab_size": size}))


def _byte_level(family: str) -> dict[str, Any]:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if family == "qwen":
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    special = [AddedToken(token, special=True, normalized=False) for token in FIRST_TOKENS.get(family, ())]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in LAST_TOKENS.get(family, ())])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in QWEN_PLAIN_TOKENS if family == "qwen"])
    if family == "deepseek":
        begin = DEEPSEEK_TOKENS[0]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[begin, "$A"], pair=[begin, "$A", "$B"], special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
    return dict(json.loads(tokenizer.to_str()))


def _sentencepiece(family: str) -> dict[str, Any]:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    names = ("<unk>", "<s>", "</s>")
    every_byte = [f"<0x{n:02X}>" for n in range(256)]
    texts = (*TEXTS[:2], *TEXTS[3:])  # a vocabulary with control strings as ordinary text is refused
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=[*names, *every_byte], show_progress=False))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    if family == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None
    spec = json.loads(tokenizer.to_str())
    spec["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in names]
    return dict(spec)
