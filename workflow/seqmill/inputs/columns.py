"""Records in columns: the same as `fasta.read_records` reads one by one, several times as fast.

What is as usual in a block is read as a whole; records that have anything unusual are read by `fasta.read_record`.
"""

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from seqmill.errors import UserError
from seqmill.inputs import blocks
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
        ids, descriptions: (N,) in UTF-8, see `Record`.
        letters: holds all sequences.
        starts, stops: (N,) int64, where each is.
        replaced: (N,) int64, letters outside the alphabet that were replaced.
    """

    ids: list[bytes]
    descriptions: list[bytes]
    letters: bytes
    starts: np.ndarray
    stops: np.ndarray
    replaced: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def sequences(self, rows: np.ndarray | slice = slice(None)) -> list[bytes]:
        """Of some rows."""
        return cut(self.letters, self.starts[rows], self.stops[rows])

    @classmethod
    def of(cls, records: list[Record]) -> "Columns":
        stops = np.cumsum([len(record.sequence) for record in records], dtype=np.int64)
        return cls(
            [record.id.encode() for record in records],
            [record.description.encode() for record in records],
            b"".join(record.sequence for record in records),
            np.append(np.zeros(1, np.int64), stops[:-1]),
            stops,
            np.array([record.replaced for record in records], np.int64),
        )

    def replace(self, rows: np.ndarray, records: list[Record]) -> None:
        """Put records in the place of some rows."""
        begin = len(self.letters)
        self.letters = b"".join([self.letters, *(record.sequence for record in records)])
        for row, record in zip(rows.tolist(), records, strict=True):
            self.ids[row], self.descriptions[row] = record.id.encode(), record.description.encode()
            self.replaced[row] = record.replaced
            self.starts[row] = begin
            begin = self.stops[row] = begin + len(record.sequence)


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
            rows = np.flatnonzero(unusual)
            contents = cut(block, places.headers[rows] - 1, places.ends[rows])
            columns.replace(rows, [read_record(content, path, alphabet, invalid) for content in contents])
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
    letters = b"".join(cut(block, places.bodies, places.ends)).translate(alphabet.reading, b"\n")
    bounds = np.append(np.zeros(1, np.int64), np.cumsum(places.lengths))
    starts, stops = bounds[:-1], bounds[1:].copy()
    _stops(letters, bounds, stops, unusual)
    array = np.frombuffer(letters, np.uint8)
    if letters.translate(None, alphabet.letters + b"*"):
        wrong = np.frombuffer(letters.translate(alphabet.wrong), bool) & (array != STOP)
        unusual[np.searchsorted(bounds, np.flatnonzero(wrong), side="right") - 1] = True
    lengths = stops - starts
    unusual |= lengths == 0
    if alphabet.longest is not None:
        unusual |= lengths > alphabet.longest
    for row in alphabet.suspects(array, starts, stops).tolist():
        unusual[row] |= alphabet.mistaken(letters[starts[row] : stops[row]]) is not None
    return Columns(ids, descriptions, letters, starts.copy(), stops, np.zeros(len(ids), np.int64)), unusual


def _headers(block: bytes, places: _Places, unusual: np.ndarray) -> tuple[list[bytes], list[bytes]]:
    """Ids and descriptions; marks headers that are unusual, of which they may be wrong."""
    content = b"".join(cut(block, places.headers, places.bodies + 1))
    lengths = places.bodies - places.headers
    ends = np.cumsum(lengths + 1) - 1
    begins = ends - lengths
    is_blank = np.frombuffer(content.translate(BLANK), bool)
    blanks = np.flatnonzero(is_blank)
    id_ends = blanks[np.searchsorted(blanks, begins)]
    unusual |= (lengths > MAX_DESCRIPTION) | (id_ends == begins)
    if content.translate(None, USUAL_IN_HEADERS):
        odd = np.flatnonzero(np.frombuffer(content.translate(ODD_IN_HEADERS), bool))
        unusual[np.searchsorted(ends, odd)] = True
    descriptions = cut(content, id_ends + 1, ends)
    for row in np.flatnonzero((is_blank[np.minimum(id_ends + 1, ends)]) | is_blank[ends - 1]).tolist():
        descriptions[row] = descriptions[row].strip()
    return cut(content, begins, id_ends), descriptions


def cut(content: bytes, starts: np.ndarray, stops: np.ndarray) -> list[bytes]:
    """Stretches of some bytes, from `starts` to `stops`, (N,)."""
    return [content[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]


def _stops(letters: bytes, bounds: np.ndarray, stops: np.ndarray, unusual: np.ndarray) -> None:
    """Leave out the stop sign at the end of a sequence; mark sequences that have others."""
    if b"*" not in letters:
        return
    array = np.frombuffer(letters, np.uint8)
    sequences = np.searchsorted(bounds, np.flatnonzero(array == STOP), side="right") - 1
    numbers = np.bincount(sequences, minlength=len(stops))
    at_end = (numbers == 1) & (array[stops - 1] == STOP)
    unusual |= (numbers > 0) & ~at_end
    stops -= at_end
