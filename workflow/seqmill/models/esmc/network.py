"""ESM-C's encoder over packed batches.

Matches transformers' `EsmcModel` and EvolutionaryScale's `ESMC` (package esm) for every sequence by itself, with the
rotary tables in float32.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from seqmill.kernels.operators import Kernels, Operators
from seqmill.kernels.packing import Batch
from seqmill.kernels.products import product
from seqmill.models import rotary
from seqmill.models.checkpoint import Checkpoint
from seqmill.models.esmc import layouts
from seqmill.models.esmc.config import EMBEDDING_ROWS, Config
from seqmill.models.family import Tokenizer


class Layer(nn.Module):
    """One pre-norm transformer layer, added to the residual stream in place; (T, D).

    The residual's divisor is in the weights of `out` and `down`, which leaves the addition to the matrix products.
    """

    def __init__(self, config: Config):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.query_norm = nn.LayerNorm(width, bias=False)
        self.key_norm = nn.LayerNorm(width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * config.expanded, bias=False)
        self.down = nn.Linear(config.expanded, width, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        workspace: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        operators: Operators,
    ) -> None:
        """Add the layer to `x`.

        Args:
            workspace: 1-D buffer of at least T times the widest activation, reused by the QKV and expansion products;
                all other activations then have one size, which prevents fragmentation.
            cos, sin: (T, head_dim / 2) float32.
        """
        qkv = product(self.qkv, operators.layer_norm(x, self.attention_norm), workspace)
        qkv = operators.norm_rotate(qkv.unflatten(-1, (3, self.heads, -1)), self.query_norm, self.key_norm, cos, sin)
        x.addmm_(attend(*qkv.unbind(1)).flatten(-2), self.out.weight.t())
        expanded = product(self.up, operators.layer_norm(x, self.feed_forward_norm), workspace)
        x.addmm_(operators.gate(expanded, "silu"), self.down.weight.t())


class ESMC(nn.Module):
    """ESM-C's encoder over packed batches. Implements `family.Model`."""

    def __init__(self, config: Config, tokenizer: Tokenizer, kernels: Kernels):
        super().__init__()
        self.config, self.tokenizer, self.kernels = config, tokenizer, kernels
        # No nn.Embedding: its initial values, though never used, make PyTorch import its compiler, which takes seconds.
        self.embedding = nn.Parameter(torch.empty(EMBEDDING_ROWS, config.width))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layer_count))
        self.final_norm = nn.LayerNorm(config.width, bias=False)
        frequencies = rotary.inverse_frequencies(config.head_dim, config.rope_theta)
        self.register_buffer("inverse_frequencies", frequencies, persistent=False)

    @classmethod
    def from_checkpoint(
        cls, config: Config, checkpoint: Checkpoint, tokenizer: Tokenizer, kernels: Kernels, dtype: torch.dtype
    ) -> "ESMC":
        """Take over a checkpoint's tensors, one at a time; the model is on the checkpoint's device.

        Raises:
            UserError: a tensor is missing, has another shape, or belongs to a layer beyond the configuration's.
        """
        checkpoint.rename(layouts.plain)
        layout = layouts.layout(checkpoint.left)
        with torch.device("meta"):
            model = cls(config, tokenizer, kernels)
        embedding = checkpoint.take(f"{layout['embedding'][0]}.weight", tuple(model.embedding.shape), dtype)
        state = {"embedding": embedding}
        for name, empty in model.state_dict().items():
            if name.endswith((".out.weight", ".down.weight")):
                # Divided in float32, so that the result is rounded once.
                added = checkpoint.take_joined(name, tuple(empty.shape), torch.float32, layout)
                state[name] = (added / config.residual_divisor).to(dtype)
        return checkpoint.complete(model, state, dtype, layout, layouts.is_of_a_layer)

    def forward(self, batch: Batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Hidden states of the asked-for layers, each (T, D); padding slots hold no defined values.

        As transformers' `hidden_states`: the embeddings, the stream after each layer, and of the last layer behind the
        last norm (what EvolutionaryScale calls `embeddings`; its own last hidden state is before the norm).

        Args:
            batch: on the model's device.
            layers: numbers from 0 (embeddings) to `layer_count`; nothing is computed beyond the highest.
        """
        attention, operators = self.kernels
        cos, sin = rotary.tables(batch.positions(), self.inverse_frequencies)
        attend = partial(attention.attend, packing=batch.packing)
        x = F.embedding(batch.token_ids.int(), self.embedding)
        workspace = x.new_empty(len(x) * max(3 * self.config.width, 2 * self.config.expanded))
        states = {}
        for number in range(max(layers) + 1):
            if number > 0:
                self.layers[number - 1](x, workspace, cos, sin, attend, operators)
            if number == self.config.layer_count:
                states[number] = operators.layer_norm(x, self.final_norm)
            elif number in layers:
                states[number] = x.clone()
        return states
