"""The client for programs with an event loop."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from io import BytesIO
from typing import Self
from uuid import uuid4

import aiohttp
from yarl import URL

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
from streamapp.core.steps import read_at_most, take_async

_BROKEN = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError, TimeoutError)


class AsyncClient:
    """Sends events to a gateway; any task of the event loop may call.

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
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def retries(self) -> int:
        """Requests that were repeated so far."""
        return self._steps.retries

    async def send(
        self, event: Event, *, topic: str | None = None, key: str | None = None, wait: Wait = "ack"
    ) -> Received:
        """Send one event; see :meth:`streamapp.client.blocking.Client.send`."""
        return received(await self.send_batch([event], topic=topic, key=key, wait=wait))

    async def send_batch(
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
        return await take_async(
            self._steps.batch(lines, topic=topic, key=key, wait=wait), self._post
        )

    async def send_many(
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
        async for outcome in self.stream(events, topic=topic, key=key, wait=wait):
            report.add((outcome,))
        return report

    async def stream(
        self,
        events: Iterable[Event],
        *,
        topic: str | None = None,
        key: str | None = None,
        wait: Wait = "ack",
    ) -> AsyncIterator[Outcome]:
        """The outcome of each event of ``send_many``, as the answers come.

        Raises:
            Refuse, Retry: as ``send``.
        """
        key, first = key or str(uuid4()), 1
        for number, lines in enumerate(batches(events, *self._sizes), 1):
            steps = self._steps.batch(
                lines, first=first, topic=topic, key=f"{key}-{number}", wait=wait
            )
            for outcome in await take_async(steps, self._post):
                yield outcome
            first += len(lines)

    async def _post(self, call: Call) -> Answer | Silence:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=False)
        try:
            async with (
                asyncio.timeout(call.answer_s_max),
                self._session.post(
                    URL(self._steps.origin + call.path, encoded=True),
                    data=BytesIO(call.body),  # bytes would be written in one go
                    headers=call.headers,
                    ssl=self._tls or True,
                    allow_redirects=False,
                ) as response,
            ):
                content = await read_at_most(response, call.answer_bytes_max)
                if content is None:
                    return Silence(f"its answer has more than {call.answer_bytes_max:,} bytes")
                return Answer(response.status, content, response.headers.get("Retry-After", ""))
        except _BROKEN as error:
            return silence(error)
        except aiohttp.ClientError as error:
            return silence(error, is_http=False)
