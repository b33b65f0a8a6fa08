"""How a question is put to a server until there is an answer, without a socket.

:meth:`Steps.ask` is a generator.  It yields a :class:`Call` and is sent what came of it, or yields
a :class:`Pause`; what it returns is the answer.  Who runs it has the sockets.
"""

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.core.steps import Pause, retry_after_s
from streamapp.models.llm.breaker import Breaker, RetryBudget
from streamapp.models.llm.endpoint import Endpoint
from streamapp.models.llm.extract import objects
from streamapp.models.llm.question import Answer, Question
from streamapp.models.llm.wire import (
    Completion,
    Mode,
    complaint,
    completion,
    first_model,
    is_too_long,
    quirk_of,
    request,
)

_ANSWER_BYTES_MAX = 1 << 20
_PAUSE_S_FIRST, _PAUSE_S_MAX = 0.25, 8.0
#: A server that wants to be left alone for longer is asked after this time all the same.
_GATE_S_MAX = 600.0
_SEE = "see that it runs, and that llm_base_url is where it does"
#: Of an answer that was none, so much is shown to the model again.
_SHOWN_CHARS = 2000
_STEPPING = frozenset({400, 405, 415, 422, 501})
_BUSY = frozenset({408, 409, 425, 429, 503, 529})
#: The address, model or key is wrong; so is an address that leads to another one.
_WRONG = frozenset({301, 302, 303, 307, 308, 401, 402, 403, 404})


class Call(NamedTuple):
    """A request; an answer of more than ``answer_bytes_max`` is none."""

    method: str
    path: str
    body: bytes | None
    answer_s_max: float
    answer_bytes_max: int = _ANSWER_BYTES_MAX


class Heard(NamedTuple):
    """What a server said."""

    status: int
    content: bytes
    retry_after: str = ""


class Silence(NamedTuple):
    """That it said nothing, and why."""

    why: str


Progress = Generator[Call | Pause, Heard | Silence | None, Answer]


class _Again(NamedTuple):
    """To be asked once more: at once, or (``pauses``) after a while."""

    why: str
    pauses: bool = False
    asked_s: float = 0.0


@dataclass(slots=True)
class _Asking:
    """One question on its way; ``refused``: modes that the server would not take."""

    question: Question
    mode: Mode
    tokens_max: int
    begun_s: float
    attempts: int = 0
    refused: bool = False
    doubled: bool = False
    more: list[dict[str, str]] = field(default_factory=list)
    tokens_in: int = 0
    tokens_out: int = 0


