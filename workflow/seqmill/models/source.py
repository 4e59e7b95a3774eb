"""A model that is not loaded yet. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from seqmill.models import registry
from seqmill.models.family import Config, Family, Tokenizer
from seqmill.models.weights import Weights, read_config


@dataclass(frozen=True)
class Source:
    """Weights on disk, and what their family says of them."""

    weights: Weights
    family: Family
    config: Config
    tokenizer: Tokenizer

    @classmethod
    def of(cls, weights: Weights) -> "Source":
        """Recognise the model's family and read its sizes.

        Raises:
            UserError: see `registry.recognise` and `Family.read_config`.
        """
        family = registry.recognise(weights)
        config = family.read_config(read_config(weights), weights.name)
        return cls(weights, family, config, family.tokenizer(Path(weights.folder)))
