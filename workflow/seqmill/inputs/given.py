"""Sequences that a program gives instead of a file, checked as the records of a FASTA file are."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord

from seqmill.errors import UserError
from seqmill.inputs.alphabet import Alphabet
from seqmill.inputs.fasta import MAX_LETTERS, checked
from seqmill.inputs.record import SHOWN, Record, place


class Given:
    """Sequences from Python, in the place of a file's path.

    Args:
        sequences: id to sequence; or sequences, whose ids are "1", "2" and so on, and records of Biopython, which have
            ids. A sequence is a string or a `Bio.Seq.Seq`.

    Attributes:
        stem: what an out-of-memory report calls them.

    Raises:
        UserError: something is neither.
    """

    stem = "sequences"

    def __init__(self, sequences: Mapping[str, Any] | Iterable[Any]):
        if isinstance(sequences, Mapping):
            entries = [(number, *entry) for number, entry in enumerate(sequences.items(), 1)]
        elif isinstance(sequences, Iterable) and not isinstance(sequences, bytes):
            entries = [(number, _id(number, entry), entry) for number, entry in enumerate(sequences, 1)]
        else:
            raise UserError(
                f"sequences cannot be {_kind(sequences)}; give the path of a FASTA file, a list of sequences, a dict of "
                "ids and sequences, or records of Biopython"
            )
        self._entries = [
            (number, _checked_id(number, name), _letters(number, entry), _about(entry))
            for number, name, entry in entries
        ]

    def __str__(self) -> str:
        return "the input from Python"

    def records(self, alphabet: Alphabet, invalid: str) -> Iterator[Record]:
        """Yield them in order, see `fasta.read_records`.

        Raises:
            UserError: as there, for what is wrong with the letters; says which sequence.
        """
        for number, name, letters, description in self._entries:
            if len(letters) > MAX_LETTERS:
                where = place(None, number, name)
                raise UserError(f"{where} has more than {MAX_LETTERS:,} letters, the most that seqmill takes")
            yield checked(name, letters, None, number, description, alphabet, invalid)


def _id(number: int, entry: Any) -> Any:
    return entry.id if isinstance(entry, SeqRecord) else str(number)


def _checked_id(number: int, name: Any) -> str:
    if not isinstance(name, str):
        raise UserError(f"sequence {number:,}: its id is {_kind(name)}; ids are strings")
    if not name or not name.isprintable() or name != name.strip():
        raise UserError(
            f"sequence {number:,}: its id {name[:SHOWN]!a} is empty, or has white space around it or characters that cannot "
            "be printed; rename it"
        )
    return name


def _letters(number: int, entry: Any) -> str:
    sequence = entry.seq if isinstance(entry, SeqRecord) else entry
    if not isinstance(sequence, str | Seq):
        raise UserError(f"sequence {number:,} is {_kind(sequence)}; give a string, or a record of Biopython")
    try:
        # What no encoding has becomes a question mark, which is no letter.
        return str(sequence).encode("utf-8", "replace").decode()
    except ValueError:  # Biopython has sequences of which only the length is known
        return ""


def _about(entry: Any) -> str:
    """The description without the id, with which Biopython's begins."""
    if not isinstance(entry, SeqRecord) or entry.description == "<unknown description>":
        return ""
    return " ".join(entry.description.removeprefix(str(entry.id)).split())


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
