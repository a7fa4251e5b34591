"""A tokenizer whose control tokens no text can forge.

In: a model folder's ``tokenizer.json`` and a template. Out: `Tokens`, and on request the same as a tokenizer folder
that ``AutoTokenizer`` loads. Imports no torch and no transformers.

Two tokenizers share one vocabulary. ``whole`` knows the control tokens; ``plain`` does not, so whatever it is given
becomes text. Content goes through ``plain`` only. The saved tokenizer differs from the base model's in up to three ways:
the template's tokens are added at the end; a normalizer removes `template.ESCAPE`, with which the exported Jinja template
breaks control strings in content; and for templates with header text (ChatML), the pre-tokenizer splits behind the
header. Together they make the Jinja path give the same ids for every dialogue, hostile ones too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, NormalizedString, Tokenizer

from starchat.errors import UserError
from starchat.faster_tokenizer import WORTH_TEXTS, by_hf, encode_faster, faster_engine
from starchat.files import read_object, write_json, write_text
from starchat.template import ESCAPE, Segment, Template, jinja
from starchat.tokenizer_file import is_control, read_spec

SAVED_END_OF_TEXT = "base_end_of_text"
"""Key of a saved tokenizer's configuration: what ended a text in the base model, where the template ends replies with another token."""

SPACE = "\u2581"
"""What stands for a space in vocabularies of SentencePiece's kind."""

