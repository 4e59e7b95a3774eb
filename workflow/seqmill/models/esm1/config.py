"""Sizes of ESM-1b (Rives et al. 2021, doi:10.1073/pnas.2016239118) and ESM-1v (Meier et al. 2021,
doi:10.1101/2021.07.09.450648). Their tokens are ESM-2's. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seqmill.errors import UserError
from seqmill.models.esm2 import config as esm2
from seqmill.models.esm2.config import TOKENS
from seqmill.models.family import MAX_SIZE, Shapes

# Positions are counted from the padding's token id (of fairseq, which gave it the position before the first).
FIRST_POSITION = TOKENS.index("<pad>") + 1


@dataclass(frozen=True)
class Config(esm2.Config):
    """ESM-2's sizes and those of the learned positions, in transformers' names and defaults.

    The position embedding has a row for each of `max_tokens` tokens, behind those before `FIRST_POSITION`, which no token
    has. ESM-1b normalises the sum of word and position (`emb_layer_norm_before`), ESM-1v does not.
    """

    max_position_embeddings: int = 1026
    emb_layer_norm_before: bool = False

    operators = ("layer_norm", "gelu", "mean")

    @classmethod
    def read(cls, fields: Mapping[str, Any], name: str, shapes: Shapes) -> "Config":
        """Take over config.json.

        Raises:
            UserError: another relative, such as ESM-1, or another vocabulary; fields missing or senseless.
        """
        supported = (
            not fields.get("is_folding_model")
            and fields.get("hidden_act", "gelu") == "gelu"
            and fields.get("vocab_size") == len(TOKENS)
            and fields.get("pad_token_id") == FIRST_POSITION - 1
        )
        if not supported:
            raise UserError(
                f"model {name}: is of the ESM family, but neither an ESM-2, an ESM-1b nor an ESM-1v; ESM-1 (esm1_t...) and "
                "other vocabularies are not supported, use one of these"
            )
        return cls._of({**fields, "emb_layer_norm_before": fields.get("emb_layer_norm_before") or False}, name)

    @classmethod
    def _makes_sense(cls, own: dict[str, Any]) -> bool:
        rows = own.get("max_position_embeddings")
        return (
            super()._makes_sense(own)
            and type(rows) is int
            and FIRST_POSITION < rows <= MAX_SIZE
            and isinstance(own["emb_layer_norm_before"], bool)
        )

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest sequence for which there are positions, special ones included."""
        return self.max_position_embeddings - FIRST_POSITION

    @property
    def parameter_count(self) -> int:
        """Numbers in the encoder's weights: what has to fit before anything is loaded."""
        norm = 2 * self.width if self.emb_layer_norm_before else 0
        return super().parameter_count + self.max_tokens * self.width + norm
