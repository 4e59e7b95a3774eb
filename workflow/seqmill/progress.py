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


class Progress:
    """Counts the sequences of a job, which it computes longest first; use as a context manager around the whole job.

    Time left is predicted by the cost of what is left: residues of long sequences take longer than those of short ones.

    Args:
        name: of the job, in lines for people.
        descriptor: a file descriptor for lines for people, at least every ten seconds; None for none.

    Attributes:
        phase: what the job does while there is nothing to count.
    """

    def __init__(self, name: str = "", descriptor: int | None = None):
        self.name, self.descriptor = name, descriptor
        self.phase = "starting"
        self.costs = self.residues = np.zeros(1)
        self.first = self.done = 0
        self.total: int | None = None
        self.begun = self.created = time.monotonic()
        self.log_after = float(LOG_AFTER_S)
        self.bar: tqdm | None = None
        self.ended = threading.Event()
        if descriptor is not None:
            threading.Thread(target=self._keep_telling, name="progress", daemon=True).start()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.ended.set()
        if self.bar is not None:
            self.bar.close()
        if kind is None and self.done == self.total:
            seconds = tqdm.format_interval(time.monotonic() - self.created)
            self._tell(f"finished, {self.total:,} sequences in {seconds}")

    def begin(self, costs: np.ndarray, offsets: np.ndarray, first: int) -> None:
        """Start to count.

        Args:
            costs: (N,) relative time of each sequence in the order of computing.
            offsets: (N + 1,) where each begins, in residues.
            first: how many of them an earlier run has finished.
        """
        self.costs, self.residues = np.concatenate([[0], np.cumsum(costs)]), offsets
        self.first, self.done, self.total = first, first, len(costs)
        self.begun = time.monotonic()
        if self.descriptor is None and sys.stderr.isatty():
            form = "{l_bar}{bar}| {postfix}, {elapsed}<{remaining}"
            self.bar = tqdm(total=self.costs[-1], initial=self.costs[first], bar_format=form, postfix="0 sequences")

    def add(self, sequences: int) -> None:
        """Count finished sequences."""
        before, self.done = self.done, self.done + sequences
        if self.bar is not None:
            self.bar.set_postfix_str(self._counts(), refresh=False)
            self.bar.update(self.costs[self.done] - self.costs[before])
        elif self._seconds() >= self.log_after:
            self.log_after += min(self.log_after, LOG_AT_MOST_EVERY_S)
            log.info("%s", self.describe())

    def describe(self) -> str:
        """How far the job is, for people."""
        if self.done == self.first:
            return self.phase
        left = (
            self._seconds()
            * (self.costs[-1] - self.costs[self.done])
            / (self.costs[self.done] - self.costs[self.first])
        )
        return f"{self._counts()}, {tqdm.format_interval(left)} left"

    def _counts(self) -> str:
        rate = (self.residues[self.done] - self.residues[self.first]) / max(self._seconds(), 1e-3)
        return f"{self.done:,} of {self.total:,} sequences, {rate:,.0f} residues/s"

    def _seconds(self) -> float:
        return time.monotonic() - self.begun

    def _keep_telling(self) -> None:
        wait: float = FIRST_AFTER_S
        while not self.ended.wait(wait):
            self._tell(self.describe())
            wait = EVERY_S

    def _tell(self, what: str) -> None:
        if self.descriptor is None:
            return
        try:
            os.write(self.descriptor, f"shard {self.name}: {what}\n".encode())
        except OSError:
            # Nobody watches any longer.
            self.descriptor = None
