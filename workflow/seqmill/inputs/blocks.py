"""The bytes of FASTA files in blocks of whole records, plain or gzip; nothing in them is checked."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from seqmill.errors import UserError
from seqmill.inputs.fasta import MAX_LETTERS, look_at, readable
from seqmill.inputs.record import SHOWN, shown

BLOCK_BYTES = 2**22
# Of one record: more than the letters and the description that shard takes.
MAX_BLOCKS = 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"


def read(path: Path) -> Iterator[bytes]:
    r"""Yield the records of a file, some at a time: each block begins with the `\n>` of one and ends with a `\n`.

    All line ends are `\n`. What comes before the first header is blank and left out.

    Raises:
        UserError: the file is missing, truncated or not FASTA, or a record has no end.
    """
    look_at(path)
    with readable(path):
        with path.open("rb") as binary:
            is_gzip = binary.read(len(GZIP)) == GZIP
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            yield from _cut(file, path)


def _cut(file: BinaryIO, path: Path) -> Iterator[bytes]:
    # The end of what was read, from the last header on; in parts, as a record may be longer than a block.
    waiting = [b"\n", file.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK).replace(b"\r", b"\n")]
    while block := file.read(BLOCK_BYTES):
        block = block.replace(b"\r", b"\n")
        header = block.rfind(b"\n>") + 1
        if header or (block[:1] == b">" and (waiting[-1] or waiting[-2])[-1:] == b"\n"):
            yield from _from_header([*waiting, block[:header]])
            waiting = [b"\n", block[header:]]
        elif len(waiting) < MAX_BLOCKS + 1:
            waiting.append(block)
        else:
            title = b"".join(waiting).lstrip()[1:200].split(maxsplit=1)
            raise UserError(too_long(path, title[0] if title else b""))
    yield from _from_header([*waiting, b"\n"])


def _from_header(parts: list[bytes]) -> Iterator[bytes]:
    """The records of a block, if there are any."""
    block = b"".join(parts)
    begin = block.find(b"\n>")
    if begin >= 0:
        yield block[begin:]


def too_long(path: Path, name: bytes) -> str:
    return f"{place(path, name)} has more than {MAX_LETTERS:,} letters, the most that seqmill takes; remove it"


def place(path: Path, name: bytes) -> str:
    return f"{path}: record '{shown(name.decode('utf-8', 'replace'), SHOWN)}'"
