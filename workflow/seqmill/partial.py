"""The unfinished result of a shard: it outlives the process that works on it, and the next one goes on from there."""

import errno
import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from filelock import FileLock, Timeout

from seqmill import checksums
from seqmill.errors import UserError
from seqmill.files import read_json, write_atomically, write_json
from seqmill.store import Damaged, EmbeddingFile, lay_out
from seqmill.termination import Termination

log = logging.getLogger(__name__)

# What a process that is killed without warning loses at most.
FLUSH_SECONDS = 20
POLL_SECONDS = 2
# What network file systems answer that are mounted without locks.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)


def folder_for(output: Path) -> Path:
    """Where the unfinished result of the folder `output` is kept: beside it, as Snakemake empties outputs."""
    output = output.resolve()
    return output.with_name(f"{output.name}.partial")


def remove(folder: Path) -> None:
    """Remove the unfinished result of a shard that is finished."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Progress:
    """How far a shard is; what `progress.json` holds.

    Attributes:
        identity: what must be the same for the rows to be of use.
        done: sequences whose rows are complete, the first so many in the order of computing.
        checksums: of those rows per dataset, and of all around them.
        attention: the kernels that computed them.
        choices: settings chosen automatically and what they were chosen for; empty after an out of memory.
        ooms: each out of memory on the way.
    """

    identity: dict[str, Any]
    done: int = 0
    checksums: dict[str, int] = field(default_factory=dict)
    attention: list[str] = field(default_factory=list)
    choices: dict[str, Any] = field(default_factory=dict)
    ooms: list[dict[str, Any]] = field(default_factory=list)


class Useless(Exception):
    """What an earlier process left cannot be gone on with."""


class Partial:
    """A folder with `embeddings.h5`, laid out in full, and `progress.json`. Use as a context manager.

    Entering waits until no other process works on the same shard. While inside, what is complete is flushed every
    FLUSH_SECONDS; SIGTERM, which clusters send before they kill, flushes and ends the process with status 143.

    Args:
        keep: keep it when it has been published, too, for a caller that may throw away what was published.

    Attributes:
        progress: None until `load`.
    """

    def __init__(self, folder: Path, keep: bool):
        self.folder = folder
        self.keep = keep
        self.path = folder / "embeddings.h5"
        self.progress: Progress | None = None
        self.file: EmbeddingFile | None = None
        # Held while `progress` changes; while it is written.
        self._changing, self._saving = threading.Lock(), threading.Lock()
        self._leaving = threading.Event()
        self._failure: Exception | None = None

    def __enter__(self) -> "Partial":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder)
        self._termination = Termination(self._terminate)
        self._flusher = threading.Thread(target=self._flush_often, name="flush", daemon=True)
        self._flusher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leaving.set()
        self._flusher.join()
        try:
            # What has been computed is not lost with the error that ends it.
            self.flush()
        except (OSError, UserError) as error:
            if kind is None:
                raise
            log.warning("%s: what was computed since the last flush is lost (%s)", self.folder, error)
        finally:
            self._termination.disarm()
            if self.file is not None:
                self.file.__exit__()
            if self._lock is not None:
                self._lock.release()
            if not (self.folder / "progress.json").exists():
                remove(self.folder)

    def load(self, identity: dict[str, Any], datasets: Sequence[str], order: np.ndarray) -> Progress:
        """What an earlier process left of the same work, if it is sound; else a new beginning.

        Args:
            identity: what must be the same for its rows to be of use.
            order: (N,) rows of the shard in the order of computing.
        """
        self.progress = Progress(identity)
        try:
            found = Progress(**read_json(self.folder / "progress.json"))
            log.info("%s: verifying what an earlier run left there", self.folder)
            self._check(found, identity, datasets, order)
            self.progress = found
        except FileNotFoundError:
            self._clear()
        except (Useless, Damaged, OSError, ValueError, TypeError, KeyError) as problem:
            log.warning("%s: starting over, what an earlier run left there is of no use (%s)", self.folder, problem)
            self._clear()
        return self.progress

    def _check(self, found: Progress, identity: dict[str, Any], datasets: Sequence[str], order: np.ndarray) -> None:
        if differing := [name for name in identity if found.identity.get(name) != identity[name]]:
            raise Useless(f"it is of other {', '.join(differing)}")
        with EmbeddingFile(self.path) as file:
            rows = order[: found.done]
            sums = {name: checksums.of_dataset(file, name, rows) for name in datasets}
            sums[checksums.AROUND] = checksums.around(file)
        if damaged := [name for name, value in sums.items() if value != found.checksums[name]]:
            raise Useless(f"it is damaged: checksum of {', '.join(damaged)}")

    def _clear(self) -> None:
        for name in ("progress.json", "embeddings.h5"):
            (self.folder / name).unlink(missing_ok=True)

    def begin(
        self,
        ids: Sequence[str],
        lengths: np.ndarray,
        datasets: Mapping[str, tuple[int, np.dtype]],
        attributes: Mapping[str, Any],
        choices: dict[str, Any],
    ) -> None:
        """Open the file for rows, laying it out where nothing was kept. Arguments as for `lay_out`."""
        progress = self.progress
        if not progress.checksums:
            with write_atomically(self.path) as temporary:
                lay_out(temporary, ids, lengths, datasets, attributes)
            progress.checksums = dict.fromkeys(datasets, 0)
        if attributes["attention"] not in progress.attention:
            progress.attention.append(attributes["attention"])
        if len(progress.attention) > 1:
            with h5py.File(self.path, "r+") as file:
                file.attrs["attention"] = ", ".join(progress.attention)
        self.file = EmbeddingFile(self.path, writable=True)
        progress.checksums[checksums.AROUND] = checksums.around(self.file)
        progress.choices = choices
        self.flush()

    def write(self, rows: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Write the next batch: sequences `rows` and their values as for `EmbeddingFile.write`."""
        if self._failure is not None:
            raise self._failure
        self.file.write(rows, values)
        sums = {name: checksums.of_rows(self.file, name, rows, value) for name, value in values.items()}
        with self._changing:
            self.progress.done += len(rows)
            for name, value in sums.items():
                self.progress.checksums[name] = (self.progress.checksums[name] + value) % checksums.MODULUS

    def record_oom(self, record: dict[str, Any]) -> None:
        """Keep in mind that memory ran out, so that nothing is chosen again that did not fit."""
        if self.progress is not None:
            with self._changing:
                self.progress.ooms.append(record)
                self.progress.choices = {}

    def publish(self, destination: Path) -> None:
        """Make the complete file appear as `destination`."""
        self.flush()
        with write_atomically(destination) as temporary:
            try:
                os.link(self.path, temporary)
            except OSError:  # a file system without hard links, or another one
                shutil.move(self.path, temporary)
        if not self.keep:
            self.file.__exit__()
            self.file = None
            self._clear()

    def flush(self, sync: bool = True) -> None:
        """Write down what is complete; `sync` waits for the disk, so that a node's end does not lose it either."""
        if self.file is None:
            return
        with self._changing:
            content = asdict(self.progress)
        if sync:
            self.file.sync()
        with self._saving:
            write_json(self.folder / "progress.json", content, sync)

    def _flush_often(self) -> None:
        while not self._leaving.wait(FLUSH_SECONDS):
            try:
                self.flush()
            except Exception as error:  # the thread that writes raises it
                self._failure = error
                return

    def _terminate(self) -> None:
        """End this process at once, whatever its other threads are at, with what is complete written down."""
        try:
            # Not synced: a process that ends loses nothing that it has written, and there may be little time.
            self.flush(sync=False)
            kept = self.progress.done if self.file is not None else 0
            log.warning("ended by SIGTERM; %s sequences are kept in %s for the next run", f"{kept:,}", self.folder)
            self._saving.acquire()
            for child in multiprocessing.active_children():
                child.kill()
        finally:
            os._exit(128 + signal.SIGTERM)


def _lock(folder: Path) -> FileLock | None:
    """The lock on a shard, held until the process ends; waits while another has it."""
    lock = FileLock(folder / "lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("%s: another process works on this shard: waiting until it has ended", folder)
            lock.acquire(poll_interval=POLL_SECONDS)
        return lock
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("%s: the file system has no locks: make sure that no two runs share this folder", folder)
        return None
