"""One attempt at one delivery, and what its answer means."""

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp

from streamapp.agents.exports.body import Message
from streamapp.core.clock import Clock
from streamapp.core.exports import Export
from streamapp.core.signing import signed_headers

USER_AGENT = "streamapp-export"
_GONE = 410
_THROTTLING = frozenset({429, 503})
#: No receiver keeps us waiting longer with ``Retry-After``.
RETRY_AFTER_S_MAX = 3600.0
#: Of an answer that says no, so much is read for the reason.
_REASON_BYTES = 300
_CONNECTIONS_MAX = 64


class Answer(NamedTuple):
    """``outcome``: delivered, gone, throttled, refused or failed; the last without an answer."""

    outcome: str
    reason: str = ""
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Waits between attempts, in seconds: doubling, with jitter."""

    first_s: float = 1.0
    max_s: float = 60.0

    def wait_s(self, attempt: int, answer: Answer) -> float:
        """Before the next one; ``attempt`` counts from 1."""
        doubled: float = min(self.first_s * 2 ** min(attempt - 1, 30), self.max_s)
        spread = random.uniform(0.5, 1.0)  # noqa: S311  # jitter
        return max(doubled * spread, answer.retry_after_s * (2 - spread))


class Poster:
    """Posts; one for a process.

    Follows no redirect, keeps no cookies, asks no proxy of the environment.

    Args:
        clock: for the time that is signed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT},
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(self, export: Export, message: Message) -> Answer:
        """One attempt, signed now."""
        sent_s = self._clock.now_us() // 1_000_000
        headers = {
            "Content-Type": message.media,
            **signed_headers(export.keys, message.id, sent_s, message.body),
        }
        try:
            async with (
                asyncio.timeout(export.timeout_s),
                self._session.post(
                    export.webhook_url, data=message.body, headers=headers, allow_redirects=False
                ) as response,
            ):
                if 200 <= response.status < 300:
                    return Answer("delivered")
                return await self._no(response)
        except TimeoutError:
            return Answer("failed", f"no answer within {export.timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer("failed", f"{type(error).__name__}: {error}"[:_REASON_BYTES])

    async def _no(self, response: aiohttp.ClientResponse) -> Answer:
        said = (await response.content.read(_REASON_BYTES)).decode(errors="replace")
        reason = f"{response.status} {''.join(c if c.isprintable() else ' ' for c in said)}".strip()
        if response.status == _GONE:
            return Answer("gone", reason)
        if response.status in _THROTTLING:
            return Answer("throttled", reason, self._after_s(response.headers.get("Retry-After")))
        return Answer("refused", reason)

    def _after_s(self, said: str | None) -> float:
        """RFC 9110, 10.2.3: seconds, or a date; what is neither says nothing."""
        text = (said or "").strip()
        if text.isascii() and text.isdecimal():
            return min(float(text[:9]), RETRY_AFTER_S_MAX)
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):  # the latter: a year of ten digits
            return 0.0
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        now = datetime.fromtimestamp(self._clock.now_us() / 1_000_000, UTC)
        return min(max((moment - now).total_seconds(), 0.0), RETRY_AFTER_S_MAX)
