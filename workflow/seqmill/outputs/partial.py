"""The partial result of a shard: it outlives the process that works on it, and the next one resumes from it."""

import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from seqmill import locks
from seqmill.errors import UserError
from seqmill.files import read_json, write_atomically, write_json
from seqmill.inputs.sequences import Sequences
from seqmill.outputs.datasets import Dataset
from seqmill.outputs.embedding_file import METADATA, MODULUS, Damaged, EmbeddingFile
from seqmill.outputs.layout import lay_out
from seqmill.outputs.names import EMBEDDINGS, PROGRESS
from seqmill.outputs.writers import Writers
from seqmill.termination import Termination

log = logging.getLogger(__name__)

# What a process that is killed without warning loses at most.
FLUSH_SECONDS = 20


def folder_for(output: Path) -> Path:
    """Where the partial result of the folder `output` is kept: beside it, as Snakemake empties outputs."""
    output = output.resolve()
    return output.with_name(f"{output.name}.partial")


def remove(folder: Path) -> None:
    """Remove the partial result of a shard that is finished."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class State:
    """How far a shard is; what `progress.json` holds.

    Attributes:
        identity: what must be the same for the rows to be of use.
        done: sequences whose rows are complete, all of them, the first so many in the order of computing.
        checksums: of those rows per dataset, and of the file's metadata.
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


class NotResumable(Exception):
    """The partial result of an earlier run cannot be resumed."""


