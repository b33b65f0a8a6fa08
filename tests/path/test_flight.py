"""Events in and rows out by Flight alone, through a store and a worker: DoPut, adbc_ingest, SQL, tail."""

import json
import subprocess
import sys

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
from fleet import Fleet
from pyarrow import flight

pytestmark = pytest.mark.timeout(400)
TOKEN, READ = "write-4f1c", "read-77aa"
TEXT = "Quero cancelar meu plano"


def events(first, count):
    """Messages with ids, in a few conversations."""
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"e-{n}" for n in range(first, first + count)],
            "type": ["UserMessage"] * count,
            "conversation_id": [f"c-{n % 3}" for n in range(first, first + count)],
            "message": [TEXT] * count,
        }
    )


def put(uri, batch):
    """By plain Flight; the report."""
    options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {TOKEN}".encode())])
    with flight.connect(uri) as client:
        descriptor = flight.FlightDescriptor.for_path("events.raw")
        writer, results = client.do_put(descriptor, batch.schema, options)
        with writer:
            writer.write_batch(batch)
            writer.done_writing()
            return json.loads(results.read().to_pybytes())


def connect(uri, token):
    """By ADBC."""
    header = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
    return flightsql.connect(uri, db_kwargs=header, autocommit=True)


def ask(uri, sql):
    """Rows, as a reader who has the read token only."""
    with connect(uri, READ) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.fixture
def fleet(tmp_path):
    fleet = Fleet(
        tmp_path / "fleet",
        f"local://{tmp_path / 'log'}",
        stage_s=0.0,
        token=TOKEN,
        flight_read_token=READ,
    )
    yield fleet
    fleet.stop()


def test_flight_alone(fleet):
    fleet.start("store", "worker")
    uri = f"grpc://127.0.0.1:{fleet.ports['flight']}"
    tail = subprocess.Popen(
        [sys.executable, "-m", "streamapp.cli", "tail", "--json", "--columns", "id,type",
         "--from", "beginning", "--where", f"text = '{TEXT}'", "-n", "90"],
        env=fleet.env, cwd=fleet.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        report = put(uri, events(0, 30))
        assert (report["accepted"], report["rejected"]) == (30, [])
        with connect(uri, TOKEN) as connection, connection.cursor() as cursor:
            table = pa.Table.from_batches([events(30, 20), events(50, 10)])
            assert cursor.adbc_ingest("events_raw", table, mode="append") == 30
        stored = "SELECT count(*), count(DISTINCT id), min(text), max(text) FROM events"
        fleet.wait_for(lambda: ask(uri, stored) == [(60, 60, TEXT, TEXT)], "60 rows")

        lines = [tail.stdout.readline() for _ in range(60)]
        fleet.kill("store")  # tail waits for it and goes on
        fleet.start("store")
        assert put(uri, events(50, 40))["accepted"] == 40  # ten of them again
        fleet.wait_for(lambda: ask(uri, stored) == [(90, 90, TEXT, TEXT)], "90 rows")

        out, err = tail.communicate(timeout=120)
        assert (tail.returncode, err) == (0, b""), out
        rows = [json.loads(line) for line in [*lines, *out.splitlines()]]
        assert sorted(row["id"] for row in rows) == sorted(f"e-{n}" for n in range(90))
        for partition in {row["source_partition"] for row in rows}:
            offsets = [r["source_offset"] for r in rows if r["source_partition"] == partition]
            assert offsets == sorted(offsets)

        with (
            pytest.raises(flightsql.Error, match="read token reads"),
            connect(uri, READ) as reading,
        ):
            reading.cursor().adbc_ingest("events_raw", events(0, 1), mode="append")
    finally:
        tail.kill()
        tail.communicate()
