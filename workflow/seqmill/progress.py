"""How far a job is: lines for people who watch, a bar on a terminal, and now and then a line in the log."""

import logging
import os
import sys
import threading
import time

import numpy as np
from tqdm import tqdm

log = logging.getLogger(__name__)

# For people: the first line says that the job lives, while it still loads what it needs.
FIRST_AFTER_S, EVERY_S = 4, 8
# In the log: often enough at first, and not thousands of lines in the end.
LOG_AFTER_S, LOG_AT_MOST_EVERY_S = 30, 600
BAR = "{percentage:3.0f}%|{bar}| {desc}, {elapsed}<{remaining}"


class Progress:
    """Counts the sequences of a job, which it computes longest first; use as a context manager around the whole job.

    Time left is predicted by the cost of what is left: letters of long sequences take longer than those of short ones.

    Args:
        name: of the job, in lines for people.
        descriptor: an open file descriptor for lines for people, at least every ten seconds; None for none.

    Attributes:
        phase: what the job does while there is nothing to count.
    """

    def __init__(self, name: str = "", descriptor: int | None = None):
        self.name, self.descriptor = name, _watched(descriptor)
        self.phase = "starting"
        self.costs = self.offsets = np.zeros(1)
        self.letters = "letters"
        self.first = self.done = 0
        self.total: int | None = None
        self.created = self.begun = self.counted = time.monotonic()
        self.log_after = float(LOG_AFTER_S)
        self.on_terminal = self.descriptor is None and sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._keep_telling, name="progress", daemon=True)

    def watch(self) -> "Progress":
        """Tell from now on, and not only from `__enter__` on."""
        if self.thread.ident is None and (self.on_terminal or self.descriptor is not None):
            self._tell(self.phase)
            self.thread.start()
        return self

    def __enter__(self) -> "Progress":
        return self.watch()

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.ended.set()
        if self.thread.is_alive():
            # Not for ever: where nobody reads the lines any longer, it may wait in the middle of one.
            self.thread.join(1)
        if self.bar is not None:
            self.bar.close()
        if kind is None and self.done == self.total:
            seconds = tqdm.format_interval(time.monotonic() - self.created)
            self._tell(f"finished, {self.total:,} sequences in {seconds}")

    def begin(self, costs: np.ndarray, offsets: np.ndarray, first: int, letters: str) -> None:
        """Start to count.

        Args:
            costs: (N,) relative time of each sequence in the order of computing.
            offsets: (N + 1,) where each begins, in letters.
            first: how many of them an earlier run has finished.
            letters: what the letters are, for people.
        """
        self.costs, self.offsets, self.letters = np.concatenate([[0], np.cumsum(costs)]), offsets, letters
        self.first = self.done = first
        self.begun = self.counted = time.monotonic()
        # Last: the other thread takes it for the sign that there is something to count.
        self.total = len(costs)
        if first == self.total:
            return
        longest = offsets[first + 1] - offsets[first]
        phase = f"{first:,} of {self.total:,} sequences, the longest first ({longest:,} {letters})"
        if self.on_terminal:
            # Before the phase, which the other thread logs where there is no bar.
            self.bar = tqdm(total=self.costs[-1], initial=self.costs[first], bar_format=BAR, desc=phase)
        self.phase = phase

    def add(self, sequences: int) -> None:
        """Count finished sequences."""
        before, self.done = self.done, self.done + sequences
        self.counted = time.monotonic()
        seconds = self.counted - self.begun
        if self.bar is not None:
            self.bar.set_description_str(self._counts(), refresh=False)
            self.bar.update(self.costs[self.done] - self.costs[before])
        elif seconds >= self.log_after:
            self.log_after = seconds + min(seconds, LOG_AT_MOST_EVERY_S)
            log.info("%s", self.describe())

    def describe(self) -> str:
        """How far the job is, for people."""
        if self.total is None or self.done == self.first:
            return self.phase
        if self.done == self.total:
            return f"{self._counts()}, writing the last ones"
        computed = self.costs[self.done] - self.costs[self.first]
        left = (self.counted - self.begun) * (self.costs[-1] - self.costs[self.done]) / computed
        # A batch of long sequences takes its time, in which nothing is counted.
        left = max(left - (time.monotonic() - self.counted), 0)
        return f"{self._counts()}, {tqdm.format_interval(left)} left"

    def _counts(self) -> str:
        rate = (self.offsets[self.done] - self.offsets[self.first]) / max(self.counted - self.begun, 1e-3)
        return f"{self.done:,} of {self.total:,} sequences, {rate:,.0f} {self.letters}/s"

    def _keep_telling(self) -> None:
        wait: float = FIRST_AFTER_S
        said = "starting"
        while not self.ended.wait(wait):
            if self.bar is not None:
                # Its clock goes on while nothing is counted.
                self.bar.refresh()
            elif not self.on_terminal:
                self._tell(self.describe())
            elif self.phase != said:
                log.info("%s", said := self.phase)
            wait = EVERY_S

    def _tell(self, what: str) -> None:
        if self.descriptor is None:
            return
        try:
            os.write(self.descriptor, f"{self.name}: {what}\n".encode())
        except OSError:
            # Nobody watches any longer.
            self.descriptor = None


def _watched(descriptor: int | None) -> int | None:
    """The descriptor, if somebody can watch it."""
    if descriptor is None:
        return None
    try:
        os.fstat(descriptor)
    except OSError:
        # Else a file of the result might get this number, and the lines.
        return None
    # SLURM writes what a job says to a file, which has the log's lines already.
    return descriptor if os.isatty(descriptor) or "SLURM_JOB_ID" not in os.environ else None
