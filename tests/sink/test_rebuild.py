"""A store made anew from the enriched topic: the same rows, what was retained stays away."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from kept import EVERYTHING, NO_WINDOW, hourly, is_sound, rows_of
from store_host import in_shell, plain

from streamapp.core.errors import Refuse, Reject
from streamapp.core.ranges import OffsetRange
from streamapp.core.slice import Record, Slice
from streamapp.sink import Store, retain
from streamapp.sink.rebuild import NEW, Source, old_file, rebuild
from streamapp.sink.verify import Window
from streamapp.topics.enriched import encode


class Log:
    """An enriched topic in memory; ``begin`` is where retention has got to in each partition."""

    def __init__(self, *partitions):
        self.partitions = [[] for _ in partitions]
        self.begin = [0] * len(partitions)
        for number, stored in enumerate(partitions):
            for time_ms, record in stored:
                value, headers = encode(record.enriched)
                at = len(self.partitions[number])
                self.partitions[number].append(Record(at, time_ms, None, value, headers))

    async def bounds(self, _topic, partition):
        return self.begin[partition], len(self.partitions[partition])

    async def read(self, topic, partition, offset, *, records_max=2, **_limits):
        first = max(offset, self.begin[partition])
        found = self.partitions[partition][first : first + records_max]
        return Slice(OffsetRange(topic, partition, offset, first + len(found)), found)


@pytest.fixture
def log(make):
    """Two partitions, ten events a record, published in turns."""
    return Log(
        [(10 * n, hourly(make, 10 * n, 10 * n + 10)) for n in range(6)],
        [(10 * n + 5, hourly(make, 10 * n, 10 * n + 10, partition=1)) for n in range(4)],
    )


@pytest.fixture
def again(make, path, log):
    """``again(...)``: rebuild the store; what it said last."""

    def call(*, window=NO_WINDOW, columns=make.COLUMNS, **options):
        source = Source(
            reader=log, topic="events.enriched", partitions=len(log.begin), columns=columns,
            window=window,
        )  # fmt: skip

        async def run():
            async with contextlib.aclosing(rebuild(Path(path), source, **options)) as steps:
                return [step async for step in steps][-1]

        return asyncio.run(run())

    return call


@pytest.fixture
def old(make, path, log):
    """The store that the topic's records make."""
    with Store.open(path, columns=make.COLUMNS) as store:
        for partition, count in ((0, 6), (1, 4)):
            for n in range(count):
                one = hourly(make, 10 * n, 10 * n + 10, partition=partition)
                store.write([one._replace(next=n + 1)])
    return path


def test_the_same_rows_and_positions(make, old, again):
    rows, at = (
        plain(old, EVERYTHING),
        'SELECT "partition", max("next") FROM position GROUP BY 1 ORDER BY 1',
    )
    done = again()
    assert (done["rows"], done["ok"], done["gone"]) == (100, True, [])
    assert plain(old, EVERYTHING) == rows
    assert plain(old, at) == [(0, 6), (1, 4)]
    assert done["kept"] == str(old_file(Path(old)))
    assert plain(done["kept"], EVERYTHING) == rows
    with Store.open(old, columns=make.COLUMNS) as store:
        assert store.write([hourly(make, 50, 70)]).rows == 10


def test_where_there_was_none(again, path):
    done = again()
    assert (done["rows"], done["kept"], done["old"]) == (100, None, "there was none")
    assert is_sound(path)


def test_a_damaged_one_is_replaced_and_kept(old, again):
    Path(old).write_bytes(b"damaged " * 100_000)
    Path(f"{old}.wal").write_bytes(b"its wal")
    done = again()
    assert (done["rows"], "damaged" in done["old"]) == (100, True)
    assert is_sound(old)
    assert not Path(f"{old}.wal").exists()
    assert old_file(Path(old)).read_bytes().startswith(b"damaged")
    assert Path(f"{old_file(Path(old))}.wal").read_bytes() == b"its wal"


def test_nothing_of_the_old_one_is_kept_when_told(old, again, tmp_path):
    assert again(replace=True)["kept"] is None
    assert [one.name for one in tmp_path.iterdir()] == [Path(old).name]


def test_what_was_retained_stays_away(make, old, again):
    with Store.open(old, columns=make.COLUMNS) as store:
        list(retain.retain(store, retain.bound(store, NO_WINDOW, keep_rows=30)))
        kept = rows_of(store, EVERYTHING)
    done = again()
    assert (done["rows"], done["ok"]) == (len(kept), True)
    assert plain(old, EVERYTHING) == kept
    assert plain(old, "SELECT sum(rows) FROM retained") == [(100 - len(kept),)]


def test_ids_are_told_apart_in_the_order_of_publication(make, path):
    """The store saw partition 1's event first; read one by one, partition 0's would be kept."""
    later = make.record(0, 1, [make.event(0, name="same", ingest_us=7)])
    first = make.record(0, 1, [make.event(0, name="same", ingest_us=5)], partition=1)
    source = Source(
        reader=Log([(20, later)], [(10, first)]), topic="events.enriched", partitions=2,
        columns=make.COLUMNS, window=Window(3600, 1000),
    )  # fmt: skip

    async def run():
        async for _ in rebuild(Path(path), source):
            pass

    asyncio.run(run())
    assert plain(path, "SELECT source_partition FROM events") == [(1,)]


