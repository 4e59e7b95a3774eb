"""Sizes and tokens of ESM-C (ESM Cambrian; ESM Team 2024, evolutionaryscale.ai/blog/esm-cambrian). Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from seqmill.errors import UserError
from seqmill.kernels.needs import AttentionNeeds
from seqmill.models.esm2.config import TOKENS as ESM2_TOKENS
from seqmill.models.family import MAX_LAYERS, Shapes, are_sizes, wrong_sizes
from seqmill.models.tokenizers import LetterTokenizer

# ESM-2's, with a chain break where ESM-2 has a token without meaning. The embedding has rows that no token uses.
TOKENS = [*ESM2_TOKENS[:31], "|", "<mask>"]
EMBEDDING_ROWS = 64

# Each size under the name of today (transformers) and of Biohub's first release.
SPELLINGS = {
    "layer_count": ("num_hidden_layers", "n_layers"),
    "width": ("hidden_size", "d_model"),
    "heads": ("num_attention_heads", "n_heads"),
}
# Of every published model; files without config.json do not say.
HEAD_DIM = 64

BIOHUB, EVOLUTIONARYSCALE = "Biohub", "EvolutionaryScale"
# EvolutionaryScale published two models, each under a licence of its own.
CAMBRIAN = {960: "EvolutionaryScale Cambrian Open License", 1152: "EvolutionaryScale Cambrian Non-Commercial License"}


def tokenizer(_: Path | None = None, __: "Config | None" = None) -> LetterTokenizer:
    """A token per residue between `<cls>` and `<eos>`; the same for every checkpoint."""
    return LetterTokenizer(TOKENS, "<unk>", "<pad>", before=["<cls>"], after=["<eos>"])


@dataclass(frozen=True)
class Config:
    """The sizes of one ESM-C.

    It was trained on sequences of up to 2,048 tokens. Rotary positions go on behind them, so there is no limit
    (`max_tokens` is None), but nobody vouches for longer ones.

    Attributes:
        heads: of attention.
        expanded: width within the feed-forward, behind its gate.
        rope_theta: base of the rotary frequencies.
        release: who published this form of the weights, which decides their licence.
    """

    layer_count: int
    width: int
    heads: int
    expanded: int
    rope_theta: float = 10_000.0
    release: str = BIOHUB

    operators = ("layer_norm", "norm_rotate", "gate", "mean")
    half = "bfloat16"
    max_tokens = None

    @classmethod
    def read(cls, fields: Mapping[str, Any], name: str, shapes: Shapes) -> Self:
        """Take the sizes from config.json, or from the tensors where there is none, as EvolutionaryScale publishes it.

        Raises:
            UserError: another vocabulary, activation or kind of positions; sizes missing or senseless.
        """
        if not fields["model_type"]:
            if not _make_sense(sizes := _sizes_of_tensors(shapes())):
                raise UserError(f"model {name}: its tensors do not have the sizes of an ESM-C's; get them again")
            return cls(**sizes, release=EVOLUTIONARYSCALE)
        rope = fields.get("rope_parameters") or {}
        supported = (
            fields.get("vocab_size") == EMBEDDING_ROWS
            and fields.get("hidden_act", "silu") == "silu"
            and isinstance(rope, dict)
            and rope.get("rope_type", "default") == "default"
        )
        if not supported:
            raise UserError(f"model {name}: is of type esmc, but not a published ESM-C; use one of these")
        sizes = _sizes_of_fields(fields)
        theta = rope.get("rope_theta", fields.get("rope_theta", cls.rope_theta))
        if not _make_sense(sizes) or type(theta) not in (int, float) or not 0 < theta < 1e30:
            raise wrong_sizes(name)
        return cls(**sizes, rope_theta=float(theta))

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def attention(self) -> AttentionNeeds:
        return AttentionNeeds(self.heads, self.head_dim)

    @property
    def residual_divisor(self) -> float:
        """What each half of a layer is divided by before it is added to the stream: 1 for 36 layers."""
        return math.sqrt(self.layer_count / 36)

    @property
    def matrices(self) -> int:
        """Numbers in the matrices of a layer; see `family.Config`."""
        return self.width * (4 * self.width + 3 * self.expanded)

    @property
    def parameter_count(self) -> int:
        """Numbers in the encoder's weights: what has to fit before anything is loaded."""
        # Two norms with biases, and those of queries and keys without.
        layer = self.matrices + 6 * self.width
        return self.layer_count * layer + EMBEDDING_ROWS * self.width + self.width


def licence(config: Config, _: str) -> str:
    """Of the weights: Biohub's release has another one than EvolutionaryScale's of the same numbers."""
    if config.release == BIOHUB:
        return "MIT (Biohub's release)"
    return CAMBRIAN.get(config.width, "EvolutionaryScale's")


def _sizes_of_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {size: fields.get(today, fields.get(before)) for size, (today, before) in SPELLINGS.items()}
    expanded = fields.get("intermediate_size")
    if expanded is None and type(width := sizes["width"]) is int:
        # 8/3 of the width: with the gate, as many numbers as four times the width without. Rounded up to 256.
        expanded = -(-8 * width // (3 * 256)) * 256
    return {**sizes, "expanded": expanded}


def _sizes_of_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width = _columns(shapes.get("embed.weight", ()))
    expanded = _columns(shapes.get("transformer.blocks.0.ffn.3.weight", ()))
    layers = sum(name.endswith(".attn.out_proj.weight") for name in shapes)
    heads = width // HEAD_DIM if width % HEAD_DIM == 0 else 0
    return {"layer_count": layers, "width": width, "heads": heads, "expanded": expanded}


def _columns(shape: tuple[int, ...]) -> int:
    """Of a matrix; 0, which makes no sense, of anything else."""
    return shape[1] if len(shape) == 2 else 0


def _make_sense(sizes: Mapping[str, Any]) -> bool:
    if not are_sizes(sizes.values()):
        return False
    return (
        sizes["layer_count"] <= MAX_LAYERS
        and sizes["width"] % sizes["heads"] == 0
        and sizes["width"] // sizes["heads"] % 2 == 0
    )
