"""Progress of a shard: a bar on a terminal, a line every 30 s in a log."""

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_EVERY_S = 30


class Progress:
    """Counts residues; use as a context manager."""

    def __init__(self, residues: int):
        self.bar = tqdm(total=residues, unit=" residues", unit_scale=True, disable=not sys.stderr.isatty())
        self.total = residues
        self.done = 0
        self.begun = self.logged = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, residues: int) -> None:
        self.done += residues
        self.bar.update(residues)
        now = time.monotonic()
        if self.bar.disable and now - self.logged >= LINE_EVERY_S:
            self.logged = now
            rate = self.done / (now - self.begun)
            left = tqdm.format_interval((self.total - self.done) / rate)
            log.info(
                "%s of %s residues, %s residues/s, %s left", f"{self.done:,}", f"{self.total:,}", f"{rate:,.0f}", left
            )
