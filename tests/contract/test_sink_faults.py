"""Every sink after a kill at any moment, and while the disk is full; read back without our code."""

import os
import random
import subprocess
import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from s3_server import environment as s3_server_environment
from sinks import DuckSink, ParquetSink, S3Sink, event, record, rows

from streamapp.core.errors import Halt, Retry
from streamapp.sink import keyed
from streamapp.topics.enriched import Enriched

WRITER = Path(__file__).parent / "programs" / "sink_writer.py"
_REPOSITORY = WRITER.parents[3]

#: Ledger against rows and dead letters, both ways; what a row says; and order without a gap.
_DISAGREE = """
    WITH covered AS (
        SELECT "partition" AS p, unnest(range("first", "next")) AS o FROM ledger
    ), kept AS (
        SELECT source_partition AS p, source_offset AS o FROM events
        UNION ALL SELECT source_partition, source_offset FROM dead
    )
    SELECT (SELECT count(*) FROM (FROM covered EXCEPT ALL FROM kept)),
           (SELECT count(*) FROM (FROM kept EXCEPT ALL FROM covered)),
           (SELECT count(*) FROM events WHERE words <> source_offset OR id <> 'id-' || words),
           (SELECT sum(rows) FROM ledger) - (SELECT count(*) FROM events)"""


@pytest.fixture(params=["duckdb", "parquet"])
def kind(request):
    return request.param


@pytest.fixture
def sink(kind, tmp_path):
    return DuckSink(tmp_path) if kind == "duckdb" else ParquetSink(str(tmp_path / "root"))


