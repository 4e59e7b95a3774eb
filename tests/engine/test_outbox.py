"""Results on their way to the file: their order, how many wait, what follows a failure, and the memory they lie in."""

import random
import threading
import time
from collections import deque

import numpy as np
import pytest

from seqmill.engine import outbox
from seqmill.engine.outbox import Outbox, Ring


@pytest.fixture
def limit(monkeypatch):
    """Room for so many bytes."""
    monkeypatch.setattr(outbox, "WAITING_BYTES", 100)
    return 100


def put_all(box: Outbox, sizes: list[int], put: list[int]) -> None:
    for number, size in enumerate(sizes):
        box.reserve(size)
        box.put(number)
        put.append(number)


def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("sizes", "fitting"),
    [([40] * 10, 2), ([60] * 4, 1), ([0] * 40, outbox.WAITING), ([500, 10, 10], 1), ([10, 500, 10], 1)],
    ids=["bytes", "one", "results", "larger than all room", "large behind small"],
)
@pytest.mark.usefixtures("limit")
def test_a_slow_writer_makes_others_wait(sizes, fitting):
    go_on, written, put = threading.Event(), [], []

    def write(number):
        go_on.wait(30)
        written.append(number)

    with Outbox(write) as box:
        feeder = threading.Thread(target=put_all, args=(box, sizes, put))
        feeder.start()
        until(lambda: len(put) == fitting)
        time.sleep(0.05)
        assert len(put) == fitting
        go_on.set()
        feeder.join()
    assert written == list(range(len(sizes)))
    assert box.busy_s > 0


def test_after_a_failure_nothing_more_is_written():
    """What follows would be taken for what failed, and written in its place."""
    all_put, written = threading.Event(), []

    def write(number):
        all_put.wait(30)
        if number == 1:
            raise OSError(28, "No space left on device")
        written.append(number)

    with Outbox(write) as box:
        put_all(box, [10] * 5, [])
        all_put.set()
        with pytest.raises(OSError, match="No space left"):
            box.finish()
    assert written == [0]


@pytest.mark.usefixtures("limit")
def test_a_failure_wakes_who_waits_for_room():
    def write(_):
        raise ValueError("broken")

    with Outbox(write) as box, pytest.raises(ValueError, match="broken"):
        put_all(box, [100] * 100, [])


@pytest.mark.parametrize("seed", range(5))
def test_memory_that_is_given_out_never_overlaps(seed):
    draw = random.Random(seed)
    ring, out = Ring(4096, is_pinned=True), deque()
    for number in range(2000):
        count = 64 * draw.choice([1, 1, 2, 3, 10, 40, 64, 80])
        if ring.fits(count):
            place = ring.take(count)
            assert (place is None) == (count > ring.limit)
            if place is not None:
                assert len(place) == count
                assert place.storage_offset() % outbox.ALIGNMENT == 0
                place.fill_(number % 251)
            out.append((place, number % 251))
        else:
            assert out
        if (out and draw.random() < 0.5) or not ring.fits(count):
            place, value = out.popleft()
            assert place is None or bool((place == value).all())
            ring.give_back()
    assert sum(len(place) for place, _ in out if place is not None) <= ring.limit


def test_a_ring_is_as_large_as_its_results_need():
    ring = Ring(1 << 20, is_pinned=True)
    ring.take(1000)
    assert ring.limit == 4096
    assert np.shares_memory(ring.take(500).numpy(), ring.take(500).numpy()) is False


def test_results_that_bring_their_memory_are_only_counted():
    ring = Ring(100, is_pinned=False)
    assert ring.take(60) is None
    assert not ring.fits(60)
    ring.give_back()
    assert ring.fits(60)
