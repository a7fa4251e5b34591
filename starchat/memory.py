"""How much memory a training step needs, found by taking one without computing or holding anything.

In: how to build a model, and a step's shape. Out: a `Footprint`: bytes at each peak, by what they are for. The step runs the real
architecture, the trainer's own loss and torch's own autograd over fake tensors, which have shapes and no content, and every
storage is counted from the operation that makes it until it dies. So no architecture needs a formula. A deep model
is taken as its first layers: every peak is linear in depth, so two shallow steps give any.

Not seen: what a kernel allocates within itself, the allocator's rounding and fragments, the process (`starchat.plan` adds these).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
import transformers.integrations.moe as experts
import trl.kernels.chunked_logprob as fused_head
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from trl.trainer.utils import add_fused_lm_head

from starchat.attention import attends_by_row, use_attention_by_row
from starchat.dpo import without_dropout
from starchat.model import REFERENCE

WEIGHTS, GRADIENTS, LOGITS, ACTIVATIONS = "weights", "gradients", "logits", "activations"
KINDS = (WEIGHTS, GRADIENTS, LOGITS, ACTIVATIONS)

SHALLOW = (2, 3)
"""Depths that are stepped through. One layer would be first and last at once."""

HEAD_OUTPUTS = ("log_probs", "entropy", "is_top1")
"""What TRL's `SFTTrainer` asks of its fused head."""

PAIR_OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")
"""What its `DPOTrainer` asks."""