class Partial:
    """A folder with `embeddings.h5`, laid out in full, and `progress.json`. Use as a context manager.

    Entering waits until no other process works on the same shard. While inside, progress is saved every
    FLUSH_SECONDS; SIGTERM, which clusters send before they kill, saves it and ends the process with status 143.

    Args:
        keep: keep it when it has been published, too, for a caller that may throw away what was published.

    Attributes:
        state, sequences: None until `load`.
    """

    def __init__(self, folder: Path, keep: bool):
        self.folder = folder
        self.keep = keep
        self.path = folder / EMBEDDINGS
        self.state: State | None = None
        self.sequences: Sequences | None = None
        self.file: EmbeddingFile | None = None
        self._writers: Writers | None = None
        # Held while `state` changes; while it is written.
        self._changing, self._saving = threading.Lock(), threading.Lock()
        self._leaving = threading.Event()
        self._failure: Exception | None = None
        self._lock: locks.Lock | None = None
        self._termination: Termination | None = None
        self._flusher = threading.Thread(target=self._flush_often, name="flush", daemon=True)

    def __enter__(self) -> "Partial":
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = f"{self.folder}: another process works on this shard: waiting until it has ended"
        self._lock = locks.acquire(self.folder / "lock", waiting)
        self._termination = Termination(self._terminate)
        self._flusher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leaving.set()
        self._flusher.join()
        try:
            # What has been computed is not lost with the error that ends it.
            self.flush()
            if kind is KeyboardInterrupt:
                log.warning("%s sequences are saved in %s; the same command resumes", f"{self._saved():,}", self.folder)
        except (OSError, UserError) as error:
            if kind is None:
                raise
            log.warning("%s: what was computed since the last flush is lost (%s)", self.folder, error)
        finally:
            self._termination.disarm()
            self._close()
            self._lock.release()
            if not (self.folder / PROGRESS).exists():
                remove(self.folder)

    def load(self, identity: dict[str, Any], datasets: Sequence[Dataset], sequences: Sequences) -> State:
        """What an earlier process left of the same work, if it is valid; else a new beginning.

        Args:
            identity: what must be the same for its rows to be of use.
        """
        self.state, self.sequences = State(identity), sequences
        try:
            found = State(**read_json(self.folder / PROGRESS))
            log.info("%s: verifying the partial result of an earlier run", self.folder)
            self._check(found, identity, datasets)
            self.state = found
        except FileNotFoundError:
            self._clear()
        except (NotResumable, Damaged, OSError, ValueError, TypeError, KeyError) as problem:
            log.warning("%s: cannot resume the earlier run (%s); starting over", self.folder, problem)
            self._clear()
        return self.state

    def _check(self, found: State, identity: dict[str, Any], datasets: Sequence[Dataset]) -> None:
        if differing := [name for name in identity if found.identity.get(name) != identity[name]]:
            raise NotResumable(f"different {', '.join(differing)}")
        with EmbeddingFile(self.path) as file:
            rows = self.sequences.rows_of(0, found.done)
            sums = {dataset.name: file.checksum(dataset.name, rows) for dataset in datasets}
            sums[METADATA] = file.metadata_checksum()
        if damaged := [name for name, value in sums.items() if value != found.checksums[name]]:
            raise NotResumable(f"it is damaged: checksum of {', '.join(damaged)}")

    def _clear(self) -> None:
        for name in (PROGRESS, EMBEDDINGS):
            (self.folder / name).unlink(missing_ok=True)

    def begin(
        self,
        ids: Sequence[str],
        lengths: np.ndarray,
        token_counts: np.ndarray,
        datasets: Sequence[Dataset],
        attributes: Mapping[str, Any],
        choices: dict[str, Any],
    ) -> None:
        """Open the file for rows, laying it out where nothing was saved. Arguments as for `lay_out`."""
        state = self.state
        if not state.checksums:
            with write_atomically(self.path) as temporary:
                lay_out(temporary, ids, lengths, token_counts, datasets, attributes)
            state.checksums = {dataset.name: 0 for dataset in datasets}
        if attributes["attention"] not in state.attention:
            state.attention.append(attributes["attention"])
        if len(state.attention) > 1:
            with h5py.File(self.path, "r+") as file:
                file.attrs["attention"] = ", ".join(state.attention)
        self.file = EmbeddingFile(self.path, writable=True)
        self._writers = Writers(self.file)
        state.checksums[METADATA] = self.file.metadata_checksum()
        state.choices = choices
        self.flush()

    def write(
        self, count: int, values: Mapping[str, np.ndarray], known: Callable[[int, int], Mapping[str, np.ndarray]]
    ) -> None:
        """Write the next batch: the next `count` sequences in the order of computing, to all rows that they have.

        Args:
            values: of each sequence once; per dataset as for `EmbeddingFile.write`.
            known: gives the values of the datasets that no model computes, for sequences from a first to a last one.
        """
        if self._failure is not None:
            raise self._failure
        if not count:
            return
        first, last = self.state.done, self.state.done + count
        rows, copies = self.sequences.rows_of(first, last), self.sequences.copies[first:last]
        values = {**values, **known(first, last)}
        # All rows are in the file before anything says so.
        sums = {name: self._writers.write(name, rows, copies, value) for name, value in values.items()}
        with self._changing:
            self.state.done = last
            for name, value in sums.items():
                self.state.checksums[name] = (self.state.checksums[name] + value) % MODULUS

    @property
    def written(self) -> int:
        """Bytes of values that this process has written."""
        return self._writers.written if self._writers is not None else 0

    def record_oom(self, record: dict[str, Any]) -> None:
        """Record an out-of-memory error and drop the automatic choices made before it."""
        if self.state is not None:
            with self._changing:
                self.state.ooms.append(record)
                self.state.choices = {}

    def publish(self, destination: Path) -> None:
        """Make the complete file appear as `destination`."""
        self.flush()
        with write_atomically(destination) as temporary:
            try:
                os.link(self.path, temporary)
            except OSError:  # a file system without hard links, or another one
                shutil.move(self.path, temporary)
        if not self.keep:
            self._close()
            self._clear()

    def _close(self) -> None:
        """Close the file, if it is open."""
        if self.file is not None:
            self._writers.close()
            file, self.file = self.file, None
            file.__exit__()

    def flush(self, sync: bool = True) -> None:
        """Save progress; with `sync`, fsync first, so that it survives a node crash."""
        if self.file is None:
            return
        with self._changing:
            content = asdict(self.state)
        if sync:
            self.file.sync()
        with self._saving:
            write_json(self.folder / PROGRESS, content, sync)

    def _flush_often(self) -> None:
        while not self._leaving.wait(FLUSH_SECONDS):
            try:
                self.flush()
            except Exception as error:  # the thread that writes raises it
                self._failure = error
                return

    def _saved(self) -> int:
        """How many sequences the next run need not compute."""
        return self.state.done if self.file is not None else 0

    def _terminate(self) -> None:
        """Save progress and exit immediately, whatever other threads do."""
        try:
            # Not synced: a process that ends loses nothing that it has written, and there may be little time.
            self.flush(sync=False)
            saved = f"{self._saved():,}"
            log.warning("ended by SIGTERM; %s sequences are saved in %s for the next run", saved, self.folder)
            self._saving.acquire()
            for child in multiprocessing.active_children():
                child.kill()
        finally:
            os._exit(128 + signal.SIGTERM)
