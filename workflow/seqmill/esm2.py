"""ESM-2 over packed batches (Lin et al. 2023, doi:10.1126/science.ade2574).

Matches transformers' `EsmModel` and fair-esm's `ESM2` for every sequence by itself, with the rotary tables in float32.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import EsmConfig, EsmModel

from seqmill.attention import Kernel, Packing
from seqmill.batches import Batch, Vocabulary
from seqmill.errors import UserError

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


def check_config(config: EsmConfig, name: str) -> None:
    """Refuse relatives of ESM-2 that the packed forward does not compute.

    Raises:
        UserError: ESM-1b-like positions or embeddings, ESMFold, another vocabulary.
    """
    supported = (
        config.position_embedding_type == "rotary"
        and not config.emb_layer_norm_before
        and not config.is_folding_model
        and getattr(config, "hidden_act", "gelu") == "gelu"
        and config.vocab_size == len(TOKENS)
    )
    if not supported:
        raise UserError(f"model {name}: is of the ESM family, but no ESM-2; use an ESM-2 checkpoint")


class Layer(nn.Module):
    """One pre-norm transformer layer; (T, D) to (T, D)."""

    def __init__(self, config: EsmConfig, kernel: Kernel):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.attend = kernel.attend
        self.attention_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.up = nn.Linear(width, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, width)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, packing: Packing) -> torch.Tensor:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key = rotate(qkv[:, :2], cos, sin).unbind(1)
        attended = self.attend(query, key, qkv[:, 2], packing)
        x = x + self.out(attended.flatten(-2))
        return x + self.down(F.gelu(self.up(self.feed_forward_norm(x))))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021) in float32, halves paired as in `EsmModel`.

    Args:
        x: (T, 2, heads, head_dim), queries and keys.
        cos, sin: (T, 1, 1, head_dim / 2), float32.
    """
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat(turned, dim=-1).to(x.dtype)


class ESM2(nn.Module):
    """ESM-2's encoder over packed batches.

    Attributes:
        layer_count: transformer layers; hidden states are numbered 0 (embeddings) to this (after the final norm).
        width: hidden size D.
    """

    vocabulary = vocabulary()

    def __init__(self, config: EsmConfig, kernel: Kernel):
        super().__init__()
        self.layer_count = config.num_hidden_layers
        self.width = config.hidden_size
        self.feed_forward_width = config.intermediate_size
        head_dim = config.hidden_size // config.num_attention_heads
        self.embedding = nn.Embedding(config.vocab_size, self.width)
        self.layers = nn.ModuleList(Layer(config, kernel) for _ in range(self.layer_count))
        self.final_norm = nn.LayerNorm(self.width, config.layer_norm_eps)
        # In float32 always: rounded to half precision they ruin long positions. Weights come in their dtype, so the model
        # is moved between devices only. Made on the CPU, because under the meta device they would have no values.
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
        self.register_buffer("inverse_frequencies", 1.0 / config.rope_theta**exponents, persistent=False)

    @classmethod
    def from_transformers(cls, source: EsmModel, kernel: Kernel) -> "ESM2":
        """Take over the weights of transformers' model, in their dtype; the source is left empty to save memory."""
        config = source.config
        with torch.device("meta"):
            model = cls(config, kernel)
        scale = TOKEN_DROPOUT_SCALE if config.token_dropout else 1.0
        embedding = source.embeddings.word_embeddings.weight
        state = {"embedding.weight": (embedding.float() * scale).to(embedding.dtype)}
        for number, layer in enumerate(source.encoder.layer):
            attention, prefix = layer.attention.self, f"layers.{number}"
            modules = {
                "attention_norm": layer.attention.LayerNorm,
                "out": layer.attention.output.dense,
                "feed_forward_norm": layer.LayerNorm,
                "up": layer.intermediate.dense,
                "down": layer.output.dense,
            }
            for kind in ("weight", "bias"):
                parts = [getattr(part, kind).data for part in (attention.query, attention.key, attention.value)]
                state[f"{prefix}.qkv.{kind}"] = torch.cat(parts)
                state |= {f"{prefix}.{name}.{kind}": getattr(module, kind).data for name, module in modules.items()}
            source.encoder.layer[number] = nn.Identity()
        final = source.encoder.emb_layer_norm_after
        state |= {"final_norm.weight": final.weight.data, "final_norm.bias": final.bias.data}
        model.load_state_dict(state, strict=True, assign=True)
        return model.eval().requires_grad_(False)

    def forward(self, batch: Batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Hidden states of the asked-for layers, each (T, D); filler slots hold no defined values.

        Args:
            batch: on the model's device.
            layers: numbers from 0 (embeddings) to `layer_count`; nothing is computed beyond the highest.
        """
        angles = batch.positions[:, None, None, None].float() * self.inverse_frequencies
        cos, sin = angles.cos(), angles.sin()
        packing = Packing(batch.cu_seqlens, _round_up(batch.longest), batch.lengths + 2)
        x = self.embedding(batch.tokens.int())
        states = {0: x}
        for number, layer in enumerate(self.layers[: max(layers)], 1):
            x = layer(x, cos, sin, packing)
            if number in layers:
                states[number] = x
        if self.layer_count in layers:
            states[self.layer_count] = self.final_norm(x)
        return {number: states[number] for number in layers}

    def compile_layers(self, on: bool = True) -> None:
        """Compile each layer in place (one graph serves all), or go back to eager code."""
        for layer in self.layers:
            layer._compiled_call_impl = None
            if on:
                layer.compile()

    def flops(self, lengths: np.ndarray, layers: int | None = None) -> float:
        """Floating-point operations (a multiply-add is two) to embed sequences of these lengths in residues."""
        tokens = lengths.astype(np.float64) + 2
        products = 2 * (4 * self.width**2 + 2 * self.width * self.feed_forward_width)
        attention = 4 * self.width * tokens
        depth = self.layer_count if layers is None else layers
        return float((tokens * (products + attention)).sum() * depth)


def _round_up(longest: int) -> int:
    """The next power of two from 128: few values, so compiled code sees few."""
    return max(128, 1 << (longest - 1).bit_length())
