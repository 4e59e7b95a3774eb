"""File locks between processes: they wait, say so once, and end with the process that holds them."""

import errno
import itertools
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from seqmill.errors import UserError

log = logging.getLogger(__name__)

# How often a waiting process looks again.
POLL_SECONDS = 0.2
# What network file systems answer that are mounted without locks.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)

Key = TypeVar("Key")


class Lock:
    """A lock that is held until `release` or the end of the process.

    Attributes:
        path: the lock file.
    """

    def __init__(self, path: Path, held: FileLock | None):
        self.path = path
        self._held = held

    def release(self) -> None:
        if self._held is not None:
            self._held.release()


def acquire_any(paths: Mapping[Key, Path], waiting: str) -> tuple[Key, Lock]:
    """Lock the first file that nobody holds, and wait for one while all are held.

    On a file system without locks, this warns and continues without one.

    Args:
        paths: the lock files to choose from, by what they stand for.
        waiting: logged once if this has to wait.

    Raises:
        UserError: a lock file cannot be written or locked.
    """
    locks = {key: FileLock(path) for key, path in paths.items()}
    for attempt in itertools.count():
        for key, lock in locks.items():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise UserError(
                        f"{paths[key]}: cannot be locked ({error.strerror or error}); remove it, or give this user the "
                        "right to write there"
                    ) from None
                log.warning(
                    "%s: the file system has no locks: make sure that no two runs share this folder", paths[key].parent
                )
                return key, Lock(paths[key], None)
            return key, Lock(paths[key], lock)
        if attempt == 0:
            log.info("%s", waiting)
        time.sleep(POLL_SECONDS)
    raise AssertionError("unreachable")


def acquire(path: Path, waiting: str) -> Lock:
    """Lock one file, see `acquire_any`."""
    return acquire_any({None: path}, waiting)[1]
