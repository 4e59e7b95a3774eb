"""DNABERT-S with standard attention on padded batches, for its speed: the way of VirNucPro's patch of the original.

The layers work on unpadded tokens; attention pads them again and gives PyTorch's SDPA a float mask, the ALiBi bias plus
-10,000 for padding, (S, heads, longest, longest), cast in every layer to the dtype of the queries. The formulas are
those of the original's bert_layers.py (MAGICS-LAB/DNABERT_S), the mask that of virnucpro/models/dnabert_flash.py
(broadinstitute/virnucpro-broad); the weights are random.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY, LAYERS, WIDTH, HEADS, INNER, EPS = 4096, 12, 768, 12, 3072, 1e-12
MASKED = -10_000.0


def slopes(heads: int) -> torch.Tensor:
    """(heads,) float32: ALiBi's slopes (Press et al. 2022, arXiv:2108.12409)."""
    power = 2 ** int(math.log2(heads))
    own = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    between = [2 ** (-8 * (2 * k - 1) / (2 * power)) for k in range(1, heads - power + 1)]
    return torch.tensor(own + between)


def bias(mask: torch.Tensor, heads: int) -> torch.Tensor:
    """(S, heads, longest, longest) float32 for a mask (S, longest) of tokens."""
    places = torch.arange(mask.shape[1], device=mask.device)
    distances = (places[:, None] - places).abs()
    alibi = -slopes(heads).to(mask.device)[:, None, None] * distances
    return alibi + (1 - mask.float())[:, None, None] * MASKED


class Layer(nn.Module):
    """One post-norm layer over unpadded tokens, (T, D)."""

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gated, self.down = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)

    def forward(self, x: torch.Tensor, places: torch.Tensor, shape: torch.Size, bias: torch.Tensor) -> torch.Tensor:
        """The layer's output.

        Args:
            places: (T,) of the tokens among the padded ones.
            shape: (S, longest).
        """
        qkv = self.qkv(x)
        padded = qkv.new_zeros(shape.numel(), qkv.shape[1]).index_copy_(0, places, qkv)
        query, key, value = padded.view(*shape, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        attended = attended.transpose(1, 2).flatten(2).flatten(0, 1)[places]
        x = self.attention_norm(self.out(attended) + x)
        gate, factor = self.gated(x).chunk(2, -1)
        return self.feed_forward_norm(self.down(F.gelu(gate) * factor) + x)


class PaddedDNABERT(nn.Module):
    """DNABERT-S of its real size, with random weights."""

    def __init__(self, layers: int = LAYERS, width: int = WIDTH, heads: int = HEADS, inner: int = INNER):
        super().__init__()
        self.heads = heads
        self.words, self.types = nn.Embedding(VOCABULARY, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, EPS)
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(S, longest, D): the last hidden state, zero where there is padding.

        Args:
            ids, mask: (S, longest) int64.
        """
        x = self.norm(self.words(ids) + self.types(torch.zeros_like(ids))).flatten(0, 1)
        places = mask.flatten().nonzero().squeeze(1)
        x, added = x[places], bias(mask, self.heads)
        for layer in self.layers:
            x = layer(x, places, ids.shape, added)
        return x.new_zeros(ids.numel(), x.shape[1]).index_copy_(0, places, x).view(*ids.shape, -1)
