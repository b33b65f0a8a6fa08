"""The gateway beside a bare aiohttp handler and other ways to post to Kafka, one run.

python bench/bench_gateway.py               everything, about four minutes
python bench/bench_gateway.py --quick       does it work? (figures mean little, none are kept)
python bench/bench_gateway.py --memory      memory while the log is stopped and 200 clients push
python bench/bench_gateway.py --markdown    bench/results/gateway.json into docs/performance.md
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import venvs
from bench_transport import broker, kafka_broker, kafka_version, say
from gateway import bodies, full, page, servers, wrk
from gateway.wrk import Load
from report import interleaved, median_ratio, write
from tables import rewrite
from transport.records import make_topics

JSON = {"Content-Type": "application/json"}
V2 = {"Content-Type": bodies.JSON_V2}
LINES = {"Content-Type": "application/x-ndjson"}
ARROW = {"Content-Type": bodies.ARROW}
CLOUDEVENTS = {"Content-Type": bodies.CLOUDEVENTS}
#: Requests of many events in flight at once; the gateway takes 20,000 events.
MANY_CONNECTIONS = 8
#: Declared nowhere, so that Confluent's route takes any bytes, as Karapace does.
PLAIN, PARTITIONS = "bench-plain", 4

Subjects = Mapping[str, Callable[[], Load]]


class Sizes(NamedTuple):
    seconds: float
    rounds: int


FULL, QUICK = Sizes(5.0, rounds=5), Sizes(3.0, rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is kept")
    parser.add_argument("--memory", action="store_true", help="only that, with its plot")
    parser.add_argument("--markdown", action="store_true", help="rewrite the docs page's figures")
    parser.add_argument("--broker", help="host:port of one that runs, instead of starting one")
    options = parser.parse_args()
    if options.markdown:
        rewrite("gateway", page.BEGIN, page.END, page.render)
        return
    if options.memory:
        with tempfile.TemporaryDirectory(prefix="bench-kafka-") as folder:
            own = kafka_broker.Broker(Path(folder) / "broker", say=say).start()
            try:
                full.run(own, full.QUICK_S if options.quick else full.SECONDS)
            finally:
                own.remove()
        return
    with broker(options.broker) as bootstrap:
        figures = measure(bootstrap, QUICK if options.quick else FULL)
    results: Mapping[str, Any] = {"ratios": ratios_of(figures), "figures": figures}
    if not options.quick:
        packages = {name: version(name) for name in ("aiohttp", "aiokafka", "msgspec")}
        versions = {**packages, "kafka": kafka_version(), "wrk": wrk_version()}
        results = write("gateway", results["ratios"], figures, versions)
    print(page.render(results))


def measure(bootstrap: str, sizes: Sizes) -> dict[str, Any]:
    """Every figure; rounds are interleaved, so that drift of the machine hits all alike."""
    figures: dict[str, Any] = {"sizes": sizes._asdict(), "not_measured": {}}
    asyncio.run(make_topics(bootstrap, [(PLAIN, PARTITIONS)]))
    with contextlib.ExitStack() as stack:
        found = begun(stack, bootstrap, figures["not_measured"])
        say("one event a request")
        figures["single"] = interleaved(singles(found, sizes), sizes.rounds)
        say("many events a request")
        figures["many"] = interleaved(many(found, sizes), sizes.rounds)
    figures["event_bytes"] = bodies.mean_bytes(bodies.singles())
    figures["many_events"] = bodies.MANY
    return figures


def begun(
    stack: contextlib.ExitStack, bootstrap: str, not_measured: dict[str, str]
) -> dict[str, servers.Server]:
    """Every contender that can be had here, listening."""
    homes = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
    for name in ("kafka", "local"):
        (homes / name).mkdir()
    kafka, local = f"kafka+batch://{bootstrap}", f"local://{homes / 'local' / 'log'}"
    found = {
        "bare": stack.enter_context(servers.bare("parses")),
        "aiokafka": stack.enter_context(servers.bare("aiokafka", bootstrap, PLAIN)),
        "ours": stack.enter_context(servers.gateway(kafka, homes / "kafka")),
        "ours_local": stack.enter_context(servers.gateway(local, homes / "local")),
    }
    try:
        found["karapace"] = stack.enter_context(servers.karapace(bootstrap))
    except venvs.Unavailable as error:
        not_measured["karapace"] = str(error)
    return found


def singles(found: Mapping[str, servers.Server], sizes: Sizes) -> Subjects:
    """Who answers requests of one event each."""

    def run(server: str, path: str, headers: Mapping[str, str], sent: list[bytes]) -> Load:
        url, pid = found[server]
        return wrk.run(url, path, headers, sent, seconds=sizes.seconds, pid=pid)

    one, wrapped = bodies.singles(), bodies.records()
    subjects = {
        "bare": partial(run, "bare", "/ingest", JSON, one),
        "ours": partial(run, "ours", "/ingest", JSON, one),
        "ours_local": partial(run, "ours_local", "/ingest", JSON, one),
        "aiokafka": partial(run, "aiokafka", "/ingest", JSON, one),
        "ours_v2": partial(run, "ours", f"/topics/{PLAIN}", V2, wrapped),
    }
    if "karapace" in found:
        subjects["karapace"] = partial(run, "karapace", f"/topics/{PLAIN}", V2, wrapped)
    return subjects


def many(found: Mapping[str, servers.Server], sizes: Sizes) -> Subjects:
    """The gateway with bodies of many events; requests a second, not events."""

    def run(server: str, headers: Mapping[str, str], body: bytes) -> Load:
        url, pid = found[server]
        return wrk.run(
            url,
            "/v1/events",
            headers,
            [body],
            seconds=sizes.seconds,
            pid=pid,
            connections=MANY_CONNECTIONS,
        )

    lines, arrow = bodies.lines(), bodies.arrow()
    return {
        "ndjson": partial(run, "ours", LINES, lines),
        "arrow": partial(run, "ours", ARROW, arrow),
        "cloudevents": partial(run, "ours", CLOUDEVENTS, bodies.cloudevents()),
        "ndjson_local": partial(run, "ours_local", LINES, lines),
        "arrow_local": partial(run, "ours_local", ARROW, arrow),
    }


def ratios_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """The aims' ratios; one that was not measured is not there."""
    single, sent = figures["single"], figures["many"]

    def ratio(above: str, below: str) -> float:
        return median_ratio(*([load[0] for load in single[name]] for name in (above, below)))

    def per_s(name: str) -> float:
        return bodies.MANY * statistics.median(load[0] for load in sent[name])

    def per_cpu_s(name: str) -> float:
        return bodies.MANY * 1e6 / statistics.median(load[3] for load in sent[name])

    ratios = {"single_vs_bare_aiohttp": ratio("ours", "bare")}
    if "karapace" in single:
        ratios["single_vs_karapace"] = ratio("ours_v2", "karapace")
    ratios["single_vs_aiokafka"] = ratio("ours", "aiokafka")
    for name in sent:
        ratios[f"{name}_events_per_s"] = per_s(name)
        ratios[f"{name}_events_per_cpu_s"] = per_cpu_s(name)
    return ratios


def wrk_version() -> str:
    """What wrk calls itself."""
    command = [*wrk.program(), "-v"]  # which it ends with 1
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return said.partition("[")[0].strip()


if __name__ == "__main__":
    main()
