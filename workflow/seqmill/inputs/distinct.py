"""The distinct sequences of an input, and the table of its records."""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqmill.inputs import outliers, repeats, strings
from seqmill.inputs.hash_index import HashIndex
from seqmill.inputs.known import NOTHING
from seqmill.inputs.sample import Sample
from seqmill.inputs.spool import Spool

Samples = Mapping[str | None, Sample]
NONE = np.zeros(0, np.int64)


@dataclass
class Records:
    """N records in input order.

    Attributes:
        ids: (N,) text.
        renamed_from: (N,) text, the ids in the file, where they were repeated and got a number; else null.
        descriptions: (N,) text.
        lengths, replaced: (N,) int64, letters of each, and how many of them were replaced.
        numbers: (N,) int64, which sequence each has, see `Distinct`.
        samples: the name of each sample and how many records it has.
    """

    ids: pa.LargeStringArray
    renamed_from: pa.LargeStringArray
    descriptions: pa.LargeStringArray
    lengths: np.ndarray
    replaced: np.ndarray
    numbers: np.ndarray
    samples: list[tuple[str | None, int]]

    def __len__(self) -> int:
        return len(self.ids)

    def first(self) -> np.ndarray:
        """(N,) int64, the row of the first record of the same sample with the same sequence."""
        found = np.empty(len(self), np.int64)
        rows = np.full(self.numbers.max(initial=-1) + 1, len(self))
        begin = 0
        for _, size in self.samples:
            own = self.numbers[begin : begin + size]
            np.minimum.at(rows, own, np.arange(begin, begin + size))
            found[begin : begin + size] = rows[own]
            rows[own] = len(self)
            begin += size
        return found


@dataclass
class Distinct:
    """The distinct sequences of an input; of the hashes, those that were known come first and have no letters here.

    Attributes:
        records: of the input.
        known: how many hashes were known.
        hashes: (known + D, 32) uint8, SHA-256 of each sequence, in the order of appearance.
        sequences: (D,) bytes, those that are new; mapped.
        lengths: (D,) int64, letters of each.
        unknown: (D,) int64, how many of its letters are unknown.
    """

    records: Records
    known: int
    hashes: np.ndarray
    sequences: pa.LargeBinaryArray
    lengths: np.ndarray
    unknown: np.ndarray

    def name(self, distinct: int) -> str:
        """The id of the first record with one of the D sequences."""
        return self.records.ids[int((self.records.numbers == self.known + distinct).argmax())].as_py()


def find_distinct(
    samples: Samples, folder: Path, stack: ExitStack, known: np.ndarray = NOTHING, unknown: bytes = b"X"
) -> Distinct:
    """Read all records; keep each distinct sequence once, and on the disk as all that is text.

    Args:
        folder, stack: where temporary files are until the stack is closed.
        known: (K, 32) uint8, see `Distinct`.
        unknown: the letter that stands for an unknown one.

    Raises:
        UserError: see `Sample.columns` and `Sample.renamed`.
    """
    index = HashIndex()
    index.add(known)
    sequences, ids, descriptions = (stack.enter_context(Spool(folder)) for _ in range(3))
    lengths, replaced, numbers, counts = [NONE], [NONE], [NONE], [NONE]
    renamed: dict[int, str] = {}
    sizes = []
    for sample in samples.values():
        begin, keys = sum(sizes), [NONE]
        for columns in sample.columns():
            own_numbers, new = index.add(_hashes(columns.sequences))
            own = columns.sequences.take(new)
            sequences.add(own)
            counts.append(outliers.count(*strings.parts(own), unknown))
            ids.add(columns.ids)
            descriptions.add(columns.descriptions)
            keys.append(repeats.keys(columns.ids))
            lengths.append(strings.lengths(columns.sequences))
            replaced.append(columns.replaced)
            numbers.append(own_numbers)
        sizes.append(sum(map(len, keys)))
        renamed |= {begin + row: name for row, name in _renamed(sample, np.concatenate(keys), ids, begin).items()}
    records = Records(
        *_with_new(ids.text(), renamed),
        descriptions.text(),
        *(np.concatenate(column) for column in (lengths, replaced, numbers)),
        list(zip(samples, sizes, strict=True)),
    )
    return Distinct(records, len(known), index.hashes, sequences.strings(), sequences.lengths, np.concatenate(counts))


def _hashes(sequences: pa.LargeBinaryArray) -> np.ndarray:
    """(N, 32) uint8, the SHA-256 of each."""
    sha256 = hashlib.sha256
    letters, offsets = strings.parts(sequences)
    digests = b"".join([sha256(letters[start:stop]).digest() for start, stop in pairwise(offsets.tolist())])
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def _renamed(sample: Sample, keys: np.ndarray, ids: Spool, begin: int) -> dict[int, str]:
    """The new ids of a sample's rows, counted from its first; see `Sample.renamed`."""
    return sample.renamed(ids.text(begin), keys) if repeats.may_be_among(keys) else {}


def _with_new(ids: pa.LargeStringArray, renamed: dict[int, str]) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """Ids with the new ones in their places, and those that had been there."""
    if not renamed:
        return ids, pa.nulls(len(ids), pa.large_string())
    rows = sorted(renamed)
    is_renamed = np.zeros(len(ids), bool)
    is_renamed[rows] = True
    new = pa.array([renamed[row] for row in rows], pa.large_string())
    given = pc.if_else(pa.array(is_renamed), ids, pa.scalar(None, pa.large_string()))
    return pc.replace_with_mask(ids, pa.array(is_renamed), new), given
