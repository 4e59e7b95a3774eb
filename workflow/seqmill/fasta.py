"""Protein records from FASTA files, checked while they are read."""

import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from Bio.SeqIO.FastaIO import SimpleFastaParser

from seqmill.errors import UserError

# The 20 amino acids, then the letters ESM-2 has tokens for besides: unknown, ambiguous (B, Z),
# selenocysteine (U) and pyrrolysine (O).
AMINO_ACIDS = b"ACDEFGHIKLMNPQRSTVWY" + b"XBUZO"
WHITESPACE = b" \t\r\n\v\f"
TO_X = bytes(c if c in AMINO_ACIDS else ord("X") for c in range(256))

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


@dataclass(frozen=True, slots=True)
class Protein:
    """One record: its id (first word of the header), upper-case residues and where it stands."""

    id: str
    sequence: bytes
    path: Path
    line: int
    replaced: int = 0

    @property
    def place(self) -> str:
        return f"{self.path}, line {self.line}: record '{self.id}'"


def read_proteins(path: Path | str, invalid: str = "error") -> Iterator[Protein]:
    """Yield the records of one FASTA or FASTA.gz file, in the file's order.

    Lower case is raised, white space and trailing stop signs (`*`) are dropped. `invalid` says what
    becomes of letters that are no amino acids: "error" refuses them, "replace" makes them X and counts
    them in `Protein.replaced`.

    Raises:
        UserError: the file is missing, truncated or no FASTA; a record has no id or no residues, holds
            nucleotides, or (with invalid="error") a letter outside the alphabet.
    """
    path = Path(path)
    starts: deque[int] = deque()
    try:
        with _open(path) as handle:
            for title, letters in SimpleFastaParser(_watch(handle, path, starts)):
                yield _protein(title, letters, path, starts.popleft(), invalid)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: the gzip data is truncated or damaged ({error}); copy the file again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_all(paths: Iterable[Path | str], invalid: str = "error") -> Iterator[Protein]:
    """Yield the records of several files; refuse a file without records and an id that comes twice.

    Raises:
        UserError: as `read_proteins`, and for empty files and duplicate ids.
    """
    seen: dict[str, tuple[Path, int]] = {}
    for path in paths:
        empty = True
        for protein in read_proteins(path, invalid):
            empty = False
            if protein.id in seen:
                first_path, first_line = seen[protein.id]
                raise UserError(
                    f"{protein.place} repeats the id of {first_path}, line {first_line}; give every record its own id"
                )
            seen[protein.id] = protein.path, protein.line
            yield protein
        if empty:
            raise UserError(f"{path}: the file is empty; it must hold at least one FASTA record")


def _open(path: Path) -> TextIO:
    """Open plain or gzip text, told apart by content, not by name."""
    with path.open("rb") as binary:
        magic = binary.read(6)
    for signature, name in OTHER_COMPRESSIONS.items():
        if magic.startswith(signature):
            raise UserError(f"{path}: is compressed with {name}; give it plain or compressed with gzip")
    binary = gzip.open(path) if magic.startswith(b"\x1f\x8b") else path.open("rb")
    # Only ids must be UTF-8; a stray byte in a description is nobody's problem.
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape")


def _watch(handle: TextIO, path: Path, starts: deque[int]) -> Iterator[str]:
    """Pass lines on, note the line numbers on which records start, and refuse what is no FASTA."""
    begun = False
    for number, line in enumerate(handle, 1):
        if line.startswith(">"):
            begun = True
            starts.append(number)
        elif not begun and line.strip():
            raise UserError(_not_fasta(line.lstrip(), path, number))
        yield line


def _not_fasta(line: str, path: Path, number: int) -> str:
    if not line.isprintable() and any(not (c.isprintable() or c.isspace()) for c in line[:200]):
        return f"{path}: is no text file; seqmill reads protein FASTA, plain or compressed with gzip"
    for start, name in OTHER_FORMATS.items():
        if line.startswith(start):
            return f"{path}, line {number}: this looks like {name}; seqmill reads protein FASTA, so convert it first"
    return f"{path}, line {number}: a FASTA file starts with '>', this one with '{line[:20].rstrip()}'"


def _protein(title: str, letters: str, path: Path, line: int, invalid: str) -> Protein:
    name = title.split(maxsplit=1)[0] if title.strip() else ""
    place = f"{path}, line {line}: record '{name}'"
    if not name or title[0].isspace():
        raise UserError(f"{path}, line {line}: the record has no id; write it straight after the '>'")
    if not name.isprintable():
        raise UserError(f"{path}, line {line}: the record's id {name!a} is not printable UTF-8 text; rename it")
    sequence = letters.encode("utf-8", "surrogateescape").upper().translate(None, WHITESPACE).rstrip(b"*")
    if not sequence:
        raise UserError(f"{place} has no sequence; remove the record or complete it")
    if _is_nucleotide(sequence):
        raise UserError(f"{place} looks like nucleotides; seqmill embeds proteins, so translate it first")
    wrong = sequence.translate(None, AMINO_ACIDS)
    if wrong and invalid == "error":
        raise UserError(f"{place} has {_describe(wrong, sequence)}; correct it, or set sequences.invalid to replace")
    return Protein(name, sequence.translate(TO_X), path, line, len(wrong))


def _describe(wrong: bytes, sequence: bytes) -> str:
    letter = wrong[:1]
    position = sequence.index(letter) + 1
    if letter in (b"-", b"."):
        return f"a gap '{letter.decode()}' at position {position}, as in an alignment"
    if letter == b"*":
        return f"a stop '*' inside the sequence, at position {position}"
    shown = letter.decode() if letter.isascii() and letter.decode().isprintable() else f"byte 0x{letter.hex()}"
    return f"'{shown}' at position {position}, which is no amino acid"


def _is_nucleotide(sequence: bytes) -> bool:
    """Whether all four bases are common and hardly anything else is there.

    A protein of 20 residues looks so about once in 10**11; asking for each of the four bases keeps
    low-complexity proteins (runs of N, A or T) out.
    """
    length = len(sequence)
    if length < 20 or len(sequence.translate(None, b"ACGTUN")) > 0.05 * length:
        return False
    bases = (
        sequence.count(b"A"),
        sequence.count(b"C"),
        sequence.count(b"G"),
        sequence.count(b"T") + sequence.count(b"U"),
    )
    return min(bases) >= 0.05 * length
