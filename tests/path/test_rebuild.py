"""The store and the ring are views: a lost view is built again, and a home made anew starts both anew."""

import asyncio
import json
import shutil

import pytest
from fleet import Fleet

from streamapp.topics.catalogue import RAW
from streamapp.transport import Outgoing, open_producer

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def fleet_of(tmp_path):
    """A maker of a fleet whose log is the folder ``log``."""
    made = []

    def make(**settings):
        log = f"local://{tmp_path / 'log'}"
        made.append(Fleet(tmp_path / "fleet", log, stage_s=0.0, **settings))
        return made[-1]

    yield make
    for fleet in made:
        fleet.stop()


def put(fleet, texts):
    """Messages of one conversation; where they stand."""

    async def send():
        bodies = [{"message": text, "conversation_id": "c"} for text in texts]
        producer = open_producer(fleet.broker)
        await producer.start()
        try:
            records = [Outgoing(json.dumps(body).encode(), b"c") for body in bodies]
            return await producer.send(RAW, records)
        finally:
            await producer.stop()

    return sorted((address.partition, address.offset) for address in asyncio.run(send()))


def has_only(fleet, sent):
    """Rows and frames are those of these events."""
    fleet.wait_rows(len(sent))
    fleet.wait_for(lambda: len(fleet.frames()[0]) >= len(sent), "a frame of every event")
    rows = fleet.rows("select source_partition as p, source_offset as o from events")
    assert sorted((row["p"], row["o"]) for row in rows) == sent
    assert sorted(fleet.frames()[0]) == sent


def test_lost_views_are_built_again_and_those_of_another_log_are_not_kept(fleet_of, tmp_path):
    fleet = fleet_of()
    fleet.start("store", "terminal", "worker")
    old = put(fleet, [f"old {number}" for number in range(5)])
    has_only(fleet, old)
    assert fleet.terminate("store", "terminal") == {0}
    (fleet.home / "store" / "store.duckdb").unlink()
    fleet.ring.unlink()
    fleet.start("store", "terminal")
    has_only(fleet, old)

    assert fleet.terminate("store", "terminal", "worker") == {0}
    for folder in (tmp_path / "log", fleet.home / "store", fleet.home / "worker"):
        shutil.rmtree(folder)
    fleet.run("topics", "apply")
    fleet.start("store", "terminal", "worker")
    has_only(fleet, put(fleet, [f"new {number}" for number in range(7)]))
    assert "holds the frames of another log" in fleet.tail("terminal")


def test_a_store_in_memory_serves_until_it_stops(fleet_of):
    fleet = fleet_of(db_path=":memory:")
    fleet.start("store", "worker")
    put(fleet, ["hello"])
    fleet.wait_rows(1)
    assert not list(fleet.home.rglob("*.duckdb"))
    assert fleet.terminate("store", "worker") == {0}
