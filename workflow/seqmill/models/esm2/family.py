"""ESM-2 as a family: what seqmill has to know before a model is loaded. Imports no torch."""

from collections.abc import Callable, Mapping
from typing import Any

from seqmill.inputs.alphabet import PROTEIN
from seqmill.models.esm2.config import Config, tokenizer
from seqmill.models.family import CostInTokens, Family, Known, built_by

# Attention costs as much as the rest of a layer at about this many tokens: 6 x hidden size by operations
# (7,680 for 650M), less a factor of 2.5 because attention runs at a lower rate than matrix products.
ATTENTION_PAR_TOKENS = 3000
COST = CostInTokens(ATTENTION_PAR_TOKENS, 2)

# The commits that were compared with fair-esm's originals.
KNOWN = {
    "facebook/esm2_t6_8M_UR50D": Known(
        "c731040fcd8d73dceaa04b0a8e6329b345b0f5df",
        {"model.safetensors": "24c5fa474c48f3b754b86efe752d5f189d2bcd88190fa2270fc92b2ef3034189"},
    ),
    "facebook/esm2_t33_650M_UR50D": Known(
        "08e4846e537177426273712802403f7ba8261b6c",
        {"model.safetensors": "a08adabb949fa67ad3c14b509d04fd60368b35007b0095e3358f81200c4f4db0"},
    ),
    "facebook/esm2_t36_3B_UR50D": Known(
        "476b639933c8baad5ad09a60ac1a87f987b656fc",
        {
            "pytorch_model-00001-of-00002.bin": "0f971f11c449d21422aa982b791619c10351972992c735f4c3cd43fe09790412",
            "pytorch_model-00002-of-00002.bin": "7560b46fc383c691fb74b915b7d4bcef40d3df181447f16ba4b298845e308d0c",
        },
    ),
}


HUB_IDS = tuple(
    f"facebook/esm2_{size}_UR50D" for size in ("t6_8M", "t12_35M", "t30_150M", "t33_650M", "t36_3B", "t48_15B")
)


def accepts(fields: Mapping[str, Any], _: Callable[[], set[str]]) -> bool:
    """Whether config.json is of the ESM family, but for those with learned positions, which are ESM-1's.

    `Config.read` refuses ESM-2's other relatives with a reason.
    """
    return fields["model_type"] == "esm" and fields.get("position_embedding_type") != "absolute"


def licence(_: Config, __: str) -> str:
    """Of all ESM-2 weights."""
    return "MIT"


FAMILY = Family(
    "ESM-2",
    accepts,
    PROTEIN,
    COST,
    Config.read,
    tokenizer,
    built_by("seqmill.models.esm2.network", "ESM2"),
    licence,
    KNOWN,
    HUB_IDS,
)
