"""A large answer's next batch is read while one is sent, and never outlives its call."""

import threading

import duckdb
import pytest
from machine import wait_for
from pyarrow import flight

from streamapp.core.errors import StreamappError
from streamapp.flight import FlightServer, Limits
from streamapp.flight.statements import Statements

#: Rows of 8 kB, 8,192 in a batch; after the first batch nothing comes, for ever.
LARGE_THEN_ENDLESS = """
    SELECT repeat('x', 8000) AS text, a.range AS n FROM range(9000) AS a
    UNION ALL
    SELECT 'never', a.range FROM range(1000000000) AS a, range(1000000) AS b
    WHERE a.range + b.range < 0"""


@pytest.fixture
def cursors(tmp_path):
    root = duckdb.connect(str(tmp_path / "a.duckdb"), config={"threads": 1})
    yield root.cursor
    root.close()


def test_the_batches_and_their_end_are_the_same(cursors):
    with Statements(cursors, Limits()) as statements:
        answer = statements.run("SELECT repeat('x', 800) AS text, range AS n FROM range(50000)")
        numbers = [n for batch in answer for n in batch.column("n").to_pylist()]
        assert numbers == list(range(50_000))
        assert next(answer, None) is None
        answer.close()
        assert len(statements) == 0


def test_an_error_of_the_batch_read_ahead_comes_in_its_place(cursors):
    sql = "SELECT repeat('x', 8000), CASE WHEN range < 40000 THEN 1 ELSE error('no') END FROM range(60000)"
    with Statements(cursors, Limits()) as statements:
        answer = statements.run(sql)
        rows = next(answer).num_rows
        with pytest.raises(StreamappError, match="no"):
            rows += sum(batch.num_rows for batch in answer)
        assert rows <= 40_000
        answer.close()


def test_what_is_read_ahead_is_interrupted_when_nobody_wants_it(cursors):
    with Statements(cursors, Limits(seconds_max=600)) as statements:
        answer = statements.run(LARGE_THEN_ENDLESS)
        read = next(answer).num_rows
        closing = threading.Thread(target=answer.close)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()
        assert read
        assert len(statements) == 0


def test_a_client_that_leaves_while_the_next_batch_is_read_leaves_nothing(cursors):
    server = FlightServer(cursors, port=0, limits=Limits(seconds_max=600))
    try:
        for _ in range(3):
            with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
                answer = client.do_get(flight.Ticket(LARGE_THEN_ENDLESS.encode()))
                assert answer.read_chunk().data.num_rows
                answer.cancel()
        wait_for(lambda: server.running == 0, "the statements to end", 60)
    finally:
        server.stop()
