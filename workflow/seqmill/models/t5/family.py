"""Protein T5s as a family: what seqmill has to know before a model is loaded. Imports no torch."""

from collections.abc import Callable, Mapping
from typing import Any

from seqmill.inputs.alphabet import PROTEIN
from seqmill.models.family import CostInTokens, Family, built_by
from seqmill.models.t5 import tokens
from seqmill.models.t5.config import Config

# Attention costs as much as the rest of a layer at about this many tokens: 6,144 by operations in ProtT5 and Ankh base
# (11,700 in Ankh large), less a factor of three because attention with a bias runs at a lower rate than matrix products.
ATTENTION_PAR_TOKENS = 2000

HUB_IDS = (
    "Rostlab/prot_t5_xl_half_uniref50-enc",
    "Rostlab/prot_t5_xl_uniref50",
    "Rostlab/ProstT5",
    "Rostlab/ProstT5_fp16",
    *(f"ElnaggarLab/ankh{version}" for version in ("-base", "-large", "2-ext1", "2-ext2")),
)

# Of those with so many tokens, as their authors state them.
LICENCES = {128: "AFL-3.0", 150: "MIT", 144: "CC BY-NC-SA 4.0"}


def accepts(fields: Mapping[str, Any], _: Callable[[], set[str]]) -> bool:
    """Whether config.json is a T5's; `Config.read` refuses those of text with a reason."""
    return fields["model_type"] == "t5"


def licence(config: Config, _: str) -> str:
    """Of ProtT5's, ProstT5's or Ankh's weights, told apart by their number of tokens."""
    return LICENCES.get(config.vocab_size, "see the model card")


# One token after each sequence; that ProstT5 has one more changes no shard.
FAMILY = Family(
    "T5",
    accepts,
    PROTEIN,
    CostInTokens(ATTENTION_PAR_TOKENS, 1),
    Config.read,
    tokens.tokenizer,
    built_by("seqmill.models.t5.network", "T5Encoder"),
    licence,
    hub_ids=HUB_IDS,
    files=("*.json", "spiece.model"),
    tokenizer_files=tokens.FILES,
    trained=512,
)
