"""Faust at the speed of aiokafka.getmany: what our transports deliver beside what there is, one run.

python bench/bench_transport.py               everything, about five minutes
python bench/bench_transport.py --quick       does it work? (figures mean little, none are kept)
python bench/bench_transport.py --markdown    bench/results/transport.json into docs/performance.md
"""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import venvs
from report import interleaved, median_ratio, write
from tables import rewrite
from transport import page
from transport.contest import Contest, Figure
from transport.latency import latencies
from transport.logs import logs
from transport.parts import parts
from transport.records import run_fill

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import kafka_broker

Contenders = Mapping[str, Callable[[], Figure]]
QUIX = "3.28.1"
PARTITIONS = (1, 2, 4)
BATCH_SIZES = (256, 1024, 4096, 16_384)
#: Of the headline figures.
BATCH, AT_ONCE = 4096, 4
POST_RATES = [10, 100, 1000]


class Sizes(NamedTuple):
    """How many events a contender handles; slow ones get fewer, since rates are what counts."""

    records: int
    slow: int
    published: int
    published_slow: int
    rounds: int
    growth_rounds: int
    latency_s: float


FULL = Sizes(300_000, 20_000, 150_000, 10_000, rounds=3, growth_rounds=1, latency_s=5.0)
QUICK = Sizes(60_000, 10_000, 40_000, 5_000, rounds=1, growth_rounds=1, latency_s=2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is kept")
    parser.add_argument("--markdown", action="store_true", help="rewrite the docs page's figures")
    parser.add_argument("--broker", help="host:port of one that runs, instead of starting one")
    options = parser.parse_args()
    if options.markdown:
        rewrite("transport", page.BEGIN, page.END, page.render)
        return
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a topic just made has no leader yet
    with broker(options.broker) as bootstrap:
        figures = measure(Contest(bootstrap), QUICK if options.quick else FULL)
    results = {"ratios": ratios_of(figures), "figures": figures}
    if not options.quick:
        packages = {name: version(name) for name in ("aiokafka", "msgspec")}
        versions = packages | {"quixstreams": QUIX, "kafka": kafka_version()}
        results = write("transport", results["ratios"], figures, versions)
    print(page.render(results))


@contextlib.contextmanager
def broker(running: str | None) -> Iterator[str]:
    """host:port of a broker, ended afterwards if it was started here."""
    if running:
        yield running
        return
    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as folder:
        own = kafka_broker.Broker(Path(folder) / "broker", say=say).start()
        try:
            yield own.bootstrap
        finally:
            own.remove()


def measure(contest: Contest, sizes: Sizes) -> dict[str, Any]:
    """Every figure; rounds are interleaved, so that drift of the machine hits all alike."""
    figures: dict[str, Any] = {"sizes": sizes._asdict(), "not_measured": {}}
    say("filling topics")
    for partitions in PARTITIONS:
        run_fill(contest.bootstrap, topic(partitions), partitions, sizes.records)
    say("received and decoded")
    figures["received"] = interleaved(
        received(contest, sizes, figures["not_measured"]), sizes.rounds
    )
    say("published")
    figures["published"] = interleaved(published(contest, sizes), sizes.rounds)
    say("partitions and batch sizes")
    figures["growth"] = growth(contest, sizes)
    say("parts of the path")
    figures["parts"] = {str(size): parts(size) for size in (256, BATCH)}
    say("latency")
    figures["latency"] = {
        name: {
            str(rate): found._asdict()
            for rate, found in latencies(contest, name, POST_RATES, sizes.latency_s).items()
        }
        for name in ("ours", "faust_event")
    }
    say("logs")
    figures["logs"], figures["local_append_vs_sqlite"] = logs(contest.bootstrap, sizes.rounds)
    return figures


def received(contest: Contest, sizes: Sizes, not_measured: dict[str, str]) -> Contenders:
    """Who reads and decodes, each from a topic of four partitions."""

    def run(name: str, events: int, module: str = "received", **task: Any) -> Figure:
        return contest.received(
            module, name, topic=topic(AT_ONCE), partitions=AT_ONCE, events=events, **task
        )

    contenders: dict[str, Callable[[], Figure]] = {
        "getmany": partial(run, "getmany", sizes.records),
        "ours": partial(run, "ours", sizes.records),
        "ours, not decoded": partial(run, "ours", sizes.records, decode=False),
        "faust_event": partial(run, "faust_event", sizes.slow),
        "faust_take": partial(run, "faust_take", sizes.slow),
    }
    try:
        shared = venvs.as_here("msgspec", "numpy", "pyarrow")  # what our decoder needs beside it
        contest.pythons["quix"] = venvs.python("quixstreams", f"quixstreams=={QUIX}", *shared)
    except venvs.Unavailable as error:
        not_measured["quix"] = str(error)
    else:
        contenders["quix"] = partial(run, "quix", 2 * sizes.slow, "quix")
    return contenders


def published(contest: Contest, sizes: Sizes) -> Contenders:
    """Who reads, decodes, adds a column and publishes."""
    run = partial(contest.published, topic=topic(AT_ONCE), partitions=AT_ONCE)
    return {
        "ours": partial(run, "ours", events=sizes.published),
        "faust_take": partial(run, "faust_take", events=sizes.published_slow),
    }


def growth(contest: Contest, sizes: Sizes) -> dict[str, dict[str, dict[str, list[Figure]]]]:
    """Ours by partitions, and by events in a batch."""

    def both(partitions: int, batch: int) -> dict[str, Callable[[], Figure]]:
        task = {"topic": topic(partitions), "partitions": partitions, "batch_events_max": batch}
        return {
            "received": partial(
                contest.received, "received", "ours", events=sizes.published, **task
            ),
            "published": partial(contest.published, "ours", events=sizes.published, **task),
        }

    found = {}
    for kind, settings in {
        "partitions": [(n, BATCH) for n in PARTITIONS],
        "batch": [(AT_ONCE, n) for n in BATCH_SIZES],
    }.items():
        subjects = {
            (str(setting[kind == "batch"]), path): run
            for setting in settings
            for path, run in both(*setting).items()
        }
        figures = interleaved(subjects, sizes.growth_rounds, warm_up=False)
        grouped: dict[str, dict[str, list[Figure]]] = {}
        for (value, path), runs in figures.items():
            grouped.setdefault(value, {})[path] = runs
        found[kind] = grouped
    return found


def ratios_of(figures: Mapping[str, Any]) -> dict[str, float]:
    """The aims' ratios; one that was not measured is not there."""

    def ratio(path: str, other: str) -> float:
        above, below = figures[path]["ours"], figures[path][other]
        return median_ratio([f[0] for f in above], [f[0] for f in below])

    ratios = {"received_vs_faust_take": ratio("received", "faust_take")}
    if "quix" not in figures["not_measured"]:
        ratios["received_vs_quix"] = ratio("received", "quix")
    return ratios | {
        "received_vs_getmany": ratio("received", "getmany"),
        "published_vs_faust_take": ratio("published", "faust_take"),
        "local_append_vs_sqlite": figures["local_append_vs_sqlite"],
    }


def kafka_version() -> str:
    """Of the broker that the tests and we start."""
    pom = (Path(kafka_broker.__file__).parent / "kafka" / "pom.xml").read_text()
    return pom.partition("<kafka.version>")[2].partition("<")[0]


def topic(partitions: int) -> str:
    return f"raw-{os.getpid()}-{partitions}"


def say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