def killed_writer(kind, url, count, after_s, environment):
    """What a writer said was durable before it was killed, ``after_s`` after its first word."""
    with subprocess.Popen(
        [sys.executable, WRITER, kind, url, str(count)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_REPOSITORY,
        env={"PYTHONPATH": os.pathsep.join([str(_REPOSITORY), os.environ["PYTHONPATH"]]), **environment},
    ) as process:  # fmt: skip
        first = process.stdout.readline()
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.kill()
        lines = [first, *process.stdout]
        complaint = process.stderr.read()
    assert process.returncode == -9, complaint
    said = {}
    for line in lines:
        if line.endswith("\n"):
            _, partition, next_ = line.split()
            said[int(partition)] = int(next_)
    return said


def kills(kind, sink, number, environment):
    rng = random.Random(20261122)
    for count in rng.choices([10, 40, 300], k=number):
        said = killed_writer(kind, sink.url, count, rng.random() * 0.5, environment)
        assert rows(sink, _DISAGREE, "ledger", "events", "dead") == [(0, 0, 0, 0)]
        with sink.open() as store:
            positions = store.positions()
            for partition, next_ in said.items():
                assert positions["events.enriched", partition] >= next_
            ranges = {one.partition: one for one in store.ledger}
            assert all(ranges[p][2:] == (0, at) for (_, p), at in positions.items())
        assert rows(sink, _DISAGREE, "ledger", "events", "dead") == [(0, 0, 0, 0)]
        if kind == "parquet":
            ordered = "SELECT max(stored_order) + 1 - count(DISTINCT stored_order) FROM events"
            assert rows(sink, ordered, "events") == [(0,)]
        yield


@pytest.mark.timeout(300)
def test_kill_at_any_moment(kind, sink):
    assert len(list(kills(kind, sink, 6, {}))) == 6


@pytest.mark.timeout(400)
def test_kill_a_writer_of_an_object_store(s3_server, monkeypatch):
    environment = s3_server_environment(s3_server)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sink = S3Sink(uuid.uuid4().hex, s3_server)
    assert len(list(kills("parquet", sink, 3, environment))) == 3


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kill_a_hundred_times(kind, sink):
    assert len(list(kills(kind, sink, 100, {}))) == 100


def test_a_full_disk_is_waited_for(kind, sink, file_bytes_max):
    noise = random.Random(1)

    def one(first):
        events = [event(o, text=noise.randbytes(2000).hex()) for o in range(first, first + 200)]
        return record(first, first + 200, events)

    def until_full():
        nonlocal stored
        for _ in range(200):
            store.write([one(stored)])
            stored += 200

    store = sink.open()
    store.write([one(0)])
    size = max(p.stat().st_size for p in Path(sink.url).parent.rglob("*") if p.is_file())
    file_bytes_max(size // 2 if kind == "parquet" else size + 1_000_000)
    stored = 200
    with pytest.raises(Retry) as caught:
        until_full()
    assert caught.value.code == "store.write"
    failed = one(stored)
    with pytest.raises(Retry):
        store.write([failed])
    file_bytes_max(None)
    for _ in range(3):  # DuckDB may find that its file must be opened anew, and say so once
        try:
            store.write([failed])
            break
        except Retry:
            continue
    store.close()
    found = rows(sink, "SELECT count(*), count(DISTINCT source_offset) FROM events", "events")
    assert found == [(stored + 200, stored + 200)]
    assert rows(sink, "SELECT min(first), max(next) FROM ledger", "ledger") == [(0, stored + 200)]
    if kind == "parquet":
        there = {str(path) for path in Path(sink.url).rglob("*.parquet")}
        named = set(sink.paths("events") + sink.paths("dead") + sink.paths("provenance"))
        assert there == named  # failed attempts left nothing


@pytest.mark.parametrize("table", ["manifest", "files"])
def test_parquet_survives_a_full_disk_at_either_step(tmp_path, monkeypatch, table):
    """No room for a data file, or none for the manifest's entry that names it."""
    from streamapp.sink.parquet.place import Directory

    sink = ParquetSink(str(tmp_path / "root"))
    name = "create" if table == "manifest" else "put"
    with sink.open() as store:
        store.write([record(0, 2)])

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Directory, name, full)
        for _ in range(3):
            with pytest.raises(Retry, match="No space left"):
                store.write([record(2, 4)])
        assert rows(sink, "SELECT count(*) FROM events", "events") == [(2,)]
        monkeypatch.undo()
        assert store.write([record(2, 4)]).rows == 2
    assert sorted(str(p) for p in Path(sink.url).rglob("events/**/*.parquet")) == sorted(
        sink.paths("events")
    )


def test_a_failed_attempt_takes_nothing_from_another_writer(tmp_path, monkeypatch):
    """Two store the same record under the same number, and so in files of the same name."""
    sink = ParquetSink(f"memory://{tmp_path.name}")
    with sink.open() as late, sink.open() as first:
        first.write([record(0, 3)])
        pipe = MemoryFileSystem.pipe_file

        def no_provenance(self, path, value, **options):
            if "provenance" in path:
                raise OSError("connection reset")
            pipe(self, path, value, **options)

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", no_provenance)
        with pytest.raises(Retry, match="connection reset"):
            late.write([record(0, 3)])
    assert rows(sink, "SELECT count(*) FROM events", "events") == [(3,)]


@pytest.mark.parametrize("name", ["id", "time", "payload"])
@pytest.mark.parametrize("prepare", [keyed, lambda record: record])
def test_a_record_with_a_null_where_no_event_has_one(sink, name, prepare):
    """It is not ours; the store is not damaged, and keeps nothing of it."""
    good = record(0, 3)
    rows = good.enriched.rows
    at = rows.schema.get_field_index(name)
    holey = pc.if_else(pa.array([True, False, True]), rows.column(at), None)
    bad = Enriched(good.enriched.cover, rows.set_column(at, name, holey))
    with sink.open() as store:
        with pytest.raises(Halt, match=f"in each row of column '{name}' and has a NULL") as caught:
            store.write([prepare(good._replace(enriched=bad))])
        assert caught.value.code == "store.record"
        assert store.write([good]).rows == 3
