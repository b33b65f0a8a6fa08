"""The store on Apache Kafka: events in by Flight, rows out by ADBC, and a lost file made anew."""

import json
import shutil

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
from fleet import Fleet

from streamapp.topics.catalogue import defaults

pytestmark = [pytest.mark.models, pytest.mark.timeout(400)]
EVERYTHING = "SELECT * EXCLUDE (embedding) FROM events ORDER BY source_partition, source_offset"
COUNTED = "SELECT count(*) AS n, count(DISTINCT id) AS ids, min(intent) AS intent FROM events"


@pytest.fixture
def fleet(kafka_without_topics, tmp_path):
    fleet = Fleet(tmp_path / "fleet", kafka_without_topics.url)
    shutil.copy(defaults("topics") / "workflow.toml", tmp_path / "fleet" / "topics")  # real models
    yield fleet
    fleet.stop()


def ingest(fleet, first, count):
    """So many events in three conversations, in one call."""
    numbers = range(first, first + count)
    events = {
        "id": [f"e-{n}" for n in numbers],
        "conversation_id": [f"c-{n % 3}" for n in numbers],
        "message": ["Quero cancelar meu plano"] * count,
    }
    uri = f"grpc://127.0.0.1:{fleet.ports['flight']}"
    with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("events_raw", pa.table(events), mode="append") == count


def has(fleet, count):
    """Wait for so many rows, each event once."""
    wanted = [{"n": count, "ids": count, "intent": "cancel"}]
    fleet.wait_for(lambda: fleet.rows(COUNTED) == wanted, f"{count} rows")


def test_events_by_flight_and_a_store_that_was_lost(fleet):
    fleet.start("store", "worker")
    ingest(fleet, 0, 30)
    ingest(fleet, 20, 30)  # ten of the first again
    has(fleet, 50)
    before = fleet.rows(EVERYTHING)
    assert fleet.terminate("store") == {0}

    path = fleet.home / "store" / "store.duckdb"
    path.unlink()
    report = json.loads(fleet.run("store", "rebuild", "--json", "--db-path", str(path)))
    assert report["rows"] == 50, report
    fleet.run("store", "verify", "--db-path", str(path))
    fleet.start("store")
    assert list(map(str, fleet.rows(EVERYTHING))) == list(map(str, before))  # NaN is not NaN
    ingest(fleet, 50, 1)
    has(fleet, 51)
    assert fleet.terminate("store", "worker") == {0}
