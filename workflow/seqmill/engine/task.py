"""What one job has to compute: resolved once, before anything is loaded."""

from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqmill.engine.batching import PackedBatches
from seqmill.errors import UserError
from seqmill.inputs.fasta import read_records
from seqmill.inputs.given import Given
from seqmill.inputs.ids import with_own_ids
from seqmill.inputs.lookup import called
from seqmill.inputs.sequences import Sequences
from seqmill.inputs.shard_file import ShardFile
from seqmill.inputs.windows import ERROR, Pieces, Treatment
from seqmill.models.family import Family, Tokens
from seqmill.models.source import Source
from seqmill.models.weights import Weights
from seqmill.options import AUTO
from seqmill.outputs import datasets, earlier, meta
from seqmill.outputs.datasets import EMBEDDED, TOKEN_STARTS, WINDOWS, Dataset
from seqmill.outputs.representations import LEADING, REPRESENTATIONS
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
        treatment: what becomes of long sequences.
        fingerprint: what decides the result's bytes besides the sequences, see `meta.fingerprint`.
    """

    source: Source
    sequences: Sequences
    tokens: Tokens
    dtype: torch.dtype
    layers: tuple[int, ...]
    pooling: tuple[str, ...]
    datasets: list[Dataset]
    treatment: Treatment
    fingerprint: dict[str, Any]

    @classmethod
    def resolve(
        cls,
        source: Source,
        sequences: Sequences,
        tokens: Tokens,
        settings: Settings,
        dtype: torch.dtype,
        treatment: Treatment,
    ) -> "Task":
        """What the settings ask for.

        Raises:
            UserError: the model has no such layer, no such special token, or an earlier result that is reused has other
                settings.
        """
        config, name = source.config, str(dtype).removeprefix("torch.")
        layers = datasets.resolve_layers(settings.layers, config.layer_count)
        pooling = source.family.chosen(settings.pooling, AUTO)
        _refuse_missing_tokens(pooling, source)
        storage = None if settings.storage == AUTO else settings.storage
        single_letters = source.tokenizer.single_letters
        stored = datasets.resolve(layers, pooling, config.width, name, single_letters, storage, treatment.long)
        fingerprint = meta.fingerprint(source.weights.checksum, name, layers, pooling, treatment.name, storage)
        if found := settings.fitting:
            earlier.refuse_other_settings(found["path"], found, fingerprint, "this run")
        return cls(source, sequences, tokens, dtype, layers, pooling, stored, treatment, fingerprint)

    @property
    def weights(self) -> Weights:
        return self.source.weights

    @property
    def computed(self) -> list[Dataset]:
        """The datasets that the model computes."""
        return [dataset for dataset in self.datasets if dataset.is_computed]

    @cached_property
    def pieces(self) -> Pieces:
        """Of the sequences, in the order of computing; waits for their tokens.

        Raises:
            UserError: a sequence has more tokens than it may.
        """
        counts = self._all_counts
        if self.treatment.long == ERROR and (over := np.flatnonzero(counts > self.treatment.longest)).size:
            name = called(self.sequences.ids[self.sequences.rows[over[0]]], self.sequences.path)
            raise UserError(
                f"{name} has {counts[over[0]]:,} tokens, and {self.treatment.longest:,} is the most that sequences.long error and "
                "max_length allow; set sequences.long to window (--long window), or shorten it or leave it out"
            )
        return self.treatment.pieces(counts)

    def batches(self, max_tokens: int, fill: bool, first: int) -> PackedBatches:
        """The batches of what is left behind the first sequences; see `PackedBatches`."""
        return PackedBatches(self.sequences, self.tokens, self.source.tokenizer, max_tokens, fill, first, self.pieces)

    def known(self, first: int, last: int) -> dict[str, np.ndarray]:
        """The values of the other datasets, which no model computes, of some sequences in the order of computing."""
        known = {TOKEN_STARTS: self._token_starts, WINDOWS: self._windows, EMBEDDED: self._embedded}
        described = (dataset.name for dataset in self.datasets if not dataset.is_computed)
        return {name: known[name](first, last).astype(np.int32)[:, None] for name in described}

    def _token_starts(self, first: int, last: int) -> np.ndarray:
        starts, kept = self.tokens.starts(first, last), self.content_counts[first:last]
        counts = self._all_counts[first:last]
        # Of sequences that are cut off, those of the tokens that are left.
        places = np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
        return starts[places < np.repeat(kept, counts)]

    def _windows(self, first: int, last: int) -> np.ndarray:
        return self.pieces.numbers[first:last]

    def _embedded(self, first: int, last: int) -> np.ndarray:
        return self.embedded_letters[first:last]

    @cached_property
    def embedded_letters(self) -> np.ndarray:
        """(D,) letters of each sequence that have a state, in the order of computing."""
        lengths, kept = np.diff(self.sequences.offsets), self.content_counts
        cut_off = np.flatnonzero(kept < self._all_counts)
        # The letters before the first token that is left out.
        lengths[cut_off] = [self.tokens.starts(place, place + 1)[kept[place]] for place in cut_off.tolist()]
        return lengths

    def done_to_sequences(self) -> dict[str, np.ndarray]:
        """What was done to each record, (N,) in the file's order, by the name of the dataset that has it."""
        known = {WINDOWS: self.pieces.numbers, EMBEDDED: self.embedded_letters}
        stored = (dataset.name for dataset in self.datasets if dataset.name in known)
        return {name: self.sequences.in_file_order(known[name].astype(np.int32)) for name in stored}

    @property
    def _all_counts(self) -> np.ndarray:
        """(D,) tokens per sequence that stand for letters, in the order of computing."""
        return self.tokens.counts - (self.source.tokenizer.leading + self.source.tokenizer.trailing)

    @property
    def costs(self) -> np.ndarray:
        """(N,) relative time of each sequence, in the order of computing."""
        return self.source.family.treated(self.treatment)[1](np.diff(self.sequences.offsets))

    @property
    def model_bytes(self) -> int:
        """What the weights take on the device, known before they are loaded."""
        return self.source.config.parameter_count * self.dtype.itemsize

    @property
    def content_counts(self) -> np.ndarray:
        """(D,) tokens per sequence that stand for letters and have a state, in the order of computing."""
        return self.pieces.kept_of_sequences

    def bytes_to_store(self, done: int) -> int:
        """What the values take of all rows whose sequences are not among the first `done` to be computed."""
        copies = self.sequences.copies[done:]
        total = int(copies.sum()) * sum(dataset.row_bytes for dataset in self.datasets if not dataset.is_per_token)
        if per_token := sum(dataset.row_bytes for dataset in self.datasets if dataset.is_per_token):
            total += int((self.content_counts[done:] * copies).sum()) * per_token
        return total


