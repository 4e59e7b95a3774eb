"""Records from FASTA files, checked while they are read."""

import gzip
import io
import stat
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

from seqmill.errors import UserError
from seqmill.inputs.alphabet import Alphabet
from seqmill.inputs.ids import with_own_ids
from seqmill.inputs.record import SHOWN, Record, place, setting

WHITESPACE = b" \t\r\n\v\f"

# These bound memory and time, whatever a file holds or gzip makes of it.
# Characters of a line that are read at a time, and thereby of an id: wrapped FASTA has 60 or 80 in a line, ids have 20.
PIECE = 2**20
# The longest protein known, PKZILLA-1, has 45,212 residues; predicted ones have hundreds of thousands.
MAX_LETTERS = 10_000_000
# Characters of a record's description and of blank lines, which are not kept: a description of 10 MB does no harm.
MAX_SKIPPED = 15_000_000
# Characters of a description that are kept; what the longest of UniProt's have is a few hundred.
MAX_DESCRIPTION = 10_000

OTHER_FORMATS = {
    "@": "FASTQ",
    "LOCUS": "GenBank",
    "ID ": "EMBL or UniProt text",
    "HEADER": "PDB",
    "%PDF": "PDF",
    "<": "HTML or XML",
    "CLUSTAL": "Clustal alignment",
    "# STOCKHOLM": "Stockholm alignment",
    "#NEXUS": "NEXUS",
    "{": "JSON",
}
OTHER_COMPRESSIONS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


def read_records(path: Path | str, alphabet: Alphabet, invalid: str = "error") -> Iterator[Record]:
    """Yield the records of one FASTA or FASTA.gz file, in the file's order.

    Lower case is raised, white space and trailing stop signs (`*`) are dropped. `invalid` says what happens to
    letters outside the alphabet: "error" refuses them, "replace" replaces them and counts them in `Record.replaced`.

    Raises:
        UserError: the file is missing, truncated or not FASTA; a record has no id or no letters, is of another kind
            than the alphabet, holds a '>', more than MAX_LETTERS, or (with invalid="error") a letter outside the
            alphabet.
    """
    path = Path(path)
    with _opened(path) as handle:
        yield from _records(handle, path, alphabet, invalid)


def read_record(content: bytes, path: Path, alphabet: Alphabet, invalid: str) -> Record:
    """The one record of some bytes that were cut out of a file, as `read_records` reads it, but for its line.

    Raises:
        UserError: see there.
    """
    return next(_records(_text(io.BytesIO(content)), path, alphabet, invalid))


def _records(handle: TextIO, path: Path, alphabet: Alphabet, invalid: str) -> Iterator[Record]:
    # Only here: who reads verified shards, or in columns, need not wait for all that it imports.
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    starts: deque[int] = deque()
    for title, letters in SimpleFastaParser(_watch(handle, path, starts)):
        yield _record(title, letters, path, starts.popleft(), alphabet, invalid)


def look_at(path: Path | str) -> None:
    """Refuse what is not a FASTA file, as far as its first line shows; raises as `read_records`."""
    with _opened(Path(path)) as handle:
        next(_watch(handle, Path(path), deque()), None)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The file's text; while it is read, errors of the file are sentences."""
    with readable(path), _open(path) as handle:
        yield handle


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of a file, met by a block that reads it, into sentences.

    Raises:
        UserError: the file is missing, cannot be read, or is damaged gzip.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: the gzip data is truncated or damaged ({error}); copy the file again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_all(
    paths: Iterable[Path | str], alphabet: Alphabet, invalid: str = "error", duplicate_ids: str = "error"
) -> Iterator[Record]:
    """Yield the records of several files, each under an id of its own; refuse a file without records.

    Raises:
        UserError: as `read_records` and `with_own_ids`, and for empty files.
    """
    return with_own_ids(_not_empty(paths, alphabet, invalid), duplicate_ids)


def _not_empty(paths: Iterable[Path | str], alphabet: Alphabet, invalid: str) -> Iterator[Record]:
    for path in paths:
        empty = True
        for record in read_records(path, alphabet, invalid):
            empty = False
            yield record
        if empty:
            raise UserError(f"{path}: the file is empty; it must hold at least one FASTA record")


def _open(path: Path) -> TextIO:
    """Open plain or gzip text, recognised by content, not by name."""
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        # It may never end, or never begin, and cannot be read twice.
        raise UserError(f"{path}: is a pipe or a device; write the sequences to a file and give that")
    with path.open("rb") as binary:
        magic = binary.read(6)
    for signature, name in OTHER_COMPRESSIONS.items():
        if magic.startswith(signature):
            raise UserError(f"{path}: is compressed with {name}; give it plain or compressed with gzip")
    binary = gzip.open(path) if magic.startswith(b"\x1f\x8b") else path.open("rb")
    return _text(binary)


def _text(binary: BinaryIO) -> TextIO:
    # Only ids must be UTF-8; a stray byte in a description does no harm.
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape")


