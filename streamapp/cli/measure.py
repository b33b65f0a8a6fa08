"""How long an event takes from POST to a row and to a frame, seen from outside."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

from streamapp.core.clock import monotonic_s
from streamapp.core.config import Settings, gateway_url
from streamapp.core.errors import Halt, Retry
from streamapp.core.tls import client_context

Address = tuple[int, int]
#: Between two messages: each is measured on an idle path, as a person at a keyboard would see it.
PACE_S = 0.05
WAIT_S_MAX = 60.0
POLL_S = 0.002
#: Rows are asked for this often: a busier question would slow down what it measures.
ROWS_POLL_S = 0.01


@dataclass(slots=True)
class Sent:
    """One message: when it was posted, and when its answer, row and frame were seen (seconds)."""

    posted_s: float
    answered_s: float
    address: Address
    stored_s: float = 0.0
    framed_s: float = 0.0


@dataclass(slots=True)
class _Seen:
    """First sight of each source address, filled by a watching thread."""

    at: dict[Address, float] = field(default_factory=dict)
    error: BaseException | None = None


async def send_and_watch(settings: Settings, messages: Sequence[Mapping[str, Any]]) -> list[Sent]:
    """POST every message to /ingest, one after the other, and wait until each is a row and a frame.

    Raises:
        Retry: the gateway does not take a message.
        Halt: a message was accepted and did not come out within a minute.
    """
    rows, frames, stop = _Seen(), _Seen(), threading.Event()
    watchers = [
        threading.Thread(target=_guard, args=(watch, settings, seen, stop), daemon=True)
        for watch, seen in ((_watch_rows, rows), (_watch_frames, frames))
    ]
    for watcher in watchers:
        watcher.start()
    try:
        sent = await _post_all(settings, messages)
        deadline_s = monotonic_s() + WAIT_S_MAX
        for seen, what in ((rows, "row"), (frames, "frame")):
            while not all(one.address in seen.at for one in sent):
                if seen.error is not None:
                    raise seen.error
                if monotonic_s() > deadline_s:
                    raise Halt("measure.lost", f"an accepted message did not become a {what}")
                await asyncio.sleep(POLL_S)
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    for one in sent:
        one.stored_s, one.framed_s = rows.at[one.address], frames.at[one.address]
    return sent


def latencies(sent: Sequence[Sent]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a table in milliseconds."""
    parts = {
        "POST to answer (durable)": [one.answered_s - one.posted_s for one in sent],
        "POST to row": [one.stored_s - one.posted_s for one in sent],
        "POST to frame": [one.framed_s - one.posted_s for one in sent],
    }
    table = [
        [name, *(f"{value * 1000:.1f}" for value in np.percentile(values, [50, 99]))]
        for name, values in parts.items()
    ]
    return ["", "p50 ms", "p99 ms"], table


async def _post_all(settings: Settings, messages: Sequence[Mapping[str, Any]]) -> list[Sent]:
    headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
    url = f"{gateway_url(settings)}/ingest"
    sent: list[Sent] = []
    taken: set[str] = set()
    connector = aiohttp.TCPConnector(ssl=client_context(settings) or True)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        for message in messages:
            posted_s = monotonic_s()
            async with session.post(url, json=message) as answer:
                body = await answer.json()
            if answer.status != 200:
                raise Retry("measure.post", f"POST /ingest answered {answer.status}: {body}")
            if body["id"] not in taken:  # a repeated id is one row and one frame
                sent.append(Sent(posted_s, monotonic_s(), (body["partition"], body["offset"])))
                taken.add(body["id"])
            await asyncio.sleep(PACE_S)
    return sent


def _guard(watch: Any, settings: Settings, seen: _Seen, stop: threading.Event) -> None:
    try:
        watch(settings, seen, stop)
    except BaseException as error:  # noqa: BLE001  # raised again where the result is awaited
        seen.error = error


def _watch_rows(settings: Settings, seen: _Seen, stop: threading.Event) -> None:
    from streamapp.flight import Client

    client = Client.of(settings)
    sql = "select source_partition, source_offset from events"
    while not stop.wait(ROWS_POLL_S):
        table = client.query(sql)
        now_s = monotonic_s()
        for partition, offset in zip(*table.to_pydict().values(), strict=True):
            seen.at.setdefault((partition, offset), now_s)


def _watch_frames(settings: Settings, seen: _Seen, stop: threading.Event) -> None:
    from streamapp.ring import RingReader, unpack_source

    with RingReader.open(settings.ring_file) as reader:
        while not stop.is_set():
            frames = reader.read(256, timeout=0.1)
            now_s = monotonic_s()
            if not len(frames):
                continue
            partitions = [source.partition for source in reader.stat()["sources"]]
            for index, offset in zip(*unpack_source(frames.source_offset), strict=True):
                seen.at.setdefault((partitions[index], int(offset)), now_s)
