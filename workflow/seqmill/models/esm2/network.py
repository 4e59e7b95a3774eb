"""ESM-2's encoder over packed batches.

Matches transformers' `EsmModel` and fair-esm's `ESM2` for every sequence by itself, with the rotary tables in float32.
Its predecessors differ in how positions come in, and share the rest: `Encoder`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from seqmill.kernels.operators import Kernels, Operators
from seqmill.kernels.packing import Batch
from seqmill.kernels.products import product
from seqmill.models import rotary
from seqmill.models.checkpoint import Checkpoint
from seqmill.models.esm2.config import TOKENS, Config
from seqmill.models.family import Tokenizer

# Token dropout replaced 15 % x 80 % of the training tokens by a mask and scaled the rest up to make good for it.
# Without masks in the input, inference scales by what was left in training (`EsmEmbeddings`, `token_dropout`).
TOKEN_DROPOUT_SCALE = 1 - 0.15 * 0.8

# Our modules, and those of transformers' `EsmModel` whose weights they hold end to end; * is the layer.
TENSORS = {
    "layers.*.attention_norm": ("encoder.layer.*.attention.LayerNorm",),
    "layers.*.qkv": tuple(f"encoder.layer.*.attention.self.{part}" for part in ("query", "key", "value")),
    "layers.*.out": ("encoder.layer.*.attention.output.dense",),
    "layers.*.feed_forward_norm": ("encoder.layer.*.LayerNorm",),
    "layers.*.up": ("encoder.layer.*.intermediate.dense",),
    "layers.*.down": ("encoder.layer.*.output.dense",),
    "final_norm": ("encoder.emb_layer_norm_after",),
}


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
        workspace: torch.Tensor,
        shifts: torch.Tensor,
        rotate: Callable[[torch.Tensor], torch.Tensor],
        attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        operators: Operators,
    ) -> None:
        """Add the layer to `x`.

        Args:
            workspace: 1-D buffer of at least T times the widest activation, reused by the QKV and expansion products;
                all other activations then have one size, which prevents fragmentation.
            shifts: (2, D), the stream's before attention and before the feed-forward.
            rotate: what positions do to queries, keys and values, (T, 3, heads, head_dim); may overwrite them.
        """
        qkv = product(self.qkv, operators.layer_norm(x, self.attention_norm, shifts[0]), workspace)
        attended = attend(*rotate(qkv.unflatten(-1, (3, self.heads, -1))).unbind(1))
        x.addmm_(attended.flatten(-2), self.out.weight.t())
        expanded = product(self.up, operators.layer_norm(x, self.feed_forward_norm, shifts[1]), workspace)
        x.addmm_(operators.gelu(expanded), self.down.weight.t())


class Encoder(nn.Module):
    """What ESM-2 and its predecessors have in common. Implements `family.Model`.

    Attributes:
        tensors: our modules to the checkpoint's, see `Checkpoint.take_joined`.
    """

    tensors = TENSORS

    def __init__(self, config: Config, tokenizer: Tokenizer, kernels: Kernels):
        super().__init__()
        self.config, self.tokenizer, self.kernels = config, tokenizer, kernels
        width, depth = config.hidden_size, config.num_hidden_layers
        # No nn.Embedding: its initial values, though never used, make PyTorch import its compiler, which takes seconds.
        self.embedding = nn.Parameter(torch.empty(len(TOKENS), width))
        self.layers = nn.ModuleList(Layer(config) for _ in range(depth))
        self.final_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.register_buffer("shifts", torch.empty(2 * depth + 1, width))

    @classmethod
    def from_checkpoint(
        cls, config: Config, checkpoint: Checkpoint, tokenizer: Tokenizer, kernels: Kernels, dtype: torch.dtype
    ) -> Self:
        """Take over the tensors of transformers' `EsmModel`, one at a time; the model is on the checkpoint's device.

        Raises:
            UserError: a tensor is missing, has another shape, or belongs to a layer beyond the configuration's.
        """
        # Checkpoints with a language-model head have the encoder under this name.
        checkpoint.drop_prefix("esm.")
        with torch.device("meta"):
            model = cls(config, tokenizer, kernels)
        state = {**cls.embeddings(config, checkpoint, dtype), "shifts": _shifts(config, checkpoint)}
        return checkpoint.complete(
            model, state, dtype, cls.tensors, lambda key: ".layer." in key and "rotary" not in key
        )

    @classmethod
    def embeddings(cls, config: Config, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The parameters that make the first hidden state, by our names, as far as they are no modules."""
        scale = TOKEN_DROPOUT_SCALE if config.token_dropout else 1.0
        shape = (len(TOKENS), config.hidden_size)
        embedding = checkpoint.take("embeddings.word_embeddings.weight", shape, torch.float32)
        return {"embedding": (embedding * scale).to(dtype)}

    def embed(self, batch: Batch) -> torch.Tensor:
        """The first hidden state, (T, D)."""
        return F.embedding(batch.token_ids.int(), self.embedding)

    def rotation(self, batch: Batch) -> Callable[[torch.Tensor], torch.Tensor]:
        """What `Layer.forward` calls `rotate`: nothing, where positions come in by the first hidden state."""
        return lambda qkv: qkv

    def forward(self, batch: Batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Hidden states of the asked-for layers, each (T, D); padding slots hold no defined values.

        Args:
            batch: on the model's device.
            layers: numbers from 0 (embeddings) to `layer_count`; nothing is computed beyond the highest.
        """
        attention, operators = self.kernels
        rotate, attend = self.rotation(batch), partial(attention.attend, packing=batch.packing)
        x = self.embed(batch)
        workspace = x.new_empty(len(x) * max(3 * self.config.hidden_size, self.config.intermediate_size))
        states = {}
        for number in range(max(layers) + 1):
            if number > 0:
                shifts = self.shifts[2 * number - 2 : 2 * number]
                self.layers[number - 1](x, workspace, shifts, rotate, attend, operators)
            if number == self.config.layer_count:
                states[number] = operators.layer_norm(x, self.final_norm, self.shifts[-1])
            elif number in layers:
                states[number] = (x + self.shifts[2 * number]).to(x.dtype)
        return states


class ESM2(Encoder):
    """ESM-2's encoder over packed batches. Implements `family.Model`."""

    def __init__(self, config: Config, tokenizer: Tokenizer, kernels: Kernels):
        super().__init__(config, tokenizer, kernels)
        frequencies = rotary.inverse_frequencies(config.head_dim, config.rope_theta)
        self.register_buffer("inverse_frequencies", frequencies, persistent=False)

    def rotation(self, batch: Batch) -> Callable[[torch.Tensor], torch.Tensor]:
        """What `Layer.forward` calls `rotate`."""
        cos, sin = rotary.tables(batch.positions(), self.inverse_frequencies)
        return partial(self.kernels.operators.rotate, cos=cos, sin=sin)


def _shifts(config: Config, checkpoint: Checkpoint) -> torch.Tensor:
    """(2 x layers + 1, D) float32, the stream's shift before each half of a layer, and behind the last."""
    width = config.hidden_size
    shifts = [torch.zeros(width, device=checkpoint.device)]
    for number in range(config.num_hidden_layers):
        for module in ("attention.output.dense", "output.dense"):
            bias = checkpoint.take(f"encoder.layer.{number}.{module}.bias", (width,), torch.float32)
            shifts.append(shifts[-1] + bias)
    return torch.stack(shifts)
