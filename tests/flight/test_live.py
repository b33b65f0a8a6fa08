"""Following the store: what is stored, in order, once, whatever the client, the store or both do."""

import threading
import time

import pyarrow as pa
import pytest

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.errors import Refuse, Retry
from streamapp.flight import Client, FlightServer, Limits
from streamapp.flight import feed as feed_module
from streamapp.flight import live as live_module
from streamapp.sink import Store, StoredRecord, retain
from streamapp.topics.enriched import Cover, Enriched


def record(first, count, partition=0, position=1, text="text"):
    """Events ``first`` to ``first + count`` of a partition."""
    numbers = list(range(first, first + count))
    events = {
        "source_offset": numbers,
        "id": [f"{partition}-{n}" for n in numbers],
        "type": ["message"] * count,
        "source": ["test"] * count,
        "conversation": ["c"] * count,
        "actor": [None] * count,
        "time": numbers,
        "ingest_time": numbers,
        "text": [f"{text} {n}" for n in numbers],
        "duration_ms": [0.0] * count,
        "payload": [f'{{"even": {str(n % 2 == 0).lower()}}}' for n in numbers],
        "attachments": [None] * count,
    }
    arrays = [pa.array(events[field.name], field.type) for field in EVENT_SCHEMA]
    rows = pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)
    cover = Cover(
        topic="events.raw", partition=partition, first=first, next=first + count, rows=count
    )
    return StoredRecord(Enriched(cover, rows), "events.enriched", partition, position)


class Writing:
    """A store and its server; ``add`` stores the next events of a partition."""

    def __init__(self, path):
        self.store = Store.open(path, columns={})
        self.server = FlightServer(self.store.reader, port=0, live=self.store, limits=Limits())
        self.client = Client("127.0.0.1", self.server.port)
        self._positions = {}

    def add(self, first, count, partition=0, **more):
        position = self._positions[partition] = self._positions.get(partition, 0) + 1
        self.store.write([record(first, count, partition, position, **more)])

    def close(self):
        self.server.stop()
        self.store.close()


@pytest.fixture
def writing(tmp_path):
    made = Writing(str(tmp_path / "store.duckdb"))
    yield made
    made.close()


def take(follower, count, seconds=30):
    """Ids until there are ``count`` of them, and where to go on."""
    ids, after = [], {}
    end = time.monotonic() + seconds
    for batch, place in follower:
        ids += batch.column("id").to_pylist()
        after = place
        if len(ids) >= count:
            break
        assert time.monotonic() < end, ids
    return ids, after


def began(follower):
    """Wait until the server says where the follower stands."""
    batch, place = next(follower)
    assert batch.num_rows == 0
    return place


def ids(numbers, partition=0):
    return [f"{partition}-{n}" for n in numbers]


def test_from_now(writing):
    writing.add(0, 3)
    follower = writing.client.follow()
    assert began(follower) == {"events.raw-0": 3}
    writing.add(3, 2)
    assert take(follower, 2) == (ids([3, 4]), {"events.raw-0": 5})
    follower.close()


def test_from_the_beginning_and_on(writing):
    for first in range(0, 3000, 100):
        writing.add(first, 100)
    follower = writing.client.follow("beginning")
    assert take(follower, 3000)[0] == ids(range(3000))
    writing.add(3000, 5)
    assert take(follower, 5) == (ids(range(3000, 3005)), {"events.raw-0": 3005})
    follower.close()


def test_resumed_at_any_point(writing):
    for first in range(0, 2000, 200):
        writing.add(first, 200, 0)
        writing.add(first, 200, 1)
    places, seen = ["beginning"], []
    for _ in range(4):
        follower = writing.client.follow(places[-1])
        got, place = take(follower, 700)
        seen += got
        places.append(place)
        follower.close()
    rest, _ = (
        take(writing.client.follow(places[-1]), 4000 - len(seen)) if len(seen) < 4000 else ([], 0)
    )
    seen += rest
    assert len(seen) == 4000
    for partition in (0, 1):
        mine = [i for i in seen if i.startswith(f"{partition}-")]
        assert mine == ids(range(2000), partition)


