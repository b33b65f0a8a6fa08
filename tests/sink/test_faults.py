"""What goes wrong around a store: each is named, harms nothing stored, and ends without us."""

import os
import random
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
from pyarrow import flight

from streamapp.core.errors import Halt, Refuse, Retry
from streamapp.flight import FlightServer, Limits
from streamapp.sink import Store, StoredRecord, keyed
from streamapp.topics.enriched import Enriched

WRITER = Path(__file__).with_name("writer.py")
REPOSITORY = WRITER.parents[2]
WAL_BYTES_MAX = 32 << 20
#: A result that no client reads to its end, over the rows that are stored when it is asked for.
ENDLESS_ROWS = "SELECT events.* FROM events, range(1000000)"
#: A condition on both sides, which DuckDB cannot evaluate on one of them first.
ENDLESS_WORK = (
    "SELECT count(*) FROM range(1000000000) AS a, range(1000000) AS b WHERE a.range + b.range < 0"
)
WAIT_S = 60


@pytest.fixture
def serve():
    """``serve(store)`` is the port of a Flight server on it."""
    servers = []

    def started(store, **limits):
        server = FlightServer(store.reader, port=0, limits=Limits(**limits))
        servers.append(server)
        return server.port

    yield started
    for server in servers:
        server.stop()


@pytest.fixture
def mount(tmp_path):
    """``mount("size=32m")`` is a file system in memory; ``mount.again`` changes its options."""
    path = tmp_path / "disk"
    path.mkdir()

    def run(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "none", path]
        if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
            pytest.skip("may not mount a file system here")
        return path

    yield run
    subprocess.run(["umount", "--lazy", path], check=False, stderr=subprocess.DEVNULL)


def noisy(make, first, count):
    """A record that does not compress: about 4 kB a row."""
    noise = random.Random(first)
    texts = [noise.randbytes(2000).hex() for _ in range(count)]
    events = [make.event(first + row, text=text) for row, text in enumerate(texts)]
    return make.record(first, first + count, events, stages=False)


def fill(make, store, next_):
    """Write until there is no room: the offset that found none, and what was said."""
    while True:
        try:
            store.write([noisy(make, next_, 300)])
        except Retry as error:
            return next_, error
        next_ += 300


def over_adbc(port, sql):
    with (
        flightsql.connect(f"grpc://127.0.0.1:{port}", autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
        return cursor.fetch_arrow_table()


def test_a_full_disk_is_waited_for_and_nothing_is_lost(make, open_store, serve, mount):
    disk = mount("size=24m")
    store = open_store(str(disk / "store.duckdb"))
    first, full = fill(make, store, 0)
    next_, still_full = fill(make, store, first)
    assert str(disk) in str(full)
    assert str(disk) in str(still_full)
    mount("remount,size=200m")
    for _ in range(3):  # it may find that the file must be opened anew, and say so once
        try:
            store.write([noisy(make, next_, 300)])
            break
        except Retry:
            continue
    next_ += 300
    rows = over_adbc(serve(store), "SELECT source_offset, text FROM events ORDER BY 1")
    assert rows["source_offset"].to_pylist() == list(range(next_))
    expected = [r for n in range(0, next_, 300) for r in noisy(make, n, 300).enriched.rows["text"]]
    assert rows["text"].to_pylist() == [text.as_py() for text in expected]
    assert [(r.first, r.next) for r in store.ledger] == [(0, next_)]


def environment():
    return {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ["PYTHONPATH"]])}


