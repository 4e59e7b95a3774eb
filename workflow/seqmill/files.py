"""Files that are there whole or not at all."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqmill.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL = "the disk is full or the quota used up; make room and run the same command again"


@contextmanager
def write_atomically(path: Path, sync: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well, else delete it.

    `sync` waits for the disk first, so that not even a power cut leaves half a file.

    Raises:
        UserError: the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    remove_leftovers(path)
    try:
        with needs_room(path.parent):
            yield temporary
            if sync:
                with temporary.open("rb") as handle:
                    os.fsync(handle.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of earlier writers of `path` that were killed."""
    temporary = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
    for other in path.parent.iterdir():
        if temporary.fullmatch(other.name):
            other.unlink(missing_ok=True)


@contextmanager
def needs_room(folder: Path) -> Iterator[None]:
    """Turn a full disk, met by a block that writes to `folder`, into a sentence.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise UserError(f"{folder}: {DISK_FULL}") from None
        raise


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, means a full disk or a used-up quota.

    Where HDF5 fails to flush or to close a file, h5py raises a RuntimeError that has the number in its text only.
    """
    if error is None:
        return False
    number = re.search(r"\berrno = (\d+)", str(error))
    if getattr(error, "errno", None) in FULL or (number and int(number[1]) in FULL):
        return True
    return is_disk_full(error.__cause__ or (None if error.__suppress_context__ else error.__context__))


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_json(path: Path, content: Any, sync: bool = True) -> None:
    """Write `content` as indented JSON, atomically."""
    with write_atomically(path, sync) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
