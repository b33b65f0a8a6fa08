"""The store process on Parquet: killed at random moments, asked over Flight, read by Arrow alone."""

import random
import threading

import pytest
from fleet import Fleet, Load, events
from sinks import ParquetSink, rows

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def fleet(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    fleet = Fleet(
        home, f"local://{home}/log",
        store="parquet", parquet_url=str(home / "parquet"), parquet_flush_ms_max=100,
    )  # fmt: skip
    yield fleet
    fleet.stop()


def test_every_event_once_through_killed_store_processes(fleet):
    sink = ParquetSink(str(fleet.home / "parquet"))
    chance, sent, pause = random.Random(5), [], threading.Event()
    fleet.start("worker", "store")
    with Load(fleet.broker, events("p", 5), sent):
        for _ in range(4):
            pause.wait(chance.uniform(0.2, 1.5))  # a random moment, not a condition
            fleet.kill("store")
            fleet.start("store")
    wanted = {one.id for one in sent if one.id}
    assert len(wanted) > 50

    fleet.wait_rows(len(wanted))
    sql = "select id, source_partition, source_offset, embedding from events order by id"
    served = fleet.query(sql).to_pydict()
    assert set(served["id"]) == wanted
    assert all(len(vector) == 4 for vector in served["embedding"])
    fleet.nobody_died()
    assert fleet.terminate("store") == {0}
    table = sink.arrow("events").sort_by("id")
    assert table["id"].to_pylist() == served["id"]  # each once
    assert table["embedding"].to_pylist() == served["embedding"]
    assert sorted(table["stored_order"].to_pylist()) == [*range(len(wanted))]
    addresses = "SELECT count(*), count(DISTINCT (source_partition, source_offset)) FROM dead"
    ((dead, different),) = rows(sink, addresses, "dead")
    assert dead == different > 0
    assert fleet.run("parquet", "files").splitlines() == sink.paths("events")