def _refuse_missing_tokens(pooling: tuple[str, ...], source: Source) -> None:
    """Refuse the state of a special token that a family's tokenizer does not add."""
    for name in pooling:
        if (needed := REPRESENTATIONS[name].needs) and not getattr(source.tokenizer, needed):
            where = "before" if needed == LEADING else "behind"
            raise UserError(f"pooling {name}: {source.family.name} has no token {where} a sequence; take another one")


def treatment_of(settings: Settings, family: Family) -> Treatment:
    """What becomes of long sequences.

    Raises:
        UserError: windows would not get on.
    """
    return Treatment.of(settings.long, settings.max_length, settings.overlap, family.trained)


def read_sequences(
    fasta: Path | Given | ShardFile,
    source: Source,
    treatment: Treatment,
    settings: Settings,
    elsewhere: Container[str] = (),
) -> Sequences:
    """The sequences of a file, or those given, as a model takes them.

    Args:
        elsewhere: hashes of sequences that need not be computed.

    Raises:
        UserError: see `read_records` and `with_own_ids`.
    """
    alphabet, invalid = source.treated(treatment), settings.invalid
    if isinstance(fasta, ShardFile):
        if (shard := fasta.take(alphabet)) and not elsewhere:
            return Sequences.of_shard(shard, fasta.path)
        fasta = fasta.path
    is_given = isinstance(fasta, Given)
    records = fasta.records(alphabet, invalid) if is_given else read_records(fasta, alphabet, invalid)
    path = None if is_given else fasta
    return Sequences(list(with_own_ids(records, settings.duplicate_ids)), elsewhere, path)
