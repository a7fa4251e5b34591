"""The model at work: each probe against a planted fault, and sound models of which none may complain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from families import FAMILIES, write_family
from planted import make
from runs import prepare_dialogues
from starchat import preflight, probe
from starchat.collate import Collator
from starchat.encode import IGNORED, Row, encode_dialogues
from starchat.finding import Finding
from starchat.model import add_lora, fit_vocabulary
from starchat.probe_training import Asked
from starchat.recipe import Lora, Recipe
from starchat.rows import read_records
from starchat.template import find_template
from starchat.tokens import Tokens, load_tokens
from starchat.train import make_model

ASKED = Asked(learning_rate=1e-3, bf16=False, checkpointing=False)
LORA = Lora(r=4, alpha=8)
SIZES: dict[str, dict[str, Any]] = {
    "gpt_bigcode": {"n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 4, "multi_query": True, "attn_pdrop": 0.1},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "opt": {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


@pytest.fixture(scope="module")
def starcoder(all_tokens_here: dict[str, Tokens]) -> Tokens:
    return all_tokens_here["starchat"]


@pytest.fixture(scope="module")
def all_tokens_here(bases: dict[str, Path]) -> dict[str, Tokens]:
    return {name: load_tokens(bases["starcoder"], find_template(name)) for name in ("starchat", "native")}


def tiny(tokens: Tokens, family: str = "gpt_bigcode", lora: Lora | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """Return a random model, grown to the tokenizer as a run does it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    keys = {**SIZES[family], "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": tokens.pad_id}
    config = AutoConfig.for_model(family, vocab_size=tokens.size - len(tokens.new), **keys)
    config.initializer_range = 0.3
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    fit_vocabulary(model, tokens)
    model.config.use_cache = False
    return add_lora(model, lora, tokens) if lora else model


def found(model: Any, tokens: Tokens, packing: bool = True, **keys: Any) -> dict[str, Finding]:
    asked = dataclasses.replace(ASKED, **keys)
    return {f.check: f for f in probe.probe_findings(model, tokens, make(tokens).rows, asked, packing)}


def faults(findings: dict[str, Finding]) -> set[str]:
    assert all(bool(f.remedy) != f.ok for f in findings.values())
    return {name for name, finding in findings.items() if not finding.ok}


@pytest.mark.parametrize("lora", [None, LORA], ids=["all", "lora"])
def test_a_sound_model_has_no_fault(lora: Lora | None, starcoder: Tokens) -> None:
    model = tiny(starcoder, lora=lora)
    findings = found(model.train(), starcoder, checkpointing=True)
    assert not faults(findings), findings
    assert len(findings) == (11 if lora else 10) + 1
    assert model.training


@pytest.mark.parametrize("family", ["bloom", "opt", "mamba"])
def test_an_architecture_in_which_packed_rows_see_each_other(family: str, starcoder: Tokens) -> None:
    """Bloom's attention has no positions, OPT counts its own, Mamba's state runs on."""
    model = tiny(starcoder, family)
    assert faults(found(model, starcoder)) == {"packed_is_alone"}
    assert not faults(found(tiny(starcoder, family), starcoder, packing=False))


def plant_rows_of_a_batch_that_mix(model: Any, patch: pytest.MonkeyPatch) -> set[str]:
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: out + out.mean(dim=0, keepdim=True))
    return {"padded_is_alone", "accumulation_is_one_update"}


def plant_attention_of_another_scale(model: Any, patch: pytest.MonkeyPatch) -> set[str]:
    real = functional.scaled_dot_product_attention
    patch.setattr(functional, "scaled_dot_product_attention", lambda *parts, **keys: real(*parts, **keys) * 1.1)
    return {"attention_is_as_eager"}


def plant_cache_that_forgets(model: Any, patch: pytest.MonkeyPatch) -> set[str]:
    def forget(module: Any, args: Any, keys: dict[str, Any], out: Any) -> Any:
        if keys.get("past_key_values") is not None:
            out.logits = out.logits.roll(1, dims=1)
        return out

    model.register_forward_hook(forget, with_kwargs=True)
    return {"cache_gives_the_same_logits"}


def plant_new_row_far_from_the_mean(model: Any, patch: pytest.MonkeyPatch) -> set[str]:
    model.get_input_embeddings().weight.data[-1] += 1.0
    return {"new_rows_begin_at_the_mean"}


