"""The store on Apache Kafka: events in by Flight, rows out by ADBC, and a lost file made anew."""

import json
import subprocess
import sys

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest

pytestmark = [pytest.mark.models, pytest.mark.timeout(400)]


def ask(machine, sql):
    uri = f"grpc://127.0.0.1:{machine.ports['flight']}"
    with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table().to_pylist()


def streamapp(machine, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "streamapp.cli", *arguments],
        env=machine.env, cwd=machine.home, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_events_by_flight_and_a_store_that_was_lost(kafka_without_topics, machines):
    machine = machines("home", broker=kafka_without_topics.url)
    machine.home.mkdir()
    streamapp(machine, "topics", "apply")
    machine.start()
    uri = f"grpc://127.0.0.1:{machine.ports['flight']}"
    with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        for first in (0, 20):  # the second has ten of the first again
            numbers = range(first, first + 30)
            events = {
                "id": [f"e-{n}" for n in numbers],
                "conversation_id": [f"c-{n % 3}" for n in numbers],
                "message": ["Quero cancelar meu plano"] * 30,
            }
            assert cursor.adbc_ingest("events_raw", pa.table(events), mode="append") == 30
    everything = "SELECT * EXCLUDE (embedding) FROM events ORDER BY source_partition, source_offset"
    counted = "SELECT count(*) AS n, count(DISTINCT id) AS ids, min(intent) AS intent FROM events"
    wanted = [{"n": 50, "ids": 50, "intent": "cancel"}]
    machine.wait_for(lambda: ask(machine, counted) == wanted, "50 rows")
    before = ask(machine, everything)
    assert machine.stop() == 0

    (machine.home / "store.duckdb").unlink()
    report = json.loads(streamapp(machine, "store", "rebuild", "--json"))
    assert report["rows"] == 50, report
    streamapp(machine, "store", "verify")
    machine.start()
    assert list(map(str, ask(machine, everything))) == list(map(str, before))  # NaN is not NaN
    machine.post({"message": "um evento a mais", "conversation_id": "c"})
    machine.wait_rows(51)
    assert machine.stop() == 0
