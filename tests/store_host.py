"""A store's process on an embedded log that the test itself fills with enriched records."""

import asyncio
import json
import subprocess
import sys

import duckdb
import numpy as np
import pyarrow as pa
from fleet import Fleet

from streamapp.core.batch import EVENT_SCHEMA, Rejected, vector_column
from streamapp.topics.catalogue import ENRICHED
from streamapp.topics.enriched import Cover, Enriched, encode
from streamapp.transport import Outgoing, open_producer

DAY_US = 86_400_000_000
#: The first event of each partition came in then; one follows every minute.
START_US = 20_000 * DAY_US
MINUTE_US = 60_000_000


def enriched(partition, first, next_, *, dead_every=0, wide=0):
    """The enriched record of a range: an event a minute, every so many of them a dead letter."""
    dead = [o for o in range(first, next_) if dead_every and o % dead_every == 0]
    offsets = [o for o in range(first, next_) if o not in set(dead)]
    times = [START_US + o * MINUTE_US for o in offsets]
    columns = {
        "source_offset": offsets,
        "id": [f"{partition}-{offset}" for offset in offsets],
        "type": ["message"] * len(offsets),
        "source": ["test"] * len(offsets),
        "conversation": [f"c{partition}"] * len(offsets),
        "actor": [None] * len(offsets),
        "time": times,
        "ingest_time": times,
        "text": [f"text {offset} {'x' * wide}" for offset in offsets],
        "duration_ms": [0.0] * len(offsets),
        "payload": ['{"a": 1}'] * len(offsets),
        "attachments": [None] * len(offsets),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in EVENT_SCHEMA]
    rows = pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)
    vectors = np.repeat(np.array(offsets, np.float32)[:, None], 4, axis=1)
    vectors[np.array(offsets, np.int64) % 10 == 9] = np.nan
    rows = rows.append_column("embedding", vector_column(vectors))
    rejects = tuple(
        Rejected(o, (START_US + o * MINUTE_US) // 1000, b"k", b"\xff", (), "wire", "event.json", "")
        for o in dead
    )
    cover = Cover(
        topic="events.raw", partition=partition, first=first, next=next_, rows=len(offsets)
    )
    return Enriched(cover, rows, (), rejects, '["vectors@1"]')


class StoreHost(Fleet):
    """A home with a log; its store is filled by the store's own process."""

    def __init__(self, home, **settings):
        home.mkdir(exist_ok=True)
        self.db = home / "events.duckdb"
        settings = {"dedup_window_s": 3600, "token": "t0ken"} | settings
        super().__init__(home, f"local://{home}/log", db_path=self.db, **settings)

    def publish(self, ranges, **given):
        """Append the enriched records of (partition, first, next) to the log."""

        async def send():
            producer = open_producer(self.broker)
            await producer.start()
            for partition, first, next_ in ranges:
                value, headers = encode(enriched(partition, first, next_, **given))
                await producer.send(ENRICHED, [Outgoing(value, None, headers, partition)])
            await producer.stop()

        asyncio.run(send())

    def cli(self, *arguments, code=0):
        """Run ``streamapp store …``; what it printed."""
        done = subprocess.run(
            self.command(*arguments), env=self.env, cwd=self.home, capture_output=True, text=True,
            check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments, code=0):
        return json.loads(self.cli(*arguments, "--json", code=code).stdout)

    def command(self, *arguments):
        return [sys.executable, "-P", "-m", "streamapp.cli", "store", *map(str, arguments)]

    def begin(self, *arguments):
        """Start ``streamapp store …`` and return at once."""
        return subprocess.Popen(
            self.command(*arguments), env=self.env, cwd=self.home, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def begin_archive(self):
        """Ask for the archive once more; what it complains of."""
        with self.begin("archive", "archive") as process:
            return process.communicate(timeout=60)[1]

    def stored(self):
        """Rows that the running store has."""
        return self.query("select count(*) as n from events").to_pylist()[0]["n"]

    def query(self, sql):
        from streamapp.flight import Client

        return Client("127.0.0.1", self.ports["flight"], "t0ken").query(sql)

    def wait_stored(self, rows):
        self.wait_for(lambda: self.stored() == rows, f"{rows} rows")


def plain(path, sql):
    """What DuckDB alone says of a file that nobody has open."""
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


def in_shell(path, *statements):
    """Have DuckDB alone change a file that nobody has open."""
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()
