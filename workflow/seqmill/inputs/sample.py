"""A sample: the records of some FASTA files, each with an id of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from seqmill.inputs import columns, ids, repeats
from seqmill.inputs.alphabet import PROTEIN, Alphabet
from seqmill.inputs.columns import Columns
from seqmill.inputs.fasta import read_records


@dataclass(frozen=True)
class Sample:
    """Some FASTA files, and how they are read.

    Attributes:
        paths: the files, in their order.
        alphabet: of the sequences.
        invalid: see `fasta.read_records`.
        duplicate_ids: see `ids.with_own_ids`.
    """

    paths: Sequence[Path | str]
    alphabet: Alphabet = PROTEIN
    invalid: str = "error"
    duplicate_ids: str = "error"

    def columns(self) -> Iterator[Columns]:
        """The records, some at a time, with the ids that the files have.

        Raises:
            UserError: see `fasta.read_records`; and a file is empty.
        """
        return columns.read_all(map(Path, self.paths), self.alphabet, self.invalid)

    def renamed(self, names: pa.LargeStringArray, keys: np.ndarray) -> dict[int, str]:
        """The rows whose ids come more than once, and their own ids.

        Args:
            names: the ids of all records.
            keys: of the ids, see `repeats.keys`.

        Raises:
            UserError: ids are repeated, and may not be.
        """
        repeated = repeats.found(names, keys)
        if len(repeated) and self.duplicate_ids == "error":
            self._refuse(set(names.take(pa.array(repeated)).to_pylist()))
        return repeats.numbered(names, repeated) if len(repeated) else {}

    def _refuse(self, repeated: set[str]) -> None:
        """Read again, to say where the repeated ids are."""
        records = (r for path in self.paths for r in read_records(path, self.alphabet, self.invalid))
        for _ in ids.with_own_ids((record for record in records if record.id in repeated), "error"):
            pass
