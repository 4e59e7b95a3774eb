"""The sizes of DNABERT-2 and DNABERT-S (Zhou et al. 2024, arXiv:2306.15006 and arXiv:2402.08777). Imports no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from seqmill.errors import UserError
from seqmill.kernels.needs import AttentionNeeds
from seqmill.models.family import MAX_LAYERS, Shapes, are_sizes, wrong_sizes

# What DNABERT's layers have and those of a plain BERT have not.
GATED = "encoder.layer.0.mlp.gated_layers.weight"
POSITIONS = "embeddings.position_embeddings.weight"

# The entry of config.json that a plain BERT has not. It is an allocation of the original's, not a limit.
ALIBI = "alibi_starting_size"


def refuse_plain_bert(tensors: Iterable[str], name: str) -> None:
    """Tell DNABERT from other models that call themselves BERT, by the names of its tensors.

    Raises:
        UserError: it is another one.
    """
    plain = {key.removeprefix("bert.") for key in tensors}
    if POSITIONS in plain or GATED not in plain:
        why = "it has position embeddings" if POSITIONS in plain else "it has no gated layers"
        raise UserError(
            f"model {name}: is a BERT, but not a DNABERT-2 or DNABERT-S: {why}; seqmill does not support it"
        )


@dataclass(frozen=True)
class Config:
    """The part of a checkpoint's config.json that the encoder depends on, in its own names.

    What it says of positions, activation and padding is not read: DNABERT has no position embeddings and always gates by
    GELU, and its row 0 is an ordinary token.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    layer_norm_eps: float

    operators = ("layer_norm", "add_norm", "gate", "mean")
    half = "bfloat16"
    max_tokens = None

    @classmethod
    def read(cls, fields: Mapping[str, Any], name: str, shapes: Shapes) -> "Config":
        """Take over config.json; refuse other models that call themselves BERT.

        Raises:
            UserError: a plain BERT, or another of its kind; fields missing or senseless.
        """
        # Where config.json says enough, the tensors are looked at when they are loaded: planning has no time to read them.
        if ALIBI not in fields:
            refuse_plain_bert(shapes(), name)
        own = {key: fields.get(key) for key in cls.__dataclass_fields__}
        if not cls._makes_sense(own):
            raise wrong_sizes(name)
        return cls(**own)

    @classmethod
    def _makes_sense(cls, own: dict[str, Any]) -> bool:
        sizes = [value for key, value in own.items() if key != "layer_norm_eps"]
        if not are_sizes(sizes):
            return False
        eps, heads = own["layer_norm_eps"], own["num_attention_heads"]
        sensible = own["num_hidden_layers"] <= MAX_LAYERS and own["hidden_size"] % heads == 0
        return sensible and type(eps) in (int, float) and 0 < eps < 1

    @property
    def layer_count(self) -> int:
        return self.num_hidden_layers

    @property
    def width(self) -> int:
        return self.hidden_size

    @property
    def attention(self) -> AttentionNeeds:
        heads = self.num_attention_heads
        return AttentionNeeds(heads, self.hidden_size // heads, bias="alibi")

    @property
    def matrices(self) -> int:
        """Numbers in the matrices of a layer; see `family.Config`."""
        return self.hidden_size * (4 * self.hidden_size + 3 * self.intermediate_size)

    @property
    def parameter_count(self) -> int:
        """Numbers in the encoder's weights: what has to fit before anything is loaded."""
        width = self.hidden_size
        # Biases of queries, keys, values and of the two products that are added to the stream, and two norms.
        layer = self.matrices + 3 * width + 2 * width + 4 * width
        return self.num_hidden_layers * layer + self.vocab_size * width + 2 * width
