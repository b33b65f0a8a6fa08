"""Every metric, declared once.  Names: ``streamapp_<noun>_<unit>[_total]``; seconds, bytes.

A process makes one :class:`Metrics` with a registry of its own; nothing touches prometheus_client's
default one.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one process; one with labels exports nothing until it is used."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.http = Requests()
        self.registry.register(self.http)
        self.ingest_events = Outcomes()
        self.registry.register(self.ingest_events)
        self.schema_violations = counter(
            "schema_violations_total",
            "Events that their topic's schema does not take",
            "topic",
            "did",
        )
        self.inflight_events = gauge("inflight_events", "Events that wait for the log")
        self.batch_events = counter("enrich_events_total", "Events enriched")
        self.batches = counter("enrich_batches_total", "Batches enriched")
        self.rejected = counter("dead_events_total", "Events dead-lettered", "stage", "code")
        self.lost = counter(
            "lost_events_total", "Source events the log dropped before we read them"
        )
        self.snapshots_too_large = counter(
            "snapshots_too_large_total", "State snapshots that the enriched topic does not take"
        )
        self.stage_seconds = histogram(
            "stage_duration_seconds", "Time a stage took a batch", "stage"
        )
        self.retries = counter("retries_total", "Waits for something outside", "what")
        self.lag = gauge(
            "consumer_lag_records", "Records behind the log's end", "topic", "partition"
        )
        self.event_age_seconds = histogram("event_age_seconds", "From log append to here", "at")
        self.stored_rows = counter("stored_rows_total", "Rows inserted into the store")
        self.duplicates = counter("duplicate_events_total", "Rows skipped", "reason")
        self.commit_seconds = histogram("store_commit_duration_seconds", "Time of one transaction")
        self.ledger_holes = gauge("ledger_holes", "Source ranges not yet filled")
        self.frames = counter("ring_frames_total", "Frames written to the ring")
        self.control_ignored = counter(
            "ring_control_ignored_total", "Control planes that were no sound ones"
        )
        self.queries = counter("queries_total", "Flight statements", "result")
        self.export_events = counter(
            "export_events_total", "Events posted or given up", "export", "result"
        )
        self.export_attempts = counter(
            "export_attempts_total", "Attempts to post, by what came of them", "export", "outcome"
        )
        self.export_seconds = histogram("export_attempt_duration_seconds", "Time of one", "export")
        self.export_disabled = gauge("export_disabled", "1: its receiver answered 410", "export")
        self.llm_questions = counter(
            "llm_questions_total", "Questions to the language model, by outcome", "outcome"
        )
        self.llm_calls = counter("llm_calls_total", "Its HTTP calls, by answer", "outcome")
        self.llm_seconds = histogram("llm_answer_duration_seconds", "Time to an answer")
        self.llm_tokens = counter("llm_tokens_total", "Tokens of answered questions", "direction")
        self.llm_circuit = gauge("llm_circuit_state", "0: closed, 1: asks once, 2: left alone")
        self.asks = counter("asks_total", "Asks answered", "kind", "result")
        self._of_models()

    def text(self) -> bytes:
        """The exposition in Prometheus's text format."""
        return generate_latest(self.registry)

    def _of_models(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.model_seconds = histogram("model_call_duration_seconds", "Time of one call", "model")
        self.model_queue_seconds = histogram(
            "model_queue_duration_seconds", "Time a request waited for its call", "model"
        )
        self.model_rows = counter("model_rows_total", "Rows that were run", "model")
        self.model_queue_rows = gauge("model_queue_rows", "Rows that wait", "model")
        self.model_errors = counter(
            "model_errors_total", "Requests answered by an error", "model", "code"
        )
        self.model_replicas = gauge("model_replicas", "Calls that may run at once", "model")
        self.model_memory_bytes = gauge("model_memory_bytes", "What it is charged for", "model")
        self.route_answers = counter(
            "route_answers_total", "Events by who answered them, and why", "route", "model", "why"
        )
        self.route_shadows = counter(
            "route_shadows_total",
            "Events that a shadow was to be asked about, by whether it was compared or missed",
            "route",
            "model",
            "result",
        )
        self.model_swaps = counter("model_swaps_total", "Changes of what serves a name", "result")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"streamapp_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"streamapp_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, *labels: str) -> Histogram:
        return Histogram(
            f"streamapp_{name}", about, labels, registry=self.registry, buckets=LATENCY_S
        )


class Outcomes:
    """Events by what became of them, in plain numbers as :class:`Requests`; used by one thread."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, result: str, events: int) -> None:
        """So many more."""
        self._counts[result] = self._counts.get(result, 0) + events

    def collect(self) -> Iterator[Metric]:
        """Asked for by the registry, in any thread."""
        events = CounterMetricFamily(
            "streamapp_ingest_events_total", "Events taken or refused", labels=("result",)
        )
        for result, count in list(self._counts.items()):
            events.add_metric((result,), count)
        yield events


class Route:
    """The requests of one route; used by one thread."""

    __slots__ = ("answers", "buckets", "seconds")

    def __init__(self) -> None:
        self.answers: dict[tuple[str, int], int] = {}
        self.buckets = [0] * (len(LATENCY_S) + 1)
        self.seconds = 0.0

    def answered(self, method: str, code: int, seconds: float) -> None:
        """One request was."""
        key = method, code
        self.answers[key] = self.answers.get(key, 0) + 1
        self.buckets[bisect_left(LATENCY_S, seconds)] += 1
        self.seconds += seconds


class Requests:
    """HTTP requests by route, in plain numbers that become metrics when these are asked for.

    prometheus_client's own take a lock for each number, three of them for each request.
    """

    _LE = (*(str(float(bound)) for bound in LATENCY_S), "+Inf")

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}

    def route(self, label: str) -> Route:
        """The route of that name; the same one for the same name."""
        return self._routes.setdefault(label, Route())

    def collect(self) -> Iterator[Metric]:
        """Asked for by the registry, in any thread."""
        answers = CounterMetricFamily(
            "streamapp_http_requests_total",
            "Requests answered",
            labels=("route", "method", "code"),
        )
        seconds = HistogramMetricFamily(
            "streamapp_http_request_duration_seconds", "Time to answer", labels=("route",)
        )
        for label, route in list(self._routes.items()):
            for (method, code), count in list(route.answers.items()):
                answers.add_metric((label, method, str(code)), count)
            upto = list(zip(self._LE, accumulate(route.buckets), strict=True))
            seconds.add_metric((label,), upto, route.seconds)
        yield answers
        yield seconds
