"""Appending to and reading from each log by our clients, beside SQLite's own; records of 1 KB."""

import asyncio
import statistics
import time

import bench_local_log as local
from report import median_ratio
from transport.records import make_topics

from streamapp.transport import Outgoing, open_producer, open_reader


def logs(bootstrap: str, rounds: int) -> tuple[dict[str, dict[str, float]], float]:
    """Records a second by log and direction (medians), and ours on ``local://`` per SQLite's own."""
    appended, read = local.appends(rounds), local.reads()
    kafka = [asyncio.run(_kafka(bootstrap)) for _ in range(rounds + 1)][1:]
    median = statistics.median
    rates = {
        "SQLite's own": {"append": median(appended["SQLite"]), "read": median(read["SQLite"])},
        "local://": {
            "append": median(appended["Producer.send"]),
            "read": median(read["Reader.read"]),
        },
        "kafka+batch://": {
            "append": median(appended_per_s for appended_per_s, _ in kafka),
            "read": median(read_per_s for _, read_per_s in kafka),
        },
    }
    return rates, median_ratio(appended["Producer.send"], appended["SQLite"])


async def _kafka(bootstrap: str) -> tuple[float, float]:
    """What the same calls do on Kafka: one partition, one caller, a group of records at a time."""
    topic, url = f"log-{time.monotonic_ns()}", f"kafka+batch://{bootstrap}"
    await make_topics(bootstrap, [(topic, 1)])
    producer, reader = open_producer(url), open_reader(url)
    await producer.start()
    await reader.start()
    group = [Outgoing(local.VALUE, b"key")] * local.GROUP
    await producer.send(topic, group)  # connected now
    started_s = time.perf_counter()
    for _ in range(local.RECORDS // local.GROUP - 1):
        await producer.send(topic, group)
    appended_s = time.perf_counter() - started_s
    at, started_s = 0, time.perf_counter()
    while at < local.RECORDS:
        slice_ = await reader.read(topic, 0, at, records_max=local.SLICE, wait_ms_max=1000)
        at = slice_.range.next
    read_s = time.perf_counter() - started_s
    await producer.stop()
    await reader.stop()
    return (local.RECORDS - local.GROUP) / appended_s, local.RECORDS / read_s