HEADER_SPLIT = r"\A(?:"
"""How the pattern begins that splits behind header texts."""


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A vocabulary with its control tokens. `new` are those that the template added, in the order of their ids."""

    whole: Tokenizer
    plain: Tokenizer
    control: Mapping[str, int]
    template: Template | None
    end_of_text: str
    pad: str
    bos: str | None
    new: tuple[str, ...]
    config: Mapping[str, Any]
    spells_space: bool = False
    """Whether the vocabulary writes a space as `SPACE`, which then cannot be told from one."""

    @property
    def size(self) -> int:
        """The number of embedding rows that the ids need: one more than the highest."""
        return max(self.whole.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def new_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that the base model does not have."""
        return tuple(self.control[token] for token in self.new)

    @property
    def end(self) -> str:
        """The token that ends a reply, or a document where there is no template."""
        return self.template.end if self.template else self.end_of_text

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids at which generation stops: the template's end token and the base model's end of text."""
        return tuple(dict.fromkeys([self.control[self.end], self.control[self.end_of_text]]))

    @property
    def pad_id(self) -> int:
        """The id that fills rows; labels never depend on it."""
        return self.control[self.pad]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts as plain text: no control token can come out."""
        with _refusing_surrogates(texts):
            if len(texts) >= WORTH_TEXTS and self.engine is not None:
                return encode_faster(self.engine, self.plain, texts)
            return by_hf(self.plain, texts)

    @functools.cached_property
    def engine(self) -> Any:
        """A faster engine that gives the ids of `plain`, or None."""
        return faster_engine(self.plain)

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding]:
        """Return `encode_texts` with where in its text each token begins and ends, in characters."""
        with _refusing_surrogates(texts):
            return list(self.plain.encode_batch(texts, add_special_tokens=False))

    def decode_texts(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of many lists of ids, control tokens spelled out."""
        return list(self.whole.decode_batch([list(i) for i in ids], skip_special_tokens=False))

    def normalize(self, text: str) -> str:
        """Return what the tokenizer makes of a text before it looks up tokens: what decoding its ids gives back."""
        normal = str(self.whole.normalizer.normalize_str(text)) if self.whole.normalizer else text
        return normal.replace(SPACE, " ") if self.spells_space else normal

    def before_normalizing(self, text: str, stretches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return where stretches of `normalize` of a text lie in the text itself, in characters, as `encode_with_offsets` counts them."""
        if not stretches or self.whole.normalizer is None or self.normalize(text) == text:
            return list(stretches)
        normal = NormalizedString("\n" + text)  # a slice leaves out what was removed before its first character: here nothing is
        self.whole.normalizer.normalize(normal)

        def at(position: int) -> int:
            front = normal.slice((0, position + 1))
            assert front is not None, "the stretch lies in the normalised text"
            return len(front.original) - 1

        return [(at(start), at(stop)) for start, stop in stretches]

    def encode_segments(self, segments: Sequence[Segment]) -> list[int]:
        """Return the ids of a few segments."""
        return [i for s in segments for i in ([self.control[s.text]] if s.control else self.encode_texts([s.text])[0])]

    def decode(self, ids: Sequence[int], *, skip_control: bool = False) -> str:
        """Return the text of ids."""
        return str(self.whole.decode(list(ids), skip_special_tokens=skip_control))


def load_tokens(folder: str | Path, template: Template | None) -> Tokens:
    """Return the tokens of a model folder, with the template's control tokens added where they are missing."""
    spec, config = read_spec(Path(folder)), _read_config(Path(folder))
    end_of_text = _token_name(config, SAVED_END_OF_TEXT) or _token_name(config, "eos_token")
    if end_of_text is None:
        raise UserError(f"{folder}: the tokenizer names no eos_token; add one to tokenizer_config.json")
    present = {token["content"] for token in spec["added_tokens"]}
    if end_of_text not in present:
        raise UserError(f"{folder}: eos_token {end_of_text!r} is not among the tokenizer's added tokens; the tokenizer does not fit itself")
    new = tuple(t for t in (template.control_tokens if template else ()) if t not in present)
    plain_pre_tokenizer = spec["pre_tokenizer"] = _without_header_split(spec["pre_tokenizer"])
    if template is not None:
        spec = _with_template(spec, template, new)
    whole = Tokenizer.from_str(json.dumps(spec))
    control = {t["content"]: t["id"] for t in spec["added_tokens"] if is_control(t)}
    plain = _plain(spec, plain_pre_tokenizer)
    _require_unforgeable(plain, control, folder)
    return Tokens(
        whole=whole,
        plain=plain,
        control=control,
        template=template,
        end_of_text=end_of_text,
        pad=_padding_token(control, _token_name(config, "pad_token"), template.end if template else end_of_text, end_of_text),
        bos=_leading_token(whole),
        new=new,
        config=config,
        spells_space=SPACE in json.dumps(spec["decoder"], ensure_ascii=False),
    )


def save_tokens(tokens: Tokens, folder: str | Path, max_length: int) -> None:
    """Write a tokenizer folder that ``AutoTokenizer`` loads as it is, with the chat template."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / "tokenizer.json", tokens.whole.to_str(pretty=False))
    dropped = ("added_tokens_decoder", "auto_map", "vocab_file", "merges_file", "additional_special_tokens", "backend")
    config = {k: v for k, v in tokens.config.items() if k not in dropped}
    config |= {
        SAVED_END_OF_TEXT: tokens.end_of_text,
        "tokenizer_class": "PreTrainedTokenizerFast",  # loads tokenizer.json verbatim; model-specific classes rebuild it
        "eos_token": tokens.end,
        "pad_token": tokens.pad,
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
    }
    write_json(target / "tokenizer_config.json", config)
    if tokens.template is not None:
        write_text(target / "chat_template.jinja", jinja(tokens.template, list(tokens.control), tokens.bos))


@contextlib.contextmanager
def _refusing_surrogates(texts: Sequence[str]) -> Iterator[None]:
    """Say which text is not Unicode where the tokenizers have only a TypeError or a UnicodeEncodeError for it."""
    try:
        yield
    except (TypeError, UnicodeEncodeError):
        for text in texts:
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                context = text[max(0, error.start - 20) : error.start]
                raise UserError(
                    f"text: {text[error.start]!a} at character {error.start}, after {context!r}, is half of a surrogate pair; "
                    "expected Unicode text; decode it with errors='replace'"
                ) from None
        raise


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        raise UserError(f"{folder}: has no tokenizer_config.json; fetch the model again with all its files")
    return read_object(path, "a tokenizer's configuration", "fetch the model again")


def _token_name(config: Mapping[str, Any], key: str) -> str | None:
    value = config.get(key)
    return value["content"] if isinstance(value, dict) else value


def _padding_token(control: Mapping[str, int], named: str | None, end: str, end_of_text: str) -> str:
    """Return the token to pad with: of code models their own, else the one that is named; not the end token if there is another."""
    wanted = ("<fim_pad>", "<fim-pad>", named or "", "<|fim_pad|>")
    return next((token for token in wanted if token in control and token != end), end_of_text)


def _with_template(spec: dict[str, Any], template: Template, new: Sequence[str]) -> dict[str, Any]:
    """Return a tokenizer spec with the template's tokens, the escape's normalizer and the split behind header texts.

    Control tokens are looked for before normalization and swallow no white space: otherwise the escape would not hold, and a
    reply's first newline would be lost. A spec that has all this already comes out as it is.
    """
    grown = Tokenizer.from_str(json.dumps(spec))
    grown.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in new])
    spec = json.loads(grown.to_str())
    strict = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    spec["added_tokens"] = [{**t, **strict} if is_control(t) else t for t in spec["added_tokens"]]
    spec["normalizer"] = _with_escape(spec["normalizer"])
    headers = [re.escape(header) for _, header in template.markers.values() if header]
    if headers:
        split = {"type": "Split", "pattern": {"Regex": rf"{HEADER_SPLIT}{'|'.join(headers)})"}, "behavior": "Isolated", "invert": False}
        inner = [spec["pre_tokenizer"]] if spec["pre_tokenizer"] else []
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, *inner]}
    return dict(spec)


def _with_escape(normalizer: dict[str, Any] | None) -> dict[str, Any]:
    escape = {"type": "Replace", "pattern": {"String": ESCAPE}, "content": ""}
    if normalizer is None or normalizer == escape:
        return escape
    if normalizer["type"] == "Sequence" and normalizer["normalizers"][:1] == [escape]:
        return normalizer
    return {"type": "Sequence", "normalizers": [escape, normalizer]}


def _without_header_split(pre_tokenizer: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the base model's own pre-tokenizer, also from a tokenizer that `save_tokens` wrote."""
    if pre_tokenizer is None or pre_tokenizer["type"] != "Sequence" or not pre_tokenizer["pretokenizers"]:
        return pre_tokenizer
    first, *inner = pre_tokenizer["pretokenizers"]
    if first["type"] != "Split" or not str(first["pattern"].get("Regex", "")).startswith(HEADER_SPLIT):
        return pre_tokenizer
    return inner[0] if inner else None


def _plain(spec: Mapping[str, Any], pre_tokenizer: dict[str, Any] | None) -> Tokenizer:
    """Return the tokenizer that knows no control token and no header.

    Without the control tokens the library would number the added words anew; as part of the vocabulary they keep their ids.
    """
    words = [t for t in spec["added_tokens"] if not is_control(t)]
    model = dict(spec["model"])
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {**model["vocab"], **{t["content"]: t["id"] for t in words}}
    kept = {"model": model, "added_tokens": words, "post_processor": None, "pre_tokenizer": pre_tokenizer}
    plain = Tokenizer.from_str(json.dumps({**spec, **kept}))
    moved = [t["content"] for t in words if plain.token_to_id(t["content"]) != t["id"]]
    if moved:
        names = ", ".join(map(repr, moved[:3]))
        raise UserError(f"tokenizer: added words {names} do not keep their ids without the control tokens; take a BPE tokenizer")
    return plain


def _require_unforgeable(plain: Tokenizer, control: Mapping[str, int], folder: str | Path) -> None:
    """Raise `UserError` if the vocabulary itself spells a control token: text could then become one."""
    ids = set(control.values())
    forged = [token for token in control if ids & set(plain.encode(token, add_special_tokens=False).ids)]
    if forged:
        raise UserError(
            f"{folder}: the vocabulary has {', '.join(map(repr, forged[:3]))} as ordinary text, so that any message could forge it; "
            "choose a template with other control tokens"
        )


def _leading_token(whole: Tokenizer) -> str | None:
    """Return the token that the tokenizer puts before every text (a BOS), or None."""
    with_added, text = (whole.encode("a", add_special_tokens=added).ids for added in (True, False))
    return whole.id_to_token(with_added[0]) if with_added[:1] != text[:1] else None
