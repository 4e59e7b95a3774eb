"""ESM-1b's and ESM-1v's encoder over packed batches: ESM-2's, with learned positions instead of rotary ones.

Matches transformers' `EsmModel` and fair-esm's `ProteinBertModel` for every sequence by itself.
"""

import torch
import torch.nn.functional as F
from torch import nn

from seqmill.kernels.operators import Kernels
from seqmill.kernels.packing import Batch
from seqmill.models.checkpoint import Checkpoint
from seqmill.models.esm1.config import FIRST_POSITION, Config
from seqmill.models.esm2.network import Encoder
from seqmill.models.family import Tokenizer


class ESM1(Encoder):
    """ESM-1b's and ESM-1v's encoder over packed batches. Implements `family.Model`.

    State 0 is what the first layer takes, as in transformers: with ESM-1b's norm of the embeddings.
    """

    tensors = Encoder.tensors | {"embedding_norm": ("embeddings.layer_norm",)}

    def __init__(self, config: Config, tokenizer: Tokenizer, kernels: Kernels):
        super().__init__(config, tokenizer, kernels)
        width = config.hidden_size
        self.positions = nn.Parameter(torch.empty(config.max_tokens, width))
        self.embedding_norm = nn.LayerNorm(width, config.layer_norm_eps) if config.emb_layer_norm_before else None

    @classmethod
    def embeddings(cls, config: Config, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """See `Encoder.embeddings`.

        Raises:
            UserError: config.json knows nothing of the norm that the checkpoint has.
        """
        if not config.emb_layer_norm_before and (unknown := "embeddings.layer_norm.weight") in checkpoint.left:
            raise checkpoint.mismatch(unknown)
        shape = (config.max_position_embeddings, config.hidden_size)
        positions = checkpoint.take("embeddings.position_embeddings.weight", shape, dtype)
        used = positions[FIRST_POSITION : FIRST_POSITION + config.max_tokens]
        return {**super().embeddings(config, checkpoint, dtype), "positions": used}

    def embed(self, batch: Batch) -> torch.Tensor:
        """The first hidden state, (T, D)."""
        # Sequences fit; the padding, which counts on as one more sequence, may be longer, and its values do not matter.
        positions = batch.positions().clamp_(max=self.config.max_tokens - 1)
        x = super().embed(batch).add_(F.embedding(positions, self.positions))
        return x if self.embedding_norm is None else self.kernels.operators.layer_norm(x, self.embedding_norm)
