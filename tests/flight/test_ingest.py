"""Events sent by Flight: each batch answered, bad rows told apart, bulk ingest all or nothing."""

import asyncio
import json
import threading
from collections import Counter

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from streamapp.core.errors import Retry
from streamapp.core.metrics import Metrics
from streamapp.gateway import GatewayConfig
from streamapp.gateway.batches import Batches
from streamapp.gateway.gateway import build
from streamapp.topics import catalogue
from streamapp.transport.clients import Address


class Log:
    """A producer that keeps what it gets."""

    def __init__(self):
        self.records = []
        self.failures = []
        self._next = Counter()
        self.held = threading.Event()
        self.held.set()

    async def send(self, topic, records):
        while not self.held.is_set():
            await asyncio.sleep(0.01)
        if self.failures:
            raise self.failures.pop(0)
        self.records += [(topic, record) for record in records]
        self._next[topic] += len(records)
        return [Address(topic, 0, self._next[topic])] * len(records)


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def loop():
    """An event loop that runs in a thread, as the store's does beside Flight's."""
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


@pytest.fixture
def send_s_max():
    """How long the log may take: as long as a busy machine does, where that is not what is tested."""
    return 30.0


@pytest.fixture
def server(loop, log, serve, send_s_max):
    # In this order: the server stops before the loop that it sends on.
    parts = build(GatewayConfig(), log, catalogue.load(), Metrics())
    taker = Batches(parts, loop, send_s_max)
    return serve(options={"ingest": taker, "read_token": "read", "admin_token": "admin"})


def options(token="admin"):
    return flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + token.encode())])


def put(server, batches, path="events.raw", token="admin"):
    """Send batches; the report on each."""
    schema = batches[0].schema
    with server.client() as client:
        descriptor = flight.FlightDescriptor.for_path(path)
        writer, results = client.do_put(descriptor, schema, options(token))
        reports = []
        with writer:
            for batch in batches:
                writer.write_batch(batch)
                reports.append(json.loads(results.read().to_pybytes()))
            writer.done_writing()
            assert results.read() is None
        return reports


def rows(n=2, first=0):
    """Events with ids."""
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"e-{first + i}" for i in range(n)],
            "type": ["message"] * n,
            "conversation_id": ["c"] * n,
            "message": [f"hello {i}" for i in range(n)],
        }
    )


def test_each_batch_is_answered_when_the_log_has_it(server, log):
    reports = put(server, [rows(2), rows(3, first=2)])
    assert [(r["batch"], r["accepted"], r["refused"]) for r in reports] == [(0, 2, 0), (1, 3, 0)]
    assert reports[1]["ids"] == ["e-2", "e-3", "e-4"]
    assert [topic for topic, _ in log.records] == ["events.raw"] * 5
    record = log.records[0][1]
    assert json.loads(record.value) == {
        "id": "e-0", "type": "message", "conversation_id": "c", "message": "hello 0",
    }  # fmt: skip
    assert record.key == b"c"
    assert ("ce_id", b"e-0") in record.headers


def test_a_bad_row_costs_itself(server, log):
    batch = pa.RecordBatch.from_pydict(
        {"message": ["good", "bad", "good"], "time": ["2026-11-22T00:00:00Z", "never", None]}
    )
    (report,) = put(server, [batch])
    assert (report["accepted"], report["refused"], len(log.records)) == (2, 1, 2)
    (bad,) = report["rejected"]
    assert (bad["row"], bad["code"]) == (1, "event.time")
    assert "'never'" in bad["error"]


def test_an_empty_batch_is_answered(server):
    assert put(server, [rows(1).slice(1), rows(1)])[1]["accepted"] == 1


def test_batches_of_many_rows(server, log):
    (report,) = put(server, [rows(10_000)])
    assert report["accepted"] == len(log.records) == 10_000


def test_a_batch_that_is_too_large_is_refused(server):
    batch = pa.RecordBatch.from_pydict({"message": ["x" * (65 << 20)]})
    with pytest.raises(flight.FlightServerError, match="are taken at most"):
        put(server, [batch])


@pytest.mark.parametrize("path", ["events.enriched", "nope", "", "events", "../etc/passwd"])
def test_other_topics_take_nothing(server, path):
    with pytest.raises((flight.FlightError, pa.ArrowException), match="takes no events"):
        put(server, [rows()], path)


