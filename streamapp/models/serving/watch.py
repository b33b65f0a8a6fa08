"""What is told of a served model while it runs."""

from typing import Protocol

from streamapp.core.metrics import Metrics


class Watch(Protocol):
    """Called from any thread; must return at once."""

    def waited(self, seconds: float) -> None:
        """A request's time in the queue."""
        ...

    def called(self, rows: int, seconds: float) -> None:
        """A call of the model."""
        ...

    def failed(self, code: str) -> None:
        """A request that is answered by an error."""
        ...

    def stands(self, queued: int, replicas: int, memory_bytes: int) -> None:
        """Rows that wait, replicas, and bytes they are charged for."""
        ...


class Unwatched:
    """For who measures nothing."""

    def waited(self, seconds: float) -> None:
        """Ignored."""

    def called(self, rows: int, seconds: float) -> None:
        """Ignored."""

    def failed(self, code: str) -> None:
        """Ignored."""

    def stands(self, queued: int, replicas: int, memory_bytes: int) -> None:
        """Ignored."""


class Measured:
    """Into Prometheus, under the model's name with its version."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._seconds = metrics.model_seconds.labels(model)
        self._queue = metrics.model_queue_seconds.labels(model)
        self._rows = metrics.model_rows.labels(model)
        self._waiting = metrics.model_queue_rows.labels(model)
        self._replicas = metrics.model_replicas.labels(model)
        self._memory = metrics.model_memory_bytes.labels(model)

    def waited(self, seconds: float) -> None:
        """A request's time in the queue."""
        self._queue.observe(seconds)

    def called(self, rows: int, seconds: float) -> None:
        """A call of the model."""
        self._rows.inc(rows)
        self._seconds.observe(seconds)

    def failed(self, code: str) -> None:
        """A request that is answered by an error."""
        self._metrics.model_errors.labels(self._model, code).inc()

    def stands(self, queued: int, replicas: int, memory_bytes: int) -> None:
        """Rows that wait, replicas, and bytes they are charged for."""
        self._waiting.set(queued)
        self._replicas.set(replicas)
        self._memory.set(memory_bytes)