class TestGap:
    def test_it_is_refused_and_named(self, old, again, log):
        rows = plain(old, EVERYTHING)
        log.begin = [2, 0]
        with pytest.raises(Refuse, match=r"events\.raw-0\[0,20\)") as caught:
            again()
        assert caught.value.code == "rebuild.gap"
        assert plain(old, EVERYTHING) == rows
        assert not Path(old + NEW).exists()

    def test_accepted_it_is_counted(self, old, again, log):
        log.begin = [2, 4]
        done = again(accept_gap=True)
        assert done["gone"] == ["events.raw-0[0,20)", "events.raw-1[0,40)"]
        assert (done["rows"], done["lost"], done["holes"], done["ok"]) == (40, 60, [], True)

    def test_what_was_retained_is_no_gap(self, make, old, again, log):
        with Store.open(old, columns=make.COLUMNS) as store:
            list(retain.retain(store, retain.bound(store, NO_WINDOW, keep_rows=30)))
        log.begin = [2, 2]
        assert again()["ok"]

    def test_without_an_old_store_it_is_what_is_before_the_first_record(self, again, log):
        log.begin = [1, 4]
        with pytest.raises(Refuse) as caught:
            again()
        assert "events.raw-0[0,10)" in caught.value.message
        assert "whatever events.enriched-1[0,4) held" in caught.value.message
        done = again(accept_gap=True)
        assert (done["rows"], done["ok"]) == (50, True)

    def test_a_topic_that_loses_more_meanwhile_makes_no_store(self, old, again, log):
        rows, read = plain(old, EVERYTHING), log.read

        async def losing(topic, partition, offset, **limits):
            slice_ = await read(topic, partition, offset, **limits)
            log.begin = [4, 0]
            return slice_

        log.read = losing
        with pytest.raises(Reject, match="hole"):
            again()
        assert plain(old, EVERYTHING) == rows


def test_a_rebuild_goes_on_where_one_was_killed(make, path, again):
    with Store.open(path + NEW, columns=make.COLUMNS) as store:
        store.write([hourly(make, 0, 10)._replace(next=1)])
        store.exclusively(
            lambda writer: writer.execute("INSERT INTO meta VALUES ('mine', '1')").fetchall()
        )
    assert again()["rows"] == 100
    assert plain(path, "SELECT count(*) FROM meta WHERE name = 'mine'") == [(1,)]


@pytest.mark.parametrize("left", ["other columns", "garbage", "a gap since"])
def test_what_a_killed_one_left_is_used_only_when_it_fits(make, path, again, log, left):
    if left == "garbage":
        Path(path + NEW).write_text("garbage " * 10_000)
    else:
        columns = {} if left == "other columns" else make.COLUMNS
        with Store.open(path + NEW, columns=columns) as store:
            store.write([hourly(make, 0, 10)._replace(next=1)])
        in_shell(path + NEW, "INSERT INTO meta VALUES ('mine', '1')")
    log.begin = [2, 0] if left == "a gap since" else [0, 0]
    done = again(accept_gap=left == "a gap since")
    assert done["ok"]
    assert plain(path, "SELECT count(*) FROM meta WHERE name = 'mine'") == [(0,)]
    if left == "other columns":
        assert plain(path, "SELECT count(words) FROM events") == [(100,)]


def test_what_was_dropped_since_a_rebuild_was_killed_stays_away(make, old, again):
    with Store.open(old + NEW, columns=make.COLUMNS) as store:
        store.write([hourly(make, 0, 10)._replace(next=1)])
    with Store.open(old, columns=make.COLUMNS) as store:
        list(retain.retain(store, retain.bound(store, NO_WINDOW, keep_rows=30)))
        kept = rows_of(store, EVERYTHING)
    again()
    assert plain(old, EVERYTHING) == kept


def test_a_link_stays_one(old, again, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    Path(old).rename(disk / "real.duckdb")
    Path(old).symlink_to(disk / "real.duckdb")
    assert again()["store"] == str(disk / "real.duckdb")
    assert Path(old).is_symlink()
    assert len(plain(old, EVERYTHING)) == 100


def test_columns_that_only_the_old_store_has_are_filled_too(old, again):
    again(columns={})
    assert plain(old, "SELECT count(*), count(words) FROM events") == [(100, 100)]


def test_a_store_that_runs_is_left_alone(old, again):
    code = f"import duckdb, sys; c = duckdb.connect({old!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(Refuse, match=f"PID {other.pid}"):
            again()
        other.stdin.close()
    assert again()["ok"]


def opened_by_another(path):
    code = f"import duckdb; duckdb.connect({path!r})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "Conflicting lock" in done.stderr
    return done.returncode == 0


def test_no_store_starts_while_it_is_rebuilt(old, again, log):
    read, seen = log.read, []

    async def trying(*arguments, **limits):
        log.read = read
        seen.append(await asyncio.to_thread(opened_by_another, old))
        return await read(*arguments, **limits)

    log.read = trying
    assert again()["ok"]
    assert seen == [False]


def test_a_store_that_was_made_meanwhile_is_left_alone(path, again, log):
    read = log.read

    async def making(*arguments, **limits):
        await asyncio.to_thread(Path(path).write_text, "made meanwhile")
        return await read(*arguments, **limits)

    log.read = making
    with pytest.raises(Refuse, match="made at"):
        again()
    assert Path(path).read_text() == "made meanwhile"
