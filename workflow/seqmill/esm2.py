"""ESM-2 over packed batches (Lin et al. 2023, doi:10.1126/science.ade2574).

Matches transformers' `EsmModel` and fair-esm's `ESM2` for every sequence by itself, with the rotary tables in float32.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from seqmill import operators
from seqmill.attention import Kernel, Packing
from seqmill.batches import Batch, Vocabulary
from seqmill.checkpoint import Checkpoint
from seqmill.errors import UserError
from seqmill.operators import Operators

# The order of fair-esm's `Alphabet` and of every ESM-2 checkpoint's vocab.txt.
TOKENS = [
    "<cls>",
    "<pad>",
    "<eos>",
    "<unk>",
    "L",
    "A",
    "G",
    "V",
    "S",
    "E",
    "R",
    "T",
    "I",
    "D",
    "P",
    "K",
    "Q",
    "N",
    "F",
    "Y",
    "M",
    "H",
    "W",
    "C",
    "X",
    "B",
    "U",
    "Z",
    "O",
    ".",
    "-",
    "<null_1>",
    "<mask>",
]

# Token dropout replaced 15 % x 80 % of the training tokens by a mask and scaled the rest up to make good for it.
# Without masks in the input, inference scales by what was left in training (`EsmEmbeddings`, `token_dropout`).
TOKEN_DROPOUT_SCALE = 1 - 0.15 * 0.8


def vocabulary() -> Vocabulary:
    """ESM-2's tokens for upper-case residue letters; every other byte is the unknown token."""
    tokens = np.full(256, TOKENS.index("<unk>"), dtype=np.uint8)
    for number, token in enumerate(TOKENS):
        if len(token) == 1:
            tokens[ord(token)] = number
    return Vocabulary(tokens, TOKENS.index("<cls>"), TOKENS.index("<eos>"), TOKENS.index("<pad>"))


@dataclass(frozen=True)
class Config:
    """The part of a checkpoint's config.json that the encoder depends on, in transformers' names and defaults."""

    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    layer_norm_eps: float
    token_dropout: bool
    rope_theta: float = 10_000.0

    @classmethod
    def read(cls, fields: Mapping[str, Any], name: str) -> "Config":
        """Take over config.json; refuse relatives of ESM-2 that the packed forward does not compute.

        Raises:
            UserError: ESM-1b-like positions or embeddings, ESMFold, another vocabulary; fields missing or senseless.
        """
        supported = (
            fields.get("position_embedding_type") == "rotary"
            and not fields.get("emb_layer_norm_before")
            and not fields.get("is_folding_model")
            and fields.get("hidden_act", "gelu") == "gelu"
            and fields.get("vocab_size") == len(TOKENS)
        )
        if not supported:
            raise UserError(f"model {name}: is of the ESM family, but no ESM-2; use an ESM-2 checkpoint")
        own = {field.name: fields[field.name] for field in dataclasses.fields(cls) if field.name in fields}
        if not cls._makes_sense(own):
            raise UserError(f"model {name}: its config.json lacks sizes of the model or has wrong ones; get it again")
        return cls(**own)

    @classmethod
    def _makes_sense(cls, own: dict[str, Any]) -> bool:
        width, heads = own.get("hidden_size"), own.get("num_attention_heads")
        sizes = (width, heads, own.get("num_hidden_layers"), own.get("intermediate_size"))
        if not all(type(size) is int and size > 0 for size in sizes):
            return False
        numbers = (own.get("layer_norm_eps"), own.get("rope_theta", cls.rope_theta))
        if not all(type(number) in (int, float) and 0 < number < 1e30 for number in numbers):
            return False
        return isinstance(own.get("token_dropout"), bool) and width % heads == 0 and width // heads % 2 == 0

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def parameter_count(self) -> int:
        """Numbers in the encoder's weights: what has to fit before anything is loaded."""
        width, expanded = self.hidden_size, self.intermediate_size
        products = 4 * width**2 + 2 * width * expanded
        # Biases of queries, keys, values and of the expansion, and two norms; the other biases are in the stream's shifts.
        layer = products + 3 * width + expanded + 4 * width
        return self.num_hidden_layers * layer + len(TOKENS) * width + 2 * width


class Layer(nn.Module):
    """One pre-norm transformer layer, added to the residual stream in place; (T, D).

    The stream carries no biases: those of `out` and `down` are the same for every token, so their sum over the layers
    so far, the stream's shift, is added where the stream is read. That leaves the residual addition to the matrix
    products, which add to the stream what they compute.
    """

    def __init__(self, config: Config):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.attention_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.up = nn.Linear(width, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, width, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        room: torch.Tensor,
        shifts: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        compute: Operators,
    ) -> None:
        """Add the layer to `x`.

        Args:
            room: flat, at least T times the widest activation: the wide activations share it, one after the other. With
                them out of the allocator's hands all else has one size, and nothing fragments.
            shifts: (2, D), the stream's before attention and before the feed-forward.
        """
        qkv = _linear(self.qkv, compute.layer_norm(x, shifts[0], self.attention_norm), room)
        attended = attend(*compute.rotate(qkv.unflatten(-1, (3, self.heads, -1)), cos, sin).unbind(1))
        x.addmm_(attended.flatten(-2), self.out.weight.t())
        expanded = _linear(self.up, compute.layer_norm(x, shifts[1], self.feed_forward_norm), room)
        x.addmm_(compute.gelu(expanded), self.down.weight.t())


