"""HDF5 files and a FASTA as biotrainer takes them: `mean.h5`, `residues.h5` (its `embeddings_file`), `sequences.fasta`.

biotrainer finds a vector by a hash of its sequence, so that the sequences themselves are needed; each distinct one has one
dataset, with the attribute `original_id`. The FASTA, its `input_file`, has each sequence on one line, as biotrainer keeps
the last line only, and the descriptions, in which it looks for TARGET=... and SET=....
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from seqmill.errors import UserError
from seqmill.inputs.alphabet import PROTEIN
from seqmill.inputs.fasta import read_records
from seqmill.inputs.record import Record
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.formats.h5_per_id import named_datasets
from seqmill.outputs.formats.source import Source


def write(source: Source, datasets: Sequence[Dataset], folder: Path) -> None:
    """Write a file per dataset, and the sequences.

    Raises:
        UserError: there are no sequences, or others than those of the result.
    """
    if not source.fasta:
        raise UserError(
            "biotrainer finds embeddings by their sequences; give --fasta, the files that were embedded, in the same order"
        )
    with (folder / "sequences.fasta").open("w", encoding="utf-8") as file:
        for name, record in _records(source):
            file.write(f">{name} {record.description}\n{record.sequence.decode()}\n")
    for dataset in datasets:
        with named_datasets(source, datasets, dataset, folder) as file:
            for (name, record), values in zip(_records(source), source.each(dataset), strict=True):
                file.add_once(hash_of(record.sequence), values, name)


def hash_of(sequence: bytes) -> str:
    """What biotrainer finds a sequence's embedding by."""
    return hashlib.sha256(b"%s_%d" % (sequence, len(sequence))).hexdigest()


def _records(source: Source) -> Iterator[tuple[str, Record]]:
    """The id of each record of the result, and the record."""
    records = chain.from_iterable(read_records(path, PROTEIN, "replace") for path in source.fasta)
    for row, (name, record) in enumerate(zip_longest(source.ids(), records)):
        if name is None or record is None or len(record.sequence) != source.file.lengths[row]:
            what = f"sequence {row + 1} is another one" if name and record else "there are more or fewer sequences"
            raise UserError(
                f"{', '.join(map(str, source.fasta))}: {what} than in {source.path}; give the files that were embedded, in the "
                "same order"
            )
        yield name, record
