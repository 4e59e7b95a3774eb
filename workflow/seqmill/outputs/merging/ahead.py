"""The next item is made while one is in use."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, none of them None; a thread of its own makes each, one ahead of what is in use."""
    with ThreadPoolExecutor(1) as maker:
        waiting = maker.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = maker.submit(next, items, None)
            yield item