def test_a_locked_file_says_by_whom(path):
    with subprocess.Popen(
        [sys.executable, WRITER, path, "10"],
        stdout=subprocess.PIPE, env=environment(), cwd=REPOSITORY,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline()
            with pytest.raises(Refuse, match=rf"PID {process.pid}, .*writer\.py") as caught:
                Store.open(path, columns={})
        finally:
            process.kill()
    assert caught.value.code == "store.locked"


def test_the_file_of_a_newer_duckdb_is_refused(make, open_store, path):
    with open_store(path) as store:
        store.write([make.record(0, 3)])
    file = bytearray(Path(path).read_bytes())
    struct.pack_into("<Q", file, 12, 100_000)  # the storage version, behind the magic bytes
    struct.pack_into("<Q", file, 0, checksum(file[8:4096]))
    Path(path).write_bytes(file)
    with pytest.raises(Refuse, match="another DuckDB than this one.* 100000,") as caught:
        Store.open(path, columns=make.COLUMNS)
    assert caught.value.code == "store.newer"
    assert Path(path).read_bytes() == file


def checksum(block):
    """DuckDB's, of a header block (src/common/checksum.cpp)."""
    total = 5381
    for (word,) in struct.iter_unpack("<Q", block):
        total ^= word * 0xBF58476D1CE4E5B9 & 0xFFFF_FFFF_FFFF_FFFF
    return total


def crashed(make, open_store, path, into):
    """A copy of a store that was not closed: rows 0-9 are in the file, 10-29 in the WAL."""
    store = open_store(path)
    store.write([make.record(0, 10)])
    assert store.checkpoint()
    store.write([make.record(10, 20)])
    store.write([make.record(20, 30)])
    copy = into / "copy.duckdb"
    shutil.copy(path, copy)
    shutil.copy(f"{path}.wal", f"{copy}.wal")
    return copy


def test_a_damaged_wal_is_told_from_a_damaged_file_and_costs_no_event(
    make, open_store, path, tmp_path
):
    copy = crashed(make, open_store, path, tmp_path)
    wal = Path(f"{copy}.wal")
    damaged = bytearray(wal.read_bytes())
    damaged[len(damaged) // 3] ^= 0xFF
    wal.write_bytes(damaged)
    with pytest.raises(Refuse, match="copy.duckdb.wal is damaged") as caught:
        open_store(str(copy))
    assert caught.value.code == "store.wal"
    wal.rename(tmp_path / "away")  # as it is told to do
    store = open_store(str(copy))
    assert store.positions() == {("events.enriched", 0): 10}
    store.write([make.record(10, 20), make.record(20, 30)])  # from its position, as the agent does
    assert make.rows(store, "SELECT list(source_offset ORDER BY source_offset) FROM events") == [
        ([*range(30)],)
    ]


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9])
def test_a_wal_cut_anywhere_is_whole_transactions(make, open_store, path, tmp_path, part):
    copy = crashed(make, open_store, path, tmp_path)
    wal = Path(f"{copy}.wal")
    wal.write_bytes(wal.read_bytes()[: int(wal.stat().st_size * part)])
    store = open_store(str(copy))
    end = store.positions()["events.enriched", 0]
    assert end in (10, 20)
    assert make.rows(store, "SELECT list(source_offset ORDER BY source_offset) FROM events") == [
        ([*range(end)],)
    ]
    assert [(r.first, r.next) for r in store.ledger] == [(0, end)]


@pytest.mark.parametrize("keep", [100, 5000])
def test_a_file_cut_short_is_refused_as_damaged(make, open_store, path, keep):
    with open_store(path) as store:
        store.write([make.record(0, 10)])
    Path(path).write_bytes(Path(path).read_bytes()[:keep])
    with pytest.raises(Refuse, match="damaged") as caught:
        open_store(path)
    assert caught.value.code == "store.corrupt"


def test_a_read_only_disk_is_refused(open_store, mount):
    path = mount("ro") / "store.duckdb"
    with pytest.raises(Refuse, match=rf"cannot open {path}.*Read-only file system") as caught:
        open_store(str(path))
    assert caught.value.code == "store.path"
    with pytest.raises(Refuse, match="Read-only file system"):
        open_store(str(path.parent / "new folder" / "store.duckdb"))


def test_a_folder_that_is_a_file_is_refused(open_store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refuse, match="cannot open .*file/store.duckdb: File exists") as caught:
        open_store(str(tmp_path / "file" / "store.duckdb"))
    assert "--db-path" in caught.value.fix


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda rows: rows.drop_columns(["id"]), "'id' of string and has none"),
        (
            lambda rows: rows.set_column(1, "id", pa.array([1] * rows.num_rows)),
            "'id' of string and has one of int64",
        ),
        (lambda rows: pa.record_batch({"what": rows.column("id")}), "'source_offset' of int64"),
    ],
)
@pytest.mark.parametrize("prepare", [keyed, lambda record: record])
def test_a_record_of_an_unknown_schema_halts_and_stores_nothing(
    make, open_store, spoil, told, prepare
):
    store, good = open_store(), make.record(0, 3)
    rows = spoil(good.enriched.rows)
    bad = StoredRecord(Enriched(good.enriched.cover, rows), "events.enriched", 0, 3)
    with pytest.raises(Halt, match=told) as caught:
        store.write([prepare(bad)])
    assert caught.value.code == "store.record"
    assert store.write([good]).rows == 3


def test_a_client_that_stops_reading_stops_nobody_and_the_wal_stays_small(
    make, open_store, path, serve
):
    store, wal, written = open_store(path), Path(f"{path}.wal"), 0
    store.write([noisy(make, 0, 300)])
    client = flight.connect(f"grpc://127.0.0.1:{serve(store)}")
    answer = client.do_get(flight.Ticket(ENDLESS_ROWS.encode()))
    assert answer.read_chunk().data.num_rows  # and no more
    largest = 0
    for first in range(300, 300 + 150 * 100, 150):  # 60 MB, in transactions that go by the WAL
        written += store.write([noisy(make, first, 150)]).rows
        largest = max(largest, wal.stat().st_size if wal.exists() else 0)
    assert written == 15_000
    assert 0 < largest < WAL_BYTES_MAX
    assert answer.read_chunk().data.num_rows  # it may go on
    answer.cancel()
    client.close()


