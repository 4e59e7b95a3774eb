"""Records in columns: the same as `fasta.read_records` reads one by one, several times as fast.

What is as usual in a block is read as a whole; records that have anything unusual are read by `fasta.read_record`.
"""

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqmill.errors import UserError
from seqmill.inputs import blocks, strings
from seqmill.inputs.alphabet import Alphabet
from seqmill.inputs.fasta import MAX_DESCRIPTION, MAX_LETTERS, read_record, read_records
from seqmill.inputs.record import Record

LINE_END, STOP = ord("\n"), ord("*")
USUAL_IN_HEADERS = (string.digits + string.ascii_letters + string.punctuation + " \t\n").encode()
# Tables for `bytes.translate` that make some bytes 1 and all others 0.
ODD_IN_HEADERS = bytes(c not in USUAL_IN_HEADERS for c in range(256))
BLANK = bytes(c in b" \t\n" for c in range(256))
# Records that are read one by one and then go on together.
TOGETHER, LETTERS_TOGETHER = 10_000, 2**24


@dataclass
class Columns:
    """Some records, one after the other in their file.

    Attributes:
        ids, descriptions: (N,) text, see `Record`.
        sequences: (N,) bytes.
        replaced: (N,) int64, letters outside the alphabet that were replaced.
    """

    ids: pa.LargeStringArray
    descriptions: pa.LargeStringArray
    sequences: pa.LargeBinaryArray
    replaced: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, records: list[Record]) -> "Columns":
        return cls(
            pa.array([record.id for record in records], strings.TEXT),
            pa.array([record.description for record in records], strings.TEXT),
            pa.array([record.sequence for record in records], strings.BYTES),
            np.array([record.replaced for record in records], np.int64),
        )

    def replace(self, rows: np.ndarray, records: "Columns") -> None:
        """Put records in the place of those rows that are true in (N,) bool."""
        for name in ("ids", "descriptions", "sequences"):
            replaced = pc.replace_with_mask(getattr(self, name), rows, getattr(records, name))
            setattr(self, name, replaced)
        self.replaced[rows] = records.replaced


def read_all(paths: Iterable[Path], alphabet: Alphabet, invalid: str) -> Iterator[Columns]:
    """The records of several files; refuse a file without records.

    Raises:
        UserError: see `fasta.read_records`; and a file is empty.
    """
    for path in paths:
        empty = True
        for columns in read(path, alphabet, invalid):
            empty = False
            yield columns
        if empty:
            raise UserError(f"{path}: the file is empty; it must hold at least one FASTA record")


def read(path: Path, alphabet: Alphabet, invalid: str) -> Iterator[Columns]:
    """The records of one file, some at a time.

    Raises:
        UserError: see `fasta.read_records`.
    """
    done = 0
    found = _read_blocks(path, alphabet, invalid)
    while True:
        try:
            columns = next(found, None)
        except UserError:
            # Here nobody counts lines: who reads carefully finds the same, and says where.
            yield from together(islice(read_records(path, alphabet, invalid), done, None))
            return
        if columns is None:
            return
        done += len(columns)
        yield columns


def together(records: Iterable[Record]) -> Iterator[Columns]:
    """Records that were read one by one, some at a time."""
    waiting: list[Record] = []
    letters = 0
    for record in records:
        waiting.append(record)
        letters += len(record.sequence)
        if len(waiting) == TOGETHER or letters >= LETTERS_TOGETHER:
            yield Columns.of(waiting)
            waiting, letters = [], 0
    if waiting:
        yield Columns.of(waiting)


def _read_blocks(path: Path, alphabet: Alphabet, invalid: str) -> Iterator[Columns]:
    for block in blocks.read(path):
        places = _Places.of(block)
        columns, unusual = _parsed(block, places, alphabet)
        if unusual.any():
            contents = strings.cut(block, places.headers[unusual] - 1, places.ends[unusual]).to_pylist()
            columns.replace(
                unusual, Columns.of([read_record(content, path, alphabet, invalid) for content in contents])
            )
        yield columns


