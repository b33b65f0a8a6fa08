"""The client for programs with an event loop: turns, connections, and answers that were given."""

import asyncio
from collections.abc import Callable
from typing import Self

import aiohttp

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Reject, Retry, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.core.settings import Settings
from streamapp.core.steps import read_at_most, take_async
from streamapp.models.llm.breaker import Breaker
from streamapp.models.llm.cache import Cache
from streamapp.models.llm.endpoint import Endpoint
from streamapp.models.llm.question import Answer, Question
from streamapp.models.llm.steps import Call, Heard, Silence, Steps

_BROKEN = (aiohttp.ClientError, OSError, ValueError)


class Llm:
    """Asks a language model; any task of one event loop may call.

    The same question is asked once at a time, and not at all when its answer was kept.

    Args:
        endpoint: which.
        metrics: of this process.
        cache: None: nothing is kept; it is closed with this.
        breaker: for tests.
        now_s: monotonic seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        metrics: Metrics,
        cache: Cache | None = None,
        *,
        breaker: Breaker | None = None,
        now_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self.endpoint = endpoint
        breaker = breaker or Breaker(now_s=now_s, on_change=metrics.llm_circuit.set)
        self.steps = Steps(endpoint, breaker, now_s=now_s)
        self._metrics = metrics
        self._cache = cache
        self._turns = asyncio.Semaphore(endpoint.calls_max)
        self._asked: dict[str, asyncio.Task[Answer]] = {}
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics, *, keep: bool = True) -> "Llm | None":
        """The one that the settings declare, for one event loop; None: there is none.

        With ``keep`` its answers are kept in the project's home.

        Raises:
            Refuse: ``llm.url``, ``llm.key``.
        """
        endpoint = Endpoint.of(settings)
        if endpoint is None:
            return None
        cache = Cache(settings.llm_answers_file, settings.llm_answers_max) if keep else None
        return cls(endpoint, metrics, cache)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End what is being asked, close the connections and the cache."""
        asked = list(self._asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._cache is not None:
            await asyncio.to_thread(self._cache.close)

    async def ask(self, question: Question) -> Answer:
        """The model's answer, or the one it gave before.

        Raises:
            Retry: there is none in time, or ``llm.busy`` too many wait.
            Reject: the model does not answer this; another question may do.
            Refuse: the endpoint is not what was declared.
        """
        key = question.key(self.endpoint.base_url, self.endpoint.model)
        if self._cache is not None and key not in self._asked:
            kept = await asyncio.to_thread(self._cache.get, key)
            if kept is not None:
                self._metrics.llm_questions.labels("cached").inc()
                return kept
        task = self._asked.get(key)
        if task is None:
            if len(self._asked) >= self.endpoint.calls_max + self.endpoint.waiting_max:
                self._metrics.llm_questions.labels("busy").inc()
                raise Retry("llm.busy", f"{len(self._asked)} questions wait for the language model")
            task = asyncio.create_task(self._answered(question, key))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        else:
            self._metrics.llm_questions.labels("shared").inc()
        return await asyncio.shield(task)  # one caller that goes away takes it from nobody

    def _forget(self, key: str, task: asyncio.Task[Answer]) -> None:
        self._asked.pop(key, None)
        if not task.cancelled():
            task.exception()  # its callers may have gone away

    async def _answered(self, question: Question, key: str) -> Answer:
        outcome = "failed"
        try:
            async with self._turns:
                started_s = monotonic_s()
                answer = await take_async(self.steps.ask(question), self._counted)
            self._metrics.llm_seconds.observe(monotonic_s() - started_s)
            self._metrics.llm_tokens.labels("in").inc(answer.tokens_in)
            self._metrics.llm_tokens.labels("out").inc(answer.tokens_out)
            outcome = "answered"
        except Reject:
            outcome = "rejected"
            raise
        except StreamappError as error:
            outcome = error.code.removeprefix("llm.")
            raise
        finally:
            self._metrics.llm_questions.labels(outcome).inc()
        if self._cache is not None:
            await asyncio.to_thread(self._cache.put, key, answer)
        return answer

    async def _counted(self, call: Call) -> Heard | Silence:
        heard = await self._said(call)
        self._metrics.llm_calls.labels(_outcome(heard)).inc()
        return heard

    async def _said(self, call: Call) -> Heard | Silence:
        if self._session is None:
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            if self.endpoint.api_key:
                headers["Authorization"] = f"Bearer {self.endpoint.api_key}"
            self._session = aiohttp.ClientSession(
                headers=headers, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
        try:
            async with (
                asyncio.timeout(call.answer_s_max),
                self._session.request(
                    call.method,
                    self.endpoint.base_url + call.path,
                    data=call.body,
                    allow_redirects=False,
                ) as response,
            ):
                content = await read_at_most(response, call.answer_bytes_max)
                if content is None:
                    return Silence(f"its answer has more than {call.answer_bytes_max:,} bytes")
                return Heard(response.status, content, response.headers.get("Retry-After", ""))
        except TimeoutError:
            return Silence(f"no answer within {call.answer_s_max:g} s")
        except _BROKEN as error:
            return Silence(f"{type(error).__name__}: {error}"[:300])


def _outcome(heard: Heard | Silence) -> str:
    """One of few: a label."""
    return "silent" if isinstance(heard, Silence) else f"{heard.status // 100}xx"
