"""ESM-C as a family: what seqmill has to know before a model is loaded. Imports no torch."""

from collections.abc import Callable, Mapping
from typing import Any

from seqmill.inputs.alphabet import PROTEIN
from seqmill.models.esmc.config import Config, licence, tokenizer
from seqmill.models.family import CostInTokens, Family, built_by

# Attention costs as much as the rest of a layer at about this many tokens: 6 x width by operations (5,760 for 300M,
# 6,912 for 600M), less a factor of 2.5 because attention runs at a lower rate than matrix products.
ATTENTION_PAR_TOKENS = 2500

HUB_IDS = (
    *("biohub/ESMC-300M", "biohub/ESMC-600M", "biohub/ESMC-6B"),
    *("EvolutionaryScale/esmc-300m-2024-12", "EvolutionaryScale/esmc-600m-2024-12"),
)

# EvolutionaryScale publishes no config.json; these names are its own.
ITS_OWN = {"embed.weight", "transformer.blocks.0.attn.layernorm_qkv.1.weight"}


def accepts(fields: Mapping[str, Any], tensor_names: Callable[[], set[str]]) -> bool:
    """Whether config.json says so, or, where there is none, the names of the tensors do."""
    return fields["model_type"] == "esmc" or (not fields["model_type"] and tensor_names() >= ITS_OWN)


FAMILY = Family(
    "ESM-C",
    accepts,
    PROTEIN,
    CostInTokens(ATTENTION_PAR_TOKENS, 2),
    Config.read,
    tokenizer,
    built_by("seqmill.models.esmc.network", "ESMC"),
    licence,
    hub_ids=HUB_IDS,
    trained=2046,
)