def test_sql_that_never_ends_does_not_stop_the_writer(make, open_store, serve):
    store = open_store()
    port, ended = serve(store), []

    def ask():
        with flight.connect(f"grpc://127.0.0.1:{port}") as client:
            try:
                client.do_get(
                    flight.Ticket(ENDLESS_WORK.encode()), flight.FlightCallOptions(timeout=2.0)
                ).read_all()
            except (flight.FlightError, pa.ArrowException) as error:
                ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    beside = first = 0
    while asking.is_alive():
        assert store.write([make.record(first, first + 20)]).rows == 20
        first, beside = first + 20, beside + asking.is_alive()
    asking.join(WAIT_S)
    assert len(ended) == 1
    assert beside > 1
    assert make.rows(store, "SELECT count(*) FROM events") == [(first,)]


class SlowClient:
    """Opens a large result of a Flight server and reads one batch a second, until it breaks."""

    def __init__(self, port):
        self._client = flight.connect(f"grpc://127.0.0.1:{port}")
        self._answer = self._client.do_get(flight.Ticket(ENDLESS_ROWS.encode()))
        self.batches = int(self._answer.read_chunk().data.num_rows > 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        try:
            while not self._stop.wait(1):
                self.batches += self._answer.read_chunk().data.num_rows > 0
        except (flight.FlightError, pa.ArrowException, OSError):
            return

    def close(self):
        self._stop.set()
        self._answer.cancel()
        self._thread.join(WAIT_S)
        self._client.close()


def killed_with_a_client(path, count, transactions, largest):
    """Kill a serving writer after some transactions; what it said was durable, by partition."""
    wal, said = Path(f"{path}.wal"), {}
    with subprocess.Popen(
        [sys.executable, WRITER, path, str(count), "serve"],
        stdout=subprocess.PIPE, text=True, env=environment(), cwd=REPOSITORY,
    ) as process:  # fmt: skip
        client = None
        try:
            port = int(process.stdout.readline().split()[1])
            for number, line in enumerate(process.stdout):
                if line.endswith("\n"):
                    _, partition, next_ = line.split()
                    said[int(partition)] = int(next_)
                if number == 0:
                    client = SlowClient(port)
                if number == transactions:
                    process.kill()
                if wal.exists():
                    largest.append(wal.stat().st_size)
        finally:
            process.kill()
            if client is not None:
                client.close()
    assert client is not None
    assert client.batches >= 1
    return said


#: As the writer of writer.py made them, or not.
_ROWS = """
    SELECT source_partition AS p, source_offset AS o, embedding[64] AS vector_end, embedding[1] AS v,
           id = concat(source_partition, '-', source_offset) AND text = 'some words' AS as_sent
    FROM events ORDER BY ALL"""
_DEAD = "SELECT source_partition AS p, source_offset AS o FROM dead ORDER BY ALL"
_LEDGER = 'SELECT "partition" AS p, "first", "next", rows FROM ledger ORDER BY ALL'


def check_all(store, port, said):
    """Everything from 0 to each partition's position is there, once, as it was sent: by ADBC."""
    rows, dead, ledger = (over_adbc(port, sql).to_pylist() for sql in (_ROWS, _DEAD, _LEDGER))
    ends = {partition: next_ for (_, partition), next_ in store.positions().items()}
    assert {p: ends[p] >= next_ for p, next_ in said.items()} == dict.fromkeys(said, True)
    offsets = [(p, o) for p in sorted(ends) for o in range(ends[p])]
    assert [(row["p"], row["o"]) for row in rows] == [a for a in offsets if a[1] % 100]
    assert [(row["p"], row["o"]) for row in dead] == [a for a in offsets if a[1] % 100 == 0]
    assert all(row["as_sent"] and row["v"] == row["vector_end"] == row["o"] for row in rows)
    covered = {}
    for range_ in ledger:
        assert range_["first"] == covered.get(range_["p"], 0)
        covered[range_["p"]] = range_["next"]
    assert covered == ends
    assert sum(range_["rows"] for range_ in ledger) == len(rows)


def kill_often(path, number, serve, transactions_max):
    rng, largest = random.Random(20261122), [0]
    for turn in range(number):
        count = rng.choice([10, 40, 300, 2048])
        said = killed_with_a_client(path, count, rng.randrange(transactions_max), largest)
        with Store.open(path, columns={}) as store:
            check_all(store, serve(store), said)
        if turn % 20 == 19:  # checked; begin anew, or every check would take longer
            Path(path).unlink()
    assert max(largest) < WAL_BYTES_MAX


@pytest.mark.timeout(300)
def test_kill_at_any_moment_with_a_slow_client(path, serve):
    kill_often(path, 10, serve, 12)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kill_two_hundred_times_with_a_slow_client(path, serve):
    kill_often(path, 200, serve, 40)
