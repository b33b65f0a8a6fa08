"""The client for programs without an event loop."""

import http.client
import select
import ssl
from collections.abc import Iterable, Iterator, Sequence
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

from streamapp.client.lines import Event, batches, line_of
from streamapp.client.outcomes import Outcome, Received, Report
from streamapp.client.steps import (
    Answer,
    Call,
    Patience,
    Silence,
    Steps,
    Wait,
    received,
    silence,
)
from streamapp.core.clock import monotonic_s
from streamapp.core.steps import take

_CHUNK_BYTES = 1 << 16


class Client:
    """Sends events to a gateway; any thread may call.

    Args:
        url: of the gateway.
        token: as ``streamapp token create`` showed it, if the gateway asks for one.
        patience: how long to wait for answers.
        tls: of an https URL, for a private authority or a certificate of one's own.
        batch_events: events of one request.
        batch_bytes: bytes of one request; a larger event goes alone.

    Raises:
        Refuse: ``client.url``, ``client.token``.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:9382",
        token: str = "",
        *,
        patience: Patience | None = None,
        tls: ssl.SSLContext | None = None,
        batch_events: int = 500,
        batch_bytes: int = 1 << 20,
    ) -> None:
        self._steps = Steps(url, token, patience)
        self._sizes = batch_events, batch_bytes
        self._tls = tls
        #: Open connections that nobody uses.
        self._idle: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        while self._idle:
            self._idle.pop().close()

    @property
    def retries(self) -> int:
        """Requests that were repeated so far."""
        return self._steps.retries

    def send(
        self, event: Event, *, topic: str | None = None, key: str | None = None, wait: Wait = "ack"
    ) -> Received:
        """Send one event.

        Args:
            event: a text, a JSON object's bytes, or what JSON writes as an object.
            topic: None for the gateway's default.
            key: what makes a repeat of this call the same event, when the event has no ``id``;
                every attempt of this call has the same one anyway.
            wait: ``ack`` until the log has it, ``accepted`` until the gateway has.

        Raises:
            Reject: the event is bad; the code says how.
            Refuse: the request is (token, topic, URL).
            Retry: there was no answer in time; with the same key it can be sent again.
        """
        return received(self.send_batch([event], topic=topic, key=key, wait=wait))

    def send_batch(
        self,
        events: Sequence[Event],
        *,
        topic: str | None = None,
        key: str | None = None,
        wait: Wait = "ack",
    ) -> list[Outcome]:
        """Send events in one request; the outcome of each, in their order.

        Raises:
            Refuse, Retry: as ``send``; some of the events may have been taken.
        """
        lines = [line_of(event, number) for number, event in enumerate(events, 1)]
        key = key or str(uuid4())
        return take(self._steps.batch(lines, topic=topic, key=key, wait=wait), self._post)

    def send_many(
        self,
        events: Iterable[Event],
        *,
        topic: str | None = None,
        key: str | None = None,
        wait: Wait = "ack",
    ) -> Report:
        """Send any number of events in requests of many; what became of them.

        Repeat a call that ended in Retry with the same key and events: none becomes two.

        Raises:
            Refuse, Retry: as ``send``.
        """
        report = Report()
        report.add(self.stream(events, topic=topic, key=key, wait=wait))
        return report

    def stream(
        self,
        events: Iterable[Event],
        *,
        topic: str | None = None,
        key: str | None = None,
        wait: Wait = "ack",
    ) -> Iterator[Outcome]:
        """The outcome of each event of ``send_many``, as the answers come.

        Raises:
            Refuse, Retry: as ``send``.
        """
        key, first = key or str(uuid4()), 1
        for number, lines in enumerate(batches(events, *self._sizes), 1):
            steps = self._steps.batch(
                lines, first=first, topic=topic, key=f"{key}-{number}", wait=wait
            )
            yield from take(steps, self._post)
            first += len(lines)

    def _post(self, call: Call) -> Answer | Silence:
        connection = self._connection()
        end_s = monotonic_s() + call.answer_s_max
        done = False
        try:
            connection.timeout = call.answer_s_max
            if connection.sock is not None:
                connection.sock.settimeout(call.answer_s_max)
            try:
                connection.request("POST", call.path, call.body, call.headers)
            except (BrokenPipeError, ConnectionResetError):
                # A gateway may answer, and close, before it has read what it does not want.
                if connection.sock is None:
                    raise
            answer = _read(connection, call.answer_bytes_max, end_s)
            done = connection.sock is not None
        except (OSError, http.client.IncompleteRead) as error:
            return silence(error)
        except http.client.HTTPException as error:
            return silence(error, is_http=False)
        finally:
            if done:
                self._idle.append(connection)
            else:
                connection.close()
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        while self._idle:
            connection = self._idle.pop()
            if not _is_over(connection):
                return connection
            connection.close()
        parts = urlsplit(self._steps.url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, parts.port, context=self._tls)
        return http.client.HTTPConnection(host, parts.port)


def _read(connection: http.client.HTTPConnection, bytes_max: int, end_s: float) -> Answer | Silence:
    """The whole answer, until a time that a slow gateway cannot stretch."""
    content = bytearray()
    with connection.getresponse() as response:
        while chunk := response.read1(_CHUNK_BYTES):
            content += chunk
            left_s = end_s - monotonic_s()
            if left_s <= 0:
                raise TimeoutError("the answer did not end in time")
            if len(content) > bytes_max:
                connection.close()
                return Silence(f"its answer has more than {bytes_max:,} bytes")
            if connection.sock is not None:
                connection.sock.settimeout(left_s)
        if response.length:
            return Silence(f"its answer ends {response.length:,} bytes before its end")
        return Answer(response.status, bytes(content), response.headers.get("Retry-After", ""))


def _is_over(connection: http.client.HTTPConnection) -> bool:
    """Whether an idle connection was closed at the other end: it is readable, and nobody asked."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
