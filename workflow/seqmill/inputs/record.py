"""A record: an id and a sequence; and how messages name it."""

from dataclasses import dataclass
from pathlib import Path

# The column of tables of records with the SHA-256 of the sequence.
HASH = "sequence_sha256"
# Characters of an id in a message.
SHOWN = 60


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its id (first word of the header), upper-case letters and its place in the file.

    Attributes:
        path, line: where its header is; without a file None, and which of the sequences given it is, from 1.
        replaced: letters outside the alphabet that were replaced.
        description: the header behind the id.
        renamed_from: the id in the file, if it was repeated and got a number.
    """

    id: str
    sequence: bytes
    path: Path | None
    line: int
    replaced: int = 0
    description: str = ""
    renamed_from: str | None = None

    @property
    def place(self) -> str:
        return place(self.path, self.line, self.id)


def at(path: Path | None, line: int) -> str:
    """Where a record is, see `Record`."""
    return f"sequence {line:,}" if path is None else f"{path}, line {line}"


def place(path: Path | None, line: int, name: str) -> str:
    """Where a record is, and its id."""
    if path is None and name == str(line):
        return at(path, line)
    return f"{at(path, line)}: record '{shown(name, SHOWN)}'"


def shown(name: str, length: int) -> str:
    """An id as a message can print it, cut to a length."""
    shown = name if len(name) <= length else f"{name[:length]}..."
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def setting(name: str, value: str, path: Path | None) -> str:
    """How to set what is allowed; who gives sequences without a file does so in Python."""
    if path is None:
        return f'give {name}="{value}"'
    return f"set sequences.{name} to {value} (--{name.replace('_', '-')} {value})"
