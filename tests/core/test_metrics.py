"""What is counted without prometheus_client is told as it tells it."""

import threading

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from streamapp.core.metrics import LATENCY_S, Metrics

ANSWERED = [
    ("/ingest", "POST", 200, 0.0),
    ("/ingest", "POST", 200, 0.001),
    ("/ingest", "POST", 200, 0.0010001),
    ("/ingest", "POST", 429, 30.0),
    ("/ingest", "other", 405, 31.0),
    ('/v1/"events"\n\\{topic}', "POST", 207, 0.3),
]
NAMES = "streamapp_http_request"


def told(text: bytes) -> set[str]:
    """Lines about requests; when a number was begun is nobody's question."""
    lines = text.decode().splitlines()
    return {line for line in lines if NAMES in line and "_created" not in line}


def test_requests_are_told_as_prometheus_client_tells_them():
    metrics, registry = Metrics(), CollectorRegistry()
    answers = Counter(
        f"{NAMES}s_total", "Requests answered", ("route", "method", "code"), registry=registry
    )
    seconds = Histogram(
        f"{NAMES}_duration_seconds",
        "Time to answer",
        ("route",),
        registry=registry,
        buckets=LATENCY_S,
    )
    metrics.http.route("/healthz")
    seconds.labels("/healthz")
    for route, method, code, took_s in ANSWERED:
        metrics.http.route(route).answered(method, code, took_s)
        answers.labels(route, method, str(code)).inc()
        seconds.labels(route).observe(took_s)
    assert told(metrics.text()) == told(generate_latest(registry))
    labels = {"route": "/ingest", "method": "POST", "code": "200"}
    assert metrics.registry.get_sample_value(f"{NAMES}s_total", labels) == 3


def test_events_are_told_as_prometheus_client_tells_them():
    metrics, registry = Metrics(), CollectorRegistry()
    name, about = "streamapp_ingest_events_total", "Events taken or refused"
    events = Counter(name, about, ("result",), registry=registry)
    for result, count in (("received", 3), ("received", 1_000), ("lost", 0)):
        metrics.ingest_events.count(result, count)
        events.labels(result).inc(count)

    def lines(text: bytes) -> set[str]:
        said = text.decode().splitlines()
        return {line for line in said if "ingest_events" in line and "_created" not in line}

    assert lines(metrics.text()) == lines(generate_latest(registry))
    assert metrics.registry.get_sample_value(name, {"result": "received"}) == 1_003


def test_no_request_is_lost_while_metrics_are_asked_for():
    metrics, over = Metrics(), threading.Event()
    told_by_others: list[bytes] = []

    def ask():
        while not over.is_set():
            told_by_others.append(metrics.text())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(20_000):
            metrics.http.route(f"/{number % 100}").answered("GET", 200 + number % 300, 0.01)
    finally:
        over.set()
        asking.join(60)
    assert told_by_others
    total = sum(
        metrics.registry.get_sample_value(f"{NAMES}_duration_seconds_count", {"route": f"/{n}"})
        for n in range(100)
    )
    assert total == 20_000


@pytest.mark.parametrize("bound", LATENCY_S)
def test_a_bucket_has_its_bound(bound):
    metrics = Metrics()
    metrics.http.route("/x").answered("GET", 200, bound)
    said = {"route": "/x", "le": str(float(bound))}
    assert metrics.registry.get_sample_value(f"{NAMES}_duration_seconds_bucket", said) == 1
