"""The embedded log beside SQLite's own speed, how fast a reader wakes, and what an idle worker costs.

SQLite's own is the same table with the same settings, the same rows in the same groups, and nothing around it: no keys
to hash, no offsets to count, no event loop.  Wake-up latency runs from before ``send`` in one process to the record in
the hands of another, so it has the commit to disk in it.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from report import ROUNDS, interleaved, median_ratio, report

from streamapp.transport import Outgoing, TopicSpec, open_admin, open_producer, open_reader
from streamapp.transport.local import sqlite
from streamapp.transport.local.log import create_topic

RECORDS, GROUP, SLICE = 100_352, 256, 4096
VALUE = os.urandom(1000)
SPEC = TopicSpec("t", 1, 1 << 20)
RATES = {10: 300, 100: 1500, 1000: 8000}  # records per second: records sent
IDLE_S = float(os.environ.get("BENCH_IDLE_S", "20"))

IDLE_APP = """
import os
import faust
from streamapp.transport.local import consumer, lease
if os.environ["GROUP_WORK"] == "no":
    lease.BEAT_S = lease.LEASE_S = consumer.LOOK_EVERY_S = 3600.0
app = faust.App("idle", broker=os.environ["URL"], topic_partitions=4, web_enabled=False, datadir=os.environ["DATA"])

@app.agent(app.topic("idle"))
async def nothing(stream):
    async for _ in stream:
        pass
"""


def sqlite_append() -> float:
    with tempfile.TemporaryDirectory() as folder:
        create_topic(Path(folder), SPEC)
        with closing(sqlite.connect(Path(folder) / "t.db")) as db:
            started = time.perf_counter()
            for first in range(0, RECORDS, GROUP):
                with sqlite.transaction(db):
                    db.executemany(
                        "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                        ((first + n, 1, b"key", VALUE, None) for n in range(GROUP)),
                    )
            return RECORDS / (time.perf_counter() - started)


def local_append(callers: int = 1) -> float:
    """``Producer.send``, so many calls of one group each at a time."""

    async def run(url: str) -> float:
        await fill(url, 0)
        producer = open_producer(url)
        await producer.start()
        group = [Outgoing(VALUE, b"key")] * GROUP

        async def call() -> None:
            for _ in range(RECORDS // GROUP // callers):
                await producer.send("t", group)

        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        rate = RECORDS / (time.perf_counter() - started)
        await producer.stop()
        return rate

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(f"local://{folder}"))


def reads() -> dict[str, list[float]]:
    """SQLite's own SELECT and ``Reader.read`` of the same file, records a second."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"local://{folder}"
        asyncio.run(fill(url, RECORDS))

        def own() -> float:
            with closing(sqlite.connect(Path(folder) / "t.db")) as db:
                started = time.perf_counter()
                for first in range(0, RECORDS, SLICE):
                    db.execute(
                        "SELECT * FROM records WHERE position >= ? ORDER BY position LIMIT ?",
                        (first, SLICE),
                    ).fetchall()
                return RECORDS / (time.perf_counter() - started)

        async def ours() -> float:
            reader = open_reader(url)
            await reader.start()
            started = time.perf_counter()
            at = 0
            while at < RECORDS:
                at = (await reader.read("t", 0, at, records_max=SLICE)).range.next
            rate = RECORDS / (time.perf_counter() - started)
            await reader.stop()
            return rate

        return interleaved({"SQLite": own, "Reader.read": lambda: asyncio.run(ours())})


async def fill(url: str, records: int) -> None:
    admin, producer = open_admin(url), open_producer(url)
    await admin.start()
    await admin.create(SPEC)
    await admin.stop()
    await producer.start()
    for _ in range(0, records, GROUP):
        await producer.send("t", [Outgoing(VALUE, b"key")] * GROUP)
    await producer.stop()


