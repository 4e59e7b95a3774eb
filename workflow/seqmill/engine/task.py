"""What one job has to compute: resolved once, before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqmill.inputs.fasta import read_records, with_own_ids
from seqmill.inputs.given import Given
from seqmill.inputs.sequences import Sequences
from seqmill.models.source import Source
from seqmill.models.weights import Weights
from seqmill.options import Settings
from seqmill.outputs import datasets, meta
from seqmill.outputs.datasets import Dataset


@dataclass(frozen=True)
class Task:
    """One shard, one model, and what is stored.

    Attributes:
        token_counts: (D,) tokens per distinct sequence in the order of computing, special ones included.
        dtype: what the model computes in.
        layers: absolute numbers of the hidden states that are stored.
        fingerprint: what decides the result's bytes besides the sequences, see `meta.fingerprint`.
    """

    source: Source
    sequences: Sequences
    token_counts: np.ndarray
    dtype: torch.dtype
    layers: tuple[int, ...]
    pooling: tuple[str, ...]
    datasets: list[Dataset]
    fingerprint: dict[str, Any]

    @classmethod
    def resolve(cls, source: Source, sequences: Sequences, settings: Settings, dtype: torch.dtype) -> "Task":
        """What the settings ask for.

        Raises:
            UserError: the model has no such layer.
        """
        config, name = source.config, str(dtype).removeprefix("torch.")
        layers = datasets.resolve_layers(settings.layers, config.layer_count)
        stored = datasets.resolve(layers, settings.pooling, config.width, name)
        fingerprint = meta.fingerprint(source.weights.checksum, name, layers, settings.pooling)
        counts = source.tokenizer.counts(sequences)
        return cls(source, sequences, counts, dtype, layers, settings.pooling, stored, fingerprint)

    @property
    def weights(self) -> Weights:
        return self.source.weights

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
        return self.token_counts - (self.source.tokenizer.leading + self.source.tokenizer.trailing)

    def stored_counts(self, done: int) -> np.ndarray:
        """Tokens that stand for letters, for each row whose sequence is not among the first `done` to be computed."""
        return np.repeat(self.content_counts[done:], self.sequences.copies[done:])


def read_sequences(fasta: Path | Given, source: Source, invalid: str, duplicate_ids: str) -> Sequences:
    """The sequences of a file, or those given, in the alphabet of a model.

    Raises:
        UserError: see `read_records` and `with_own_ids`.
    """
    alphabet = source.family.alphabet
    is_given = isinstance(fasta, Given)
    records = fasta.records(alphabet, invalid) if is_given else read_records(fasta, alphabet, invalid)
    return Sequences(list(with_own_ids(records, duplicate_ids)))
