"""DNABERT-2 and DNABERT-S as a family: what seqmill has to know before a model is loaded. Imports no torch."""

from collections.abc import Callable, Mapping
from typing import Any

from seqmill.inputs.alphabet import NUCLEOTIDE
from seqmill.models.dnabert.config import ALIBI, Config
from seqmill.models.dnabert.tokens import FILE, BytePairTokenizer
from seqmill.models.family import CostInTokens, Family, built_by

# Bases of a token on average: 4.3 to 5.3 in records of metagenomes.
LETTERS_PER_TOKEN = 4.75
# Attention costs as much as the rest of a layer at about this many tokens: 6,144 by operations, less a factor of 2.5
# because attention runs at a lower rate than matrix products.
ATTENTION_PAR_TOKENS = 2500

HUB_IDS = ("zhihan1996/DNABERT-S", "zhihan1996/DNABERT-2-117M")


def accepts(fields: Mapping[str, Any], tensor_names: Callable[[], set[str]]) -> bool:
    """Whether a checkpoint is a BERT; plain ones are refused with the reason.

    Some copies of DNABERT's config.json lack model_type.
    """
    if ALIBI in fields:
        return fields["model_type"] in ("bert", "")
    return fields["model_type"] == "bert" and any(
        name.removeprefix("bert.") == "embeddings.word_embeddings.weight" for name in tensor_names()
    )


def licence(_: Config, __: str) -> str:
    """Of DNABERT-2 and DNABERT-S."""
    return "Apache-2.0"


FAMILY = Family(
    "DNABERT",
    accepts,
    NUCLEOTIDE,
    CostInTokens(ATTENTION_PAR_TOKENS, 2, LETTERS_PER_TOKEN),
    Config.read,
    BytePairTokenizer,
    built_by("seqmill.models.dnabert.network", "DNABERT"),
    licence,
    hub_ids=HUB_IDS,
    files=("config.json", FILE),
    tokenizer_files=(FILE,),
    # The authors' own: special tokens count.
    pooling=("mean_all",),
    # DNABERT-S; DNABERT-2 on fewer.
    trained=2000,
    letters_per_token=LETTERS_PER_TOKEN,
)
