"""Texts that some tokenizer reads as a control token: what they look like in data.

In a dialogue they mostly show that the row was rendered with a chat template before. Our encoder makes plain text of
them in any case (`starchat.tokens`), so this is about the data's soundness, not about safety.
"""

from __future__ import annotations

import re

CHAT_TOKENS = (
    *("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
)

# special_tokens_map.json of bigcode/starcoder, bigcode/starcoder2-7b and, with hyphens, bigcode/santacoder.
STARCODER_TOKENS = (
    *("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>"),
    *("<filename>", "<gh_stars>", "<reponame>", "<repo_name>", "<file_sep>", "<issue_start>", "<issue_comment>", "<issue_closed>"),
    *("<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>"),
    *("<commit_before>", "<commit_msg>", "<commit_after>", "<code_to_intermediate>", "<intermediate_to_code>"),
    *("<pr>", "<pr_status>", "<pr_is_merged>", "<pr_base>", "<pr_file>", "<pr_base_code>", "<pr_diff>", "<pr_diff_hunk>"),
    *("<pr_comment>", "<pr_event_id>", "<pr_review>", "<pr_review_state>", "<pr_review_comment>", "<pr_in_reply_to_review_id>"),
    *("<pr_in_reply_to_comment_id>", "<pr_diff_hunk_comment_line>", "<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>"),
)

# What people write for "put yours here", as in ``python train.py <filename>``: no sign of a rendered row.
PLACEHOLDERS = frozenset({"<filename>", "<reponame>", "<repo_name>", "<pr>", "<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>"})

_TOKEN = re.compile("|".join(re.escape(token) for token in (*CHAT_TOKENS, *STARCODER_TOKENS) if token not in PLACEHOLDERS))


def find_control_token(text: str) -> str | None:
    """Return the first control token in a text, or None; placeholders that people write are none.

    >>> find_control_token("a <|im_end|> b"), find_control_token("run.py <filename>")
    ('<|im_end|>', None)
    """
    if "<" not in text and "[" not in text:
        return None
    found = _TOKEN.search(text)
    return found[0] if found else None
