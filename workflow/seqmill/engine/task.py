"""What one job has to compute: resolved once, before anything is loaded."""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqmill.inputs.fasta import read_records, with_own_ids
from seqmill.inputs.given import Given
from seqmill.inputs.sequences import Sequences
from seqmill.models.family import Tokens
from seqmill.models.source import Source
from seqmill.models.weights import Weights
from seqmill.options import AUTO
from seqmill.outputs import datasets, earlier, meta
from seqmill.outputs.datasets import TOKEN_STARTS, Dataset
from seqmill.settings import Settings


@dataclass(frozen=True)
class Task:
    """One shard, one model, and what is stored.

    Attributes:
        tokens: of the distinct sequences, in the order of computing; perhaps still being made.
        dtype: what the model computes in.
        layers: absolute numbers of the hidden states that are stored.
        pooling: the representations that are stored.
        datasets: all that the file holds.
        fingerprint: what decides the result's bytes besides the sequences, see `meta.fingerprint`.
    """

    source: Source
    sequences: Sequences
    tokens: Tokens
    dtype: torch.dtype
    layers: tuple[int, ...]
    pooling: tuple[str, ...]
    datasets: list[Dataset]
    fingerprint: dict[str, Any]

    @classmethod
    def resolve(
        cls, source: Source, sequences: Sequences, tokens: Tokens, settings: Settings, dtype: torch.dtype
    ) -> "Task":
        """What the settings ask for.

        Raises:
            UserError: the model has no such layer, or an earlier result that is reused has other settings.
        """
        config, name = source.config, str(dtype).removeprefix("torch.")
        layers = datasets.resolve_layers(settings.layers, config.layer_count)
        pooling = tuple(
            dict.fromkeys(
                p for asked in settings.pooling for p in (source.family.pooling if asked == AUTO else [asked])
            )
        )
        stored = datasets.resolve(layers, pooling, config.width, name, source.tokenizer.single_letters)
        fingerprint = meta.fingerprint(source.weights.checksum, name, layers, pooling)
        if found := settings.fitting:
            earlier.refuse_other_settings(found["path"], found, fingerprint, "this run")
        return cls(source, sequences, tokens, dtype, layers, pooling, stored, fingerprint)

    @property
    def weights(self) -> Weights:
        return self.source.weights

    @property
    def computed(self) -> list[Dataset]:
        """The datasets that the model computes."""
        return [dataset for dataset in self.datasets if dataset.layer is not None]

    def known(self, first: int, last: int) -> dict[str, np.ndarray]:
        """The values of the other datasets, which no model computes, of some sequences in the order of computing."""
        if len(self.computed) == len(self.datasets):
            return {}
        return {TOKEN_STARTS: self.tokens.starts(first, last)[:, None]}

    @property
    def costs(self) -> np.ndarray:
        """(N,) relative time of each sequence, in the order of computing."""
        return self.source.family.cost(np.diff(self.sequences.offsets))

    @property
    def model_bytes(self) -> int:
        """What the weights take on the device, known before they are loaded."""
        return self.source.config.parameter_count * self.dtype.itemsize

    @property
    def content_counts(self) -> np.ndarray:
        """(D,) tokens per sequence that stand for letters, in the order of computing."""
        return self.tokens.counts - (self.source.tokenizer.leading + self.source.tokenizer.trailing)

    def bytes_to_store(self, done: int) -> int:
        """What the values take of all rows whose sequences are not among the first `done` to be computed."""
        copies = self.sequences.copies[done:]
        total = int(copies.sum()) * sum(dataset.row_bytes for dataset in self.datasets if not dataset.is_per_token)
        if per_token := sum(dataset.row_bytes for dataset in self.datasets if dataset.is_per_token):
            total += int((self.content_counts[done:] * copies).sum()) * per_token
        return total


def read_sequences(
    fasta: Path | Given, source: Source, settings: Settings, elsewhere: Container[str] = ()
) -> Sequences:
    """The sequences of a file, or those given, as a model takes them.

    Args:
        elsewhere: hashes of sequences that need not be computed.

    Raises:
        UserError: see `read_records` and `with_own_ids`.
    """
    alphabet, invalid = source.alphabet, settings.invalid
    is_given = isinstance(fasta, Given)
    records = fasta.records(alphabet, invalid) if is_given else read_records(fasta, alphabet, invalid)
    return Sequences(list(with_own_ids(records, settings.duplicate_ids)), elsewhere)
