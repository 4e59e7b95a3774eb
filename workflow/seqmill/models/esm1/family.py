"""ESM-1b and ESM-1v as a family: what seqmill has to know before a model is loaded. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from seqmill.inputs.alphabet import PROTEIN
from seqmill.models.esm1.config import Config
from seqmill.models.esm2.config import tokenizer
from seqmill.models.esm2.family import COST
from seqmill.models.family import Family, built_by

HUB_IDS = ("facebook/esm1b_t33_650M_UR50S", *(f"facebook/esm1v_t33_650M_UR90S_{number}" for number in range(1, 6)))


def accepts(fields: Mapping[str, Any], _: Callable[[], set[str]]) -> bool:
    """Whether config.json is of the ESM family, and of one with learned positions."""
    return fields["model_type"] == "esm" and fields.get("position_embedding_type") == "absolute"


def licence(_: Config, __: str) -> str:
    """Of all ESM-1b and ESM-1v weights."""
    return "MIT"


# Of all published models; a model's own limit follows from its config.json.
LONGEST = 1022

FAMILY = Family(
    "ESM-1",
    accepts,
    replace(PROTEIN, longest=LONGEST),
    COST,
    Config.read,
    tokenizer,
    built_by("seqmill.models.esm1.network", "ESM1"),
    licence,
    hub_ids=HUB_IDS,
)
