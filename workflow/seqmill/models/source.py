"""A model that is not loaded yet. Imports no torch."""

from dataclasses import dataclass, replace
from pathlib import Path

from seqmill.errors import UserError
from seqmill.inputs.alphabet import Alphabet
from seqmill.inputs.windows import Treatment
from seqmill.models import registry
from seqmill.models.family import Config, Family, Tokenizer, limited
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
        """What its sequences may be where they are embedded whole."""
        return replace(self.family.alphabet, longest=self._most) if self._most else self.family.alphabet

    @property
    def _most(self) -> int | None:
        """Content tokens that the model can take; None for any number."""
        special = self.tokenizer.leading + self.tokenizer.trailing
        return self.config.max_tokens - special if self.config.max_tokens else None

    def treated(self, treatment: Treatment) -> Alphabet:
        """What its sequences may be where long ones are treated so.

        Raises:
            UserError: the model cannot take so many tokens at once.
        """
        if treatment.longest and self._most and treatment.longest > self._most:
            raise UserError(
                f"sequences.max_length is {treatment.longest:,}, and this model takes {self._most:,} at most; give that or less"
            )
        return limited(self.alphabet, treatment, self.tokenizer.single_letters)

    @property
    def licence(self) -> str:
        """Of the weights."""
        return self.family.licence(self.config, self.weights.name)
