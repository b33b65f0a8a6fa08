"""A WAL that is none, torn or another file's: rows and position go back together, the log brings the rest."""

import random
import shutil
from itertools import pairwise
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pytest

from streamapp.core.errors import Refuse
from streamapp.flight import FlightServer

#: The log that the store reads: ten source offsets a record, on an enriched offset of its own.
FIRSTS = range(0, 60, 10)


def log_from(make, next_):
    """What the log has from a position on: as the agent reads it."""
    return [make.record(first, first + 10) for first in FIRSTS if first + 9 >= next_]


def crashed(make, open_store, folder, *, first=0):
    """A store whose process died: 10 rows in its file, 20 in its WAL."""
    folder.mkdir()
    live = folder / "live.duckdb"
    store = open_store(str(live))
    for number, start in enumerate(range(first, first + 30, 10)):
        store.write([make.record(start, start + 10)])
        if number == 0:
            assert store.checkpoint()
    for ending in ("", ".wal"):
        shutil.copy(f"{live}{ending}", f"{folder / 'copy.duckdb'}{ending}")
    store.close()
    return folder / "copy.duckdb"


def random_bytes(wal, _other):
    wal.write_bytes(random.Random(5).randbytes(wal.stat().st_size))


def few_random_bytes(wal, _other):
    wal.write_bytes(random.Random(6).randbytes(40))


def random_tail(wal, _other):
    whole = wal.read_bytes()
    wal.write_bytes(whole[: len(whole) // 2] + random.Random(7).randbytes(len(whole) // 2))


def truncated(wal, _other):
    whole = wal.read_bytes()
    wal.write_bytes(whole[: len(whole) * 2 // 3])


def of_another_file(wal, other):
    shutil.copy(other, wal)


@pytest.mark.parametrize(
    "spoil", [random_bytes, few_random_bytes, random_tail, truncated, of_another_file]
)
def test_what_a_spoilt_wal_had_is_taken_again_from_the_log(make, open_store, tmp_path, spoil):
    copy = crashed(make, open_store, tmp_path / "one")
    other = crashed(make, open_store, tmp_path / "two", first=1000)
    wal = Path(f"{copy}.wal")
    spoil(wal, Path(f"{other}.wal"))
    try:
        store = open_store(str(copy))
    except Refuse as refusal:  # noticed: it says what to do, and that is enough
        assert refusal.code == "store.wal"
        wal.rename(tmp_path / "away")
        store = open_store(str(copy))
    next_ = store.positions()["events.enriched", 0]
    assert next_ in (10, 20, 30)
    rows = make.rows(store, "SELECT list(source_offset ORDER BY source_offset) FROM events")
    assert rows == [([*range(next_)],)]  # the position goes back as far as the rows
    for record in log_from(make, next_):
        store.write([record])
    server = FlightServer(store.reader, port=0)
    try:
        with (
            flightsql.connect(f"grpc://127.0.0.1:{server.port}", autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT source_offset, id FROM events ORDER BY ALL")
            stored = cursor.fetchall()
            cursor.execute('SELECT "first", "next" FROM ledger ORDER BY ALL')
            ranges = cursor.fetchall()
    finally:
        server.stop()
    assert [offset for offset, _ in stored] == [*range(60)]
    assert len({identity for _, identity in stored}) == 60
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 60
    assert all(one[1] == two[0] for one, two in pairwise(ranges))
