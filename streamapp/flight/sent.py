"""An answer on its way to a client."""

from collections.abc import Callable, Iterator

import pyarrow as pa

from streamapp.core.errors import StreamappError
from streamapp.flight.border import as_flight_errors
from streamapp.flight.live import Subscription
from streamapp.flight.statements import Answer


class Sent(Iterator[pa.RecordBatch]):
    """An Answer's batches: counted at its end, and its errors Flight's."""

    def __init__(self, answer: Answer, on_query: Callable[[str], None]) -> None:
        self._answer = answer
        self._on_query = on_query

    def __next__(self) -> pa.RecordBatch:
        with as_flight_errors():
            try:
                batch = next(self._answer, None)
            except StreamappError as error:
                self._end(error.code)
                raise
        if batch is None:
            self._end("ok")
            raise StopIteration
        return batch

    def _end(self, result: str) -> None:
        self._answer.close()
        self._on_query(result)


class Followed(Iterator[tuple[pa.RecordBatch, pa.Buffer]]):
    """A Subscription's batches, its errors Flight's."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def __next__(self) -> tuple[pa.RecordBatch, pa.Buffer]:
        with as_flight_errors():
            return next(self._subscription)
