"""Files that exist complete or not at all: atomic writes, JSON, SHA-256."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqmill.errors import UserError, is_disk_full

# Of the file or folder that it becomes, and of the process.
TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp", re.DOTALL)
DISK_FULL = "the disk is full or the quota used up; free some space and run the same command again"


@contextmanager
def write_atomically(path: Path, sync: bool = True, leftovers: bool = True) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block succeeds, else delete it.

    `sync` waits for the disk first, so that not even a power cut leaves half a file. `leftovers` removes those of earlier
    writers, for which the folder is listed; who writes many files into one folder calls `remove_leftovers` once instead.

    Raises:
        UserError: the disk is full.
    """
    if leftovers:
        remove_leftovers(path.parent, [path.name])
    with _renamed(path) as temporary:
        yield temporary
        if sync:
            _sync(temporary)


@contextmanager
def write_folder_atomically(path: Path) -> Iterator[Path]:
    """Yield a new folder under a temporary name beside `path`; rename it to `path` when the block succeeds, else delete it.

    `path` may be an empty folder. The disk is waited for, as in `write_atomically`.

    Raises:
        UserError: the disk is full.
    """
    remove_leftovers(path.parent, [path.name])
    with _renamed(path) as temporary:
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            _sync(file)


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` for a file or a folder, which takes its place at the end."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with reports_full_disk(path.parent):
            yield temporary
            temporary.replace(path)
    finally:
        _remove(temporary)


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove the temporary files, or folders, of earlier writers of these files of a folder that were killed."""
    for other in folder.iterdir():
        if (found := TEMPORARY.fullmatch(other.name)) and found[1] in names:
            _remove(other)


@contextmanager
def reports_full_disk(folder: Path) -> Iterator[None]:
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


def write_at(descriptor: int, content: memoryview, position: int, folder: Path) -> None:
    """Write all bytes to a place in an open file of `folder`.

    Raises:
        UserError: the disk is full.
    """
    while content:
        with reports_full_disk(folder):
            written = os.pwrite(descriptor, content, position)
        position, content = position + written, content[written:]


def read_at(descriptor: int, buffer: memoryview, position: int) -> bool:
    """Fill a buffer of bytes from a place in an open file; whether the file went on so far."""
    while buffer:
        if not (count := os.preadv(descriptor, [buffer], position)):
            return False
        position, buffer = position + count, buffer[count:]
    return True


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