Compute = Literal["float32", "autocast", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class StepShape:
    """What a step's memory depends on beside the model.

    `compute`: ``float32``; ``autocast`` computes float32 weights in bfloat16, as accelerate does; ``bfloat16`` holds all weights so, as
    DeepSpeed does. `accumulates`: earlier micro-batches have left gradients. `on_gpu`: TRL's loss runs in its Triton kernels.
    """

    batch: int
    length_tokens: int
    checkpointing: bool
    compute: Compute
    accumulates: bool = False
    on_gpu: bool = True
    pairs: bool = False
    """Each of the batch is two answers, which a frozen reference scores too, as in TRL's DPO."""


Bytes = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes by kind at the peak of each phase of a step; `freed` leaves out gradients once they are complete, as ZeRO-2 and -3 do."""

    kept: Mapping[str, Bytes]
    freed: Mapping[str, Bytes]

    def peak(self, freed: bool = False) -> Bytes:
        """Return the bytes by kind at the highest of the peaks."""
        return max((self.freed if freed else self.kept).values(), key=lambda found: sum(found.values()))


class _Ledger(TorchDispatchMode):
    """Adds up the bytes of live storages by kind, and remembers each phase's peak."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.phase = WEIGHTS, "forward"
        self.live = dict.fromkeys(KINDS, 0)
        self.held: dict[int, tuple[Any, str, int]] = {}
        self.kept: dict[str, dict[str, int]] = {}
        self.freed: dict[str, dict[str, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_iter(out):
            if isinstance(value, torch.Tensor):
                self.see(value)
        return out

    def see(self, tensor: torch.Tensor) -> None:
        """Enter the storage of a tensor, if it is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.held:
            return
        size = storage.nbytes()
        self.held[key] = (weakref.ref(storage, lambda _: self.forget(key)), self.kind, size)
        self.live[self.kind] += size
        self.look()

    def forget(self, key: int) -> None:
        """Strike off a storage that died."""
        _, kind, size = self.held.pop(key)
        self.live[kind] -= size

    def is_gradient(self, tensor: torch.Tensor) -> None:
        """Call a storage, entered as something else, a gradient."""
        key = tensor.untyped_storage()._cdata
        if key in self.held:
            ref, kind, size = self.held[key]
            self.held[key] = (ref, GRADIENTS, size)
            self.live[kind] -= size
            self.live[GRADIENTS] += size

    def look(self) -> None:
        """Remember the present state if it is a peak of its phase."""
        total = sum(self.live.values())
        if total > sum(self.kept.get(self.phase, self.live).values()) or self.phase not in self.kept:
            self.kept[self.phase] = dict(self.live)
        without = total - self.live[GRADIENTS]
        if without > sum(self.freed.get(self.phase, self.live).values()) or self.phase not in self.freed:
            self.freed[self.phase] = {**self.live, GRADIENTS: 0}

    def enter(self, phase: str) -> None:
        """Begin a phase; what it makes is for the loss if it is the head's."""
        self.phase, self.kind = phase, LOGITS if phase == "head" else ACTIVATIONS
        self.look()


def footprint(build: Callable[[int], Any], shape: StepShape, layers: int) -> Footprint:
    """Return the memory of a step of a model of `layers` layers; ``build(n)`` returns one of n layers, ready to train."""
    few, more = (_of_depth(build, shape, min(depth, layers)) for depth in SHALLOW)
    further = layers - min(SHALLOW[0], layers)

    def grown(name: str) -> Mapping[str, Bytes]:
        low, high = getattr(few, name), getattr(more, name)
        return {phase: {kind: low[phase][kind] + further * (high[phase][kind] - low[phase][kind]) for kind in KINDS} for phase in low}

    return Footprint(grown("kept"), grown("freed"))


def _of_depth(build: Callable[[int], Any], shape: StepShape, depth: int) -> Footprint:
    """Return the memory of one micro-batch, forward and backward, at one depth."""
    ledger = _Ledger()
    with torch.device("meta"):
        model = build(depth)
        reference = _reference(model, build, depth) if shape.pairs else None
    with FakeTensorMode(allow_non_fake_inputs=True), _stand_ins(shape.on_gpu):
        for held in [model] if reference is None or reference is model else [model, reference]:
            _hold(held, torch.bfloat16 if shape.compute == "bfloat16" else None)
            for tensor in (*held.parameters(), *held.buffers()):
                ledger.see(tensor)
        model.train()
        model.config.use_cache = False
        if shape.checkpointing:
            model.enable_input_require_grads()
            _inner(model).activation_checkpointing_enable()
        if shape.pairs:
            without_dropout(model)
            add_fused_lm_head(_inner(model), outputs=PAIR_OUTPUTS)
        elif shape.on_gpu:
            add_fused_lm_head(_inner(model), outputs=HEAD_OUTPUTS)
        else:
            use_attention_by_row(_inner(model))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p: ledger.is_gradient(p.grad))
        _mark_phases(model, ledger)
        with ledger:
            for _ in range(1 + shape.accumulates):
                if reference is None:
                    _step(model, shape, ledger)
                else:
                    _pair_step(model, reference, shape, ledger)
    return Footprint(ledger.kept, ledger.freed)


def _reference(model: Any, build: Callable[[int], Any], depth: int) -> Any:
    """Return what DPO compares a model with: the model itself, with a frozen copy of its adapter beside it, or a second model."""
    if not hasattr(model, "peft_config"):
        reference = build(depth).eval().requires_grad_(False)
        reference.config.use_cache = False
        add_fused_lm_head(reference)
        return reference
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ensure_weight_tying.*")
        model.add_adapter(REFERENCE, model.peft_config["default"])
    for name, parameter in model.named_parameters():
        if REFERENCE in name.split("."):
            parameter.requires_grad_(False)
    return model


def _hold(model: Any, dtype: torch.dtype | None) -> None:
    """Put fake tensors on the CPU, of `dtype` where they are floating, in place of a model's on the meta device; what was one stays one."""
    made: dict[int, torch.Tensor] = {}

    def held(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty_like(tensor, device="cpu", dtype=dtype if tensor.is_floating_point() else None)
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            made[id(tensor)] = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: held(tensor) for name, tensor in tensors.items() if tensor is not None})


def _step(model: Any, shape: StepShape, ledger: _Ledger) -> None:
    """Run one micro-batch of full rows, every token trained, through the loss of `starchat.loss.trainer_class`: TRL's, or on a CPU ours.

    Ours takes trained positions by a mask. How many a mask has is content, which fake tensors lack, so here they are listed.
    """
    ledger.enter("forward")
    size = (shape.batch, shape.length_tokens)
    batch = {name: torch.zeros(size, dtype=torch.int64) for name in ("input_ids", "labels", "position_ids")}
    with torch.autocast("cpu", torch.bfloat16, enabled=shape.compute == "autocast"):
        if shape.on_gpu:
            out = model(**batch, use_cache=False, fused_lm_head=True)
            loss = -out.log_probs.float().sum()
        else:
            labels = batch.pop("labels")[:, 1:]
            half = shape.length_tokens // 2
            rows = {"row_lengths": ((half, shape.length_tokens - half),) * shape.batch} if attends_by_row(_inner(model)) else {}
            places = torch.arange(shape.length_tokens - 1).expand(shape.batch, -1)
            out = model(**batch, use_cache=False, logits_to_keep=places, **rows)
            loss = cross_entropy(out.logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    del out
    loss.backward()


def _pair_step(model: Any, reference: Any, shape: StepShape, ledger: _Ledger) -> None:
    """Run one micro-batch of pairs as long as they may be, every token trained, through TRL's log-probabilities.

    Over fake tensors transformers makes the mask that padding would need, as it does for most pairs.
    """
    ledger.enter("forward")
    batch = {name: torch.zeros((2 * shape.batch, shape.length_tokens), dtype=torch.int64) for name in ("input_ids", "labels")}
    with torch.autocast("cpu", torch.bfloat16, enabled=shape.compute == "autocast"):
        out = model(**batch, use_cache=False, fused_lm_head=True)
        ledger.enter("reference")
        with torch.no_grad():
            compared = reference(**batch, use_cache=False, fused_lm_head=True)
        loss = (out.log_probs.sum(dim=1) - compared.log_probs.sum(dim=1)).sum()
    del out, compared
    loss.backward()


def _mark_phases(model: Any, ledger: _Ledger) -> None:
    """Have the ledger told when the head begins, when its gradient is back, and when the first layer's is."""
    backbone = _inner(model).base_model

    def at_end(module: Any, args: Any, out: Any) -> None:
        if out.last_hidden_state.requires_grad:
            ledger.enter("head")
            out.last_hidden_state.register_hook(lambda grad: ledger.enter("backward"))

    def at_start(module: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        if ledger.phase == "forward" and hidden.requires_grad:
            hidden.register_hook(lambda grad: ledger.enter("embedding"))

    backbone.register_forward_hook(at_end)
    decoder_layers(backbone)[0].register_forward_pre_hook(at_start, with_kwargs=True)


def decoder_layers(backbone: Any) -> Any:
    """Return the longest list of modules of a model: its layers."""
    return max((m for m in backbone.children() if isinstance(m, torch.nn.ModuleList)), key=len)


def _inner(model: Any) -> Any:
    """Return the model of transformers that PEFT may have wrapped."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


@contextlib.contextmanager
def _stand_ins(on_gpu: bool) -> Iterator[None]:
    """Have what cannot be traced replaced by what takes the same memory.

    Experts: torch's grouped product has shapes for bfloat16 only. On a GPU, TRL's fused head folds its tiles in Triton kernels, without
    copies.
    """

    def nothing(*args: Any, **kwargs: Any) -> None:
        pass

    def grouped(input: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> Any:
        return _GroupedProduct.apply(input.to(weight.dtype), weight)

    places: list[tuple[Any, str, Any]] = [(experts, "_grouped_mm", grouped)]
    if on_gpu:
        places += [(fused_head, name, nothing) for name in ("_forward_tile", "_backward_tile", "_addmm_fp32")]
    real = [getattr(module, name) for module, name, _ in places]
    try:
        for module, name, stand_in in places:
            setattr(module, name, stand_in)
        yield
    finally:
        for (module, name, _), function in zip(places, real, strict=True):
            setattr(module, name, function)


class _GroupedProduct(torch.autograd.Function):
    """Each expert's tokens by its weights: it keeps its input, as torch's does, only for a gradient of weights that are trained."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return (tokens, outputs) for weights (experts, inputs, outputs)."""
        ctx.shapes = (input.shape, weight.shape)
        ctx.save_for_backward(*([input] if ctx.needs_input_grad[1] else []))
        return input.new_empty(input.shape[0], weight.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients that are asked for."""
        return tuple(grads[0].new_empty(shape) if needed else None for shape, needed in zip(ctx.shapes, ctx.needs_input_grad, strict=True))


def shallow(config: Any, layers: int) -> Any:
    """Return a model's configuration with fewer layers."""
    fewer = copy.deepcopy(config)
    fewer.num_hidden_layers = layers
    if getattr(fewer, "layer_types", None):
        fewer.layer_types = fewer.layer_types[:layers]
    return fewer


class FourBitLinear(torch.nn.Linear):
    """Stands for a layer that bitsandbytes holds in NF4 with double quantisation, whose own tensors cannot be fake.

    Packed weights take half a byte; a block of 64 has a scale of one byte, and 256 scales one of 4 bytes (Dettmers and
    others 2023, section 3). As in ``bitsandbytes.nn.Linear4bit``, the product is computed in `compute` from weights that are
    unpacked for it, forward and backward, and returned in the input's type.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, compute: torch.dtype) -> None:
        super().__init__(in_features, out_features, bias, dtype=compute)
        size = in_features * out_features
        self.compute = compute
        self.weight = torch.nn.Parameter(torch.empty(size // 2, 1, dtype=torch.uint8), requires_grad=False)
        self.register_buffer("absmax", torch.empty(-(-size // 64), dtype=torch.uint8))
        self.register_buffer("absmax_of_absmax", torch.empty(-(-size // (64 * 256)), dtype=torch.float32))
        self.requires_grad_(False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the layer's output in the type of its input."""
        with torch.autocast("cpu", enabled=False):
            out = _Unpacked.apply(input.to(self.compute), self.out_features)
            return (out if self.bias is None else out + self.bias.to(self.compute)).to(input.dtype)


class _Unpacked(torch.autograd.Function):
    """The product with weights that exist only while it is computed."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, out_features: int) -> torch.Tensor:
        """Return (..., out_features)."""
        ctx.shape = (out_features, input.shape[-1])
        return input @ input.new_empty(ctx.shape).t()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[torch.Tensor, None]:
        """Return the gradient of the input."""
        return grads[0] @ grads[0].new_empty(ctx.shape), None


def in_four_bits(model: Any, compute: torch.dtype) -> None:
    """Replace the linear layers of a model, the head apart, by stand-ins held in 4 bits."""
    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and child is not head:
                setattr(module, name, FourBitLinear(child.in_features, child.out_features, child.bias is not None, compute))
