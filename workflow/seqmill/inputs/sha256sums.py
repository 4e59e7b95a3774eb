"""SHA256SUMS: the checksums of a folder's files, in a file beside them that `sha256sum --check` reads too."""

import re
from collections.abc import Iterable
from pathlib import Path

from seqmill.errors import UserError
from seqmill.files import sha256, write_atomically

NAME = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
AGAIN = "run again with --forcerun shard"


def write(folder: Path, names: Iterable[str]) -> None:
    """Write SHA256SUMS of these files of `folder`."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names]
    with write_atomically(folder / NAME) as temporary:
        temporary.write_text("".join(lines))


def verify(path: Path) -> None:
    """Compare a file with the SHA256SUMS beside it.

    Raises:
        UserError: the file is missing, differs or is not listed; SHA256SUMS is missing or damaged.
    """
    sums = _read(path.with_name(NAME))
    if path.name not in sums:
        raise UserError(f"{path}: is not listed in the {NAME} beside it; {AGAIN}")
    try:
        found = sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None
    if found != sums[path.name]:
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
