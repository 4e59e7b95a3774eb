"""Items that are made ahead of their use."""

import threading

import pytest

from seqmill.outputs.merging.ahead import ahead


def test_the_items_come_in_their_order():
    assert list(ahead(iter(range(1, 100)))) == list(range(1, 100))
    assert list(ahead(iter(()))) == []


def test_the_next_item_is_made_while_one_is_in_use():
    is_made = threading.Event()

    def items():
        yield 1
        is_made.set()
        yield 2

    for item in ahead(items()):
        assert item == 2 or is_made.wait(60)


def test_what_fails_fails_where_the_items_are_used():
    def items():
        yield 1
        raise ValueError("of the maker")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="of the maker"):
        next(found)


def test_who_stops_early_leaves_no_thread():
    before = threading.active_count()
    items = ahead(iter(range(1, 1000)))
    assert next(items) == 1
    items.close()
    assert threading.active_count() == before
