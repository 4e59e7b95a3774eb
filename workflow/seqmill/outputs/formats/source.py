"""What formats read: a result and its index side by side, a block of records at a time."""

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seqmill.errors import UserError, first_line
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import EmbeddingFile, cut
from seqmill.outputs.names import INDEX
from seqmill.outputs.opening import opened

# Records that are read at a time, or fewer where their values take more than BLOCK_BYTES.
RECORDS = 8_192
# What is known of records that have no index.
WITHOUT_INDEX = pa.schema([("id", pa.string()), ("length", pa.int64())])


@dataclasses.dataclass(frozen=True)
class Block:
    """Some neighbouring records.

    Attributes:
        first, last: their rows, `last` excluded.
        records: (last - first) rows of the index, in all of its columns.
        values: per dataset (rows, width), the rows of all these records.
    """

    first: int
    last: int
    records: pa.RecordBatch
    values: dict[str, np.ndarray]


class Source:
    """A result to be exported. Use as a context manager.

    Args:
        embeddings: the result, an embeddings.h5.
        index: its index.parquet; None where there is none.
        fasta: the files with its sequences, for formats that hold them.

    Attributes:
        file: the result.
        schema: the columns of the index.

    Raises:
        UserError: there is no such file, it is damaged, or the index is that of another result.
    """

    def __init__(self, embeddings: Path, index: Path | None, fasta: Sequence[Path] = ()):
        self.path, self.index, self.fasta = embeddings, index, list(fasta)
        with ExitStack() as stack:
            self.file: EmbeddingFile = stack.enter_context(opened(embeddings))
            self._hdf5 = stack.enter_context(h5py.File(embeddings))
            self._table = None if index is None else stack.enter_context(_opened_index(index))
            self.schema = WITHOUT_INDEX if self._table is None else self._table.schema_arrow.remove_metadata()
            if self._table is not None and self._table.metadata.num_rows != len(self):
                raise UserError(self._other())
            self._open = stack.pop_all()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self.file.lengths)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the result says of itself: model, revision and so on."""
        return self.file.attributes

    def rows(self, dataset: Dataset) -> int:
        """Of a dataset, all in all."""
        return self.file.extents[dataset.name].rows

    def size(self, datasets: Sequence[Dataset]) -> int:
        """Bytes of the values of some datasets."""
        return sum(self.rows(dataset) * dataset.row_bytes for dataset in datasets)

    def copy_index(self, folder: Path) -> None:
        """Put the index, where there is one, beside files that do not hold its columns."""
        if self.index is not None:
            shutil.copyfile(self.index, folder / INDEX)

    def blocks(self, *datasets: Dataset) -> Iterator[Block]:
        """All records in order, with their values in some datasets.

        Raises:
            UserError: the index is that of another result, or the file was cut off.
        """
        first = 0
        for records in self._records():
            rows = np.arange(first, first + records.num_rows)
            sizes = sum((self.file.sequence_bytes(dataset.name, rows) for dataset in datasets), np.zeros_like(rows))
            for start, stop in cut(sizes):
                begin, end = first + start, first + stop
                values = {dataset.name: self._values(dataset, begin, end) for dataset in datasets}
                yield Block(begin, end, records.slice(start, stop - start), values)
            first += records.num_rows

    def each(self, dataset: Dataset) -> Iterator[np.ndarray]:
        """Each record's values in a dataset: (width,), or (tokens, width)."""
        starts = self.file.starts(dataset.name)
        for block in self.blocks(dataset):
            values, begins = block.values[dataset.name], starts[block.first : block.last + 1] - starts[block.first]
            parts = (values[begin:end] for begin, end in pairwise(begins.tolist()))
            yield from parts if dataset.is_per_token else values

    def ids(self) -> Iterator[str]:
        """The id of each record."""
        return (name for block in self.blocks() for name in block.records.column("id").to_pylist())

    def _values(self, dataset: Dataset, first: int, last: int) -> np.ndarray:
        starts = self.file.starts(dataset.name)
        return self.file.read(dataset, int(starts[first]), int(starts[last]))

    def _records(self) -> Iterator[pa.RecordBatch]:
        """The rows of the index, compared with the ids of the result."""
        if self._table is None:
            for first in range(0, len(self), RECORDS):
                lengths = self.file.lengths[first : first + RECORDS]
                yield pa.record_batch([self._ids(first, first + RECORDS), lengths], schema=WITHOUT_INDEX)
            return
        first = 0
        for records in self._table.iter_batches(RECORDS):
            if records.column("id").to_pylist() != self._ids(first, first + records.num_rows):
                raise UserError(self._other())
            first += records.num_rows
            yield records.replace_schema_metadata()

    def _ids(self, first: int, last: int) -> list[str]:
        return self._hdf5["ids"].asstr()[first:last].tolist()

    def _other(self) -> str:
        return f"{self.index}: lists other sequences than {self.path}; give the two files of one result"


def _opened_index(path: Path) -> pq.ParquetFile:
    try:
        table = pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; give the index.parquet of the result") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: is not an index of seqmill, or a damaged one ({first_line(error)})") from None
    if "id" not in table.schema_arrow.names:
        raise UserError(f"{path}: is not an index of seqmill; it has no column id")
    return table
