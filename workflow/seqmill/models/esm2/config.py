"""ESM-2's sizes and tokens (Lin et al. 2023, doi:10.1126/science.ade2574). Imports no torch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from seqmill.errors import UserError
from seqmill.kernels.needs import AttentionNeeds
from seqmill.models.family import MAX_LAYERS, Shapes, are_sizes, wrong_sizes
from seqmill.models.tokenizers import LetterTokenizer

# The order of fair-esm's `Alphabet` and of every ESM-2 checkpoint's vocab.txt.
TOKENS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]


def tokenizer(_: Path | None = None, __: "Config | None" = None) -> LetterTokenizer:
    """A token per residue between `<cls>` and `<eos>`; the same for every checkpoint."""
    return LetterTokenizer(TOKENS, "<unk>", "<pad>", before=["<cls>"], after=["<eos>"])


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

    operators = ("layer_norm", "rotate", "gelu", "mean")
    half = "bfloat16"
    max_tokens = None

    @classmethod
    def read(cls, fields: Mapping[str, Any], name: str, _: Shapes | None = None) -> "Config":
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
            raise UserError(f"model {name}: is of the ESM family, but not an ESM-2; use an ESM-2 checkpoint")
        return cls._of(fields, name)

    @classmethod
    def _of(cls, fields: Mapping[str, Any], name: str) -> Self:
        """The fields that the class has."""
        own = {field.name: fields[field.name] for field in dataclasses.fields(cls) if field.name in fields}
        if not cls._makes_sense(own):
            raise wrong_sizes(name)
        return cls(**own)

    @classmethod
    def _makes_sense(cls, own: dict[str, Any]) -> bool:
        width, heads = own.get("hidden_size"), own.get("num_attention_heads")
        sizes = (width, heads, own.get("num_hidden_layers"), own.get("intermediate_size"))
        if not are_sizes(sizes) or sizes[2] > MAX_LAYERS:
            return False
        numbers = (own.get("layer_norm_eps"), own.get("rope_theta", cls.rope_theta))
        if not all(type(number) in (int, float) and 0 < number < 1e30 for number in numbers):
            return False
        return isinstance(own.get("token_dropout"), bool) and width % heads == 0 and width // heads % 2 == 0

    @property
    def layer_count(self) -> int:
        return self.num_hidden_layers

    @property
    def width(self) -> int:
        return self.hidden_size

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def attention(self) -> AttentionNeeds:
        return AttentionNeeds(self.num_attention_heads, self.head_dim)

    @property
    def matrices(self) -> int:
        """Numbers in the matrices of a layer; see `family.Config`."""
        return self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)

    @property
    def parameter_count(self) -> int:
        """Numbers in the encoder's weights: what has to fit before anything is loaded."""
        width, expanded = self.hidden_size, self.intermediate_size
        # Biases of queries, keys, values and of the expansion, and two norms; the other biases are in the stream's shifts.
        layer = self.matrices + 3 * width + expanded + 4 * width
        return self.num_hidden_layers * layer + len(TOKENS) * width + 2 * width
