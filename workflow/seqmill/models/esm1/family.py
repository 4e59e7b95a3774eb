"""ESM-1b and ESM-1v as a family: what seqmill has to know before a model is loaded. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seqmill.inputs.alphabet import PROTEIN
from seqmill.models.esm1.config import Config
from seqmill.models.esm2.config import tokenizer
from seqmill.models.esm2.family import cost
from seqmill.models.family import Family, Tokenizer

if TYPE_CHECKING:
    import torch

    from seqmill.kernels.operators import Kernels
    from seqmill.models.checkpoint import Checkpoint
    from seqmill.models.esm1.network import ESM1

HUB_IDS = ("facebook/esm1b_t33_650M_UR50S", *(f"facebook/esm1v_t33_650M_UR90S_{number}" for number in range(1, 6)))


def accepts(fields: Mapping[str, Any], _: Callable[[], set[str]]) -> bool:
    """Whether config.json is of the ESM family, and of one with learned positions."""
    return fields["model_type"] == "esm" and fields.get("position_embedding_type") == "absolute"


def build(
    config: Config, checkpoint: "Checkpoint", tokenizer: Tokenizer, kernels: "Kernels", dtype: "torch.dtype"
) -> "ESM1":
    """The packed encoder with a checkpoint's weights, see `Encoder.from_checkpoint`."""
    # Only here: planning and sharding ask for the alphabet and must not wait for torch.
    from seqmill.models.esm1.network import ESM1

    return ESM1.from_checkpoint(config, checkpoint, tokenizer, kernels, dtype)


def licence(_: Config, __: str) -> str:
    """Of all ESM-1b and ESM-1v weights."""
    return "MIT"


# Of all published models; a model's own limit follows from its config.json.
LONGEST = 1022

FAMILY = Family(
    "ESM-1", accepts, replace(PROTEIN, longest=LONGEST), cost, Config.read, tokenizer, build, licence, hub_ids=HUB_IDS
)
