"""A model that is not loaded yet. Imports no torch."""

from dataclasses import dataclass, replace
from pathlib import Path

from seqmill.inputs.alphabet import Alphabet
from seqmill.models import registry
from seqmill.models.family import Config, Family, Tokenizer
from seqmill.models.weights import Weights


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
        family, config = registry.recognise(weights)
        return cls(weights, family, config, family.tokenizer(Path(weights.folder), config))

    @property
    def alphabet(self) -> Alphabet:
        """What its sequences may be."""
        if self.config.max_tokens is None:
            return self.family.alphabet
        special = self.tokenizer.leading + self.tokenizer.trailing
        return replace(self.family.alphabet, longest=self.config.max_tokens - special)

    @property
    def licence(self) -> str:
        """Of the weights."""
        return self.family.licence(self.config, self.weights.name)
