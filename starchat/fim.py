"""Fill-in-the-middle at the character level, as StarCoder was trained.

In: the parts of a document. Out: the same parts with the content cut in three and moved, and back. Works on text before
it is encoded: a cut between characters falls inside tokens as well, as a cursor does, and nothing has to be decoded.

The transformation is that of Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle",
section 3: PSM puts prefix, suffix, middle; SPM here is its variant 2, which puts the prefix behind ``<fim_middle>``, so
that prefix and middle are one stretch of text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence

from starchat.dialogue import Part
from starchat.errors import UserError
from starchat.files import digest_json
from starchat.placeholders import Stretch, moved_out

Sentinels = tuple[str, str, str]
"""Names of the tokens before prefix, suffix and middle: the order of PSM."""

STARCODER: Sentinels = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
SANTACODER: Sentinels = ("<fim-prefix>", "<fim-suffix>", "<fim-middle>")
QWEN: Sentinels = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
DEEPSEEK: Sentinels = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
CODELLAMA: Sentinels = ("▁<PRE>", "▁<SUF>", "▁<MID>")
NAMES = frozenset({"<filename>", "<reponame>", "<gh_stars>", "<repo_name>", "<file_sep>"})
"""Tokens before what is known of a file: its name, its repository's, its stars."""

FILE_RATE = 0.5
"""Of the files of a document that is to be permuted, the share that are (arXiv 2402.19173, section 5.1)."""

SPELLINGS = (STARCODER, SANTACODER, QWEN, DEEPSEEK, CODELLAMA)


def rng_for(seed: int, record_id: str, epoch: int) -> random.Random:
    """Return the random numbers of one record in one epoch: the same whichever process asks, and in whatever order.

    >>> rng_for(0, "a", 0).random() == rng_for(0, "a", 0).random() != rng_for(0, "a", 1).random()
    True
    """
    return random.Random(int(digest_json([seed, record_id, epoch]), 16))


def permute(
    parts: tuple[Part, ...],
    rng: random.Random,
    fim_rate: float,
    spm_rate: float,
    sentinels: Sentinels = STARCODER,
    whole: Callable[[str], Sequence[Stretch]] | None = None,
) -> tuple[Part, ...]:
    """Return a document with its code cut in three, with probability `fim_rate`; otherwise as it is.

    The cuts are two uniform positions between code points, so a piece may be empty; a character and the accent that
    combines with it may be parted, a code point never is. A cut inside a stretch that `whole` names of the text moves to its beginning;
    the draws are the same with and without. Of the permuted texts `spm_rate` are SPM, the rest PSM.

    The names in front (file and repository) stay where they are, outside the sentinels: an editor knows the name of the
    file before it asks, and a name must not be cut in two or become the text to fill in. StarCoder2 has the path at the beginning of
    the prefix (arXiv 2402.19173, section 5.1), uncut here too. Of a document with several files, each is permuted with
    probability `FILE_RATE`, as there. A document without plain text behind a name, such as a notebook, is returned as it is.

    >>> file = (Part("<filename>", "a.py"), Part("", "x = 1"))
    >>> [part.marker for part in permute(file, rng_for(0, "a", 0), fim_rate=1.0, spm_rate=0.0)]
    ['<filename>', '<fim_prefix>', '<fim_suffix>', '<fim_middle>']
    """
    for name, rate in (("fim_rate", fim_rate), ("spm_rate", spm_rate)):
        if not 0 <= rate <= 1:
            raise UserError(f"{name}: {rate}; expected a number from 0 to 1, the share of documents")
    able = {n for n in range(len(parts)) if _is_code(parts, n)}
    if not able or rng.random() >= fim_rate:
        return parts
    out: list[Part] = []
    for number, part in enumerate(parts):
        if number not in able or (len(able) > 1 and rng.random() >= FILE_RATE):
            out.append(part)
            continue
        path = ""
        if out and out[-1].marker == "<file_sep>":
            path = out[-1].text
            out[-1] = Part("<file_sep>", "")
        out += _cut(path, part.text, rng, spm_rate, sentinels, whole(part.text) if whole else ())
    return tuple(out)


def _is_code(parts: tuple[Part, ...], number: int) -> bool:
    """Whether a part is the text of a file, all of it: plain, and alone or behind a name."""
    if parts[number].marker or not all(part.marker for part in parts[number + 1 : number + 2]):
        return False
    return parts[number - 1].marker in NAMES if number else len(parts) == 1


def _cut(name: str, text: str, rng: random.Random, spm_rate: float, sentinels: Sentinels, whole: Sequence[Stretch]) -> list[Part]:
    start, end = sorted(moved_out(rng.randint(0, len(text)), whole) for _ in range(2))
    prefix, middle, suffix = name + text[:start], text[start:end], text[end:]
    if rng.random() < spm_rate:
        prefix, middle = "", prefix + middle
    return [Part(marker, piece) for marker, piece in zip(sentinels, (prefix, suffix, middle), strict=True)]


def chance(parts: Sequence[Part], fim_rate: float) -> float:
    """Return the probability with which `permute` changes a document of named files, from its parts as ids can tell them apart."""
    files = sum(part.marker in NAMES and "\n" in part.text for part in parts)
    return fim_rate * (files if files < 2 else 1 - (1 - FILE_RATE) ** files)


def join(parts: tuple[Part, ...], sentinels: Sentinels = STARCODER) -> tuple[Part, ...]:
    """Return the document that was permuted, by either order; one that is not permuted is returned as it is.

    >>> join((Part("<filename>", "a.py"), Part("<fim_prefix>", ""), Part("<fim_suffix>", " 1"), Part("<fim_middle>", "x =")))
    (Part(marker='<filename>', text='a.py'), Part(marker='', text='x = 1'))
    """
    out: list[Part] = []
    number = 0
    while number < len(parts):
        piece = parts[number : number + 3]
        if tuple(part.marker for part in piece) != sentinels:
            out.append(parts[number])
            number += 1
            continue
        prefix, suffix, middle = (part.text for part in piece)
        out.append(Part(out.pop().marker if out and out[-1] == Part("<file_sep>", "") else "", prefix + middle + suffix))
        number += 3
    return tuple(out)


def fim_tokens(vocab: Container[str]) -> Sentinels:
    """Return the names of a tokenizer's fill-in-the-middle tokens, in the spelling that it has of StarCoder (1 and 2, Granite), SantaCoder,
    Qwen2.5-Coder, DeepSeek-Coder or Code Llama.

    >>> fim_tokens({"<fim-prefix>": 49153, "<fim-middle>": 49154, "<fim-suffix>": 49155})
    ('<fim-prefix>', '<fim-suffix>', '<fim-middle>')
    """
    names = find_fim_tokens(vocab)
    if names is None:
        absent = [name for name in STARCODER if name not in vocab]
        raise UserError(
            f"tokenizer: no token {', '.join(absent)}, nor those of {len(SPELLINGS) - 1} other spellings; "
            "take a base model that was trained to fill in the middle, or turn fill-in-the-middle off"
        )
    return names


def find_fim_tokens(vocab: Container[str]) -> Sentinels | None:
    """Return the names of a tokenizer's fill-in-the-middle tokens, or None if it has none."""
    return next((names for names in SPELLINGS if all(name in vocab for name in names)), None)
