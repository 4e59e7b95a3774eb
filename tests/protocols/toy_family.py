"""A made-up family that shares as little as possible with ESM-2: what only ESM-2 needs must not be needed of it.

Two letters a token, no special token before a sequence and one after it, token ids of 16 bits, an alphabet of its own,
heads that are not the width divided among them, unscaled attention, no biases, no positions; its config.json calls it
"bert", so that its tensors have to tell.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from seqmill.errors import UserError
from seqmill.inputs.alphabet import Alphabet
from seqmill.inputs.sequences import Sequences
from seqmill.kernels.needs import AttentionNeeds
from seqmill.models.family import CostInTokens, Family

ALPHABET = Alphabet(
    b"HPCN",
    b"N",
    "a bead",
    "beads",
    lambda sequence: "looks like a protein; this model embeds beads" if b"MK" in sequence else None,
)
# Two letters a token; of an odd number the last stands alone. Then the token after a sequence, and padding.
PAIRS = [a + b for a in "HPCN" for b in ("", *"HPCN")]
END, PADDING = 300, 301


class PairTokenizer:
    dtype = np.dtype(np.uint16)
    leading, trailing, padding = 0, 1, PADDING
    single_letters = False

    def tokens(self, sequences: Sequences) -> "PairTokens":
        return PairTokens(sequences)


class PairTokens:
    def __init__(self, sequences: Sequences):
        self.sequences = sequences
        self.counts = -(-np.diff(sequences.offsets) // 2) + 1

    def write(self, first: int, last: int, out: np.ndarray) -> None:
        slot = 0
        for start, stop in itertools.pairwise(self.sequences.offsets[first : last + 1].tolist()):
            text = self.sequences.letters[start:stop].tobytes().decode()
            ids = [*(PAIRS.index(text[i : i + 2]) for i in range(0, len(text), 2)), END]
            out[slot : slot + len(ids)] = ids
            slot += len(ids)

    def starts(self, first: int, last: int) -> np.ndarray:
        counts = (self.counts[first:last] - 1).tolist()
        return np.concatenate([2 * np.arange(count, dtype=np.int32) for count in counts])


@dataclass(frozen=True)
class Config:
    layer_count: int
    width: int
    heads: int
    head_dim: int

    operators = ("layer_norm", "gelu", "mean")
    half = "float16"
    max_tokens = None

    @property
    def attention(self) -> AttentionNeeds:
        return AttentionNeeds(self.heads, self.head_dim, scale=1.0)

    @property
    def matrices(self) -> int:
        return 4 * self.width * self.heads * self.head_dim

    @property
    def parameter_count(self) -> int:
        return 302 * self.width + self.layer_count * self.matrices


class Toy(nn.Module):
    def __init__(self, config, tokenizer, kernels, tensors):
        super().__init__()
        self.config, self.tokenizer, self.kernels = config, tokenizer, kernels
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(value, requires_grad=False) for name, value in tensors.items()}
        )

    def forward(self, batch, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        attention, operators = self.kernels
        needs, norm = self.config.attention, nn.LayerNorm(self.config.width).to(self.weights["embedding"])
        x = F.embedding(batch.token_ids.int(), self.weights["embedding"])
        states = {0: x}
        for number in range(1, self.config.layer_count + 1):
            qkv = operators.layer_norm(x, norm) @ self.weights[f"qkv_{number}"]
            parts = qkv.unflatten(-1, (3, needs.heads, needs.head_dim)).unbind(1)
            attended = attention.attend(*parts, batch.packing, needs.scale).flatten(-2)
            x = x + operators.gelu(attended @ self.weights[f"out_{number}"])
            states[number] = x
        return {number: states[number] for number in layers}

    def flops(self, token_counts: np.ndarray, layers: int | None = None) -> float:
        return float(token_counts.sum()) * 2 * self.config.parameter_count


def accepts(fields: Mapping[str, Any], tensor_names: Callable[[], set[str]]) -> bool:
    return fields["model_type"] == "bert" and "toy.embedding" in tensor_names()


def read_config(fields: Mapping[str, Any], name: str, _: Callable[[], Any]) -> Config:
    if fields.get("layers", 0) < 1:
        raise UserError(f"model {name}: a toy needs layers")
    return Config(fields["layers"], fields["width"], fields["heads"], fields["head_dim"])


def build(config, checkpoint, tokenizer, kernels, dtype) -> Toy:
    checkpoint.drop_prefix("toy.")
    inner = config.heads * config.head_dim
    tensors = {"embedding": checkpoint.take("embedding", (302, config.width), dtype)}
    for number in range(1, config.layer_count + 1):
        tensors[f"qkv_{number}"] = checkpoint.take(f"qkv_{number}", (config.width, 3 * inner), dtype)
        tensors[f"out_{number}"] = checkpoint.take(f"out_{number}", (inner, config.width), dtype)
    return Toy(config, tokenizer, kernels, tensors).to(checkpoint.device).eval()


FAMILY = Family(
    "the toy family",
    accepts,
    ALPHABET,
    CostInTokens(math.inf, 1, 2.0),
    read_config,
    lambda _, __: PairTokenizer(),
    build,
    lambda _, __: "none",
    files=("*.json",),
)


def write(folder: Path, layers: int = 2, width: int = 20, heads: int = 3, head_dim: int = 4) -> Path:
    """A checkpoint with random weights."""
    folder.mkdir(parents=True)
    fields = {"model_type": "bert", "layers": layers, "width": width, "heads": heads, "head_dim": head_dim}
    (folder / "config.json").write_text(json.dumps(fields))
    generator = torch.Generator().manual_seed(0)
    shapes = {"embedding": (302, width)}
    for number in range(1, layers + 1):
        shapes |= {f"qkv_{number}": (width, 3 * heads * head_dim), f"out_{number}": (heads * head_dim, width)}
    tensors = {f"toy.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@torch.inference_mode()
def reference(model: Toy, sequence: bytes, layer: int) -> torch.Tensor:
    """States of one sequence's tokens, the one after it included, with nothing of seqmill's kernels."""
    text = sequence.decode()
    ids = [*(PAIRS.index(text[i : i + 2]) for i in range(0, len(text), 2)), END]
    x, needs = model.weights["embedding"][ids], model.config.attention
    for number in range(1, layer + 1):
        normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        qkv = (normed @ model.weights[f"qkv_{number}"]).unflatten(-1, (3, needs.heads, needs.head_dim))
        q, k, v = (part.transpose(0, 1) for part in qkv.unbind(1))
        attended = ((q @ k.transpose(1, 2)).softmax(-1) @ v).transpose(0, 1).flatten(-2)
        x = x + F.gelu(attended @ model.weights[f"out_{number}"])
    return x