def _linear(layer: nn.Linear, x: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    """The layer's result, at the beginning of `room`."""
    out = room[: len(x) * layer.out_features].view(len(x), layer.out_features)
    return torch.addmm(layer.bias, x, layer.weight.t(), out=out)


class ESM2(nn.Module):
    """ESM-2's encoder over packed batches.

    Attributes:
        layer_count: transformer layers; hidden states are numbered 0 (embeddings) to this (after the final norm).
        width: hidden size D.
        kernel, operators: what computes attention, and the steps between it and the matrix products; may be exchanged.
    """

    vocabulary = vocabulary()

    def __init__(self, config: Config, kernel: Kernel):
        super().__init__()
        self.layer_count = config.num_hidden_layers
        self.width = config.hidden_size
        self.kernel, self.operators = kernel, operators.PLAIN
        self.feed_forward_width = config.intermediate_size
        # No nn.Embedding: its initial values, though never used, make PyTorch import its compiler, which takes seconds.
        self.embedding = nn.Parameter(torch.empty(len(TOKENS), self.width))
        self.layers = nn.ModuleList(Layer(config) for _ in range(self.layer_count))
        self.final_norm = nn.LayerNorm(self.width, config.layer_norm_eps)
        self.register_buffer("shifts", torch.empty(2 * self.layer_count + 1, self.width))
        # In float32 always: rounded to half precision they ruin long positions. Weights come in their dtype, so the model
        # is moved between devices only. Made on the CPU, because under the meta device they would have no values, and in
        # float64: a float32 power can come out one rounding apart from call to call, which 1,000 positions on is 3e-5.
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device="cpu") / config.head_dim
        self.register_buffer("inverse_frequencies", (1.0 / config.rope_theta**exponents).float(), persistent=False)

    @classmethod
    def from_checkpoint(cls, config: Config, checkpoint: Checkpoint, kernel: Kernel, dtype: torch.dtype) -> "ESM2":
        """Take over the tensors of transformers' `EsmModel`, one at a time; the model lies on the checkpoint's device.

        Raises:
            UserError: a tensor is missing, has another shape, or belongs to a layer beyond the configuration's.
        """

        def take(key: str, *shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
            return checkpoint.take(key, shape, dtype)

        width, expanded = config.hidden_size, config.intermediate_size
        scale = TOKEN_DROPOUT_SCALE if config.token_dropout else 1.0
        embedding = take("embeddings.word_embeddings.weight", len(TOKENS), width, dtype=torch.float32)
        state = {"embedding": (embedding * scale).to(dtype)}
        shifts = [torch.zeros(width, device=checkpoint.device)]
        for number in range(config.num_hidden_layers):
            layer, own = f"encoder.layer.{number}", f"layers.{number}"
            attention = f"{layer}.attention"
            for kind, shape in (("weight", (width, width)), ("bias", (width,))):
                parts = [take(f"{attention}.self.{part}.{kind}", *shape) for part in ("query", "key", "value")]
                state[f"{own}.qkv.{kind}"] = torch.cat(parts)
                state[f"{own}.attention_norm.{kind}"] = take(f"{attention}.LayerNorm.{kind}", width)
                state[f"{own}.feed_forward_norm.{kind}"] = take(f"{layer}.LayerNorm.{kind}", width)
            state[f"{own}.out.weight"] = take(f"{attention}.output.dense.weight", width, width)
            state[f"{own}.up.weight"] = take(f"{layer}.intermediate.dense.weight", expanded, width)
            state[f"{own}.up.bias"] = take(f"{layer}.intermediate.dense.bias", expanded)
            state[f"{own}.down.weight"] = take(f"{layer}.output.dense.weight", width, expanded)
            for module in (f"{attention}.output.dense", f"{layer}.output.dense"):
                shifts.append(shifts[-1] + take(f"{module}.bias", width, dtype=torch.float32))
        state["shifts"] = torch.stack(shifts)
        for kind in ("weight", "bias"):
            state[f"final_norm.{kind}"] = take(f"encoder.emb_layer_norm_after.{kind}", width)
        if beyond := [key for key in checkpoint.left if ".layer." in key and "rotary" not in key]:
            raise checkpoint.misfit(min(beyond))
        with torch.device("meta"):
            model = cls(config, kernel)
        model.load_state_dict(state, strict=True, assign=True)
        return model.to(checkpoint.device).eval().requires_grad_(False)

    def forward(self, batch: Batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Hidden states of the asked-for layers, each (T, D); filler slots hold no defined values.

        Args:
            batch: on the model's device.
            layers: numbers from 0 (embeddings) to `layer_count`; nothing is computed beyond the highest.
        """
        angles = batch.positions()[:, None].float() * self.inverse_frequencies
        cos, sin = angles.cos(), angles.sin()
        packing = Packing(batch.cu_seqlens, batch.longest, batch.lengths + 2)
        attend = partial(self.kernel.attend, packing=packing)
        x = F.embedding(batch.tokens.int(), self.embedding)
        room = x.new_empty(len(x) * max(3 * self.width, self.feed_forward_width))
        states = {}
        for number in range(max(layers) + 1):
            if number > 0:
                shifts = self.shifts[2 * number - 2 : 2 * number]
                self.layers[number - 1](x, room, shifts, cos, sin, attend, self.operators)
            if number == self.layer_count:
                states[number] = self.operators.layer_norm(x, self.shifts[-1], self.final_norm)
            elif number in layers:
                states[number] = (x + self.shifts[2 * number]).to(x.dtype)
        return states

    def flops(self, lengths: np.ndarray, layers: int | None = None) -> float:
        """Floating-point operations (a multiply-add is two) to embed sequences of these lengths in residues."""
        tokens = lengths.astype(np.float64) + 2
        products = 2 * (4 * self.width**2 + 2 * self.width * self.feed_forward_width)
        attention = 4 * self.width * tokens
        depth = self.layer_count if layers is None else layers
        return float((tokens * (products + attention)).sum() * depth)
