"""Who subscribes to a store is told of each commit, and can neither break nor undo one."""

import pytest

from streamapp.core.errors import Halt
from streamapp.sink.subscribers import Subscribers


def test_each_commit_is_told_with_its_rows_in_order(make, open_store):
    store, told = open_store(), []
    store.subscribe(lambda rows, written: told.append((rows, written)))
    first = store.write([make.record(0, 2), make.record(2, 3)])
    store.write([make.record(1, 5)])
    assert [rows["source_offset"].to_pylist() for rows, _ in told] == [[0, 1, 2], [3, 4]]
    assert told[0][1] == first
    cursor = store.reader()
    stored = cursor.sql("SELECT * FROM events WHERE source_offset < 3").to_arrow_table()
    cursor.close()
    assert told[0][0].schema.names == stored.schema.names
    assert told[0][0].to_pylist() == stored.to_pylist()


def test_rows_can_be_read_when_they_are_told(make, open_store):
    store, counts = open_store(), []
    store.subscribe(lambda *_: counts.append(make.rows(store, "SELECT count(*) FROM events")))
    store.write([make.record(0, 3)])
    assert counts == [[(3,)]]


def test_what_is_not_committed_is_not_told(make, open_store):
    store, told = open_store(), []
    store.write([make.record(0, 2)])
    store.subscribe(lambda rows, _: told.append(rows))
    with pytest.raises(Halt):
        store.write([make.record(0, 4, [make.event(0, name="other")])])
    assert told == []
    store.write([])
    assert told == []


def test_one_that_raises_is_dropped_and_the_writer_goes_on(make, open_store, caplog):
    store, told = open_store(), []

    def broken(rows, written):
        told.append("broken")
        raise ValueError("no")

    store.subscribe(broken)
    store.subscribe(lambda rows, _: told.append(rows.num_rows))
    assert store.write([make.record(0, 2)]).rows == 2
    assert store.write([make.record(2, 3)]).rows == 1
    assert told == ["broken", 2, 1]
    assert "is told no more" in caplog.text


def test_unsubscribed_is_told_no_more_not_even_in_its_own_call():
    subscribers, told = Subscribers[int](), []

    def once(number):
        told.append(number)
        stop()

    stop = subscribers.add(once)
    subscribers.tell(1)
    stop()
    subscribers.tell(2)
    assert told == [1]
    assert not subscribers