def test_a_reader_does_not_produce(server, log):
    with pytest.raises(flight.FlightUnauthorizedError, match="read token reads"):
        put(server, [rows()], token="read")
    with pytest.raises(adbc_driver_manager.Error, match="read token reads"):
        ingest(server, rows(), token="read")
    assert not log.records


def test_a_log_that_fails_is_told(server, log):
    log.failures = [Retry("kafka.unreachable", "no broker at /secret/10.0.0.1", "start it")]
    with pytest.raises(flight.FlightUnavailableError) as caught:
        put(server, [rows()])
    assert "the log does not take events now" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert put(server, [rows()])[0]["accepted"] == 2


@pytest.mark.parametrize("send_s_max", [1.0])
def test_a_log_that_is_silent_is_not_waited_for(server, log):
    log.held.clear()
    with pytest.raises(flight.FlightUnavailableError, match="did not answer within 1 s"):
        put(server, [rows()])
    log.held.set()
    assert put(server, [rows()])[0]["accepted"] == 2


def test_a_server_without_a_log_takes_nothing(served):
    with served.client() as client:
        writer, _ = client.do_put(flight.FlightDescriptor.for_path("events.raw"), rows().schema)
        with pytest.raises(flight.FlightError, match="takes no events"):
            writer.close()


def ingest(server, data, table="events_raw", mode="append", token="admin", **names):
    """Flight SQL's bulk ingest."""
    header = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
    with (
        flightsql.connect(server.uri, db_kwargs=header, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        return cursor.adbc_ingest(table, data, mode=mode, **names)


@pytest.mark.parametrize("mode", ["append", "create_append"])
def test_adbc_ingests(server, log, mode):
    table = pa.Table.from_batches([rows(3), rows(3, first=3)])
    assert ingest(server, table, mode=mode) == 6
    assert [json.loads(record.value)["id"] for _, record in log.records] == [
        f"e-{n}" for n in range(6)
    ]


@pytest.mark.parametrize("mode", ["create", "replace"])
def test_adbc_makes_no_tables(server, log, mode):
    with pytest.raises(adbc_driver_manager.Error, match="can only be appended to"):
        ingest(server, rows(), mode=mode)
    assert not log.records


def test_adbc_names_a_topic(server):
    with pytest.raises(adbc_driver_manager.Error, match="takes no events"):
        ingest(server, rows(), table="events")
    with pytest.raises(adbc_driver_manager.Error, match="give the table's name alone"):
        ingest(server, rows(), db_schema_name="main")


def test_adbc_ingests_a_batch_whole_or_not_at_all(server, log):
    bad = pa.RecordBatch.from_pydict(
        {**{name: rows().column(name) for name in ("id", "type", "conversation_id", "message")},
         "time": ["2026-11-22T00:00:00Z", "never"]}
    )  # fmt: skip
    with pytest.raises(adbc_driver_manager.Error, match="row 1: time 'never'.*none of it"):
        ingest(server, bad)
    assert not log.records


def test_a_client_that_reads_no_answers_and_one_that_hangs_up(server, log):
    with server.client() as client:
        descriptor = flight.FlightDescriptor.for_path("events.raw")
        writer, _ = client.do_put(descriptor, rows().schema, options())
        for n in range(50):
            writer.write_batch(rows(100, first=100 * n))
        writer.close()
    assert len(log.records) == 5000
    client = server.client()
    writer, _ = client.do_put(descriptor, rows().schema, options())
    writer.write_batch(rows())
    client.close()
    assert put(server, [rows()])[0]["accepted"] == 2


def test_a_client_that_leaves_before_its_answers_is_no_fault_of_ours(server, log, caplog):
    """Answers that nobody reads fill the stream; then the client's time is over."""
    late = flight.FlightCallOptions(timeout=2, headers=[(b"authorization", b"Bearer admin")])
    with server.client() as client:
        writer, _ = client.do_put(
            flight.FlightDescriptor.for_path("events.raw"), rows().schema, late
        )

        def send():
            for n in range(1000):
                writer.write_batch(rows(2000, first=2000 * n))
            writer.close()

        with pytest.raises((flight.FlightError, pa.ArrowException)):
            send()
    assert put(server, [rows()])[0]["accepted"] == 2
    assert "Traceback" not in caplog.text
