"""DNABERT's encoder over packed batches.

Matches bert_layers.py of DNABERT-2 and DNABERT-S (MAGICS-LAB/DNABERT_S, evaluate/model_codes) for every sequence by
itself, with attention in float32.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from seqmill.kernels.biases import Alibi, alibi_slopes
from seqmill.kernels.operators import Kernels, Operators
from seqmill.kernels.packing import Batch
from seqmill.kernels.products import product
from seqmill.models.checkpoint import Checkpoint
from seqmill.models.dnabert.config import Config, refuse_plain_bert
from seqmill.models.family import Tokenizer

# Our modules, and those of the checkpoint whose weights they hold; * is the layer.
TENSORS = {
    "embedding_norm": ("embeddings.LayerNorm",),
    "layers.*.qkv": ("encoder.layer.*.attention.self.Wqkv",),
    "layers.*.out": ("encoder.layer.*.attention.output.dense",),
    "layers.*.attention_norm": ("encoder.layer.*.attention.output.LayerNorm",),
    "layers.*.up": ("encoder.layer.*.mlp.gated_layers",),
    "layers.*.down": ("encoder.layer.*.mlp.wo",),
    "layers.*.feed_forward_norm": ("encoder.layer.*.mlp.layernorm",),
}


class Layer(nn.Module):
    """One post-norm transformer layer: what it adds is normalised together with what it is added to; (T, D)."""

    def __init__(self, config: Config):
        super().__init__()
        width, expanded = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, config.layer_norm_eps)
        # The first half goes through GELU and is the gate of the second.
        self.up = nn.Linear(width, 2 * expanded, bias=False)
        self.down = nn.Linear(expanded, width)
        self.feed_forward_norm = nn.LayerNorm(width, config.layer_norm_eps)

    def forward(
        self,
        x: torch.Tensor,
        workspace: torch.Tensor,
        added: torch.Tensor,
        attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        operators: Operators,
    ) -> torch.Tensor:
        """The layer's states, which may overwrite `x`.

        Args:
            workspace: 1-D buffer of at least T times the widest activation, reused by the QKV and expansion products.
            added: (T, D) buffer for what is added to the stream.
        """
        qkv = product(self.qkv, x, workspace)
        attended = attend(*qkv.unflatten(-1, (3, self.heads, -1)).unbind(1))
        torch.mm(attended.flatten(-2), self.out.weight.t(), out=added)
        x = operators.add_norm(x, added, self.out.bias, self.attention_norm)
        expanded = product(self.up, x, workspace)
        torch.mm(operators.gate(expanded, "gelu"), self.down.weight.t(), out=added)
        return operators.add_norm(x, added, self.down.bias, self.feed_forward_norm)


class DNABERT(nn.Module):
    """DNABERT's encoder over packed batches. Implements `family.Model`."""

    def __init__(self, config: Config, tokenizer: Tokenizer, kernels: Kernels):
        super().__init__()
        self.config, self.tokenizer, self.kernels = config, tokenizer, kernels
        width = config.hidden_size
        # No nn.Embedding: its initial values, though never used, make PyTorch import its compiler, which takes seconds.
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, width))
        self.embedding_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        # Always float32: in half precision distances would be rounded. Made on the CPU, because under the meta device they
        # would have no values.
        slopes = alibi_slopes(config.num_attention_heads)
        self.register_buffer("slopes", slopes, persistent=False)

    @classmethod
    def from_checkpoint(
        cls, config: Config, checkpoint: Checkpoint, tokenizer: Tokenizer, kernels: Kernels, dtype: torch.dtype
    ) -> "DNABERT":
        """Take over the tensors of a checkpoint, one at a time; the model is on the checkpoint's device.

        Raises:
            UserError: it is a plain BERT; a tensor is missing, has another shape, or belongs to a layer beyond the
                configuration's.
        """
        refuse_plain_bert(checkpoint.left, checkpoint.name)
        # Checkpoints with a language-model head, as DNABERT-2's, have the encoder under this name.
        checkpoint.drop_prefix("bert.")
        with torch.device("meta"):
            model = cls(config, tokenizer, kernels)
        width = config.hidden_size
        words = checkpoint.take("embeddings.word_embeddings.weight", (config.vocab_size, width), torch.float32)
        # Row 0 of the token types is added to every token, so it can be added to the words once.
        types = checkpoint.take("embeddings.token_type_embeddings.weight", (2, width), torch.float32)
        state = {"embedding": (words + types[0]).to(dtype)}
        return checkpoint.complete(model, state, dtype, TENSORS, lambda key: key.startswith("encoder."))

    def forward(self, batch: Batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """Hidden states of the asked-for layers, each (T, D); padding slots hold no defined values.

        Args:
            batch: on the model's device.
            layers: numbers from 0 (embeddings, normalised) to `layer_count`; nothing is computed beyond the highest.
        """
        attention, operators = self.kernels
        attend = partial(attention.attend, packing=batch.packing, bias=Alibi(self.slopes))
        x = operators.layer_norm(F.embedding(batch.token_ids.int(), self.embedding), self.embedding_norm)
        workspace = x.new_empty(len(x) * max(3 * self.config.hidden_size, 2 * self.config.intermediate_size))
        added = torch.empty_like(x)
        states = {}
        for number in range(max(layers) + 1):
            if number > 0:
                # The layer may write over the states that it is given.
                x = self.layers[number - 1](
                    x.clone() if number - 1 in states else x, workspace, added, attend, operators
                )
            if number in layers:
                states[number] = x
        return states
