"""Results on their way from the device to the file: how many may wait, and in what memory."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

log = logging.getLogger(__name__)

# What may wait to be written: so many bytes, or one result that has more; and so many results, for whoever ends the job
# early loses them.
WAITING_BYTES = 512 * 2**20
WAITING = 16
# The ring is made for so many results as large as the first one, if that is less.
RING_RESULTS = 4
# So that values of any dtype can begin at every place that is given out.
ALIGNMENT = 64


class Ring:
    """Host memory that is given out in turns: what was taken first is given back first.

    Fresh memory for every result costs a page fault for each 4 KiB of it. Pinned memory, which a GPU copies to by itself,
    is slow to make, and the allocator that keeps it rounds every size up to a power of two; a ring is one piece.

    Args:
        limit: bytes that may be out together. A request for more than that is granted when nothing is out.
        is_pinned: give out one piece of pinned memory; else only count, for results that bring their memory.
    """

    def __init__(self, limit: int, is_pinned: bool):
        self.limit, self.is_pinned = limit, is_pinned
        self._memory: torch.Tensor | None = None
        self._out: deque[int] = deque()
        self._next = self._used = 0

    def fits(self, count: int) -> bool:
        """Whether `take` would have room for so many bytes."""
        return not self._out or self._used + self._placed(count)[1] <= self.limit

    def take(self, count: int) -> torch.Tensor | None:
        """(count,) uint8, which begins at a multiple of ALIGNMENT if all counts are; None where there is no memory to give."""
        if self.is_pinned and self._memory is None:
            self._make(count)
        if not self._out:
            self._next = self._used = 0
        start, taken = self._placed(count)
        self._next = min(start + count, self.limit)
        self._used += taken
        self._out.append(taken)
        return self._memory[start : start + count] if self.is_pinned and count <= self.limit else None

    def give_back(self) -> None:
        """Give back what was taken first."""
        self._used -= self._out.popleft()

    def _placed(self, count: int) -> tuple[int, int]:
        """Where the next bytes begin, and how many it takes with those at the end that stay empty, as they are one piece."""
        left = self.limit - self._next
        return (self._next, count) if count <= left else (0, left + count)

    def _make(self, first: int) -> None:
        wanted = RING_RESULTS * max(first, 1)
        self.limit = min(self.limit, 2 ** (wanted - 1).bit_length())
        try:
            self._memory = torch.empty(self.limit, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            # Hosts may limit it; copies into other memory only take longer.
            log.debug("no pinned memory for results: %s", error)
            self._memory = torch.empty(self.limit, dtype=torch.uint8)


class Outbox:
    """Hands results to a function in their order, on a thread of its own. Use as a context manager.

    Leaving it waits until all that was put into it is written. After a failure nothing more is written: what follows
    would not stand where it belongs.

    Args:
        write: takes a result, whose memory is used again when it returns.
        is_pinned: results are copied into pinned memory that `reserve` gives out.

    Attributes:
        busy_s: seconds in which something was written.
    """

    def __init__(self, write: Callable[[Any], None], is_pinned: bool = False):
        self.write = write
        self.busy_s = 0.0
        self._ring = Ring(WAITING_BYTES, is_pinned)
        self._waiting = 0
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._pool = ThreadPoolExecutor(1, "outbox")

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def reserve(self, count: int) -> torch.Tensor | None:
        """Wait for room for a result of so many bytes, which has to be put next; returns as `Ring.take`.

        Raises:
            Exception: what an earlier result failed with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure or (self._waiting < WAITING and self._ring.fits(count)))
            self._raise_failure()
            self._waiting += 1
            return self._ring.take(count)

    def put(self, result: Any) -> None:
        """Have a result written for which there is room."""
        self._pool.submit(self._write, result)

    def finish(self) -> None:
        """Wait until all is written.

        Raises:
            Exception: what a result failed with.
        """
        self._pool.shutdown()
        self._raise_failure()

    def _write(self, result: Any) -> None:
        begun = time.perf_counter()
        try:
            if self._failure is None:
                self.write(result)
        except BaseException as error:  # raised by the thread that puts
            self._failure = error
        with self._changed:
            self.busy_s += time.perf_counter() - begun
            self._waiting -= 1
            self._ring.give_back()
            self._changed.notify()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def room(values: Mapping[str, torch.Tensor]) -> int:
    """Bytes that values take in a ring, one after the other."""
    return sum(map(_aligned, values.values()))


def places(memory: torch.Tensor, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors like the values, one after the other in (at least `room`,) uint8."""
    found, begin = {}, 0
    for name, value in values.items():
        found[name] = memory[begin : begin + value.nbytes].view(value.dtype).view(value.shape)
        begin += _aligned(value)
    return found


def _aligned(value: torch.Tensor) -> int:
    return -(-value.nbytes // ALIGNMENT) * ALIGNMENT
