"""T5's encoder over packed batches.

Matches transformers' `T5EncoderModel` for every sequence by itself.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from seqmill.errors import UserError
from seqmill.kernels.biases import DistanceTable
from seqmill.kernels.operators import Kernels, Operators
from seqmill.kernels.packing import Batch
from seqmill.kernels.products import add_product, product
from seqmill.models.checkpoint import Checkpoint
from seqmill.models.family import Tokenizer
from seqmill.models.t5.config import Config
from seqmill.models.t5.distances import buckets

# Our modules, and those of transformers' `T5EncoderModel` whose weights they hold end to end; * is the layer.
TENSORS = {
    "layers.*.attention_norm": ("encoder.block.*.layer.0.layer_norm",),
    "layers.*.qkv": tuple(f"encoder.block.*.layer.0.SelfAttention.{part}" for part in "qkv"),
    "layers.*.out": ("encoder.block.*.layer.0.SelfAttention.o",),
    "layers.*.feed_forward_norm": ("encoder.block.*.layer.1.layer_norm",),
    "layers.*.up": ("encoder.block.*.layer.1.DenseReluDense.wi",),
    "layers.*.down": ("encoder.block.*.layer.1.DenseReluDense.wo",),
    "final_norm": ("encoder.final_layer_norm",),
}
# Where it is gated, the gate comes first, as `operators.gate` wants it.
GATED = {"layers.*.up": tuple(f"encoder.block.*.layer.1.DenseReluDense.{part}" for part in ("wi_0", "wi_1"))}
# The embedding's names: files hold either or both, which are the same.
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")
BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


class Layer(nn.Module):
    """One pre-norm transformer layer without biases, added to the residual stream in place; (T, D).

    The stream is float32 in every dtype of the weights: its values, and those of `down` that are added to it, leave
    float16's range in trained models.
    """

    def __init__(self, config: Config):
        super().__init__()
        width = config.d_model
        self.heads, self.activation = config.num_heads, config.activation
        self.attention_norm = nn.RMSNorm(width, config.layer_norm_epsilon)
        self.qkv = nn.Linear(width, 3 * config.inner, bias=False)
        self.out = nn.Linear(config.inner, width, bias=False)
        self.feed_forward_norm = nn.RMSNorm(width, config.layer_norm_epsilon)
        self.up = nn.Linear(width, config.expanded, bias=False)
        self.down = nn.Linear(config.d_ff, width, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        workspace: torch.Tensor,
        attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        operators: Operators,
    ) -> None:
        """Add the layer to `x`, float32.

        Args:
            workspace: 1-D buffer in the weights' dtype of at least T times the widest activation, reused by the QKV
                and expansion products; all other activations then have few sizes, which prevents fragmentation.
        """
        qkv = product(self.qkv, operators.rms_norm(x, self.attention_norm), workspace)
        attended = attend(*qkv.unflatten(-1, (3, self.heads, -1)).unbind(1))
        add_product(x, attended.flatten(-2), self.out.weight)
        expanded = product(self.up, operators.rms_norm(x, self.feed_forward_norm), workspace)
        activated = expanded.relu_() if self.activation == "relu" else operators.gate(expanded, self.activation)
        add_product(x, activated, self.down.weight)


class T5Encoder(nn.Module):
    """A T5's encoder over packed batches. Implements `family.Model`."""

    def __init__(self, config: Config, tokenizer: Tokenizer, kernels: Kernels):
        super().__init__()
        self.config, self.tokenizer, self.kernels = config, tokenizer, kernels
        # No nn.Embedding: its initial values, though never used, make PyTorch import its compiler, which takes seconds.
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.final_norm = nn.RMSNorm(config.d_model, config.layer_norm_epsilon)
        # The first layer has the attention bias of all of them. One number a head and distance, always float32.
        self.register_buffer("distances", torch.empty(config.num_heads, 0), persistent=False)

    @classmethod
    def from_checkpoint(
        cls, config: Config, checkpoint: Checkpoint, tokenizer: Tokenizer, kernels: Kernels, dtype: torch.dtype
    ) -> "T5Encoder":
        """Take over the encoder of a T5, one tensor at a time; the model is on the checkpoint's device.

        A decoder's tensors are not read.

        Raises:
            UserError: there is no encoder, or a tensor is missing, has another shape, or belongs to a layer beyond the
                configuration's.
        """
        if not any(key.startswith("encoder.block.") for key in checkpoint.left):
            raise UserError(f"model {checkpoint.name}: the checkpoint holds no encoder of a T5; get the whole model")
        with torch.device("meta"):
            model = cls(config, tokenizer, kernels)
        table = TENSORS | (GATED if config.is_gated else {})
        embedding = next((key for key in EMBEDDINGS if key in checkpoint.left), EMBEDDINGS[0])
        state = {"embedding": checkpoint.take(embedding, (config.vocab_size, config.d_model), dtype)}
        model.distances = _distances(config, checkpoint)
        return checkpoint.complete(model, state, dtype, table, lambda key: key.startswith("encoder.block."))

    def forward(self, batch: Batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Hidden states of the asked-for layers, each (T, D); padding slots hold no defined values.

        The last layer's are normalised and in the weights' dtype; the others are the stream itself, float32, which is
        what transformers numbers so.

        Args:
            batch: on the model's device.
            layers: numbers from 0 (embeddings) to `layer_count`; nothing is computed beyond the highest.
        """
        attention, operators = self.kernels
        needs = self.config.attention
        attend = partial(attention.attend, packing=batch.packing, scale=needs.scale, bias=DistanceTable(self.distances))
        embedded = F.embedding(batch.token_ids.int(), self.embedding)
        workspace = embedded.new_empty(len(embedded) * max(3 * self.config.inner, self.config.expanded))
        x = embedded.float()
        states = {}
        for number in range(max(layers) + 1):
            if number > 0:
                self.layers[number - 1](x, workspace, attend, operators)
            if number == self.config.layer_count:
                states[number] = operators.rms_norm(x, self.final_norm)
            elif number in layers:
                states[number] = x.clone()
        return states


def _distances(config: Config, checkpoint: Checkpoint) -> torch.Tensor:
    """(heads, 2 R + 1) float32, the attention bias by key - query from -R to R; beyond, the last holds."""
    count, heads = config.relative_attention_num_buckets, config.num_heads
    by_bucket = checkpoint.take(BIAS, (count, heads), torch.float32)
    of_distance = buckets(count, config.relative_attention_max_distance).to(checkpoint.device)
    return by_bucket[of_distance].t().contiguous()