def _watch(handle: TextIO, path: Path, starts: deque[int]) -> Iterator[str]:
    """Pass lines on, note on which ones records start, and refuse what is not FASTA or has no bounds.

    Long lines come in pieces. Of a header only the first is passed on: the id is in it.
    """
    title, length, skipped, number = "", 0, 0, 0
    line_begins, in_header = True, False
    for piece in iter(partial(handle.readline, PIECE), ""):
        if line_begins:
            number += 1
            # A '>' at the seam between two pieces of a long line begins no header.
            in_header = piece[0] == ">"
        if in_header and line_begins:
            title, length, skipped = piece[1:], 0, 0
            starts.append(number)
            yield piece
        elif in_header or piece.isspace():
            skipped += len(piece)
            if skipped > MAX_SKIPPED:
                raise UserError(
                    f"{path}, line {number}: here are more than {MAX_SKIPPED:,} characters of description or blank lines; "
                    "remove them"
                )
        elif not title:
            raise UserError(_not_fasta(piece.lstrip(), path, number))
        else:
            length += len(piece)
            if length > MAX_LETTERS:
                raise UserError(
                    f"{place(path, starts[-1], _id(title))} has more than {MAX_LETTERS:,} letters, the most that seqmill takes; "
                    "remove it"
                )
            yield piece if line_begins else f" {piece}"
        line_begins = piece[-1] == "\n"


def _not_fasta(line: str, path: Path, number: int) -> str:
    if not line.isprintable() and any(not (c.isprintable() or c.isspace()) for c in line[:200]):
        return f"{path}: is not a text file; seqmill reads FASTA, plain or compressed with gzip"
    for start, name in OTHER_FORMATS.items():
        if line.startswith(start):
            return f"{path}, line {number}: this looks like {name}; seqmill reads FASTA, so convert it first"
    return f"{path}, line {number}: a FASTA file starts with '>', this one with '{line[:20].rstrip()}'"


def _record(title: str, letters: str, path: Path, line: int, alphabet: Alphabet, invalid: str) -> Record:
    name = _id(title)
    if not name or title[0].isspace():
        raise UserError(f"{path}, line {line}: the record has no id; write it straight after the '>'")
    if not name.isprintable():
        raise UserError(f"{path}, line {line}: the record's id {name[:SHOWN]!a} is not printable UTF-8 text; rename it")
    return checked(name, letters, path, line, _description(title), alphabet, invalid)


def checked(
    name: str, letters: str, path: Path | None, line: int, description: str, alphabet: Alphabet, invalid: str
) -> Record:
    """A record as `read_records` gives it; arguments as `Record` has them.

    Raises:
        UserError: something is wrong with the letters, see `read_records`.
    """
    if not letters.isascii():
        # Unicode has more white space than ASCII, as what is copied from a web page or a word processor shows.
        letters = "".join(letters.split())
    sequence = letters.encode("utf-8", "surrogateescape").upper().translate(None, WHITESPACE).rstrip(b"*")
    sequence = alphabet.read(sequence)
    wrong = sequence.translate(None, alphabet.letters)
    if complaint := _complaint(name, sequence, wrong, path, alphabet, invalid):
        raise UserError(f"{place(path, line, name)} {complaint}")
    return Record(name, alphabet.replaced(sequence) if wrong else sequence, path, line, len(wrong), description)


def _complaint(
    name: str, sequence: bytes, wrong: bytes, path: Path | None, alphabet: Alphabet, invalid: str
) -> str | None:
    """What is wrong with a record, and what to do; None where it is good."""
    if len(name) >= PIECE - 1:
        return f"has an id of more than {PIECE - 2:,} characters; put a space behind the id, or shorten it"
    if not sequence:
        return "has no sequence; remove the record or complete it"
    if mistake := alphabet.mistaken(sequence):
        return mistake
    # Whatever `invalid` says: most likely the next record's header, without the line end before it.
    if b">" in wrong:
        return f"has a '>' at position {sequence.index(b'>') + 1} of its sequence; a header begins a line"
    if wrong and invalid == "error":
        advice = setting("invalid", "replace", path)
        return f"has {_describe(wrong, sequence, alphabet)}; correct it, or {advice}"
    if alphabet.longest is not None and len(sequence) > alphabet.longest:
        advice = setting("long", "window", path)
        return (
            f"has {len(sequence):,} {alphabet.members}, and {alphabet.longest:,} is the most that {alphabet.limit}; {advice}, "
            "or shorten it or leave it out"
        )
    return None


def _id(title: str) -> str:
    """The first word of a header."""
    return title.split(maxsplit=1)[0] if title.strip() else ""


def _description(title: str) -> str:
    """The header behind the first word; bytes that are not UTF-8 become question marks."""
    words = title.split(maxsplit=1)
    return words[1][:MAX_DESCRIPTION].strip().encode("utf-8", "replace").decode() if len(words) > 1 else ""


def _describe(wrong: bytes, sequence: bytes, alphabet: Alphabet) -> str:
    letter = wrong[:1]
    position = sequence.index(letter) + 1
    if letter in (b"-", b"."):
        return f"a gap '{letter.decode()}' at position {position}, as in an alignment"
    if letter == b"*":
        return f"a stop '*' inside the sequence, at position {position}"
    shown = letter.decode() if letter.isascii() and letter.decode().isprintable() else f"byte 0x{letter.hex()}"
    return f"'{shown}' at position {position}, which is not {alphabet.member}"