class Steps:
    """The steps of all questions to one endpoint; what it turns out to be like is remembered.

    Args:
        endpoint: which.
        breaker: of this endpoint.
        budget: of this endpoint.
        now_s: monotonic seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        breaker: Breaker | None = None,
        budget: RetryBudget | None = None,
        *,
        now_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self.endpoint = endpoint
        self.breaker = breaker or Breaker(now_s=now_s)
        #: As it is asked; the endpoint's, or the first one that it listed.
        self.model = endpoint.model
        #: The surest way to JSON that it has shown to have.
        self.mode = Mode.JSON_SCHEMA
        #: Calls that were repeated, of all questions.
        self.retries = 0
        self._budget = budget or RetryBudget()
        self._quirks: frozenset[str] = frozenset()
        self._not_before_s = 0.0
        self._now_s = now_s

    def ask(self, question: Question) -> Progress:
        """Ask until there is an answer that the question's schema takes.

        Raises:
            Retry: it does not answer in time, or is left alone because it did not; nothing else
                would be said by asking at once again.
            Reject: it answers, and not what was asked for: ``llm.refused``, ``llm.too_long``,
                ``llm.cut``, ``llm.answer``.
            Refuse: ``llm.endpoint`` it takes no such calls of us.
        """
        self._budget.called()
        asking = _Asking(question, self.mode, self.endpoint.tokens_max, self._now_s())
        pause_s, why = _PAUSE_S_FIRST, ""
        while True:
            yield from self._wait_for_gate(asking)
            self._admit(why)
            if self.model:
                outcome = self._judged(asking, (yield self._call(asking)))
            else:
                outcome = self._named((yield Call("GET", "/models", None, self._answer_s(asking))))
            if isinstance(outcome, Answer):
                return outcome
            why = outcome.why
            if outcome.pauses:
                wait_s = max(outcome.asked_s, pause_s * random.uniform(0.5, 1))  # noqa: S311  # jitter
                self._repeat_after(asking, wait_s, outcome.why)
                yield Pause(wait_s)
                pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    # -- one call

    def _admit(self, why: str) -> None:
        """As the breaker does; who has asked already hears ``why`` that brought no answer."""
        try:
            self.breaker.admit()
        except Retry as shut:
            if not why:
                raise
            told = f"{self.endpoint.base_url}: {why}; {shut.message}"
            raise Retry(shut.code, told, _SEE) from None

    def _call(self, asking: _Asking) -> Call:
        asking.attempts += 1
        thinking = {"chat_template_kwargs": {"enable_thinking": False}}
        body = request(
            asking.question,
            asking.mode,
            self.model,
            asking.tokens_max,
            asking.more,
            self._quirks,
            thinking if self.endpoint.no_thinking else None,
        )
        return Call("POST", "/chat/completions", body, self._answer_s(asking))

    def _answer_s(self, asking: _Asking) -> float:
        """What a call may take: a question ends by ``retry_s`` and one call more."""
        spent_s = self._now_s() - asking.begun_s
        return max(self.endpoint.answer_s_max - max(spent_s - self.endpoint.retry_s, 0), 1.0)

    def _wait_for_gate(self, asking: _Asking) -> Generator[Pause, None, None]:
        """What a server asked for by Retry-After holds for all questions."""
        left_s = self._not_before_s - self._now_s()
        if left_s > 0:
            if self._now_s() - asking.begun_s + left_s > self.endpoint.retry_s:
                raise Retry(
                    "llm.throttled",
                    f"{self.endpoint.base_url} wants to be asked again in {left_s:.0f} s",
                    "raise llm_retry_s, or its limits",
                )
            yield Pause(left_s)

    def _repeat_after(self, asking: _Asking, wait_s: float, why: str) -> None:
        """Take a repeat, or say that there is none left."""
        url = self.endpoint.base_url
        if self._now_s() - asking.begun_s + wait_s > self.endpoint.retry_s:
            raise Retry("llm.unanswered", f"{url}: {why}", _SEE)
        if not self._budget.take():
            raise Retry("llm.budget", f"{url}: {why}; too many calls fail to repeat all of them")
        self.retries += 1

    # -- what came of it

    def _judged(self, asking: _Asking, heard: Heard | Silence | None) -> Answer | _Again:
        assert heard is not None  # noqa: S101  # who runs a Call answers it
        if isinstance(heard, Silence):
            self.breaker.failure()
            return _Again(heard.why, pauses=True)
        if heard.status != 200:
            return self._refused(asking, heard)
        told = completion(heard.content)
        if told is None:
            self.breaker.failure()
            return _Again(f"no chat completion: {self._complaint(heard)[:120]!r}", pauses=True)
        self.breaker.success()
        asking.tokens_in += told.tokens_in
        asking.tokens_out += told.tokens_out
        return self._read(asking, told)

    def _refused(self, asking: _Asking, heard: Heard) -> _Again:
        why = f"HTTP {heard.status}: {self._complaint(heard) or 'nothing'}"
        if heard.status in _WRONG:
            self.breaker.failure()
            raise Refuse(
                "llm.endpoint",
                f"{self.endpoint.base_url}, model {self.model!r}: {why}",
                "check llm_base_url (it usually ends in /v1), llm_model and llm_api_key",
            )
        if heard.status in _STEPPING:
            self.breaker.success()
            return self._step_down(asking, heard, why)
        if heard.status not in _BUSY and asking.mode < Mode.PROMPT:
            asking.mode = Mode(asking.mode + 1)  # some fail on a mode instead of refusing it
        return self._put_off(heard, why)

    def _put_off(self, heard: Heard, why: str) -> _Again:
        """It is busy, or fails: what it asks for by Retry-After holds for all questions."""
        asked_s = min(retry_after_s(heard.retry_after), _GATE_S_MAX)
        self._not_before_s = max(self._not_before_s, self._now_s() + asked_s)
        if heard.status == 429:
            self.breaker.success()  # it lives
        else:
            self.breaker.failure()
        return _Again(why, pauses=True, asked_s=asked_s)

    def _complaint(self, heard: Heard) -> str:
        """What is wrong, in the server's words; one that says our key again says it to nobody."""
        key = self.endpoint.api_key.encode()
        return complaint(heard.content.replace(key, b"***") if key else heard.content)

    def _step_down(self, asking: _Asking, heard: Heard, why: str) -> _Again:
        """A 4xx is about a parameter, or about the way to JSON: the next one down is tried."""
        if is_too_long(heard.content):
            raise Reject("llm.too_long", why, "ask about less, or give the model more context")
        quirk = quirk_of(heard.content)
        if quirk and quirk not in self._quirks:
            self._quirks |= {quirk}
            return _Again(why)
        if asking.mode is Mode.PROMPT:
            raise Reject("llm.refused", f"{self.endpoint.base_url}: {why}", "see its log")
        asking.mode = Mode(asking.mode + 1)
        asking.refused = True
        return _Again(why)

    def _read(self, asking: _Asking, told: Completion) -> Answer | _Again:
        """The answer in what was said; else asked for once more, with the reason."""
        question, why = asking.question, "there is no JSON object in it"
        # With JSON forced some servers leave all of it in the field for reasoning.
        for value in objects(told.said.answer or told.said.reasoning):
            why = question.wrong(value) or ""
            if not why:
                return self._answer(asking, told, value)
        if told.finish == "length":
            if asking.doubled:
                raise Reject("llm.cut", "its answer was cut off twice", "raise llm_tokens_max")
            asking.doubled, asking.tokens_max = True, 2 * asking.tokens_max
            return _Again("its answer was cut off")
        if asking.more:
            raise Reject("llm.answer", f"{self.model} twice gave no answer: {why}", "")
        shown = told.said.answer[:_SHOWN_CHARS] or "(nothing)"
        asking.more = [
            {"role": "assistant", "content": shown},
            {"role": "user", "content": f"That is not it: {why}. Answer with the JSON object."},
        ]
        return _Again(why)

    def _answer(self, asking: _Asking, told: Completion, value: dict[str, object]) -> Answer:
        if asking.refused:
            self.mode = max(self.mode, asking.mode)
        return Answer(
            value=value,
            model=told.model or self.model,
            mode=asking.mode.told,
            tokens_in=asking.tokens_in,
            tokens_out=asking.tokens_out,
            reasoning_chars=len(told.said.reasoning),
            attempts=asking.attempts,
        )

    def _named(self, heard: Heard | Silence | None) -> _Again:
        """The model that is asked when none was declared."""
        if isinstance(heard, Heard) and heard.status == 200:
            self.model = first_model(heard.content)
            if self.model:
                self.breaker.success()
                return _Again("")
            why = "GET /models lists none"
        elif isinstance(heard, Heard):
            why = f"GET /models: HTTP {heard.status}: {self._complaint(heard)}"
            if heard.status not in _WRONG:
                return self._put_off(heard, why)
        else:
            self.breaker.failure()
            return _Again(heard.why if heard is not None else "", pauses=True)
        self.breaker.failure()
        raise Refuse("llm.endpoint", f"{self.endpoint.base_url}: {why}", "set llm_model")