def test_where_and_columns(writing):
    writing.add(0, 10)
    follower = writing.client.follow(
        "beginning", where="(payload->>'even')::BOOLEAN AND source_offset <> 4", columns=["id"]
    )
    first, _ = next(follower)
    assert first.schema.names == ["source_topic", "source_partition", "source_offset", "id"]
    assert first.column("id").to_pylist() == ids([0, 2, 6, 8])
    writing.add(10, 4)
    got, place = take(follower, 2)
    assert got == ids([10, 12])
    assert place == {"events.raw-0": 14}  # past what was not wanted
    follower.close()


def test_the_same_rows_live_and_from_the_table(writing):
    """JSON, times and numbers come alike, so a client need not know which it was."""
    live = writing.client.follow()
    began(live)
    writing.add(0, 5)
    now, _ = next(live)
    later, _ = next(writing.client.follow("beginning"))
    assert now.schema == later.schema
    assert now.to_pylist() == later.to_pylist()
    live.close()


def test_a_slow_client_misses_nothing_and_holds_nothing(writing, monkeypatch):
    monkeypatch.setattr(feed_module, "_QUEUE_COMMITS_MAX", 2)
    follower = writing.client.follow()
    began(follower)
    for first in range(0, 20_000, 200):
        writing.add(first, 200, text="x" * 1000)
    (queue,) = writing.server._feed._queues
    assert len(queue._commits) <= 2
    assert writing.server.running == 0  # no statement, so no transaction, waits for the client
    assert take(follower, 20_000)[0] == ids(range(20_000))
    follower.close()


def test_an_empty_range_moves_nothing(writing):
    follower = writing.client.follow()
    began(follower)
    writing.add(0, 0)
    writing.add(0, 2)
    assert take(follower, 2)[0] == ids([0, 1])
    follower.close()


def test_a_range_that_comes_early_waits_for_its_turn(writing):
    follower = writing.client.follow()
    began(follower)
    writing.add(0, 2)
    assert take(follower, 2)[0] == ids([0, 1])
    writing.add(5, 2)
    writing.add(2, 3)
    assert take(follower, 5)[0] == ids([2, 3, 4, 5, 6])
    follower.close()


def test_writers_and_followers_at_once(writing):
    followers = [writing.client.follow("beginning") for _ in range(4)]
    got = [None] * 4
    threads = [
        threading.Thread(target=lambda n=n: got.__setitem__(n, take(followers[n], 4000)[0]))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for first in range(0, 4000, 40):
        writing.add(first, 40)
    for thread in threads:
        thread.join(60)
    assert got == [ids(range(4000))] * 4


def test_resumed_after_a_restart(tmp_path):
    path = str(tmp_path / "store.duckdb")
    first = Writing(path)
    follower = first.client.follow()
    began(follower)
    first.add(0, 3)
    got, place = take(follower, 3)
    closing = threading.Thread(target=first.close)
    closing.start()
    with pytest.raises(Retry):
        list(follower)
    closing.join(30)
    second = Writing(path)
    second._positions = {0: 1}
    second.add(3, 3)
    more, _ = take(second.client.follow(place), 3)
    assert got + more == ids(range(6))
    second.close()


def retained(store, newest):
    """All but so many rows are dropped."""
    window = retain.Window(0, 0)
    for _ in retain.retain(store, retain.bound(store, window, keep_rows=newest)):
        pass


def test_a_place_whose_rows_were_retained_is_refused(writing):
    """Going on behind them in silence would be a gap; what is left has a beginning all the same."""
    for first in range(0, 600, 50):
        writing.add(first, 50)
    retained(writing.store, 100)
    for place in (0, 499):
        with pytest.raises(
            Refuse, match=f"rows of events.raw-0 from {place} to 499 were"
        ) as caught:
            take(writing.client.follow({"events.raw-0": place}), 100)
        assert "events.raw-0=500" in caught.value.fix
        assert caught.value.code == "live.retained"
    for start in ("beginning", {"events.raw-0": 500}, {}):
        assert take(writing.client.follow(start), 100)[0] == ids(range(500, 600))


def test_rows_that_are_retained_before_a_slow_client_has_them(writing, monkeypatch):
    monkeypatch.setattr(live_module, "_CHUNK_ROWS", 10)
    for first in range(0, 600, 50):
        writing.add(first, 50, text="x" * 100_000)
    follower = writing.client.follow("beginning")
    begun, _ = take(follower, 10)
    assert begun[0] == "0-0"
    retained(writing.store, 1)
    with pytest.raises(Refuse, match="to 598 were dropped by retain"):
        take(follower, 600)


def test_who_leaves_is_forgotten(writing):
    follower = writing.client.follow()
    began(follower)
    assert len(writing.server._feed._queues) == 1
    follower.close()
    end = time.monotonic() + 20
    while writing.server._feed._queues:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("where", "message"),
    [("nope = 1", "nope"), ("1 = 1) OR (true", "not one condition"), ("selec (", "syntax"),
     ("true) UNION ALL SELECT (false", "not one condition"), ("true), (1", "not one condition"),
     ("true) ORDER BY (1", "not one condition"), ("true) FROM events WHERE (true", "not one"),
     ("read_text('/etc/passwd') IS NULL", "table function"), ("true); DELETE FROM events; SELECT (1", "not a SELECT"),
     ("id IN (SELECT * FROM read_csv('/etc/passwd'))", "read_csv"), ("getenv('HOME') = ''", "getenv"),
     ("true -- comment", None), ("true) -- ", "syntax"),
     ("true, false", "not one condition"), ("true) FILTER (WHERE true", "not one condition")],
)  # fmt: skip
def test_conditions(writing, where, message):
    writing.add(0, 1)
    follower = writing.client.follow("beginning", where=where)
    if message is None:
        assert take(follower, 1)[0] == ids([0])
        follower.close()
        return
    with pytest.raises(Refuse, match=message):
        next(follower)


