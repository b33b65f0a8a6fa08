"""Rows read ahead by a thread."""

import threading

import pytest

from streamapp.cli.feed import AHEAD_ROWS, Feed


def take_all(feed, size=7):
    taken = []
    while items := feed.take(size, 1.0):
        taken.append(items)
    return taken


def test_everything_in_order_and_then_the_end():
    feed = Feed(iter(range(100)))
    feed.start()
    batches = take_all(feed)
    assert [item for batch in batches for item in batch] == list(range(100))
    assert all(len(batch) == 7 for batch in batches[:-1])
    assert feed.take(7, 0.0) == []


def test_an_error_comes_after_all_that_came_before_it():
    def items():
        yield from range(3)
        raise ValueError("broken")

    feed = Feed(items())
    feed.start()
    assert feed.take(7, 1.0) == [0, 1, 2]
    with pytest.raises(ValueError, match="broken"):
        feed.take(7, 1.0)


def test_what_is_there_is_not_held_back_for_more():
    more = threading.Event()

    def items():
        yield 1
        more.wait()
        yield 2

    feed = Feed(items())
    feed.start()
    assert feed.take(7, 0.0) == [1]
    more.set()
    assert feed.take(7, 1.0) == [2]


def test_it_reads_only_so_far_ahead_and_stops_when_told():
    read = []
    feed = Feed(iter(lambda: read.append(None) or 1, None))
    feed.start()
    while len(read) < AHEAD_ROWS:
        pass
    feed.stop()
    feed._thread.join(10)
    assert not feed._thread.is_alive()
    assert len(read) <= AHEAD_ROWS + 1
    assert feed.take(7, 0.0) == []
