"""The sizes of protein T5s (Elnaggar et al. 2022, doi:10.1109/TPAMI.2021.3095381). Imports no torch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seqmill.errors import UserError
from seqmill.kernels.needs import AttentionNeeds
from seqmill.models.family import MAX_LAYERS, Shapes, are_sizes, wrong_sizes

# `feed_forward_proj` to the activation that it stands for, in `operators.gate`'s names, and in transformers' own.
ACTIVATIONS = {
    "relu": ("relu", "relu"),
    "gated-gelu": ("gelu_tanh", "gelu_new"),
    "gated-silu": ("silu", "silu"),
}

# Protein T5s have up to 256 tokens, T5s of text 32,000 and more.
MAX_VOCABULARY = 256


@dataclass(frozen=True)
class Config:
    """The part of a checkpoint's config.json that the encoder depends on, in transformers' names and defaults."""

    vocab_size: int
    d_model: int
    d_kv: int
    num_heads: int
    d_ff: int
    num_layers: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"

    max_tokens = None

    @classmethod
    def read(cls, fields: Mapping[str, Any], name: str, _: Shapes | None = None) -> "Config":
        """Take over config.json; refuse T5s that the packed forward does not compute.

        Raises:
            UserError: a T5 of text, another activation; fields missing or senseless.
        """
        own = {field.name: fields[field.name] for field in dataclasses.fields(cls) if field.name in fields}
        if not cls._makes_sense(own):
            raise wrong_sizes(name)
        config = cls(**own)
        if config.vocab_size > MAX_VOCABULARY:
            raise UserError(
                f"model {name}: is a T5 of {config.vocab_size:,} tokens, which reads text and no proteins; "
                "use ProtT5, ProstT5 or Ankh"
            )
        _, activation = ACTIVATIONS.get(config.feed_forward_proj, (None, None))
        # transformers lets `dense_act_fn`, where it is given, overrule `feed_forward_proj`.
        stated = fields.get("dense_act_fn") or activation
        if activation is None or stated != activation:
            kind = ", ".join(str(part) for part in (config.feed_forward_proj, stated) if part)
            raise UserError(
                f"model {name}: is a T5 with a feed-forward layer ({kind[:100]!r}) that seqmill does not compute; "
                "use ProtT5, ProstT5 or Ankh"
            )
        return config

    @classmethod
    def _makes_sense(cls, own: dict[str, Any]) -> bool:
        default = {field.name: field.default for field in dataclasses.fields(cls)}
        values = default | own
        sizes = [values[field.name] for field in dataclasses.fields(cls) if field.type is int]
        if not are_sizes(sizes):
            return False
        epsilon, buckets = values["layer_norm_epsilon"], values["relative_attention_num_buckets"]
        return (
            values["num_layers"] <= MAX_LAYERS
            and type(epsilon) in (int, float)
            and 0 < epsilon < 1e30
            and isinstance(values["feed_forward_proj"], str)
            # A quarter of the buckets hold one distance each, to either side; beyond them come wider ones.
            and 4 <= buckets < 4 * values["relative_attention_max_distance"]
        )

    @property
    def layer_count(self) -> int:
        return self.num_layers

    @property
    def width(self) -> int:
        return self.d_model

    @property
    def inner(self) -> int:
        """Width of the queries of all heads, which need not be that of the stream."""
        return self.num_heads * self.d_kv

    @property
    def activation(self) -> str:
        """As `operators.gate` names it; "relu" is not gated."""
        return ACTIVATIONS[self.feed_forward_proj][0]

    @property
    def is_gated(self) -> bool:
        return self.activation != "relu"

    @property
    def expanded(self) -> int:
        """Width of what the feed-forward layer's first product gives: gate and value where it is gated."""
        return 2 * self.d_ff if self.is_gated else self.d_ff

    @property
    def attention(self) -> AttentionNeeds:
        # T5 was trained without the usual 1 / sqrt(head_dim).
        return AttentionNeeds(self.num_heads, self.d_kv, scale=1.0, bias="distance table")

    @property
    def operators(self) -> tuple[str, ...]:
        return ("rms_norm", "gate", "mean") if self.is_gated else ("rms_norm", "mean")

    @property
    def half(self) -> str:
        """ProtT5 is published and used in float16; a product of gate and value leaves its range more easily."""
        return "bfloat16" if self.is_gated else "float16"

    @property
    def matrices(self) -> int:
        """Numbers in the matrices of a layer; see `family.Config`."""
        return (4 * self.inner + self.expanded + self.d_ff) * self.d_model

    @property
    def parameter_count(self) -> int:
        """Numbers in the encoder's weights but the attention bias: what has to fit before anything is loaded."""
        layer = self.matrices + 2 * self.d_model
        return self.vocab_size * self.d_model + self.num_layers * layer + self.d_model
