"""Rows and ledger agree after a kill at any moment, and when the disk was full."""

import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamapp.core.errors import Retry
from streamapp.sink import Store

WRITER = Path(__file__).with_name("writer.py")
_REPOSITORY = WRITER.parents[2]

#: Offsets of the ledger against the addresses of rows and dead letters, both ways.
_DISAGREE = """
    WITH covered AS (
        SELECT topic, "partition" AS p, unnest(range("first", "next")) AS o FROM ledger
    ), kept AS (
        SELECT source_topic AS topic, source_partition AS p, source_offset AS o FROM events
        UNION ALL SELECT source_topic, source_partition, source_offset FROM dead
    )
    SELECT (SELECT count(*) FROM (FROM covered EXCEPT ALL FROM kept)),
           (SELECT count(*) FROM (FROM kept EXCEPT ALL FROM covered)),
           (SELECT count(*) FROM events WHERE embedding[64] <> source_offset OR embedding IS NULL),
           (SELECT sum(rows) FROM ledger) - (SELECT count(*) FROM events)"""


def killed_writer(path: str, count: int, after_s: float) -> dict[int, int]:
    """What a writer said was durable before it was killed, ``after_s`` after its first word."""
    with subprocess.Popen(
        [sys.executable, str(WRITER), path, str(count)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=_REPOSITORY,
        env={"PYTHONPATH": os.pathsep.join([str(_REPOSITORY), os.environ["PYTHONPATH"]])},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.kill()
        lines = [first, *process.stdout]
        complaint = process.stderr.read()
    assert process.returncode == -9, complaint
    said: dict[int, int] = {}
    for line in lines:
        if line.endswith("\n"):
            _, partition, next_ = line.split()
            said[int(partition)] = int(next_)
    return said


def kills(path: str, number: int) -> Iterator[None]:
    rng = random.Random(20261122)
    for count in rng.choices([40, 300, 2048], k=number):
        said = killed_writer(path, count, rng.random() * 0.4)
        with Store.open(path, columns={}) as store:
            cursor = store.reader()
            (disagree,) = cursor.execute(_DISAGREE).fetchall()
            cursor.close()
            assert disagree == (0, 0, 0, 0)
            positions = store.positions()
            for partition, next_ in said.items():
                assert positions["events.enriched", partition] >= next_
            ends = {range_.partition: range_ for range_ in store.ledger}
            assert all(
                ends[p].first == 0 and ends[p].next == at for (_, p), at in positions.items()
            )
        yield


def test_kill_at_any_moment(tmp_path):
    assert len(list(kills(str(tmp_path / "store.duckdb"), 8))) == 8


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_kill_a_hundred_times(tmp_path):
    assert len(list(kills(str(tmp_path / "store.duckdb"), 100))) == 100


@pytest.fixture
def disk():
    """``disk(n)``: this process cannot make a file longer than n bytes; ``disk(None)``: it can."""

    def limit(size):
        size = resource.RLIM_INFINITY if size is None else size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    yield limit
    limit(None)


@pytest.mark.parametrize("count", [2048, 150], ids=["past the WAL", "by the WAL"])
def test_a_full_disk_is_waited_for(make, open_store, path, disk, count):
    """Rows fail to go to the file, or the checkpoint does, after which DuckDB gives up the file."""
    store = open_store(path)
    stored = 0

    def one(first):
        noise = random.Random(first)
        texts = [noise.randbytes(2000).hex() for _ in range(count)]
        events = [make.event(first + row, text=text) for row, text in enumerate(texts)]
        return make.record(first, first + count, events, stages=False)

    def until_full():
        nonlocal stored
        for _ in range(200):
            store.write([one(stored)])
            stored += count

    while Path(path).stat().st_size < 20_000_000:  # more than the WAL may hold
        store.write([one(stored)])
        stored += count
    disk(Path(path).stat().st_size + 2_000_000)
    with pytest.raises(Retry, match=path) as caught:
        until_full()
    assert caught.value.code == "store.write"
    with pytest.raises(Retry):
        until_full()
    disk(None)
    for _ in range(3):  # it may find that the file must be opened anew, and say so once
        try:
            store.write([one(stored)])
            break
        except Retry:
            continue
    rows = make.rows(store, "SELECT count(*), count(DISTINCT source_offset) FROM events")
    assert rows == [(stored + count, stored + count)]
    assert [(r.first, r.next) for r in store.ledger] == [(0, stored + count)]