async def wake_ms(rate: int, count: int) -> list[float]:
    """From before ``send`` in another process to the record read here, each in ms."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"local://{folder}"
        await fill(url, 0)
        reader = open_reader(url)
        await reader.start()
        sender = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "send", url, str(rate), str(count)
        )
        waited: list[float] = []
        at = 0
        while len(waited) < count:
            slice_ = await reader.read("t", 0, at, wait_ms_max=1000)
            now_ns = time.monotonic_ns()
            waited += [(now_ns - int(record.value or b"0")) / 1e6 for record in slice_.records]
            at = slice_.range.next
        await sender.wait()
        await reader.stop()
    return waited[count // 10 :]


async def send(url: str, rate: int, count: int) -> None:
    producer = open_producer(url)
    await producer.start()
    started = time.monotonic()
    calls = []
    for number in range(count):
        await asyncio.sleep(started + number / rate - time.monotonic())
        calls.append(
            asyncio.create_task(producer.send("t", [Outgoing(b"%d" % time.monotonic_ns())]))
        )
    await asyncio.gather(*calls)
    await producer.stop()


def idle_cpu_s_per_minute(*, group_work: bool) -> float:
    """CPU time of a Faust worker of four empty partitions, once it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "idle_app.py").write_text(IDLE_APP)
        env = {
            **os.environ,
            "URL": f"local://{folder}/log",
            "DATA": f"{folder}/data",
            "GROUP_WORK": "yes" if group_work else "no",
        }
        command = [
            sys.executable,
            "-m",
            "faust",
            "-A",
            "idle_app",
            "worker",
            "-l",
            "info",
            "--without-web",
        ]
        with subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as worker:
            assert worker.stdout is not None
            while "Worker ready" not in worker.stdout.readline():
                pass
            time.sleep(2)
            before = cpu_s(worker.pid)
            time.sleep(IDLE_S)
            used = cpu_s(worker.pid) - before
            worker.terminate()
            worker.stdout.read()
    return used * 60 / IDLE_S


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def appends(rounds: int = ROUNDS) -> dict[str, list[float]]:
    subjects = {
        "SQLite": sqlite_append,
        "Producer.send": local_append,
        "Producer.send, 4 at a time": lambda: local_append(4),
    }
    return interleaved(subjects, rounds)


def local_ratios() -> dict[str, float]:
    """The figure that ``make bench-transport`` shows beside Kafka's."""
    figures = appends()
    return {"local_append_vs_sqlite": median_ratio(figures["Producer.send"], figures["SQLite"])}


def main() -> None:
    appended, read = appends(), reads()
    woken = {rate: sorted(asyncio.run(wake_ms(rate, count))) for rate, count in RATES.items()}
    idle = {
        name: idle_cpu_s_per_minute(group_work=name == "member")
        for name in ("member", "no group work")
    }
    table = [["", "records/s (median)"]]
    table += [
        [f"append: {name}", f"{statistics.median(rates):,.0f}"] for name, rates in appended.items()
    ]
    table += [[f"read: {name}", f"{statistics.median(rates):,.0f}"] for name, rates in read.items()]
    quantiles = {rate: {"p50": at(ms, 0.5), "p99": at(ms, 0.99)} for rate, ms in woken.items()}
    for rate, ms in quantiles.items():
        table.append(
            [f"append to wake-up at {rate}/s", f"p50 {ms['p50']:.2f} ms, p99 {ms['p99']:.2f} ms"]
        )
    table += [
        [f"idle worker, {name}", f"{seconds:.2f} CPU s/min"] for name, seconds in idle.items()
    ]
    ratios = {
        "local_append_vs_sqlite": median_ratio(appended["Producer.send"], appended["SQLite"]),
        "local_read_vs_sqlite": median_ratio(read["Reader.read"], read["SQLite"]),
    }
    figures = {
        "append_per_s": appended,
        "read_per_s": read,
        "wake_ms": quantiles,
        "idle_cpu_s_per_min": idle,
    }
    report("local_log", table, ratios, figures)


def at(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["send"]:
        asyncio.run(send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        main()
