"""The gateway while Kafka stands still and 200 clients push: does its memory stay within bounds?

Clients post single events, bodies of 1,000 and events of nearly a megabyte, each the next as soon as
it has an answer; half of them wait for the log, the others only until their events are accepted.  For the middle third of the time the broker is stopped, as by a full disk or a
network that drops everything: no connection breaks, nothing is answered.
"""

import contextlib
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
from gateway import bodies, servers, wrk
from store.plot import Panel, svg

PLOT = Path(__file__).parents[2] / "docs" / "gateway-memory.svg"
SECONDS, QUICK_S = 90.0, 24.0
CLIENTS = 200
EVERY_S = 0.5
#: What the gateway may hold of requests (its default), and what a byte of them may cost it.
INFLIGHT_BYTES_MAX, COST_MAX = 256 << 20, 2.0
_INFLIGHT = re.compile(r"^streamapp_inflight_events (\S+)", re.MULTILINE)
_ANSWERS = re.compile(
    r'^streamapp_http_requests_total\{code="(\d)..",method="POST".*\} (\S+)', re.MULTILINE
)


class Sample(NamedTuple):
    """The gateway at one moment; memory in MB, answers a second by what they say."""

    at_s: float
    memory: float
    inflight: float
    taken: float
    refused: float


def run(broker: Any, seconds: float) -> None:
    """Push for so long; a run of full length is plotted.

    Args:
        broker: one that runs and may be stopped.
        seconds: in all.
    """
    with (
        TemporaryDirectory(prefix="bench-gateway-") as home,
        servers.gateway(broker.url, Path(home)) as server,
    ):
        samples = list(_samples(server, broker, seconds))
    before, most, after = verdict(samples)
    print(
        f"memory before: {before:.0f} MB, while stopped at most: {most:.0f} MB, after: {after:.0f} MB"
    )
    if seconds >= SECONDS:
        PLOT.write_text(plot(samples))
    if most > before + INFLIGHT_BYTES_MAX * COST_MAX / 1e6:
        sys.exit("memory grew beyond what may be in flight")
    if not any(sample.taken for sample in samples[-4:]):
        sys.exit("nothing is taken after the stop")


def verdict(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """Memory in MB: the most before the stop, the most since, and the last."""
    third = len(samples) // 3
    before = max(sample.memory for sample in samples[:third])
    return before, max(sample.memory for sample in samples[third:]), samples[-1].memory


def _samples(server: servers.Server, broker: Any, seconds: float) -> Iterator[Sample]:
    begun_s, stopped = time.monotonic(), False
    last_s, last = 0.0, (0.0, 0.0)
    with _pushing(server, seconds), contextlib.ExitStack() as stack:
        stack.callback(broker.signal, SIGCONT)  # whatever happens
        while (at_s := time.monotonic() - begun_s) < seconds:
            stop = seconds / 3 <= at_s < seconds * 2 / 3
            if stop != stopped:
                broker.signal(SIGSTOP if stop else SIGCONT)
                stopped = stop
            inflight, *answers = _metrics(server.url)
            rates = [
                (new - old) / (at_s - last_s or 1) for new, old in zip(answers, last, strict=True)
            ]
            last_s, last = at_s, (answers[0], answers[1])
            yield Sample(round(at_s, 2), _memory(server.pid), inflight, rates[0], rates[1])
            time.sleep(EVERY_S)


@contextlib.contextmanager
def _pushing(server: servers.Server, seconds: float) -> Iterator[None]:
    """Connections that post one after the other, whatever they are answered."""
    large = msgspec.json.encode({"message": "x" * 900_000})
    sent = [*bodies.singles()[:6], bodies.lines(), bodies.lines(), large]
    headers = {"Content-Type": "application/x-ndjson"}

    def push(wait: str) -> None:
        wrk.run(
            server.url,
            f"/v1/events?wait={wait}",
            headers,
            sent,
            seconds=seconds,
            pid=server.pid,
            connections=CLIENTS // 2,
            strict=False,
        )

    threads = [threading.Thread(target=push, args=(wait,)) for wait in ("ack", "accepted")]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def _metrics(url: str) -> tuple[float, float, float]:
    """Events in flight; answers of success so far, and others."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    inflight = _INFLIGHT.search(text)
    counts = {"2": 0.0, "other": 0.0}
    for kind, count in _ANSWERS.findall(text):
        counts["2" if kind == "2" else "other"] += float(count)
    return float(inflight[1]) if inflight else 0.0, counts["2"], counts["other"]


def _memory(pid: int) -> float:
    """Resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * 4096 / 1e6, 1)


def plot(samples: Sequence[Sample]) -> str:
    """Memory, events in flight, and answers, over time."""
    of = {name: [getattr(sample, name) for sample in samples] for name in Sample._fields}
    thousands = [count / 1000 for count in of["inflight"]]
    panels = [
        Panel("resident memory of the gateway", "MB", {"memory": of["memory"]}),
        Panel("events in flight; 20,000 at most", "k", {"in flight": thousands}),
        Panel("answers a second", "/s", {"2xx": of["taken"], "429, 503": of["refused"]}),
    ]
    stop_s, go_s = (samples[-1].at_s * part / 3 for part in (1, 2))
    title = f"200 clients push, Kafka stands still from {stop_s:.0f} s to {go_s:.0f} s"
    return svg(title, of["at_s"], panels)
