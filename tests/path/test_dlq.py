"""Events that fail, are looked at, mended and replayed: each is stored once, whatever was killed.

Real processes on both logs; what is stored is read back with the ADBC driver.
"""

import asyncio
import json
import signal
import subprocess
import sys

import adbc_driver_flightsql.dbapi as flightsql
import pytest
from calm import all_stored
from fleet import Fleet

from streamapp.core.clock import now_ms
from streamapp.topics.catalogue import RAW
from streamapp.transport import Outgoing, open_producer

pytestmark = pytest.mark.timeout(300)

POISON = 20
REFUSES = 'any("poison" in text for text in texts)'
#: An hour ago: retention counts from here.
AT_MS = now_ms() - 3_600_000


#: What the first test shows on both logs is enough for every day.
everywhere = pytest.mark.parametrize("fleet", ["local", "kafka"], indirect=True)
in_short = pytest.mark.parametrize(
    "fleet", ["local", pytest.param("kafka", marks=pytest.mark.soak)], indirect=True
)


@pytest.fixture
def fleet(request, tmp_path):
    """A worker and a store on either log."""
    url = f"local://{tmp_path}/log"
    if request.param == "kafka":
        url = request.getfixturevalue("kafka_without_topics").url
    found = Fleet(tmp_path / "fleet", url, stage_s=0.0)
    try:
        found.start("store", "worker")
        yield found
    finally:
        found.stop()


def send(fleet, *records):
    async def work():
        producer = open_producer(fleet.broker)
        await producer.start()
        try:
            await producer.send(RAW, records)
        finally:
            await producer.stop()

    asyncio.run(work())


def event(number, text, **more):
    body = {"message": text, "conversation_id": f"c{number % 3}", **more}
    return Outgoing(
        json.dumps(body).encode(), f"c{number % 3}".encode(), [("trace", b"7")], None, AT_MS
    )


def query(fleet, sql):
    """Rows of a statement, by the ADBC driver."""
    uri = f"grpc://127.0.0.1:{fleet.ports['flight']}"
    with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def dlq(fleet, *arguments):
    return json.loads(fleet.run("dlq", *arguments, "--json"))


def mend_the_stage(fleet):
    """A later version of the stage, which refuses nothing."""
    fleet.kill("worker")
    path = fleet.home / "site" / "promised_stages.py"
    text = path.read_text()
    assert REFUSES in text
    path.write_text(
        text.replace(REFUSES, "False").replace("    reads =", "    version = 2\n    reads =")
    )
    fleet.start("worker")


def replay_and_die(fleet):
    """``dlq replay --all``, killed with everything sent and nothing marked."""
    program = (
        "import os, signal; from streamapp.agents.replay import Replays\n"
        "Replays._mark = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from streamapp.cli.app import main; main(['dlq', 'replay', '--all', '--yes'])"
    )
    killed = subprocess.run(
        [sys.executable, "-P", "-c", program], env=fleet.env, check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL


@everywhere
def test_what_a_mended_stage_takes_is_stored_once(fleet):
    poison = [event(n, f"poison {n}", id=f"p{n}") for n in range(POISON)]
    nameless = event(0, "poison without a name")
    good = [event(n, f"good {n}", id=f"g{n}") for n in range(POISON)]
    send(fleet, *(one for pair in zip(poison, good, strict=True) for one in pair), nameless)
    all_stored(fleet)
    assert query(fleet, "SELECT count(*) FROM events") == [(POISON,)]
    listing = dlq(fleet, "ls")
    kind = {"stage": "vectors", "code": "vectors.poison", "letters": POISON + 1}
    assert listing["counts"] == [kind]

    one = listing["shown"][0]["address"]
    dlq(fleet, "replay", one)
    all_stored(fleet)
    listing = dlq(fleet, "ls")
    assert listing["letters"] == POISON + 2, "the stage is as it was: it failed again"
    assert sorted(letter["replays"] for letter in listing["shown"])[-2:] == [1, 1]

    mend_the_stage(fleet)
    replay_and_die(fleet)
    assert dlq(fleet, "ls")["replayed"] == 1, "nothing was marked"
    outcome = dlq(fleet, "replay", "--all", "--yes")
    assert len(outcome["replayed"]) == POISON + 1
    assert [letter["letter"] for letter in outcome["skipped"]] == [one]
    all_stored(fleet)

    rows = query(fleet, "SELECT id, text, source, time FROM events ORDER BY id")
    assert len(rows) == 2 * POISON + 1
    by_id = {row[0]: row for row in rows}
    assert len(by_id) == len(rows), "each id once"
    assert {f"p{n}" for n in range(POISON)} <= set(by_id)
    assert all(by_id[f"p{n}"][1] == f"poison {n}" for n in range(POISON))
    (named,) = [row for row in rows if row[1] == "poison without a name"]
    [first] = query(
        fleet,
        "SELECT source_topic || '-' || source_partition || '-' || source_offset FROM dead "
        "WHERE decode(value) LIKE '%without a name%' ORDER BY source_offset LIMIT 1",
    )
    assert named[0] == first[0], "its id is its first address"
    assert named[3].timestamp() * 1000 == AT_MS, "its time is when it came first"
    assert query(fleet, "SELECT count(*) FROM dead") == [(POISON + 2,)]
    assert dlq(fleet, "replay", "--all")["replayed"] == []
    assert fleet.terminate("worker", "store") == {0}
    assert dlq(fleet, "ls")["letters"] == POISON + 2, "no process is needed to look"


@in_short
def test_an_edited_event_is_stored_once_under_its_id(fleet):
    send(fleet, event(0, "poison", id="e"), Outgoing(b'{"id": "j", "message": }', b"c0"))
    all_stored(fleet)
    codes = {letter["code"]: letter["address"] for letter in dlq(fleet, "ls")["shown"]}
    assert set(codes) == {"vectors.poison", "event.json"}
    dlq(fleet, "edit", codes["vectors.poison"], "--set", "message=a cure")
    mended = fleet.home / "mended.json"
    mended.write_text('{"id": "j", "message": "it is JSON"}')
    dlq(fleet, "edit", codes["event.json"], "--file", str(mended))
    dlq(fleet, "edit", codes["event.json"], "--file", str(mended), "--force")
    all_stored(fleet)
    stored = query(fleet, "SELECT id, text FROM events ORDER BY id")
    assert stored == [("e", "a cure"), ("j", "it is JSON")]


@in_short
def test_a_mended_event_in_the_slice_of_the_refused_one_is_stored(fleet):
    """As when the worker died between its dead letters and its rows, and the letter was edited."""
    fleet.kill("worker")
    bad, mended = event(1, "poison", id="e"), event(1, "a cure", id="e")
    send(fleet, event(1, "before", id="b"), bad, mended, mended, event(1, "after", id="a"))
    fleet.start("worker")
    all_stored(fleet)
    stored = query(fleet, "SELECT id, text FROM events ORDER BY source_offset")
    assert stored == [("b", "before"), ("e", "a cure"), ("a", "after")]
    assert query(fleet, "SELECT count(*) FROM dead") == [(1,)]
