r"""The file of a shard: `>`, a sequence's hash, `\n`, the sequence, `\n`, and so on, longest first, no sequence twice."""

import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from seqmill.inputs import sha256sums
from seqmill.inputs.alphabet import Alphabet
from seqmill.inputs.fasta import MAX_LETTERS
from seqmill.inputs.hash_index import first_bytes

if TYPE_CHECKING:
    import pyarrow as pa

# A `>`, a hash and a line end.
HEADER_BYTES = 66
DIGITS = b"0123456789abcdef"
# Bytes that are written, or looked at, at once, and records that are read at once.
BLOCK_BYTES, RECORDS = 2**22, 2**14


def blocks(
    hashes: np.ndarray, sequences: "pa.LargeBinaryArray", lengths: np.ndarray, rows: np.ndarray
) -> Iterator[memoryview]:
    """The content of a shard, some records at a time.

    Args:
        hashes: (N, 32) uint8, of the sequences.
        sequences: (N,) bytes.
        lengths: (N,) int64, letters of each.
        rows: (n,) int64, those that are in the shard.
    """
    # Only here: who reads shards need not wait for what it imports.
    from seqmill.inputs import strings

    ends = np.cumsum(lengths[rows] + HEADER_BYTES)
    for part in np.split(rows, np.flatnonzero(np.diff(ends // BLOCK_BYTES)) + 1):
        headers = np.full((len(part), HEADER_BYTES - 1), ord(">"), np.uint8)
        headers[:, 1:] = np.frombuffer(binascii.hexlify(hashes[part]), np.uint8).reshape(-1, 64)
        places = (HEADER_BYTES - 1) * np.arange(len(part) + 1)
        yield strings.in_lines(strings.of(headers, places), sequences.take(part))


class ShardFile:
    """The file of a shard in the place of its path, after comparing it with the SHA256SUMS beside it.

    Attributes:
        path: of the file.
        stem: what an out-of-memory report calls it.

    Raises:
        UserError: see `sha256sums.verify`.
    """

    def __init__(self, path: Path):
        self.path, self.stem = path, path.stem
        self._content = sha256sums.verified(path)

    def __str__(self) -> str:
        return str(self.path)

    def take(self, alphabet: Alphabet) -> "Shard | None":
        """What the file holds, see `parse`; once, as its content, which is as large, is not kept."""
        content, self._content = self._content, b""
        return parse(content, alphabet)


class Shard(NamedTuple):
    """What a shard's file holds.

    Attributes:
        ids: (N,) the hashes of the sequences, hexadecimal.
        letters: (total,) uint8, the sequences end to end.
        offsets: (N + 1,) int64, where each begins.
    """

    ids: list[str]
    letters: np.ndarray
    offsets: np.ndarray


def parse(content: bytes, alphabet: Alphabet) -> Shard | None:
    """The sequences of a shard from its bytes, of which SHA-256 says that they are as they were written.

    Returns:
        None where they are not the file of a shard, or where the alphabet has anything to say of a sequence: then
        `fasta.read_records` has to read them.
    """
    line_ends = _line_ends(content)
    if not len(line_ends) or len(line_ends) % 2 or line_ends[-1] != len(content) - 1:
        return None
    bodies, ends = line_ends[::2] + 1, line_ends[1::2]
    begins, lengths = np.append(np.zeros(1, np.int64), ends[:-1] + 1), ends - bodies
    most = min(alphabet.longest or MAX_LETTERS, MAX_LETTERS - 1)
    if (
        (bodies - begins != HEADER_BYTES).any()
        or (np.diff(lengths) > 0).any()
        or not most >= lengths[0] >= lengths[-1] > 0
    ):
        return None
    offsets = np.append(np.zeros(1, np.int64), np.cumsum(lengths))
    ids, letters, keys = [], np.empty(offsets[-1], np.uint8), []
    lines = np.lib.stride_tricks.sliding_window_view(np.frombuffer(content, np.uint8), HEADER_BYTES)
    for start in range(0, len(ends), RECORDS):
        stop = min(start + RECORDS, len(ends))
        headers = lines[begins[start:stop]]
        hashes = _hashes(headers)
        # What is in headers is in no sequence: no letter of an alphabet is among it.
        own = content[begins[start] : ends[stop - 1]].translate(None, b">\n" + DIGITS)
        if hashes is None or not _is_right(own, offsets[start : stop + 1] - offsets[start], alphabet):
            return None
        ids += headers.tobytes()[1:-1].decode().split("\n>")
        letters[offsets[start] : offsets[stop]] = np.frombuffer(own, np.uint8)
        keys.append(first_bytes(hashes))
    return Shard(ids, letters, offsets) if _are_distinct(np.concatenate(keys)) else None


def _line_ends(content: bytes) -> np.ndarray:
    array = np.frombuffer(content, np.uint8)
    starts = range(0, len(array), BLOCK_BYTES)
    found = [start + np.flatnonzero(array[start : start + BLOCK_BYTES] == ord("\n")) for start in starts]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _hashes(headers: np.ndarray) -> np.ndarray | None:
    """(N, 32) uint8, from header lines, (N, HEADER_BYTES) uint8; None where they are something else."""
    digits = headers[:, 1:-1].tobytes()
    if (headers[:, 0] != ord(">")).any() or digits.translate(None, DIGITS):
        return None
    return np.frombuffer(binascii.unhexlify(digits), np.uint8).reshape(-1, 32)


def _is_right(letters: bytes, offsets: np.ndarray, alphabet: Alphabet) -> bool:
    """Whether sequences that are end to end have no letters but the alphabet's and look like its kind."""
    if len(letters) != offsets[-1] or letters.translate(None, alphabet.letters):
        return False
    suspects = alphabet.suspects(np.frombuffer(letters, np.uint8), offsets)
    return not any(alphabet.mistaken(letters[offsets[row] : offsets[row + 1]]) for row in suspects.tolist())


def _are_distinct(keys: np.ndarray) -> bool:
    in_order = np.sort(keys)
    return not (in_order[1:] == in_order[:-1]).any()
