"""The first search of a large store reads for seconds: who asked can stop it, and so can the limit."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from streamapp.core.batch import vector_column
from streamapp.core.errors import Refuse, Retry
from streamapp.flight.statements import Limits, Statements
from streamapp.sink.matrix import Matrix
from streamapp.sink.search import Search

ROWS, DIM = 30_000, 4
WAIT_S = 60
SEARCHES = ["FROM similar('q', 3)", "FROM near('id-1', 3)", "SELECT nearest([1, 0, 0, 0], 3, 9)"]


@pytest.fixture
def store(make, open_store):
    """Vectors for several batches, and no matrix yet."""
    search = Search(lambda texts: np.ones((len(texts), DIM), np.float32))
    opened = open_store(columns={"embedding": pa.list_(pa.float32(), DIM)}, search=search)
    events = [make.event(n) for n in range(ROWS)]
    vectors = np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32)
    extra = {"embedding": vector_column(vectors)}
    opened.write([make.record(0, ROWS, events, stages=False, extra=extra)])
    return opened


class Slow:
    """``Matrix.add`` waits before the first batch until it may go on."""

    def __init__(self, monkeypatch):
        self.reading, self.go_on, self.batches = threading.Event(), threading.Event(), 0
        add = Matrix.add

        def slow(matrix, *arguments):
            self.batches += 1
            self.reading.set()
            assert self.go_on.wait(WAIT_S)
            add(matrix, *arguments)

        monkeypatch.setattr(Matrix, "add", slow)


@pytest.mark.parametrize("sql", SEARCHES)
def test_a_client_that_leaves_ends_the_reading(store, monkeypatch, sql):
    slow, left, seen = Slow(monkeypatch), threading.Event(), threading.Event()

    def is_cancelled():
        if left.is_set():
            seen.set()
        return left.is_set()

    with Statements(store.reader, Limits(), store.prepare) as statements:
        with ThreadPoolExecutor() as threads:
            asked = threads.submit(statements.run, sql, None, is_cancelled)
            assert slow.reading.wait(WAIT_S)
            left.set()
            assert seen.wait(WAIT_S)
            while statements._snapshot()[0]._stopped is None:  # the watcher is at it
                pass
            slow.go_on.set()
            with pytest.raises(Retry, match="cancelled"):
                asked.result(WAIT_S)
        assert slow.batches == 1
        assert len(statements) == 0
        assert next(statements.run(sql)).num_rows  # the next one reads all of it


def test_the_time_limit_ends_the_reading(store, monkeypatch):
    slow = Slow(monkeypatch)
    with Statements(store.reader, Limits(seconds_max=0.3), store.prepare) as statements:
        with ThreadPoolExecutor() as threads:
            asked = threads.submit(statements.run, SEARCHES[0])
            assert slow.reading.wait(WAIT_S)
            while statements._snapshot()[0]._stopped is None:
                pass
            slow.go_on.set()
            with pytest.raises(Refuse, match=r"longer than 0.3 s"):
                asked.result(WAIT_S)
        assert slow.batches == 1


def test_who_waits_for_anothers_reading_can_leave(store, monkeypatch):
    slow, left = Slow(monkeypatch), threading.Event()
    with (
        Statements(store.reader, Limits(), store.prepare) as statements,
        ThreadPoolExecutor() as threads,
    ):
        reads = threads.submit(statements.run, SEARCHES[0])
        assert slow.reading.wait(WAIT_S)
        waits = threads.submit(statements.run, SEARCHES[1], None, left.is_set)
        left.set()
        with pytest.raises(Retry, match="cancelled"):
            waits.result(WAIT_S)
        slow.go_on.set()
        assert next(reads.result(WAIT_S)).num_rows == 3


def test_what_searches_nothing_reads_nothing(store, monkeypatch):
    slow = Slow(monkeypatch)
    with Statements(store.reader, Limits(), store.prepare) as statements:
        assert next(statements.run("SELECT count(*) AS n FROM events")).to_pylist() == [{"n": ROWS}]
        assert statements.schema(SEARCHES[0]).names
    assert slow.batches == 0


def test_who_closes_does_not_wait_for_the_first_search(make, store, monkeypatch):
    slow = Slow(monkeypatch)
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(make.rows, store, SEARCHES[0])
        assert slow.reading.wait(WAIT_S)
        closed = threads.submit(store.close)
        while store._options.search._cursor is not None:
            time.sleep(0.01)
        slow.go_on.set()
        with pytest.raises(duckdb.Error, match="the store is not open"):
            answer.result(WAIT_S)
        closed.result(WAIT_S)
    assert slow.batches == 1