def plant_layer_with_its_own_chance(model: Any, patch: pytest.MonkeyPatch) -> set[str]:
    chance = np.random.default_rng(0)

    def shake(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        return out * float(chance.uniform(0.5, 1.5)) if torch.is_grad_enabled() else out

    model.transformer.ln_f.register_forward_hook(shake)
    return {"steps_repeat"}


def plant_layer_behind_which_no_gradient_goes(model: Any, patch: pytest.MonkeyPatch) -> set[str]:
    model.transformer.h[1].attn.register_forward_hook(lambda module, args, out: (out[0].detach(), *out[1:]))
    return {"every_tensor_moves"}


MODEL_PLANTS = [value for name, value in sorted(globals().items()) if name.startswith("plant_")]


@pytest.mark.parametrize("plant", MODEL_PLANTS, ids=lambda plant: plant.__name__.removeprefix("plant_"))
def test_each_fault_planted_in_a_model_is_found(
    plant: Callable[[Any, pytest.MonkeyPatch], set[str]], starcoder: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(starcoder)
    wanted = plant(model, monkeypatch)
    assert wanted <= faults(found(model, starcoder))


def test_an_adapter_that_does_not_begin_as_identity(starcoder: Tokens) -> None:
    model = tiny(starcoder, lora=LORA)
    next(p for name, p in model.named_parameters() if "lora_B" in name).data += 0.1
    assert faults(found(model, starcoder)) == {"adapter_begins_as_identity"}


def test_new_rows_without_a_gradient(starcoder: Tokens) -> None:
    model = tiny(starcoder, lora=LORA)
    next(p for name, p in model.named_parameters() if "trainable_tokens" in name).register_hook(torch.zeros_like)
    assert faults(found(model, starcoder)) == {"new_rows_get_gradient", "every_tensor_moves"}
    whole = tiny(starcoder)
    whole.get_input_embeddings().weight.register_hook(lambda grad: torch.cat([grad[:-1], grad[-1:] * 0]))
    assert "new_rows_get_gradient" in faults(found(whole, starcoder))


def test_checkpointing_that_loses_the_gradient(all_tokens_here: dict[str, Tokens]) -> None:
    """Reentrant checkpointing of layers whose input needs no gradient, as with LoRA: everything before the last layer is cut off."""
    native = all_tokens_here["native"]
    model = tiny(native, lora=LORA)
    enable = model.activation_checkpointing_enable

    def enable_badly(kwargs: dict[str, Any]) -> None:
        enable({"use_reentrant": True})
        model.disable_input_require_grads()  # transformers 5 has it done; before, it was left to the caller

    model.activation_checkpointing_enable = enable_badly
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
        findings = found(model, native, checkpointing=True)
    assert faults(findings) == {"checkpointing_changes_nothing"}
    assert "16 tensors get a gradient in one only" in findings["checkpointing_changes_nothing"].detail


def test_weights_too_coarse_for_their_updates(starcoder: Tokens) -> None:
    findings = found(tiny(starcoder, dtype=torch.bfloat16), starcoder, learning_rate=1e-5)
    assert faults(findings) == {"every_tensor_moves"}
    assert "torch.bfloat16" in findings["every_tensor_moves"].detail
    assert "every_tensor_moves" in faults(found(tiny(starcoder), starcoder, learning_rate=0.0))


@dataclasses.dataclass(frozen=True)
class MaskedById:
    """A collator that takes every padding token for padding."""

    encoded: Any
    pad_id: int

    def __call__(self, examples: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        batch = Collator(self.encoded, self.pad_id)(examples)
        return {**batch, "labels": batch["labels"].masked_fill(batch["labels"] == self.pad_id, IGNORED)}


def test_labels_masked_by_the_padding_token(starcoder: Tokens) -> None:
    end = starcoder.control[starcoder.end]
    assert probe.labels_survive_batching(make(starcoder).rows, end).ok
    finding = probe.labels_survive_batching(make(starcoder).rows, end, MaskedById)
    assert not finding.ok
    assert finding.remedy


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_sound(family: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, dataset: Path) -> None:
    base = write_family(tmp_path / "base", family)
    for lora in (None, LORA):
        recipe = Recipe(str(base), str(dataset), str(tmp_path / "run"), 160, lora=lora, trainer={"learning_rate": 1e-3, "max_steps": 2})
        report, _ = preflight.preflight(recipe, make_model, progress=False)
        assert report.ok, [f for f in report.findings if not f.ok]


@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize("planted", [False, True])
def test_experts_in_half_precision_are_judged_at_the_median(
    planted: bool, quantization: str | None, tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding sends single tokens to other experts; attention of another scale is off everywhere."""
    base = write_family(tmp_path / "base", "qwen3-coder")
    trainer = {"learning_rate": 1e-3, "max_steps": 2, "bf16": True}
    recipe = Recipe(str(base), str(dataset), str(tmp_path / "run"), 160, lora=LORA, quantization=quantization, trainer=trainer)
    expected = plant_attention_of_another_scale(None, monkeypatch) if planted else set()
    report, _ = preflight.preflight(recipe, make_model, progress=False)
    assert {f.check for f in report.findings if not f.ok} == expected, [f for f in report.findings if not f.ok]


def test_a_large_model_is_tried_in_small(tiny_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "MAX_PARAMETERS", 1000)
    monkeypatch.setattr(preflight, "SMALL_LAYERS", 1)
    made: list[Any] = []

    def make_and_keep(*parts: Any) -> Any:
        made.append(make_model(*parts))
        return made[-1]

    recipe = Recipe(str(tiny_base), str(dataset), str(tmp_path / "run"), 160, trainer={"max_steps": 2})
    report, _ = preflight.preflight(recipe, make_and_keep, progress=False)
    assert report.ok
    assert len(made[0].transformer.h) == 1
    detail = next(f.detail for f in report.findings if f.check == "packed_is_alone")
    assert detail.endswith("(tried in small: 1 of 2 layers, random weights)")
    architecture = {"model_type": "gpt_bigcode", "n_positions": 256, "n_embd": 32, "n_layer": 3, "n_head": 4}
    nothing = dataclasses.replace(recipe, kind="pretrain", architecture=architecture)
    config = preflight._in_small(nothing, tiny_base, tmp_path)
    assert config[0].architecture == {**architecture, "n_layer": 1}
    assert config[2] == 3


def test_samples_have_trained_tokens_and_differ(starcoder: Tokens, tmp_path: Path) -> None:
    records = list(read_records(str(prepare_dialogues(tmp_path)), "train"))
    rows = [row for row in encode_dialogues(records, starcoder, 160) if isinstance(row, Row)]
    samples = probe.choose_samples(rows)
    assert len(samples) == probe.PROBE_ROWS
    assert all(2 <= len(ids) <= probe.PROBE_TOKENS and trained[1:].any() for ids, trained in samples)
    assert len({int(trained.sum()) for _, trained in samples}) > 1