@dataclass
class _Places:
    """Where the records of a block are.

    Attributes:
        headers, bodies, ends: (N,) int64, where the header begins behind its `>`, where its line ends, and where the last
            line of the record ends.
        lengths: (N,) int64, bytes between `bodies` and `ends` but for line ends.
    """

    headers: np.ndarray
    bodies: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, block: bytes) -> "_Places":
        array = np.frombuffer(block, np.uint8)
        line_ends = np.flatnonzero(array == LINE_END)
        # By number, the line ends before each record; the last one of the block comes before what would follow.
        before = np.append(np.flatnonzero(array[line_ends[:-1] + 1] == ord(">")), len(line_ends) - 1)
        bodies, ends = line_ends[before[:-1] + 1], line_ends[before[1:]]
        return cls(line_ends[before[:-1]] + 2, bodies, ends, ends - bodies - (np.diff(before) - 1))


def _parsed(block: bytes, places: _Places, alphabet: Alphabet) -> tuple[Columns, np.ndarray]:
    """The records of a block, and (N,) bool, which are unusual, so that they have to be read carefully."""
    unusual = places.ends - places.headers > MAX_LETTERS
    ids, descriptions = _headers(block, places, unusual)
    sequences = _sequences(block, places, alphabet, unusual)
    return Columns(ids, descriptions, sequences, np.zeros(len(ids), np.int64)), unusual


def _headers(block: bytes, places: _Places, unusual: np.ndarray) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """Ids and descriptions; marks headers that are unusual, of which they may be wrong."""
    lines, bounds = strings.parts(strings.cut(block, places.headers, places.bodies + 1))
    content = lines.tobytes()
    begins, ends = bounds[:-1], bounds[1:] - 1
    blanks = np.flatnonzero(np.frombuffer(content.translate(BLANK), bool))
    # The first blank of each header comes behind the line end of the one before.
    is_last = np.frombuffer(content, np.uint8)[blanks] == LINE_END
    id_ends = blanks[np.append(True, is_last[:-1])]
    unusual |= (ends - begins > MAX_DESCRIPTION) | (id_ends == begins)
    if content.translate(None, USUAL_IN_HEADERS):
        odd = np.flatnonzero(np.frombuffer(content.translate(ODD_IN_HEADERS), bool))
        unusual[np.searchsorted(ends, odd)] = True
    ids = strings.cut(content, begins, id_ends).view(strings.TEXT)
    descriptions = strings.cut(content, id_ends, ends).view(strings.TEXT)
    return ids, pc.ascii_trim(descriptions, " \t")


def _sequences(block: bytes, places: _Places, alphabet: Alphabet, unusual: np.ndarray) -> pa.LargeBinaryArray:
    """The sequences; marks those that are unusual, which may be wrong."""
    lines, _ = strings.parts(strings.cut(block, places.bodies, places.ends))
    letters = lines.tobytes().replace(b"\n", b"")
    bounds = np.append(np.zeros(1, np.int64), np.cumsum(places.lengths))
    if letters.translate(None, alphabet.letters + b"*"):
        letters = letters.translate(alphabet.reading)
        wrong = np.frombuffer(letters.translate(alphabet.wrong), bool) & (np.frombuffer(letters, np.uint8) != STOP)
        unusual[np.searchsorted(bounds, np.flatnonzero(wrong), side="right") - 1] = True
    sequences = _without_stops(letters, bounds, unusual)
    letters, offsets = strings.parts(sequences)
    lengths = np.diff(offsets)
    unusual |= lengths == 0
    if alphabet.longest is not None:
        unusual |= lengths > alphabet.longest
    for row in alphabet.suspects(np.frombuffer(letters, np.uint8), offsets).tolist():
        unusual[row] |= alphabet.mistaken(sequences[row].as_py()) is not None
    return sequences


def _without_stops(letters: bytes, bounds: np.ndarray, unusual: np.ndarray) -> pa.LargeBinaryArray:
    """Sequences without the stop sign at the end of each; marks those that have others."""
    if b"*" not in letters:
        return strings.of(letters, bounds)
    is_stop = np.frombuffer(letters, np.uint8) == STOP
    sequences = np.searchsorted(bounds, np.flatnonzero(is_stop), side="right") - 1
    numbers = np.bincount(sequences, minlength=len(unusual))
    at_end = (numbers == 1) & is_stop[bounds[1:] - 1]
    unusual |= (numbers > 0) & ~at_end
    return strings.cut(letters, bounds[:-1], bounds[1:] - at_end)