def test_a_condition_that_never_ends_is_stopped(tmp_path):
    store = Store.open(str(tmp_path / "s.duckdb"), columns={})
    store.write([record(0, 1)])
    with (
        FlightServer(store.reader, port=0, live=store, limits=Limits(seconds_max=0.5)) as server,
        pytest.raises(Refuse, match="took longer"),
    ):
        next(
            Client("127.0.0.1", server.port).follow(
                "beginning", where="(SELECT count(*) FROM range(100000000000) a, range(1000) b) > 0"
            )
        )
    store.close()


@pytest.mark.parametrize("start", [17, "later", {"events.raw": 1}, {"events.raw-0": -1},
                                   {"events.raw-0": 1 << 70}, {"events.raw-x": 1}, {"a-0": "1"}])  # fmt: skip
def test_starts_that_are_none(writing, start):
    with pytest.raises(Refuse, match="live ticket") as caught:
        next(writing.client.follow(start))
    assert caught.value.code == "live.ticket"


@pytest.mark.parametrize("strange", ["events.rwa-0", "events.raw-7", "other-0"])
def test_a_place_that_the_store_never_had_is_refused(writing, strange):
    writing.add(0, 5)
    writing.add(0, 5, partition=1)
    with pytest.raises(Refuse, match=f"never had anything of {strange}") as caught:
        next(writing.client.follow({"events.raw-0": 3, strange: 3}))
    assert (caught.value.code, caught.value.fix) == (
        "live.place",
        "it has events.raw-0, events.raw-1",
    )


def test_a_place_in_a_store_that_has_nothing_yet_waits(writing):
    follower = writing.client.follow({"events.raw-0": 3})
    next(follower)
    writing.add(0, 5)
    rows = next(rows for rows, _ in follower if rows.num_rows)
    assert rows["source_offset"].to_pylist() == [3, 4]
    follower.close()


def test_columns_that_are_none(writing):
    with pytest.raises(Refuse, match="nope"):
        next(writing.client.follow(columns=["nope"]))


def test_no_more_followers_than_the_limit(writing, monkeypatch):
    monkeypatch.setattr(feed_module, "_SUBSCRIBERS_MAX", 1)
    follower = writing.client.follow()
    began(follower)
    with pytest.raises(Retry, match="1 clients follow already"):
        next(writing.client.follow())
    follower.close()
