"""SHA256SUMS: the checksums of a folder's files, in a file beside them that `sha256sum --check` reads too."""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from seqmill.errors import UserError
from seqmill.files import sha256, write_atomically

NAME = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
AGAIN = "run again with --forcerun shard"


class Summed(io.RawIOBase):
    """A file that is written from its beginning to its end, and its SHA-256."""

    def __init__(self, file: BinaryIO):
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        self._size += len(content)
        return self._file.write(content)

    def tell(self) -> int:
        return self._size

    def sum(self) -> str:
        """Hexadecimal."""
        return self._digest.hexdigest()


@contextmanager
def writing(path: Path, sums: dict[str, str]) -> Iterator[Summed]:
    """Yield a file to write to, which becomes `path` when the block succeeds, and adds its sum to `sums`.

    What earlier writers left in the folder is for the caller to remove, see `files.remove_leftovers`.

    Raises:
        UserError: the disk is full.
    """
    with write_atomically(path, leftovers=False) as temporary:
        with temporary.open("wb") as file:
            summed = Summed(file)
            yield summed
        sums[path.name] = summed.sum()


def write(folder: Path, sums: Mapping[str, str]) -> None:
    """Write SHA256SUMS of files of `folder`: name to sum."""
    lines = [f"{found}  {name}\n" for name, found in sums.items()]
    with write_atomically(folder / NAME) as temporary:
        temporary.write_text("".join(lines))


def verify(path: Path) -> None:
    """Compare a file with the SHA256SUMS beside it.

    Raises:
        UserError: the file is missing, differs or is not listed; SHA256SUMS is missing or damaged.
    """
    with _compared(path) as found:
        found.append(sha256(path))


def verified(path: Path) -> bytes:
    """The content of a file, after comparing it with the SHA256SUMS beside it; raises as `verify`."""
    with _compared(path) as found:
        content = path.read_bytes()
        found.append(hashlib.sha256(content).hexdigest())
    return content


@contextmanager
def _compared(path: Path) -> Iterator[list[str]]:
    """Compare the sum that the block finds for a file, and puts in the list, with the one in SHA256SUMS."""
    sums, found = _read(path.with_name(NAME)), []
    if path.name not in sums:
        raise UserError(f"{path}: is not listed in the {NAME} beside it; {AGAIN}")
    try:
        yield found
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None
    if found != [sums[path.name]]:
        raise UserError(f"{path}: is damaged, its SHA-256 is not the one in {NAME}; {AGAIN}")


def _read(path: Path) -> dict[str, str]:
    """Name to sum."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None
    except UnicodeDecodeError:
        lines = [""]
    matches = [LINE.fullmatch(line) for line in lines]
    if not all(matches):
        raise UserError(f"{path}: is damaged; {AGAIN}")
    return {match[2]: match[1] for match in matches}
