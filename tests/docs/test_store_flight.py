"""The snippets and commands of docs/store.md's section on Flight clients work."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pages import page
from sinks import event, record

from streamapp.core.batch import vector_column
from streamapp.core.config import Settings
from streamapp.core.metrics import Metrics
from streamapp.flight import FlightServer
from streamapp.flight import feed as flight_feed
from streamapp.gateway import GatewayConfig
from streamapp.gateway.batches import Batches
from streamapp.gateway.gateway import build
from streamapp.sink import Store
from streamapp.topics import catalogue
from streamapp.transport.clients import Address

SECTION = page("store").section("Clients of Arrow Flight")
ROWS, TOKEN = 20, "sesame"


class Log:
    """A producer that counts."""

    def __init__(self):
        self.sent = Counter()

    async def send(self, topic, records):
        self.sent[topic] += len(records)
        return [Address(topic, 0, n) for n in range(len(records))]


@pytest.fixture
def loop():
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def server(tmp_path, loop, log):
    events = [event(n, type="UserMessage", conversation=f"c{n % 4}") for n in range(ROWS)]
    vectors = {"embedding": vector_column(np.ones((ROWS, 4), np.float32))}
    columns = {"embedding": pa.list_(pa.float32(), 4)}
    taker = Batches(build(GatewayConfig(), log, catalogue.load(), Metrics()), loop)
    with Store.open(str(tmp_path / "store.duckdb"), columns=columns) as store:
        store.write([record(0, ROWS, events, stages=False, extra=vectors, at=1)])
        with FlightServer(store.reader, port=0, token=TOKEN, ingest=taker, live=store) as made:
            yield made


def test_the_snippets_in_order(server, log):
    """Each goes on where the one before ended, as a reader who tries them does."""
    named = {"token": TOKEN}
    for text in SECTION.blocks("python"):
        exec(text.replace("9383", str(server.port)), named)  # our own page
    assert named["rows"].num_rows > 0
    assert named["frame"]["events"].tolist() == [ROWS]
    assert named["other"].height == 5
    assert named["table"].num_rows == ROWS
    said = re.search(r"`report` is `(.+?)`", SECTION)[1]
    assert named["report"] == json.loads(said)
    assert named["count"] == 2
    assert log.sent == {"events.raw": 4}
    assert named["place"] == {"events.raw-0": ROWS}


@pytest.mark.parametrize("line", "".join(SECTION.blocks("console")).splitlines())
def test_the_commands(server, line, tmp_path):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STREAMAPP_FLIGHT_PORT": str(server.port),
        "STREAMAPP_TOKEN": TOKEN,
        "STREAMAPP_HOME": str(tmp_path / "home"),
    }
    ran = subprocess.run(
        line.removeprefix("$ "), shell=True, env=environment, cwd=tmp_path, timeout=100,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(ran.stdout.splitlines()) == int(line.split("-n ")[1].split()[0])


def test_the_settings_and_figures():
    for name in re.findall(r"^\| `(\w+)` \|", SECTION, re.MULTILINE):
        assert name in Settings.__dataclass_fields__
    assert f"{flight_feed._QUEUE_COMMITS_MAX} commits" in SECTION
    assert f"{flight_feed._QUEUE_BYTES_MAX >> 20} MiB" in SECTION
    assert f"{flight_feed._SUBSCRIBERS_MAX} clients may follow" in SECTION
